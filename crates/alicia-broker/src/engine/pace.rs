//! How fast one identity may publish, whatever the number of its connections: a bucket of tokens.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What may be sent at once, in seconds of the rate.
const BURST_S: f64 = 0.25;
/// A packet costs a token, and its bytes cost a token for each of this many: work is done for both.
const BYTES_PER_TOKEN: f64 = 4096.0;

/// The pace of one identity, shared by its connections.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Tokens per second; 0 is no limit.
    per_second: f64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

// === impl Pace ===

impl Pace {
    /// A full bucket. A rate of 0 is no limit.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self {
            per_second,
            bucket: Mutex::new(Bucket {
                tokens: per_second * BURST_S,
                filled: now,
            }),
        }
    }

    /// Takes the tokens of a piece; the answer is how long to wait before passing it on. Who comes in the meantime waits
    /// behind it.
    pub(crate) fn take(&self, packets: u32, bytes: usize, now: Instant) -> Duration {
        if self.per_second <= 0.0 || packets == 0 && bytes == 0 {
            return Duration::ZERO;
        }
        let cost = f64::from(packets) + bytes as f64 / BYTES_PER_TOKEN;
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.tokens = self.tokens_at(&bucket, now) - cost;
        bucket.filled = now;
        Duration::try_from_secs_f64(-bucket.tokens / self.per_second).unwrap_or(Duration::ZERO)
    }

    /// Whether nothing would change if a new one took its place.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        let bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        self.tokens_at(&bucket, now) >= self.per_second * BURST_S
    }

    fn tokens_at(&self, bucket: &Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.filled);
        let gained = passed.as_secs_f64() * self.per_second;
        (bucket.tokens + gained).min(self.per_second * BURST_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::clock;

    #[test]
    fn a_burst_is_free_and_the_rest_waits() {
        let start = clock::now();
        let pace = Pace::new(100, start);
        assert_eq!(pace.take(25, 0, start), Duration::ZERO);
        assert!(!pace.is_full(start));
        assert_eq!(pace.take(50, 0, start), Duration::from_millis(500));
        assert_eq!(pace.take(0, 50 * 4096, start), Duration::from_secs(1));
        let later = start + Duration::from_secs(5);
        assert!(pace.is_full(later));
        assert_eq!(pace.take(1, 0, later), Duration::ZERO);
        let no_limit = Pace::new(0, start);
        assert_eq!(no_limit.take(1_000_000, 0, start), Duration::ZERO);
        assert!(no_limit.is_full(start));
    }
}
