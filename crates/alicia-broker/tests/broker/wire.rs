//! A client that speaks MQTT 5 packet by packet, so that tests see and do exactly what they name.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rmqtt::codec::types::{Publish, QoS};
use rmqtt::codec::v5::{
    Codec, Connect, ConnectAck, ConnectAckReason, LastWill, Packet, PublishAck, PublishAck2,
    PublishProperties, RetainHandling, Subscribe, SubscribeAckReason, SubscriptionOptions,
    Unsubscribe,
};
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

use crate::house::{House, PATIENCE};

/// Longer than a local broker takes to send what it has.
const QUIET: Duration = Duration::from_millis(300);

pub(crate) struct Wire {
    pub(crate) io: Framed<TcpStream, Codec>,
    next_id: u16,
    /// Messages that came while an answer was awaited.
    early: VecDeque<Packet>,
}

/// How to connect; `ann` with a clean session unless said otherwise.
#[derive(Clone)]
pub(crate) struct Hello(pub(crate) Connect);

pub(crate) fn hello(client_id: &str) -> Hello {
    Hello(Connect {
        client_id: client_id.to_owned().into(),
        clean_start: true,
        keep_alive: 60,
        username: Some("ann".into()),
        password: Some("secret".into()),
        ..Connect::default()
    })
}

impl Hello {
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.0.username = Some(name.to_owned().into());
        self
    }

    /// Takes up the session there is, and keeps it for a minute after leaving.
    pub(crate) fn lasting(mut self) -> Self {
        self.0.clean_start = false;
        self.0.session_expiry_interval_secs = 60;
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Connect)) -> Self {
        change(&mut self.0);
        self
    }

    pub(crate) fn will(mut self, topic: &str, message: &str, delay_s: u32) -> Self {
        self.0.last_will = Some(LastWill {
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: topic.to_owned().into(),
            message: message.to_owned().into(),
            will_delay_interval_sec: (delay_s > 0).then_some(delay_s),
            correlation_data: None,
            message_expiry_interval: None,
            content_type: None,
            user_properties: Vec::new(),
            is_utf8_payload: None,
            response_topic: None,
        });
        self
    }

    /// Connects; whether a session was present.
    pub(crate) async fn connect(self, house: &House) -> (Wire, bool) {
        let (wire, ack) = self.try_connect(house.address()).await;
        assert_eq!(ack.reason_code, ConnectAckReason::Success);
        (wire, ack.session_present)
    }

    pub(crate) async fn try_connect(self, address: SocketAddr) -> (Wire, Box<ConnectAck>) {
        let socket = TcpStream::connect(address).await.unwrap();
        let mut wire = Wire {
            io: Framed::new(socket, Codec::new(0, 0)),
            next_id: 0,
            early: VecDeque::new(),
        };
        wire.send(Packet::Connect(Box::new(self.0))).await;
        match wire.next().await {
            Some(Packet::ConnectAck(ack)) => (wire, ack),
            other => panic!("expected CONNACK, got {other:?}"),
        }
    }
}

/// A message to publish.
pub(crate) fn message(topic: &str, payload: &str, qos: QoS) -> Publish {
    Publish {
        dup: false,
        retain: false,
        qos,
        topic: topic.to_owned().into(),
        packet_id: None,
        payload: payload.to_owned().into(),
        properties: Some(PublishProperties::default()),
    }
}

pub(crate) fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::AtSubscribe,
    }
}

pub(crate) fn text(publish: &Publish) -> &str {
    std::str::from_utf8(&publish.payload).unwrap()
}

impl Wire {
    pub(crate) async fn send(&mut self, packet: Packet) {
        self.io.send(packet).await.unwrap();
    }

    /// The next packet; None when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        match self.early.pop_front() {
            Some(packet) => Some(packet),
            None => self.next_from_socket().await,
        }
    }

    /// The next packet that is no message; those are kept for later.
    async fn answer(&mut self) -> Option<Packet> {
        loop {
            match self.next_from_socket().await {
                Some(packet @ Packet::Publish(_)) => self.early.push_back(packet),
                other => return other,
            }
        }
    }

    async fn next_from_socket(&mut self) -> Option<Packet> {
        let next = tokio::time::timeout(PATIENCE, self.io.next());
        match next.await.expect("a packet or the end in time") {
            Some(Ok((packet, _))) => Some(packet),
            Some(Err(fault)) => panic!("undecodable: {fault:?}"),
            None => None,
        }
    }

    fn packet_id(&mut self) -> NonZeroU16 {
        self.next_id += 1;
        NonZeroU16::new(self.next_id).unwrap()
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) -> SubscribeAckReason {
        self.subscribe_with(filter, options(qos), None).await
    }

    pub(crate) async fn subscribe_with(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
        id: Option<u32>,
    ) -> SubscribeAckReason {
        let packet_id = self.packet_id();
        let id = id.map(|id| NonZeroU32::new(id).unwrap());
        let topic_filters = vec![(filter.to_owned().into(), options)];
        let subscribe = Subscribe {
            packet_id,
            id,
            user_properties: Vec::new(),
            topic_filters,
        };
        self.send(Packet::Subscribe(subscribe)).await;
        match self.answer().await {
            Some(Packet::SubscribeAck(ack)) => ack.status[0],
            other => panic!("expected SUBACK, got {other:?}"),
        }
    }

    pub(crate) async fn unsubscribe(&mut self, filter: &str) {
        let packet_id = self.packet_id();
        let topic_filters = vec![filter.to_owned().into()];
        let unsubscribe = Unsubscribe {
            packet_id,
            user_properties: Vec::new(),
            topic_filters,
        };
        self.send(Packet::Unsubscribe(unsubscribe)).await;
        assert!(matches!(
            self.answer().await,
            Some(Packet::UnsubscribeAck(_))
        ));
    }

    /// Publishes and completes the exchange; the reason code of its first answer, 0 for QoS 0.
    pub(crate) async fn publish(&mut self, mut publish: Publish) -> u8 {
        let qos = publish.qos;
        publish.packet_id = (qos != QoS::AtMostOnce).then(|| self.packet_id());
        self.send(Packet::Publish(Box::new(publish))).await;
        if qos == QoS::AtMostOnce {
            return 0;
        }
        match self.answer().await {
            Some(Packet::PublishAck(ack)) => ack.reason_code.into(),
            Some(Packet::PublishReceived(ack)) if u8::from(ack.reason_code) >= 0x80 => {
                ack.reason_code.into()
            }
            Some(Packet::PublishReceived(ack)) => {
                let release = PublishAck2 {
                    packet_id: ack.packet_id,
                    ..PublishAck2::default()
                };
                self.send(Packet::PublishRelease(release)).await;
                assert!(matches!(
                    self.answer().await,
                    Some(Packet::PublishComplete(_))
                ));
                0
            }
            other => panic!("expected an answer to PUBLISH, got {other:?}"),
        }
    }

    /// The next message, acknowledged as its QoS asks.
    pub(crate) async fn receive(&mut self) -> Publish {
        let publish = self.receive_unacknowledged().await;
        self.acknowledge(&publish).await;
        publish
    }

    pub(crate) async fn receive_unacknowledged(&mut self) -> Publish {
        match self.next().await {
            Some(Packet::Publish(publish)) => *publish,
            other => panic!("expected PUBLISH, got {other:?}"),
        }
    }

    pub(crate) async fn acknowledge(&mut self, publish: &Publish) {
        let Some(packet_id) = publish.packet_id else {
            return;
        };
        let ack = PublishAck {
            packet_id,
            ..PublishAck::default()
        };
        if publish.qos == QoS::AtLeastOnce {
            return self.send(Packet::PublishAck(ack)).await;
        }
        self.send(Packet::PublishReceived(ack)).await;
        assert!(matches!(
            self.answer().await,
            Some(Packet::PublishRelease(_))
        ));
        let complete = PublishAck2 {
            packet_id,
            ..PublishAck2::default()
        };
        self.send(Packet::PublishComplete(complete)).await;
    }

    /// The texts of the next messages.
    pub(crate) async fn receive_texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            texts.push(text(&self.receive().await).to_owned());
        }
        texts
    }

    /// Nothing comes, though the broker has had the time: it has answered a PING since.
    pub(crate) async fn receives_nothing(&mut self) {
        self.send(Packet::PingRequest).await;
        match self.next().await {
            Some(Packet::PingResponse) => {}
            other => panic!("expected nothing, got {other:?}"),
        }
        if let Ok(packet) = tokio::time::timeout(QUIET, self.io.next()).await {
            panic!("expected nothing, got {packet:?}");
        }
    }

    /// The reason code of the DISCONNECT that ends the connection; None when it just ends.
    pub(crate) async fn ending(&mut self) -> Option<u8> {
        loop {
            match self.next().await {
                Some(Packet::Disconnect(disconnect)) => {
                    assert!(self.next().await.is_none(), "nothing follows a DISCONNECT");
                    return Some(disconnect.reason_code.into());
                }
                Some(_) => {}
                None => return None,
            }
        }
    }

    /// Says goodbye and waits until the broker has let go.
    pub(crate) async fn disconnect(mut self) {
        self.send(Packet::Disconnect(Default::default())).await;
        while self.next().await.is_some() {}
    }
}
