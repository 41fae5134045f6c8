//! The writer thread: takes what is queued, runs it in one transaction, commits, then answers.
//!
//! ```text
//!  queue ──► batch (≤ 256, no timer) ──► BEGIN IMMEDIATE
//!                                        SAVEPOINT · job · RELEASE or ROLLBACK TO     (each job)
//!                                        COMMIT (fsync) ──► answers ──► TRUNCATE if the log is long
//! ```
//!
//! No timer: while one batch is synced the next one gathers, so batches grow with the load and a lone
//! writer waits for nobody. Measured with 64 writers: six to twelve times the throughput of one fsync
//! per write.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::mpsc::Receiver;

use crate::connection::{BUSY_TIMEOUT, DataFile, Seal, WriteConnection};
use crate::job::{BatchFault, Job, Ran, contained};
use crate::stats::{Counters, Stopwatch};

/// Jobs in one transaction. At 256 the fsync is shared so widely that it no longer counts, and a
/// batch of plain upserts still ends within milliseconds (measured: 64 writers, p99 5.7 ms).
pub const BATCH_JOBS_MAX: usize = 256;

/// Jobs that may wait: four full batches. More would only be older when they are run.
pub const QUEUE_JOBS_MAX: usize = 4 * BATCH_JOBS_MAX;

/// Log size at which the writer itself folds the log into the database and cuts it to nothing. With
/// passive checkpoints only, the log was measured to grow to 71-217 MB under steady load.
const TRUNCATE_WAL_BYTES: u64 = 16 * 1024 * 1024;

/// How long writers are held up for readers of an old state to end, when the log is to be cut.
const TRUNCATE_WAIT: Duration = Duration::from_millis(20);

/// After a TRUNCATE that a reader prevented, this many batches go by before the next attempt: a long
/// read then costs writers [`TRUNCATE_WAIT`] now and then, and not with every batch.
const TRUNCATE_RETRY_BATCHES: u32 = 64;

/// What the writer thread is sent.
pub(crate) enum Message {
    Job(Box<dyn Job>),
    /// Run what is queued, then end.
    Close,
}

/// The writer thread's state.
pub(crate) struct Writer {
    pub(crate) file: Arc<DataFile>,
    /// `None` after a fault that may have left the connection unusable; opened anew for the next batch.
    pub(crate) connection: Option<WriteConnection>,
    pub(crate) queue: Receiver<Message>,
    pub(crate) counters: Arc<Counters>,
    /// Wakes the checkpointer; ends it when dropped.
    pub(crate) wake: SyncSender<()>,
    /// Batches to go until the log may be cut again.
    pub(crate) truncate_in_batches: u32,
}

// === impl Writer ===

impl Writer {
    /// Ends when the store is closed or its last handle is gone, and the queue is empty.
    pub(crate) fn run(mut self) {
        let mut messages = Vec::with_capacity(BATCH_JOBS_MAX);
        while self.queue.blocking_recv_many(&mut messages, BATCH_JOBS_MAX) > 0 {
            let mut jobs = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Job(job) => jobs.push(job),
                    Message::Close => self.queue.close(),
                }
            }
            if !jobs.is_empty() {
                self.commit_and_answer(jobs);
                self.tend_log();
            }
        }
    }

    fn commit_and_answer(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let stopwatch = Stopwatch::start();
        let outcome = self.commit(&mut jobs);
        self.counters
            .batch(jobs.len(), stopwatch.elapsed(), outcome.is_ok());
        if let Err(fault) = &outcome {
            tracing::error!(path = %self.file.path.display(), ?fault, "a batch was not committed");
            self.connection = None;
        }
        for job in jobs {
            // The caller's own types are dropped or converted here: a panic in them is theirs alone.
            if let Err(error) = contained(|| job.settle(outcome.clone())) {
                tracing::error!(%error, "an answer could not be handed over");
            }
        }
    }

    fn commit(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), BatchFault> {
        if self.connection.is_none() {
            let opened = self
                .file
                .open_again()
                .map_err(|error| self.not_committed(error))?;
            self.connection = Some(opened);
            self.counters.reopened();
        }
        let WriteConnection { connection, seal } = self.connection.as_ref().expect("opened above");
        let tx = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
            .map_err(|error| self.not_committed(error))?;
        for job in jobs {
            self.run_in_savepoint(&tx, seal, job.as_mut())?;
        }
        tx.commit().map_err(|error| self.not_committed(error))
    }

    fn run_in_savepoint(
        &self,
        tx: &Transaction<'_>,
        seal: &Seal,
        job: &mut dyn Job,
    ) -> Result<(), BatchFault> {
        let execute = |sql: &str| {
            tx.prepare_cached(sql)
                .and_then(|mut statement| statement.execute([]))
                .map_err(|error| self.not_committed(error))
        };
        execute("SAVEPOINT job")?;
        let ran = seal.around(|| job.run(tx));
        self.counters.job(ran);
        // SQLite ends the whole transaction by itself when the disk is full or fails.
        if tx.is_autocommit() {
            return Err(BatchFault::Undone {
                path: self.file.path.clone(),
            });
        }
        if ran != Ran::Kept {
            execute("ROLLBACK TO job")?;
        }
        execute("RELEASE job").map(drop)
    }

    fn not_committed(&self, error: rusqlite::Error) -> BatchFault {
        BatchFault::NotCommitted {
            path: self.file.path.clone(),
            source: Arc::new(error),
        }
    }

    /// Between batches: wakes the checkpointer, and cuts a log that it could not keep short.
    fn tend_log(&mut self) {
        // A full channel means that it is awake already.
        self.wake.try_send(()).ok();
        self.truncate_in_batches = self.truncate_in_batches.saturating_sub(1);
        if self.truncate_in_batches > 0 || self.file.wal_bytes() < TRUNCATE_WAL_BYTES {
            return;
        }
        let Some(WriteConnection { connection, .. }) = &self.connection else {
            return;
        };
        let cut = truncate_log(connection);
        if let Ok(true) = cut {
            self.counters.log_truncated();
            return;
        }
        self.truncate_in_batches = TRUNCATE_RETRY_BATCHES;
        if let Err(error) = cut {
            self.counters.checkpoint_failed();
            tracing::warn!(path = %self.file.path.display(), %error, "the log was not cut");
        }
    }
}

/// Whether the log was cut; `false` while a reader still needs it.
fn truncate_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.busy_timeout(TRUNCATE_WAIT)?;
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    busy.map(|busy: i64| busy == 0)
}
