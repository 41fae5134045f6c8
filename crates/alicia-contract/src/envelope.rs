//! The envelope: one JSON object around each message, and the reading of what arrives.
//!
//! A message that has `message_type` and `payload` is an envelope; any other JSON value is a *bare*
//! payload, which an authenticated client may send too. Reading never panics; what is refused is
//! refused with a [`DropReason`], which the receiver counts.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::object;
use crate::unit::UnixSeconds;

/// The largest message in bytes that is read: what does not fit belongs in a file or behind a URL.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The longest `message_id`, `correlation_id` and `source` in bytes. Receivers remember and repeat them: they are names,
/// not texts, and an MQTT property holds 64 KiB at most.
pub const ENVELOPE_ID_BYTES_MAX: usize = 1_024;

/// How many hops a message may take when the sender does not say.
pub const HOPS_MAX_DEFAULT: u32 = 10;

/// `destination` of a message to everybody.
pub const BROADCAST: &str = "broadcast";

/// The MQTT 5 user property in which the embedded broker names the authenticated sender.
pub const SOURCE_PROPERTY: &str = "alicia-source";

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MessageType {
    /// It happened.
    Event,
    /// Wants an answer.
    Request,
    /// The answer.
    Response,
    /// Wants something done.
    Command,
    /// The answer when it failed.
    Error,
}

/// How urgent a message is. Carried, not enforced: MQTT has one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// May wait.
    Low,
    /// As usual.
    #[default]
    Normal,
    /// Before the usual.
    High,
    /// At once.
    Critical,
}

/// How far a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Routing {
    /// Hops taken so far.
    #[serde(default)]
    pub hops: u32,
    /// Hops allowed; a message over it is dropped.
    #[serde(default = "hops_max_default")]
    pub max_hops: u32,
}

fn hops_max_default() -> u32 {
    HOPS_MAX_DEFAULT
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            hops: 0,
            max_hops: HOPS_MAX_DEFAULT,
        }
    }
}

/// One message on the bus. Unknown fields are ignored, so that fields can be added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Envelope {
    /// A UUID, new for each message. At most 1024 bytes, as `source` and `correlation_id`.
    pub message_id: String,
    /// When it was sent, in Unix seconds with a fraction.
    pub timestamp: UnixSeconds,
    /// Who sent it: a service name, or `system/<module>`, or `key/<name>`. The embedded broker refuses
    /// a message whose source is not the authenticated client.
    pub source: String,
    /// `broadcast`, or the service it is for.
    #[serde(default = "broadcast")]
    pub destination: String,
    /// What it is.
    pub message_type: MessageType,
    /// How urgent it is.
    #[serde(default)]
    pub priority: Priority,
    /// Seconds after `timestamp` at which it is void; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<f64>,
    /// The message itself.
    pub payload: Value,
    /// How far it has come.
    #[serde(default)]
    pub routing: Routing,
    /// Joins an answer, or everything that one request caused, to its origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The request that it belongs to, in the form of W3C Trace Context: `00-<trace>-<span>-<flags>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The topic that the answer goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Not used: a signature stands over the whole bytes of a message, and so beside it (the MQTT 5 user property
    /// `alicia-signature`) or around it; see `docs/security.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

fn broadcast() -> String {
    BROADCAST.to_owned()
}

impl Envelope {
    /// An envelope around a payload, to everybody, of normal priority and without end.
    #[must_use]
    pub fn new(
        message_id: String,
        timestamp: UnixSeconds,
        source: &str,
        message_type: MessageType,
        payload: Value,
    ) -> Self {
        Self {
            message_id,
            timestamp,
            source: source.to_owned(),
            destination: broadcast(),
            message_type,
            priority: Priority::Normal,
            ttl: None,
            payload,
            routing: Routing::default(),
            correlation_id: None,
            traceparent: None,
            reply_to: None,
            signature: None,
        }
    }

    fn has_short_ids(&self) -> bool {
        [&self.message_id, &self.source]
            .into_iter()
            .chain(&self.correlation_id)
            .all(|id| id.len() <= ENVELOPE_ID_BYTES_MAX)
    }
}

/// Why a message was not taken. Each is counted under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DropReason {
    /// Over [`MESSAGE_BYTES_MAX`].
    #[error("too-large")]
    TooLarge,
    /// Not JSON, or an envelope whose fields have the wrong types or are too long.
    #[error("not-an-envelope")]
    NotAnEnvelope,
    /// The payload does not fit the type of its topic.
    #[error("wrong-payload")]
    WrongPayload,
    /// `timestamp` + `ttl` is in the past.
    #[error("expired")]
    Expired,
    /// Took more hops than it may.
    #[error("too-many-hops")]
    TooManyHops,
    /// It must be signed, and is not.
    #[error("unsigned")]
    Unsigned,
    /// Its signature is not good.
    #[error("bad-signature")]
    BadSignature,
    /// Its signature was used before: a replay, or a second delivery.
    #[error("repeated-signature")]
    Repeated,
}

/// A message as it arrived: with an envelope or bare.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The envelope; `None` for a bare payload.
    pub envelope: Option<Envelope>,
    /// The payload, for a bare one the whole message.
    pub payload: Value,
}

impl Received {
    /// Reads the bytes of one message at the given time.
    ///
    /// # Errors
    /// The reason why it must be dropped.
    pub fn read(bytes: &[u8], now: UnixSeconds) -> Result<Self, DropReason> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(DropReason::TooLarge);
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|_| DropReason::NotAnEnvelope)?;
        if !is_envelope(&value) {
            return Ok(Self {
                envelope: None,
                payload: value,
            });
        }
        let mut envelope: Envelope =
            serde_json::from_value(value).map_err(|_| DropReason::NotAnEnvelope)?;
        if !envelope.has_short_ids() {
            return Err(DropReason::NotAnEnvelope);
        }
        // An absurd ttl (NaN cannot be written in JSON) makes the sum infinite, which is never past.
        if envelope
            .ttl
            .is_some_and(|ttl| envelope.timestamp + ttl < now)
        {
            return Err(DropReason::Expired);
        }
        if envelope.routing.hops > envelope.routing.max_hops {
            return Err(DropReason::TooManyHops);
        }
        let payload = envelope.payload.take();
        Ok(Self {
            envelope: Some(envelope),
            payload,
        })
    }

    /// The payload as the type of its topic.
    ///
    /// # Errors
    /// [`DropReason::WrongPayload`] when it does not fit.
    pub fn payload<T: DeserializeOwned>(self) -> Result<T, DropReason> {
        object::read(&self.payload).map_err(|_| DropReason::WrongPayload)
    }
}

/// An object with both `message_type` and `payload` says that it is an envelope.
fn is_envelope(value: &Value) -> bool {
    value.get("message_type").is_some() && value.get("payload").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn envelope() -> Value {
        json!({
            "message_id": "0190", "timestamp": 1_000.5, "source": "api", "message_type": "event",
            "payload": {"x": 1}
        })
    }

    fn with(field: &str, value: Value) -> Vec<u8> {
        let mut message = envelope();
        message[field] = value;
        message.to_string().into_bytes()
    }

    #[test]
    fn the_shortest_envelope_is_read_with_defaults() {
        let received = Received::read(envelope().to_string().as_bytes(), 1_000.5).expect("reads");
        let head = received.envelope.expect("is an envelope");
        assert_eq!(head.destination, BROADCAST);
        assert_eq!(
            head.routing,
            Routing {
                hops: 0,
                max_hops: HOPS_MAX_DEFAULT
            }
        );
        assert_eq!(received.payload, json!({"x": 1}));
    }

    #[test]
    fn a_bare_payload_is_taken_as_it_is() {
        for bare in [json!({"x": 1}), json!({"payload": 1}), json!(3), json!([1])] {
            let received = Received::read(bare.to_string().as_bytes(), 0.0).expect("reads");
            assert_eq!(
                received,
                Received {
                    envelope: None,
                    payload: bare
                }
            );
        }
    }

    #[test]
    fn what_must_be_dropped_is_dropped_with_its_reason() {
        let check = |bytes: &[u8], reason: DropReason| {
            assert_eq!(Received::read(bytes, 2_000.0), Err(reason));
        };
        check(b"", DropReason::NotAnEnvelope);
        check(b"\xff\xfe", DropReason::NotAnEnvelope);
        check(&with("timestamp", json!("soon")), DropReason::NotAnEnvelope);
        check(
            &with("priority", json!("urgent")),
            DropReason::NotAnEnvelope,
        );
        let long = json!("x".repeat(ENVELOPE_ID_BYTES_MAX + 1));
        for field in ["message_id", "source", "correlation_id"] {
            check(&with(field, long.clone()), DropReason::NotAnEnvelope);
        }
        check(&with("ttl", json!(10)), DropReason::Expired);
        check(
            &with("routing", json!({"hops": 11, "max_hops": 10})),
            DropReason::TooManyHops,
        );
        check(&vec![b' '; MESSAGE_BYTES_MAX + 1], DropReason::TooLarge);
        check(&vec![b'['; 100_000], DropReason::NotAnEnvelope);
    }

    #[test]
    fn a_payload_that_is_a_list_is_no_struct() {
        let received = Received::read(b"[]", 0.0).expect("reads");
        let read = received.payload::<crate::orchestrator::FleetRequest>();
        assert_eq!(read, Err(DropReason::WrongPayload));
    }

    #[test]
    fn a_newer_sender_may_add_fields() {
        assert!(Received::read(&with("trace", json!("t")), 0.0).is_ok());
    }
}
