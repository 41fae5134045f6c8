//! What waits for each session, in bytes.
//!
//! The library's queues count messages, and one of them has no bound at all. So each message that
//! is handed to a session carries its cost with it: the payload is wrapped in an owner that gives
//! the cost back when the last reference to it is gone, wherever the library dropped it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use rmqtt::types::Publish;

use super::packet;
use super::vault::Row;

/// What a message costs beside its topic, properties and payload: the library's structures.
/// Measured: 100,000 queued messages of 64 bytes hold some 45 MB.
const MESSAGE_OVERHEAD_BYTES: usize = 384;

/// The account of one session.
#[derive(Debug, Default)]
pub(crate) struct Account {
    held_bytes: AtomicUsize,
    /// The inner port of the connection that serves the session; 0 while there is none.
    port: AtomicU32,
    /// Whether the session outlives its connection.
    lasting: AtomicBool,
}

/// A payload that is paid for, and remembered on disk where there is a row.
struct Charged {
    payload: Bytes,
    cost: usize,
    account: Arc<Account>,
    _row: Option<Row>,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.account
            .held_bytes
            .fetch_sub(self.cost, Ordering::Relaxed);
    }
}

impl Account {
    /// Whether a message fits into the session's budget.
    pub(crate) fn has_room(&self, publish: &Publish, bytes_max: usize) -> bool {
        self.held_bytes() + cost(publish) <= bytes_max
    }

    /// Charges a message to the session, until its last copy is gone; and its row with it. Who asks
    /// for room at the same time may overdraw the budget, each by one message.
    pub(crate) fn charge(self: &Arc<Self>, publish: &mut Publish, row: Option<Row>) {
        let cost = cost(publish);
        self.held_bytes.fetch_add(cost, Ordering::Relaxed);
        let payload = std::mem::take(&mut publish.payload);
        let account = Arc::clone(self);
        publish.payload = Bytes::from_owner(Charged {
            payload,
            cost,
            account,
            _row: row,
        });
    }

    /// Bytes that wait for the session.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Whether the session outlives its connection.
    pub(crate) fn lasting(&self) -> bool {
        self.lasting.load(Ordering::Relaxed)
    }

    pub(crate) fn set_lasting(&self, lasting: bool) {
        self.lasting.store(lasting, Ordering::Relaxed);
    }

    /// Whether a connection serves the session.
    pub(crate) fn online(&self) -> bool {
        self.port.load(Ordering::Relaxed) != 0
    }
}

fn cost(publish: &Publish) -> usize {
    MESSAGE_OVERHEAD_BYTES + packet::body_bytes(publish)
}

/// The accounts of all sessions, by client id.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    by_client_id: RwLock<HashMap<String, Arc<Account>>>,
}

impl Accounts {
    pub(crate) fn get(&self, client_id: &str) -> Option<Arc<Account>> {
        let accounts = self
            .by_client_id
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        accounts.get(client_id).cloned()
    }

    /// A connection serves the session from now on. What waits for it stays counted.
    pub(crate) fn connected(&self, client_id: &str, port: u16) {
        self.open_or_get(client_id)
            .port
            .store(u32::from(port), Ordering::Relaxed);
    }

    /// The account of a session, made if there is none.
    pub(crate) fn open_or_get(&self, client_id: &str) -> Arc<Account> {
        self.get(client_id).unwrap_or_else(|| self.open(client_id))
    }

    fn open(&self, client_id: &str) -> Arc<Account> {
        let mut accounts = self
            .by_client_id
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(accounts.entry(client_id.to_owned()).or_default())
    }

    /// The connection is gone. False when another one serves the session already.
    pub(crate) fn disconnected(&self, client_id: &str, port: u16) -> bool {
        self.get(client_id).is_some_and(|account| {
            let served_by = u32::from(port);
            let port = &account.port;
            port.compare_exchange(served_by, 0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        })
    }

    /// The session is gone.
    pub(crate) fn close(&self, client_id: &str) {
        self.by_client_id
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(client_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmqtt::codec::types::{Publish as Inner, QoS};

    fn publish(payload: usize) -> Publish {
        Inner {
            dup: false,
            retain: false,
            qos: QoS::AtMostOnce,
            topic: "a".into(),
            packet_id: None,
            payload: vec![0; payload].into(),
            properties: None,
        }
        .into()
    }

    #[test]
    fn a_cost_is_given_back_with_the_last_copy() {
        let account = Arc::new(Account::default());
        let mut message = publish(1_000);
        account.charge(&mut message, None);
        let held = account.held_bytes();
        assert!(held > 1_000, "{held}");
        let copy = message.clone();
        drop(message);
        assert_eq!(account.held_bytes(), held);
        assert_eq!(copy.payload.len(), 1_000);
        drop(copy);
        assert_eq!(account.held_bytes(), 0);
    }

    #[test]
    fn an_empty_payload_costs_too() {
        let account = Arc::new(Account::default());
        let mut message = publish(0);
        account.charge(&mut message, None);
        assert!(account.held_bytes() >= MESSAGE_OVERHEAD_BYTES);
        drop(message);
        assert_eq!(account.held_bytes(), 0);
    }

    #[test]
    fn the_budget_is_for_all_that_waits() {
        let account = Arc::new(Account::default());
        assert!(!account.has_room(&publish(1_000), 1_000));
        assert!(account.has_room(&publish(1_000), 2_000));
        let mut message = publish(1_000);
        account.charge(&mut message, None);
        assert!(!account.has_room(&publish(1_000), 2_000));
    }
}
