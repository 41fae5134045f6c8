//! Refusals as audit entries. Reporting one must not hold up the engine: it is put into a bounded
//! queue, and what finds no room is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alicia_module::Clock;
use alicia_store::audit::{self, Entry, Outcome};
use alicia_store::{Error, Store};
use serde_json::json;
use tokio::sync::mpsc;

use crate::authority::{Observer, Refused};

/// Refusals that wait to be written. There is one per client, attempt and reason a minute at most.
const QUEUE_MAX: usize = 1_024;
/// The actor of an attempt by somebody unknown.
const STRANGER: &str = "stranger";

/// The engine's end of the queue.
pub(crate) struct Reporter {
    queue: mpsc::Sender<Refused>,
    lost: Arc<AtomicU64>,
}

/// The store's end of the queue.
pub(crate) struct Recorder {
    queue: mpsc::Receiver<Refused>,
    store: Store,
    clock: Clock,
}

/// A queue, and the count of what found no room in it.
pub(crate) fn queue(store: Store, clock: Clock) -> (Reporter, Recorder, Arc<AtomicU64>) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let lost = Arc::new(AtomicU64::new(0));
    let reporter = Reporter {
        queue: sender,
        lost: Arc::clone(&lost),
    };
    (
        reporter,
        Recorder {
            queue: receiver,
            store,
            clock,
        },
        lost,
    )
}

impl Observer for Reporter {
    fn refused(&self, refused: &Refused) {
        if self.queue.try_send(refused.clone()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Recorder {
    /// Writes entries until the engine is gone.
    pub(crate) async fn run(mut self) {
        while let Some(refused) = self.queue.recv().await {
            tracing::warn!(
                identity = refused.identity.as_deref().unwrap_or(STRANGER),
                client_id = refused.client_id,
                peer = %refused.peer,
                topic = refused.topic,
                reason = refused.refusal.reason.as_str(),
                unreported = refused.unreported,
                "refused to {}: {}",
                refused.attempt.as_str(),
                refused.refusal.detail,
            );
            let time_unix_us = self.clock.unix_us();
            let written = self
                .store
                .write(move |tx| record(tx, time_unix_us, &refused))
                .await;
            if let Err(fault) = written {
                tracing::error!("failed to write an audit entry: {fault}");
            }
        }
    }
}

fn record(
    tx: &alicia_store::Transaction<'_>,
    time_unix_us: i64,
    refused: &Refused,
) -> Result<(), Error> {
    let action = format!("broker.{}", refused.attempt.as_str());
    let target = match &refused.topic {
        Some(topic) => format!("topic:{topic}"),
        None => format!("client:{}", refused.client_id),
    };
    audit::append(
        tx,
        &Entry {
            time_unix_us,
            actor: refused.identity.as_deref().unwrap_or(STRANGER),
            action: &action,
            target: &target,
            outcome: Outcome::Denied,
            detail: &json!({
                "reason": refused.refusal.reason.as_str(),
                "detail": refused.refusal.detail,
                "client_id": refused.client_id,
                "peer": refused.peer.to_string(),
                "unreported": refused.unreported,
            }),
        },
    )
    .map(drop)
}
