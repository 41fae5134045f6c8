//! What services with a budget have used up, written down behind the events, the latest only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alicia_contract::ServiceName;
use alicia_module::Context;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::Engine;
use crate::core::budget::Account;
use crate::store;

/// How often accounts are written at most. A host that is killed forgets what came in this time, unless
/// somebody else meters it as well.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The entrance.
#[derive(Debug, Clone, Default)]
pub(super) struct Sender {
    waiting: Arc<Mutex<BTreeMap<ServiceName, Account>>>,
    wake: Arc<Notify>,
}

impl Sender {
    fn send(&self, service: ServiceName, account: Account) {
        self.lock().insert(service, account);
        self.wake.notify_one();
    }

    fn take(&self) -> BTreeMap<ServiceName, Account> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServiceName, Account>> {
        // A map is whole after each of its operations.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the task that writes.
pub(super) fn start(cx: &Context) -> Sender {
    let sender = Sender::default();
    let (waiting, context) = (sender.clone(), cx.clone());
    cx.spawn("accounts", async move {
        loop {
            waiting.wake.notified().await;
            let accounts = waiting.take();
            if let Err(error) = store::write_accounts(&context.store, accounts).await {
                tracing::error!(%error, "what was used up was not written down");
            }
            sleep(WRITE_INTERVAL).await;
        }
    });
    sender
}

impl Engine {
    pub(super) fn keep_account(&self, service: ServiceName, account: Account) {
        self.accounts.send(service, account);
    }
}
