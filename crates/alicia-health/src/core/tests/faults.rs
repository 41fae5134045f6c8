//! Faults that were: each story went wrong once.

use alicia_contract::envelope::MESSAGE_BYTES_MAX;
use alicia_contract::health::{HeartbeatStatus, Severity};

use super::super::breaker::RestartLimits;
use super::super::conditions::Rule;
use super::super::report::fit;
use super::super::*;
use super::story::{Story, name_of};

fn beat_of(service: &str, instance: u64) -> Event {
    Event::Heartbeat(Box::new(Heartbeat {
        service: name_of(service),
        instance: Some(InstanceId::from_parts(instance, 0)),
        status: HeartbeatStatus::Healthy,
        detail: None,
        uptime_s: 1.0,
        interval_s: Some(5.0),
        counters: BTreeMap::new(),
        resources: BTreeMap::new(),
    }))
}

fn registered(service: &str, instances: &[u64]) -> Event {
    let instances = instances.iter().map(|n| {
        serde_json::from_value(serde_json::json!({
            "service": service, "instance": InstanceId::from_parts(*n, 0), "presence": "present",
            "since": 0.0, "seen": 0.0, "supervised": false, "owner": service,
        }))
        .expect("an entry")
    });
    Event::Registered(Box::new(ServiceInstances {
        service: name_of(service),
        instances: instances.collect(),
        shortened: false,
        omitted: 0,
    }))
}

/// Two instances outside the fleet had one alert, and each look counted the losses of both against each other.
#[test]
fn instances_without_slots_share_an_alert_that_counts_each_loss_once() {
    let mut story = Story::new(&[]);
    story.tell(registered("robot", &[1, 2]));
    // The second is lost twice and comes back; then the first is lost for good.
    for _ in 0..2 {
        story.tell(beat_of("robot", 1));
        story.tell(beat_of("robot", 2));
        for _ in 0..4 {
            story.wait(5_000);
            story.tell(beat_of("robot", 1));
        }
        story.tell(beat_of("robot", 2));
        story.wait(250);
    }
    let before = story.news.len();
    for _ in 0..12 {
        story.wait(5_000);
        story.tell(beat_of("robot", 2));
    }
    let firing: Vec<&Alert> = story.monitor.book().firing().collect();
    assert_eq!(firing.len(), 1, "{firing:?}");
    assert!(firing[0].count <= 3, "{} times", firing[0].count);
    let more = story.news.len() - before;
    assert!(more <= 2, "told {more} times: {:?}", story.told());
}

#[test]
fn the_history_of_a_service_that_left_ends() {
    let mut story = Story::new(&["api", "web"]);
    story.start("api");
    story.start("web");
    story.wait(1_000);
    let mut fleet = (*story.monitor.fleet).clone();
    fleet.services.remove("web");
    story.tell(Event::Fleet(Arc::new(fleet)));
    story
        .fleet
        .services
        .retain(|of| of.service.as_str() != "web");
    story.ms += 1_000;
    story.show();
    assert!(story.monitor.watch("web").is_none());
    let turned = story.actions.iter().find_map(|action| match action {
        Action::Turned(turn) => Some((turn.service.as_str(), turn.state)),
        _ => None,
    });
    assert_eq!(turned, Some(("web", HealthState::Unknown)));
}

fn restarting() -> RestartLimits {
    RestartLimits {
        after: Duration::from_secs(5),
        limit: 1,
        within: Duration::from_secs(600),
        pause: Duration::from_secs(300),
    }
}

/// A story in which the restarts of `api` did not help.
fn in_vain() -> Story {
    let mut story = Story::new(&["api"]);
    story.monitor.settings.auto_restart = Some(restarting());
    story.start("api");
    for _ in 0..40 {
        story.wait(1_000);
        story.probe("api", false);
    }
    assert!(story.firing().contains(&"restart_breaker".to_owned()));
    story
}

#[test]
fn a_breaker_ends_with_its_service() {
    let mut story = in_vain();
    story.tell(Event::Fleet(Arc::default()));
    story.fleet.services.clear();
    story.ms += 1_000;
    story.show();
    story.wait(1_000);
    assert_eq!(story.firing(), [""; 0]);
}

#[test]
fn a_breaker_ends_when_nobody_asks_for_restarts_any_more() {
    let story = in_vain();
    let open = story.monitor.book().firing();
    let open = open
        .filter(|alert| alert.rule == "restart_breaker")
        .cloned();
    let open: Vec<Alert> = open.collect();
    let mut later = Story::new(&["api"]);
    for alert in open {
        later.monitor.restore(alert, later.now());
    }
    later.wait(1_000);
    assert_eq!(later.firing(), ["restart_breaker"], "nobody was heard yet");
    later.start("api");
    later.wait(1_000);
    assert_eq!(later.firing(), [""; 0]);
}

/// The clock is an hour back; the process fails again and again, and is given up. All of it is told from the new time.
#[test]
fn a_clock_that_is_set_back_hides_no_end() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    story.change("api", InstanceState::Backoff);
    story.start("api");
    story.wait(30_000);
    assert_eq!(story.firing(), [""; 0]);
    story.back_s = 3_600.0;
    story.wait(10_000);
    story.news.clear();
    // By the transition alone, then by the picture alone.
    story.change("api", InstanceState::Backoff);
    assert_eq!(story.told(), ["restarted Firing"]);
    assert_eq!(story.state("api"), HealthState::Down);
    story.start("api");
    story.wait(30_000);
    assert_eq!(story.firing(), [""; 0]);
    story.news.clear();
    story.change("api", InstanceState::Failed);
    assert_eq!(story.told(), ["crash_loop Firing"]);
    story.show();
    assert_eq!(story.state("api"), HealthState::Down);
}

fn external(n: usize) -> Condition {
    Condition {
        key: Key {
            service: name_of("elsewhere"),
            rule: Rule::External,
            instance: None,
            check: Some(format!("{n:016x}")),
        },
        active: true,
        occurrence: 0,
        severity: Severity::Warning,
        summary: format!("alert {n}"),
        detail: "x".repeat(15_000),
        last_lines: Vec::new(),
        suggestion: None,
        labels: BTreeMap::new(),
    }
}

/// Each was compared with each, at each of them and at each tick.
#[test]
fn thousands_of_alerts_from_outside_are_taken_one_by_one() {
    let mut story = Story::new(&["api"]);
    for n in 0..3_000 {
        story.tell(Event::Tell(Box::new(external(n)), None));
    }
    assert_eq!(story.monitor.book().firing().count(), 3_000);
    story.wait(1_000);
    assert_eq!(story.news.len(), 3_000, "each once");
    for n in 0..2_000 {
        story.tell(Event::Untell(external(n).key));
    }
    assert_eq!(story.monitor.book().firing().count(), 1_000);
    let picture = fit(story.monitor.report(story.now()));
    let bytes = serde_json::to_vec(&picture).expect("JSON").len();
    assert!(bytes < MESSAGE_BYTES_MAX, "{bytes}");
    assert!(!picture.alerts.is_empty() && !picture.services.is_empty());
    assert_eq!(picture.alerts_firing, 1_000);
}
