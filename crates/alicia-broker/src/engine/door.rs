//! The door: the broker's public listeners. Whoever comes in is identified here, under limits of
//! time and size, before the MQTT library behind it sees a single byte.
//!
//! ```text
//!  client ──▶ accept ──▶ (WebSocket) ──▶ CONNECT ≤ 64 KiB in 5 s ──▶ identity, client id, will
//!                                                                          │ yes       │ no
//!         ◀──────────────────── relay, frame by frame ◀── inner listener ◀─┘   CONNACK ┴▶ close
//! ```
//!
//! The library listens on a loopback port of its own and takes connections from the door only: the
//! door makes the port of each connection known before it sends anything over it, and the
//! authentication hook turns every other port away.

mod connect;
mod frame;
mod relay;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::connect::{Answer, AnswerCode, ConnectFault, Opening};
use self::relay::End;
use super::clients::{Admission, Client, Transport, code};
use super::core::{Core, count};
use super::topic;
use crate::authority::{Attempt, Login, Reason, Refusal, Refused, Subject};

/// How long to wait when accepting fails; it fails for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take to read why it was not let in.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Kernel buffers of the way from the library to the door: what a slow client leaves unread is to
/// stay in the session, where it is counted.
const INNER_BUFFER_BYTES: u32 = 128 * 1024;

/// What every connection needs.
pub(crate) struct Door {
    pub(crate) core: Arc<Core>,
    pub(crate) inner: SocketAddr,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) runtime: Handle,
}

/// Accepts connections until the task is dropped.
pub(crate) async fn listen(door: Arc<Door>, listener: TcpListener, transport: Transport) {
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(fault) => {
                tracing::warn!("failed to accept a connection: {fault}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        count(&door.core.counters.accepted);
        let Ok(slot) = Arc::clone(&door.slots).try_acquire_owned() else {
            door.refuse_stranger(
                peer,
                "",
                Refusal::new(Reason::TooManyConnections, "all connections are in use"),
            );
            continue;
        };
        let door_of_task = Arc::clone(&door);
        door.runtime.spawn(async move {
            door_of_task.serve(socket, peer, transport).await;
            drop(slot);
        });
    }
}

impl Door {
    async fn serve(&self, socket: TcpStream, peer: SocketAddr, transport: Transport) {
        if let Err(fault) = socket.set_nodelay(true) {
            tracing::debug!(%peer, "failed to set TCP_NODELAY: {fault}");
        }
        let limits = &self.core.limits;
        match transport {
            Transport::Tcp => {
                let mut stream = socket;
                let read =
                    timeout(limits.connect_timeout, connect::read(&mut stream, limits)).await;
                self.greet(stream, read.map_err(|_| ()), peer, transport)
                    .await;
            }
            Transport::WebSocket => {
                let opening = timeout(limits.connect_timeout, async {
                    let mut stream = websocket::accept(socket, limits.packet_bytes_max)
                        .await
                        .ok()?;
                    let read = connect::read(&mut stream, limits).await;
                    Some((stream, read))
                });
                match opening.await {
                    Ok(Some((stream, read))) => self.greet(stream, Ok(read), peer, transport).await,
                    Ok(None) => tracing::debug!(%peer, "no WebSocket client"),
                    Err(_) => self.too_slow(peer),
                }
            }
        }
    }

    async fn greet<S>(
        &self,
        stream: S,
        read: Result<Result<Opening, ConnectFault>, ()>,
        peer: SocketAddr,
        transport: Transport,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let opening = match read {
            Ok(Ok(opening)) => opening,
            Ok(Err(ConnectFault::Gone)) => return,
            Ok(Err(ConnectFault::Refused { refusal, answer })) => {
                self.refuse_stranger(peer, "", refusal);
                return say_no(stream, answer).await;
            }
            Err(()) => return self.too_slow(peer),
        };
        let level = opening.level;
        match self.admit(&opening, peer, transport) {
            Ok(admission) => self.connect(stream, admission, opening).await,
            Err(refusal) => say_no(stream, Some(Answer::to(&refusal, level))).await,
        }
    }

    /// Decides on a CONNECT. What is refused is counted here.
    fn admit(
        &self,
        opening: &Opening,
        peer: SocketAddr,
        transport: Transport,
    ) -> Result<Admission, Refusal> {
        let login = Login {
            client_id: &opening.client_id,
            username: opening.username.as_deref(),
            password: opening.password.as_deref(),
            peer,
        };
        let subject = self
            .core
            .authority
            .authenticate(&login)
            .inspect_err(|refusal| {
                self.refuse_stranger(peer, &opening.client_id, refusal.clone());
            })?;
        let client = Client::new(Arc::clone(&subject), peer, transport, opening.level);
        let checked = self.check_will(&*subject, opening).and_then(|()| {
            self.core
                .clients
                .admit(client, &opening.client_id, &self.core.limits)
        });
        checked.inspect_err(|refusal| {
            self.core.refusals.note(Refused {
                attempt: Attempt::Connect,
                identity: Some(Arc::clone(&subject.identity().name)),
                client_id: opening.client_id.clone(),
                peer,
                topic: opening.will.as_ref().map(|will| will.topic.clone()),
                refusal: refusal.clone(),
                unreported: 0,
            });
        })
    }

    /// A will is a publish that happens later: it needs the same permission.
    fn check_will(&self, subject: &dyn Subject, opening: &Opening) -> Result<(), Refusal> {
        let Some(will) = &opening.will else {
            return Ok(());
        };
        topic::check_name(&will.topic, &self.core.limits)?;
        subject.may_publish(&will.topic, will.retain)?;
        subject.check_payload(&will.topic, &will.payload)
    }

    /// Connects an admitted client with the library and serves it.
    async fn connect<S>(&self, mut stream: S, mut admission: Admission, opening: Opening)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let client = Arc::clone(&admission.client);
        let inner = match self.open_inner(&mut admission, &opening).await {
            Ok(inner) => inner,
            Err(fault) => {
                tracing::warn!("failed to reach the inner listener: {fault}");
                let answer = Answer {
                    level: opening.level,
                    code: AnswerCode::Unavailable,
                };
                if let Err(fault) = stream.write_all(&answer.encode()).await {
                    tracing::debug!("failed to answer a client: {fault}");
                }
                return;
            }
        };
        count(&self.core.counters.connected);
        let end = relay::run(&self.core, &client, stream, inner, opening.rest).await;
        let refusal = match end {
            End::Stuck => Refusal::new(Reason::StuckReader, "the client does not read"),
            End::Violation(code::PACKET_TOO_LARGE) => {
                Refusal::new(Reason::PacketTooLarge, "a packet is larger than allowed")
            }
            End::Violation(_) => Refusal::new(Reason::Malformed, "the stream is not MQTT"),
            End::ByClient | End::BySession | End::Told => return,
        };
        self.core.refuse(&client, Attempt::Stay, None, &refusal);
    }

    async fn open_inner(
        &self,
        admission: &mut Admission,
        opening: &Opening,
    ) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(INNER_BUFFER_BYTES)?;
        let mut inner = socket.connect(self.inner).await?;
        inner.set_nodelay(true)?;
        admission.enter(inner.local_addr()?.port());
        inner.write_all(&opening.packet).await?;
        Ok(inner)
    }

    fn too_slow(&self, peer: SocketAddr) {
        let refusal = Refusal::new(Reason::ConnectTimeout, "no CONNECT arrived in time");
        self.refuse_stranger(peer, "", refusal);
    }

    fn refuse_stranger(&self, peer: SocketAddr, client_id: &str, refusal: Refusal) {
        self.core.refusals.note(Refused {
            attempt: Attempt::Connect,
            identity: None,
            client_id: client_id.to_owned(),
            peer,
            topic: None,
            refusal,
            unreported: 0,
        });
    }
}

async fn say_no<S>(mut stream: S, answer: Option<Answer>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let said = timeout(ANSWER_WAIT, async {
        if let Some(answer) = answer {
            stream.write_all(&answer.encode()).await?;
        }
        stream.shutdown().await
    });
    let said = said.await;
    tracing::trace!(?said, "turned a client away");
}
