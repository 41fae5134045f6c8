//! Alerts on disk and on the bus. What is news is written together with its message (the outbox), and sent
//! until the broker has it: a crash or an absent broker delays an alert and loses none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use alicia_bus::{Bus, Connections};
use alicia_contract::health::{ALERTS, Alert};
use alicia_failpoint::failpoint;
use alicia_module::Clock;
use alicia_store::{Error as StoreError, Store, outbox};
use tokio::sync::{Notify, mpsc};

use crate::core::alerts::Change;
use crate::store;

/// Changes that are written together.
const BATCH_MAX: usize = 256;

/// Messages that are read from the outbox together.
const OUTBOX_MAX: u32 = 100;

/// The wait before sending is tried again while the broker is away or refuses.
const RETRY: Duration = Duration::from_secs(1);

/// How often what is too old is deleted.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// How the writing and sending is doing.
#[derive(Default)]
pub(crate) struct Progress {
    /// Wakes the sender.
    written: Notify,
    /// Whether the last write failed.
    pub(crate) unwritten: AtomicBool,
    /// Alerts that the broker has.
    pub(crate) told: AtomicU64,
    /// Alerts that wait for the broker.
    pub(crate) waiting: AtomicU64,
}

/// Writes changes as they come. One that cannot be written is told all the same, once.
pub(crate) async fn keep(
    store: Store,
    bus: Bus,
    (mut changes, desk): (mpsc::Receiver<Change>, mpsc::Sender<Alert>),
    progress: Arc<Progress>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while changes.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let rows = Arc::new(std::mem::take(&mut batch));
        let written = Arc::clone(&rows);
        let outcome = store
            .write(move |tx| written.iter().try_for_each(|change| write(tx, change)))
            .await;
        progress.unwritten.store(outcome.is_err(), Relaxed);
        match outcome {
            Ok(()) => progress.written.notify_one(),
            Err(error) => {
                tracing::error!(%error, "alerts were not written; they are told once");
                tell_once(&bus, &rows).await;
            }
        }
        // What is stored is also for those who are to be notified. A desk that closes does not listen.
        for change in rows.iter() {
            drop(desk.send(change.alert.clone()).await);
        }
    }
}

fn write(tx: &alicia_store::Transaction<'_>, change: &Change) -> Result<(), StoreError> {
    store::save(tx, &change.alert)?;
    if change.news {
        let payload = serde_json::to_vec(&change.alert)?;
        outbox::push(tx, ALERTS.template(), &payload)?;
    }
    Ok(())
}

async fn tell_once(bus: &Bus, changes: &[Change]) {
    for change in changes.iter().filter(|change| change.news) {
        if let Err(error) = bus.publish(ALERTS, &[], &change.alert).await {
            tracing::error!(%error, id = change.alert.id, "an alert was neither written nor told");
        }
    }
}

/// Sends what is in the outbox, in order, whenever there is something and a connection.
pub(crate) async fn send(store: Store, bus: Bus, progress: Arc<Progress>) {
    let mut connections = bus.connections();
    loop {
        match send_all(&store, &bus, &progress).await {
            Ok(()) => progress.written.notified().await,
            Err(Halt::Closed) => return,
            Err(Halt::Later) => later(&mut connections).await,
        }
    }
}

/// Why sending stopped.
enum Halt {
    /// The bus or the store is closed.
    Closed,
    /// The broker is away or refuses, or the outbox cannot be read: try again.
    Later,
}

async fn send_all(store: &Store, bus: &Bus, progress: &Progress) -> Result<(), Halt> {
    loop {
        let messages = store
            .read(|connection| outbox::take(connection, OUTBOX_MAX))
            .await
            .map_err(halt)?;
        progress.waiting.store(messages.len() as u64, Relaxed);
        if messages.is_empty() {
            return Ok(());
        }
        // One write for all that the broker has: an alert does not wait for the disk once for each before it.
        let (told, halted) = publish_all(bus, &messages).await;
        let count = told.len() as u64;
        store
            .write(move |tx| outbox::done(tx, &told).map(drop))
            .await
            .map_err(halt)?;
        progress.told.fetch_add(count, Relaxed);
        if let Some(halted) = halted {
            return Err(halted);
        }
    }
}

/// Sends messages in order; gives the ids of those that the broker has, and why it stopped.
async fn publish_all(bus: &Bus, messages: &[outbox::Message]) -> (Vec<i64>, Option<Halt>) {
    let mut told = Vec::with_capacity(messages.len());
    for message in messages {
        match serde_json::from_slice::<Alert>(&message.payload) {
            Ok(alert) => {
                failpoint("health/stored");
                if let Err(halted) = publish(bus, &alert).await {
                    return (told, Some(halted));
                }
                failpoint("health/published");
            }
            Err(error) => tracing::warn!(%error, "a waiting alert cannot be read"),
        }
        told.push(message.id);
    }
    (told, None)
}

async fn publish(bus: &Bus, alert: &Alert) -> Result<(), Halt> {
    match bus.publish(ALERTS, &[], alert).await {
        Ok(()) => Ok(()),
        Err(alicia_bus::Error::Closed) => Err(Halt::Closed),
        // It will never pass: keep it from blocking those behind it. REST has it.
        Err(error @ (alicia_bus::Error::TooLarge { .. } | alicia_bus::Error::Encode { .. })) => {
            tracing::error!(%error, id = alert.id, "an alert cannot be told");
            Ok(())
        }
        Err(error) => {
            tracing::warn!(%error, "an alert waits for the bus");
            Err(Halt::Later)
        }
    }
}

fn halt(error: StoreError) -> Halt {
    if matches!(error, StoreError::Closed) {
        return Halt::Closed;
    }
    tracing::error!(%error, "the outbox of alerts cannot be used now");
    Halt::Later
}

async fn later(connections: &mut Connections) {
    tokio::select! {
        _ = connections.next() => {}
        () = tokio::time::sleep(RETRY) => {}
    }
}

/// Deletes alerts that are over and too old or too many, now and then.
pub(crate) async fn prune(store: Store, clock: Clock, keep_for: Duration, keep_max: u32) {
    loop {
        let oldest = clock.unix() - keep_for.as_secs_f64();
        match store
            .write(move |tx| store::prune(tx, oldest, keep_max))
            .await
        {
            Ok(0) => {}
            Ok(deleted) => tracing::debug!(deleted, "old alerts were deleted"),
            Err(StoreError::Closed) => return,
            Err(error) => tracing::warn!(%error, "old alerts were not deleted"),
        }
        tokio::time::sleep(PRUNE_EVERY).await;
    }
}
