//! One message on its way from the wire to the subscriptions. It is read once, by the first who wants it.

use std::sync::OnceLock;

use alicia_contract::UnixSeconds;
use alicia_contract::envelope::{DropReason, Received, SOURCE_PROPERTY};
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
}

impl Delivery {
    /// Takes a packet; `None` when its topic is not UTF-8, which no broker lets through.
    pub(crate) fn new(publish: Publish, at: UnixSeconds) -> Option<Self> {
        let topic = std::str::from_utf8(&publish.topic).ok()?.to_owned();
        let properties = publish.properties.unwrap_or_default();
        let source = properties
            .user_properties
            .into_iter()
            .find_map(|(name, value)| (name == SOURCE_PROPERTY).then_some(value));
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
        })
    }

    /// What the bytes say, and whether this is the first reading: a message that must be dropped is
    /// counted once, however many subscriptions hear it.
    pub(crate) fn read(&self) -> (Result<&Received, DropReason>, bool) {
        let mut is_first = false;
        let received = self.received.get_or_init(|| {
            is_first = true;
            Received::read(&self.raw.payload, self.at)
        });
        (received.as_ref().map_err(|reason| *reason), is_first)
    }

    /// Who sent it: the envelope's word, which the broker has checked, else the broker's.
    pub(crate) fn source(&self) -> Option<&str> {
        match self.received.get() {
            Some(Ok(Received {
                envelope: Some(envelope),
                ..
            })) => Some(&envelope.source),
            _ => self.raw.source.as_deref(),
        }
    }

    /// What it weighs in a queue.
    pub(crate) fn bytes(&self) -> usize {
        self.raw.topic.len() + self.raw.payload.len()
    }
}
