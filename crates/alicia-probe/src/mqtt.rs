//! The way of a message through a broker (MQTT 3.1.1): connect, subscribe, publish, and wait until it comes back.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use alicia_contract::fleet::MqttCheck;
use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{
    Connect, ConnectReturnCode, Packet, Publish, Subscribe, SubscribeReasonCode,
};
use rumqttc::mqttbytes::{Error as PacketError, QoS};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::attempt::{Deadline, Seen, now, quick_enough};
use crate::connect::{Place, Stream};
use crate::secret;
use crate::target::{Context, TargetError, limit};

const PORT: u16 = 1_883;
const PORT_TLS: u16 = 8_883;

/// The topic at a broker that is not ours.
const TOPIC: &str = "alicia/probe";

/// The largest packet that is read, in bytes; ours is far smaller.
const PACKET_BYTES_MAX: usize = 64 << 10;

/// A broker and how one speaks to it.
#[derive(Debug, Clone)]
pub struct MqttTarget {
    place: Place,
    topic: String,
    username: Option<String>,
    password_file: Option<PathBuf>,
    /// Of the round trip.
    latency_max: Option<Duration>,
}

/// A conversation with a broker.
struct Session {
    stream: Box<dyn Stream>,
    read: BytesMut,
}

// === impl MqttTarget ===

impl MqttTarget {
    pub(crate) fn new(check: &MqttCheck, context: &Context<'_>) -> Result<Self, TargetError> {
        let latency_max = limit(check.latency_max);
        let Some(host) = &check.host else {
            let target = Self::of_the_house(context)?;
            return Ok(Self {
                topic: check.topic.clone().unwrap_or(target.topic),
                latency_max,
                ..target
            });
        };
        let usual = if check.tls.is_some() { PORT_TLS } else { PORT };
        let port = check.port.unwrap_or(usual);
        Ok(Self {
            place: context.place(host, Some(port), check.tls.as_ref())?,
            topic: check.topic.clone().unwrap_or_else(|| TOPIC.to_owned()),
            username: check.username.clone(),
            password_file: check
                .password_file
                .as_ref()
                .map(|path| context.directory.join(path)),
            latency_max,
        })
    }

    /// The bus of the service, with its own name and token, on a topic for answers to itself, which every service may use.
    fn of_the_house(context: &Context<'_>) -> Result<Self, TargetError> {
        let variable = |name: &str| context.variable(name).filter(|value| !value.is_empty());
        let url = variable("ALICIA_MQTT_URL").ok_or(TargetError::Bus)?;
        let address = url.strip_prefix("mqtt://").unwrap_or(url);
        let (host, port) = address.rsplit_once(':').ok_or(TargetError::Bus)?;
        let port = port.parse().map_err(|_| TargetError::Bus)?;
        let service = variable("ALICIA_SERVICE").ok_or(TargetError::Bus)?;
        let prefix = variable("ALICIA_TOPIC_PREFIX").unwrap_or("alicia");
        Ok(Self {
            place: context.place(host, Some(port), None)?,
            topic: format!("{prefix}/{service}/replies"),
            username: variable("ALICIA_MQTT_USERNAME").map(str::to_owned),
            password_file: variable("ALICIA_TOKEN_FILE").map(PathBuf::from),
            latency_max: None,
        })
    }

    pub(crate) async fn attempt(&self, deadline: &Deadline) -> Seen {
        let mark = format!("probe-{:016x}", fastrand::u64(..));
        let password = match &self.password_file {
            Some(path) => secret::read(path, deadline).await?,
            None => String::new(),
        };
        let connected = self.place.connect(&[], deadline).await?;
        let note = connected.note.clone();
        let mut session = Session {
            stream: connected.stream,
            read: BytesMut::new(),
        };
        let mut connect = Connect::new(&mark);
        if let Some(username) = &self.username {
            connect.set_login(username, password);
        }
        session.log_in(connect, deadline).await?;
        let topic = format!("{}/{mark}", self.topic);
        session.subscribe(&topic, deadline).await?;
        let began = now();
        session.round_trip(&topic, &mark, deadline).await?;
        let took = now().saturating_duration_since(began);
        // Nobody waits for the end: the broker sees it.
        drop(session.send(&Packet::Disconnect).await);
        let took_ms = took.as_secs_f64() * 1e3;
        quick_enough(
            format!("round trip of {took_ms:.1}ms{note}"),
            took,
            self.latency_max,
        )
    }
}

// === impl Session ===

impl Session {
    async fn log_in(&mut self, connect: Connect, deadline: &Deadline) -> Result<(), String> {
        self.send(&Packet::Connect(connect)).await?;
        let missing = "no answer of the broker";
        loop {
            if let Packet::ConnAck(answer) = deadline.within(missing, self.next()).await?? {
                return match answer.code {
                    ConnectReturnCode::Success => Ok(()),
                    ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                        Err("the broker refuses the name or the password".to_owned())
                    }
                    other => Err(format!("the broker refuses the connection: {other:?}")),
                };
            }
        }
    }

    async fn subscribe(&mut self, topic: &str, deadline: &Deadline) -> Result<(), String> {
        let mut subscribe = Subscribe::new(topic, QoS::AtLeastOnce);
        subscribe.pkid = 1;
        self.send(&Packet::Subscribe(subscribe)).await?;
        loop {
            if let Packet::SubAck(answer) =
                deadline.within("no subscription", self.next()).await??
            {
                return match answer.return_codes.first() {
                    Some(SubscribeReasonCode::Success(_)) => Ok(()),
                    _ => Err(format!("the broker refuses the subscription to {topic}")),
                };
            }
        }
    }

    async fn round_trip(
        &mut self,
        topic: &str,
        mark: &str,
        deadline: &Deadline,
    ) -> Result<(), String> {
        let publish = Publish::new(topic, QoS::AtMostOnce, mark);
        self.send(&Packet::Publish(publish)).await?;
        let missing = format!("the message to {topic} did not come back");
        loop {
            let packet = deadline.within(&missing, self.next()).await??;
            if let Packet::Publish(message) = packet
                && message.topic == topic
                && message.payload == mark.as_bytes()
            {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, packet: &Packet) -> Result<(), String> {
        let mut bytes = BytesMut::new();
        packet
            .write(&mut bytes, PACKET_BYTES_MAX)
            .map_err(|error| format!("failed to write a packet: {error}"))?;
        let sent = self.stream.write_all(&bytes).await;
        sent.map_err(|error| closed(&error))?;
        self.stream.flush().await.map_err(|error| closed(&error))
    }

    async fn next(&mut self) -> Result<Packet, String> {
        loop {
            match Packet::read(&mut self.read, PACKET_BYTES_MAX) {
                Ok(packet) => return Ok(packet),
                Err(PacketError::InsufficientBytes(_)) => {}
                Err(_) => return Err("the answer is not MQTT".to_owned()),
            }
            let read = self.stream.read_buf(&mut self.read).await;
            if read.map_err(|error| closed(&error))? == 0 {
                return Err("the broker closed the connection".to_owned());
            }
        }
    }
}

fn closed(error: &io::Error) -> String {
    format!("the connection to the broker broke: {error}")
}
