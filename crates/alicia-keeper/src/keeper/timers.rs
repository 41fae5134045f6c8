//! What is to be looked at later. A timer that is no longer needed does nothing when it comes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// See how far the end of a run is.
    Settle(u64),
    /// Look at `/proc`, if it is due.
    Look,
    /// Write marker lines that are owed.
    LogMarker,
    /// Read the output of those again that flooded.
    Output,
    /// Accept connections again.
    Accept,
    /// Hear an instance again that said too much.
    Notify(u64),
    /// Do what can wait.
    Chores,
    /// Look at limits that nothing else holds.
    Limits,
    /// Look at counts of refused forks that the kernel may not tell of.
    Forks,
    /// A watchdog may be over.
    Watchdog(u64),
}

/// Timers by time, in milliseconds of the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, Timer)>>,
}

impl Timers {
    pub(super) fn set(&mut self, at_ms: u64, timer: Timer) {
        self.heap.push(Reverse((at_ms, timer)));
    }

    pub(super) fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<Timer> {
        if self.next_ms()? > now_ms {
            return None;
        }
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }
}
