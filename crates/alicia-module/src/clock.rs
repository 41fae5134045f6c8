//! Time, given from outside, so that a test can set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alicia_contract::unit::UnixSeconds;
use tokio::time::Instant;

/// The clock of a module: wall time for people and records, monotonic time for waits.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Microseconds since 1970, set by a test; none: the system's.
    wall_us: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A wall clock that stands still until [`Clock::advance`].
    #[must_use]
    pub fn fixed(unix_s: u32) -> Self {
        Self {
            wall_us: Some(Arc::new(AtomicI64::new(i64::from(unix_s) * 1_000_000))),
        }
    }

    /// Moves a fixed clock on; a system clock goes by itself.
    pub fn advance(&self, by: Duration) {
        if let Some(wall_us) = &self.wall_us {
            let us = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            wall_us.fetch_add(us, Ordering::SeqCst);
        }
    }

    /// Wall time in microseconds since 1970-01-01 UTC. It may jump.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn unix_us(&self) -> i64 {
        match &self.wall_us {
            Some(fixed) => fixed.load(Ordering::SeqCst),
            None => {
                let since = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
            }
        }
    }

    /// Wall time in seconds, as messages carry it. It may jump.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "2^53 microseconds are 285 years"
    )]
    pub fn unix(&self) -> UnixSeconds {
        self.unix_us() as f64 / 1e6
    }

    /// Monotonic time, for waits and durations. Tokio's paused clock stops it in tests.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// The clock as the store wants it.
    #[must_use]
    pub fn for_store(&self) -> alicia_store::Clock {
        let clock = self.clone();
        Arc::new(move || clock.unix_us())
    }
}
