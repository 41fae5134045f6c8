//! How many requests one caller may make: the generic cell rate algorithm (ITU-T I.371), one time per caller.
//!
//! A caller has a *theoretical arrival time*, which each request moves on by 1/rate. A request that comes more than
//! burst/rate before it is refused, and told when to come again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alicia_contract::identity::RequestRate;
use tokio::time::Instant;

/// Callers that are remembered before those who have been quiet for long enough are forgotten.
const CALLERS_SOFT_MAX: usize = 4_096;

/// The arrival times of all callers. A clone is another handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rates {
    callers: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Rates {
    /// Takes a request.
    ///
    /// # Errors
    /// After how long the caller may try again.
    pub(crate) fn take(
        &self,
        caller: &str,
        rate: RequestRate,
        now: Instant,
    ) -> Result<(), Duration> {
        if rate.per_second == 0 {
            return Ok(());
        }
        let each = Duration::from_secs(1) / rate.per_second;
        let tolerance = each * rate.burst.saturating_sub(1);
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS_SOFT_MAX {
            callers.retain(|_, arrival| *arrival > now);
        }
        let arrival = callers.get(caller).copied().unwrap_or(now).max(now);
        let ahead = arrival - now;
        if ahead > tolerance {
            return Err(ahead - tolerance);
        }
        callers.insert(caller.to_owned(), arrival + each);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: RequestRate = RequestRate {
        per_second: 10,
        burst: 3,
    };

    #[expect(clippy::disallowed_methods, reason = "a point to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_burst_is_let_through_and_then_the_rate_holds() {
        let (rates, start) = (Rates::default(), start());
        let ms = |ms: u64| start + Duration::from_millis(ms);
        for _ in 0..3 {
            assert_eq!(rates.take("a", RATE, start), Ok(()));
        }
        assert_eq!(
            rates.take("a", RATE, start),
            Err(Duration::from_millis(100))
        );
        assert_eq!(rates.take("b", RATE, start), Ok(()), "another caller");
        assert_eq!(rates.take("a", RATE, ms(99)), Err(Duration::from_millis(1)));
        assert_eq!(rates.take("a", RATE, ms(100)), Ok(()));
        assert_eq!(
            rates.take("a", RATE, ms(100)),
            Err(Duration::from_millis(100))
        );
        assert_eq!(rates.take("a", RATE, ms(10_000)), Ok(()));
    }

    #[test]
    fn no_rate_is_no_limit() {
        let (rates, start) = (Rates::default(), start());
        let none = RequestRate {
            per_second: 0,
            burst: 1,
        };
        assert!((0..10_000).all(|_| rates.take("a", none, start).is_ok()));
    }
}
