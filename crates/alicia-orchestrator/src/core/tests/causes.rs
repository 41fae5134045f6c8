//! Stories of causes: what follows an end depends on why it was.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::orchestrator::InstanceState::{
    Backoff, Completed, Failed, Parked, Paused, Running, Starting, Stopped, Stopping, Waiting,
};
use alicia_contract::orchestrator::{ExitCause, Verb};
use serde_json::json;

use super::world::World;
use crate::core::cause::Said;
use crate::core::event::{Counters, Event, Role, SpawnFault, Verdict};

const MINUTE: Duration = Duration::from_secs(60);

fn say(world: &mut World, service: &str, fields: &[(&str, &str)]) {
    let instance = world.run(service, 1);
    let fields: BTreeMap<String, String> = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    world
        .held
        .get_mut(&instance)
        .expect("it runs")
        .said
        .extend(fields.clone());
    world.tell(Event::Notified(instance, fields));
}

fn count(world: &mut World, steps: f64, tokens: f64, cost_usd: f64) {
    let instance = world.run("agent", 1);
    let counters = Counters {
        steps: Some(steps),
        tokens: Some(tokens),
        cost_usd: Some(cost_usd),
        action: None,
    };
    world.tell(Event::Counted(instance, counters));
}

fn cause(world: &World) -> ExitCause {
    let instance = &world.instances("agent")[0];
    instance.exit.as_ref().expect("it ended").class
}

#[test]
fn a_providers_limit_parks_until_the_time_it_gave_and_uses_up_no_restart() {
    let mut world = World::agent(json!({}));
    for round in 0..20 {
        let until = world.now.as_secs_f64() + 120.0;
        say(
            &mut world,
            "agent",
            &[
                ("X_ALICIA_CAUSE", "provider-limit"),
                ("X_ALICIA_RESUME_AT", &until.to_string()),
            ],
        );
        world.end(&world.run("agent", 1), Some(1));
        let parked = world.instances("agent")[0].clone();
        assert_eq!(parked.state, Parked, "round {round}");
        assert_eq!((parked.restarts, parked.next_start), (0, Some(until)));
        assert_eq!(cause(&world), ExitCause::ProviderLimit);
        world.pass(Duration::from_secs(119));
        assert!(world.spawns.is_empty());
        world.pass(Duration::from_secs(1));
        assert_eq!(world.spawns.len(), 1);
        world.answer_spawns();
    }
    assert_eq!(world.states("agent"), [Running]);
}

#[test]
fn without_a_time_it_is_parked_longer_each_time_until_a_good_run() {
    let mut world = World::agent(json!({ "on_exit": { "park_for": "10s" } }));
    let mut waits = Vec::new();
    for _ in 0..4 {
        world.end(&world.run("agent", 1), Some(75));
        let next = world.instances("agent")[0].next_start.expect("a time");
        let wait = next - world.now.as_secs_f64();
        waits.push(wait.round());
        world.pass(Duration::from_secs_f64(wait));
        world.answer_spawns();
    }
    assert_eq!(waits, [10.0, 20.0, 40.0, 80.0]);
    world.pass(MINUTE);
    world.end(&world.run("agent", 1), Some(75));
    let next = world.instances("agent")[0].next_start.expect("a time");
    assert!(
        (next - world.now.as_secs_f64() - 10.0).abs() < 0.01,
        "a clean slate"
    );
}

#[test]
fn a_fleet_that_was_parked_comes_back_five_a_second() {
    let mut world = World::new(json!({ "agent": { "command": "a", "instances": 50 } }));
    world.answer_spawns();
    let until = world.now.as_secs_f64() + 600.0;
    for instance in world.held.keys().cloned().collect::<Vec<_>>() {
        let fields = BTreeMap::from([
            ("X_ALICIA_CAUSE".to_owned(), "provider-quota".to_owned()),
            ("X_ALICIA_RESUME_AT".to_owned(), until.to_string()),
        ]);
        world.tell(Event::Notified(instance.clone(), fields));
        world.end(&instance, Some(0));
    }
    assert_eq!(world.states("agent"), [Parked; 50]);
    world.pass(Duration::from_secs(599));
    assert!(world.spawns.is_empty());
    let mut most = 0;
    let mut all = 0;
    for _ in 0..12 {
        world.pass(Duration::from_secs(1));
        most = most.max(world.spawns.len());
        all += world.spawns.len();
        world.answer_spawns();
    }
    assert_eq!((most <= 6, all), (true, 50), "at most {most} in a second");
    assert_eq!(world.states("agent"), [Running; 50]);
}

#[test]
fn what_is_parked_stays_so_over_the_end_of_the_host() {
    let mut world = World::agent(json!({ "on_exit": { "park_for": "10m" } }));
    world.end(&world.run("agent", 1), Some(75));
    let before = world.instances("agent")[0].next_start;
    world.pass(MINUTE);
    world.crash_host();
    assert_eq!(world.states("agent"), [Parked]);
    assert_eq!(world.instances("agent")[0].next_start, before);
    assert!(world.spawns.is_empty());
    world.pass(9 * MINUTE);
    world.answer_spawns();
    assert_eq!(world.states("agent"), [Running]);
}

#[test]
fn a_person_may_resume_what_is_parked() {
    let mut world = World::agent(json!({}));
    world.end(&world.run("agent", 1), Some(75));
    world.command(Verb::Resume, &["agent"], None);
    world.answer_spawns();
    assert_eq!(world.states("agent"), [Running]);
}

#[test]
fn a_stop_ends_the_parking() {
    let mut world = World::agent(json!({}));
    world.end(&world.run("agent", 1), Some(75));
    world.command(Verb::Stop, &["agent"], None);
    assert_eq!(world.states("agent"), [Stopped]);
    assert_eq!(world.instances("agent")[0].next_start, None);
    world.pass(60 * MINUTE);
    assert!(world.spawns.is_empty());
}

#[test]
fn what_a_restart_cannot_mend_is_tried_slowly() {
    for (code, class) in [
        (78, ExitCause::Configuration),
        (77, ExitCause::Authentication),
    ] {
        let mut world = World::agent(json!({}));
        world.end(&world.run("agent", 1), Some(code));
        assert_eq!(world.states("agent"), [Failed]);
        assert_eq!(cause(&world), class);
        assert!(world.instances("agent")[0].next_start.is_some());
        world.pass(5 * MINUTE);
        world.answer_spawns();
        assert_eq!(world.states("agent"), [Running]);
        world.end(&world.run("agent", 1), Some(1));
        assert_eq!(world.states("agent"), [Failed], "one end is enough now");
        world.pass(5 * MINUTE);
        world.answer_spawns();
        world.pass(MINUTE);
        world.end(&world.run("agent", 1), Some(1));
        assert_eq!(world.states("agent"), [Backoff], "it had run well");
    }
}

#[test]
fn after_the_limit_it_is_tried_slowly_unless_the_file_gives_up() {
    let mut world = World::agent(json!({ "start_limit": { "starts": 2, "retry_every": "30s" } }));
    world.end(&world.run("agent", 1), Some(1));
    world.answer_spawns();
    world.end(&world.run("agent", 1), Some(1));
    assert_eq!(world.states("agent"), [Failed]);
    let reason = world.instances("agent")[0].reason.clone();
    assert_eq!(
        reason,
        "exit code 1; 2 starts within 1m; the next try is in 1m"
    );
    world.pass(MINUTE + Duration::from_secs(1));
    assert_eq!(world.spawns.len(), 1, "not sooner than the limit has room");
    let given_up = json!({ "start_limit": { "starts": 1, "give_up": true } });
    let mut world = World::agent(given_up);
    world.end(&world.run("agent", 1), Some(1));
    assert_eq!(world.states("agent"), [Failed]);
    assert_eq!(world.instances("agent")[0].next_start, None);
    world.pass(60 * MINUTE);
    assert!(world.spawns.is_empty());
}

#[test]
fn slow_tries_go_on_with_a_new_host() {
    let mut world = World::agent(json!({}));
    world.end(&world.run("agent", 1), Some(78));
    world.crash_host();
    assert_eq!(world.states("agent"), [Failed]);
    world.pass(5 * MINUTE);
    world.answer_spawns();
    assert_eq!(world.states("agent"), [Running]);
}

#[test]
fn a_program_that_is_not_there_is_tried_slowly() {
    let mut world = World::new(json!({ "agent": { "command": "a" } }));
    world.answer_spawn(Some(SpawnFault::Lasting("program not found".into())));
    assert_eq!(world.states("agent"), [Failed]);
    assert_eq!(cause(&world), ExitCause::ProgramNotFound);
    world.pass(5 * MINUTE);
    assert_eq!(world.spawns.len(), 1);
}

#[test]
fn the_output_is_believed_last() {
    let mut world = World::agent(json!({}));
    world.output = Some(Said {
        class: ExitCause::ProviderLimit,
        resume_at: Some(world.now.as_secs_f64() + 30.0),
    });
    world.end(&world.run("agent", 1), Some(1));
    assert_eq!(world.states("agent"), [Parked]);
    let mut world = World::agent(json!({}));
    world.output = Some(Said {
        class: ExitCause::PortTaken,
        resume_at: None,
    });
    world.end(&world.run("agent", 1), Some(1));
    assert_eq!(
        (world.states("agent"), cause(&world)),
        (vec![Backoff], ExitCause::PortTaken)
    );
    let exit = world.instances("agent")[0].exit.clone().expect("it ended");
    assert_eq!(exit.cause, "exit code 1: a port is taken");
}

#[test]
fn who_asked_is_the_cause_of_what_was_asked_for() {
    let mut world = World::agent(json!({}));
    world.command(Verb::Restart, &["agent"], None);
    world.finish_stops();
    assert_eq!(cause(&world), ExitCause::Operator);
    let stopping = world.transitions.iter().find(|t| t.to == Stopping);
    assert_eq!(stopping.expect("it stopped").cause, ExitCause::Operator);
    world.answer_spawns();
    world.transitions.clear();
    world.tell(Event::Shutdown);
    world.finish_stops();
    assert_eq!(cause(&world), ExitCause::HostShutdown);
}

#[test]
fn ready_is_what_it_says_and_its_words_are_shown() {
    let mut world =
        World::agent(json!({ "readiness": { "notify": true }, "start_timeout": "10s" }));
    assert_eq!(world.states("agent"), [Starting]);
    say(
        &mut world,
        "agent",
        &[
            ("STATUS", "loads a model"),
            ("EXTEND_TIMEOUT_USEC", "30000000"),
        ],
    );
    world.pass(Duration::from_secs(20));
    assert_eq!(world.states("agent"), [Starting], "its time was extended");
    assert_eq!(
        world.instances("agent")[0].says.as_deref(),
        Some("loads a model")
    );
    world.crash_host();
    assert_eq!(world.states("agent"), [Starting]);
    say(&mut world, "agent", &[("READY", "1")]);
    assert_eq!(world.states("agent"), [Running]);
    let old = world.run("agent", 1);
    assert!(!world.watched.contains_key(&old), "nothing is tried");
}

#[test]
fn a_new_host_hears_that_it_was_ready_meanwhile() {
    let mut world = World::agent(json!({ "notify": true }));
    assert_eq!(world.states("agent"), [Starting]);
    let instance = world.run("agent", 1);
    let held = world.held.get_mut(&instance).expect("it runs");
    held.said.insert("READY".to_owned(), "1".to_owned());
    world.crash_host();
    assert_eq!(world.states("agent"), [Running]);
}

#[test]
fn one_that_makes_no_step_is_restarted() {
    let mut world = World::agent(json!({ "progress": { "within": "1m" } }));
    for minute in 1..4 {
        world.pass(Duration::from_secs(59));
        count(&mut world, f64::from(minute), 0.0, 0.0);
        assert_eq!(world.states("agent"), [Running]);
    }
    world.pass(MINUTE);
    assert_eq!(world.states("agent"), [Stopping]);
    world.finish_stops();
    assert_eq!(cause(&world), ExitCause::Progress);
    world.answer_spawns();
    assert_eq!(world.instances("agent")[0].restarts, 1);
    let work = world.instances("agent")[0].work.clone();
    assert_eq!(work, None, "the new run has told nothing yet");
}

fn repeat(world: &mut World, times: u32) {
    for _ in 0..times {
        say(world, "agent", &[("X_ALICIA_ACTION", "ls /")]);
    }
}

#[test]
fn each_action_does_what_it_says() {
    let progress = |then: &str| json!({ "progress": { "repeat": 3, "then": then } });
    let mut world = World::agent(progress("pause"));
    repeat(&mut world, 2);
    assert_eq!(world.states("agent"), [Running]);
    repeat(&mut world, 1);
    assert_eq!(world.states("agent"), [Paused]);
    assert_eq!(world.signals.last().map(|(_, signal)| *signal), Some(19));
    world.crash_host();
    assert_eq!(world.states("agent"), [Paused], "it is still held");
    world.command(Verb::Resume, &["agent"], None);
    assert_eq!(world.states("agent"), [Running]);
    assert_eq!(world.signals.last().map(|(_, signal)| *signal), Some(18));

    let mut world = World::agent(progress("ask"));
    repeat(&mut world, 5);
    assert_eq!(world.states("agent"), [Running]);
    let attention = world.instances("agent")[0]
        .attention
        .clone()
        .expect("a word");
    assert!(attention.contains("3 times in a row: ls /"), "{attention}");
    let asked = world
        .transitions
        .iter()
        .filter(|t| t.cause == ExitCause::Progress);
    assert_eq!(asked.count(), 1, "once");
    say(&mut world, "agent", &[("X_ALICIA_ACTION", "cat /etc/motd")]);
    assert_eq!(world.instances("agent")[0].attention, None, "it gets on");

    let mut world = World::agent(progress("kill"));
    repeat(&mut world, 3);
    world.finish_stops();
    assert_eq!(world.states("agent"), [Failed]);
    world.pass(60 * MINUTE);
    assert!(world.spawns.is_empty());

    let mut world = World::agent(progress("checkpoint"));
    repeat(&mut world, 3);
    assert_eq!(
        (world.states("agent"), world.checkpoints),
        (vec![Running], 1)
    );
    repeat(&mut world, 3);
    assert_eq!(world.checkpoints, 1, "once");
    say(&mut world, "agent", &[("X_ALICIA_CHECKPOINT", "done")]);
    assert_eq!(world.states("agent"), [Stopping]);
    world.finish_stops();
    world.answer_spawns();
    repeat(&mut world, 3);
    world.pass(Duration::from_secs(30));
    assert_eq!(world.states("agent"), [Stopping], "it did not answer");
}

#[test]
fn one_that_is_paused_can_be_stopped_and_is_not_probed() {
    let mut world = World::agent(json!({ "liveness": { "tcp": { "port": 1 } } }));
    let run = world.run("agent", 1);
    world.command(Verb::Pause, &["agent"], None);
    assert_eq!(world.states("agent"), [Paused]);
    assert!(!world.watched.contains_key(&run));
    world.judge(&run, Role::Liveness, Verdict::Bad("refused".into()));
    assert_eq!(world.states("agent"), [Paused]);
    world.command(Verb::Stop, &["agent"], None);
    assert_eq!(world.signals.last().map(|(_, signal)| *signal), Some(18));
    world.finish_stops();
    assert_eq!(world.states("agent"), [Stopped]);
}

#[test]
fn a_budget_that_is_used_up_parks_until_the_day_is_over() {
    let mut world = World::agent(json!({ "budget": { "tokens_per_day": 100 } }));
    count(&mut world, 1.0, 79.0, 0.0);
    assert_eq!(world.instances("agent")[0].attention, None);
    count(&mut world, 1.0, 85.0, 0.0);
    let warning = world.instances("agent")[0]
        .attention
        .clone()
        .expect("a warning");
    assert!(warning.contains("85 of 100 tokens"), "{warning}");
    count(&mut world, 1.0, 100.0, 0.0);
    assert_eq!(world.states("agent"), [Stopping]);
    world.finish_stops();
    assert_eq!(world.states("agent"), [Parked]);
    assert_eq!(world.instances("agent")[0].next_start, Some(86_400.0));
    assert_eq!(cause(&world), ExitCause::Budget);
    world.crash_host();
    assert_eq!(world.states("agent"), [Parked]);
    world.command(Verb::Start, &["agent"], None);
    assert!(world.spawns.is_empty(), "a start does not lift it");
    world.pass(Duration::from_secs(86_400));
    world.answer_spawns();
    assert_eq!(world.states("agent"), [Running]);
    count(&mut world, 1.0, 100.0, 0.0);
    world.finish_stops();
    world.command(Verb::Resume, &["agent"], None);
    world.answer_spawns();
    assert_eq!(
        world.states("agent"),
        [Running],
        "a person may let it go on"
    );
    count(&mut world, 2.0, 5_000.0, 0.0);
    assert_eq!(world.states("agent"), [Running]);
}

#[test]
fn who_meters_counts_too_and_once() {
    let mut world = World::agent(json!({ "budget": { "cost_per_day_usd": 1.0 } }));
    let spent = |world: &mut World, id: &str, cost_usd: f64| {
        let spent = alicia_contract::orchestrator::Spent {
            id: id.to_owned(),
            service: super::world::name("agent"),
            instance: None,
            tokens: 0,
            cost_usd,
            at: 0.0,
        };
        world.tell(Event::Spent(spent));
    };
    spent(&mut world, "a", 0.5);
    spent(&mut world, "a", 0.5);
    spent(&mut world, "b", f64::NAN);
    spent(&mut world, "c", -3.0);
    // The agent tells of the same money.
    count(&mut world, 1.0, 1.0, 0.5);
    assert_eq!(world.states("agent"), [Running]);
    spent(&mut world, "d", 0.5);
    assert_eq!(world.states("agent"), [Stopping]);
}

#[test]
fn a_group_has_a_budget_and_restarts_have_one() {
    let mut world = World::new(json!({
        "a": { "command": "a", "groups": ["team"] },
        "agent": { "command": "b", "groups": ["team"] },
        "other": { "command": "c" },
    }));
    world.fleet.groups =
        serde_json::from_value(json!({ "team": { "budget": { "tokens_per_day": 10 } } }))
            .expect("groups");
    world.desired();
    world.answer_spawns();
    count(&mut world, 1.0, 10.0, 0.0);
    world.finish_stops();
    assert_eq!(
        (world.states("a"), world.states("agent")),
        (vec![Parked], vec![Parked])
    );
    assert_eq!(world.states("other"), [Running]);

    let mut world = World::agent(json!({ "budget": { "restarts_per_hour": 2 } }));
    for _ in 0..2 {
        world.end(&world.run("agent", 1), Some(1));
        world.pass(MINUTE);
        world.answer_spawns();
    }
    world.end(&world.run("agent", 1), Some(1));
    assert_eq!(world.states("agent"), [Parked]);
    world.pass(60 * MINUTE);
    world.answer_spawns();
    assert_eq!(world.states("agent"), [Running]);
}

#[test]
fn running_time_is_a_budget() {
    let mut world = World::agent(json!({ "budget": { "wall_clock": "10m" } }));
    world.pass(9 * MINUTE);
    assert_eq!(world.states("agent"), [Running]);
    world.pass(2 * MINUTE);
    world.finish_stops();
    assert_eq!(world.states("agent"), [Parked]);
}

fn tree(strategy: &str) -> World {
    let mut world = World::new(json!({
        "a": { "command": "a", "groups": ["team"] },
        "b": { "command": "b", "groups": ["team"], "depends_on": ["a"] },
        "c": { "command": "c", "groups": ["team"], "depends_on": ["b"] },
        "d": { "command": "d", "groups": ["side"] },
        "e": { "command": "e" },
    }));
    world.fleet.groups = serde_json::from_value(json!({
        "team": { "parent": "all",
                  "supervision": { "strategy": strategy, "restarts": 2, "within": "1m" } },
        "side": { "parent": "all", "supervision": {} },
        "all": { "supervision": { "strategy": "one-for-all", "restarts": 1, "within": "10m" } },
    }))
    .expect("groups");
    world.desired();
    world.answer_spawns();
    world.story();
    world
}

fn restarted(world: &mut World) -> Vec<&'static str> {
    for _ in 0..8 {
        world.finish_stops();
        world.answer_spawns();
        world.pass(Duration::from_millis(300));
    }
    let story = world.story();
    let is = |name: &&str| {
        story
            .iter()
            .any(|line| *line == format!("{name}-1 starting"))
    };
    ["a", "b", "c", "d", "e"].into_iter().filter(is).collect()
}

#[test]
fn the_strategy_decides_who_is_restarted_too() {
    let check = |strategy: &str, expected: &[&str]| {
        let mut world = tree(strategy);
        world.end(&world.run("b", 1), Some(1));
        assert_eq!(restarted(&mut world), expected, "{strategy}");
        for service in ["a", "b", "c", "d", "e"] {
            assert_eq!(world.states(service), [Running], "{strategy} {service}");
        }
    };
    check("one-for-one", &["b"]);
    check("rest-for-one", &["b", "c"]);
    check("one-for-all", &["a", "b", "c"]);
}

#[test]
fn those_that_are_restarted_together_end_before_they_begin() {
    let mut world = tree("one-for-all");
    world.end(&world.run("b", 1), Some(1));
    assert!(world.spawns.is_empty(), "the others still run");
    assert_eq!(world.states("a"), [Stopping]);
    assert_eq!(world.states("c"), [Stopping]);
    world.end(&world.run("c", 1), Some(0));
    assert!(world.spawns.is_empty());
    world.finish_stops();
    assert_eq!(world.spawns.len(), 1, "in the order of the start");
    assert_eq!(world.states("b"), [Waiting]);
    let exit = world.instances("a")[0].exit.clone().expect("it ended");
    assert_eq!(exit.class, ExitCause::Supervision);
    assert_eq!(world.instances("a")[0].restarts, 0, "it did nothing wrong");
}

#[test]
fn too_many_restarts_are_the_business_of_the_group_above_and_then_of_a_person() {
    let mut world = tree("one-for-one");
    for round in 0..2 {
        world.end(&world.run("b", 1), Some(1));
        assert_eq!(restarted(&mut world), ["b"], "round {round}");
    }
    world.end(&world.run("b", 1), Some(1));
    assert_eq!(
        restarted(&mut world),
        ["a", "b", "c", "d"],
        "the whole of the group above"
    );
    for round in 0..2 {
        world.end(&world.run("b", 1), Some(1));
        assert_eq!(restarted(&mut world), ["b"], "round {round}");
    }
    world.end(&world.run("b", 1), Some(1));
    assert_eq!(restarted(&mut world), [] as [&str; 0]);
    for service in ["a", "b", "c", "d"] {
        assert_eq!(world.states(service), [Failed], "{service}");
    }
    assert_eq!(world.states("e"), [Running]);
    world.pass(5 * MINUTE);
    assert_eq!(
        restarted(&mut world),
        ["a", "b", "c", "d"],
        "tried again slowly"
    );
}

#[test]
fn a_service_supervises_its_own_instances() {
    let mut world = World::new(json!({ "agent": { "command": "a", "instances": 3,
        "supervision": { "strategy": "rest-for-one" } } }));
    world.answer_spawns();
    world.story();
    world.end(&world.run("agent", 2), Some(1));
    for _ in 0..4 {
        world.finish_stops();
        world.answer_spawns();
    }
    let started: Vec<String> = world
        .story()
        .into_iter()
        .filter(|line| line.ends_with("starting"))
        .collect();
    assert_eq!(started, ["agent-3 starting", "agent-2 starting"]);
}

#[test]
fn a_run_that_follows_an_unfinished_one_is_told_so() {
    let mut world = World::new(json!({ "agent": { "command": "a", "session": {} } }));
    let resume = |world: &World| world.spawns.front().expect("a start").resume;
    assert!(!resume(&world), "the first");
    world.answer_spawns();
    world.end(&world.run("agent", 1), Some(1));
    assert!(resume(&world));
    world.answer_spawns();
    world.end(&world.run("agent", 1), Some(0));
    world.pass(Duration::from_secs(1));
    assert!(!resume(&world), "it was done");
    world.answer_spawns();
    world.lose_keeper(true);
    world.sync();
    assert!(resume(&world), "the machine went down");
}

#[test]
fn what_happened_with_other_settings_is_not_shown() {
    let mut world = World::agent(json!({ "restart": "never" }));
    world.end(&world.run("agent", 1), Some(1));
    assert_eq!(world.states("agent"), [Failed]);
    world.fleet = super::world::fleet(json!({ "agent": { "command": "better" } }));
    world.crash_host();
    assert_eq!(world.instances("agent")[0].exit, None);
    world.answer_spawns();
    assert_eq!(world.states("agent"), [Running]);
}

#[test]
fn one_that_is_done_stays_done_whatever_it_said_before() {
    let mut world = World::agent(json!({ "restart": "on-failure" }));
    world.end(&world.run("agent", 1), Some(0));
    assert_eq!(world.states("agent"), [Completed]);
    assert_eq!(cause(&world), ExitCause::Success);
    world.pass(60 * MINUTE);
    assert_eq!(world.states("agent"), [Completed]);
}
