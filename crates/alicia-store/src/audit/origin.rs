//! Where a request came from: it follows the request from the door into the rows that it writes.
//!
//! Set around the handling of a request ([`Origin::scope`]), picked up when a write is queued, and in force while the
//! write runs on the store's own thread. Code in between does not pass it on and cannot forget it.

use std::cell::RefCell;

/// Longest `from` and `trace`, in characters: an address and an id.
const CHARS_MAX: usize = 200;

tokio::task_local! {
    static REQUEST: Origin;
}

thread_local! {
    static JOB: RefCell<Origin> = RefCell::default();
}

/// From where something was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    pub(super) from: String,
    pub(super) trace: String,
}

// === impl Origin ===

impl Origin {
    /// From there, as a part of this trace; both are cut to 200 characters.
    #[must_use]
    pub fn new(from: &str, trace: &str) -> Self {
        let cut = |text: &str| text.chars().take(CHARS_MAX).collect();
        Self {
            from: cut(from),
            trace: cut(trace),
        }
    }

    /// Runs `work`; what it writes comes from here.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        REQUEST.scope(self, work).await
    }

    /// The one that the present task works for; empty when it works for none.
    #[must_use]
    pub fn current() -> Self {
        REQUEST.try_with(Self::clone).unwrap_or_default()
    }

    /// Runs a job of this origin, on the store's thread.
    pub(crate) fn around<T>(self, work: impl FnOnce() -> T) -> T {
        JOB.with(|job| job.replace(self));
        // When the work panics it stays until the next job replaces it; nothing is written in between.
        let result = work();
        JOB.with(RefCell::take);
        result
    }

    /// The one of the job that runs on this thread.
    pub(super) fn of_job() -> Self {
        JOB.with_borrow(Self::clone)
    }
}
