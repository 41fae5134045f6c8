//! Who is connected, and whom each client id belongs to.
//!
//! A client id belongs to the identity that first used it, from the moment its CONNECT is let in
//! until neither a connection nor a session of it is left. This is what keeps one client from
//! taking over another's session.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rmqtt::types::Id;
use tokio::sync::Notify;

use super::clock;
use super::limits::Limits;
use super::pace::Pace;
use crate::authority::{Identity, Reason, Refusal, Subject};

/// How a client reaches the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// MQTT over TCP.
    Tcp,
    /// MQTT over WebSocket.
    WebSocket,
}

/// MQTT 5 reason codes of a DISCONNECT that the broker sends by itself.
pub(crate) mod code {
    pub(crate) const MALFORMED: u8 = 0x81;
    pub(crate) const SERVER_SHUTTING_DOWN: u8 = 0x8B;
    pub(crate) const SESSION_TAKEN_OVER: u8 = 0x8E;
    pub(crate) const PACKET_TOO_LARGE: u8 = 0x95;
    pub(crate) const ADMINISTRATIVE_ACTION: u8 = 0x98;
}

/// One open connection whose CONNECT was let in.
pub(crate) struct Client {
    pub(crate) subject: Arc<dyn Subject>,
    pub(crate) identity: Identity,
    pub(crate) peer: SocketAddr,
    pub(crate) transport: Transport,
    /// 3, 4 (3.1.1) or 5.
    pub(crate) protocol_level: u8,
    pub(crate) connected_ms: i64,
    pub(crate) published: AtomicU64,
    pub(crate) delivered: AtomicU64,
    client_id: OnceLock<String>,
    in_session: AtomicBool,
    reason_code: OnceLock<u8>,
    /// Of its identity; set when it is let in.
    pace: Arc<Pace>,
    /// Wakes the connection's task when it is to end.
    pub(crate) close: Notify,
    /// Wakes the connection's task when the session has told why it ended.
    pub(crate) ended: Notify,
}

impl Client {
    pub(crate) fn new(
        subject: Arc<dyn Subject>,
        peer: SocketAddr,
        transport: Transport,
        protocol_level: u8,
    ) -> Self {
        Self {
            identity: subject.identity().clone(),
            subject,
            peer,
            transport,
            protocol_level,
            connected_ms: rmqtt::utils::timestamp_millis(),
            published: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            client_id: OnceLock::new(),
            in_session: AtomicBool::new(false),
            reason_code: OnceLock::new(),
            pace: Arc::new(Pace::new(0, clock::now())),
            close: Notify::new(),
            ended: Notify::new(),
        }
    }

    /// The pace that it shares with the other connections of its identity.
    pub(crate) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// The client id; empty until one was assigned.
    pub(crate) fn client_id(&self) -> &str {
        self.client_id.get().map_or("", String::as_str)
    }

    pub(crate) fn name_client_id(&self, client_id: &str) {
        self.client_id.get_or_init(|| client_id.to_owned());
    }

    pub(crate) fn in_session(&self) -> bool {
        self.in_session.load(Ordering::Relaxed)
    }

    /// Asks the connection to end and to tell an MQTT 5 client why. The first reason stands.
    pub(crate) fn end(&self, reason_code: u8) {
        self.note_reason(reason_code);
        self.close.notify_one();
    }

    /// Notes why the connection is about to be ended by somebody else.
    pub(crate) fn note_reason(&self, reason_code: u8) {
        self.reason_code.get_or_init(|| reason_code);
        self.ended.notify_one();
    }

    pub(crate) fn reason_code(&self) -> Option<u8> {
        self.reason_code.get().copied()
    }
}

struct Owner {
    name: Arc<str>,
    /// The latest client; none for a session that was found in the store.
    subject: Option<Arc<dyn Subject>>,
    connections: u32,
    session: Option<Id>,
}

#[derive(Default)]
struct Inner {
    /// By the port under which the broker's inner listener sees the connection.
    by_port: HashMap<u16, Arc<Client>>,
    owners: HashMap<String, Owner>,
    per_identity: HashMap<Arc<str>, Share>,
}

/// What the connections of one identity have together. It stays until it is as good as new, or its owner would come back
/// again and again for a new burst.
struct Share {
    connections: usize,
    pace: Arc<Pace>,
}

/// All connections, and the owners of all client ids.
#[derive(Default)]
pub(crate) struct Clients {
    inner: RwLock<Inner>,
}

/// A client that may connect; dropping it gives up its claim on the client id.
pub(crate) struct Admission {
    clients: Arc<Clients>,
    pub(crate) client: Arc<Client>,
    port: Option<u16>,
}

impl Clients {
    /// Lets a client in, or says why not. Connections that it replaces are told to end.
    pub(crate) fn admit(
        self: &Arc<Self>,
        mut client: Client,
        client_id: &str,
        limits: &Limits,
    ) -> Result<Admission, Refusal> {
        let mut inner = self.write();
        inner.check_owner(client_id, &client.identity, limits)?;
        inner.check_epoch(client_id, &client.identity)?;
        let name = Arc::clone(&client.identity.name);
        let open = inner
            .per_identity
            .get(&name)
            .map_or(0, |share| share.connections);
        if open >= limits.connections_per_identity_max {
            return Err(Refusal::new(
                Reason::TooManyPerIdentity,
                format!("{name} has {open} connections, the limit"),
            ));
        }
        client.pace = inner.share(&client.identity, limits);
        inner.note_takeover(client_id);
        if !client_id.is_empty() {
            client.name_client_id(client_id);
            let owner = inner
                .owners
                .entry(client_id.to_owned())
                .or_insert(Owner::named(&name));
            owner.subject = Some(Arc::clone(&client.subject));
            owner.connections += 1;
        }
        Ok(Admission {
            clients: Arc::clone(self),
            client: Arc::new(client),
            port: None,
        })
    }

    /// The connection that a session belongs to, while it is open.
    pub(crate) fn of(&self, id: &Id) -> Option<Arc<Client>> {
        let port = id.remote_addr?.port();
        let client = self.read().by_port.get(&port).cloned()?;
        let same = client.client_id().is_empty() || client.client_id() == &*id.client_id;
        same.then_some(client)
    }

    /// A session of this client id has begun, or was taken over by a new connection.
    pub(crate) fn session_began(&self, id: &Id, name: &Arc<str>) {
        let mut inner = self.write();
        if let Some(client) = id
            .remote_addr
            .and_then(|peer| inner.by_port.get(&peer.port()))
        {
            client.in_session.store(true, Ordering::Relaxed);
        }
        let owner = inner.owners.entry(id.client_id.to_string());
        owner.or_insert_with(|| Owner::named(name)).session = Some(id.clone());
    }

    /// A session is gone for good. False when a newer session of the same client id took over.
    pub(crate) fn session_ended(&self, id: &Id) -> bool {
        let mut inner = self.write();
        let Some(owner) = inner.owners.get_mut(&*id.client_id) else {
            return true;
        };
        if owner.session.as_ref().is_some_and(|session| session != id) {
            return false;
        }
        owner.session = None;
        if owner.connections == 0 {
            inner.owners.remove(&*id.client_id);
        }
        true
    }

    /// The identity that a client id belongs to.
    pub(crate) fn owner(&self, client_id: &str) -> Option<Arc<str>> {
        Some(Arc::clone(&self.read().owners.get(client_id)?.name))
    }

    /// The permissions of the latest client with this client id.
    pub(crate) fn subject(&self, client_id: &str) -> Option<Arc<dyn Subject>> {
        self.read().owners.get(client_id)?.subject.clone()
    }

    /// All open connections.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.read().by_port.values().cloned().collect()
    }

    /// The names of those who are connected, each once.
    pub(crate) fn identities(&self) -> Vec<Arc<str>> {
        let inner = self.read();
        let connected = inner
            .per_identity
            .iter()
            .filter(|(_, share)| share.connections > 0);
        connected.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Client ids with a connection or a session.
    pub(crate) fn sessions(&self) -> usize {
        self.read().owners.len()
    }

    /// Open connections whose CONNECT was let in.
    pub(crate) fn connections(&self) -> usize {
        self.read().by_port.len()
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owner {
    fn named(name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            subject: None,
            connections: 0,
            session: None,
        }
    }
}

impl Inner {
    /// Counts a connection of this identity in; the answer is the pace that it shares with the others.
    fn share(&mut self, identity: &Identity, limits: &Limits) -> Arc<Pace> {
        if let Some(share) = self.per_identity.get_mut(&identity.name) {
            share.connections += 1;
            return Arc::clone(&share.pace);
        }
        let now = clock::now();
        self.per_identity
            .retain(|_, share| share.connections > 0 || !share.pace.is_full(now));
        let rate = match identity.trusted {
            true => 0,
            false => limits.packet_rate_max,
        };
        let pace = Arc::new(Pace::new(rate, now));
        let share = Share {
            connections: 1,
            pace: Arc::clone(&pace),
        };
        self.per_identity.insert(Arc::clone(&identity.name), share);
        pace
    }

    fn check_owner(
        &self,
        client_id: &str,
        identity: &Identity,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        match self.owners.get(client_id) {
            Some(owner) if owner.name != identity.name => Err(Refusal::new(
                Reason::ClientIdTaken,
                format!("client id {client_id:?} belongs to {}", owner.name),
            )),
            None if self.owners.len() >= limits.sessions_max => Err(Refusal::new(
                Reason::TooManySessions,
                format!("{} sessions, the limit", self.owners.len()),
            )),
            _ => Ok(()),
        }
    }

    /// Two copies never act at once: under one client id the higher epoch stays. It takes over from
    /// the lower as every new connection does, and a lower one cannot take over from it.
    fn check_epoch(&self, client_id: &str, identity: &Identity) -> Result<(), Refusal> {
        let same = |other: &&Arc<Client>| !client_id.is_empty() && other.client_id() == client_id;
        match self
            .by_port
            .values()
            .filter(same)
            .map(|other| other.identity.epoch)
            .max()
        {
            Some(newer) if newer > identity.epoch => Err(Refusal::new(
                Reason::StaleEpoch,
                format!("epoch {newer} is connected, this is {}", identity.epoch),
            )),
            _ => Ok(()),
        }
    }

    /// The library ends the older connection of the same client id; the reason is noted here.
    fn note_takeover(&self, client_id: &str) {
        if client_id.is_empty() || !self.owners.contains_key(client_id) {
            return;
        }
        for older in self
            .by_port
            .values()
            .filter(|older| older.client_id() == client_id)
        {
            older.note_reason(code::SESSION_TAKEN_OVER);
        }
    }
}

impl Admission {
    /// Makes the connection known under its inner port.
    pub(crate) fn enter(&mut self, port: u16) {
        self.port = Some(port);
        self.clients
            .write()
            .by_port
            .insert(port, Arc::clone(&self.client));
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut inner = self.clients.write();
        if let Some(port) = self.port {
            inner.by_port.remove(&port);
        }
        let name = &self.client.identity.name;
        if let Some(share) = inner.per_identity.get_mut(name) {
            share.connections = share.connections.saturating_sub(1);
        }
        let client_id = self.client.client_id();
        if let Some(owner) = inner.owners.get_mut(client_id) {
            owner.connections = owner.connections.saturating_sub(1);
            if owner.connections == 0 && owner.session.is_none() {
                inner.owners.remove(client_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody(Identity);

    impl Subject for Nobody {
        fn identity(&self) -> &Identity {
            &self.0
        }

        fn may_publish(&self, _: &str, _: bool) -> Result<(), Refusal> {
            Ok(())
        }

        fn may_subscribe(&self, _: &str) -> Result<(), Refusal> {
            Ok(())
        }

        fn check_payload(&self, _: &str, _: &[u8]) -> Result<(), Refusal> {
            Ok(())
        }
    }

    fn client(name: &str, epoch: u64) -> Client {
        let subject = Arc::new(Nobody(Identity {
            name: name.into(),
            epoch,
            trusted: false,
        }));
        Client::new(subject, ([127, 0, 0, 1], 1).into(), Transport::Tcp, 5)
    }

    #[test]
    fn a_client_id_stays_with_its_identity_until_connection_and_session_are_gone() {
        let clients = Arc::new(Clients::default());
        let limits = Limits::default();
        let id = Id::from(1, "x".into());
        let first = clients
            .admit(client("ann", 0), "x", &limits)
            .unwrap_or_else(|e| panic!("{e:?}"));
        clients.session_began(&id, &"ann".into());
        let refusal = clients.admit(client("bob", 0), "x", &limits).err().unwrap();
        assert_eq!(refusal.reason, Reason::ClientIdTaken);
        drop(first);
        let refusal = clients.admit(client("bob", 0), "x", &limits).err().unwrap();
        assert_eq!(
            refusal.reason,
            Reason::ClientIdTaken,
            "the session lives on"
        );
        assert!(clients.session_ended(&id));
        assert!(clients.admit(client("bob", 0), "x", &limits).is_ok());
    }

    #[test]
    fn a_higher_epoch_takes_over_a_client_id_and_never_the_reverse() {
        let clients = Arc::new(Clients::default());
        let limits = Limits::default();
        let admit = |client_id, epoch| clients.admit(client("ann", epoch), client_id, &limits);
        let mut old = admit("x", 1).unwrap_or_else(|e| panic!("{e:?}"));
        old.enter(1);
        let mut new = admit("x", 2).unwrap_or_else(|e| panic!("{e:?}"));
        new.enter(2);
        assert_eq!(old.client.reason_code(), Some(code::SESSION_TAKEN_OVER));
        assert_eq!(new.client.reason_code(), None);
        assert_eq!(admit("x", 1).err().unwrap().reason, Reason::StaleEpoch);
        assert!(admit("y", 1).is_ok(), "another slot of the service");
        assert_eq!(new.client.reason_code(), None);
    }

    #[test]
    fn connections_of_one_identity_are_limited() {
        let clients = Arc::new(Clients::default());
        let limits = Limits {
            connections_per_identity_max: 1,
            ..Limits::default()
        };
        let first = clients.admit(client("ann", 0), "a", &limits);
        assert!(first.is_ok());
        let refusal = clients.admit(client("ann", 0), "b", &limits).err().unwrap();
        assert_eq!(refusal.reason, Reason::TooManyPerIdentity);
        assert!(clients.admit(client("bob", 0), "c", &limits).is_ok());
        drop(first);
        assert!(clients.admit(client("ann", 0), "b", &limits).is_ok());
    }

    #[test]
    fn connections_of_one_identity_share_its_pace_and_a_return_does_not_renew_it() {
        let clients = Arc::new(Clients::default());
        let limits = Limits {
            packet_rate_max: 100,
            ..Limits::default()
        };
        let waits = |name, client_id| {
            let admission = clients.admit(client(name, 0), client_id, &limits);
            let admission = admission.unwrap_or_else(|e| panic!("{e:?}"));
            let wait = admission.client.pace().take(50, 0, clock::now());
            (!wait.is_zero(), admission)
        };
        let (first_waits, first) = waits("ann", "a");
        assert!(first_waits, "more than the burst at once");
        drop(first);
        assert!(waits("ann", "b").0, "the pace is still the same");
        assert_eq!(clients.identities(), []);
        let mut module = client("system/health", 0);
        module.identity.trusted = true;
        let module = clients.admit(module, "m", &limits);
        let module = module.unwrap_or_else(|e| panic!("{e:?}"));
        let wait = module.client.pace().take(1_000_000, 0, clock::now());
        assert!(wait.is_zero(), "the house itself is not slowed down");
    }
}
