//! Heartbeats over long times, and what they tell of an agent's work.

use alicia_contract::health::HeartbeatStatus;
use serde_json::json;

use super::story::{Story, name_of};
use super::*;

/// A heartbeat of `api` with these counters.
fn beat(story: &mut Story, interval_s: f64, counters: serde_json::Value) {
    let body = json!({ "service": "api", "status": "healthy", "interval_s": interval_s, "counters": counters });
    let heartbeat: Heartbeat = serde_json::from_value(body).expect("a heartbeat");
    story.tell(Event::Heartbeat(Box::new(heartbeat)));
}

/// Ticks until a moment, then moves to it.
fn wait_until(story: &mut Story, ms: u64) {
    while story.ms + story::TICK_MS <= ms {
        story.wait(story::TICK_MS);
    }
    story.ms = ms;
}

/// A source of numbers from 0 to 1 that is the same at each run.
fn random(state: &mut u64) -> f64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    f64::from(u32::try_from(*state >> 32).expect("32 bits")) / f64::from(u32::MAX)
}

/// The figure of the specification: a day of heartbeats with 2 % of jitter, of which now and then one is lost.
#[test]
fn a_day_of_jittered_heartbeats_is_no_alert() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    let mut state = 7;
    let mut due = story.ms;
    let mut lost_before = false;
    let mut heard = 0;
    for _ in 0..86_400 / 5 {
        due += 5_000;
        let jitter = (random(&mut state) - 0.5) * 200.0;
        let at = due.saturating_add_signed(jitter.round() as i64);
        wait_until(&mut story, at);
        // One in a hundred is lost, but not two in a row.
        let lost = !lost_before && random(&mut state) < 0.01;
        lost_before = lost;
        if !lost {
            heard += 1;
            beat(&mut story, 5.0, json!({}));
        }
    }
    assert!(heard > 17_000, "{heard}");
    assert_eq!(story.told(), [""; 0], "no false alarm in 24 h");
    // The one that does not come is found, and sooner than by the hard timeout of three intervals.
    let silent_since = story.ms;
    while story.firing().is_empty() {
        story.wait(story::TICK_MS);
    }
    let found_ms = story.ms - silent_since;
    assert_eq!(story.firing(), ["heartbeat_lost"]);
    assert!((10_000..15_000).contains(&found_ms), "{found_ms}");
}

#[test]
fn a_timeout_of_the_file_is_kept_to_whatever_the_rhythm() {
    let mut spec = spec();
    spec.heartbeat_timeout = Some(alicia_contract::unit::Period::from_secs(60));
    let fleet = Fleet {
        name: "home".to_owned(),
        services: [(name_of("api"), spec.into())].into(),
        ..Fleet::default()
    };
    let mut story = Story::of_fleet(fleet);
    story.start("api");
    for _ in 0..40 {
        story.wait(5_000);
        beat(&mut story, 5.0, json!({}));
    }
    story.wait(59_000);
    assert_eq!(story.firing(), [""; 0]);
    story.wait(2_000);
    assert_eq!(story.firing(), ["heartbeat_lost"]);
}

#[test]
fn a_series_of_bad_heartbeats_is_an_alert_and_changes_no_state() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    story.wait(5_000);
    let fault = || "says that it is db, on the topic of api".to_owned();
    for _ in 0..2 {
        story.tell(Event::BadHeartbeat(name_of("api"), fault()));
    }
    story.wait(70_000);
    story.tell(Event::BadHeartbeat(name_of("api"), fault()));
    story.wait(1_000);
    assert_eq!(story.firing(), [""; 0], "three, but not within a minute");
    for _ in 0..2 {
        story.tell(Event::BadHeartbeat(name_of("api"), fault()));
    }
    assert_eq!(story.firing(), ["bad_heartbeats"]);
    assert_eq!(story.news[0].detail, fault());
    assert_eq!(story.state("api"), HealthState::Healthy);
    story.wait(75_000);
    assert_eq!(
        story.told(),
        ["bad_heartbeats Firing", "bad_heartbeats Resolved"]
    );
}

#[test]
fn an_agent_that_makes_no_progress_is_told_and_cleared() {
    let mut spec = spec();
    spec.agent = Some(
        serde_json::from_value(json!({ "progress_within": "1m", "repeats_max": 3 }))
            .expect("limits"),
    );
    let fleet = Fleet {
        name: "home".to_owned(),
        services: [(name_of("api"), spec.into())].into(),
        ..Fleet::default()
    };
    let mut story = Story::of_fleet(fleet);
    story.start("api");
    for _ in 0..15 {
        beat(&mut story, 5.0, json!({ "steps": 7, "repeats": 1 }));
        story.wait(5_000);
    }
    assert_eq!(story.firing(), ["agent_stuck"]);
    assert_eq!(story.news[0].summary, "api-1 makes no progress");
    assert_eq!(
        story.state("api"),
        HealthState::Healthy,
        "it is an alert, no state"
    );
    beat(&mut story, 5.0, json!({ "steps": 8, "repeats": 3 }));
    assert_eq!(story.firing(), ["agent_stuck", "agent_loop"]);
    for n in 9..15 {
        story.wait(5_000);
        beat(&mut story, 5.0, json!({ "steps": n, "repeats": 1 }));
    }
    assert_eq!(story.firing(), [""; 0]);
}

#[test]
fn each_change_of_state_is_a_line_of_the_history() {
    let mut story = Story::new(&["api"]);
    story.enter("api", InstanceState::Starting);
    story.change("api", InstanceState::Running);
    let turns = |story: &Story| -> Vec<HealthState> {
        let turned = story.actions.iter().filter_map(|action| match action {
            Action::Turned(turn) => Some(turn.state),
            _ => None,
        });
        turned.collect()
    };
    assert_eq!(turns(&story), [HealthState::Healthy]);
    story.show();
    assert_eq!(turns(&story), []);
    story.beat("api", HeartbeatStatus::Degraded);
    assert_eq!(turns(&story), [HealthState::Degraded]);
}

#[test]
fn what_was_changed_lately_is_suspected() {
    let mut story = Story::new(&["api"]);
    story.start("api");
    let mut changed = (*story.monitor.fleet).clone();
    changed
        .services
        .values_mut()
        .for_each(|spec| Arc::make_mut(spec).instances = 2);
    story.tell(Event::Fleet(Arc::new(changed.clone())));
    story.change("api", InstanceState::Backoff);
    assert_eq!(
        story.news[0].suggestion.as_deref(),
        Some("alicia rollback api")
    );
    // The same file again is no change.
    story.wait(601_000);
    story.tell(Event::Fleet(Arc::new(changed)));
    let watch = story.monitor.watch("api").expect("watched");
    assert!(!watch.changed_lately(story.now()));
}
