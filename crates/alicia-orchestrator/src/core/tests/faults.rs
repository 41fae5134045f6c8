//! Stories of what goes wrong beside the program: clocks that are set, a keeper that dies at a bad moment, a host
//! that dies in the middle, people who pause and stop while something else is under way.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::orchestrator::InstanceState::{
    Failed, Parked, Paused, Running, Starting, Stopping,
};
use alicia_contract::orchestrator::Verb;
use serde_json::{Value, json};

use super::world::{World, fleet, name, slot};
use crate::core::event::{Event, Role, UpdateEnd, Verdict};

const MINUTE: Duration = Duration::from_secs(60);
const DAY_S: f64 = 86_400.0;

fn say(world: &mut World, fields: &[(&str, String)]) {
    let instance = world.run("agent", 1);
    let fields: BTreeMap<String, String> = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    world.tell(Event::Notified(instance, fields));
}

/// The provider wants no requests before this moment of the wall clock.
fn limited_until(world: &mut World, unix: f64) {
    say(
        world,
        &[
            ("X_ALICIA_CAUSE", "provider-limit".to_owned()),
            ("X_ALICIA_RESUME_AT", unix.to_string()),
        ],
    );
    world.end(&world.run("agent", 1), Some(1));
    assert_eq!(world.states("agent"), [Parked]);
}

fn api(version: u32, instances: u32, strategy: &str) -> Value {
    json!({ "api": {
        "command": format!("api --version={version}"),
        "instances": instances,
        "readiness": { "tcp": { "port": 1 } },
        "liveness": { "tcp": { "port": 10 + version } },
        "update": { "strategy": strategy, "min_healthy": "5s", "deadline": "30s" },
    }})
}

/// Everything that waits for readiness gets it.
fn all_ready(world: &mut World) {
    world.answer_spawns();
    for run in world.watched.keys().cloned().collect::<Vec<_>>() {
        world.judge(&run, Role::Readiness, Verdict::Good);
    }
}

fn up(instances: u32, strategy: &str) -> World {
    let mut world = World::new(api(1, instances, strategy));
    all_ready(&mut world);
    world.pass(MINUTE);
    world
}

fn deploy(world: &mut World, version: u32, instances: u32, strategy: &str) {
    world.fleet = fleet(api(version, instances, strategy));
    world.desired();
}

fn commands(world: &World) -> Vec<String> {
    let held = world.held.values().filter(|held| held.lives());
    let mut found: Vec<_> = held.map(|held| held.command.clone()).collect();
    found.sort();
    found
}

#[test]
fn one_that_was_paused_on_its_way_is_asked_whether_it_is_ready_when_it_goes_on() {
    let mut world = World::agent(json!({ "readiness": { "tcp": { "port": 1 } } }));
    world.command(Verb::Pause, &["agent"], None);
    assert_eq!(world.states("agent"), [Paused]);
    world.command(Verb::Resume, &["agent"], None);
    assert_eq!(world.states("agent"), [Starting]);
    let run = world.run("agent", 1);
    world.judge(&run, Role::Readiness, Verdict::Good);
    assert_eq!(world.states("agent"), [Running]);
    world.command(Verb::Pause, &["agent"], None);
    world.command(Verb::Resume, &["agent"], None);
    assert_eq!(world.states("agent"), [Running], "it was ready before");
}

#[test]
fn one_that_is_paused_keeps_its_reason_over_a_killed_host() {
    let mut world = World::agent(json!({}));
    world.command(Verb::Pause, &["agent"], None);
    let before = world.instances("agent")[0].reason.clone();
    world.crash_host();
    assert_eq!(world.states("agent"), [Paused]);
    assert_eq!(world.instances("agent")[0].reason, before);
}

#[test]
fn more_instances_than_the_file_says_keep_what_is_remembered_of_them_over_a_killed_host() {
    let mut world = World::agent(json!({ "scaling": { "min": 1, "max": 5, "cpu": 0.5 } }));
    world.tell(Event::Scaled(name("agent"), 3));
    world.answer_spawns();
    world.command(Verb::Pause, &["agent"], None);
    world.crash_host();
    assert_eq!(world.states("agent"), [Paused; 3]);
    world.command(Verb::Resume, &["agent"], None);
    assert_eq!(world.states("agent"), [Running; 3]);
}

#[test]
fn a_pause_in_the_middle_of_saving_does_not_end_the_watch_over_its_work() {
    let mut world = World::agent(json!({ "progress": {
        "within": "10s", "then": "checkpoint", "checkpoint_within": "30s" } }));
    world.pass(Duration::from_secs(10));
    assert_eq!(world.checkpoints, 1);
    world.command(Verb::Pause, &["agent"], None);
    world.pass(MINUTE);
    world.command(Verb::Resume, &["agent"], None);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.checkpoints, 2, "it did not get on and is asked again");
    world.pass(Duration::from_secs(30));
    assert_eq!(world.states("agent"), [Stopping]);
}

#[test]
fn what_failed_or_is_parked_while_its_remains_are_cleared_away_comes_back_though_the_keeper_dies() {
    let settings = json!({
        "start_limit": { "starts": 1, "within": "1m", "retry_every": "5m" },
        "on_exit": { "park_for": "5m" },
    });
    for (code, state) in [(1, Failed), (75, Parked)] {
        let mut world = World::agent(settings.clone());
        let run = world.run("agent", 1);
        world.held.get_mut(&run).expect("it runs").children = true;
        world.end(&run, Some(code));
        assert_eq!(world.states("agent"), [state]);
        world.lose_keeper(true);
        world.sync();
        assert_eq!(world.states("agent"), [state], "that changes nothing");
        assert!(world.spawns.is_empty());
        world.pass(5 * MINUTE);
        assert_eq!(world.spawns.len(), 1, "{state:?} for ever");
    }
}

#[test]
fn a_providers_limit_outlives_an_orderly_end_of_the_house() {
    let mut world = World::agent(json!({}));
    let until = world.unix() + 600.0;
    limited_until(&mut world, until);
    world.tell(Event::Shutdown);
    assert!(world.core.is_quiet());
    world.lose_keeper(true);
    world.crash_host();
    assert_eq!(world.states("agent"), [Parked]);
    assert!(world.spawns.is_empty());
    world.pass(10 * MINUTE);
    assert_eq!(world.spawns.len(), 1);
}

#[test]
fn a_wait_for_a_moment_follows_the_wall_clock_and_ends_in_any_case() {
    let mut world = World::agent(json!({}));
    let until = world.unix() + 7_200.0;
    limited_until(&mut world, until);
    world.pass(MINUTE);
    assert!(world.spawns.is_empty());
    // The machine slept, or its clock was wrong.
    world.set_s += 7_200.0;
    world.pass(MINUTE);
    assert_eq!(world.spawns.len(), 1, "the moment has come");
    world.answer_spawns();

    let until = world.unix() + 60.0;
    limited_until(&mut world, until);
    world.set_s -= DAY_S;
    world.pass(10 * MINUTE);
    assert!(world.spawns.is_empty(), "the moment has not come");
    world.set_s -= 1_000.0 * DAY_S;
    world.pass(31 * 24 * 60 * MINUTE);
    assert_eq!(world.spawns.len(), 1, "nobody waits for ever");
}

#[test]
fn a_clock_that_was_set_back_while_no_host_ran_does_not_put_a_try_off() {
    let mut world = World::agent(
        json!({ "start_limit": { "starts": 1, "within": "1m", "retry_every": "5m" } }),
    );
    world.end(&world.run("agent", 1), Some(1));
    assert_eq!(world.states("agent"), [Failed]);
    world.set_s -= DAY_S;
    world.crash_host();
    world.pass(5 * MINUTE);
    assert_eq!(world.spawns.len(), 1);
}

#[test]
fn deadlines_that_are_moved_do_not_pile_up() {
    let mut world =
        World::agent(json!({ "readiness": { "notify": true }, "start_timeout": "10s" }));
    for ms in 0..10_000_u64 {
        world.pass(Duration::from_millis(ms % 3));
        let us = 3_600_000_000 - ms;
        say(&mut world, &[("EXTEND_TIMEOUT_USEC", us.to_string())]);
    }
    assert!(world.core.timers.len() < 10, "{}", world.core.timers.len());
}

#[test]
fn a_place_that_is_used_again_has_the_settings_of_now() {
    let mut world = up(1, "rolling");
    deploy(&mut world, 2, 1, "rolling");
    all_ready(&mut world);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.states("api"), [Stopping, Running]);
    assert_eq!(world.updated, [("api".into(), UpdateEnd::Done)]);
    // The old one takes its time, and its number is wanted again.
    world.command(Verb::Scale, &["api"], Some(2));
    world.finish_stops();
    world.answer_spawns();
    assert_eq!(commands(&world), ["api --version=2", "api --version=2"]);
}

#[test]
fn one_that_is_on_its_way_out_takes_no_place_when_the_keeper_is_back() {
    let mut world = up(1, "rolling");
    deploy(&mut world, 2, 1, "rolling");
    all_ready(&mut world);
    world.pass(Duration::from_secs(5));
    let (old, new) = (world.run("api", 1), world.run("api", 2));
    assert_eq!(world.updated, [("api".into(), UpdateEnd::Done)]);
    // The keeper did not hear that the old one is to end, and the new one died unheard.
    world.end_unheard(&new);
    world.lose_keeper(false);
    world.sync();
    world.answer_spawns();
    assert!(world.is_asked_to_end("api", 1), "it is asked again");
    world.end(&old, Some(0));
    world.answer_spawns();
    all_ready(&mut world);
    assert_eq!(commands(&world), ["api --version=2"]);
}

#[test]
fn a_service_that_leaves_the_file_during_an_update_and_is_back_at_once_has_the_new_settings() {
    let mut world = up(2, "rolling");
    deploy(&mut world, 2, 2, "rolling");
    world.answer_spawns();
    world.fleet = fleet(json!({}));
    world.desired();
    deploy(&mut world, 2, 2, "rolling");
    for _ in 0..5 {
        world.finish_stops();
        all_ready(&mut world);
        world.pass(Duration::from_secs(6));
    }
    assert_eq!(commands(&world), ["api --version=2", "api --version=2"]);
}

#[test]
fn a_service_that_went_to_sleep_is_not_woken_by_the_keeper_coming_back() {
    let mut world = World::new(json!({ "api": { "command": "api", "on_demand": {} } }));
    world.tell(Event::Called(name("api")));
    world.answer_spawns();
    world.tell(Event::Idle(name("api")));
    assert_eq!(world.states("api"), [Stopping]);
    world.lose_keeper(false);
    world.sync();
    world.finish_stops();
    assert!(world.spawns.is_empty());
}

#[test]
fn an_update_of_a_service_that_is_stopped_is_over_and_its_next_start_has_the_new_settings() {
    for strategy in ["canary", "rolling", "blue-green", "recreate"] {
        let mut world = up(2, strategy);
        deploy(&mut world, 2, 2, strategy);
        world.answer_spawns();
        world.command(Verb::Stop, &["api"], None);
        world.finish_stops();
        assert!(
            world.core.is_settled(&[name("api")], Duration::MAX),
            "{strategy}: nothing is left to wait for"
        );
        assert_eq!(world.updated, [("api".into(), UpdateEnd::Stopped)]);
        world.command(Verb::Start, &["api"], None);
        all_ready(&mut world);
        assert_eq!(
            commands(&world),
            ["api --version=2", "api --version=2"],
            "{strategy}"
        );
    }
}

#[test]
fn an_orderly_end_of_the_house_does_not_end_an_update() {
    let mut world = up(2, "rolling");
    deploy(&mut world, 2, 2, "rolling");
    world.answer_spawns();
    world.tell(Event::Shutdown);
    world.finish_stops();
    assert!(world.core.is_quiet());
    assert!(world.updated.is_empty(), "the next host goes on with it");
}

#[test]
fn a_new_instance_that_is_paused_holds_the_update_up_and_does_not_count_as_ready() {
    let mut world = up(1, "rolling");
    deploy(&mut world, 2, 1, "rolling");
    all_ready(&mut world);
    let new = slot("api", 2);
    world.command(Verb::Pause, &["api"], None);
    world.pass(10 * MINUTE);
    assert!(world.updated.is_empty());
    let progress = world
        .core
        .update_progress(&name("api"))
        .expect("it goes on");
    assert_eq!(progress, "rolling: 0 of 1 ready; instance 2 is paused");
    world.command(Verb::Resume, &["api"], None);
    assert_eq!(world.core.slot(&new).expect("it is there").state, Running);
    world.pass(Duration::from_secs(5));
    world.finish_stops();
    assert_eq!(world.updated, [("api".into(), UpdateEnd::Done)]);
    assert_eq!(commands(&world), ["api --version=2"]);
}

#[test]
fn after_a_killed_host_old_instances_are_still_asked_with_their_own_probes() {
    let mut world = up(1, "rolling");
    let (base, old) = (world.fleet.clone(), world.run("api", 1));
    deploy(&mut world, 2, 1, "rolling");
    world.answer_spawns();
    world.crash_host_during(&base);
    let probe = &world.probes[&(old, Role::Liveness)];
    let port = probe.tcp.as_ref().and_then(|tcp| tcp.port);
    assert_eq!(port, Some(11), "{probe:?}");
}

#[test]
fn a_group_that_falls_together_starts_when_all_of_it_has_ended() {
    let mut services = json!({});
    for index in 0..20 {
        services[format!("s{index:02}")] = json!({ "command": "serve", "groups": ["all"] });
    }
    let mut world = World::new(services);
    world.fleet.groups = serde_json::from_value(json!({
        "all": { "supervision": { "strategy": "one-for-all", "restarts": 9, "within": "1m" } } }))
    .expect("groups");
    world.desired();
    world.answer_spawns();
    world.end(&world.run("s07", 1), Some(1));
    let mut runs: Vec<_> = world.held.keys().cloned().collect();
    let last = runs.pop().expect("twenty run");
    for run in runs {
        world.end(&run, Some(0));
    }
    assert!(world.spawns.is_empty(), "one has not ended");
    world.end(&last, Some(0));
    assert_eq!(world.spawns.len(), 20);
}

#[test]
fn one_that_is_ending_gets_the_time_that_it_asks_for_but_not_for_ever() {
    let mut world = World::agent(json!({ "notify": true, "stop": { "grace": "10s" } }));
    say(&mut world, &[("READY", "1".to_owned())]);
    world.command(Verb::Stop, &["agent"], None);
    for _ in 0..80 {
        say(
            &mut world,
            &[("EXTEND_TIMEOUT_USEC", "90000000".to_owned())],
        );
        world.lose_stops();
        world.pass(Duration::from_secs(50));
        let asked_again = world.is_asked_to_end("agent", 1);
        assert_eq!(
            asked_again,
            world.now > Duration::from_secs(1_000 + 3_600 + 15)
        );
        if asked_again {
            return;
        }
    }
    panic!("it is never killed");
}
