//! How long to wait before the next attempt to connect. Pure; the randomness is given.

use std::time::Duration;

/// The first wait: short, because most breaks are a broker that restarts.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// The longest wait: a broker that comes back is found within it.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// A connection that held this long, in seconds, was a good one: the next wait is the shortest again.
const HELD_WELL_S: f64 = 5.0;

/// Doubles from [`WAIT_MIN`] to [`WAIT_MAX`], with jitter so that a fleet does not come back in one beat.
#[derive(Debug)]
pub(crate) struct Backoff {
    wait: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { wait: WAIT_MIN }
    }

    /// A connection ended after `held_s` seconds; 0 for an attempt that failed.
    pub(crate) fn held(&mut self, held_s: f64) {
        if held_s >= HELD_WELL_S {
            self.wait = WAIT_MIN;
        }
    }

    /// The next wait: half of it fixed, half of it by `random` in 0..1.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(WAIT_MAX);
        wait.div_f64(2.0) + wait.div_f64(2.0).mul_f64(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_longest_and_start_over_after_a_good_connection() {
        let mut backoff = Backoff::new();
        let waits: Vec<u128> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        backoff.held(0.5);
        assert_eq!(backoff.next(0.0), WAIT_MAX / 2);
        backoff.held(60.0);
        assert_eq!(backoff.next(1.0), WAIT_MIN);
    }
}
