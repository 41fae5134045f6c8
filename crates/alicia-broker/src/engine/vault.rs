//! What outlives the process: retained messages, sessions, their subscriptions, and the messages
//! that wait for them.
//!
//! Everything is on disk before it is acknowledged where somebody relies on it: a subscription
//! before its SUBACK, a retained message of QoS 1 or 2 and a message for an absent client before
//! its PUBACK. Messages for present clients are written too, but nobody waits for it: a crash of the
//! process loses none that the store had taken, a power cut may lose the last moments.
//!
//! A row of a waiting message lives as long as the message: see [`Row`].

mod convert;
mod restore;
mod rows;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alicia_store::{Error, Pending, Store, Transaction};
use bytes::Bytes;
use rmqtt::inflight::{MomentStatus, OutInflightMessage};
use rmqtt::types::{ClientId, From, Publish, Retain, SubscriptionOptions};
use tokio::sync::Notify;

pub(crate) use self::restore::restore;
pub use self::rows::MIGRATIONS;
use self::rows::{NewDelivery, Stage, StoredSession};

/// How long rows of delivered messages gather before they are deleted together.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);

/// The broker's memory on disk.
pub(crate) struct Vault {
    store: Store,
    next_id: AtomicI64,
    /// Client ids with a row, so that short sessions cost no write.
    known: Mutex<HashSet<String>>,
    delivered: Mutex<Vec<i64>>,
    wake: Notify,
    closing: AtomicBool,
    faults: Arc<AtomicU64>,
}

/// The row of one message for one client. Dropping it, with the message, deletes the row; unless
/// the broker is closing, when every message that is left is one to be remembered.
pub(crate) struct Row {
    id: i64,
    vault: Arc<Vault>,
}

impl Drop for Row {
    fn drop(&mut self) {
        self.vault.delivered(self.id);
    }
}

/// What a session that began is to be remembered by.
pub(crate) struct Lasting {
    pub(crate) client_id: String,
    pub(crate) owner: String,
    pub(crate) protocol_level: u8,
    pub(crate) expiry: Duration,
    pub(crate) created_ms: i64,
    pub(crate) clean_start: bool,
}

/// Rows of one message, to be written together.
#[derive(Default)]
pub(crate) struct Deliveries {
    rows: Vec<NewDelivery>,
    awaited: bool,
}

impl Vault {
    fn new(store: Store, last_id: i64) -> Self {
        Self {
            store,
            next_id: AtomicI64::new(last_id + 1),
            known: Mutex::default(),
            delivered: Mutex::default(),
            wake: Notify::new(),
            closing: AtomicBool::new(false),
            faults: Arc::default(),
        }
    }

    /// Puts a retained message in line to be remembered, or the topic's to be forgotten when the
    /// payload is empty. Finish it with [`Self::finish`].
    pub(crate) async fn retain(&self, retain: &Retain, expires_ms: Option<i64>) -> Queued {
        let publish = &retain.publish;
        let message = convert::stored(&retain.from, publish);
        let payload = publish.payload.clone();
        let awaited = message.qos > 0;
        self.queue(awaited, "keep a retained message", move |tx| {
            if payload.is_empty() {
                rows::delete_retained(tx, &message.topic)
            } else {
                rows::put_retained(tx, &message, &payload, expires_ms)
            }
        })
        .await
    }

    /// A session has begun, or has been taken up again.
    pub(crate) async fn session_began(&self, session: Lasting) {
        let lasts = !session.expiry.is_zero();
        let was_known = self.note_known(&session.client_id, lasts);
        if !lasts && !was_known {
            return;
        }
        let clean_start = session.clean_start;
        let row = StoredSession {
            client_id: session.client_id,
            owner: session.owner,
            protocol_level: session.protocol_level,
            expiry_s: convert::seconds(session.expiry),
            created_ms: session.created_ms,
            disconnected_ms: None,
        };
        self.run(false, "remember a session", move |tx| {
            if clean_start || !lasts {
                rows::delete_session(tx, &row.client_id)?;
            }
            if lasts {
                rows::put_session(tx, &row)
            } else {
                Ok(())
            }
        })
        .await;
    }

    /// The client has left; its session goes on.
    pub(crate) async fn client_left(
        &self,
        client_id: &str,
        expiry: Duration,
        inflight: &[OutInflightMessage],
    ) {
        let client_id = client_id.to_owned();
        let (expiry_s, now_ms) = (convert::seconds(expiry), rmqtt::utils::timestamp_millis());
        let stages: Vec<_> = inflight.iter().filter_map(stage_of).collect();
        self.run(true, "remember an absent client", move |tx| {
            rows::put_absence(tx, &client_id, expiry_s, now_ms)?;
            rows::put_stages(tx, &stages)
        })
        .await;
    }

    /// The session is over.
    pub(crate) async fn session_ended(&self, client_id: &str) {
        if self.closing.load(Ordering::Relaxed) || !self.note_known(client_id, false) {
            return;
        }
        let client_id = client_id.to_owned();
        self.run(false, "forget a session", move |tx| {
            rows::delete_session(tx, &client_id)
        })
        .await;
    }

    /// A lasting session has subscribed.
    pub(crate) async fn subscribed(
        &self,
        client_id: &str,
        filter: &str,
        options: &SubscriptionOptions,
    ) {
        let (client_id, filter) = (client_id.to_owned(), filter.to_owned());
        let options = convert::stored_options(options);
        self.run(true, "remember a subscription", move |tx| {
            rows::put_subscription(tx, &client_id, &filter, &options)
        })
        .await;
    }

    /// A lasting session has unsubscribed.
    pub(crate) async fn unsubscribed(&self, client_id: &str, filter: &str) {
        let (client_id, filter) = (client_id.to_owned(), filter.to_owned());
        self.run(true, "forget a subscription", move |tx| {
            rows::delete_subscription(tx, &client_id, &filter)
        })
        .await;
    }

    /// Gives a message for a lasting session its row, and the row its place among `deliveries`.
    pub(crate) fn row(
        self: &Arc<Self>,
        deliveries: &mut Deliveries,
        (client_id, online): (&str, bool),
        from: &From,
        publish: &mut Publish,
    ) -> Row {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        set_row_id(publish, id);
        deliveries.awaited |= !online;
        deliveries.rows.push(NewDelivery {
            id,
            client_id: client_id.to_owned(),
            message: convert::stored(from, publish),
        });
        Row {
            id,
            vault: Arc::clone(self),
        }
    }

    /// Writes the rows of one message; waits for the disk when one of its receivers is absent.
    pub(crate) async fn deliver(&self, deliveries: Deliveries, payload: Bytes) {
        if deliveries.rows.is_empty() {
            return;
        }
        let rows = Arc::new(deliveries.rows);
        self.run(deliveries.awaited, "remember a message", move |tx| {
            rows::put_deliveries(tx, &rows, &payload)
        })
        .await;
    }

    /// Deletes rows of delivered messages, a batch at a time, until the task is dropped.
    pub(crate) async fn sweep(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            tokio::time::sleep(SWEEP_PAUSE).await;
            self.sweep_once().await;
        }
    }

    /// Writes that failed.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// From now on nothing is forgotten. Returns when all writes so far are on disk.
    pub(crate) async fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.sweep_once().await;
        self.run(true, "finish writing", |_| Ok(())).await;
    }

    async fn sweep_once(&self) {
        let ids = std::mem::take(
            &mut *self
                .delivered
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        if !ids.is_empty() {
            let ids = Arc::new(ids);
            self.run(true, "forget delivered messages", move |tx| {
                rows::delete_deliveries(tx, &ids)
            })
            .await;
        }
    }

    fn delivered(&self, id: i64) {
        if self.closing.load(Ordering::Relaxed) {
            return;
        }
        let mut delivered = self
            .delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        delivered.push(id);
        if delivered.len() == 1 {
            self.wake.notify_one();
        }
    }

    /// Whether the client id had a row before.
    fn note_known(&self, client_id: &str, now: bool) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if now {
            !known.insert(client_id.to_owned())
        } else {
            known.remove(client_id)
        }
    }

    async fn run<F>(&self, awaited: bool, what: &'static str, work: F)
    where
        F: FnOnce(&Transaction<'_>) -> Result<(), Error> + Clone + Send + 'static,
    {
        let queued = self.queue(awaited, what, work).await;
        self.finish(queued).await;
    }

    /// Puts a write in line; all of them are done in the order in which they were queued.
    async fn queue<F>(&self, awaited: bool, what: &'static str, work: F) -> Queued
    where
        F: FnOnce(&Transaction<'_>) -> Result<(), Error> + Clone + Send + 'static,
    {
        let faults = Arc::clone(&self.faults);
        let work =
            move |tx: &Transaction<'_>| work(tx).inspect_err(|fault| note(&faults, what, fault));
        let queued = match self.store.try_write(work.clone()) {
            Ok(pending) => Ok(awaited.then_some(pending)),
            Err(Error::QueueFull { .. }) => self.store.write(work).await.map(|()| None),
            Err(fault) => Err(fault),
        };
        Queued(queued.unwrap_or_else(|fault| {
            note(&self.faults, what, &fault);
            None
        }))
    }

    /// Waits until a write that somebody relies on is on disk.
    pub(crate) async fn finish(&self, queued: Queued) {
        if let Some(pending) = queued.0
            && let Err(fault) = pending.await
        {
            tracing::debug!("a write that was waited for failed: {fault}");
        }
    }
}

/// A write in line; with its end, when it is to be waited for.
pub(crate) struct Queued(Option<Pending<(), Error>>);

fn note(faults: &AtomicU64, what: &str, fault: &Error) {
    faults.fetch_add(1, Ordering::Relaxed);
    tracing::error!("failed to {what}: {fault}");
}

/// The library passes this field on untouched when it is built without delayed messages.
fn set_row_id(publish: &mut Publish, id: i64) {
    publish.target_clientid = Some(ClientId::from(id.to_string()));
}

fn stage_of(inflight: &OutInflightMessage) -> Option<(i64, u16, Stage)> {
    let id = inflight.publish.target_clientid.as_ref()?.parse().ok()?;
    let packet_id = inflight.publish.packet_id?.get();
    let stage = match inflight.status {
        MomentStatus::UnAck | MomentStatus::UnReceived => Stage::Sent,
        MomentStatus::UnComplete => Stage::Received,
    };
    Some((id, packet_id, stage))
}
