//! The first packet of a connection: read within its limits, understood, and answered when the
//! client is not let in.

use bytes::{Bytes, BytesMut};
use rmqtt::codec::error::DecodeError;
use rmqtt::codec::version::{ProtocolVersion, VersionCodec};
use rmqtt::codec::{v3, v5};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::codec::Decoder;

use crate::authority::{Reason, Refusal};
use crate::engine::limits::Limits;

const CONNECT: u8 = 0x10;
/// Room for the first read; most CONNECT packets are smaller.
const FIRST_READ_BYTES: usize = 512;

/// A complete, well-formed CONNECT.
pub(crate) struct Opening {
    /// The packet as it came.
    pub(crate) packet: Bytes,
    /// What came behind it already.
    pub(crate) rest: BytesMut,
    pub(crate) level: u8,
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Bytes>,
    pub(crate) will: Option<Will>,
}

/// The message that the client leaves behind.
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
}

/// Why a connection ends before it began.
#[derive(Debug)]
pub(crate) enum ConnectFault {
    /// The client went away; nobody's fault.
    Gone,
    /// Not a CONNECT, or not a proper one; the answer is one for its protocol level, if known.
    Refused {
        refusal: Refusal,
        answer: Option<Answer>,
    },
}

/// A CONNACK that says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) level: u8,
    pub(crate) code: AnswerCode,
}

/// The reasons that a CONNACK can give, in both protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerCode {
    UnsupportedVersion,
    BadClientId,
    BadCredentials,
    NotAuthorized,
    Unavailable,
    QuotaExceeded,
}

impl Answer {
    /// The packet on the wire.
    pub(crate) fn encode(self) -> Vec<u8> {
        if self.level >= 5 {
            vec![0x20, 3, 0, self.code.v5(), 0]
        } else {
            vec![0x20, 2, 0, self.code.v3()]
        }
    }

    /// The answer to a client that is not let in.
    pub(crate) fn to(refusal: &Refusal, level: u8) -> Self {
        let code = match refusal.reason {
            Reason::BadCredentials => AnswerCode::BadCredentials,
            Reason::BadClientId => AnswerCode::BadClientId,
            Reason::TooManyConnections | Reason::TooManyPerIdentity | Reason::TooManySessions => {
                AnswerCode::QuotaExceeded
            }
            _ => AnswerCode::NotAuthorized,
        };
        Self { level, code }
    }
}

impl AnswerCode {
    /// MQTT 3.1.1, table 3.1.
    fn v3(self) -> u8 {
        match self {
            Self::UnsupportedVersion => 1,
            Self::BadClientId => 2,
            Self::Unavailable | Self::QuotaExceeded => 3,
            Self::BadCredentials => 4,
            Self::NotAuthorized => 5,
        }
    }

    /// MQTT 5, table 3-1.
    fn v5(self) -> u8 {
        match self {
            Self::UnsupportedVersion => 0x84,
            Self::BadClientId => 0x85,
            Self::BadCredentials => 0x86,
            Self::NotAuthorized => 0x87,
            Self::Unavailable => 0x88,
            Self::QuotaExceeded => 0x97,
        }
    }
}

/// Reads one CONNECT packet and not a byte more than it may have. The caller limits the time.
pub(crate) async fn read<S>(stream: &mut S, limits: &Limits) -> Result<Opening, ConnectFault>
where
    S: AsyncRead + Unpin,
{
    let mut buffer = BytesMut::with_capacity(FIRST_READ_BYTES);
    let length = loop {
        if let Some(length) = packet_length(&buffer, limits)?
            && buffer.len() >= length
        {
            break length;
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return Err(ConnectFault::Gone),
            Ok(_) => {}
        }
    };
    let packet = buffer.split_to(length).freeze();
    let opening = decode(packet, buffer)?;
    check_client_id(&opening, limits)?;
    Ok(opening)
}

/// The length of the packet that begins the buffer, as soon as it can be told.
fn packet_length(buffer: &[u8], limits: &Limits) -> Result<Option<usize>, ConnectFault> {
    let Some((first, lengths)) = buffer.split_first() else {
        return Ok(None);
    };
    if *first != CONNECT {
        return Err(refused(Reason::Malformed, "the first packet is no CONNECT"));
    }
    let mut body = 0_usize;
    for (digit, byte) in lengths.iter().enumerate().take(4) {
        body |= usize::from(byte & 0x7F) << (7 * digit);
        if byte & 0x80 == 0 {
            let length = 2 + digit + body;
            if length > limits.connect_packet_bytes_max {
                return Err(refused(
                    Reason::PacketTooLarge,
                    "the CONNECT packet is too large",
                ));
            }
            return Ok(Some(length));
        }
    }
    match lengths.len() {
        0..4 => Ok(None),
        _ => Err(refused(
            Reason::Malformed,
            "the length of the first packet is malformed",
        )),
    }
}

fn decode(packet: Bytes, rest: BytesMut) -> Result<Opening, ConnectFault> {
    let mut probe = BytesMut::from(&*packet);
    match VersionCodec.decode(&mut probe) {
        Ok(Some(ProtocolVersion::MQTT3)) => decode_v3(packet, probe, rest),
        Ok(Some(ProtocolVersion::MQTT5)) => decode_v5(packet, probe, rest),
        _ => Err(ConnectFault::Refused {
            refusal: Refusal::new(
                Reason::Malformed,
                "the protocol is none of MQTT 3.1, 3.1.1, 5",
            ),
            answer: Some(Answer {
                level: 4,
                code: AnswerCode::UnsupportedVersion,
            }),
        }),
    }
}

fn decode_v3(packet: Bytes, mut bytes: BytesMut, rest: BytesMut) -> Result<Opening, ConnectFault> {
    let level = 4;
    match v3::Codec::new(0).decode(&mut bytes) {
        Ok(Some((v3::Packet::Connect(connect), _))) => Ok(Opening {
            packet,
            rest,
            level,
            client_id: connect.client_id.to_string(),
            username: connect.username.map(|name| name.to_string()),
            password: connect.password,
            will: connect.last_will.map(|will| Will {
                topic: will.topic.to_string(),
                payload: will.message,
                retain: will.retain,
            }),
        }),
        Ok(_) => Err(refused(
            Reason::Malformed,
            "the CONNECT packet is cut short",
        )),
        Err(fault) => Err(undecodable(&fault, level)),
    }
}

fn decode_v5(packet: Bytes, mut bytes: BytesMut, rest: BytesMut) -> Result<Opening, ConnectFault> {
    let level = 5;
    match v5::Codec::new(0, 0).decode(&mut bytes) {
        Ok(Some((v5::Packet::Connect(connect), _))) => Ok(Opening {
            packet,
            rest,
            level,
            client_id: connect.client_id.to_string(),
            username: connect.username.map(|name| name.to_string()),
            password: connect.password,
            will: connect.last_will.map(|will| Will {
                topic: will.topic.to_string(),
                payload: will.message,
                retain: will.retain,
            }),
        }),
        Ok(_) => Err(refused(
            Reason::Malformed,
            "the CONNECT packet is cut short",
        )),
        Err(fault) => Err(undecodable(&fault, level)),
    }
}

fn check_client_id(opening: &Opening, limits: &Limits) -> Result<(), ConnectFault> {
    let client_id = &opening.client_id;
    let why = if client_id.chars().count() > limits.client_id_chars_max {
        "the client id is too long"
    } else if client_id.chars().any(char::is_control) {
        "the client id holds control characters"
    } else {
        return Ok(());
    };
    Err(ConnectFault::Refused {
        refusal: Refusal::new(Reason::BadClientId, why),
        answer: Some(Answer {
            level: opening.level,
            code: AnswerCode::BadClientId,
        }),
    })
}

fn undecodable(fault: &DecodeError, level: u8) -> ConnectFault {
    let (reason, answer) = match fault {
        DecodeError::InvalidClientId => (
            Reason::BadClientId,
            Some(Answer {
                level,
                code: AnswerCode::BadClientId,
            }),
        ),
        _ => (Reason::Malformed, None),
    };
    ConnectFault::Refused {
        refusal: Refusal::new(reason, format!("{fault:?}")),
        answer,
    }
}

fn refused(reason: Reason, detail: &str) -> ConnectFault {
    ConnectFault::Refused {
        refusal: Refusal::new(reason, detail),
        answer: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(level: u8, client_id: &str) -> Vec<u8> {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 60];
        if level == 5 {
            body.push(0);
        }
        body.extend(u16::try_from(client_id.len()).unwrap().to_be_bytes());
        body.extend(client_id.as_bytes());
        let mut packet = vec![CONNECT];
        let mut left = body.len();
        while left > 0x7F {
            packet.push(u8::try_from(left & 0x7F).unwrap() | 0x80);
            left >>= 7;
        }
        packet.push(u8::try_from(left).unwrap());
        packet.extend(body);
        packet
    }

    async fn reason(mut bytes: &[u8]) -> Option<Reason> {
        match read(&mut bytes, &Limits::default()).await {
            Err(ConnectFault::Refused { refusal, .. }) => Some(refusal.reason),
            Ok(_) | Err(ConnectFault::Gone) => None,
        }
    }

    #[tokio::test]
    async fn both_protocols_are_read_and_what_follows_is_kept() {
        for level in [4, 5] {
            let mut bytes = packet(level, "x");
            let length = bytes.len();
            bytes.extend([0xC0, 0]);
            let opening = read(&mut bytes.as_slice(), &Limits::default()).await;
            let opening = opening.unwrap_or_else(|fault| panic!("{fault:?}"));
            assert_eq!((opening.level, opening.client_id.as_str()), (level, "x"));
            assert_eq!(
                (opening.packet.len(), &*opening.rest),
                (length, &[0xC0, 0][..])
            );
        }
    }

    #[tokio::test]
    async fn what_is_no_proper_connect_is_refused() {
        assert_eq!(reason(&[0x30, 0]).await, Some(Reason::Malformed));
        assert_eq!(reason(b"GET / HTTP/1.1\r\n").await, Some(Reason::Malformed));
        assert_eq!(
            reason(&[0x10, 0xFF, 0xFF, 0xFF, 0xFF]).await,
            Some(Reason::Malformed)
        );
        assert_eq!(
            reason(&[0x10, 0xFF, 0xFF, 0x7F]).await,
            Some(Reason::PacketTooLarge)
        );
        assert_eq!(reason(&packet(9, "x")).await, Some(Reason::Malformed));
        assert_eq!(
            reason(&packet(5, &"x".repeat(129))).await,
            Some(Reason::BadClientId)
        );
        assert_eq!(
            reason(&packet(4, "a\u{1}b")).await,
            Some(Reason::BadClientId)
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                reason(&bytes).await;
                if let Some(first) = bytes.first_mut() {
                    *first = CONNECT;
                }
                reason(&bytes).await;
                let mut framed = packet(5, "x");
                framed.truncate(9);
                framed.extend(&bytes);
                reason(&framed).await;
            });
        }
    }
}
