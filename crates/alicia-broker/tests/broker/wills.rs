//! The last message of a client: when it is sent, and when not.

use std::time::Duration;

use rmqtt::codec::types::QoS;
use rmqtt::codec::v5::{ConnectAckReason, Disconnect, DisconnectReasonCode, Packet};

use crate::house::House;
use crate::wire::{hello, text};

#[tokio::test]
async fn a_will_is_sent_when_the_connection_breaks() {
    let house = House::open().await;
    let (mut watcher, _) = hello("watcher").connect(&house).await;
    watcher.subscribe("open/gone", QoS::AtLeastOnce).await;
    let (client, _) = hello("x").will("open/gone", "x", 0).connect(&house).await;
    drop(client);
    assert_eq!(text(&watcher.receive().await), "x");
}

#[tokio::test]
async fn a_will_is_not_sent_after_a_goodbye_unless_asked_for() {
    let house = House::open().await;
    let (mut watcher, _) = hello("watcher").connect(&house).await;
    watcher.subscribe("open/gone", QoS::AtLeastOnce).await;
    let (client, _) = hello("x")
        .will("open/gone", "never", 0)
        .connect(&house)
        .await;
    client.disconnect().await;
    watcher.receives_nothing().await;
    let (mut client, _) = hello("x")
        .will("open/gone", "asked for", 0)
        .connect(&house)
        .await;
    let with_will = Disconnect {
        reason_code: DisconnectReasonCode::DisconnectWithWillMessage,
        ..Disconnect::default()
    };
    client.send(Packet::Disconnect(with_will)).await;
    assert_eq!(text(&watcher.receive().await), "asked for");
}

#[tokio::test]
async fn a_will_is_sent_when_the_client_falls_silent() {
    let house = House::open().await;
    let (mut watcher, _) = hello("watcher").connect(&house).await;
    watcher.subscribe("open/gone", QoS::AtLeastOnce).await;
    let silent = hello("x")
        .will("open/gone", "silent", 0)
        .with(|connect| connect.keep_alive = 1);
    let (mut client, _) = silent.connect(&house).await;
    assert_eq!(text(&watcher.receive().await), "silent");
    assert_eq!(client.ending().await, Some(0x8D), "keep alive timeout");
}

#[tokio::test]
async fn a_delayed_will_is_not_sent_when_the_client_comes_back() {
    let house = House::open().await;
    let (mut watcher, _) = hello("watcher").connect(&house).await;
    watcher.subscribe("open/gone", QoS::AtLeastOnce).await;
    let delayed = hello("x").lasting().will("open/gone", "late", 1);
    let (client, _) = delayed.clone().connect(&house).await;
    drop(client);
    watcher.receives_nothing().await;
    let (back, present) = delayed.clone().connect(&house).await;
    assert!(present);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    watcher.receives_nothing().await;
    drop(back);
    assert_eq!(text(&watcher.receive().await), "late");
}

#[tokio::test]
async fn a_will_to_a_forbidden_topic_is_refused_at_connect() {
    let house = House::open().await;
    let (mut watcher, _) = hello("watcher").named("admin").connect(&house).await;
    watcher.subscribe("bob/gone", QoS::AtLeastOnce).await;
    let (client, ack) = hello("x")
        .will("bob/gone", "leak", 0)
        .try_connect(house.address())
        .await;
    assert_eq!(ack.reason_code, ConnectAckReason::NotAuthorized);
    drop(client);
    watcher.receives_nothing().await;
    let (_, ack) = hello("x")
        .will("open/+", "leak", 0)
        .try_connect(house.address())
        .await;
    assert_eq!(ack.reason_code, ConnectAckReason::NotAuthorized);
    let forged = hello("x").will("open/gone", r#"{"source":"bob"}"#, 0);
    let (_, ack) = forged.try_connect(house.address()).await;
    assert_eq!(ack.reason_code, ConnectAckReason::NotAuthorized);
}
