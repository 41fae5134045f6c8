//! One TCP connection that speaks MQTT 5: packets in, packets out, never blocked by its own writes.
//!
//! The packets are those of rumqttc. Its event loop is not used: it pairs acknowledgements with nobody,
//! keeps packet ids across connections whose limits differ, and stops reading while it writes.
//! Subscription identifiers are not used either: with several in one packet its reader loses count.

use std::io;
use std::time::Duration;

use alicia_contract::envelope::MESSAGE_BYTES_MAX;
use bytes::BytesMut;
use rumqttc::v5::mqttbytes::Error as PacketError;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode,
    LastWill, Login, Packet,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::options::BusAddress;

/// How long the broker has for the TCP connection and its answer to CONNECT.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long a goodbye may take.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(1);
/// After this time without a word from this client the broker ends the connection, in seconds.
pub(crate) const KEEP_ALIVE_S: u16 = 20;
/// The largest packet: the largest message, and room for its topic and properties.
const PACKET_BYTES_MAX: u32 = (MESSAGE_BYTES_MAX + (64 << 10)) as u32;
/// Messages that the broker may have under way to us at QoS 1.
const RECEIVE_MAX: u16 = 256;
/// What is read at once.
const READ_BYTES: usize = 16 << 10;
/// Bytes that wait to be written; above it nothing more is read, and the ping tells a stuck broker.
const OUTGOING_BYTES_MAX: usize = 4 << 20;

/// Why a connection could not be made, or broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("connect to {address}: {source}")]
    Connect {
        address: BusAddress,
        source: io::Error,
    },
    #[error("connect to {0}: no answer in time")]
    TimedOut(BusAddress),
    #[error("log in: the broker refused with {0:?}")]
    LoginRefused(ConnectReturnCode),
    #[error("read the password file {path}: {source}")]
    Password { path: String, source: io::Error },
    #[error("keep the connection: {0}")]
    Io(#[from] io::Error),
    #[error("understand the broker: {0}")]
    Packet(PacketError),
    #[error("keep the connection: the broker ended it with {0:?}")]
    Ended(DisconnectReasonCode),
    #[error("keep the connection: the broker does not answer pings")]
    Silent,
    #[error("keep the connection: the broker has moved")]
    Moved,
}

/// What is said at the start of a connection.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) client_id: String,
    pub(crate) login: Option<Login>,
    pub(crate) will: Option<LastWill>,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Wire {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// The largest packet that the broker takes.
    pub(crate) packet_bytes_max: usize,
    /// Publishes that the broker takes before it has acknowledged the first.
    pub(crate) publishes_max: usize,
    /// The time without a word after which the broker ends the connection; none: never.
    pub(crate) keep_alive: Option<Duration>,
}

impl Wire {
    /// Connects and logs in.
    pub(crate) async fn connect(address: &BusAddress, hello: Hello) -> Result<Self, WireError> {
        timeout(CONNECT_DEADLINE, Self::handshake(address, hello))
            .await
            .map_err(|_| WireError::TimedOut(address.clone()))?
    }

    async fn handshake(address: &BusAddress, hello: Hello) -> Result<Self, WireError> {
        let stream = TcpStream::connect((address.host.as_str(), address.port))
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| WireError::Connect {
                address: address.clone(),
                source,
            })?;
        let (read, write) = stream.into_split();
        let mut wire = Self {
            read,
            write,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            packet_bytes_max: PACKET_BYTES_MAX as usize,
            publishes_max: usize::from(u16::MAX),
            keep_alive: Some(Duration::from_secs(u64::from(KEEP_ALIVE_S))),
        };
        wire.send(connect_packet(hello))?;
        loop {
            wire.exchange().await?;
            match wire.receive()? {
                Some(Packet::ConnAck(answer)) => return wire.accepted(answer),
                Some(Packet::Disconnect(end)) => return Err(WireError::Ended(end.reason_code)),
                Some(_) => return Err(WireError::Packet(PacketError::InvalidProtocol)),
                None => {}
            }
        }
    }

    /// Takes the broker's limits from its answer.
    fn accepted(mut self, answer: ConnAck) -> Result<Self, WireError> {
        if answer.code != ConnectReturnCode::Success {
            return Err(WireError::LoginRefused(answer.code));
        }
        let Some(limits) = answer.properties else {
            return Ok(self);
        };
        if let Some(bytes) = limits.max_packet_size {
            self.packet_bytes_max = self.packet_bytes_max.min(bytes as usize);
        }
        if let Some(publishes) = limits.receive_max {
            self.publishes_max = usize::from(publishes);
        }
        if let Some(seconds) = limits.server_keep_alive {
            self.keep_alive = (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)));
        }
        Ok(self)
    }

    /// Puts a packet into the buffer that [`Self::exchange`] writes.
    pub(crate) fn send(&mut self, packet: Packet) -> Result<(), WireError> {
        packet
            .write(&mut self.outgoing, None)
            .map(drop)
            .map_err(WireError::Packet)
    }

    /// Whether there is room for more packets than acknowledgements.
    pub(crate) fn has_room(&self) -> bool {
        self.outgoing.len() < OUTGOING_BYTES_MAX / 2
    }

    /// Reads and writes what the socket is ready for, once. May be dropped at any await without loss.
    pub(crate) async fn exchange(&mut self) -> io::Result<()> {
        let may_read = self.outgoing.len() < OUTGOING_BYTES_MAX;
        self.incoming.reserve(READ_BYTES);
        tokio::select! {
            read = self.read.read_buf(&mut self.incoming), if may_read => match read? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            },
            written = self.write.write_buf(&mut self.outgoing), if !self.outgoing.is_empty() => {
                match written? {
                    0 => Err(io::ErrorKind::WriteZero.into()),
                    _ => Ok(()),
                }
            }
        }
    }

    /// The next packet that was read completely.
    pub(crate) fn receive(&mut self) -> Result<Option<Packet>, WireError> {
        match Packet::read(&mut self.incoming, Some(PACKET_BYTES_MAX)) {
            Ok(packet) => Ok(Some(packet)),
            Err(PacketError::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(WireError::Packet(error)),
        }
    }

    /// Says goodbye, so that the broker does not publish the will, and waits until it is written.
    pub(crate) async fn goodbye(mut self) {
        let reason = DisconnectReasonCode::NormalDisconnection;
        if self
            .send(Packet::Disconnect(Disconnect::new(reason)))
            .is_err()
        {
            return;
        }
        let writing = async {
            self.write.write_all_buf(&mut self.outgoing).await?;
            self.write.shutdown().await
        };
        match timeout(GOODBYE_DEADLINE, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the connection broke before the goodbye"),
            Err(_) => tracing::debug!("the broker did not take the goodbye in time"),
        }
    }
}

fn connect_packet(hello: Hello) -> Packet {
    let connect = Connect {
        keep_alive: KEEP_ALIVE_S,
        client_id: hello.client_id,
        clean_start: true,
        properties: Some(ConnectProperties {
            session_expiry_interval: Some(0),
            receive_maximum: Some(RECEIVE_MAX),
            max_packet_size: Some(PACKET_BYTES_MAX),
            ..ConnectProperties::new()
        }),
    };
    Packet::Connect(connect, hello.will, hello.login)
}
