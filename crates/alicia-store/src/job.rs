//! One write on its way through the queue: the closure, its result, and who waits for it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rusqlite::Transaction;
use tokio::sync::oneshot;

use crate::audit::Origin;
use crate::error::Error;

/// What became of a closure, before anybody knows whether its batch commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It returned `Ok`: keep its changes.
    Kept,
    /// It returned `Err`: undo its changes.
    Failed,
    /// It panicked: undo its changes.
    Panicked,
}

/// Why a batch did not commit. Cloned for every job in it.
#[derive(Debug, Clone)]
pub(crate) enum BatchFault {
    NotCommitted {
        path: PathBuf,
        source: Arc<rusqlite::Error>,
    },
    Undone {
        path: PathBuf,
    },
}

impl From<BatchFault> for Error {
    fn from(fault: BatchFault) -> Self {
        match fault {
            BatchFault::NotCommitted { path, source } => Self::NotCommitted { path, source },
            BatchFault::Undone { path } => Self::BatchUndone { path },
        }
    }
}

/// A queued write, whatever its types.
pub(crate) trait Job: Send {
    /// Runs the closure inside its savepoint; a panic is caught. Called at most once.
    fn run(&mut self, tx: &Transaction<'_>) -> Ran;

    /// Tells the caller. With `Ok`, the batch is on disk.
    fn settle(self: Box<Self>, batch: Result<(), BatchFault>);
}

/// A job for the queue, and the end at which its result comes out.
pub(crate) fn pair<T, E, F>(work: F) -> (Box<dyn Job>, Pending<T, E>)
where
    F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let (reply, receiver) = oneshot::channel();
    (
        Box::new(Work {
            closure: Some(work),
            origin: Origin::current(),
            result: None,
            reply,
        }),
        Pending { receiver },
    )
}

/// A write that is queued. Resolves after its COMMIT is on disk, or with the reason why not.
///
/// Dropping it does not undo the write: it is in the queue and will run.
#[must_use = "only the result says whether the write was kept"]
#[derive(Debug)]
pub struct Pending<T, E> {
    receiver: oneshot::Receiver<Result<T, E>>,
}

// === impl Pending ===

impl<T, E: From<Error>> Pending<T, E> {
    /// Waits on a thread of its own.
    ///
    /// # Panics
    /// When called from async code.
    pub fn wait(self) -> Result<T, E> {
        self.receiver
            .blocking_recv()
            .unwrap_or_else(|_| Err(Error::Closed.into()))
    }
}

impl<T, E: From<Error>> Future for Pending<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver)
            .poll(cx)
            .map(|received| received.unwrap_or_else(|_| Err(Error::Closed.into())))
    }
}

struct Work<T, E, F> {
    closure: Option<F>,
    /// Whose request it is: audit rows say so.
    origin: Origin,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

// === impl Work ===

impl<T, E, F> Job for Work<T, E, F>
where
    F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn run(&mut self, tx: &Transaction<'_>) -> Ran {
        let closure = self.closure.take().expect("a job runs once");
        let origin = std::mem::take(&mut self.origin);
        let (result, ran) = match contained(|| origin.around(|| closure(tx))) {
            Ok(Ok(value)) => (Ok(value), Ran::Kept),
            Ok(Err(error)) => (Err(error), Ran::Failed),
            Err(panicked) => (Err(panicked.into()), Ran::Panicked),
        };
        self.result = Some(result);
        ran
    }

    fn settle(self: Box<Self>, batch: Result<(), BatchFault>) {
        let result = match (self.result, batch) {
            // The job's own error says more than the batch's.
            (Some(Err(own)), _) => Err(own),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (_, Err(fault)) => Err(Error::from(fault).into()),
            (None, Ok(())) => Err(Error::Closed.into()),
        };
        // Nobody may be waiting any more; the write stands all the same.
        drop(self.reply.send(result));
    }
}

/// Runs `work`; a panic becomes an error. What `work` touched is undone by the caller, so no broken
/// state is seen afterwards.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Error::Panicked {
        message: panic_message(payload.as_ref()),
    })
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| {
            payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
        })
        .unwrap_or_else(|| "a value that is no text".to_owned())
}
