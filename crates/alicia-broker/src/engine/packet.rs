//! The size of a PUBLISH on the wire, without encoding it (MQTT 5, 3.3).

use rmqtt::codec::types::QoS;
use rmqtt::codec::v5::PublishProperties;
use rmqtt::types::Publish;

/// Topic alias: one byte of name and two of value.
const TOPIC_ALIAS_BYTES: usize = 3;

/// Topic, properties and payload: what a message holds in memory, near enough.
pub(crate) fn body_bytes(publish: &Publish) -> usize {
    let properties = publish.properties.as_ref().map_or(0, properties_bytes);
    publish.topic.len() + properties + publish.payload.len()
}

/// The whole packet as an MQTT 5 client receives it, with room for a topic alias.
pub(crate) fn packet_bytes_v5(publish: &Publish) -> usize {
    let properties = publish.properties.as_ref().map_or(0, properties_bytes) + TOPIC_ALIAS_BYTES;
    let packet_id = if publish.qos == QoS::AtMostOnce { 0 } else { 2 };
    let body = 2
        + publish.topic.len()
        + packet_id
        + length_bytes(properties)
        + properties
        + publish.payload.len();
    1 + length_bytes(body) + body
}

fn properties_bytes(properties: &PublishProperties) -> usize {
    let text = |length: Option<usize>| length.map_or(0, |length| 3 + length);
    let user: usize = properties
        .user_properties
        .iter()
        .map(|(name, value)| 5 + name.len() + value.len())
        .sum();
    let subscriptions: usize = properties
        .subscription_ids
        .iter()
        .map(|id| 1 + length_bytes(id.get() as usize))
        .sum();
    text(properties.correlation_data.as_ref().map(|data| data.len()))
        + text(properties.content_type.as_ref().map(|name| name.len()))
        + text(properties.response_topic.as_ref().map(|topic| topic.len()))
        + properties.message_expiry_interval.map_or(0, |_| 5)
        + if properties.is_utf8_payload { 2 } else { 0 }
        + user
        + subscriptions
}

/// Bytes that a variable byte integer takes (MQTT 5, 1.5.5).
fn length_bytes(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use rmqtt::codec::types::Publish as Inner;
    use rmqtt::codec::v5::{Codec, Packet};
    use tokio_util::codec::Encoder;

    use super::*;

    #[test]
    fn the_size_is_what_the_codec_writes() {
        let properties = PublishProperties {
            topic_alias: 3.try_into().ok(),
            correlation_data: Some("abc".into()),
            message_expiry_interval: 60.try_into().ok(),
            content_type: Some("text/plain".into()),
            user_properties: vec![("name".into(), "value".into())],
            is_utf8_payload: true,
            response_topic: Some("answers/here".into()),
            subscription_ids: vec![200.try_into().unwrap()],
        };
        for (qos, payload) in [
            (QoS::AtMostOnce, 0),
            (QoS::AtLeastOnce, 100),
            (QoS::ExactlyOnce, 20_000),
        ] {
            let inner = Inner {
                dup: false,
                retain: true,
                qos,
                topic: "some/topic".into(),
                packet_id: (qos != QoS::AtMostOnce).then(|| 7.try_into().unwrap()),
                payload: vec![1; payload].into(),
                properties: Some(properties.clone()),
            };
            let mut wire = BytesMut::new();
            let packet = Packet::Publish(Box::new(inner.clone()));
            Codec::new(0, 0).encode(packet, &mut wire).unwrap();
            assert_eq!(packet_bytes_v5(&inner.into()), wire.len());
        }
    }
}
