//! When to try: at a steady rate, each ticker in a phase of its own.
//!
//! A thousand checks of one second that start together would all run in the same millisecond of each second. A ticker
//! therefore has a phase, which follows from a seed: the same service has the same phase after every start. Ticks lie
//! on a fixed grid, so that they do not drift; one that was missed is skipped, not made up for.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::attempt::now;

/// The shortest interval; one of zero would never rest.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// When the first tick is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// As soon as the delay is over: for readiness, where waiting is lost time. The second tick is in phase.
    AtOnce,
    /// In phase: for checks that start together.
    InPhase,
}

/// Ticks at a steady rate.
#[derive(Debug, Clone)]
pub struct Ticker {
    start: Instant,
    interval: Duration,
    /// From the start to the first tick in phase.
    offset: Duration,
    /// The tick that comes next.
    next: Instant,
}

// === impl Ticker ===

impl Ticker {
    /// A ticker that starts now, waits for `delay`, and then ticks every `interval`.
    #[must_use]
    pub fn new(interval: Duration, delay: Duration, first: First, seed: u64) -> Self {
        Self::starting(now(), interval, delay, first, seed)
    }

    fn starting(
        start: Instant,
        interval: Duration,
        delay: Duration,
        first: First,
        seed: u64,
    ) -> Self {
        let interval = interval.max(INTERVAL_MIN);
        let offset = delay.saturating_add(phase(interval, seed));
        let next = match first {
            First::AtOnce => delay,
            First::InPhase => offset,
        };
        Self {
            start,
            interval,
            offset,
            next: later(start, next),
        }
    }

    /// When the next tick is.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Whether the next tick is due; if so, it counts as taken.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next;
        if due {
            self.next = self.after(now);
        }
        due
    }

    /// Waits for the next tick. Dropping the future loses none.
    pub async fn tick(&mut self) {
        sleep_until(self.next).await;
        self.next = self.after(now());
    }

    /// The first tick in phase that is later than `now`.
    fn after(&self, now: Instant) -> Instant {
        let passed = now.saturating_duration_since(self.start);
        let Some(passed) = passed.checked_sub(self.offset) else {
            return later(self.start, self.offset);
        };
        let periods = passed.as_nanos() / self.interval.as_nanos() + 1;
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        let ticks = self.interval.saturating_mul(periods);
        later(self.start, self.offset.saturating_add(ticks))
    }
}

/// A point in time; one that is too far away to be written is in thirty years, as in tokio.
fn later(start: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);
    start.checked_add(wait).unwrap_or_else(|| start + FAR)
}

/// A phase from above 0 to the whole interval, spread evenly over seeds (the finaliser of SplitMix64, Steele 2014).
fn phase(interval: Duration, seed: u64) -> Duration {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let nanos = interval.as_nanos().min(u128::from(u64::MAX));
    let part = (u128::from(mixed) * nanos) >> 64;
    Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
        .saturating_add(Duration::from_nanos(1))
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_thousand_tickers_do_not_align() {
        let mut buckets = [0_u32; 100];
        for seed in 0..1_000 {
            let ticker = Ticker::new(SECOND, Duration::ZERO, First::InPhase, seed);
            let wait = ticker.next() - now();
            assert!(wait > Duration::ZERO && wait <= SECOND, "{wait:?}");
            buckets[usize::try_from((wait.as_nanos() - 1) / 10_000_000).expect("below 100")] += 1;
        }
        // 10 are expected in each; 30 would be six standard deviations away.
        assert!(buckets.iter().all(|count| *count < 30), "{buckets:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn ticks_lie_on_a_grid_whatever_the_work_between_takes() {
        let start = now();
        let mut ticker = Ticker::new(SECOND, SECOND * 5, First::AtOnce, 7);
        ticker.tick().await;
        assert_eq!(now() - start, SECOND * 5);
        ticker.tick().await;
        let grid = now() - start;
        assert!(grid > SECOND * 5 && grid <= SECOND * 6);
        for n in 1..100_u32 {
            advance(Duration::from_millis(u64::from(n % 9) * 100)).await;
            ticker.tick().await;
            // The timer of tokio is exact to one millisecond.
            let off = (now() - start).abs_diff(grid + SECOND * n);
            assert!(off <= Duration::from_millis(1), "{n}: {off:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn missed_ticks_are_skipped() {
        let mut ticker = Ticker::new(SECOND, Duration::ZERO, First::InPhase, 7);
        ticker.tick().await;
        let due = ticker.next();
        advance(SECOND * 10 + SECOND / 2).await;
        assert!(ticker.is_due(now()));
        assert!(!ticker.is_due(now()));
        assert_eq!(ticker.next(), due + SECOND * 10);
    }

    #[test]
    fn the_same_seed_has_the_same_phase() {
        assert_eq!(phase(SECOND, 42), phase(SECOND, 42));
        assert_ne!(phase(SECOND, 42), phase(SECOND, 43));
    }

    #[tokio::test(start_paused = true)]
    async fn extremes_neither_panic_nor_spin() {
        for interval in [Duration::ZERO, Duration::MAX] {
            for delay in [Duration::ZERO, Duration::MAX] {
                let mut ticker = Ticker::new(interval, delay, First::AtOnce, u64::MAX);
                let at = now();
                ticker.is_due(at);
                assert!(ticker.next() > at);
            }
        }
    }
}
