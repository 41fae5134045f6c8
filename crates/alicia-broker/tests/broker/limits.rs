//! Limits hold, and those who keep to them notice nothing of those who do not.

use std::time::Duration;

use alicia_broker::{Limits, Reason};
use rmqtt::codec::types::QoS;
use rmqtt::codec::v5::{ConnectAckReason, Packet, SubscribeAckReason};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::house::{House, PATIENCE, until};
use crate::wire::{hello, message};

#[tokio::test]
async fn a_thousand_sockets_that_say_nothing_block_nobody_and_are_cut_off() {
    let limits = Limits {
        connect_timeout: Duration::from_secs(2),
        ..Limits::default()
    };
    let house = House::with(limits).await;
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(TcpStream::connect(house.address()).await.unwrap());
    }
    let connecting = hello("x").connect(&house);
    let (mut client, _) = tokio::time::timeout(Duration::from_secs(1), connecting)
        .await
        .unwrap();
    assert_eq!(
        client
            .publish(message("open/a", "x", QoS::AtLeastOnce))
            .await,
        0
    );
    for socket in &mut silent {
        let mut byte = [0];
        let read = tokio::time::timeout(PATIENCE, socket.read(&mut byte))
            .await
            .unwrap();
        assert!(matches!(read, Ok(0) | Err(_)));
    }
    assert_eq!(house.refused(Reason::ConnectTimeout).await, 1_000);
}

#[tokio::test]
async fn connections_of_one_identity_are_limited() {
    let house = House::with(Limits {
        connections_per_identity_max: 2,
        ..Limits::default()
    })
    .await;
    let (_first, _) = hello("a").connect(&house).await;
    let (_second, _) = hello("b").connect(&house).await;
    let (_, ack) = hello("c").try_connect(house.address()).await;
    assert_eq!(ack.reason_code, ConnectAckReason::QuotaExceeded);
    let (_third, _) = hello("c").named("bob").connect(&house).await;
    assert_eq!(house.refused(Reason::TooManyPerIdentity).await, 1);
}

#[tokio::test]
async fn connections_are_limited_in_all() {
    let house = House::with(Limits {
        connections_max: 1,
        ..Limits::default()
    })
    .await;
    let (_first, _) = hello("a").connect(&house).await;
    let mut second = TcpStream::connect(house.address()).await.unwrap();
    assert!(matches!(second.read(&mut [0]).await, Ok(0) | Err(_)));
    assert_eq!(house.refused(Reason::TooManyConnections).await, 1);
}

#[tokio::test]
async fn sessions_are_limited() {
    let house = House::with(Limits {
        sessions_max: 2,
        ..Limits::default()
    })
    .await;
    for client_id in ["a", "b"] {
        let (client, _) = hello(client_id).lasting().connect(&house).await;
        client.disconnect().await;
    }
    let (_, ack) = hello("c").try_connect(house.address()).await;
    assert_eq!(ack.reason_code, ConnectAckReason::QuotaExceeded);
    let (_, present) = hello("a").lasting().connect(&house).await;
    assert!(present, "who has a session may come back");
}

#[tokio::test]
async fn a_packet_over_the_limit_ends_the_connection_with_its_reason() {
    let house = House::open().await;
    let (mut client, ack) = hello("x").try_connect(house.address()).await;
    assert_eq!(ack.max_packet_size, Some(1024 * 1024));
    let large = "x".repeat(1024 * 1024 + 1);
    client
        .send(Packet::Publish(Box::new(message(
            "open/a",
            &large,
            QoS::AtMostOnce,
        ))))
        .await;
    assert_eq!(client.ending().await, Some(0x95), "packet too large");
    drop(client);
    until("it is counted", async || {
        house.refused(Reason::PacketTooLarge).await == 1
    })
    .await;
    let (mut client, _) = hello("x").connect(&house).await;
    let fits = "x".repeat(1024 * 1024 - 100);
    assert_eq!(
        client
            .publish(message("open/a", &fits, QoS::AtLeastOnce))
            .await,
        0
    );
}

#[tokio::test]
async fn subscriptions_of_a_client_are_limited() {
    let house = House::with(Limits {
        subscriptions_per_client_max: 2,
        ..Limits::default()
    })
    .await;
    let (mut client, _) = hello("x").connect(&house).await;
    client.subscribe("open/a", QoS::AtMostOnce).await;
    client.subscribe("open/b", QoS::AtMostOnce).await;
    let answer = client.subscribe("open/c", QoS::AtMostOnce).await;
    assert_ne!(answer, SubscribeAckReason::GrantedQos0);
    assert_eq!(client.subscribe("open/c", QoS::AtMostOnce).await, answer);
    client.unsubscribe("open/a").await;
    assert_eq!(
        client.subscribe("open/c", QoS::AtMostOnce).await,
        SubscribeAckReason::GrantedQos0
    );
}

#[tokio::test]
async fn retained_messages_are_limited() {
    let house = House::with(Limits {
        retained_messages_max: 2,
        ..Limits::default()
    })
    .await;
    let (mut client, _) = hello("x").connect(&house).await;
    let mut retain = async |topic: &str, payload: &str| {
        let mut message = message(topic, payload, QoS::AtLeastOnce);
        message.retain = true;
        client.publish(message).await
    };
    assert_eq!(retain("open/a", "1").await, 0);
    assert_eq!(retain("open/b", "1").await, 0);
    assert_eq!(retain("open/c", "1").await, 0x97, "quota exceeded");
    assert_eq!(retain("open/a", "2").await, 0, "replacing is allowed");
    assert_eq!(retain("open/a", "").await, 0);
    assert_eq!(retain("open/c", "1").await, 0);
}

#[tokio::test]
async fn a_flood_is_slowed_down_and_not_lost() {
    let house = House::with(Limits {
        packet_rate_max: 200,
        ..Limits::default()
    })
    .await;
    let (mut subscriber, _) = hello("subscriber").connect(&house).await;
    subscriber.subscribe("open/a", QoS::AtMostOnce).await;
    let (mut flood, _) = hello("flood").connect(&house).await;
    let started = tokio::time::interval(Duration::from_secs(1)).tick().await;
    for _ in 0..500 {
        flood.publish(message("open/a", "x", QoS::AtMostOnce)).await;
    }
    subscriber.receive_texts(500).await;
    assert!(
        started.elapsed() > Duration::from_secs(1),
        "500 messages at 200 a second"
    );
    assert!(house.engine.stats().await.throttled > 0);
}

#[tokio::test]
async fn what_waits_for_an_absent_client_is_limited_by_bytes() {
    let house = House::with(Limits {
        queue_bytes_max: 100_000,
        ..Limits::default()
    })
    .await;
    let (mut client, _) = hello("x").lasting().connect(&house).await;
    client.subscribe("open/a", QoS::AtLeastOnce).await;
    client.disconnect().await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    let payload = "x".repeat(10_000);
    for _ in 0..30 {
        publisher
            .publish(message("open/a", &payload, QoS::AtLeastOnce))
            .await;
    }
    let (mut client, _) = hello("x").lasting().connect(&house).await;
    client.receive_texts(9).await;
    client.receives_nothing().await;
    assert_eq!(house.engine.stats().await.dropped_full, 21);
}

#[tokio::test]
async fn a_reader_that_never_reads_costs_little_and_is_cut_off() {
    /// What the process may grow by: the budget, buffers, and the allocator's slack.
    const GROWTH_BYTES_MAX: u64 = 64 * 1024 * 1024;
    const MESSAGES: usize = 3_200;
    const PAYLOAD_BYTES: usize = 64 * 1024;
    let limits = Limits {
        write_stall_max: Duration::from_secs(3),
        ..Limits::default()
    };
    let house = House::with(limits).await;
    let (mut stuck, _) = hello("stuck").connect(&house).await;
    stuck.subscribe("open/flood", QoS::AtMostOnce).await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    let payload = "x".repeat(PAYLOAD_BYTES);
    publisher
        .publish(message("open/none", &payload, QoS::AtMostOnce))
        .await;
    let before = peak_memory_bytes();
    for _ in 0..MESSAGES {
        publisher
            .publish(message("open/flood", &payload, QoS::AtMostOnce))
            .await;
    }
    assert_eq!(
        publisher
            .publish(message("open/none", "done", QoS::AtLeastOnce))
            .await,
        0
    );
    let grown = peak_memory_bytes() - before;
    println!(
        "published {} MB, peak memory grew by {} KB",
        (MESSAGES * PAYLOAD_BYTES) >> 20,
        grown >> 10
    );
    assert!(grown < GROWTH_BYTES_MAX, "grew by {grown} bytes");
    until("the stuck reader is cut off", async || {
        house.refused(Reason::StuckReader).await == 1
    })
    .await;
    drop(stuck);
}

/// `VmHWM` of this process; each test runs in one of its own.
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}
