//! Updates as stories: the new beside the old, failures that are taken back, a host that dies on the way.

use std::time::Duration;

use alicia_contract::orchestrator::InstanceState::{Running, Starting, Stopping};
use alicia_contract::orchestrator::Verb;
use serde_json::{Value, json};

use super::world::{World, fleet, name, slot};
use crate::core::event::{Event, Role, UpdateEnd, Verdict};

fn api(version: u32, instances: u32, update: &Value) -> Value {
    json!({ "api": {
        "command": format!("api --version={version}"),
        "instances": instances,
        "readiness": { "tcp": { "port": 1 } },
        "update": update,
    }})
}

fn rolling() -> Value {
    json!({ "min_healthy": "5s", "deadline": "30s" })
}

/// Everything that waits for readiness gets it.
fn all_ready(world: &mut World) {
    world.answer_spawns();
    let runs: Vec<_> = world.watched.keys().cloned().collect();
    for run in runs {
        world.judge(&run, Role::Readiness, Verdict::Good);
    }
}

fn up(instances: u32, update: &Value) -> World {
    let mut world = World::new(api(1, instances, update));
    all_ready(&mut world);
    world.pass(Duration::from_secs(60));
    world.story();
    world
}

fn deploy(world: &mut World, version: u32, instances: u32, update: &Value) {
    world.fleet = fleet(api(version, instances, update));
    world.desired();
}

fn slots(world: &World) -> Vec<(u32, String)> {
    let instances = world.instances("api");
    let told = |i: &alicia_contract::orchestrator::InstanceStatus| {
        (i.slot, format!("{:?}", i.state).to_lowercase())
    };
    instances.iter().map(told).collect()
}

fn commands(world: &World) -> Vec<String> {
    let mut held: Vec<_> = world.held.values().filter(|held| held.lives()).collect();
    held.sort_by_key(|held| held.slot.clone());
    held.iter().map(|held| held.command.clone()).collect()
}

#[test]
fn the_new_one_is_up_and_ready_before_the_old_one_goes() {
    let mut world = up(1, &rolling());
    deploy(&mut world, 2, 1, &rolling());
    world.answer_spawns();
    assert_eq!(
        slots(&world),
        [(1, "running".into()), (2, "starting".into())]
    );
    all_ready(&mut world);
    assert_eq!(world.states("api"), [Running, Running]);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.states("api"), [Stopping, Running]);
    assert_eq!(
        world.instances("api")[0].reason,
        "a new instance has taken its place"
    );
    world.finish_stops();
    assert_eq!(slots(&world), [(2, "running".into())]);
    assert_eq!(commands(&world), ["api --version=2"]);
    assert_eq!(world.updated, [("api".into(), UpdateEnd::Done)]);
    // The next one takes the number that is free.
    deploy(&mut world, 3, 1, &rolling());
    all_ready(&mut world);
    world.pass(Duration::from_secs(5));
    world.finish_stops();
    assert_eq!(slots(&world), [(1, "running".into())]);
    assert_eq!(world.instances("api")[0].epoch.0, 2);
}

#[test]
fn one_that_crashes_brings_the_old_settings_back_and_nothing_that_served_is_touched() {
    let mut world = up(2, &rolling());
    let before: Vec<_> = world.held.keys().cloned().collect();
    deploy(&mut world, 2, 2, &rolling());
    world.answer_spawns();
    world.end(&world.run("api", 3), Some(1));
    world.answer_spawns();
    world.finish_stops();
    world.pass(Duration::from_secs(10));
    let after: Vec<_> = world.held.keys().cloned().collect();
    assert_eq!(before, after);
    assert_eq!(
        world.updated,
        [
            ("api".into(), UpdateEnd::Reverting("exit code 1".into())),
            ("api".into(), UpdateEnd::Reverted("exit code 1".into())),
        ]
    );
    assert!(world.core.is_settled(&[name("api")], Duration::MAX));
}

#[test]
fn one_that_is_not_ready_in_time_or_breaks_while_it_is_watched_is_taken_back() {
    let mut world = up(1, &rolling());
    deploy(&mut world, 2, 1, &rolling());
    world.answer_spawns();
    world.pass(Duration::from_secs(30));
    let late = UpdateEnd::Reverting("not ready within 30s".into());
    assert_eq!(world.updated[0].1, late);
    world.finish_stops();
    world.pass(Duration::from_secs(1));
    assert_eq!(commands(&world), ["api --version=1"]);
    deploy(&mut world, 3, 1, &rolling());
    all_ready(&mut world);
    world.pass(Duration::from_secs(4));
    world.end(&world.run("api", 2), None);
    world.finish_stops();
    world.pass(Duration::from_secs(6));
    assert_eq!(commands(&world), ["api --version=1"]);
    assert_eq!(
        world.updated.last().map(|(_, end)| end.clone()),
        Some(UpdateEnd::Reverted("killed by SIGKILL".into()))
    );
}

#[test]
fn without_auto_revert_both_stay_and_a_person_decides() {
    let update = json!({ "min_healthy": "1s", "auto_revert": false });
    let mut world = up(1, &update);
    deploy(&mut world, 2, 1, &update);
    world.answer_spawns();
    world.end(&world.run("api", 2), Some(1));
    world.answer_spawns();
    world.pass(Duration::from_secs(1));
    assert!(commands(&world).contains(&"api --version=1".to_owned()));
    assert_eq!(
        world.updated,
        [("api".into(), UpdateEnd::Failed("exit code 1".into()))]
    );
    deploy(&mut world, 1, 1, &update);
    all_ready(&mut world);
    world.pass(Duration::from_secs(2));
    world.finish_stops();
    world.pass(Duration::from_secs(2));
    assert_eq!(commands(&world), ["api --version=1"]);
}

#[test]
fn a_newer_version_on_the_way_replaces_the_one_before_and_the_revert_goes_to_the_last_good_one() {
    let mut world = up(1, &rolling());
    deploy(&mut world, 2, 1, &rolling());
    all_ready(&mut world);
    deploy(&mut world, 3, 1, &rolling());
    world.answer_spawns();
    let bad = world
        .instances("api")
        .iter()
        .map(|i| i.slot)
        .max()
        .expect("three slots");
    world.end(&world.run("api", bad), Some(1));
    for _ in 0..4 {
        world.finish_stops();
        all_ready(&mut world);
        world.pass(Duration::from_secs(10));
    }
    assert_eq!(commands(&world), ["api --version=1"]);
}

#[test]
fn what_health_says_of_a_new_one_counts_against_it_and_of_an_old_one_does_not() {
    let mut world = up(1, &rolling());
    world.tell(Event::Ill(slot("api", 1), 1e9, "orders: refused".into()));
    assert_eq!(commands(&world), ["api --version=1"]);
    deploy(&mut world, 2, 1, &rolling());
    all_ready(&mut world);
    world.tell(Event::Ill(slot("api", 1), 1e9, "orders: refused".into()));
    // What it said before this run was about another one.
    world.tell(Event::Ill(slot("api", 2), 1.0, "orders: refused".into()));
    assert!(world.updated.is_empty());
    world.tell(Event::Ill(slot("api", 2), 1e9, "orders: refused".into()));
    world.finish_stops();
    assert_eq!(commands(&world), ["api --version=1"]);
    let why = "health says: orders: refused".to_owned();
    assert_eq!(
        world.updated.last().map(|(_, end)| end.clone()),
        Some(UpdateEnd::Reverted(why))
    );
}

#[test]
fn recreate_takes_a_failure_back_too() {
    let update = json!({ "strategy": "recreate", "min_healthy": "1s" });
    let mut world = up(1, &update);
    deploy(&mut world, 2, 1, &update);
    assert_eq!(world.states("api"), [Stopping]);
    world.finish_stops();
    world.answer_spawns();
    assert_eq!(world.states("api"), [Starting]);
    world.end(&world.run("api", 1), Some(1));
    for _ in 0..3 {
        all_ready(&mut world);
        world.finish_stops();
        world.pass(Duration::from_secs(2));
    }
    assert_eq!(commands(&world), ["api --version=1"]);
    assert_eq!(
        world.updated.last().map(|(_, end)| end.clone()),
        Some(UpdateEnd::Reverted("exit code 1".into()))
    );
}

#[test]
fn a_service_that_is_stopped_takes_new_settings_with_its_next_start() {
    let mut world = up(1, &rolling());
    world.command(Verb::Stop, &["api"], None);
    world.finish_stops();
    deploy(&mut world, 2, 1, &rolling());
    assert!(world.spawns.is_empty());
    world.command(Verb::Start, &["api"], None);
    all_ready(&mut world);
    assert_eq!(commands(&world), ["api --version=2"]);
}

#[test]
fn a_host_that_dies_after_an_update_finds_the_slot_again() {
    let mut world = up(1, &rolling());
    deploy(&mut world, 2, 1, &rolling());
    all_ready(&mut world);
    world.pass(Duration::from_secs(5));
    world.finish_stops();
    let before: Vec<_> = world.held.keys().cloned().collect();
    world.crash_host();
    world.answer_spawns();
    assert_eq!(world.held.keys().cloned().collect::<Vec<_>>(), before);
    assert_eq!(slots(&world), [(2, "running".into())]);
}

#[test]
fn a_host_that_dies_during_an_update_goes_on_with_it() {
    for ready in [false, true] {
        let mut world = up(2, &rolling());
        let base = world.fleet.clone();
        deploy(&mut world, 2, 2, &rolling());
        world.answer_spawns();
        if ready {
            all_ready(&mut world);
        }
        world.crash_host_during(&base);
        assert!(commands(&world).contains(&"api --version=2".to_owned()));
        for _ in 0..6 {
            let serving = world
                .states("api")
                .iter()
                .filter(|state| **state == Running)
                .count();
            assert!(serving >= 2, "{:?}", slots(&world));
            all_ready(&mut world);
            world.pass(Duration::from_secs(6));
            world.finish_stops();
        }
        assert_eq!(commands(&world), ["api --version=2", "api --version=2"]);
        assert_eq!(
            world.updated.last().map(|(_, end)| end.clone()),
            Some(UpdateEnd::Done)
        );
    }
}

#[test]
fn a_service_keeps_the_number_that_its_load_asked_for_over_a_killed_host() {
    let mut world = World::new(json!({ "api": {
        "command": "api",
        "scaling": { "min": 1, "max": 5, "cpu": 0.5 },
    }}));
    world.answer_spawns();
    world.tell(Event::Scaled(name("api"), 3));
    world.answer_spawns();
    let before: Vec<_> = world.held.keys().cloned().collect();
    assert_eq!(before.len(), 3);
    world.crash_host();
    world.answer_spawns();
    let lives = |world: &World| world.held.values().filter(|held| held.lives()).count();
    assert_eq!(
        (
            world.held.keys().cloned().collect::<Vec<_>>(),
            lives(&world)
        ),
        (before, 3)
    );
    world.tell(Event::Scaled(name("api"), 1));
    world.finish_stops();
    assert_eq!(lives(&world), 1);
}

#[test]
fn on_demand_means_not_before_somebody_connects_and_what_it_needs_comes_first() {
    let mut world = World::new(json!({
        "api": { "command": "api", "depends_on": ["db"], "on_demand": {} },
        "db": { "command": "db", "readiness": { "tcp": { "port": 1 } }, "on_demand": {} },
        "web": { "command": "web", "depends_on": ["api"] },
    }));
    world.answer_spawns();
    assert!(!world.is_running("api", 1) && !world.is_running("db", 1));
    assert!(world.is_running("web", 1), "whoever connects finds it");
    world.tell(Event::Called(name("api")));
    world.answer_spawns();
    assert!(world.is_running("db", 1) && !world.is_running("api", 1));
    all_ready(&mut world);
    world.answer_spawns();
    assert!(world.is_running("api", 1));
    let before: Vec<_> = world.held.keys().cloned().collect();
    world.crash_host();
    world.answer_spawns();
    assert_eq!(world.held.keys().cloned().collect::<Vec<_>>(), before);
    world.tell(Event::Idle(name("api")));
    assert_eq!(world.instances("api")[0].reason, "nobody is connected");
    world.finish_stops();
    assert!(!world.is_running("api", 1) && world.is_running("db", 1));
    world.command(Verb::Start, &["api"], None);
    world.answer_spawns();
    assert!(world.is_running("api", 1));
}

#[test]
fn dependents_stay_up_while_what_they_need_is_updated() {
    let with_web = |version| {
        let mut services = api(version, 1, &rolling());
        services["web"] = json!({ "command": "web", "depends_on": ["api"] });
        services
    };
    let mut world = World::new(with_web(1));
    all_ready(&mut world);
    world.answer_spawns();
    world.pass(Duration::from_secs(60));
    let web = world.run("web", 1);
    world.fleet = fleet(with_web(2));
    world.desired();
    for _ in 0..3 {
        all_ready(&mut world);
        world.pass(Duration::from_secs(6));
        world.finish_stops();
    }
    assert_eq!(world.run("web", 1), web);
    assert_eq!(slots(&world), [(2, "running".into())]);
}
