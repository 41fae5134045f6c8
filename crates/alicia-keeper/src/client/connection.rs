//! Moves frames between the socket and the client's queues.

use std::collections::HashMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::Call;
use crate::error::{Error, Result};
use crate::protocol::{Event, FromHost, FromKeeper, Hello, Reply, frame};

/// Read at once; most messages have less than 1 KiB.
const READ_BYTES: usize = 16 * 1024;

/// The socket. Nothing moves until [`Connection::run`] is polled; dropping it closes the connection,
/// which the keeper survives and the client sees as [`Error::Closed`].
#[derive(Debug)]
pub struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    input: Vec<u8>,
    output: Vec<u8>,
    calls: mpsc::Receiver<Call>,
    waiting: HashMap<u64, oneshot::Sender<Result<Reply>>>,
    last_id: u64,
    events: mpsc::Sender<Event>,
    events_missed: u64,
}

/// Exchanges the greetings.
pub(super) async fn greet(
    stream: UnixStream,
    calls: mpsc::Receiver<Call>,
    events: mpsc::Sender<Event>,
) -> Result<(Hello, Connection)> {
    let (reader, writer) = stream.into_split();
    let mut connection = Connection {
        reader,
        writer,
        input: Vec::new(),
        output: Vec::new(),
        calls,
        waiting: HashMap::new(),
        last_id: 0,
        events,
        events_missed: 0,
    };
    connection.queue(&FromHost::Hello(Hello::own()))?;
    connection
        .writer
        .write_all(&connection.output)
        .await
        .map_err(|_| Error::Closed)?;
    connection.output.clear();
    loop {
        match connection.next_message()? {
            Some(FromKeeper::Hello(hello)) => {
                hello.check()?;
                return Ok((hello, connection));
            }
            Some(FromKeeper::Goodbye(failure)) => return Err(Error::Refused(failure)),
            Some(other) => return Err(Error::Protocol(format!("no greeting, but {other:?}"))),
            None => connection.read().await?,
        }
    }
}

impl Connection {
    /// Moves messages until the keeper goes away ([`Error::Closed`]), sends what cannot be understood,
    /// or every client is dropped (`Ok`).
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Protocol`], [`Error::Refused`] when the keeper says why it closes.
    pub async fn run(mut self) -> Result<()> {
        loop {
            while let Some(message) = self.next_message()? {
                self.take(message)?;
            }
            tokio::select! {
                read = read_more(&mut self.reader, &mut self.input) => read?,
                written = self.writer.write(&self.output), if !self.output.is_empty() => {
                    let written = written.map_err(|_| Error::Closed)?;
                    self.output.drain(..written);
                }
                call = self.calls.recv() => match call {
                    Some(call) => self.send(call)?,
                    None => return Ok(()),
                },
                () = announce_gap(&self.events, self.events_missed), if self.events_missed > 0 => {
                    self.events_missed = 0;
                }
            }
        }
    }

    fn send(&mut self, call: Call) -> Result<()> {
        self.last_id += 1;
        self.waiting.insert(self.last_id, call.reply);
        self.queue(&FromHost::Request(self.last_id, call.request))
    }

    fn queue(&mut self, message: &FromHost) -> Result<()> {
        frame::encode(message, &mut self.output).map_err(|error| Error::Protocol(error.to_string()))
    }

    fn take(&mut self, message: FromKeeper) -> Result<()> {
        match message {
            FromKeeper::Reply(id, reply) => self.answer(id, Ok(*reply)),
            FromKeeper::Failed(id, failure) => self.answer(id, Err(Error::Refused(failure))),
            FromKeeper::Event(value) => self.hear(Event::from_value(value)),
            FromKeeper::Goodbye(failure) => return Err(Error::Refused(failure)),
            // A keeper that was upgraded may greet again.
            FromKeeper::Hello(hello) => hello.check()?,
        }
        Ok(())
    }

    fn answer(&mut self, id: u64, result: Result<Reply>) {
        if let Some(waiting) = self.waiting.remove(&id) {
            // The caller may have gone away: then nobody wants the answer.
            drop(waiting.send(result));
        }
    }

    fn hear(&mut self, event: Event) {
        // Once one is missed, all are until the gap is announced, so that the order stays true. Whoever
        // dropped `Events` does not want them.
        let full = self.events_missed > 0
            || matches!(
                self.events.try_send(event),
                Err(mpsc::error::TrySendError::Full(_))
            );
        if full {
            self.events_missed += 1;
        }
    }

    fn next_message(&mut self) -> Result<Option<FromKeeper>> {
        let end = frame::first(&self.input, frame::KEEPER_BYTES_MAX)
            .map_err(|error| Error::Protocol(error.to_string()))?;
        let Some(end) = end else {
            return Ok(None);
        };
        let message = serde_json::from_slice(frame::body(&self.input[..end]));
        self.input.drain(..end);
        message
            .map(Some)
            .map_err(|error| Error::Protocol(error.to_string()))
    }

    async fn read(&mut self) -> Result<()> {
        read_more(&mut self.reader, &mut self.input).await
    }
}

/// Waits for room in the queue. Whoever dropped `Events` needs no announcement.
async fn announce_gap(events: &mpsc::Sender<Event>, missed: u64) {
    if let Ok(permit) = events.reserve().await {
        permit.send(Event::Lagged { missed });
    }
}

/// Cancel safe: bytes are in `input` or still in the socket.
async fn read_more(reader: &mut OwnedReadHalf, input: &mut Vec<u8>) -> Result<()> {
    input.reserve(READ_BYTES);
    match reader.read_buf(input).await {
        Ok(0) | Err(_) => Err(Error::Closed),
        Ok(_) => Ok(()),
    }
}
