//! How the instance is: what it says of itself, what it counts, what it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alicia_contract::health::HeartbeatStatus;
use tokio::sync::Notify;

use crate::resources::Usage;

/// Counters of one service: a bound on what a heartbeat can grow to.
const COUNTERS_MAX: usize = 1_000;
/// Over less time the clock ticks of the kernel are too coarse to tell the use of the processor.
const CPU_WINDOW: Duration = Duration::from_secs(1);

/// Counts and states of one instance.
#[derive(Debug)]
pub(crate) struct Vitals {
    started: Instant,
    state: Mutex<State>,
    /// The status has changed: a heartbeat is due.
    pub(crate) changed: Notify,
}

#[derive(Debug)]
struct State {
    status: HeartbeatStatus,
    detail: Option<String>,
    refused: BTreeSet<String>,
    counters: BTreeMap<String, f64>,
    measured: Option<(Duration, Usage)>,
    cpu_cores: f64,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a service is a program of its own: its uptime is that of its process, not of a simulation"
)]
fn monotonic() -> Instant {
    Instant::now()
}

impl Vitals {
    pub(crate) fn new() -> Self {
        Self {
            started: monotonic(),
            state: Mutex::new(State {
                status: HeartbeatStatus::Starting,
                detail: Some("not yet connected to the bus".to_owned()),
                refused: BTreeSet::new(),
                counters: BTreeMap::new(),
                measured: None,
                cpu_cores: 0.0,
            }),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn uptime(&self) -> Duration {
        monotonic().saturating_duration_since(self.started)
    }

    /// Says how the service is. Goodbye is the last word.
    pub(crate) fn set(&self, status: HeartbeatStatus, detail: Option<String>) {
        let mut state = self.state();
        if state.status != HeartbeatStatus::Stopping {
            state.status = status;
            state.detail = detail;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The start is over, unless a handler has said something else already. The first heartbeat is due
    /// anyway.
    pub(crate) fn started(&self) {
        let mut state = self.state();
        if state.status == HeartbeatStatus::Starting {
            state.status = HeartbeatStatus::Healthy;
            state.detail = None;
        }
    }

    /// A topic that the broker does not let it use.
    pub(crate) fn refused(&self, topic: &str) {
        self.state().refused.insert(topic.to_owned());
        self.changed.notify_one();
    }

    /// How it is. Well, but without something that it needs, is degraded.
    pub(crate) fn status(&self) -> (HeartbeatStatus, Option<String>) {
        let state = self.state();
        if state.status == HeartbeatStatus::Healthy && !state.refused.is_empty() {
            let topics: Vec<&str> = state.refused.iter().map(String::as_str).collect();
            let detail = format!(
                "may not subscribe to {}: add it to `allow` in alicia.yaml",
                topics.join(", ")
            );
            return (HeartbeatStatus::Degraded, Some(detail));
        }
        (state.status, state.detail.clone())
    }

    /// Raises a counter. Counters only rise; what is not a number or negative is ignored.
    pub(crate) fn count(&self, name: &str, by: f64) {
        if !by.is_finite() || by < 0.0 {
            tracing::warn!(name, by, "a counter only rises");
            return;
        }
        let mut state = self.state();
        if let Some(counter) = state.counters.get_mut(name) {
            *counter += by;
        } else if state.counters.len() < COUNTERS_MAX {
            state.counters.insert(name.to_owned(), by);
        }
    }

    pub(crate) fn counters(&self) -> BTreeMap<String, f64> {
        self.state().counters.clone()
    }

    /// `cpu` in cores over the last window, and `memory_bytes`.
    pub(crate) fn resources(&self) -> BTreeMap<String, f64> {
        let Some(usage) = Usage::now() else {
            return BTreeMap::new();
        };
        let now = self.uptime();
        let mut state = self.state();
        let (since, before) = state.measured.unwrap_or((Duration::ZERO, zero(usage)));
        let window = now.saturating_sub(since);
        if window >= CPU_WINDOW || state.measured.is_none() {
            state.cpu_cores = (usage.cpu_s - before.cpu_s) / window.max(CPU_WINDOW).as_secs_f64();
            state.measured = Some((now, usage));
        }
        BTreeMap::from([
            ("cpu".to_owned(), state.cpu_cores),
            ("memory_bytes".to_owned(), usage.memory_bytes),
        ])
    }
}

fn zero(usage: Usage) -> Usage {
    Usage {
        cpu_s: 0.0,
        ..usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_topic_degrades_a_healthy_service_and_nothing_overrides_the_goodbye() {
        let vitals = Vitals::new();
        assert_eq!(vitals.status().0, HeartbeatStatus::Starting);
        vitals.started();
        assert_eq!(vitals.status(), (HeartbeatStatus::Healthy, None));
        vitals.refused("alicia/rooms/+");
        let (status, detail) = vitals.status();
        assert_eq!(status, HeartbeatStatus::Degraded);
        assert!(detail.expect("says why").contains("alicia/rooms/+"));
        vitals.set(HeartbeatStatus::Stopping, None);
        vitals.set(HeartbeatStatus::Healthy, None);
        assert_eq!(vitals.status().0, HeartbeatStatus::Stopping);
    }

    #[test]
    fn a_status_that_was_set_during_the_start_stays() {
        let vitals = Vitals::new();
        vitals.set(HeartbeatStatus::Unhealthy, Some("no sensor".to_owned()));
        vitals.started();
        assert_eq!(vitals.status().0, HeartbeatStatus::Unhealthy);
    }

    #[test]
    fn counters_only_rise_and_are_bounded() {
        let vitals = Vitals::new();
        for by in [1.0, 2.5, -1.0, f64::NAN, f64::INFINITY] {
            vitals.count("seen", by);
        }
        assert_eq!(
            vitals.counters(),
            BTreeMap::from([("seen".to_owned(), 3.5)])
        );
        for n in 0..COUNTERS_MAX * 2 {
            vitals.count(&n.to_string(), 1.0);
        }
        assert_eq!(vitals.counters().len(), COUNTERS_MAX);
    }

    #[test]
    fn resources_are_measured() {
        let resources = Vitals::new().resources();
        assert!(resources["memory_bytes"] > 0.0);
        assert!(resources["cpu"] >= 0.0);
    }
}
