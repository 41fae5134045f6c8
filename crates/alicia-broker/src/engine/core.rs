//! What the parts of the engine share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::accounts::Accounts;
use super::clients::{Client, Clients};
use super::limits::Limits;
use super::refusals::Refusals;
use super::retained::Retained;
use super::vault::Vault;
use crate::authority::{Attempt, Authority, Refusal, Refused};

/// Shared by all connections and all hooks.
pub(crate) struct Core {
    pub(crate) limits: Limits,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) accounts: Accounts,
    pub(crate) retained: Retained,
    pub(crate) refusals: Refusals,
    pub(crate) counters: Counters,
    /// Set once at start, when there is a store.
    pub(crate) vault: OnceLock<Arc<Vault>>,
}

/// What happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) connected: AtomicU64,
    pub(crate) published: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) dropped_full: AtomicU64,
    pub(crate) dropped_oversized: AtomicU64,
    pub(crate) dropped_expired: AtomicU64,
    pub(crate) dropped_other: AtomicU64,
    pub(crate) throttled: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

/// Adds one to a counter.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Core {
    /// Counts and reports that a client was refused something.
    pub(crate) fn refuse(
        &self,
        client: &Client,
        attempt: Attempt,
        topic: Option<&str>,
        refusal: &Refusal,
    ) {
        tracing::debug!(
            client_id = client.client_id(),
            identity = &*client.identity.name,
            attempt = attempt.as_str(),
            reason = refusal.reason.as_str(),
            "refused: {}",
            refusal.detail,
        );
        self.refusals.note(Refused {
            attempt,
            identity: Some(Arc::clone(&client.identity.name)),
            client_id: client.client_id().to_owned(),
            peer: client.peer,
            topic: topic.map(str::to_owned),
            refusal: refusal.clone(),
            unreported: 0,
        });
    }
}
