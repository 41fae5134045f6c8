//! Nothing is allowed that was not granted, and what is refused is counted and reported.

use alicia_broker::{Attempt, Reason};
use rmqtt::codec::types::QoS;
use rmqtt::codec::v5::{ConnectAckReason, SubscribeAckReason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::house::House;
use crate::wire::{hello, message, text};

const NOT_AUTHORIZED: u8 = 0x87;

#[tokio::test]
async fn a_wrong_or_missing_password_is_refused_in_both_protocols() {
    let house = House::open().await;
    let wrong = hello("x").with(|connect| connect.password = Some("guess".into()));
    let missing = hello("x").with(|connect| (connect.username, connect.password) = (None, None));
    for hello in [wrong, missing] {
        let (_, ack) = hello.try_connect(house.address()).await;
        assert_eq!(ack.reason_code, ConnectAckReason::BadUserNameOrPassword);
    }
    let mut old = TcpStream::connect(house.address()).await.unwrap();
    old.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x")
        .await
        .unwrap();
    let mut answer = Vec::new();
    old.read_to_end(&mut answer).await.unwrap();
    assert_eq!(
        answer,
        [0x20, 2, 0, 4],
        "MQTT 3.1.1: bad user name or password"
    );
    assert_eq!(house.refused(Reason::BadCredentials).await, 3);
}

#[tokio::test]
async fn publishing_needs_a_permission() {
    let house = House::open().await;
    let (mut watcher, _) = hello("watcher").named("admin").connect(&house).await;
    watcher.subscribe("#", QoS::ExactlyOnce).await;
    let (mut ann, _) = hello("x").connect(&house).await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let expected = if qos == QoS::AtMostOnce {
            0
        } else {
            NOT_AUTHORIZED
        };
        assert_eq!(ann.publish(message("bob/in", "x", qos)).await, expected);
        let mut retained = message("bob/state", "x", qos);
        retained.retain = true;
        assert_eq!(ann.publish(retained).await, expected);
    }
    assert_eq!(
        ann.publish(message("ann/out", "allowed", QoS::AtLeastOnce))
            .await,
        0
    );
    assert_eq!(text(&watcher.receive().await), "allowed");
    assert_eq!(house.engine.stats().await.retained_messages, 0);
    assert_eq!(house.refused(Reason::NotAuthorized).await, 6);
}

#[tokio::test]
async fn subscribing_needs_a_permission_also_for_shared_subscriptions() {
    let house = House::open().await;
    let (mut ann, _) = hello("x").connect(&house).await;
    for filter in [
        "#",
        "+/in",
        "bob/#",
        "$share/group/bob/in",
        "$share/open/#",
        "$SYS/#",
    ] {
        let answer = ann.subscribe(filter, QoS::AtLeastOnce).await;
        assert_eq!(answer, SubscribeAckReason::NotAuthorized, "{filter}");
    }
    let answer = ann.subscribe("$share/group/ann/in", QoS::AtLeastOnce).await;
    assert_eq!(answer, SubscribeAckReason::GrantedQos1);
    let (mut bob, _) = hello("y").named("bob").connect(&house).await;
    bob.publish(message("bob/in", "private", QoS::AtLeastOnce))
        .await;
    ann.receives_nothing().await;
}

#[tokio::test]
async fn nobody_speaks_for_another() {
    let house = House::open().await;
    let (mut ann, _) = hello("x").connect(&house).await;
    ann.subscribe("open/a", QoS::AtLeastOnce).await;
    let forged = message(
        "open/a",
        r#"{"source":"bob","payload":{}}"#,
        QoS::AtLeastOnce,
    );
    assert_eq!(ann.publish(forged).await, NOT_AUTHORIZED);
    ann.receives_nothing().await;
    let reports = house.reports();
    assert_eq!(reports.len(), 1);
    let report = &reports[0];
    assert_eq!(
        (report.attempt, report.refusal.reason),
        (Attempt::Publish, Reason::ForgedSource)
    );
    assert_eq!(
        (report.identity.as_deref(), report.topic.as_deref()),
        (Some("ann"), Some("open/a"))
    );
}

#[tokio::test]
async fn a_client_that_insists_is_counted_and_reported_once() {
    let house = House::open().await;
    let (mut ann, _) = hello("x").connect(&house).await;
    for _ in 0..50 {
        ann.publish(message("bob/in", "x", QoS::AtLeastOnce)).await;
    }
    assert_eq!(house.refused(Reason::NotAuthorized).await, 50);
    assert_eq!(house.reports().len(), 1);
}

#[tokio::test]
async fn topics_of_the_broker_and_malformed_topics_cannot_be_published_to() {
    let house = House::open().await;
    let (mut admin, _) = hello("x").named("admin").connect(&house).await;
    let deep = "a/".repeat(40);
    let long = "x".repeat(2_000);
    for topic in ["$SYS/broker/uptime", &deep, &long] {
        assert_eq!(
            admin.publish(message(topic, "x", QoS::AtLeastOnce)).await,
            0x90,
            "{topic}"
        );
    }
    assert_eq!(house.refused(Reason::BadTopic).await, 3);
}
