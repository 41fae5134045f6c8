//! The read connections: a few of them, each read on a consistent state, never waiting for the writer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connection::DataFile;
use crate::error::Error;
use crate::job::contained;
use crate::lock::FileLock;
use crate::stats::Counters;

/// Read connections of one store. A point read takes some 10 µs, so three are plenty for one module,
/// and each costs up to 2 MB of page cache; they are opened when first needed.
pub const READERS: usize = 3;

/// How long a read waits for a free connection before it gives up.
pub const READ_WAIT: Duration = Duration::from_secs(5);

/// The pool.
pub(crate) struct Readers {
    file: Arc<DataFile>,
    counters: Arc<Counters>,
    permits: Arc<Semaphore>,
    pool: Mutex<Pool>,
}

struct Pool {
    idle: Vec<Connection>,
    /// `None` once the store is closed.
    lock: Option<Arc<FileLock>>,
}

// === impl Readers ===

impl Readers {
    pub(crate) fn new(file: Arc<DataFile>, counters: Arc<Counters>, lock: Arc<FileLock>) -> Self {
        let pool = Mutex::new(Pool {
            idle: Vec::with_capacity(READERS),
            lock: Some(lock),
        });
        Self {
            file,
            counters,
            permits: Arc::new(Semaphore::new(READERS)),
            pool,
        }
    }

    /// Waits for one of the connections to be free. Hold the permit while [`Self::run`] runs.
    pub(crate) async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let acquire = Arc::clone(&self.permits).acquire_owned();
        match tokio::time::timeout(READ_WAIT, acquire).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(Error::Closed),
            Err(_elapsed) => Err(Error::ReadersBusy {
                readers: READERS,
                wait_ms: u64::try_from(READ_WAIT.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// Runs `work` on this thread, in one read transaction.
    pub(crate) fn run<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E>,
        E: From<Error>,
    {
        self.counters.read();
        let (mut connection, lock) = self.take()?;
        let (result, sound) = read(&mut connection, work);
        if sound {
            self.put_back(connection);
        }
        // After the connection: a store may be opened anew only when all of the old one is gone.
        drop(lock);
        result
    }

    /// Keeps others from opening the file for as long as the caller works on it.
    pub(crate) fn lock(&self) -> Result<Arc<FileLock>, Error> {
        self.pool().lock.clone().ok_or(Error::Closed)
    }

    /// Lets running reads end, within [`READ_WAIT`], and closes the connections.
    pub(crate) async fn close(&self) {
        let all = u32::try_from(READERS).expect("a handful");
        let idle = tokio::time::timeout(READ_WAIT, self.permits.acquire_many(all)).await;
        self.permits.close();
        self.close_idle();
        if idle.is_err() {
            tracing::warn!(path = %self.file.path.display(), "closed while a read still runs");
        }
    }

    /// Closes the connections that are not in use; those in use are closed when their read ends.
    pub(crate) fn close_idle(&self) {
        let mut pool = self.pool();
        pool.idle.clear();
        pool.lock = None;
    }

    fn take(&self) -> Result<(Connection, Arc<FileLock>), Error> {
        let mut pool = self.pool();
        let lock = pool.lock.clone().ok_or(Error::Closed)?;
        if let Some(connection) = pool.idle.pop() {
            return Ok((connection, lock));
        }
        drop(pool);
        let opened = self.file.open_read_only();
        Ok((
            opened.map_err(|source| Error::opening(&self.file.path, source))?,
            lock,
        ))
    }

    fn put_back(&self, connection: Connection) {
        let mut pool = self.pool();
        if pool.lock.is_some() {
            pool.idle.push(connection);
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // Nothing in here panics half-way, so a poisoned lock guards a sound list.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result, and whether the connection may be used again.
fn read<T, E, F>(connection: &mut Connection, work: F) -> (Result<T, E>, bool)
where
    F: FnOnce(&Connection) -> Result<T, E>,
    E: From<Error>,
{
    let tx = match connection.transaction_with_behavior(TransactionBehavior::Deferred) {
        Ok(tx) => tx,
        Err(error) => return (Err(Error::from(error).into()), false),
    };
    let result = contained(|| work(&tx));
    let ended = tx.finish().is_ok();
    match result {
        Ok(result) => (result, ended && connection.is_autocommit()),
        Err(panicked) => (Err(panicked.into()), false),
    }
}
