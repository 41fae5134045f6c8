//! Between the library's types and the rows.

use std::num::NonZeroU32;
use std::time::Duration;

use rmqtt::codec::types::{MQTT_LEVEL_5, Publish as CodecPublish, QoS};
use rmqtt::codec::v5::{PublishProperties, RetainHandling};
use rmqtt::types::{
    ClientId, From, Id, Publish, SubOptionsV3, SubOptionsV5, SubscriptionOptions, TopicName,
};

use super::rows::{StoredMessage, StoredOptions};

pub(super) fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

pub(super) fn stored(from: &From, publish: &Publish) -> StoredMessage {
    let mut message = StoredMessage {
        topic: publish.topic.to_string(),
        qos: publish.qos.value(),
        retain: publish.retain,
        sender: from.id.client_id.to_string(),
        created_ms: publish
            .create_time
            .unwrap_or_else(rmqtt::utils::timestamp_millis),
        ..StoredMessage::default()
    };
    if let Some(properties) = &publish.properties {
        message.expiry_s = properties.message_expiry_interval.map(NonZeroU32::get);
        message.content_type = properties.content_type.as_ref().map(ToString::to_string);
        message.response_topic = properties.response_topic.as_ref().map(ToString::to_string);
        message.correlation_data = properties
            .correlation_data
            .as_ref()
            .map(|data| data.to_vec());
        message.is_utf8 = properties.is_utf8_payload;
        message.user = properties
            .user_properties
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        message.subscription_ids = properties
            .subscription_ids
            .iter()
            .map(|id| id.get())
            .collect();
    }
    message
}

pub(super) fn restored(message: StoredMessage, payload: Vec<u8>) -> (From, Publish) {
    let properties = PublishProperties {
        topic_alias: None,
        correlation_data: message.correlation_data.map(Into::into),
        message_expiry_interval: message.expiry_s.and_then(NonZeroU32::new),
        content_type: message.content_type.map(Into::into),
        user_properties: message
            .user
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        is_utf8_payload: message.is_utf8,
        response_topic: message.response_topic.map(Into::into),
        subscription_ids: message
            .subscription_ids
            .into_iter()
            .filter_map(NonZeroU32::new)
            .collect(),
    };
    let publish = CodecPublish {
        dup: false,
        retain: message.retain,
        qos: qos(message.qos),
        topic: TopicName::from(message.topic),
        packet_id: None,
        payload: payload.into(),
        properties: Some(properties),
    };
    let sender = Id::from(0, ClientId::from(message.sender));
    (
        From::from_custom(sender),
        Publish::from(publish).create_time(message.created_ms),
    )
}

pub(super) fn stored_options(options: &SubscriptionOptions) -> StoredOptions {
    let share = options.shared_group().map(ToString::to_string);
    let qos = options.qos().value();
    match options {
        SubscriptionOptions::V3(_) => StoredOptions {
            protocol_level: 4,
            qos,
            share,
            ..StoredOptions::default()
        },
        SubscriptionOptions::V5(options) => StoredOptions {
            protocol_level: MQTT_LEVEL_5,
            qos,
            share,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: options.retain_handling_value(),
            id: options.id.map(NonZeroU32::get),
        },
    }
}

pub(super) fn restored_options(options: StoredOptions) -> SubscriptionOptions {
    let qos = qos(options.qos);
    let shared_group = options.share.map(Into::into);
    if options.protocol_level < MQTT_LEVEL_5 {
        return SubscriptionOptions::V3(SubOptionsV3 { qos, shared_group });
    }
    SubscriptionOptions::V5(SubOptionsV5 {
        qos,
        shared_group,
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        retain_handling: match options.retain_handling {
            1 => RetainHandling::AtSubscribeNew,
            2 => RetainHandling::NoAtSubscribe,
            _ => RetainHandling::AtSubscribe,
        },
        id: options.id.and_then(NonZeroU32::new),
    })
}

fn qos(value: u8) -> QoS {
    QoS::try_from(value).unwrap_or(QoS::AtMostOnce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was() {
        let message = StoredMessage {
            topic: "a/b".into(),
            qos: 2,
            retain: true,
            sender: "x".into(),
            created_ms: 5,
            expiry_s: Some(60),
            content_type: Some("text/plain".into()),
            response_topic: Some("c".into()),
            correlation_data: Some(vec![0, 255]),
            is_utf8: true,
            user: vec![("a".into(), "b".into()), ("a".into(), "c".into())],
            subscription_ids: vec![7],
        };
        let (from, publish) = restored(message.clone(), b"payload".to_vec());
        assert_eq!(&*publish.payload, b"payload");
        assert_eq!(stored(&from, &publish), message);
    }

    #[test]
    fn subscription_options_come_back_as_they_were() {
        let v5 = StoredOptions {
            protocol_level: 5,
            qos: 1,
            share: Some("g".into()),
            no_local: true,
            retain_as_published: true,
            retain_handling: 2,
            id: Some(9),
        };
        let v3 = StoredOptions {
            protocol_level: 4,
            qos: 2,
            ..StoredOptions::default()
        };
        for options in [v3, v5] {
            assert_eq!(stored_options(&restored_options(options.clone())), options);
        }
    }
}
