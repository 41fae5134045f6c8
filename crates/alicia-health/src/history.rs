//! What was: how long each service worked, what each check measured, minute by minute, and each change of state.
//!
//! ```text
//!  turns ──┐                            a minute is over
//!  tries ──┼─▶ ledger (one open minute) ────────────────▶ rows: minutes, hours, changes
//!  ticks ──┘
//! ```
//!
//! Time that nobody watched is unknown, never good and never bad: while the monitor did not run there are no rows, and while
//! it was held up the state is unknown. A service that was stopped on purpose is unknown too.

pub(crate) mod ledger;
pub(crate) mod rows;
pub(crate) mod uptime;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alicia_contract::id::ServiceName;
use alicia_module::Clock;
use alicia_store::{Error as StoreError, Store};
use tokio::sync::mpsc;

use crate::actor::Shared;
use crate::core::Turn;
use ledger::{Ledger, Measured, Minutes};

/// How often time is counted: what is shorter than this is counted by the turns themselves.
const TICK: Duration = Duration::from_secs(1);

/// Turns that may wait to be counted.
pub(crate) const TURNS_MAX: usize = 8_192;

/// Rows that wait for a database that cannot be written; beyond, the oldest are lost and counted.
const WAITING_MAX: usize = 100_000;

/// A time without the monitor that is shorter is not told apart in the history: a restart, an update.
const PAUSE_MIN: Duration = Duration::from_secs(180);

/// How often what is too old is deleted.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// How long minutes are kept; hours and changes are kept as long as alerts. Enough for the longest window that is
/// counted in minutes, and for a look at the last days.
const MINUTES_KEPT: Duration = Duration::from_secs(3 * 86_400);

/// The measurements of tries, on their way to the ledger.
#[derive(Default)]
pub(crate) struct Tries(Mutex<Vec<(ServiceName, ServiceName, Measured)>>);

/// How the writing is doing.
#[derive(Default)]
pub(crate) struct Progress {
    /// Rows of minutes that were lost because the database could not be written.
    pub(crate) lost: AtomicU64,
    /// Minutes that were written.
    pub(crate) written: AtomicU64,
}

/// Counts and writes.
pub(crate) struct Recorder {
    pub(crate) store: Store,
    pub(crate) shared: Arc<Shared>,
    pub(crate) turns: mpsc::Receiver<Turn>,
    pub(crate) tries: Arc<Tries>,
    pub(crate) progress: Arc<Progress>,
}

// === impl Tries ===

impl Tries {
    /// Counts one try.
    pub(crate) fn push(&self, service: &ServiceName, check: &ServiceName, measured: Measured) {
        let mut tries = self.lock();
        // Taken every second; a recorder that hangs must not fill the memory.
        if tries.len() < WAITING_MAX {
            tries.push((service.clone(), check.clone(), measured));
        }
    }

    fn take(&self) -> Vec<(ServiceName, ServiceName, Measured)> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(ServiceName, ServiceName, Measured)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Recorder ===

impl Recorder {
    pub(crate) async fn run(mut self) {
        self.close().await;
        let mut ledger = Ledger::default();
        let mut waiting = Minutes::default();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_tick = tokio::select! {
                turn = self.turns.recv() => match turn {
                    Some(turn) => {
                        ledger.turn(turn, self.shared.now().mono);
                        false
                    }
                    // The monitor has ended.
                    None => return,
                },
                _ = ticks.tick() => true,
            };
            if !is_tick {
                continue;
            }
            for (service, check, measured) in self.tries.take() {
                ledger.tried(service, check, measured);
            }
            let now = self.shared.now();
            waiting.append(ledger.tick(now));
            {
                let monitor = self.shared.read();
                ledger.keep(|service| monitor.watch(service.as_str()).is_some());
            }
            if !waiting.is_empty() {
                waiting = self.write(waiting).await;
            }
        }
    }

    /// What was open when the monitor last ran was not watched since.
    async fn close(&self) {
        let now = self.shared.now().unix;
        let pause_s = PAUSE_MIN.as_secs_f64();
        let closed = self
            .store
            .write(move |tx| rows::close(tx, now, pause_s))
            .await;
        if let Err(error) = closed {
            tracing::warn!(%error, "the history does not say that the monitor did not run");
        }
    }

    /// Writes; what could not be written is given back.
    async fn write(&self, minutes: Minutes) -> Minutes {
        let minutes = Arc::new(minutes);
        let written = Arc::clone(&minutes);
        let outcome = self.store.write(move |tx| rows::save(tx, &written)).await;
        match outcome {
            Ok(()) => {
                self.progress
                    .written
                    .fetch_add(minutes.len() as u64, Relaxed);
                Minutes::default()
            }
            Err(error) => {
                tracing::warn!(%error, "the history of services was not written; it is tried again");
                let mut minutes = Arc::try_unwrap(minutes).unwrap_or_else(|kept| (*kept).clone());
                let lost = minutes.shorten(WAITING_MAX);
                self.progress.lost.fetch_add(lost as u64, Relaxed);
                minutes
            }
        }
    }
}

/// Deletes what is too old, now and then.
pub(crate) async fn prune(store: Store, clock: Clock, keep_for: Duration) {
    loop {
        let now = clock.unix();
        let (minutes, rest) = (
            now - MINUTES_KEPT.min(keep_for).as_secs_f64(),
            now - keep_for.as_secs_f64(),
        );
        match store.write(move |tx| rows::prune(tx, minutes, rest)).await {
            Ok(0) => {}
            Ok(deleted) => tracing::debug!(deleted, "old history was deleted"),
            Err(StoreError::Closed) => return,
            Err(error) => tracing::warn!(%error, "old history was not deleted"),
        }
        tokio::time::sleep(PRUNE_EVERY).await;
    }
}
