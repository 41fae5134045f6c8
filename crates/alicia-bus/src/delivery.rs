//! One message on its way from the wire to the subscriptions. It is read once, by the first who wants it.

use std::sync::OnceLock;

use alicia_contract::UnixSeconds;
use alicia_contract::envelope::{DropReason, Received, SOURCE_PROPERTY};
use alicia_contract::identity::SIGNATURE_PROPERTY;
use alicia_signature::message::detach;
use alicia_signature::{Fault, Signed, Verified};
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Publish;

use crate::message::{Qos, RawMessage};

/// A message as it arrived.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) raw: RawMessage,
    at: UnixSeconds,
    received: OnceLock<Result<Received, DropReason>>,
    /// The detached signatures beside the payload: one at most is meant.
    signatures: Vec<String>,
    /// The payload and its signature out of an attached one; `None` when it is not one.
    attached: OnceLock<Option<(Vec<u8>, String)>>,
    verified: OnceLock<Option<Result<Verified, Fault>>>,
}

impl Delivery {
    /// Takes a packet; `None` when its topic is not UTF-8, which no broker lets through.
    pub(crate) fn new(publish: Publish, at: UnixSeconds) -> Option<Self> {
        let topic = std::str::from_utf8(&publish.topic).ok()?.to_owned();
        let properties = publish.properties.unwrap_or_default();
        let (mut source, mut signatures) = (None, Vec::new());
        for (name, value) in properties.user_properties {
            match name.as_str() {
                SOURCE_PROPERTY if source.is_none() => source = Some(value),
                SIGNATURE_PROPERTY => signatures.push(value),
                _ => {}
            }
        }
        let raw = RawMessage {
            topic,
            // A copy: the packet is a slice of the read buffer, which it would keep alive as a whole.
            payload: Bytes::copy_from_slice(&publish.payload),
            retained: publish.retain,
            qos: match publish.qos {
                QoS::AtMostOnce => Qos::AtMostOnce,
                QoS::AtLeastOnce | QoS::ExactlyOnce => Qos::AtLeastOnce,
            },
            source,
            response_topic: properties.response_topic,
            correlation: properties
                .correlation_data
                .map(|data| Bytes::copy_from_slice(&data)),
        };
        Some(Self {
            raw,
            at,
            received: OnceLock::new(),
            signatures,
            attached: OnceLock::new(),
            verified: OnceLock::new(),
        })
    }

    /// What the bytes say, and whether this is the first reading: a message that must be dropped is
    /// counted once, however many subscriptions hear it.
    pub(crate) fn read(&self) -> (Result<&Received, DropReason>, bool) {
        let mut is_first = false;
        let received = self.received.get_or_init(|| {
            is_first = true;
            Received::read(self.content(), self.at)
        });
        (received.as_ref().map_err(|reason| *reason), is_first)
    }

    /// The message itself, out of its attached signature where it has one.
    fn content(&self) -> &[u8] {
        match self.attached.get_or_init(|| detach(&self.raw.payload)) {
            Some((content, _)) => content,
            None => &self.raw.payload,
        }
    }

    /// What a check says of the signature; `None` when there is none. It is asked once, and remembered.
    pub(crate) fn verified(
        &self,
        check: impl FnOnce(Signed<'_>, &str) -> Result<Verified, Fault>,
    ) -> Option<&Result<Verified, Fault>> {
        let verify = || {
            let payload = self.content();
            let attached = self.attached.get().and_then(Option::as_ref);
            let mut signatures = attached
                .map(|(_, signature)| signature)
                .into_iter()
                .chain(&self.signatures);
            let signature = signatures.next()?;
            if signatures.next().is_some() {
                return Some(Err(Fault::Malformed));
            }
            let topic = &self.raw.topic;
            Some(check(Signed { topic, payload }, signature))
        };
        self.verified.get_or_init(verify).as_ref()
    }

    /// The source that the envelope names, if there is one.
    pub(crate) fn claimed_source(&self) -> Option<&str> {
        let (received, _) = self.read();
        let envelope = received.ok()?.envelope.as_ref()?;
        Some(&envelope.source)
    }

    /// Who sent it: the envelope's word, which the broker has checked, else the broker's.
    pub(crate) fn source(&self) -> Option<&str> {
        match self.received.get() {
            Some(Ok(Received {
                envelope: Some(envelope),
                ..
            })) => Some(&envelope.source),
            _ => match self.verified.get() {
                Some(Some(Ok(verified))) => Some(&verified.source),
                _ => self.raw.source.as_deref(),
            },
        }
    }

    /// What it weighs in a queue.
    pub(crate) fn bytes(&self) -> usize {
        self.raw.topic.len() + self.raw.payload.len()
    }
}
