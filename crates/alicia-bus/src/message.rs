//! What a subscription hears.

use alicia_contract::Envelope;
use bytes::Bytes;

/// How hard the broker tries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Qos {
    /// QoS 0: at most once, without acknowledgement.
    AtMostOnce,
    /// QoS 1: at least once, acknowledged. Everything typed uses it.
    #[default]
    AtLeastOnce,
}

/// One thing that a typed subscription hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming<T> {
    /// A message.
    Message(Message<T>),
    /// A retained state was cleared: an empty message on a state topic.
    Cleared {
        /// The whole topic.
        topic: String,
        /// The values of the varying levels of the topic.
        values: Vec<String>,
    },
    /// That many messages were dropped, the oldest first, because this subscription was not read fast
    /// enough. It goes on; reconcile.
    Lagged(u64),
    /// The connection broke and the subscription has been made anew: something may have been missed.
    /// Retained states are delivered again after it. Reconcile.
    Reconnected,
}

/// A typed message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<T> {
    /// The message itself.
    pub payload: T,
    /// Who sent it: the envelope's source, or for a bare payload what the broker says of the client.
    pub source: Option<String>,
    /// The whole topic.
    pub topic: String,
    /// The values of the varying levels of the topic, in order.
    pub values: Vec<String>,
    /// The envelope (its payload taken out); none around a bare payload.
    pub envelope: Option<Box<Envelope>>,
    /// Whether it was retained from before the subscription.
    pub retained: bool,
}

/// One thing that a raw subscription hears; see [`Incoming`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawIncoming {
    /// A message.
    Message(RawMessage),
    /// As [`Incoming::Lagged`].
    Lagged(u64),
    /// As [`Incoming::Reconnected`].
    Reconnected,
}

/// A message as the broker delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    /// The whole topic.
    pub topic: String,
    /// The bytes.
    pub payload: Bytes,
    /// Whether it was retained from before the subscription.
    pub retained: bool,
    /// How hard the broker tried.
    pub qos: Qos,
    /// What the broker says of the sender.
    pub source: Option<String>,
    /// The MQTT 5 response topic.
    pub response_topic: Option<String>,
    /// The MQTT 5 correlation data.
    pub correlation: Option<Bytes>,
}
