//! The host's side of the socket, on tokio.
//!
//! [`Client::connect`] returns three parts: the [`Client`] asks, [`Events`] hears, and [`Connection`] moves
//! the bytes between them; the caller spawns [`Connection::run`]. The connection ends when the keeper
//! goes away or when every `Client` is dropped.

mod connection;
mod start;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::protocol::{
    Event, Exit, Hello, InstanceInfo, ListenerInfo, Reply, Request, StartSpec, Stats, StopSpec,
    Target,
};
use crate::socket;

pub use connection::Connection;

/// The keeper answers from memory or after one `exec`; this is for one that is stopped or lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that wait for the socket; more make the callers wait.
const REQUESTS_QUEUED_MAX: usize = 256;
/// Events that wait for the host. A fleet of 1,000 that dies at once makes 2,000.
const EVENTS_QUEUED_MAX: usize = 4_096;

/// A connected keeper, in three parts.
#[derive(Debug)]
pub struct Session {
    /// Asks. Can be cloned.
    pub client: Client,
    /// Hears.
    pub events: Events,
    /// To be spawned: `spawn(connection.run())`.
    pub connection: Connection,
}

/// Asks the keeper. Cheap to clone.
///
/// Dropping the future of a request takes nothing back: the keeper does it all the same.
#[derive(Debug, Clone)]
pub struct Client {
    requests: mpsc::Sender<Call>,
    keeper: Hello,
}

/// What the keeper tells, in order.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
}

/// Everything that the keeper holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// In order of start.
    pub instances: Vec<InstanceInfo>,
    /// In order of name.
    pub listeners: Vec<ListenerInfo>,
}

/// How a stop went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// How the leader ended.
    pub exit: Exit,
    /// How many processes had to be killed by force.
    pub killed: u32,
}

/// A request on its way to the connection.
#[derive(Debug)]
struct Call {
    request: Value,
    reply: oneshot::Sender<Result<Reply>>,
}

// === impl Client ===

impl Client {
    /// Connects to the keeper of a directory.
    ///
    /// # Errors
    /// [`Error::NotRunning`] where none listens (a socket that a dead keeper left counts as none);
    /// [`Error::Refused`] where the keeper speaks another major version.
    pub async fn connect(directory: &Path) -> Result<Session> {
        let stream = dial(directory).await?;
        let (requests, calls) = mpsc::channel(REQUESTS_QUEUED_MAX);
        let (sender, receiver) = mpsc::channel(EVENTS_QUEUED_MAX);
        let greeting = connection::greet(stream, calls, sender);
        let (keeper, connection) = timeout(ANSWER_TIMEOUT, greeting)
            .await
            .map_err(|_| Error::TimedOut(ANSWER_TIMEOUT))??;
        Ok(Session {
            client: Self { requests, keeper },
            events: Events { receiver },
            connection,
        })
    }

    /// Connects, and starts a keeper first where none runs: `program arguments…` must start one that
    /// detaches itself ([`Options::daemonise`](crate::Options)) and return when it listens.
    ///
    /// # Errors
    /// As [`Client::connect`], and [`Error::NotStarted`].
    pub async fn connect_or_start(
        directory: &Path,
        program: &Path,
        arguments: &[String],
    ) -> Result<Session> {
        start::connect_or_start(directory, program, arguments).await
    }

    /// What the keeper said of itself when the connection was made.
    pub fn keeper(&self) -> &Hello {
        &self.keeper
    }

    /// Everything that the keeper holds.
    pub async fn list(&self) -> Result<Listing> {
        match self.ask(&Request::List).await? {
            Reply::Listed {
                instances,
                listeners,
            } => Ok(Listing {
                instances,
                listeners,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Starts a process; returns when its program is executed.
    pub async fn start(&self, spec: StartSpec) -> Result<InstanceInfo> {
        match self.ask(&Request::Start(Box::new(spec))).await? {
            Reply::Started(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a signal to an instance.
    pub async fn signal(&self, instance: &str, signal: i32, target: Target) -> Result<()> {
        self.done(&Request::Signal {
            instance: instance.into(),
            signal,
            target,
        })
        .await
    }

    /// Stops an instance; returns when no process of it is left, however long its grace period is.
    pub async fn stop(&self, spec: StopSpec) -> Result<Stopped> {
        match self.ask_patiently(&Request::Stop(spec)).await? {
            Reply::Stopped { exit, killed } => Ok(Stopped { exit, killed }),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets the exit record of a run go.
    pub async fn forget(&self, instance: &str, run: u64) -> Result<()> {
        self.done(&Request::Forget {
            instance: instance.into(),
            run,
        })
        .await
    }

    /// Has the keeper bind a TCP address and hold it.
    pub async fn listen(&self, name: &str, address: &str) -> Result<ListenerInfo> {
        match self
            .ask(&Request::Listen {
                name: name.into(),
                address: address.into(),
            })
            .await?
        {
            Reply::Listening(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    /// Has the keeper close a held socket.
    pub async fn unlisten(&self, name: &str) -> Result<()> {
        self.done(&Request::Unlisten { name: name.into() }).await
    }

    /// Has the keeper tell once, by [`Event::ListenerReady`], when somebody connects to a held socket that
    /// no instance serves.
    pub async fn watch_listener(&self, name: &str) -> Result<()> {
        self.done(&Request::WatchListener { name: name.into() })
            .await
    }

    /// Ends everything: the keeper stops all instances, each within its own grace period and this
    /// limit, and ends. Returns how many still ran when it began; the end is seen as the end of the
    /// connection.
    pub async fn shutdown(&self, grace: Duration) -> Result<u32> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        match self.ask(&Request::Shutdown { grace_ms }).await? {
            Reply::ShuttingDown { running } => Ok(running),
            other => Err(unexpected(&other)),
        }
    }

    /// The keeper about itself.
    pub async fn stats(&self) -> Result<Stats> {
        match self.ask(&Request::Stats).await? {
            Reply::Stats(stats) => Ok(stats),
            other => Err(unexpected(&other)),
        }
    }

    /// Has the keeper become another program in place. `arguments` are those of a plain start.
    pub async fn upgrade(&self, program: &Path, arguments: &[String]) -> Result<Hello> {
        let program = program.to_string_lossy().into_owned();
        match self
            .ask(&Request::Upgrade {
                program,
                arguments: arguments.to_vec(),
            })
            .await?
        {
            Reply::Upgraded(hello) => Ok(hello),
            other => Err(unexpected(&other)),
        }
    }

    async fn done(&self, request: &Request) -> Result<()> {
        match self.ask(request).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Reply> {
        timeout(ANSWER_TIMEOUT, self.ask_patiently(request))
            .await
            .map_err(|_| Error::TimedOut(ANSWER_TIMEOUT))?
    }

    async fn ask_patiently(&self, request: &Request) -> Result<Reply> {
        let request =
            serde_json::to_value(request).map_err(|error| Error::Protocol(error.to_string()))?;
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(Call { request, reply })
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

// === impl Events ===

impl Events {
    /// The next event; `None` when the connection is closed. May be dropped and called again without
    /// loss. After [`Event::Lagged`] the host lists again.
    pub async fn next(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }
}

async fn dial(directory: &Path) -> Result<UnixStream> {
    let address = socket::Address::of(directory).map_err(|_| not_running(directory))?;
    UnixStream::connect(address.path())
        .await
        .map_err(|_| not_running(directory))
}

fn not_running(directory: &Path) -> Error {
    Error::NotRunning {
        directory: PathBuf::from(directory),
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::Protocol(format!(
        "that reply does not belong to the request: {reply:?}"
    ))
}
