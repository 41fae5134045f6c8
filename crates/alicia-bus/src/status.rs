//! How the connection is doing: a snapshot for health and metrics.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use alicia_contract::UnixSeconds;

/// How the connection is doing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BusStatus {
    /// Whether a connection is open now.
    pub connected: bool,
    /// Since when it is open, or since when there is none.
    pub since: UnixSeconds,
    /// How often a connection was made, the first included.
    pub connections: u64,
    /// Why the last connection broke or could not be made.
    pub last_error: Option<String>,
    /// Messages that were acknowledged by the broker.
    pub published: u64,
    /// Messages that arrived.
    pub received: u64,
    /// Messages that were not taken, by reason (the names of `DropReason`).
    pub dropped: BTreeMap<&'static str, u64>,
    /// Messages that slow subscriptions lost.
    pub lagged: u64,
    /// Filters that the broker refused when they were subscribed anew.
    pub refused: Vec<String>,
}

/// Counters that are raised from everywhere.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) published: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) lagged: AtomicU64,
}

impl Counters {
    pub(crate) fn raise(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// The part of the status that the connection task writes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Link {
    pub(crate) connected: bool,
    pub(crate) since: UnixSeconds,
    pub(crate) connections: u64,
    pub(crate) last_error: Option<String>,
}

/// Locks a mutex; a panic of another holder does not make the bus deaf, since each critical section
/// leaves its data whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
