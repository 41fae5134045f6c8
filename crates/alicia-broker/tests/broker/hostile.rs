//! Bytes that are no MQTT, or nearly: nobody else notices, nothing panics, nothing is kept.

use std::num::NonZeroU16;

use alicia_broker::Reason;
use rmqtt::codec::types::QoS;
use rmqtt::codec::v5::Packet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::house::{House, until};
use crate::wire::{hello, message};

/// A small generator with a fixed seed: the same bytes in each run.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut byte = || {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            self.0.to_be_bytes()[0]
        };
        (0..count).map(|_| byte()).collect()
    }
}

async fn read_to_end(mut socket: TcpStream) {
    let mut scrap = Vec::new();
    if let Err(fault) = socket.read_to_end(&mut scrap).await {
        println!("ended with {fault}");
    }
}

#[tokio::test]
async fn random_bytes_instead_of_a_connect_are_turned_away() {
    let house = House::open().await;
    let mut noise = Noise(1);
    for round in 0..500 {
        let mut bytes = noise.bytes(200);
        if round % 2 == 0 {
            bytes[0] = 0x10;
        }
        let mut socket = TcpStream::connect(house.address()).await.unwrap();
        if socket.write_all(&bytes).await.is_ok() {
            socket.shutdown().await.unwrap_or_default();
        }
        read_to_end(socket).await;
    }
    still_works(&house).await;
}

#[tokio::test]
async fn random_bytes_behind_a_connect_end_that_connection_only() {
    let house = House::open().await;
    let mut noise = Noise(2);
    for round in 0..200_u16 {
        let (mut client, _) = hello("x").connect(&house).await;
        let mut bytes = noise.bytes(300);
        bytes[0] = u8::try_from(round % 16).unwrap() << 4 | bytes[0] & 0x0F;
        bytes[1] = 100;
        let socket = client.io.get_mut();
        if socket.write_all(&bytes).await.is_ok() {
            socket.shutdown().await.unwrap_or_default();
        }
        while let Ok(Some(Ok(_))) = tokio::time::timeout(crate::house::PATIENCE, {
            use futures_util::StreamExt;
            client.io.next()
        })
        .await
        {}
    }
    still_works(&house).await;
}

#[tokio::test]
async fn a_connect_larger_than_allowed_is_not_even_read() {
    let house = House::open().await;
    let mut socket = TcpStream::connect(house.address()).await.unwrap();
    socket
        .write_all(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F])
        .await
        .unwrap();
    assert!(matches!(socket.read(&mut [0]).await, Ok(0) | Err(_)));
    assert_eq!(house.refused(Reason::PacketTooLarge).await, 1);
}

#[tokio::test]
async fn a_second_connect_ends_the_connection() {
    let house = House::open().await;
    let (mut client, _) = hello("x").connect(&house).await;
    client.send(Packet::Connect(Box::new(hello("x").0))).await;
    assert!(client.ending().await.is_some_and(|reason| reason >= 0x80));
    still_works(&house).await;
}

#[tokio::test]
async fn more_unacknowledged_publishes_than_agreed_end_the_connection() {
    let house = House::open().await;
    let (mut client, ack) = hello("x").try_connect(house.address()).await;
    for id in 1..=ack.receive_max.get() + 1 {
        let mut publish = message("open/a", "x", QoS::ExactlyOnce);
        publish.packet_id = NonZeroU16::new(id);
        client.send(Packet::Publish(Box::new(publish))).await;
    }
    assert_eq!(
        client.ending().await,
        Some(0x93),
        "receive maximum exceeded"
    );
}

#[tokio::test]
async fn the_inner_listener_serves_nobody_but_the_door() {
    let house = House::open().await;
    let inner = house.engine.inner_address();
    let (_, ack) = hello("x").try_connect(inner).await;
    assert_eq!(
        u8::from(ack.reason_code),
        0x87,
        "not authorized, even with the right password"
    );
    still_works(&house).await;
}

async fn still_works(house: &House) {
    let (mut client, _) = hello("still-works").connect(house).await;
    client.subscribe("open/still", QoS::AtLeastOnce).await;
    let (mut publisher, _) = hello("publisher").connect(house).await;
    assert_eq!(
        publisher
            .publish(message("open/still", "works", QoS::AtLeastOnce))
            .await,
        0
    );
    assert_eq!(client.receive_texts(1).await, ["works"]);
    client.disconnect().await;
    publisher.disconnect().await;
    until("nobody is left", async || {
        house.engine.stats().await.connections == 0
    })
    .await;
}
