//! One life of the connection, from login to its end: sends what is to be sent, hands on what arrives.

use std::collections::VecDeque;
use std::time::Duration;

use alicia_contract::identity::SIGNATURE_PROPERTY;
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, Packet, PingReq, PubAck, PubAckReason, Publish, PublishProperties, SubAck, Subscribe,
    SubscribeReasonCode, Unsubscribe,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior};

use crate::delivery::Delivery;
use crate::error::Error;
use crate::inflight::Inflight;
use crate::message::Qos;
use crate::options::BusAddress;
use crate::router::{Change, Refusal};
use crate::shared::{Body, Outgoing, Publication, Published, Shared};
use crate::status::{Counters, lock};
use crate::wire::{KEEP_ALIVE_S, Wire, WireError};

/// Publishes under way at the same time: enough to fill a loopback, little to send again after a break.
const WINDOW_MAX: usize = 64;

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// On request.
    Closed,
    /// By a fault.
    Lost(WireError),
}

/// A packet that waits for its acknowledgement.
#[derive(Debug)]
enum Pending {
    Publish {
        publication: Publication,
        is_clear: bool,
    },
    Subscribe(String),
    Unsubscribe,
}

/// One connection and what is under way on it.
pub(crate) struct Session<'a> {
    shared: &'a Shared,
    address: BusAddress,
    addresses: watch::Receiver<Option<BusAddress>>,
    wire: Wire,
    inflight: Inflight<Pending>,
    publishes: usize,
    window: usize,
    ping: Interval,
    was_heard: bool,
}

impl<'a> Session<'a> {
    pub(crate) fn new(shared: &'a Shared, address: BusAddress, wire: Wire) -> Self {
        // Twice within the time that the broker waits, so that one late ping does no harm.
        let longest = Duration::from_secs(u64::from(KEEP_ALIVE_S));
        let every = wire.keep_alive.unwrap_or(longest).min(longest) / 2;
        let mut ping = tokio::time::interval(every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            addresses: shared.options.address.clone(),
            shared,
            address,
            inflight: Inflight::new(),
            publishes: 0,
            window: wire.publishes_max.clamp(1, WINDOW_MAX),
            wire,
            ping,
            was_heard: true,
        }
    }

    /// Runs until the end. What was not acknowledged and is still wanted is left in `backlog`, in order.
    pub(crate) async fn run(
        mut self,
        backlog: &mut VecDeque<Publication>,
        commands: &mut mpsc::Receiver<Publication>,
    ) -> End {
        let error = loop {
            match self.turn(backlog, commands).await {
                Ok(true) => {}
                Ok(false) => {
                    self.wire.goodbye().await;
                    return End::Closed;
                }
                Err(error) => break error,
            }
        };
        self.keep_unacknowledged(backlog);
        End::Lost(error)
    }

    /// One turn of the loop; `false` when the session is to end.
    async fn turn(
        &mut self,
        backlog: &mut VecDeque<Publication>,
        commands: &mut mpsc::Receiver<Publication>,
    ) -> Result<bool, WireError> {
        self.send_changes()?;
        while self.may_publish() {
            let Some(publication) = backlog.pop_front() else {
                break;
            };
            self.publish(publication)?;
        }
        let takes_commands = self.may_publish();
        tokio::select! {
            () = self.shared.closing.cancelled() => return Ok(false),
            exchanged = self.wire.exchange() => {
                exchanged?;
                while let Some(packet) = self.wire.receive()? {
                    self.was_heard = true;
                    self.handle(packet)?;
                }
            }
            Some(publication) = commands.recv(), if takes_commands => self.publish(publication)?,
            () = self.shared.changed.notified() => {}
            _ = self.ping.tick() => self.ping()?,
            _ = moved(&mut self.addresses, &self.address) => return Err(WireError::Moved),
        }
        Ok(true)
    }

    fn may_publish(&self) -> bool {
        self.publishes < self.window && self.wire.has_room()
    }

    fn send_changes(&mut self) -> Result<(), WireError> {
        let changes = lock(&self.shared.router).changes();
        for change in changes {
            match change {
                Change::Subscribe(filter) => {
                    let pkid = self.inflight.add(Pending::Subscribe(filter.clone()));
                    let filter = Filter::new(filter, QoS::AtLeastOnce);
                    let mut subscribe = Subscribe::new(filter, None);
                    subscribe.pkid = pkid;
                    self.wire.send(Packet::Subscribe(subscribe))?;
                }
                Change::Unsubscribe(filter) => {
                    let mut unsubscribe = Unsubscribe::new(filter, None);
                    unsubscribe.pkid = self.inflight.add(Pending::Unsubscribe);
                    self.wire.send(Packet::Unsubscribe(unsubscribe))?;
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self, publication: Publication) -> Result<(), WireError> {
        if publication.is_abandoned() {
            return Ok(());
        }
        let (mut packet, is_clear) = self.packet(&publication.body);
        let bytes = packet.size();
        let bytes_max = self.wire.packet_bytes_max;
        if bytes > bytes_max {
            let topic = String::from_utf8_lossy(&packet.topic).into_owned();
            publication.finish(Err(Error::TooLarge {
                topic,
                bytes,
                bytes_max,
            }));
            return Ok(());
        }
        if packet.qos == QoS::AtMostOnce {
            self.wire.send(Packet::Publish(packet))?;
            publication.finish(Ok(Published::Taken));
            return Ok(());
        }
        packet.pkid = self.inflight.add(Pending::Publish {
            publication,
            is_clear,
        });
        self.publishes += 1;
        self.wire.send(Packet::Publish(packet))
    }

    /// The packet of a publication, and whether it clears a state.
    fn packet(&self, body: &Body) -> (Publish, bool) {
        match body {
            Body::Message(message) => (packet(message), false),
            Body::State(topic) => {
                let payload = lock(&self.shared.states).value(topic);
                let is_clear = payload.is_empty();
                (packet(&state(topic, payload)), is_clear)
            }
        }
    }

    fn handle(&mut self, packet: Packet) -> Result<(), WireError> {
        match packet {
            Packet::Publish(publish) => self.arrived(publish)?,
            Packet::PubAck(ack) => self.acknowledged(ack),
            Packet::SubAck(ack) => self.subscribed(ack),
            Packet::UnsubAck(ack) => drop(self.inflight.take(ack.pkid)),
            Packet::Disconnect(end) => return Err(WireError::Ended(end.reason_code)),
            // PINGRESP has said all by arriving. Nothing else is expected, and nothing depends on it.
            _ => {}
        }
        Ok(())
    }

    fn arrived(&mut self, publish: Publish) -> Result<(), WireError> {
        if publish.qos != QoS::AtMostOnce {
            let ack = PubAck::new(publish.pkid, None);
            self.wire.send(Packet::PubAck(ack))?;
        }
        if let Some(delivery) = Delivery::new(publish, self.shared.now()) {
            self.shared.deliver(delivery);
        }
        Ok(())
    }

    fn acknowledged(&mut self, ack: PubAck) {
        let Some(Pending::Publish {
            publication,
            is_clear,
        }) = self.inflight.take(ack.pkid)
        else {
            return;
        };
        self.publishes -= 1;
        let topic = match &publication.body {
            Body::Message(message) => message.topic.clone(),
            Body::State(topic) => topic.clone(),
        };
        let result = match ack.reason {
            PubAckReason::Success => Ok(Published::Taken),
            PubAckReason::NoMatchingSubscribers => Ok(Published::Unheard),
            PubAckReason::NotAuthorized => Err(Refusal::NotAllowed.error(&topic)),
            other => Err(Refusal::Other(format!("{other:?}")).error(&topic)),
        };
        if result.is_ok() {
            Counters::raise(&self.shared.counters.published, 1);
            if is_clear {
                lock(&self.shared.states).acknowledged(&topic);
            }
        }
        publication.finish(result);
    }

    fn subscribed(&mut self, ack: SubAck) {
        let Some(Pending::Subscribe(filter)) = self.inflight.take(ack.pkid) else {
            return;
        };
        let result = match ack.return_codes.first() {
            Some(SubscribeReasonCode::Success(_)) => Ok(()),
            Some(SubscribeReasonCode::NotAuthorized) => Err(Refusal::NotAllowed),
            Some(other) => Err(Refusal::Other(format!("{other:?}"))),
            None => Err(Refusal::Other("an empty answer".to_owned())),
        };
        if let Err(refusal) = &result {
            tracing::warn!(filter, ?refusal, "the broker refused a subscription");
        }
        lock(&self.shared.router).answered(&filter, result);
    }

    /// Sends a ping; the broker must have said anything at all since the last one.
    fn ping(&mut self) -> Result<(), WireError> {
        if !std::mem::take(&mut self.was_heard) {
            return Err(WireError::Silent);
        }
        self.wire.send(Packet::PingReq(PingReq))
    }

    /// What is still wanted is sent again on the next connection; states are anyway.
    fn keep_unacknowledged(self, backlog: &mut VecDeque<Publication>) {
        let unacknowledged = self.inflight.into_unacknowledged();
        for pending in unacknowledged.into_iter().rev() {
            match pending {
                Pending::Publish { publication, .. } if publication.done.is_some() => {
                    backlog.push_front(publication);
                }
                _ => {}
            }
        }
    }
}

/// Waits until the broker is somewhere else.
async fn moved(addresses: &mut watch::Receiver<Option<BusAddress>>, from: &BusAddress) {
    let is_elsewhere = |now: &Option<BusAddress>| now.as_ref().is_some_and(|now| now != from);
    if addresses.wait_for(is_elsewhere).await.is_err() {
        // Nobody can change the address any more.
        std::future::pending::<()>().await;
    }
}

fn state(topic: &str, payload: Bytes) -> Outgoing {
    Outgoing {
        topic: topic.to_owned(),
        payload,
        retain: true,
        ..Outgoing::default()
    }
}

fn packet(message: &Outgoing) -> Publish {
    let qos = match message.qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    };
    let signature = message.signature.clone();
    let signature = signature.map(|text| (SIGNATURE_PROPERTY.to_owned(), text));
    let properties = PublishProperties {
        user_properties: signature.into_iter().collect(),
        response_topic: message.response_topic.clone(),
        correlation_data: message.correlation.clone(),
        ..PublishProperties::default()
    };
    let has_properties = message.response_topic.is_some()
        || message.correlation.is_some()
        || message.signature.is_some();
    let mut packet = Publish::new(
        message.topic.as_str(),
        qos,
        message.payload.clone(),
        has_properties.then_some(properties),
    );
    packet.retain = message.retain;
    packet
}
