//! The history in a real database.

use std::collections::BTreeMap;
use std::sync::Arc;

use alicia_contract::fleet::Fleet;
use alicia_contract::health::HealthState;
use alicia_contract::id::ServiceName;
use alicia_module::Clock;
use alicia_store::Store;
use serde_json::json;

use super::ledger::{Measured, Minutes, Results, Spans, minute_of};
use super::rows::{self, Grain};
use super::uptime;
use crate::core::Turn;
use crate::slo;

/// Noon of some day, at the full hour.
const NOW: f64 = 1_700_006_400.0;

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("an id")
}

fn open(directory: &tempfile::TempDir) -> Store {
    let path = directory.path().join("health.db");
    let clock = Clock::system();
    let options = alicia_store::Options::new(path, crate::store::MIGRATIONS, clock.for_store());
    Store::open(options).expect("it opens")
}

async fn save(store: &Store, minutes: Minutes) {
    let minutes = Arc::new(minutes);
    store
        .write(move |tx| rows::save(tx, &minutes))
        .await
        .expect("written");
}

/// Minutes of `api` before now, the newest first: how many seconds of each it worked and did not.
fn minutes(seconds: impl IntoIterator<Item = (f64, f64)>) -> Minutes {
    let now = minute_of(NOW);
    let rows = seconds.into_iter().zip(1..).map(|((up_s, down_s), ago)| {
        let spans = Spans {
            up_s,
            down_s,
            ..Spans::default()
        };
        (name("api"), now - ago, spans)
    });
    Minutes {
        services: rows.collect(),
        ..Minutes::default()
    }
}

#[tokio::test]
async fn minutes_add_up_to_hours_and_windows() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory);
    // 120 minutes that worked, and before them 60 that did not; each told in two halves.
    let half = |up: f64, down: f64| {
        let good = std::iter::repeat_n((up, 0.0), 120);
        minutes(good.chain(std::iter::repeat_n((0.0, down), 60)))
    };
    save(&store, half(30.0, 30.0)).await;
    save(&store, half(30.0, 30.0)).await;
    let found = store
        .read(|connection| uptime::all(connection, NOW))
        .await
        .expect("read");
    let of = &found[&name("api")];
    let windows: Vec<&str> = of.iter().map(|uptime| uptime.window.as_str()).collect();
    assert_eq!(windows, ["24h", "7d", "30d", "90d"]);
    for uptime in of {
        assert_eq!(
            (uptime.up_s, uptime.down_s, uptime.percent),
            (7_200.0, 3_600.0, Some(66.667))
        );
    }
    assert_eq!(of[0].unknown_s, 86_400.0 - 10_800.0);
    let course = store
        .read(|connection| {
            rows::course(connection, &name("api"), Grain::Hour, minute_of(NOW) - 600)
        })
        .await
        .expect("read");
    let downs: Vec<f64> = course.iter().map(|(_, spans)| spans.down_s).collect();
    assert_eq!(downs, [3_600.0, 0.0, 0.0]);
    // A day later nothing of the last day is known.
    let later = NOW + 2.0 * 86_400.0;
    let found = store
        .read(move |connection| uptime::all(connection, later))
        .await
        .expect("read");
    let of = &found[&name("api")];
    assert_eq!(
        (of[0].percent, of[0].unknown_s, of[1].percent),
        (None, 86_400.0, Some(66.667))
    );
}

#[tokio::test]
async fn results_of_checks_and_changes_are_kept_and_pruned() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory);
    let turn = |at: f64, state: HealthState| Turn {
        service: name("api"),
        state,
        at,
        reason: format!("{state:?}"),
    };
    let mut ledger = super::ledger::Ledger::default();
    for latency_ms in [1.0, 3.0, 100.0] {
        ledger.tried(
            name("api"),
            name("web"),
            Measured {
                good: true,
                latency_ms,
                slow: latency_ms > 50.0,
            },
        );
    }
    ledger.tried(
        name("api"),
        name("web"),
        Measured {
            good: false,
            latency_ms: 9.0,
            slow: false,
        },
    );
    let now = |unix: f64| crate::core::Now {
        unix,
        mono: std::time::Duration::ZERO,
    };
    ledger.tick(now(NOW - 60.0));
    let rows_of_minute = ledger.tick(now(NOW));
    for minutes in [rows_of_minute.clone(), rows_of_minute] {
        save(&store, minutes).await;
    }
    let turns = vec![
        turn(NOW - 200_000.0, HealthState::Healthy),
        turn(NOW - 50.0, HealthState::Down),
        turn(NOW - 40.0, HealthState::Healthy),
    ];
    save(
        &store,
        Minutes {
            turns,
            ..Minutes::default()
        },
    )
    .await;
    let read = |grain: Grain| {
        store.read(move |connection| rows::results(connection, grain, minute_of(NOW) - 5))
    };
    for grain in [Grain::Minute, Grain::Hour] {
        let found: BTreeMap<_, Results> = read(grain).await.expect("read");
        let web = found[&(name("api"), name("web"))];
        assert_eq!(
            (web.tries, web.failures, web.slow, web.latency_ms_max),
            (8, 2, 4, 100.0),
            "{grain:?}"
        );
        assert_eq!(web.latency_ms_at(0.5), Some(4.0));
    }
    let newest = store
        .read(|connection| rows::changes(connection, &name("api"), 2))
        .await
        .expect("read");
    let states: Vec<HealthState> = newest.iter().map(|turn| turn.state).collect();
    assert_eq!(states, [HealthState::Healthy, HealthState::Down]);
    // A report knows how it was when its time began.
    let since = store
        .read(|connection| rows::changes_since(connection, NOW - 45.0))
        .await
        .expect("read");
    let states: Vec<HealthState> = since.iter().map(|turn| turn.state).collect();
    assert_eq!(states, [HealthState::Down, HealthState::Healthy]);
    let deleted = store
        .write(|tx| rows::prune(tx, NOW + 60.0, NOW - 100_000.0))
        .await
        .expect("pruned");
    assert_eq!(deleted, 2, "the minute and the old change; the hour stays");
    assert!(read(Grain::Minute).await.expect("read").is_empty());
    assert_eq!(read(Grain::Hour).await.expect("read").len(), 1);
}

#[tokio::test]
async fn objectives_are_judged_from_the_rows() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory);
    let mut fleet = Fleet::default();
    let spec = json!({
        "command": "x",
        "checks": { "web": { "tcp": { "port": 1 } } },
        "slo": { "availability": 99.9, "latency": { "target": 90, "max": "50ms" } },
    });
    fleet.services.insert(
        name("api"),
        serde_json::from_value(spec).expect("a service"),
    );
    // An hour in which 3 seconds of each minute failed: 50 times the rate of 99.9 %.
    save(&store, minutes(std::iter::repeat_n((57.0, 3.0), 60))).await;
    let slow = Results {
        tries: 100,
        slow: 20,
        ..Results::default()
    };
    let checks = (1..=60).map(|ago| (name("api"), name("web"), minute_of(NOW) - ago, slow));
    save(
        &store,
        Minutes {
            checks: checks.collect(),
            ..Minutes::default()
        },
    )
    .await;
    let fleet = Arc::new(fleet);
    let found = store
        .read(move |connection| slo::objectives(connection, &fleet, NOW))
        .await
        .expect("read");
    let [availability, latency] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(availability.kept_percent, Some(95.0));
    assert!(availability.alert.is_some(), "{availability:?}");
    assert_eq!(availability.burn[0].rate_long, Some(50.0));
    assert_eq!(
        (latency.kept_percent, latency.events),
        (Some(80.0), 6_000.0)
    );
    // Twice the rate is no quick fire, but it lasts.
    assert_eq!(
        latency.alert,
        Some(alicia_contract::health::Severity::Warning)
    );
    assert_eq!(latency.budget_left_percent, -100.0);
}

fn turn(service: &str, at: f64, state: HealthState) -> Turn {
    Turn {
        service: name(service),
        state,
        at,
        reason: String::new(),
    }
}

/// The monitor did not run for an hour: an outage from before it is over for all that is known.
#[tokio::test]
async fn what_was_open_when_the_monitor_ended_is_closed_where_it_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory);
    let close = async |now: f64| {
        let closed = store.write(move |tx| rows::close(tx, now, 180.0)).await;
        closed.expect("written")
    };
    assert_eq!(close(NOW).await, 0, "nothing was ever counted");
    let mut known = minutes([(0.0, 60.0)]);
    known.turns = vec![
        turn("api", NOW - 600.0, HealthState::Healthy),
        turn("api", NOW - 60.0, HealthState::Down),
        turn("web", NOW - 600.0, HealthState::Unknown),
    ];
    save(&store, known).await;
    assert_eq!(close(NOW + 179.0).await, 0, "a restart is no gap");
    assert_eq!(close(NOW + 3_600.0).await, 1);
    assert_eq!(close(NOW + 3_700.0).await, 0, "once");
    let changes = store.read(|connection| rows::changes_since(connection, NOW - 3_600.0));
    let changes = changes.await.expect("read");
    let last = changes.last().expect("some");
    assert_eq!(
        (last.service.as_str(), last.state, last.at),
        ("api", HealthState::Unknown, NOW)
    );
}
