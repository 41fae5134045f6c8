//! The health protocol of gRPC (grpc.health.v1): one call over HTTP/2. Its two messages have one field each, which is
//! read and written here; see `grpc/doc/health-checking.md` and `PROTOCOL-HTTP2.md` of the gRPC project.

use std::pin::pin;
use std::time::Duration;

use alicia_contract::fleet::GrpcCheck;
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_TYPE, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, Uri};

use crate::attempt::{Deadline, Seen};
use crate::connect::{Place, shown};
use crate::target::{Context, TargetError, limit};

/// The call.
const PATH: &str = "/grpc.health.v1.Health/Check";

/// What HTTP/2 is called when TLS agrees on a protocol (RFC 9113, section 3.2).
const PROTOCOL: &[u8] = b"h2";

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The largest answer, in bytes: a number and what a later version may add.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// `ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// A server and the service that is asked for.
#[derive(Debug, Clone)]
pub struct GrpcTarget {
    place: Place,
    uri: Uri,
    service: String,
    pub(crate) latency_max: Option<Duration>,
}

// === impl GrpcTarget ===

impl GrpcTarget {
    pub(crate) fn new(check: &GrpcCheck, context: &Context<'_>) -> Result<Self, TargetError> {
        let place = context.place(&check.host, check.port, check.tls.as_ref())?;
        let uri = Uri::builder()
            .scheme(place.scheme())
            .authority(shown(&place.host, place.port))
            .path_and_query(PATH)
            .build();
        Ok(Self {
            uri: uri.map_err(|_| TargetError::ServerName(place.host.clone()))?,
            place,
            service: check.service.clone(),
            latency_max: limit(check.latency_max),
        })
    }

    pub(crate) async fn attempt(&self, deadline: &Deadline) -> Seen {
        let connected = self.place.connect(&[PROTOCOL], deadline).await?;
        let note = connected.note.clone();
        let handshake = h2::client::handshake(connected.stream);
        let (sender, connection) = deadline
            .within("no HTTP/2", handshake)
            .await?
            .map_err(|error| said(&error))?;
        let (mut exchange, mut connection) = (pin!(self.ask(sender, deadline)), pin!(connection));
        let seen = tokio::select! {
            biased;
            seen = &mut exchange => seen?,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await?,
                Err(error) => return Err(said(&error)),
            },
        };
        Ok(format!("{seen}{note}"))
    }

    async fn ask(&self, sender: SendRequest<Bytes>, deadline: &Deadline) -> Seen {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        let agent = HeaderValue::from_static(concat!("alicia-probe/", env!("CARGO_PKG_VERSION")));
        headers.insert(USER_AGENT, agent);
        let exchange = async {
            let mut sender = sender.ready().await?;
            let (answer, mut body) = sender.send_request(request, false)?;
            body.send_data(message(&self.service), true)?;
            let (head, body) = answer.await?.into_parts();
            let (data, trailers) = read(body).await?;
            Ok((head, data, trailers))
        };
        let (head, data, trailers) = deadline
            .within("no answer", exchange)
            .await?
            .map_err(|error: h2::Error| said(&error))?;
        if !head.status.is_success() {
            return Err(format!("HTTP {}, expected gRPC", head.status.as_u16()));
        }
        // An answer without a message has its trailers in the head.
        let status =
            field(&trailers, "grpc-status").or_else(|| field(&head.headers, "grpc-status"));
        let why = field(&trailers, "grpc-message").or_else(|| field(&head.headers, "grpc-message"));
        self.judge(status.as_deref(), why.as_deref().unwrap_or_default(), &data)
    }

    fn judge(&self, status: Option<&str>, why: &str, data: &[u8]) -> Seen {
        let about = match self.service.as_str() {
            "" => "the server".to_owned(),
            service => service.to_owned(),
        };
        match status {
            Some("0") => {}
            Some("5") => return Err(format!("{about} is not known to the server")),
            Some("12") => {
                return Err("the server does not offer its health (grpc.health.v1)".to_owned());
            }
            Some(code) => return Err(format!("gRPC status {code}: {why}")),
            None => return Err("the answer is not gRPC: it has no status".to_owned()),
        }
        match serving(data) {
            Some(SERVING) => Ok(format!("{about} is serving")),
            Some(2) => Err(format!("{about} is not serving")),
            Some(3) => Err(format!("{about} is not known to the server")),
            Some(0) => Err(format!("{about} does not know whether it is serving")),
            Some(other) => Err(format!(
                "{about} has the status {other}, expected {SERVING}"
            )),
            None => Err("the answer is no message of grpc.health.v1".to_owned()),
        }
    }
}

/// `HealthCheckRequest { string service = 1; }` with its prefix.
fn message(service: &str) -> Bytes {
    let mut body = BytesMut::new();
    if !service.is_empty() {
        body.put_u8(1 << 3 | 2);
        put_varint(&mut body, service.len() as u64);
        body.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::with_capacity(PREFIX_BYTES + body.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    message.put_slice(&body);
    message.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.put_u8(u8::try_from(value).unwrap_or_default());
}

/// The field 1 of `HealthCheckResponse { ServingStatus status = 1; }`; a message without it says 0.
fn serving(data: &[u8]) -> Option<u64> {
    let (prefix, rest) = data.split_at_checked(PREFIX_BYTES)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    let is_compressed = prefix[0] != 0;
    let mut rest = rest
        .get(..usize::try_from(length).ok()?)
        .filter(|_| !is_compressed)?;
    let mut status = 0;
    while !rest.is_empty() {
        let (tag, after) = varint(rest)?;
        rest = after;
        match tag & 7 {
            0 => {
                let (value, after) = varint(rest)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                rest = after;
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let (length, after) = varint(rest)?;
                rest = after.get(usize::try_from(length).ok()?..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (n, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(7 * n).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[n + 1..]));
        }
    }
    None
}

async fn read(mut body: RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut data = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        if data.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Reason::ENHANCE_YOUR_CALM.into());
        }
        data.extend_from_slice(&chunk);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok((data, trailers))
}

fn field(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn said(error: &h2::Error) -> String {
    if error.is_io() || error.is_go_away() && error.is_remote() {
        return format!("the connection was closed before the answer was complete: {error}");
    }
    match error.reason() {
        Some(Reason::PROTOCOL_ERROR | Reason::FRAME_SIZE_ERROR) => {
            "the answer is not HTTP/2".to_owned()
        }
        _ => format!("the call broke off: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_messages_are_those_of_protobuf() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("ab")[..], [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
        assert_eq!(&message(&"x".repeat(200))[5..8], [10, 200, 1]);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        // A field that a later version adds is skipped.
        assert_eq!(serving(&[0, 0, 0, 0, 6, 18, 2, 1, 1, 8, 2]), Some(2));
        assert_eq!(serving(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed");
        assert_eq!(serving(&[0, 0, 0, 0, 9, 8, 1]), None, "cut off");
    }

    proptest! {
        #[test]
        fn noise_does_not_panic(noise in prop::collection::vec(any::<u8>(), 0..40)) {
            serving(&noise);
        }
    }
}
