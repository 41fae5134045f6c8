//! How fast one client may publish: a bucket of tokens, one per message.

use std::time::{Duration, Instant};

/// A client may send as much as a second's worth at once.
const BURST_SECONDS: f64 = 1.0;

/// The pace of one client.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Pace {
    /// A full bucket. A rate of 0 is no limit.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self {
            per_second,
            tokens: per_second * BURST_SECONDS,
            filled: now,
        }
    }

    /// Takes one token per message; the answer is how long to wait before passing them on.
    pub(crate) fn take(&mut self, messages: u32, now: Instant) -> Duration {
        if self.per_second <= 0.0 || messages == 0 {
            return Duration::ZERO;
        }
        let gained = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.filled = now;
        self.tokens = (self.tokens + gained).min(self.per_second * BURST_SECONDS);
        self.tokens -= f64::from(messages);
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(-self.tokens / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::clock;

    #[test]
    fn a_burst_is_free_and_the_rest_waits() {
        let start = clock::now();
        let mut pace = Pace::new(100, start);
        assert_eq!(pace.take(100, start), Duration::ZERO);
        assert_eq!(pace.take(50, start), Duration::from_millis(500));
        assert_eq!(pace.take(1, start + Duration::from_secs(5)), Duration::ZERO);
        assert_eq!(Pace::new(0, start).take(1_000_000, start), Duration::ZERO);
    }
}
