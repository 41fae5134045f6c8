//! Bytes in both directions between a client and the inner listener, with the limits that hold for
//! a connection: packet size, pace, and that what is sent is read.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::frame::{FrameFault, Frames};
use crate::engine::clients::{Client, code};
use crate::engine::clock;
use crate::engine::core::{Core, count};

/// One read, at most.
const READ_BYTES_MAX: usize = 64 * 1024;
/// What an idle connection keeps per direction.
const READ_BYTES_MIN: usize = 1024;
/// How long a session may take to tell why it ended.
const REASON_WAIT: Duration = Duration::from_secs(1);
/// How long a session may take to notice that its client is gone.
const DRAIN_WAIT: Duration = Duration::from_secs(1);
/// How long the last words to a client may take.
const FAREWELL_WAIT: Duration = Duration::from_secs(1);
/// "Disconnect with will message" (MQTT 5, table 3-10): the library takes any DISCONNECT for a
/// normal one, so it is shown a broken connection instead.
const WITH_WILL: u8 = 0x04;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client said goodbye, or went away.
    ByClient,
    /// The session ended behind the door.
    BySession,
    /// The broker wants the client gone.
    Told,
    /// The client broke the protocol; the MQTT 5 reason code.
    Violation(u8),
    /// The client does not read.
    Stuck,
}

/// Serves a connection until one side ends it.
pub(crate) async fn run<S>(
    core: &Core,
    client: &Client,
    stream: S,
    inner: TcpStream,
    rest: BytesMut,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(stream);
    let (mut from_session, mut to_session) = inner.into_split();
    let mut outward = Frames::new(u32::MAX);
    let end = tokio::select! {
        end = inbound(core, client, &mut from_client, &mut to_session, rest) => end,
        end = outbound(core, client, &mut from_session, &mut to_client, &mut outward) => end,
        () = client.close.notified() => End::Told,
    };
    drop(to_session);
    if end == End::ByClient {
        // The session reads to the end what the client said last, before it sees a closed socket.
        let drained = timeout(DRAIN_WAIT, drain(&mut from_session)).await;
        tracing::trace!(?drained, "session let go");
    }
    if let Some(reason) = farewell(client, end).await
        && outward.at_boundary()
    {
        let packet = [0xE0, 2, reason, 0];
        let sent = timeout(FAREWELL_WAIT, to_client.write_all(&packet)).await;
        tracing::trace!(reason, sent = ?sent, "said why");
    }
    let closed = timeout(FAREWELL_WAIT, to_client.shutdown()).await;
    if end != End::ByClient && end != End::Stuck {
        // A socket closed with unread bytes is reset, and a reset eats the last words.
        let drained = timeout(FAREWELL_WAIT, drain(&mut from_client)).await;
        tracing::trace!(?drained, "client let go");
    }
    tracing::trace!(
        client_id = client.client_id(),
        ?end,
        ?closed,
        "connection ended"
    );
    end
}

/// The reason code that the client is to hear, if it can hear one.
async fn farewell(client: &Client, end: End) -> Option<u8> {
    if client.protocol_level < 5 {
        return None;
    }
    match end {
        End::ByClient | End::Stuck => None,
        End::Violation(reason) => Some(reason),
        End::Told => client.reason_code(),
        End::BySession if !client.in_session() => None,
        End::BySession => {
            if client.reason_code().is_none()
                && timeout(REASON_WAIT, client.ended.notified()).await.is_err()
            {
                tracing::debug!(
                    client_id = client.client_id(),
                    "session ended without a reason"
                );
            }
            client.reason_code()
        }
    }
}

async fn drain<R: AsyncRead + Unpin>(from: &mut R) {
    let mut scrap = [0; READ_BYTES_MIN];
    while matches!(from.read(&mut scrap).await, Ok(read) if read > 0) {}
}

async fn inbound<R, W>(
    core: &Core,
    client: &Client,
    from: &mut R,
    to: &mut W,
    rest: BytesMut,
) -> End
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut frames = Frames::new(core.limits.packet_bytes_max);
    let mut at_most = READ_BYTES_MAX;
    let mut buffer = Buffer::new(rest);
    loop {
        if buffer.bytes.is_empty() && !buffer.fill(from, at_most).await {
            return End::ByClient;
        }
        core.counters
            .bytes_in
            .fetch_add(buffer.bytes.len() as u64, Ordering::Relaxed);
        let scan = match frames.feed(&buffer.bytes) {
            Ok(scan) => scan,
            Err(FrameFault::Malformed) => return End::Violation(code::MALFORMED),
            Err(FrameFault::TooLarge) => return End::Violation(code::PACKET_TOO_LARGE),
        };
        let pace = client.pace();
        let wait = pace.take(scan.requests, buffer.bytes.len(), clock::now());
        // Who is too fast gets through in small pieces, so that others find a gap.
        at_most = match wait.is_zero() {
            true => READ_BYTES_MAX,
            false => READ_BYTES_MIN,
        };
        if !wait.is_zero() {
            count(&core.counters.throttled);
            tokio::time::sleep(wait).await;
        }
        client
            .published
            .fetch_add(u64::from(scan.publishes), Ordering::Relaxed);
        if let Some((start, WITH_WILL)) = scan.disconnect {
            buffer.bytes.truncate(start);
        }
        if to.write_all(&buffer.bytes).await.is_err() {
            // The reading half learns why.
            std::future::pending::<()>().await;
        }
        if scan.disconnect.is_some() {
            return End::ByClient;
        }
        if !buffer.fill(from, at_most).await {
            return End::ByClient;
        }
    }
}

async fn outbound<R, W>(
    core: &Core,
    client: &Client,
    from: &mut R,
    to: &mut W,
    frames: &mut Frames,
) -> End
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = Buffer::new(BytesMut::new());
    while buffer.fill(from, READ_BYTES_MAX).await {
        core.counters
            .bytes_out
            .fetch_add(buffer.bytes.len() as u64, Ordering::Relaxed);
        let scan = frames.feed(&buffer.bytes).unwrap_or_default();
        if let Err(end) = send(to, &buffer.bytes, core.limits.write_stall_max).await {
            return end;
        }
        client
            .delivered
            .fetch_add(u64::from(scan.publishes), Ordering::Relaxed);
    }
    End::BySession
}

/// Sends all of a piece. A client is stuck when it takes not a single byte for a while.
async fn send<W>(to: &mut W, mut unsent: &[u8], stall_max: Duration) -> Result<(), End>
where
    W: AsyncWrite + Unpin,
{
    while !unsent.is_empty() {
        match timeout(stall_max, to.write(unsent)).await {
            Ok(Ok(0) | Err(_)) => return Err(End::ByClient),
            Ok(Ok(written)) => unsent = unsent.get(written..).unwrap_or_default(),
            Err(_) => return Err(End::Stuck),
        }
    }
    match timeout(stall_max, to.flush()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::ByClient),
        Err(_) => Err(End::Stuck),
    }
}

/// A read buffer that grows while reads fill it and shrinks when they do not: thousands of idle
/// connections keep little, a busy one moves much at once.
struct Buffer {
    bytes: BytesMut,
    room: usize,
}

impl Buffer {
    fn new(bytes: BytesMut) -> Self {
        Self {
            bytes,
            room: READ_BYTES_MIN,
        }
    }

    /// Reads the next piece; false at the end of the stream.
    async fn fill<R: AsyncRead + Unpin>(&mut self, from: &mut R, at_most: usize) -> bool {
        let last = self.bytes.len();
        if last >= self.room {
            self.room = (self.room * 2).min(READ_BYTES_MAX);
        } else if last < self.room / 8 {
            self.room = (self.room / 2).max(READ_BYTES_MIN);
        }
        self.room = self.room.min(at_most);
        if self.bytes.capacity() == self.room {
            self.bytes.clear();
        } else {
            self.bytes = BytesMut::with_capacity(self.room);
        }
        matches!(from.read_buf(&mut self.bytes).await, Ok(read) if read > 0)
    }
}
