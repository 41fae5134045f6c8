//! Refusals are counted one by one and reported sparingly: a client that tries the same forbidden
//! thing ten thousand times fills a counter and not the audit log.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::clock;
use crate::authority::{Attempt, Observer, Reason, Refused};

/// Different refusals remembered at once; beyond it the counters alone tell.
const REMEMBERED_MAX: usize = 4_096;

type Kind = (String, Attempt, Reason);

struct Reported {
    at: Instant,
    unreported: u64,
}

/// Counts refusals and passes some of them on.
pub(crate) struct Refusals {
    counts: [AtomicU64; Reason::ALL.len()],
    reported: Mutex<HashMap<Kind, Reported>>,
    interval: Duration,
    observer: Arc<dyn Observer>,
}

impl Refusals {
    pub(crate) fn new(observer: Arc<dyn Observer>, interval: Duration) -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            reported: Mutex::default(),
            interval,
            observer,
        }
    }

    /// Counts a refusal, and reports it unless the same was reported a moment ago.
    pub(crate) fn note(&self, mut refused: Refused) {
        self.count(refused.refusal.reason);
        let who = match refused.identity.as_deref() {
            Some(name) => format!("{name}/{}", refused.client_id),
            None => refused.peer.ip().to_string(),
        };
        let kind = (who, refused.attempt, refused.refusal.reason);
        if let Some(unreported) = self.due(kind, clock::now()) {
            refused.unreported = unreported;
            self.observer.refused(&refused);
        }
    }

    /// How often each reason occurred, in the order of `Reason::ALL`.
    pub(crate) fn counts(&self) -> Vec<(Reason, u64)> {
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        Reason::ALL.into_iter().zip(counts).collect()
    }

    fn count(&self, reason: Reason) {
        if let Some(count) = self.counts.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn due(&self, kind: Kind, now: Instant) -> Option<u64> {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = reported.get_mut(&kind) {
            if now.duration_since(last.at) < self.interval {
                last.unreported += 1;
                return None;
            }
            last.at = now;
            return Some(std::mem::take(&mut last.unreported));
        }
        if reported.len() >= REMEMBERED_MAX {
            reported.retain(|_, last| now.duration_since(last.at) < self.interval);
        }
        if reported.len() >= REMEMBERED_MAX {
            return None;
        }
        reported.insert(
            kind,
            Reported {
                at: now,
                unreported: 0,
            },
        );
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Refusal;

    #[derive(Default)]
    struct Heard(Mutex<Vec<Refused>>);

    impl Observer for Heard {
        fn refused(&self, refused: &Refused) {
            self.0.lock().unwrap().push(refused.clone());
        }
    }

    fn refused(reason: Reason) -> Refused {
        Refused {
            attempt: Attempt::Publish,
            identity: Some("ann".into()),
            client_id: "x".into(),
            peer: ([127, 0, 0, 1], 1).into(),
            topic: None,
            refusal: Refusal::new(reason, "no"),
            unreported: 0,
        }
    }

    #[test]
    fn the_same_refusal_is_counted_each_time_and_reported_once() {
        let heard = Arc::new(Heard::default());
        let refusals = Refusals::new(heard.clone(), Duration::from_secs(3600));
        for _ in 0..10 {
            refusals.note(refused(Reason::NotAuthorized));
        }
        refusals.note(refused(Reason::ForgedSource));
        assert_eq!(heard.0.lock().unwrap().len(), 2);
        let counts = refusals.counts();
        assert!(counts.contains(&(Reason::NotAuthorized, 10)), "{counts:?}");
        assert!(counts.contains(&(Reason::ForgedSource, 1)), "{counts:?}");
    }

    #[test]
    fn after_the_interval_the_next_report_tells_what_was_left_out() {
        let heard = Arc::new(Heard::default());
        let refusals = Refusals::new(heard.clone(), Duration::from_secs(60));
        let kind = || ("ann".to_owned(), Attempt::Publish, Reason::NotAuthorized);
        let start = clock::now();
        assert_eq!(refusals.due(kind(), start), Some(0));
        assert_eq!(refusals.due(kind(), start + Duration::from_secs(1)), None);
        assert_eq!(refusals.due(kind(), start + Duration::from_secs(59)), None);
        assert_eq!(
            refusals.due(kind(), start + Duration::from_secs(61)),
            Some(2)
        );
    }
}
