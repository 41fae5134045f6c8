//! Restarts that the monitor asks for, of services that run and are unhealthy, with a circuit breaker.
//!
//! ```text
//!            unhealthy for `after`: restart, at most `limit` within `within`
//!              ┌──┐
//!              ▼  │        one more would be too many              `pause` is over
//!   ──────▶ closed ─────────────────────────▶ open ─────────────────────────▶ half-open: one restart
//!              ▲                               ▲                               │        │
//!              │                               └──── unhealthy for `after` ────┘        │
//!              └──────────────────────────────────── healthy for `after` ───────────────┘
//! ```
//!
//! A service whose dependency is the cause is not restarted: that would mend nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use alicia_contract::health::{Alert, HealthState, Severity};
use alicia_contract::id::ServiceName;

use super::Now;
use super::conditions::{Condition, Key, Rule};
use crate::suggest;

/// When restarts are asked for, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartLimits {
    /// How long a service must be unhealthy.
    pub after: Duration,
    /// How many restarts within the time before the breaker opens.
    pub limit: u32,
    /// The time in which they are counted.
    pub within: Duration,
    /// How long the breaker stays open before one more try.
    pub pause: Duration,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Patient<'a> {
    /// The service.
    pub service: &'a ServiceName,
    /// How it is.
    pub state: HealthState,
    /// Since when.
    pub since: Duration,
    /// Why.
    pub reason: &'a str,
    /// The service that is the cause.
    pub root: Option<ServiceName>,
}

/// Where a breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Restarts are asked for.
    Closed,
    /// They did not help: none until then.
    Open(Duration),
    /// One was tried after the pause.
    HalfOpen,
}

/// The breakers, by service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Breakers(BTreeMap<ServiceName, Breaker>);

#[derive(Debug, Clone, PartialEq)]
struct Breaker {
    position: Position,
    restarts: VecDeque<Duration>,
    /// How many restarts did not help, since the breaker was last closed by health.
    vain: u32,
    reason: String,
}

/// What an open breaker is, as an alert is about.
#[must_use]
pub fn key(service: &ServiceName) -> Key {
    Key {
        rule: Rule::RestartBreaker,
        service: service.clone(),
        instance: None,
        check: None,
    }
}

// === impl Breakers ===

impl Breakers {
    /// Looks at a service; gives the reason when it is to be restarted now.
    pub fn look(
        &mut self,
        patient: &Patient<'_>,
        limits: RestartLimits,
        now: Now,
    ) -> Option<String> {
        let sick = patient.state == HealthState::Unhealthy;
        if !sick && !self.0.contains_key(patient.service) {
            return None;
        }
        let breaker = self.0.entry(patient.service.clone()).or_default();
        if let Some(oldest) = now.mono.checked_sub(limits.within) {
            breaker.restarts.retain(|at| *at >= oldest);
        }
        let lasted = now.mono.saturating_sub(patient.since);
        if patient.state == HealthState::Healthy && lasted >= limits.after {
            if breaker.position != Position::Closed || breaker.restarts.is_empty() {
                self.0.remove(patient.service);
            }
            return None;
        }
        // A restart that was asked for gets as long as the sickness that led to it.
        let asked = breaker.restarts.back().copied();
        let waited = asked.is_none_or(|at| now.mono.saturating_sub(at) >= limits.after);
        if !sick || lasted < limits.after || !waited || patient.root.is_some() {
            return None;
        }
        breaker.decide(patient, limits, now)
    }

    /// What an alert tells of a breaker that is not closed.
    #[must_use]
    pub fn condition(&self, service: &ServiceName, limits: RestartLimits) -> Option<Condition> {
        let breaker = self.0.get(service)?;
        if breaker.position == Position::Closed {
            return None;
        }
        let pause_s = limits.pause.as_secs_f64();
        Some(Condition {
            key: key(service),
            active: true,
            occurrence: breaker.vain,
            severity: Severity::Critical,
            summary: format!("restarts of {service} do not help and are stopped"),
            detail: format!(
                "{} restarts did not make it healthy ({}); one more is tried every {pause_s} s",
                breaker.vain, breaker.reason
            ),
            last_lines: Vec::new(),
            suggestion: Some(suggest::logs(service)),
            labels: BTreeMap::new(),
        })
    }

    /// Forgets those of services that are not watched any more.
    pub fn keep(&mut self, is_watched: impl Fn(&ServiceName) -> bool) {
        self.0.retain(|service, _| is_watched(service));
    }

    /// Where the breaker of a service is.
    #[must_use]
    pub fn position(&self, service: &ServiceName) -> Position {
        let breaker = self.0.get(service);
        breaker.map_or(Position::Closed, |breaker| breaker.position)
    }

    /// Takes the alert of a breaker that was open before a restart of the monitor: it opens with a whole pause.
    pub fn restore(&mut self, alert: &Alert, limits: RestartLimits, now: Now) {
        if alert.rule != Rule::RestartBreaker.as_str() {
            return;
        }
        let breaker = Breaker {
            position: Position::Open(now.mono + limits.pause),
            restarts: VecDeque::new(),
            vain: limits.limit,
            reason: "before the monitor was restarted".to_owned(),
        };
        self.0.insert(alert.service.clone(), breaker);
    }
}

// === impl Breaker ===

impl Default for Breaker {
    fn default() -> Self {
        Self {
            position: Position::Closed,
            restarts: VecDeque::new(),
            vain: 0,
            reason: String::new(),
        }
    }
}

impl Breaker {
    fn decide(&mut self, patient: &Patient<'_>, limits: RestartLimits, now: Now) -> Option<String> {
        patient.reason.clone_into(&mut self.reason);
        match self.position {
            Position::Closed if self.restarts.len() < limits.limit as usize => {
                self.restart(now);
                let nth = self.restarts.len();
                Some(format!(
                    "unhealthy ({}); restart {nth} of at most {} in {} s",
                    patient.reason,
                    limits.limit,
                    limits.within.as_secs_f64()
                ))
            }
            Position::Closed | Position::HalfOpen => {
                self.position = Position::Open(now.mono + limits.pause);
                None
            }
            Position::Open(until) if now.mono >= until => {
                self.position = Position::HalfOpen;
                self.restart(now);
                Some(format!(
                    "unhealthy ({}); one try after a pause",
                    patient.reason
                ))
            }
            Position::Open(_) => None,
        }
    }

    fn restart(&mut self, now: Now) {
        self.restarts.push_back(now.mono);
        self.vain += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: RestartLimits = RestartLimits {
        after: Duration::from_secs(30),
        limit: 3,
        within: Duration::from_secs(600),
        pause: Duration::from_secs(300),
    };

    fn api() -> ServiceName {
        ServiceName::new("api").expect("an id")
    }

    fn at(s: u64) -> Now {
        Now {
            unix: 0.0,
            mono: Duration::from_secs(s),
        }
    }

    /// Looks every second at a service that is as `state` says of the second since its last restart; gives
    /// the seconds of the restarts.
    fn restarts(
        breakers: &mut Breakers,
        seconds: std::ops::Range<u64>,
        state: impl Fn(u64) -> HealthState,
        root: Option<ServiceName>,
    ) -> Vec<u64> {
        let api = api();
        let (mut since, mut before, mut begun) = (seconds.start, None, seconds.start);
        let mut restarts = Vec::new();
        for s in seconds {
            let now = state(s - begun);
            if before != Some(now) {
                (since, before) = (s, Some(now));
            }
            let patient = Patient {
                service: &api,
                state: now,
                since: Duration::from_secs(since),
                reason: "check web: HTTP 503",
                root: root.clone(),
            };
            if breakers.look(&patient, LIMITS, at(s)).is_some() {
                restarts.push(s);
                begun = s;
            }
        }
        restarts
    }

    #[test]
    fn it_opens_after_the_limit_tries_once_after_the_pause_and_closes_with_health() {
        let mut breakers = Breakers::default();
        let sick = |_| HealthState::Unhealthy;
        let made = restarts(&mut breakers, 0..451, sick, None);
        assert_eq!(made, [30, 60, 90, 420], "three, then one after the pause");
        assert_eq!(
            breakers.position(&api()),
            Position::Open(Duration::from_secs(750))
        );
        let told = breakers.condition(&api(), LIMITS).expect("told");
        assert_eq!(told.occurrence, 4);
        let well = |after: u64| {
            if after < 2 {
                HealthState::Starting
            } else {
                HealthState::Healthy
            }
        };
        let made = restarts(&mut breakers, 451..500, well, None);
        assert_eq!(made, [0; 0]);
        assert_eq!(breakers.position(&api()), Position::Closed);
        assert_eq!(breakers.condition(&api(), LIMITS), None);
    }

    #[test]
    fn one_restart_that_helps_leaves_it_closed() {
        let mut breakers = Breakers::default();
        let made = restarts(&mut breakers, 0..31, |_| HealthState::Unhealthy, None);
        assert_eq!(made, [30]);
        let made = restarts(&mut breakers, 31..200, |_| HealthState::Healthy, None);
        assert_eq!(made, [0; 0]);
        assert_eq!(breakers.position(&api()), Position::Closed);
    }

    #[test]
    fn what_depends_on_the_root_is_not_restarted() {
        let mut breakers = Breakers::default();
        let root = ServiceName::new("db").ok();
        let made = restarts(&mut breakers, 0..1_000, |_| HealthState::Unhealthy, root);
        assert_eq!(made, [0; 0]);
    }

    proptest! {
        /// However a service behaves, no window of `within` holds more restarts than the limit and those after
        /// pauses, and none comes sooner than `after` behind another.
        #[test]
        fn restarts_are_bounded(good_from in prop::collection::vec(1..200_u64, 1..20)) {
            let mut breakers = Breakers::default();
            let state = |after: u64| {
                let from = good_from[usize::try_from(after).unwrap_or(0) % good_from.len()];
                if after < from { HealthState::Unhealthy } else { HealthState::Healthy }
            };
            let made = restarts(&mut breakers, 0..3_000, state, None);
            for pair in made.windows(2) {
                prop_assert!(pair[1] - pair[0] >= 30, "{:?}", made);
            }
            for first in &made {
                let within = made.iter().filter(|at| **at >= *first && **at < first + 600).count();
                prop_assert!(within <= 3 + 2, "{:?}", made);
            }
        }
    }
}
