//! The monitor told by stories: each is a list of events on one clock, and what became of them.

mod faults;
mod properties;
pub(super) mod story;
mod vitals;

use alicia_contract::fleet::{Condition as Needs, ServiceSpec};
use alicia_contract::health::{AlertState, HeartbeatStatus};
use alicia_contract::id::Epoch;

use super::*;
use story::{Story, exit, name_of, slot, spec};

#[test]
fn a_start_in_good_order_is_no_news() {
    let mut story = Story::new(&["api"]);
    assert_eq!(story.state("api"), HealthState::Unknown);
    story.show();
    assert_eq!(story.state("api"), HealthState::Starting);
    story.wait(30_000);
    story.start("api");
    story.wait(30_000);
    assert_eq!(story.state("api"), HealthState::Healthy);
    assert_eq!(story.told(), [""; 0]);
}

#[test]
fn a_killed_service_is_told_at_once_and_cleared_when_it_is_stable() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    story.wait(5_000);
    story.change("api", InstanceState::Backoff);
    assert_eq!(
        story.told(),
        ["restarted Firing"],
        "by the transition alone"
    );
    assert_eq!(story.state("api"), HealthState::Down);
    let alert = story.news[0].clone();
    assert_eq!(alert.detail, "killed by SIGKILL");
    assert_eq!(alert.last_lines, ["the last line"]);
    assert_eq!(alert.instance.as_deref(), Some("api-1"));
    assert_eq!(
        alert.suggestion.as_deref(),
        Some("alicia logs api --tail 50")
    );
    story.show();
    story.start("api");
    story.wait(9_000);
    assert_eq!(story.firing(), ["restarted"]);
    story.wait(2_000);
    assert_eq!(story.told(), ["restarted Firing", "restarted Resolved"]);
    assert_eq!(story.news[1].id, alert.id);
    assert!(story.news[1].ended.is_some());
}

#[test]
fn a_restart_of_which_no_transition_arrived_is_told_from_the_picture() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    story.wait(5_000);
    let held = &mut story.fleet.services[0].instances[0];
    held.exit = Some(exit(5_006.0));
    held.restarts = 1;
    held.epoch = Epoch(3);
    held.instance = Some(InstanceId::from_parts(3, 0));
    held.since = 5_006.5;
    story.show();
    assert_eq!(story.told(), ["restarted Firing"]);
    assert_eq!(story.state("api"), HealthState::Healthy);
    story.wait(11_000);
    assert_eq!(story.told(), ["restarted Firing", "restarted Resolved"]);
}

#[test]
fn ends_from_before_the_monitor_are_no_news() {
    let mut story = Story::new(&["api"]);
    let held = &mut story.fleet.services[0].instances[0];
    *held = slot(1, 4, InstanceState::Running, 100.0);
    held.instance = Some(InstanceId::from_parts(4, 0));
    held.exit = Some(exit(99.0));
    held.restarts = 3;
    story.show();
    story.wait(1_000);
    assert_eq!(story.told(), [""; 0]);
    assert_eq!(story.state("api"), HealthState::Healthy);
}

#[test]
fn a_crash_loop_ends_in_one_critical_alert_that_a_start_clears() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    for _ in 0..5 {
        story.wait(500);
        story.enter("api", InstanceState::Backoff);
        story.wait(500);
        story.start("api");
    }
    story.wait(250);
    story.enter("api", InstanceState::Failed);
    let expected = [
        "restarted Firing",
        "restarted Resolved",
        "crash_loop Firing",
    ];
    assert_eq!(story.told(), expected);
    assert_eq!(story.news[1].count, 5);
    assert_eq!(
        story.news[2].severity,
        alicia_contract::health::Severity::Critical
    );
    assert_eq!(story.news[2].last_lines, ["the last line"]);
    assert!(
        story.news[2].detail.contains("alicia start api"),
        "{}",
        story.news[2].detail
    );
    story.wait(60_000);
    assert_eq!(
        story.told(),
        expected,
        "it is told once, and `service_down` adds nothing"
    );
    for _ in 0..3 {
        // It is tried again slowly, and fails again.
        story.start("api");
        story.wait(1_000);
        story.enter("api", InstanceState::Failed);
        story.wait(300_000);
    }
    assert_eq!(story.told(), expected, "each slow try is no news");
    story.start("api");
    story.wait(60_000);
    assert_eq!(
        story.told().last().map(String::as_str),
        Some("crash_loop Resolved")
    );
    assert_eq!(story.news.len(), 4);
}

#[test]
fn a_service_that_stays_down_is_told_as_down() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    story.enter("api", InstanceState::Backoff);
    story.wait(9_000);
    assert_eq!(story.firing(), ["restarted"]);
    story.wait(2_000);
    assert_eq!(story.firing(), ["service_down", "restarted"]);
    story.start("api");
    story.wait(11_000);
    assert_eq!(story.firing(), [""; 0]);
}

#[test]
fn what_was_stopped_on_purpose_is_no_alert_and_ends_those_there_are() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    story.enter("api", InstanceState::Backoff);
    story.start("api");
    story.enter("api", InstanceState::Stopping);
    assert_eq!(story.told(), ["restarted Firing", "restarted Resolved"]);
    story.enter("api", InstanceState::Stopped);
    story.wait(60_000);
    assert_eq!(story.news.len(), 2);
    assert_eq!(
        story.monitor.report(story.now()).state,
        HealthState::Healthy
    );
}

#[test]
fn one_lost_probe_is_no_alert() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    for n in 0..60 {
        story.wait(1_000);
        story.probe("api", n % 3 == 0);
    }
    assert_eq!(story.told(), [""; 0]);
    assert_eq!(story.state("api"), HealthState::Healthy);
}

#[test]
fn a_check_that_stays_bad_is_an_alert_until_it_is_good_for_a_while() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    for _ in 0..3 {
        story.wait(1_000);
        story.probe("api", false);
    }
    assert_eq!(story.told(), ["check_failed Firing"]);
    assert_eq!(story.state("api"), HealthState::Unhealthy);
    assert_eq!(story.news[0].labels["check"], "web");
    story.probe("api", true);
    assert_eq!(story.state("api"), HealthState::Healthy);
    story.wait(11_000);
    assert_eq!(
        story.told(),
        ["check_failed Firing", "check_failed Resolved"]
    );
}

#[test]
fn lost_heartbeats_are_told_and_a_restart_explains_them() {
    let mut story = Story::new(&["api", "db"]);
    for service in ["api", "db"] {
        story.start(service);
        story.beat(service, HeartbeatStatus::Healthy);
    }
    story.wait(14_000);
    story.beat("db", HeartbeatStatus::Healthy);
    story.wait(2_000);
    assert_eq!(story.told(), ["heartbeat_lost Firing"]);
    assert_eq!(story.state("api"), HealthState::Unhealthy);
    assert_eq!(story.state("db"), HealthState::Healthy);
    story.beat("api", HeartbeatStatus::Healthy);
    story.wait(10_500);
    assert_eq!(
        story.told(),
        ["heartbeat_lost Firing", "heartbeat_lost Resolved"]
    );
}

#[test]
fn a_last_will_that_comes_before_the_exit_adds_no_alert() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    story.beat("api", HeartbeatStatus::Healthy);
    story.beat("api", HeartbeatStatus::Offline);
    story.wait(250);
    story.enter("api", InstanceState::Backoff);
    story.start("api");
    story.wait(1_000);
    story.beat("api", HeartbeatStatus::Healthy);
    story.wait(10_000);
    assert_eq!(story.told(), ["restarted Firing", "restarted Resolved"]);
}

#[test]
fn a_connection_that_stays_broken_is_told_within_two_seconds() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    story.beat("api", HeartbeatStatus::Healthy);
    story.beat("api", HeartbeatStatus::Offline);
    story.wait(1_750);
    assert_eq!(story.told(), [""; 0]);
    story.wait(500);
    assert_eq!(story.told(), ["heartbeat_lost Firing"]);
}

#[test]
fn a_demanded_heartbeat_that_never_comes_is_lost() {
    let mut with = spec();
    with.heartbeat_timeout = Some(alicia_contract::Period::from_secs(3));
    let services = [(name_of("api"), with.into())].into();
    let mut story = Story::of_fleet(Fleet {
        name: String::new(),
        services,
        ..Fleet::default()
    });
    story.start("api");
    story.wait(2_750);
    assert_eq!(story.told(), [""; 0]);
    story.wait(1_000);
    assert_eq!(story.told(), ["heartbeat_lost Firing"]);
}

#[test]
fn a_bad_heartbeat_is_counted_and_changes_nothing() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    let judged = story.monitor.watch("api").expect("watched").judged.clone();
    story.tell(Event::BadHeartbeat(
        name_of("api"),
        "from the future".to_owned(),
    ));
    story.tell(Event::BadHeartbeat(
        name_of("stranger"),
        "not a heartbeat".to_owned(),
    ));
    let watch = story.monitor.watch("api").expect("watched");
    assert_eq!((watch.bad_heartbeats, &watch.judged), (1, &judged));
    assert_eq!(story.monitor.stray_heartbeats(), 1);
    assert!(story.monitor.watch("stranger").is_none());
}

/// The figure of the specification: a service that toggles every 5 s for 10 minutes makes at most two
/// notifications, whether its process or its check toggles.
#[test]
fn a_toggling_service_makes_at_most_two_notifications() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    for _ in 0..60 {
        story.enter("api", InstanceState::Backoff);
        story.wait(5_000);
        story.start("api");
        story.wait(5_000);
    }
    assert_eq!(story.told(), ["restarted Firing", "flapping Firing"]);

    let mut story = Story::new(&["api"]);
    story.start("api");
    for s in 0..600 {
        story.probe("api", s / 5 % 2 == 0);
        story.wait(1_000);
    }
    assert_eq!(story.told(), ["check_failed Firing", "flapping Firing"]);
    assert!(story.monitor.report(story.now()).services[0].flapping);
    for _ in 0..900 {
        story.probe("api", true);
        story.wait(1_000);
    }
    assert_eq!(story.firing(), [""; 0]);
    assert_eq!(story.news.len(), 4);
}

/// The root of a graph dies: one alert for it, none for those that depend on it.
#[test]
fn the_root_of_a_graph_is_the_only_alert() {
    let mut services: BTreeMap<ServiceName, Arc<ServiceSpec>> = BTreeMap::new();
    services.insert(name_of("s0"), spec().into());
    for n in 1..23_u32 {
        let mut dependent = spec();
        let parent = format!("s{}", (n - 1) / 3);
        dependent
            .depends_on
            .0
            .insert(name_of(&parent), Needs::Healthy);
        services.insert(name_of(&format!("s{n}")), dependent.into());
    }
    let mut story = Story::of_fleet(Fleet {
        name: String::new(),
        services,
        ..Fleet::default()
    });
    let names: Vec<String> = (0..23).map(|n| format!("s{n}")).collect();
    for name in &names {
        story.start(name);
    }
    story.wait(1_000);
    story.enter("s0", InstanceState::Failed);
    for _ in 0..30 {
        for name in &names[1..] {
            story.probe(name, false);
        }
        story.wait(1_000);
    }
    assert_eq!(story.told(), ["crash_loop Firing"]);
    assert_eq!(story.state("s22"), HealthState::Unhealthy);
    assert_eq!(story.monitor.book().held_back().count(), 22);
    story.start("s0");
    for _ in 0..30 {
        for name in &names[1..] {
            story.probe(name, true);
        }
        story.wait(1_000);
    }
    assert_eq!(story.told(), ["crash_loop Firing", "crash_loop Resolved"]);
    assert_eq!(story.monitor.book().held_back().count(), 0);
}

#[test]
fn a_monitor_that_was_held_up_says_unknown_and_never_down() {
    let mut story = Story::new(&["api", "db"]);
    for service in ["api", "db"] {
        story.start(service);
        story.beat(service, HeartbeatStatus::Healthy);
    }
    story.wait(1_000);
    story.ms += 60_000;
    story.tell(Event::Tick);
    assert_eq!(story.state("api"), HealthState::Unknown);
    story.beat("api", HeartbeatStatus::Healthy);
    assert_eq!(story.state("api"), HealthState::Healthy, "fresh evidence");
    assert_eq!(story.state("db"), HealthState::Unknown);
    story.wait(6_000);
    assert_eq!(story.state("db"), HealthState::Healthy, "settled");
    assert_eq!(story.told(), [""; 0]);
    story.wait(15_000);
    assert_eq!(
        story.firing(),
        ["heartbeat_lost", "heartbeat_lost"],
        "silence counts again"
    );
}

#[test]
fn silence_while_the_bus_is_away_proves_nothing() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    story.beat("api", HeartbeatStatus::Healthy);
    story.tell(Event::Link(Link::Down));
    story.wait(600_000);
    assert_eq!(story.told(), [""; 0]);
    story.tell(Event::Link(Link::Up));
    story.wait(14_000);
    assert_eq!(story.told(), [""; 0]);
    story.wait(2_000);
    assert_eq!(story.told(), ["heartbeat_lost Firing"]);
}

#[test]
fn a_service_outside_the_fleet_is_watched_by_its_heartbeats() {
    let mut story = Story::new(&[]);
    let listed = ServiceInstances {
        service: name_of("robot"),
        instances: Vec::new(),
        shortened: false,
        omitted: 0,
    };
    story.beat("robot", HeartbeatStatus::Healthy);
    assert_eq!(
        story.monitor.stray_heartbeats(),
        1,
        "not before it is registered"
    );
    story.tell(Event::Registered(Box::new(listed)));
    story
        .monitor
        .watches
        .get_mut("robot")
        .expect("known")
        .registered
        .insert(InstanceId::from_parts(1, 1));
    story.beat("robot", HeartbeatStatus::Degraded);
    assert_eq!(story.state("robot"), HealthState::Degraded);
    story.wait(16_000);
    assert_eq!(story.state("robot"), HealthState::Down);
    assert_eq!(story.told(), ["heartbeat_lost Firing"]);
    story.tell(Event::Unregistered(name_of("robot")));
    story.wait(60_000);
    assert_eq!(
        story.firing(),
        ["heartbeat_lost"],
        "its registration ended because it was lost"
    );
    story.beat("robot", HeartbeatStatus::Healthy);
    story.wait(11_000);
    assert_eq!(story.firing(), [""; 0]);
    story.tell(Event::Unregistered(name_of("robot")));
    assert!(
        story.monitor.watch("robot").is_none(),
        "it left in good order"
    );
}

#[test]
fn alerts_survive_a_restart_of_the_monitor() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    for _ in 0..3 {
        story.wait(1_000);
        story.probe("api", false);
    }
    let fired = story.news[0].clone();
    let mut monitor = Monitor::new(Settings::default(), 2);
    monitor.restore(fired.clone(), story.now());
    story.monitor = monitor;
    story.news.clear();
    let fleet = Fleet {
        name: String::new(),
        services: [(name_of("api"), spec().into())].into(),
        ..Fleet::default()
    };
    story.tell(Event::Fleet(Arc::new(fleet)));
    story.wait(60_000);
    assert_eq!(
        story.firing(),
        ["check_failed"],
        "nothing is known yet, nothing is over"
    );
    story.show();
    for _ in 0..3 {
        story.wait(1_000);
        story.probe("api", false);
    }
    story.wait(60_000);
    assert_eq!(story.told(), [""; 0], "the same episode goes on");
    story.probe("api", true);
    story.wait(11_000);
    assert_eq!(story.told(), ["check_failed Resolved"]);
    assert_eq!(story.news[0].id, fired.id);
}

#[test]
fn a_restart_of_the_monitor_is_no_occurrence() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    story.enter("api", InstanceState::Failed);
    let mut monitor = Monitor::new(Settings::default(), 2);
    monitor.restore(story.news[0].clone(), story.now());
    story.monitor = monitor;
    story.show();
    let counts: Vec<u32> = story
        .monitor
        .book()
        .firing()
        .map(|alert| alert.count)
        .collect();
    assert_eq!(counts, [1]);
}

#[test]
fn an_acknowledgement_is_kept_with_the_alert() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    story.enter("api", InstanceState::Failed);
    let by = Acknowledgement {
        by: "key/bob".to_owned(),
        note: None,
        at: story.now().unix,
        until: None,
    };
    let id = story.news[0].id.clone();
    story.tell(Event::Acknowledge("nosuch".to_owned(), Some(by.clone())));
    assert_eq!(story.actions, []);
    story.tell(Event::Acknowledge(id, Some(by.clone())));
    assert_eq!(story.news[1].acknowledged, Some(by));
    assert_eq!(story.news[1].state, AlertState::Firing);
}

#[test]
fn a_picture_too_large_for_the_bus_leaves_out_the_healthy_first() {
    let names: Vec<String> = (0..9_000)
        .map(|n| format!("service-with-a-name-{n}"))
        .collect();
    let mut story = Story::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    story.start("service-with-a-name-8999");
    story.enter("service-with-a-name-8999", InstanceState::Failed);
    let fitted = report::fit(story.monitor.report(story.now()));
    let bytes = serde_json::to_vec(&fitted).expect("writes").len();
    assert!(
        bytes <= alicia_contract::envelope::MESSAGE_BYTES_MAX,
        "{bytes}"
    );
    assert!(fitted.omitted > 0);
    assert_eq!(fitted.services.len() + fitted.omitted as usize, 9_000);
    assert_eq!(fitted.services[0].state, HealthState::Down);
    assert_eq!(fitted.state, HealthState::Down);
}
