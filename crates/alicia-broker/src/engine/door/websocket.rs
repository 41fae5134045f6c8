//! A WebSocket as a stream of bytes (MQTT 5, chapter 6): packets may span messages and the reverse.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

const PROTOCOL_HEADER: &str = "sec-websocket-protocol";
const PROTOCOL: &str = "mqtt";
/// The subprotocol of MQTT 3.1 clients.
const PROTOCOL_OLD: &str = "mqttv3.1";
/// Room beside the largest packet for what comes with it in one message.
const MESSAGE_SLACK_BYTES: usize = 64 * 1024;

/// A WebSocket whose binary messages are read and written as one stream.
pub(crate) struct WebSocketBytes {
    inner: WebSocketStream<TcpStream>,
    unread: Bytes,
}

/// Answers the upgrade request of a client that speaks MQTT.
pub(crate) async fn accept(
    socket: TcpStream,
    packet_bytes_max: u32,
) -> Result<WebSocketBytes, Error> {
    let message_bytes_max = packet_bytes_max as usize + MESSAGE_SLACK_BYTES;
    let config = WebSocketConfig::default()
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max));
    let accepted =
        tokio_tungstenite::accept_hdr_async_with_config(socket, choose_protocol, Some(config));
    Ok(WebSocketBytes {
        inner: accepted.await?,
        unread: Bytes::new(),
    })
}

#[expect(clippy::result_large_err, reason = "the library's callback type")]
fn choose_protocol(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get_all(PROTOCOL_HEADER);
    let offered = offered.iter().filter_map(|value| value.to_str().ok());
    let mut offered = offered.flat_map(|list| list.split(',')).map(str::trim);
    let chosen = offered.find(|name| *name == PROTOCOL || *name == PROTOCOL_OLD);
    let Some(value) = chosen.and_then(|name| HeaderValue::from_str(name).ok()) else {
        let mut refusal = ErrorResponse::new(Some("offer the subprotocol \"mqtt\"\n".to_owned()));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Err(refusal);
    };
    response.headers_mut().insert(PROTOCOL_HEADER, value);
    Ok(response)
}

impl AsyncRead for WebSocketBytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::other("MQTT is sent in binary messages")));
                }
                Some(Err(fault)) => return Poll::Ready(Err(io_error(fault))),
            }
        }
        let taken = self.unread.len().min(buf.remaining());
        buf.put_slice(self.unread.get(..taken).unwrap_or_default());
        self.unread.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocketBytes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.inner).poll_ready(cx)).map_err(io_error)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.inner)
            .start_send(message)
            .map_err(io_error)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx).map_err(io_error)
    }
}

fn io_error(fault: Error) -> io::Error {
    match fault {
        Error::Io(fault) => fault,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::NotConnected.into(),
        other => io::Error::other(other),
    }
}
