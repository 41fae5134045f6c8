//! Brokers that misbehave: a few bytes over TCP, written by hand.

use std::time::Duration;

use alicia_bus::{Bus, BusAddress, BusStatus, Error, Options};
use alicia_contract::{EventTopic, Prefix};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const TICK: EventTopic<u64> = EventTopic::new("tick");

/// CONNACK: success, no properties.
const WELCOME: &[u8] = &[0x20, 3, 0, 0, 0];
/// CONNACK: success, the server wants a word each second (property 0x13).
const WELCOME_KEEP_ALIVE_1S: &[u8] = &[0x20, 6, 0, 0, 3, 0x13, 0, 1];
/// CONNACK: bad user name or password.
const WRONG_PASSWORD: &[u8] = &[0x20, 3, 0, 0x86, 0];
/// The first byte of SUBSCRIBE and of PUBLISH with QoS 1.
const SUBSCRIBE: u8 = 0x82;

struct Broker {
    listener: TcpListener,
    bus: Bus,
    _task: JoinSet<()>,
}

impl Broker {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = BusAddress {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().expect("is bound").port(),
        };
        let options = Options::at(address, "system/test", Prefix::default());
        let (bus, connection) = Bus::start(options);
        let mut task = JoinSet::new();
        task.spawn(connection);
        Self {
            listener,
            bus,
            _task: task,
        }
    }

    /// Takes the next connection, reads its CONNECT and answers.
    async fn accept(&self, answer: &[u8]) -> TcpStream {
        let accepted = timeout(PATIENCE, self.listener.accept()).await;
        let (mut stream, _) = accepted.expect("in time").expect("accepts");
        assert_eq!(packet(&mut stream).await[0], 0x10, "expected CONNECT");
        stream.write_all(answer).await.expect("writes");
        stream
    }

    async fn becomes(&self, wanted: impl Fn(&BusStatus) -> bool) {
        let becomes = async {
            while !wanted(&self.bus.status()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let became = timeout(PATIENCE, becomes).await;
        assert!(became.is_ok(), "stays {:?}", self.bus.status());
    }

    async fn fails_with(&self, text: &str) {
        self.becomes(|status| {
            let error = status.last_error.as_deref();
            error.is_some_and(|error| error.contains(text))
        })
        .await;
    }
}

/// One packet with a remaining length below 128: its type and body.
async fn packet(stream: &mut TcpStream) -> Vec<u8> {
    let kind = stream.read_u8().await.expect("reads");
    let length = stream.read_u8().await.expect("reads");
    assert!(length < 128, "a longer packet than this test reads");
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await.expect("reads");
    packet.insert(0, kind);
    packet
}

/// The next packet of this type; pings are answered.
async fn packet_of(stream: &mut TcpStream, kind: u8) -> Vec<u8> {
    loop {
        let packet = packet(stream).await;
        if packet[0] == kind {
            return packet;
        }
        assert_eq!(packet[0], 0xC0, "expected {kind:#x}");
        stream.write_all(&[0xD0, 0]).await.expect("writes");
    }
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_left_and_tried_again() {
    let broker = Broker::start().await;
    let _silent = broker.accept(WELCOME_KEEP_ALIVE_1S).await;
    broker.bus.connected(PATIENCE).await.expect("connects");
    broker.fails_with("does not answer pings").await;
    let _again = broker.accept(WELCOME).await;
    broker
        .becomes(|status| status.connected && status.connections == 2)
        .await;
}

#[tokio::test]
async fn a_task_that_is_dropped_before_it_ran_closes_the_bus() {
    let nowhere = "127.0.0.1:1".parse().expect("reads");
    let options = Options::at(nowhere, "system/test", Prefix::default());
    let (bus, connection) = Bus::start(options);
    let mut ticks = bus.events(TICK).await.expect("is noted");
    drop(connection);
    assert_eq!(ticks.next().await, None);
    assert!(matches!(bus.events(TICK).await, Err(Error::Closed)));
    assert!(matches!(bus.connected(PATIENCE).await, Err(Error::Closed)));
    bus.close().await;
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let broker = Broker::start().await;
    let garbage: [&[u8]; 4] = [&[0; 64], &[0xFF; 64], &[0x30, 2, 0, 9], &[0x20, 0]];
    for bytes in garbage {
        let mut stream = broker.accept(WELCOME).await;
        stream.write_all(bytes).await.expect("writes");
    }
    let _good = broker.accept(WELCOME).await;
    broker
        .becomes(|status| status.connected && status.connections == 5)
        .await;
}

#[tokio::test]
async fn a_refused_login_is_told_and_tried_again() {
    let broker = Broker::start().await;
    drop(broker.accept(WRONG_PASSWORD).await);
    broker
        .fails_with("log in: the broker refused with BadUserNamePassword")
        .await;
    let _good = broker.accept(WELCOME).await;
    broker.bus.connected(PATIENCE).await.expect("connects");
}

#[tokio::test]
async fn a_refused_subscription_is_an_error_now_and_in_the_status_later() {
    let broker = Broker::start().await;
    let mut stream = broker.accept(WELCOME).await;
    broker.bus.connected(PATIENCE).await.expect("connects");
    let subscribing = broker.bus.events(TICK);
    let refusing = async {
        let subscribe = packet_of(&mut stream, SUBSCRIBE).await;
        let suback = [0x90, 4, subscribe[1], subscribe[2], 0, 0x87];
        stream.write_all(&suback).await.expect("writes");
    };
    let (refused, ()) = tokio::join!(subscribing, refusing);
    assert!(
        matches!(refused, Err(Error::NotAllowed { .. })),
        "{refused:?}"
    );

    drop(stream);
    broker.becomes(|status| !status.connected).await;
    let noted = broker.bus.events(TICK).await.expect("is noted");
    let mut stream = broker.accept(WELCOME).await;
    let subscribe = packet_of(&mut stream, SUBSCRIBE).await;
    let suback = [0x90, 4, subscribe[1], subscribe[2], 0, 0x87];
    stream.write_all(&suback).await.expect("writes");
    broker
        .becomes(|status| status.refused == ["alicia/tick"])
        .await;
    drop(noted);
    broker.becomes(|status| status.refused.is_empty()).await;
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_on_the_next_connection() {
    let broker = Broker::start().await;
    let mut stream = broker.accept(WELCOME).await;
    broker.bus.connected(PATIENCE).await.expect("connects");
    let small = |topic: &'static str| {
        broker.bus.raw_publish(
            topic,
            "x",
            alicia_bus::Qos::AtLeastOnce,
            alicia_bus::Retain::No,
        )
    };
    let serving = async {
        let first = packet_of(&mut stream, 0x32).await;
        drop(stream);
        let mut stream = broker.accept(WELCOME).await;
        let again = packet_of(&mut stream, 0x32).await;
        // The topic "a/b", then the packet id.
        assert_eq!(first[3..6], again[3..6]);
        let ack = [0x40, 2, again[6], again[7]];
        stream.write_all(&ack).await.expect("writes");
        stream
    };
    let (published, _stream) = tokio::join!(small("a/b"), serving);
    published.expect("is published in the end");
    assert_eq!(broker.bus.status().published, 1);
}

#[tokio::test]
async fn a_broker_that_takes_one_publish_at_a_time_gets_one_at_a_time() {
    // CONNACK with a receive maximum of 1 (property 0x21).
    let broker = Broker::start().await;
    let mut stream = broker.accept(&[0x20, 6, 0, 0, 3, 0x21, 0, 1]).await;
    broker.bus.connected(PATIENCE).await.expect("connects");
    let publish = |payload: &'static str| {
        broker.bus.raw_publish(
            "a/b",
            payload,
            alicia_bus::Qos::AtLeastOnce,
            alicia_bus::Retain::No,
        )
    };
    let serving = async {
        for _ in 0..2 {
            let published = packet_of(&mut stream, 0x32).await;
            let mut more = [0; 1];
            let early = timeout(Duration::from_millis(50), stream.peek(&mut more)).await;
            assert!(
                early.is_err() || more[0] == 0xC0,
                "a second one came before the acknowledgement"
            );
            let ack = [0x40, 2, published[6], published[7]];
            stream.write_all(&ack).await.expect("writes");
        }
        stream
    };
    let (one, two, _stream) = tokio::join!(publish("1"), publish("2"), serving);
    one.and(two).expect("are published");
}
