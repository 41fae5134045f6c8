//! Messages arrive as they were sent, as often as their quality of service says.

use std::num::{NonZeroU16, NonZeroU32};

use rmqtt::codec::types::QoS;
use rmqtt::codec::v5::{Packet, PublishAck, PublishProperties, RetainHandling};

use crate::house::House;
use crate::wire::{hello, message, options, text};

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

#[tokio::test]
async fn each_quality_of_service_delivers_at_the_lower_of_both_sides() {
    let house = House::open().await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    for subscribed in ALL_QOS {
        let (mut subscriber, _) = hello("subscriber").connect(&house).await;
        subscriber.subscribe("open/a", subscribed).await;
        for published in ALL_QOS {
            assert_eq!(
                publisher.publish(message("open/a", "x", published)).await,
                0
            );
            let received = subscriber.receive().await;
            assert_eq!((text(&received), received.dup), ("x", false));
            assert_eq!(
                received.qos.value(),
                subscribed.value().min(published.value())
            );
        }
        subscriber.receives_nothing().await;
    }
}

#[tokio::test]
async fn messages_of_one_publisher_stay_in_order() {
    let house = House::open().await;
    let (mut subscriber, _) = hello("subscriber").connect(&house).await;
    subscriber.subscribe("open/#", QoS::AtLeastOnce).await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    let sent: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    for number in &sent {
        publisher
            .publish(message("open/a", number, QoS::AtLeastOnce))
            .await;
    }
    assert_eq!(subscriber.receive_texts(sent.len()).await, sent);
}

#[tokio::test]
async fn properties_of_a_message_arrive_unchanged() {
    let house = House::open().await;
    let (mut client, _) = hello("x").connect(&house).await;
    client.subscribe("open/a", QoS::AtMostOnce).await;
    let properties = PublishProperties {
        correlation_data: Some(vec![0, 1, 255].into()),
        content_type: Some("application/json".into()),
        response_topic: Some("open/answers".into()),
        is_utf8_payload: true,
        message_expiry_interval: NonZeroU32::new(60),
        user_properties: vec![
            ("b".into(), "1".into()),
            ("a".into(), "2".into()),
            ("b".into(), "3".into()),
        ],
        ..PublishProperties::default()
    };
    let mut sent = message("open/a", "{}", QoS::AtMostOnce);
    sent.properties = Some(properties.clone());
    client.publish(sent).await;
    let received = client.receive().await.properties.unwrap();
    let left = received.message_expiry_interval.map(NonZeroU32::get);
    assert!(
        left.is_some_and(|left| (55..=60).contains(&left)),
        "{left:?}"
    );
    assert_eq!(
        PublishProperties {
            message_expiry_interval: None,
            ..received
        },
        PublishProperties {
            message_expiry_interval: None,
            ..properties
        }
    );
}

#[tokio::test]
async fn a_retained_message_is_replaced_expires_and_is_deleted() {
    let house = House::open().await;
    let (mut client, _) = hello("x").connect(&house).await;
    let retained = |payload: &str| {
        let mut message = message("open/state", payload, QoS::AtLeastOnce);
        message.retain = true;
        message
    };
    client.publish(retained("1")).await;
    client.publish(retained("2")).await;
    client.subscribe("open/+", QoS::AtLeastOnce).await;
    let received = client.receive().await;
    assert_eq!((text(&received), received.retain), ("2", true));
    client.publish(retained("3")).await;
    let live = client.receive().await;
    assert_eq!(
        (text(&live), live.retain),
        ("3", false),
        "the flag is for late comers"
    );
    client.publish(retained("")).await;
    assert_eq!(text(&client.receive().await), "");
    client.unsubscribe("open/+").await;
    client.subscribe("open/+", QoS::AtLeastOnce).await;
    client.receives_nothing().await;

    let mut brief = retained("4");
    brief.properties.as_mut().unwrap().message_expiry_interval = NonZeroU32::new(1);
    client.publish(brief).await;
    assert_eq!(text(&client.receive().await), "4");
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    client.subscribe("open/+", QoS::AtLeastOnce).await;
    client.receives_nothing().await;
}

#[tokio::test]
async fn retain_handling_and_retain_as_published_are_respected() {
    let house = House::open().await;
    let (mut client, _) = hello("x").connect(&house).await;
    let mut retained = message("open/state", "1", QoS::AtMostOnce);
    retained.retain = true;
    client.publish(retained.clone()).await;
    let handling = |retain_handling| {
        let mut options = options(QoS::AtMostOnce);
        options.retain_handling = retain_handling;
        options.retain_as_published = true;
        options
    };
    client
        .subscribe_with("open/state", handling(RetainHandling::NoAtSubscribe), None)
        .await;
    client.receives_nothing().await;
    client
        .subscribe_with("open/state", handling(RetainHandling::AtSubscribeNew), None)
        .await;
    client.receives_nothing().await;
    client.unsubscribe("open/state").await;
    client
        .subscribe_with("open/state", handling(RetainHandling::AtSubscribeNew), None)
        .await;
    assert_eq!(text(&client.receive().await), "1");
    client.publish(retained).await;
    assert!(
        client.receive().await.retain,
        "published with the flag, delivered with it"
    );
}

#[tokio::test]
async fn topic_aliases_work_in_both_directions() {
    let house = House::open().await;
    let (mut publisher, ack) = hello("publisher").try_connect(house.address()).await;
    assert!(ack.topic_alias_max >= 2, "{}", ack.topic_alias_max);
    let asks = hello("subscriber").with(|connect| connect.topic_alias_max = 5);
    let (mut subscriber, _) = asks.connect(&house).await;
    subscriber.subscribe("open/#", QoS::AtMostOnce).await;
    for topic in ["open/long/topic", "", ""] {
        let mut aliased = message(topic, "x", QoS::AtMostOnce);
        aliased.properties.as_mut().unwrap().topic_alias = NonZeroU16::new(1);
        publisher.publish(aliased).await;
    }
    let first = subscriber.receive().await;
    let alias = first.properties.unwrap().topic_alias;
    assert_eq!((&*first.topic, alias.is_some()), ("open/long/topic", true));
    for _ in 0..2 {
        let next = subscriber.receive().await;
        assert_eq!(
            (&*next.topic, next.properties.unwrap().topic_alias),
            ("", alias)
        );
    }
}

#[tokio::test]
async fn an_unknown_topic_alias_ends_the_connection() {
    let house = House::open().await;
    let (mut client, _) = hello("x").connect(&house).await;
    let mut aliased = message("", "x", QoS::AtMostOnce);
    aliased.properties.as_mut().unwrap().topic_alias = NonZeroU16::new(3);
    client.publish(aliased).await;
    assert!(client.ending().await.is_some_and(|reason| reason >= 0x80));
}

#[tokio::test]
async fn a_receiver_gets_no_more_unacknowledged_messages_than_it_asked_for() {
    let house = House::open().await;
    let asks = hello("slow").with(|connect| connect.receive_max = NonZeroU16::new(2));
    let (mut slow, _) = asks.connect(&house).await;
    slow.subscribe("open/a", QoS::AtLeastOnce).await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    for number in 0..5 {
        publisher
            .publish(message("open/a", &number.to_string(), QoS::AtLeastOnce))
            .await;
    }
    let first = slow.receive_unacknowledged().await;
    let second = slow.receive_unacknowledged().await;
    slow.receives_nothing().await;
    slow.acknowledge(&first).await;
    let third = slow.receive_unacknowledged().await;
    assert_eq!((text(&second), text(&third)), ("1", "2"));
    slow.receives_nothing().await;
}

#[tokio::test]
async fn a_sender_is_told_how_much_it_may_have_under_way_and_held_to_it() {
    let house = House::open().await;
    let asks = hello("modest").with(|connect| connect.receive_max = NonZeroU16::new(10));
    let (_, ack) = asks.try_connect(house.address()).await;
    assert_eq!(ack.receive_max.get(), 10);
    let (mut sender, ack) = hello("sender").try_connect(house.address()).await;
    let most = ack.receive_max.get();
    assert_eq!(most, 64);
    // None of them is released: all stay under way.
    for number in 1..=most + 1 {
        let mut publish = message("open/a", "x", QoS::ExactlyOnce);
        publish.packet_id = NonZeroU16::new(number);
        sender.send(Packet::Publish(Box::new(publish))).await;
    }
    for number in 1..=most {
        match sender.next().await {
            Some(Packet::PublishReceived(ack)) => assert_eq!(ack.packet_id.get(), number),
            other => panic!("expected PUBREC {number}, got {other:?}"),
        }
    }
    let receive_maximum_exceeded = 0x93;
    assert_eq!(sender.ending().await, Some(receive_maximum_exceeded));
}

#[tokio::test]
async fn a_message_too_large_for_its_receiver_is_dropped_and_the_receiver_stays() {
    let house = House::open().await;
    let asks = hello("small").with(|connect| connect.max_packet_size = NonZeroU32::new(200));
    let (mut small, _) = asks.connect(&house).await;
    small.subscribe("open/#", QoS::AtLeastOnce).await;
    let (mut large, _) = hello("large").connect(&house).await;
    large.subscribe("open/#", QoS::AtLeastOnce).await;
    for (payload, qos) in [
        (500, QoS::AtMostOnce),
        (500, QoS::AtLeastOnce),
        (10, QoS::AtLeastOnce),
    ] {
        large
            .send(Packet::Publish(Box::new({
                let mut message = message("open/a", &"x".repeat(payload), qos);
                message.packet_id = (qos == QoS::AtLeastOnce).then(|| NonZeroU16::new(9).unwrap());
                message
            })))
            .await;
        let mut sizes = Vec::new();
        loop {
            match large.next().await {
                Some(Packet::Publish(publish)) => {
                    sizes.push(publish.payload.len());
                    large.acknowledge(&publish).await;
                }
                Some(Packet::PublishAck(_)) => {}
                other => panic!("{other:?}"),
            }
            if sizes == [payload] {
                break;
            }
        }
    }
    assert_eq!(small.receive().await.payload.len(), 10);
    assert_eq!(house.engine.stats().await.dropped_oversized, 2);
}

#[tokio::test]
async fn a_qos_2_message_sent_twice_under_one_packet_id_is_delivered_once() {
    let house = House::open().await;
    let (mut subscriber, _) = hello("subscriber").connect(&house).await;
    subscriber.subscribe("open/a", QoS::ExactlyOnce).await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    let mut twice = message("open/a", "once", QoS::ExactlyOnce);
    twice.packet_id = NonZeroU16::new(7);
    for dup in [false, true] {
        twice.dup = dup;
        publisher
            .send(Packet::Publish(Box::new(twice.clone())))
            .await;
        match publisher.next().await {
            Some(Packet::PublishReceived(PublishAck { packet_id, .. })) => {
                assert_eq!(packet_id.get(), 7);
            }
            other => panic!("expected PUBREC, got {other:?}"),
        }
    }
    assert_eq!(text(&subscriber.receive().await), "once");
    subscriber.receives_nothing().await;
}
