//! The counting, pure: turns, tries and time go in, whole minutes come out.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::health::HealthState;
use alicia_contract::id::ServiceName;

use crate::core::{Now, Turn};

/// The upper ends of the buckets of latencies, in milliseconds; the last bucket has none. Each is twice the one before, so
/// that a percentile is right to a factor of two wherever it lies.
pub(crate) const BUCKETS_MS: [f64; BUCKETS - 1] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0, 8_192.0,
    16_384.0,
];

/// How many buckets there are.
pub(crate) const BUCKETS: usize = 16;

/// A gap between two ticks above this was not watched.
const GAP_MAX: Duration = Duration::from_secs(3);

/// Seconds of a minute.
const MINUTE_S: f64 = 60.0;

/// How long a service was in which state, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Spans {
    /// It worked, perhaps with less than it should have.
    pub(crate) up_s: f64,
    /// Of that: with less than it should have.
    pub(crate) degraded_s: f64,
    /// It did not work.
    pub(crate) down_s: f64,
    /// It was watched, but nobody could tell.
    pub(crate) unknown_s: f64,
}

/// What tries of a check measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Results {
    pub(crate) tries: u64,
    pub(crate) failures: u64,
    /// Tries above the objective of the service, or that failed.
    pub(crate) slow: u64,
    /// Of those that succeeded.
    pub(crate) latency_sum_ms: f64,
    pub(crate) latency_ms_max: f64,
    /// How many that succeeded lie in each bucket of [`BUCKETS_MS`].
    pub(crate) buckets: [u64; BUCKETS],
}

/// One try.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    pub(crate) good: bool,
    pub(crate) latency_ms: f64,
    /// Whether it took longer than the objective of the service.
    pub(crate) slow: bool,
}

/// Rows to be written. A minute is a number since 1970.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Minutes {
    pub(crate) services: Vec<(ServiceName, i64, Spans)>,
    pub(crate) checks: Vec<(ServiceName, ServiceName, i64, Results)>,
    pub(crate) turns: Vec<Turn>,
}

/// The open minute.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    states: BTreeMap<ServiceName, Kind>,
    services: BTreeMap<ServiceName, Spans>,
    checks: BTreeMap<(ServiceName, ServiceName), Results>,
    turns: Vec<Turn>,
    /// To when time was counted.
    counted: Option<Duration>,
    minute: Option<i64>,
}

/// What a state counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Up,
    Degraded,
    Down,
    Unknown,
}

// === impl Minutes ===

impl Minutes {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.services.len() + self.checks.len() + self.turns.len()
    }

    pub(crate) fn append(&mut self, mut later: Self) {
        self.services.append(&mut later.services);
        self.checks.append(&mut later.checks);
        self.turns.append(&mut later.turns);
    }

    /// Drops the oldest of each kind beyond so many; gives how many that are.
    pub(crate) fn shorten(&mut self, most: usize) -> usize {
        let before = self.len();
        fn cut<T>(rows: &mut Vec<T>, most: usize) {
            rows.drain(..rows.len().saturating_sub(most));
        }
        cut(&mut self.services, most);
        cut(&mut self.checks, most);
        cut(&mut self.turns, most);
        before - self.len()
    }
}

// === impl Ledger ===

impl Ledger {
    /// A service turned into another state: the time until now belongs to the state before.
    pub(crate) fn turn(&mut self, turn: Turn, now: Duration) {
        self.count(now);
        let before = self.states.get(&turn.service).copied();
        let kind = match turn.state {
            HealthState::Healthy => Kind::Up,
            HealthState::Degraded => Kind::Degraded,
            HealthState::Unhealthy | HealthState::Down => Kind::Down,
            HealthState::Unknown => Kind::Unknown,
            // On its way after it worked: it is missed. On its way from nothing: nobody had it yet.
            HealthState::Starting => match before {
                Some(Kind::Up | Kind::Degraded | Kind::Down) => Kind::Down,
                Some(Kind::Unknown) | None => Kind::Unknown,
            },
        };
        self.states.insert(turn.service.clone(), kind);
        self.turns.push(turn);
    }

    /// A check was tried.
    pub(crate) fn tried(&mut self, service: ServiceName, check: ServiceName, measured: Measured) {
        self.checks
            .entry((service, check))
            .or_default()
            .add(measured);
    }

    /// Time passed: gives the minute that is over, if one is, and every turn so far.
    pub(crate) fn tick(&mut self, now: Now) -> Minutes {
        self.count(now.mono);
        let minute = minute_of(now.unix);
        let open = *self.minute.get_or_insert(minute);
        let turns = std::mem::take(&mut self.turns);
        if minute == open {
            return Minutes {
                turns,
                ..Minutes::default()
            };
        }
        self.minute = Some(minute);
        let services = std::mem::take(&mut self.services).into_iter();
        let checks = std::mem::take(&mut self.checks).into_iter();
        Minutes {
            services: services
                .map(|(service, spans)| (service, open, spans))
                .collect(),
            checks: checks
                .map(|((service, check), results)| (service, check, open, results))
                .collect(),
            turns,
        }
    }

    /// Counts on for these services only: of one that is gone there is nothing to know.
    pub(crate) fn keep(&mut self, is_watched: impl Fn(&ServiceName) -> bool) {
        self.states.retain(|service, _| is_watched(service));
    }

    fn count(&mut self, now: Duration) {
        let Some(before) = self.counted.replace(now) else {
            return;
        };
        let span = now.saturating_sub(before);
        let span_s = span.as_secs_f64();
        for (service, kind) in &self.states {
            let spans = self.services.entry(service.clone()).or_default();
            let kind = if span > GAP_MAX { Kind::Unknown } else { *kind };
            match kind {
                Kind::Up => spans.up_s += span_s,
                Kind::Degraded => {
                    spans.up_s += span_s;
                    spans.degraded_s += span_s;
                }
                Kind::Down => spans.down_s += span_s,
                Kind::Unknown => spans.unknown_s += span_s,
            }
        }
    }
}

// === impl Results ===

impl Results {
    fn add(&mut self, measured: Measured) {
        self.tries += 1;
        self.failures += u64::from(!measured.good);
        self.slow += u64::from(measured.slow || !measured.good);
        if !measured.good {
            return;
        }
        self.latency_sum_ms += measured.latency_ms;
        self.latency_ms_max = self.latency_ms_max.max(measured.latency_ms);
        let above = |end: &f64| measured.latency_ms > *end;
        self.buckets[BUCKETS_MS.partition_point(above)] += 1;
    }

    /// Adds another piece of time.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.tries += other.tries;
        self.failures += other.failures;
        self.slow += other.slow;
        self.latency_sum_ms += other.latency_sum_ms;
        self.latency_ms_max = self.latency_ms_max.max(other.latency_ms_max);
        for (sum, more) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += more;
        }
    }

    /// The mean latency of tries that succeeded.
    pub(crate) fn latency_ms_mean(&self) -> Option<f64> {
        let good = self.tries.saturating_sub(self.failures);
        (good > 0).then(|| self.latency_sum_ms / number(good))
    }

    /// The latency that this share of the tries that succeeded does not exceed, right to a factor of two.
    pub(crate) fn latency_ms_at(&self, share: f64) -> Option<f64> {
        let total: u64 = self.buckets.iter().sum();
        if total == 0 {
            return None;
        }
        let wanted = share * number(total);
        let mut sum = 0;
        for (count, end) in self.buckets.iter().zip(BUCKETS_MS) {
            sum += count;
            if number(sum) >= wanted {
                return Some(end.min(self.latency_ms_max));
            }
        }
        Some(self.latency_ms_max)
    }
}

// === impl Spans ===

impl Spans {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.up_s += other.up_s;
        self.degraded_s += other.degraded_s;
        self.down_s += other.down_s;
        self.unknown_s += other.unknown_s;
    }
}

/// The number of the minute since 1970.
#[expect(
    clippy::cast_possible_truncation,
    reason = "minutes since 1970 fit for long"
)]
pub(crate) fn minute_of(unix: f64) -> i64 {
    (unix / MINUTE_S).floor() as i64
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).expect("an id")
    }

    fn at(seconds: u32) -> Now {
        Now {
            unix: 6_000.0 + f64::from(seconds),
            mono: Duration::from_secs(seconds.into()),
        }
    }

    fn turn(state: HealthState, seconds: u32) -> (Turn, Duration) {
        let turn = Turn {
            service: name("api"),
            state,
            at: at(seconds).unix,
            reason: String::new(),
        };
        (turn, at(seconds).mono)
    }

    /// The first minute, with these turns in it.
    fn minute(turns: &[(HealthState, u32)]) -> Spans {
        let mut ledger = Ledger::default();
        let mut turns = turns.iter().peekable();
        for second in 0..=60 {
            while let Some((state, _)) = turns.next_if(|(_, at)| *at == second) {
                let (turn, now) = turn(*state, second);
                ledger.turn(turn, now);
            }
            let rows = ledger.tick(at(second));
            if let Some((service, minute, spans)) = rows.services.first() {
                assert_eq!((service.as_str(), *minute), ("api", 100));
                return *spans;
            }
        }
        Spans::default()
    }

    #[test]
    fn time_is_counted_by_state() {
        use HealthState::{Degraded, Down, Healthy, Starting, Unhealthy, Unknown};
        let check = |turns: &[(HealthState, u32)], expected: [f64; 4]| {
            let Spans {
                up_s,
                degraded_s,
                down_s,
                unknown_s,
            } = minute(turns);
            assert_eq!([up_s, degraded_s, down_s, unknown_s], expected, "{turns:?}");
        };
        check(&[(Healthy, 0)], [60.0, 0.0, 0.0, 0.0]);
        check(
            &[(Healthy, 0), (Degraded, 10), (Down, 30)],
            [30.0, 20.0, 30.0, 0.0],
        );
        check(&[(Unknown, 0), (Unhealthy, 50)], [0.0, 0.0, 10.0, 50.0]);
        // The first start is nobody's loss, a restart is.
        check(&[(Starting, 0), (Healthy, 5)], [55.0, 0.0, 0.0, 5.0]);
        check(
            &[(Healthy, 0), (Down, 10), (Starting, 20), (Healthy, 30)],
            [40.0, 0.0, 20.0, 0.0],
        );
        // Before it was known there is nothing.
        check(&[(Healthy, 20)], [40.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn time_that_nobody_watched_is_unknown() {
        let mut ledger = Ledger::default();
        let (turn, now) = turn(HealthState::Healthy, 0);
        ledger.turn(turn, now);
        ledger.tick(at(0));
        ledger.tick(at(2));
        let rows = ledger.tick(at(100));
        let (_, _, spans) = &rows.services[0];
        assert_eq!((spans.up_s, spans.unknown_s), (2.0, 98.0));
    }

    #[test]
    fn of_a_service_that_is_gone_nothing_is_counted() {
        let mut ledger = Ledger::default();
        let (turn, now) = turn(HealthState::Down, 0);
        ledger.turn(turn, now);
        (0..10).for_each(|second| drop(ledger.tick(at(second))));
        ledger.keep(|_| false);
        (10..60).for_each(|second| drop(ledger.tick(at(second))));
        let rows = ledger.tick(at(60));
        assert_eq!(rows.services[0].2.down_s, 9.0);
        (61..120).for_each(|second| drop(ledger.tick(at(second))));
        assert_eq!(ledger.tick(at(120)).services, [], "no rows for ever");
    }

    #[test]
    fn latencies_are_counted_in_buckets() {
        let mut results = Results::default();
        for n in 1..=100_u32 {
            let measured = Measured {
                good: true,
                latency_ms: f64::from(n),
                slow: n > 90,
            };
            results.add(measured);
        }
        results.add(Measured {
            good: false,
            latency_ms: 5_000.0,
            slow: false,
        });
        assert_eq!(
            (results.tries, results.failures, results.slow),
            (101, 1, 11)
        );
        assert_eq!(results.latency_ms_mean(), Some(50.5));
        assert_eq!(results.latency_ms_at(0.5), Some(64.0));
        assert_eq!(
            results.latency_ms_at(0.99),
            Some(100.0),
            "no more than the longest"
        );
        assert_eq!(Results::default().latency_ms_at(0.5), None);
    }

    proptest! {
        /// Whatever happens: each second is counted exactly once, and a percentile is within a factor of two.
        #[test]
        fn nothing_is_counted_twice(states in prop::collection::vec(0..6_usize, 1..60), latencies in prop::collection::vec(0.1..20_000.0_f64, 1..50)) {
            let all = [HealthState::Healthy, HealthState::Starting, HealthState::Degraded, HealthState::Unhealthy, HealthState::Down, HealthState::Unknown];
            let turns: Vec<(HealthState, u32)> = states.iter().zip(0..).map(|(n, at)| (all[*n], at)).collect();
            let Spans { up_s, down_s, unknown_s, degraded_s } = minute(&turns);
            prop_assert!((up_s + down_s + unknown_s - 60.0).abs() < 1e-6);
            prop_assert!(degraded_s <= up_s);
            let mut results = Results::default();
            for latency_ms in &latencies {
                results.add(Measured { good: true, latency_ms: *latency_ms, slow: false });
            }
            let mut sorted = latencies.clone();
            sorted.sort_by(f64::total_cmp);
            let median = sorted[(sorted.len() - 1) / 2];
            let found = results.latency_ms_at(0.5).expect("some");
            prop_assert!(found >= median && found <= (2.0 * median).max(1.0), "{found} {median}");
        }
    }
}
