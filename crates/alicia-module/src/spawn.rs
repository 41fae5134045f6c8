//! The only way for a module to start a task. A panic in one is heard by the host and ends that module only.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A task of a module ended in a panic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFault {
    /// The module.
    pub module: &'static str,
    /// The task.
    pub task: &'static str,
    /// What the panic said.
    pub message: String,
}

/// Starts tasks, knows them, ends them.
#[derive(Debug, Clone)]
pub struct Spawner {
    module: &'static str,
    tracker: TaskTracker,
    cancel: CancellationToken,
    faults: mpsc::Sender<TaskFault>,
}

impl Spawner {
    /// A spawner whose tasks' panics are sent to `faults`.
    #[must_use]
    pub fn new(module: &'static str, faults: mpsc::Sender<TaskFault>) -> Self {
        Self {
            module,
            tracker: TaskTracker::new(),
            cancel: CancellationToken::new(),
            faults,
        }
    }

    /// Starts a task. It is dropped at its next await when the module ends.
    pub fn spawn(&self, task: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let Self {
            module,
            cancel,
            faults,
            ..
        } = self.clone();
        self.tracker.spawn(async move {
            let guarded = AssertUnwindSafe(future).catch_unwind();
            let outcome = tokio::select! {
                () = cancel.cancelled() => return,
                outcome = guarded => outcome,
            };
            let Err(panic) = outcome else { return };
            let message = panic_text(panic.as_ref());
            tracing::error!(module, task, %message, "task panicked");
            // A full queue has news enough for the host to restart this module.
            drop(faults.try_send(TaskFault {
                module,
                task,
                message,
            }));
        });
    }

    /// Done when the module ends: for waits inside loops that cannot be dropped.
    #[must_use]
    pub fn cancelled(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Ends every task; gives up waiting after `patience` and says so by returning false.
    pub async fn shut_down(&self, patience: Duration) -> bool {
        self.cancel.cancel();
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait())
            .await
            .is_ok()
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_ends_nothing_else() {
        let (faults, mut heard) = mpsc::channel(1);
        let spawner = Spawner::new("registry", faults);
        spawner.spawn("good", std::future::pending());
        spawner.spawn("bad", async { panic!("lost count of {}", 7) });
        let fault = heard.recv().await.expect("a fault");
        assert_eq!(fault.message, "lost count of 7");
        assert_eq!((fault.module, fault.task), ("registry", "bad"));
        assert!(spawner.shut_down(Duration::from_secs(5)).await);
    }
}
