//! Connected hosts. None can block the keeper or make it grow: input is read in bounded steps, events that
//! a slow reader does not take are counted instead of kept.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt};
use serde_json::Value;

use super::instance::Asker;
use super::timers::Timer;
use super::token::Token;
use super::{Keeper, note};
use crate::protocol::{Event, Failure, FailureCode, FromHost, FromKeeper, Hello, Reply, frame};
use crate::{clock, process_table};

/// Hosts and command lines at once.
const CLIENTS_MAX: usize = 64;
/// Between two tries to accept while there are no descriptors.
const ACCEPT_PAUSE_MS: u64 = 500;
/// Read from one client in one turn.
const READ_BYTES: usize = 64 * 1024;
/// Events wait for a slow reader up to here; then they are counted.
const EVENT_BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A client that asks on and reads nothing is disconnected here.
const BACKLOG_BYTES_MAX: usize = 2 * frame::KEEPER_BYTES_MAX;

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) last: u64,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    pub(super) is_greeted: bool,
    pub(super) events_missed: u64,
    /// What epoll watches.
    watched: epoll::EventFlags,
    /// Closed once the output is written, or at once if it cannot be.
    is_closing: bool,
}

// === impl Clients ===

impl Clients {
    pub(super) fn broadcast(&mut self, event: &Event) {
        let Ok(value) = serde_json::to_value(event) else {
            return;
        };
        let mut bytes = Vec::new();
        if frame::encode(&FromKeeper::Event(value), &mut bytes).is_err() {
            return;
        }
        for connection in self.connections.values_mut().filter(|it| it.is_greeted) {
            connection.queue_event(&bytes);
        }
    }

    /// Whether one more may connect; those that never greeted give way.
    fn make_room(&mut self) -> bool {
        if self.connections.len() < CLIENTS_MAX {
            return true;
        }
        let silent = self
            .connections
            .iter()
            .find(|(_, it)| !it.is_greeted)
            .map(|(client, _)| *client);
        silent.is_some_and(|client| self.connections.remove(&client).is_some())
    }

    pub(super) fn answer(&mut self, asker: Asker, result: Result<Reply, Failure>) {
        // The asker may be gone.
        if let Some(connection) = self.connections.get_mut(&asker.client) {
            connection.queue(&match result {
                Ok(reply) => FromKeeper::Reply(asker.id, Box::new(reply)),
                Err(failure) => FromKeeper::Failed(asker.id, failure),
            });
        }
    }
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            input: Vec::new(),
            output: Vec::new(),
            is_greeted: false,
            events_missed: 0,
            watched: epoll::EventFlags::IN,
            is_closing: false,
        }
    }

    fn queue(&mut self, message: &FromKeeper) {
        let before = self.output.len();
        let encoded = frame::encode(message, &mut self.output);
        let is_too_long = self.output.len() - before > frame::KEEPER_BYTES_MAX;
        if encoded.is_err() || is_too_long || self.output.len() > BACKLOG_BYTES_MAX {
            self.output.truncate(before);
            self.is_closing = true;
        }
    }

    fn queue_event(&mut self, bytes: &[u8]) {
        if self.events_missed > 0 || self.output.len() > EVENT_BACKLOG_BYTES_MAX {
            self.events_missed += 1;
        } else {
            self.output.extend_from_slice(bytes);
        }
    }

    /// Nothing is read from one that is being closed.
    fn wanted(&self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, !self.is_closing);
        flags.set(epoll::EventFlags::OUT, !self.output.is_empty());
        flags
    }

    /// Says why, then closes.
    fn dismiss(&mut self, failure: Failure) {
        self.queue(&FromKeeper::Goodbye(failure));
        self.input = Vec::new();
        self.is_closing = true;
    }

    /// Reads what is there, in one step. False: the other side is gone.
    fn read(&mut self) -> bool {
        let before = self.input.len();
        self.input.resize(before + READ_BYTES, 0);
        let result = recv(&self.socket, &mut self.input[before..], RecvFlags::DONTWAIT);
        let length = result.as_ref().map_or(0, |(length, _)| *length);
        self.input.truncate(before + length);
        match result {
            Ok(_) => length > 0,
            Err(error) => matches!(error, Errno::AGAIN | Errno::INTR),
        }
    }

    /// Writes what the socket takes. False: the other side is gone.
    fn write(&mut self) -> bool {
        let mut written = 0;
        let is_there = loop {
            if written == self.output.len() {
                break true;
            }
            match send(
                &self.socket,
                &self.output[written..],
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(length) => written += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break true,
                Err(_) => break false,
            }
        };
        self.output.drain(..written);
        if self.output.is_empty() {
            // A large answer is rare; its memory is not kept.
            self.output = Vec::new();
        }
        is_there
    }

    /// The next whole message.
    fn next_message(&mut self) -> Result<Option<FromHost>, Failure> {
        let violation = |text: String| Failure::new(FailureCode::ProtocolViolation, text);
        let end = frame::first(&self.input, frame::HOST_BYTES_MAX)
            .map_err(|error| violation(error.to_string()))?;
        let Some(end) = end else {
            return Ok(None);
        };
        let message = serde_json::from_slice(frame::body(&self.input[..end]));
        self.input.drain(..end);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        message
            .map(Some)
            .map_err(|error| violation(format!("that is no message: {error}")))
    }
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn accept_clients(&mut self) {
        loop {
            let socket = match accept_with(self.place.socket(), SocketFlags::CLOEXEC) {
                Ok(socket) => socket,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => return,
                Err(error) => return self.pause_accepting(error),
            };
            let own = rustix::process::geteuid();
            let Ok(peer) = sockopt::socket_peercred(&socket) else {
                continue;
            };
            if peer.uid != own && !peer.uid.is_root() {
                note("refused a connection of another user");
                continue;
            }
            // An instance that could ask for a start would be in no sandbox.
            let pid = peer.pid.as_raw_nonzero().get().unsigned_abs();
            if process_table::may_descend_from(pid, std::process::id()) {
                note(&format!(
                    "refused a connection of process {pid}, which is of an instance or gone"
                ));
                continue;
            }
            if !self.clients.make_room() {
                note("refused a connection: the limit of connections is reached");
                continue;
            }
            self.clients.last += 1;
            let client = self.clients.last;
            let flags = epoll::EventFlags::IN;
            if epoll::add(&self.poll, &socket, Token::Client(client).data(), flags).is_ok() {
                self.clients
                    .connections
                    .insert(client, Connection::new(socket));
            }
        }
    }

    /// Out of descriptors: whoever waits in the socket's queue is looked at later, not in a busy loop.
    fn pause_accepting(&mut self, error: Errno) {
        note(&format!("cannot accept connections: {error}"));
        self.watch_socket(epoll::EventFlags::empty());
        self.timers
            .set(clock::monotonic_ms() + ACCEPT_PAUSE_MS, Timer::Accept);
    }

    pub(super) fn watch_socket(&self, flags: epoll::EventFlags) {
        let socket = self.place.socket();
        if let Err(error) = epoll::modify(&self.poll, socket, Token::Socket.data(), flags) {
            note(&format!("cannot watch the socket: {error}"));
        }
    }

    pub(super) fn serve_client(&mut self, client: u64) {
        let Some(connection) = self.clients.connections.get_mut(&client) else {
            return;
        };
        if connection.is_closing {
            return;
        }
        if !connection.read() {
            self.clients.connections.remove(&client);
            return;
        }
        while let Some(connection) = self.clients.connections.get_mut(&client) {
            match connection.next_message() {
                Ok(Some(message)) => self.take_message(client, message),
                Ok(None) => return,
                Err(failure) => return connection.dismiss(failure),
            }
        }
    }

    fn take_message(&mut self, client: u64, message: FromHost) {
        let Some(connection) = self.clients.connections.get_mut(&client) else {
            return;
        };
        match message {
            FromHost::Hello(hello) => {
                connection.queue(&FromKeeper::Hello(Hello::own()));
                match hello.check() {
                    Ok(()) => connection.is_greeted = true,
                    Err(failure) => connection.dismiss(failure),
                }
            }
            FromHost::Request(..) if !connection.is_greeted => {
                let text = "the first message must be a greeting";
                connection.dismiss(Failure::new(FailureCode::ProtocolViolation, text));
            }
            FromHost::Request(id, request) => self.take_request(Asker { client, id }, request),
        }
    }

    fn take_request(&mut self, asker: Asker, request: Value) {
        match serde_json::from_value(request) {
            Ok(request) => self.request(asker, request),
            Err(error) => {
                let code = match error.to_string() {
                    text if text.starts_with("unknown variant") => FailureCode::RequestUnknown,
                    _ => FailureCode::InvalidRequest,
                };
                let failure = Failure::new(code, format!("the request is not understood: {error}"));
                self.clients.answer(asker, Err(failure));
            }
        }
    }

    /// Writes what waits, as far as the sockets take it.
    pub(super) fn flush_clients(&mut self) {
        let mut gone = Vec::new();
        for (client, connection) in &mut self.clients.connections {
            if connection.output.is_empty() && !connection.is_closing {
                continue;
            }
            let is_there = connection.write();
            let is_done = connection.output.is_empty();
            if is_done && connection.events_missed > 0 {
                let missed = std::mem::take(&mut connection.events_missed);
                if let Ok(value) = serde_json::to_value(Event::Lagged { missed }) {
                    connection.queue(&FromKeeper::Event(value));
                }
            }
            if !is_there || (is_done && connection.is_closing) {
                gone.push(*client);
                continue;
            }
            let wanted = connection.wanted();
            if wanted != connection.watched {
                connection.watched = wanted;
                let token = Token::Client(*client).data();
                if epoll::modify(&self.poll, &connection.socket, token, wanted).is_err() {
                    gone.push(*client);
                }
            }
        }
        for client in gone {
            self.clients.connections.remove(&client);
        }
    }
}
