//! Who may do what: the questions that the broker asks, and the answers it understands.
//!
//! The broker knows no policy. It asks an [`Authority`] at CONNECT and the [`Subject`] that it got there at
//! every PUBLISH and SUBSCRIBE, and refuses whatever is not granted.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a client shows at CONNECT.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// The client id; empty when the broker is to assign one.
    pub client_id: &'a str,
    /// The user name, if one was sent.
    pub username: Option<&'a str>,
    /// The password, if one was sent. MQTT allows any bytes.
    pub password: Option<&'a [u8]>,
    /// The address that the connection comes from.
    pub peer: SocketAddr,
}

impl fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("password", &self.password.map(|_| "(hidden)"))
            .field("peer", &self.peer)
            .finish()
    }
}

/// Who a client turned out to be.
///
/// A client id belongs to the `name` that first used it, for as long as its session lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name that permissions, limits and audit entries go by.
    pub name: Arc<str>,
    /// Rises at every start or hand-over of a supervised instance; a connection with a lower epoch
    /// cannot take over the client id of one with a higher. 0 for those who have no epochs.
    pub epoch: u64,
    /// A part of the house: what it says is not slowed down.
    pub trusted: bool,
}

impl Identity {
    /// An identity without epochs.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            epoch: 0,
            trusted: false,
        }
    }
}

/// Why something was refused: the label under which it is counted and audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// User name or password is wrong.
    BadCredentials,
    /// The identity has no such permission.
    NotAuthorized,
    /// The client id belongs to another identity.
    ClientIdTaken,
    /// Not allowed, and the client is not to learn why.
    Undisclosed,
    /// A newer epoch is connected under the same client id.
    StaleEpoch,
    /// The envelope names a source other than the sender.
    ForgedSource,
    /// The payload breaks the rules of its topic.
    BadPayload,
    /// The client id is too long or holds control characters.
    BadClientId,
    /// The topic name or filter is malformed, too long or too deep.
    BadTopic,
    /// The bytes are not MQTT.
    Malformed,
    /// The packet is larger than allowed.
    PacketTooLarge,
    /// No CONNECT arrived in time.
    ConnectTimeout,
    /// The broker has as many connections as it may have.
    TooManyConnections,
    /// The identity has as many connections as it may have.
    TooManyPerIdentity,
    /// The broker has as many sessions as it may have.
    TooManySessions,
    /// The client has as many subscriptions as it may have.
    TooManySubscriptions,
    /// No room for another retained message.
    RetainedQuota,
    /// The client did not read what was sent to it.
    StuckReader,
}

impl Reason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 18] = [
        Self::BadCredentials,
        Self::NotAuthorized,
        Self::ClientIdTaken,
        Self::Undisclosed,
        Self::StaleEpoch,
        Self::ForgedSource,
        Self::BadPayload,
        Self::BadClientId,
        Self::BadTopic,
        Self::Malformed,
        Self::PacketTooLarge,
        Self::ConnectTimeout,
        Self::TooManyConnections,
        Self::TooManyPerIdentity,
        Self::TooManySessions,
        Self::TooManySubscriptions,
        Self::RetainedQuota,
        Self::StuckReader,
    ];

    /// The stable name used in metrics, audit entries and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadCredentials => "bad_credentials",
            Self::NotAuthorized => "not_authorized",
            Self::ClientIdTaken => "client_id_taken",
            Self::Undisclosed => "undisclosed",
            Self::StaleEpoch => "stale_epoch",
            Self::ForgedSource => "forged_source",
            Self::BadPayload => "bad_payload",
            Self::BadClientId => "bad_client_id",
            Self::BadTopic => "bad_topic",
            Self::Malformed => "malformed",
            Self::PacketTooLarge => "packet_too_large",
            Self::ConnectTimeout => "connect_timeout",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyPerIdentity => "too_many_per_identity",
            Self::TooManySessions => "too_many_sessions",
            Self::TooManySubscriptions => "too_many_subscriptions",
            Self::RetainedQuota => "retained_quota",
            Self::StuckReader => "stuck_reader",
        }
    }
}

/// A refusal: its reason, and one sentence for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The label.
    pub reason: Reason,
    /// What exactly was wrong; holds no secrets.
    pub detail: String,
}

impl Refusal {
    /// A refusal with its explanation.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// What a client wanted when it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attempt {
    /// To connect.
    Connect,
    /// To publish.
    Publish,
    /// To subscribe.
    Subscribe,
    /// To stay connected.
    Stay,
}

impl Attempt {
    /// The stable name used in audit entries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Stay => "stay",
        }
    }
}

/// One refusal that is worth an audit entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What was attempted.
    pub attempt: Attempt,
    /// Who attempted it; nobody when the client was not authenticated yet.
    pub identity: Option<Arc<str>>,
    /// The client id, possibly empty.
    pub client_id: String,
    /// Where the client connects from.
    pub peer: SocketAddr,
    /// Topic or filter, where there is one.
    pub topic: Option<String>,
    /// Why.
    pub refusal: Refusal,
    /// How many of the same kind went unreported since the last report.
    pub unreported: u64,
}

/// Knows who somebody is. The answer is computed at once: it may not wait for the network or a disk.
pub trait Authority: Send + Sync + 'static {
    /// Who the client is, with what it may do.
    ///
    /// # Errors
    /// The client is not let in.
    fn authenticate(&self, login: &Login<'_>) -> Result<Arc<dyn Subject>, Refusal>;
}

/// An authenticated client and its permissions, for as long as it is connected. Permissions may
/// change meanwhile: they are asked for each time.
pub trait Subject: Send + Sync + 'static {
    /// Who it is.
    fn identity(&self) -> &Identity;

    /// Whether it may still do anything: a newer copy may have its place. Asked before each message and
    /// subscription, and when a will fires.
    ///
    /// # Errors
    /// Nothing that it does is accepted, and its connection is ended.
    fn may_act(&self) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether a will on this topic says no more than that its client is gone. It is published even when a newer
    /// copy has the client's place.
    fn is_farewell(&self, _topic: &str) -> bool {
        false
    }

    /// The name with which its messages on a topic are stamped, in the user property
    /// [`SOURCE_PROPERTY`](alicia_contract::envelope::SOURCE_PROPERTY); what the client itself put there is taken
    /// away. None: they are passed on as they came.
    fn stamp(&self, _topic: &str) -> Option<&str> {
        None
    }

    /// Whether a message may be published; asked for wills too, at CONNECT and when they fire.
    ///
    /// # Errors
    /// The message is dropped.
    fn may_publish(&self, topic: &str, retain: bool) -> Result<(), Refusal>;

    /// Whether a filter may be subscribed. For shared subscriptions this is the inner filter.
    ///
    /// # Errors
    /// The subscription is not made.
    fn may_subscribe(&self, filter: &str) -> Result<(), Refusal>;

    /// Whether the payload is fit for the topic and names no other sender.
    ///
    /// # Errors
    /// The message is dropped.
    fn check_payload(&self, topic: &str, payload: &[u8]) -> Result<(), Refusal>;
}

/// Is told what happens; must not block.
pub trait Observer: Send + Sync + 'static {
    /// Something was refused. At most one report per client, attempt and reason a minute.
    fn refused(&self, refused: &Refused);
}
