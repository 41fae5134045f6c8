//! The store itself: what a module holds, and how it is opened and closed.

use std::fmt::{self, Debug, Formatter};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};

use rusqlite::{Connection, Transaction};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::audit;
use crate::backup;
use crate::checkpoint::Checkpointer;
use crate::connection::{DataFile, WriteConnection, check_pages};
use crate::error::Error;
use crate::job::{self, Pending};
use crate::lock::FileLock;
use crate::migration;
use crate::options::Options;
use crate::reader::Readers;
use crate::stats::{Counters, Stats};
use crate::writer::{Message, QUEUE_JOBS_MAX, Writer};

/// A module's database. Clones share it; the last one to go closes it.
///
/// Closures run on the store's own threads, one write at a time: keep them to SQL. What a closure
/// returns as `Err` undoes its own changes only; it cannot COMMIT or ROLLBACK by itself. Foreign keys that are `DEFERRABLE` are checked at
/// COMMIT, where a fault fails the whole batch: do not use them.
#[derive(Clone)]
pub struct Store {
    // Before `shared`: the writer ends when all senders are gone, and only then can it be joined.
    queue: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

struct Shared {
    file: Arc<DataFile>,
    readers: Arc<Readers>,
    counters: Arc<Counters>,
    writer_id: ThreadId,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

// === impl Store ===

impl Store {
    /// Opens the file, makes it if there is none, and brings its schema up to date.
    ///
    /// Blocks: on the disk, and for as long as migrations take. An existing file is copied to
    /// `<file>.before-<n>.backup` before migration `n` touches it.
    ///
    /// # Errors
    /// Refuses a file that is open elsewhere, damaged, foreign, or newer than this program. A refused
    /// file is left as it was.
    pub fn open(options: Options) -> Result<Self, Error> {
        let lock = Arc::new(FileLock::acquire(&options.path)?);
        let file = Arc::new(DataFile {
            path: options.path.clone(),
            kind: options.kind,
        });
        let mut connection = file.open_first()?;
        migration::bring_up_to_date(&mut connection, &options)?;
        Self::start(file, connection, (lock, options.audit_key))
    }

    /// Runs `work` in the next batch and waits until it is on disk.
    ///
    /// Waits while the queue is full. Dropping the future before it is queued does nothing; dropping
    /// it afterwards does not undo the write.
    ///
    /// # Errors
    /// What `work` returned, or why the batch could not be committed: then nothing was kept.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (job, pending) = job::pair(work);
        self.queue
            .send(Message::Job(job))
            .await
            .map_err(|_| Error::Closed)?;
        pending.await
    }

    /// As [`Self::write`], but an error at once when the queue is full. The write is queued when this
    /// returns; await the result, or [`Pending::wait`] for it.
    ///
    /// # Errors
    /// [`Error::QueueFull`] or [`Error::Closed`].
    pub fn try_write<T, E, F>(&self, work: F) -> Result<Pending<T, E>, Error>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (job, pending) = job::pair(work);
        match self.queue.try_send(Message::Job(job)) {
            Ok(()) => Ok(pending),
            Err(TrySendError::Full(_)) => Err(Error::QueueFull {
                limit: QUEUE_JOBS_MAX,
            }),
            Err(TrySendError::Closed(_)) => Err(Error::Closed),
        }
    }

    /// As [`Self::write`], for callers without a runtime.
    ///
    /// # Errors
    /// As [`Self::write`]; [`Error::WithinJob`] when called from a job of this store.
    ///
    /// # Panics
    /// When called from async code.
    pub fn write_blocking<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        if thread::current().id() == self.shared.writer_id {
            return Err(Error::WithinJob.into());
        }
        let (job, pending) = job::pair(work);
        self.queue
            .blocking_send(Message::Job(job))
            .map_err(|_| Error::Closed)?;
        pending.wait()
    }

    /// Runs `work` on a read-only connection, on a thread for blocking work. All its statements see
    /// one state, which holds every write acknowledged before. Needs a tokio runtime with time.
    ///
    /// Dropping the future does not stop a read that has begun.
    ///
    /// # Errors
    /// What `work` returned, or [`Error::ReadersBusy`] after [`READ_WAIT`](crate::READ_WAIT).
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let permit = self.shared.readers.permit().await?;
        let readers = Arc::clone(&self.shared.readers);
        let read = move || {
            let result = readers.run(work);
            drop(permit);
            result
        };
        // A panic in `work` is caught inside; only a runtime that shuts down ends up here.
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Copies the database to `target` while everything goes on: to a file beside it, synced, then
    /// renamed. An older file of that name is replaced.
    ///
    /// # Errors
    /// [`Error::InUse`] when `target` is an open store or another backup to it is under way.
    pub async fn backup(&self, target: impl Into<PathBuf>) -> Result<(), Error> {
        let lock = self.shared.readers.lock()?;
        let file = Arc::clone(&self.shared.file);
        let target = target.into();
        blocking(move || {
            let result = backup::back_up(&file.path, &target);
            drop(lock);
            result
        })
        .await
    }

    /// Replaces the database at `to` by the backup `from`, when nobody has it open. Blocks.
    ///
    /// `from` is checked first. The old database is kept as `<to>.before-restore.backup`.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Corrupt`] or [`Error::Foreign`]; `to` is then as it was.
    pub fn restore(from: &Path, to: &Path) -> Result<(), Error> {
        backup::restore(from, to)
    }

    /// Reads every page and index of the file: `integrity_check`. Slow on large files.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the first fault found.
    pub async fn check(&self) -> Result<(), Error> {
        let path = self.shared.file.path.clone();
        self.read(move |connection| check_pages(&path, connection, "integrity_check"))
            .await
    }

    /// The counters and gauges, for `/metrics`. Cheap: one file status.
    pub fn stats(&self) -> Stats {
        let queue_limit = self.queue.max_capacity();
        Stats {
            queue_depth: queue_limit - self.queue.capacity(),
            queue_limit,
            wal_bytes: self.shared.file.wal_bytes(),
            ..self.shared.counters.snapshot()
        }
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.shared.file.path
    }

    /// Runs what is queued, folds the log into the database, ends the threads and lets go of the
    /// file. Later calls on any clone give [`Error::Closed`]. Closing twice is no fault.
    ///
    /// Without it the last clone to be dropped does the same, and blocks meanwhile.
    pub async fn close(&self) {
        self.shared.readers.close().await;
        if self.queue.send(Message::Close).await.is_err() {
            tracing::debug!(path = %self.path().display(), "the writer had ended already");
        }
        let shared = Arc::clone(&self.shared);
        if tokio::task::spawn_blocking(move || shared.join())
            .await
            .is_err()
        {
            tracing::warn!(path = %self.path().display(), "the runtime ended before the store did");
        }
    }

    fn start(
        file: Arc<DataFile>,
        connection: WriteConnection,
        (lock, audit_key): (Arc<FileLock>, Option<audit::Key>),
    ) -> Result<Self, Error> {
        let counters = Arc::new(Counters::default());
        let (queue, jobs) = mpsc::channel(QUEUE_JOBS_MAX);
        let (wake, woken) = sync_channel(1);
        let checkpointer = Checkpointer {
            file: Arc::clone(&file),
            connection: None,
            wake: woken,
            counters: Arc::clone(&counters),
        };
        let writer = Writer {
            file: Arc::clone(&file),
            connection: Some(connection),
            queue: jobs,
            counters: Arc::clone(&counters),
            wake,
            truncate_in_batches: 0,
        };
        let checkpointing = spawn(&file, &lock, "store-checkpoint", move || checkpointer.run())?;
        let writing = spawn(&file, &lock, "store-writer", move || {
            if let Some(key) = audit_key {
                key.use_on_this_thread();
            }
            writer.run();
        })?;
        let shared = Arc::new(Shared {
            readers: Arc::new(Readers::new(Arc::clone(&file), Arc::clone(&counters), lock)),
            file,
            counters,
            writer_id: writing.thread().id(),
            threads: Mutex::new(vec![writing, checkpointing]),
        });
        Ok(Self { queue, shared })
    }
}

impl Debug for Store {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("file", &self.shared.file)
            .finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    /// Waits for the threads. The list stays locked meanwhile: who closes second waits as well.
    fn join(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(path = %self.file.path.display(), "a thread of the store panicked");
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.readers.close_idle();
        // A job may hold the last clone: the writer cannot wait for itself, and ends by itself.
        if thread::current().id() != self.writer_id {
            self.join();
        }
    }
}

/// Starts a thread that has the lock until its connection is closed.
fn spawn(
    file: &DataFile,
    lock: &Arc<FileLock>,
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let lock = Arc::clone(lock);
    let run_locked = move || {
        run();
        drop(lock);
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run_locked)
        .map_err(|source| Error::Thread {
            path: file.path.clone(),
            source,
        })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::Closed))
}
