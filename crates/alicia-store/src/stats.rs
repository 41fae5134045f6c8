//! What a store counts, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::job::Ran;

/// A reading of a store's counters. Counters start at 0 when the store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Transactions tried by the writer.
    pub batches: u64,
    /// Transactions that were not committed.
    pub batches_failed: u64,
    /// Jobs taken from the queue.
    pub jobs: u64,
    /// Jobs that returned an error.
    pub jobs_failed: u64,
    /// Jobs that panicked.
    pub jobs_panicked: u64,
    /// Reads run.
    pub reads: u64,
    /// Longest time from taking a batch to its COMMIT on disk.
    pub commit_latency_max: Duration,
    /// Mean of the same.
    pub commit_latency_mean: Duration,
    /// Jobs waiting now.
    pub queue_depth: usize,
    /// Jobs that may wait.
    pub queue_limit: usize,
    /// Size of the write-ahead log file now, in bytes.
    pub wal_bytes: u64,
    /// Passive checkpoints run.
    pub checkpoints: u64,
    /// Checkpoints that failed.
    pub checkpoints_failed: u64,
    /// Times the writer cut the log.
    pub wal_truncations: u64,
    /// Times the writer opened its connection anew after a fault.
    pub reopens: u64,
}

/// The live counters, shared by the store's threads.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    batches: AtomicU64,
    batches_failed: AtomicU64,
    jobs: AtomicU64,
    jobs_failed: AtomicU64,
    jobs_panicked: AtomicU64,
    reads: AtomicU64,
    commit_us_sum: AtomicU64,
    commit_us_max: AtomicU64,
    checkpoints: AtomicU64,
    checkpoints_failed: AtomicU64,
    wal_truncations: AtomicU64,
    reopens: AtomicU64,
}

// === impl Counters ===

impl Counters {
    pub(crate) fn batch(&self, jobs: usize, latency: Duration, committed: bool) {
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.batches.fetch_add(1, Relaxed);
        self.batches_failed
            .fetch_add(u64::from(!committed), Relaxed);
        self.jobs.fetch_add(jobs as u64, Relaxed);
        self.commit_us_sum.fetch_add(latency_us, Relaxed);
        self.commit_us_max.fetch_max(latency_us, Relaxed);
    }

    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Relaxed)
    }

    pub(crate) fn job(&self, ran: Ran) {
        match ran {
            Ran::Kept => {}
            Ran::Failed => drop(self.jobs_failed.fetch_add(1, Relaxed)),
            Ran::Panicked => drop(self.jobs_panicked.fetch_add(1, Relaxed)),
        }
    }

    pub(crate) fn read(&self) {
        self.reads.fetch_add(1, Relaxed);
    }

    pub(crate) fn checkpoint(&self) {
        self.checkpoints.fetch_add(1, Relaxed);
    }

    pub(crate) fn checkpoint_failed(&self) {
        self.checkpoints_failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn log_truncated(&self) {
        self.wal_truncations.fetch_add(1, Relaxed);
    }

    pub(crate) fn reopened(&self) {
        self.reopens.fetch_add(1, Relaxed);
    }

    /// The counters as they stand; the gauges (`queue_*`, `wal_bytes`) are left at 0 for the caller.
    pub(crate) fn snapshot(&self) -> Stats {
        let batches = self.batches();
        let mean_us = self
            .commit_us_sum
            .load(Relaxed)
            .checked_div(batches)
            .unwrap_or(0);
        Stats {
            batches,
            batches_failed: self.batches_failed.load(Relaxed),
            jobs: self.jobs.load(Relaxed),
            jobs_failed: self.jobs_failed.load(Relaxed),
            jobs_panicked: self.jobs_panicked.load(Relaxed),
            reads: self.reads.load(Relaxed),
            commit_latency_max: Duration::from_micros(self.commit_us_max.load(Relaxed)),
            commit_latency_mean: Duration::from_micros(mean_us),
            checkpoints: self.checkpoints.load(Relaxed),
            checkpoints_failed: self.checkpoints_failed.load(Relaxed),
            wal_truncations: self.wal_truncations.load(Relaxed),
            reopens: self.reopens.load(Relaxed),
            ..Stats::default()
        }
    }
}

/// Real elapsed time, for the threads that have no runtime.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

// === impl Stopwatch ===

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long an fsync took is a fact about the disk, which no simulated clock knows"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
