//! What a person would tell: one story per rule.

use std::time::Duration;

use alicia_contract::orchestrator::InstanceState::{
    Backoff, Completed, Failed, Running, Starting, Stopped, Stopping, Waiting,
};
use alicia_contract::orchestrator::Verb;
use serde_json::json;

use super::world::World;
use crate::core::event::{Event, Role, SpawnFault, Verdict};

fn one() -> World {
    World::new(json!({ "api": { "command": "api" } }))
}

/// `web` needs `api` healthy, `api` needs `db` healthy and `migrate` completed.
fn chain() -> World {
    World::new(json!({
        "web": { "command": "web", "depends_on": ["api"] },
        "api": { "command": "api", "depends_on": { "db": "healthy", "migrate": "completed" } },
        "db": { "command": "db", "readiness": { "tcp": { "port": 1 } } },
        "migrate": { "command": "m", "restart": "on-failure", "depends_on": ["db"] },
    }))
}

fn chain_up() -> World {
    let mut world = chain();
    world.answer_spawns();
    world.judge(&world.run("db", 1), Role::Readiness, Verdict::Good);
    world.answer_spawns();
    world.end(&world.run("migrate", 1), Some(0));
    world.answer_spawns();
    world.story();
    world
}

#[test]
fn services_start_when_what_they_need_is_there() {
    let mut world = chain();
    assert_eq!(world.spawns.len(), 1);
    world.answer_spawns();
    assert_eq!(world.states("db"), [Starting]);
    assert_eq!(world.states("migrate"), [Waiting]);
    assert_eq!(
        world.instances("migrate")[0].reason,
        "waits for db to be healthy: instance 1 is starting"
    );
    world.judge(&world.run("db", 1), Role::Readiness, Verdict::Good);
    world.answer_spawns();
    assert_eq!(world.states("api"), [Waiting]);
    world.end(&world.run("migrate", 1), Some(0));
    world.answer_spawns();
    for service in ["db", "api", "web"] {
        assert_eq!(world.states(service), [Running], "{service}");
    }
    assert_eq!(world.states("migrate"), [Completed]);
    assert!(world.core.is_settled(
        &world.fleet.services.keys().cloned().collect::<Vec<_>>(),
        Duration::MAX
    ));
}

#[test]
fn everything_stops_in_reverse_order_and_each_waits_for_an_empty_tree() {
    let mut world = chain_up();
    let api = world.run("api", 1);
    world.held.get_mut(&api).expect("it runs").children = true;
    world.tell(Event::Shutdown);
    assert_eq!(world.states("web"), [Stopping]);
    assert_eq!(world.states("api"), [Running]);
    world.finish_stops();
    assert_eq!(world.states("api"), [Stopping]);
    world.end(&api, Some(0));
    assert_eq!(
        world.states("db"),
        [Running],
        "the tree of api is not empty"
    );
    world.empty(&api);
    assert_eq!(world.states("db"), [Stopping]);
    world.finish_stops();
    assert!(world.core.is_quiet());
}

#[test]
fn a_crash_is_followed_by_an_immediate_restart_with_its_cause() {
    let mut world = one();
    world.answer_spawns();
    world.story();
    world.end(&world.run("api", 1), None);
    assert_eq!(world.spawns.len(), 1, "it waits for nothing");
    world.answer_spawns();
    assert_eq!(
        world.story(),
        ["api-1 backoff", "api-1 starting", "api-1 running"]
    );
    let instance = &world.instances("api")[0];
    assert_eq!((instance.restarts, instance.epoch.0), (1, 2));
    assert_eq!(
        instance.exit.as_ref().expect("it ended").cause,
        "killed by SIGKILL"
    );
}

#[test]
fn a_crash_loop_waits_longer_each_time_and_ends_in_failed() {
    let mut world = one();
    let mut waits = Vec::new();
    for _ in 0..6 {
        world.answer_spawns();
        world.end(&world.run("api", 1), Some(1));
        let before = world.now;
        if let Some(at) = world.core.next_timer()
            && world.states("api") == [Backoff]
        {
            waits.push((at - before).as_millis());
            world.pass(at - before);
        }
    }
    assert_eq!(world.states("api"), [Failed]);
    assert_eq!(waits.len(), 4, "the first restart is immediate: {waits:?}");
    assert!(waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
    let reason = &world.instances("api")[0].reason;
    assert_eq!(
        reason,
        "exit code 1; 6 starts within 1m; the next try is in 5m"
    );
    world.command(Verb::Start, &["api"], None);
    world.answer_spawns();
    assert_eq!(world.states("api"), [Running]);
    assert_eq!(world.instances("api")[0].restarts, 0);
}

#[test]
fn a_good_run_gives_a_clean_slate() {
    let mut world = one();
    for _ in 0..20 {
        world.answer_spawns();
        world.pass(Duration::from_secs(31));
        world.end(&world.run("api", 1), Some(1));
        assert_eq!(world.spawns.len(), 1, "at once");
    }
}

#[test]
fn the_policy_decides_what_follows_an_end() {
    let check = |policy: &str, code: Option<i32>, expected| {
        let spec = json!({ "command": "x", "restart": policy, "success_exit_codes": [3] });
        let mut world = World::new(json!({ "job": spec }));
        world.answer_spawns();
        world.end(&world.run("job", 1), code);
        assert_eq!(world.states("job"), [expected], "{policy} {code:?}");
    };
    check("always", Some(0), Backoff);
    check("on-failure", Some(0), Completed);
    check("on-failure", Some(3), Completed);
    check("on-failure", Some(1), Backoff);
    check("on-failure", None, Backoff);
    check("never", Some(3), Completed);
    check("never", Some(1), Failed);
}

#[test]
fn a_lasting_fault_fails_at_once_and_a_passing_one_is_tried_again() {
    let mut world = one();
    world.answer_spawn(Some(SpawnFault::Lasting("program not found".into())));
    assert_eq!(world.states("api"), [Failed]);
    let reason = world.instances("api")[0].reason.clone();
    assert_eq!(reason, "program not found; the next try is in 5m");
    let mut world = one();
    world.answer_spawn(Some(SpawnFault::Passing("port 80 is taken".into())));
    assert_eq!(world.states("api"), [Backoff]);
    assert_eq!(world.spawns.len(), 1);
}

#[test]
fn one_that_never_gets_ready_is_restarted_until_the_limit() {
    let mut world = World::new(json!({
        "db": { "command": "db", "start_timeout": "5s", "readiness": { "tcp": { "port": 1 } } },
    }));
    for round in 1..=6 {
        world.answer_spawns();
        assert_eq!(world.states("db"), [Starting], "round {round}");
        world.pass(Duration::from_secs(5));
        assert_eq!(world.states("db"), [Stopping]);
        world.finish_stops();
        world.pass(Duration::from_secs(4));
    }
    assert_eq!(world.states("db"), [Failed]);
    assert!(
        world.instances("db")[0]
            .reason
            .starts_with("not ready within 5s")
    );
}

#[test]
fn a_liveness_failure_ends_the_tree_and_restarts_it() {
    let mut world =
        World::new(json!({ "api": { "command": "x", "liveness": { "tcp": { "port": 1 } } } }));
    world.answer_spawns();
    let old = world.run("api", 1);
    assert!(world.watched[&old].contains(&Role::Liveness));
    world.held.get_mut(&old).expect("it runs").children = true;
    world.judge(&old, Role::Liveness, Verdict::Bad("refused".into()));
    world.end(&old, None);
    assert!(world.spawns.is_empty(), "a child of the old run lives");
    world.empty(&old);
    world.answer_spawns();
    let instance = &world.instances("api")[0];
    assert_eq!((instance.state, instance.restarts), (Running, 1));
    assert_eq!(
        instance.exit.as_ref().expect("it ended").cause,
        "liveness failed: refused"
    );
}

#[test]
fn what_a_leader_leaves_behind_is_cleared_before_the_restart() {
    let mut world = one();
    world.answer_spawns();
    let old = world.run("api", 1);
    world.held.get_mut(&old).expect("it runs").children = true;
    world.end(&old, None);
    assert_eq!(world.states("api"), [Backoff]);
    assert!(world.spawns.is_empty());
    world.finish_stops();
    assert_eq!(world.spawns.len(), 1);
}

#[test]
fn a_stop_is_no_restart_and_a_restart_leaves_dependents_alone() {
    let mut world = chain_up();
    world.command(Verb::Stop, &["api"], None);
    world.finish_stops();
    assert_eq!(world.states("api"), [Stopped]);
    assert_eq!(world.states("web"), [Running]);
    assert!(world.spawns.is_empty());
    world.command(Verb::Start, &["api"], None);
    world.answer_spawns();
    world.story();
    world.command(Verb::Restart, &["db"], None);
    world.finish_stops();
    world.answer_spawns();
    assert_eq!(
        world.story(),
        ["db-1 stopping", "db-1 waiting", "db-1 starting"]
    );
    assert_eq!(world.states("web"), [Running]);
}

#[test]
fn a_restart_of_everything_stops_in_reverse_and_starts_in_order() {
    let mut world = chain_up();
    world.command(Verb::Restart, &[], None);
    assert_eq!(world.states("web"), [Stopping]);
    assert_eq!(world.states("db"), [Running]);
    world.finish_stops();
    assert!(
        !world.is_running("web", 1),
        "it starts when api is there again"
    );
    world.finish_stops();
    world.finish_stops();
    world.answer_spawns();
    assert_eq!(world.states("db"), [Starting]);
    assert_eq!(world.states("web"), [Waiting]);
}

#[test]
fn scaling_adds_slots_and_takes_the_highest_away() {
    let mut world = one();
    world.answer_spawns();
    world.command(Verb::Scale, &["api"], Some(3));
    world.answer_spawns();
    assert_eq!(world.states("api"), [Running; 3]);
    world.command(Verb::Scale, &["api"], Some(1));
    assert_eq!(world.states("api"), [Running, Stopping, Stopping]);
    world.finish_stops();
    assert_eq!(world.states("api"), [Running]);
    world.command(Verb::Scale, &["api"], Some(2));
    world.answer_spawns();
    assert_eq!(
        world.instances("api")[1].epoch.0,
        2,
        "epochs rise over the life of a slot"
    );
}

#[test]
fn a_change_of_the_file_touches_only_what_changed() {
    let mut world = World::new(json!({
        "a": { "command": "a" }, "b": { "command": "b" }, "c": { "command": "c" },
    }));
    world.answer_spawns();
    world.story();
    let a = world.run("a", 1);
    let changed = json!({
        "a": { "command": "a", "labels": {"x": "y"}, "restart": "never" },
        "b": { "command": "b --new" },
        "d": { "command": "d" },
    });
    world.fleet = super::world::fleet(changed);
    world.desired();
    world.finish_stops();
    world.answer_spawns();
    assert_eq!(world.run("a", 1), a);
    assert_eq!(world.states("b"), [Running]);
    assert_eq!(
        world.instances("b")[0].restarts,
        0,
        "a new setting is no failure"
    );
    assert!(world.instances("c").is_empty());
    assert_eq!(world.states("d"), [Running]);
    assert!(world.story().iter().all(|line| !line.starts_with("a-")));
}

#[test]
fn a_new_host_takes_over_what_runs() {
    let mut world = chain_up();
    let before: Vec<_> = world.held.keys().cloned().collect();
    world.crash_host();
    assert!(world.spawns.is_empty());
    assert_eq!(world.held.keys().cloned().collect::<Vec<_>>(), before);
    assert_eq!(
        world.states("db"),
        [Running],
        "it was ready, and is not asked again"
    );
    assert_eq!(
        world.states("migrate"),
        [Completed],
        "what is done is not done again"
    );
    assert!(
        world.story().is_empty(),
        "nothing happened to the instances"
    );
}

#[test]
fn a_new_host_hears_of_what_happened_meanwhile() {
    let mut world = one();
    world.answer_spawns();
    let old = world.run("api", 1);
    world.lose_keeper(false);
    world.end(&old, Some(4));
    world.crash_host();
    let exit = world.instances("api")[0].exit.clone().expect("it ended");
    assert_eq!(exit.cause, "exit code 4");
    world.answer_spawns();
    assert_eq!(world.states("api"), [Running]);
}

#[test]
fn with_a_lost_keeper_everything_starts_again_in_order() {
    let mut world = chain_up();
    world.lose_keeper(true);
    assert!(world.spawns.is_empty());
    world.sync();
    world.answer_spawns();
    assert_eq!(world.states("db"), [Starting]);
    assert_eq!(world.states("web"), [Waiting]);
    assert_eq!(world.instances("db")[0].restarts, 0);
}

#[test]
fn a_run_that_nobody_asked_for_is_stopped() {
    let mut world = one();
    world.answer_spawns();
    world.fleet = super::world::fleet(json!({}));
    world.lose_keeper(false);
    world.crash_host();
    assert!(!world.core.is_quiet());
    world.finish_stops();
    assert!(world.core.is_quiet());
    assert!(world.held.is_empty());
}

#[test]
fn a_stop_that_is_not_heard_is_repeated() {
    let mut world = one();
    world.answer_spawns();
    world.command(Verb::Stop, &[], None);
    world.lose_stops();
    world.finish_stops();
    assert_eq!(world.states("api"), [Stopping]);
    world.pass(Duration::from_secs(15));
    world.finish_stops();
    assert_eq!(world.states("api"), [Stopped]);
}

#[test]
fn what_waits_for_a_failed_one_is_settled() {
    let mut world = chain();
    world.answer_spawn(Some(SpawnFault::Lasting("program not found".into())));
    let all: Vec<_> = world.fleet.services.keys().cloned().collect();
    assert!(world.core.is_settled(&all, Duration::MAX));
    assert_eq!(world.states("web"), [Waiting]);
}
