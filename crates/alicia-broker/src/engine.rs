//! The broker behind a small interface. Everything that knows the MQTT library (`rmqtt`) is in this
//! folder; another library is another folder.
//!
//! ```text
//!            engine::door            rmqtt                     engine::hooks
//!  client ─▶ CONNECT, limits ─tcp─▶ sessions, QoS, routing ──▶ may this be published, subscribed?
//!                                          │
//!                                   engine::delivery: one budget of bytes per session
//! ```
//!
//! The engine runs on threads of its own: what is stuck or panics in there harms no module, and
//! stopping it ends every task that the library started.

mod accounts;
mod clients;
mod clock;
mod core;
mod delivery;
mod door;
mod fitting;
mod hooks;
mod limits;
mod pace;
mod packet;
mod refusals;
mod retained;
mod shares;
mod topic;
mod vault;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use alicia_store::Store;
use rmqtt::context::ServerContext;
use rmqtt::net::Builder;
use rmqtt::retain::DefaultRetainStorage;
use rmqtt::router::DefaultRouter;
use rmqtt::server::MqttServer;
use rmqtt::session::Session;
use rmqtt::shared::DefaultShared;
use rmqtt::subscribe::DefaultSharedSubscription;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;

use self::clients::Client;
pub use self::clients::Transport;
use self::core::{Core, Counters};
use self::door::Door;
pub use self::limits::Limits;
pub use self::vault::MIGRATIONS;
use crate::authority::{Authority, Observer, Reason};

/// Threads of the engine, at most: routing is cheap, and the house needs the other cores.
const THREADS_MAX: usize = 4;
/// How long clients may take to leave when the engine stops.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// How often it is looked whether they have left.
const STOP_POLL: Duration = Duration::from_millis(10);
/// The id of the only inner listener.
const LISTENER_ID: u16 = 1;

/// Where the broker listens, and its limits.
#[derive(Clone, Default)]
pub struct EngineOptions {
    /// MQTT over TCP; port 0 takes any free port.
    pub tcp: Option<SocketAddr>,
    /// MQTT over WebSocket.
    pub websocket: Option<SocketAddr>,
    /// Everything that is limited.
    pub limits: Limits,
    /// Where retained messages and sessions are kept; without it they end with the process. Its
    /// migrations are [`MIGRATIONS`].
    pub store: Option<Store>,
}

/// What can go wrong with the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// An address cannot be listened on.
    #[error(
        "listen for MQTT on {address}; set `broker.listen` in the file, or end what listens there"
    )]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The store cannot be read.
    #[error("read retained messages and sessions")]
    Store(#[from] alicia_store::Error),
    /// The library's own listener cannot be opened.
    #[error("open the broker's inner listener: {0}")]
    Inner(String),
    /// The threads cannot be started.
    #[error("start the broker's threads")]
    Threads(#[source] io::Error),
}

/// One client id with a connection or a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// The client id.
    pub client_id: String,
    /// The name of the identity that it belongs to.
    pub identity: Arc<str>,
    /// Where it connects from; none while it is away.
    pub peer: Option<SocketAddr>,
    /// How it connects; none while it is away.
    pub transport: Option<Transport>,
    /// 5, or 4 for 3.1.1 and 3.1.
    pub protocol_level: u8,
    /// When it connected last, in milliseconds since 1970.
    pub connected_ms: i64,
    /// Messages published over this connection.
    pub published: u64,
    /// Messages sent over this connection.
    pub delivered: u64,
    /// The filters it has subscribed to, sorted; without `$share/<group>/`.
    pub subscriptions: Vec<String>,
    /// Messages that wait for it, or were sent and not acknowledged.
    pub queued_messages: usize,
    /// Their bytes, overhead included.
    pub queued_bytes: usize,
}

/// The engine in numbers, since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Open connections.
    pub connections: usize,
    /// Client ids with a connection or a session.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained_messages: usize,
    /// Their bytes.
    pub retained_bytes: usize,
    /// Connections accepted, before anything was known about them.
    pub accepted: u64,
    /// Connections let in.
    pub connected: u64,
    /// Messages published by clients, refused ones included.
    pub published: u64,
    /// Messages sent to clients.
    pub delivered: u64,
    /// Messages dropped because their receiver's queue was full.
    pub dropped_full: u64,
    /// Messages dropped because they were larger than their receiver takes.
    pub dropped_oversized: u64,
    /// Messages dropped because their time was over.
    pub dropped_expired: u64,
    /// Messages dropped for any other reason, such as the end of a session.
    pub dropped_other: u64,
    /// How often a client was slowed down.
    pub throttled: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Refusals by reason.
    pub refused: Vec<(Reason, u64)>,
}

impl Stats {
    /// Dropped messages by reason.
    pub fn dropped(&self) -> [(&'static str, u64); 4] {
        [
            ("full", self.dropped_full),
            ("oversized", self.dropped_oversized),
            ("expired", self.dropped_expired),
            ("other", self.dropped_other),
        ]
    }
}

/// A running broker.
pub struct Engine {
    core: Arc<Core>,
    scx: ServerContext,
    runtime: Mutex<Option<Runtime>>,
    tcp: Option<SocketAddr>,
    websocket: Option<SocketAddr>,
    inner: SocketAddr,
    slots: Arc<Semaphore>,
}

impl Engine {
    /// Starts a broker.
    ///
    /// # Errors
    /// An address is taken, or the system gives no threads or sockets.
    pub async fn start(
        options: EngineOptions,
        authority: Arc<dyn Authority>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, EngineError> {
        let runtime = threads()?;
        let limits = options.limits.clone();
        let core = Arc::new(Core {
            refusals: refusals::Refusals::new(observer, limits.report_interval),
            limits,
            authority,
            clients: Arc::default(),
            accounts: accounts::Accounts::default(),
            retained: retained::Retained::default(),
            counters: Counters::default(),
            vault: OnceLock::new(),
        });
        let handle = runtime.handle().clone();
        let slots = Arc::new(Semaphore::new(core.limits.connections_max));
        let places = Places {
            core: Arc::clone(&core),
            slots: Arc::clone(&slots),
        };
        let opening = handle.spawn(open(places, options, handle.clone()));
        let opened = opening
            .await
            .map_err(|fault| EngineError::Inner(fault.to_string()))?;
        match opened {
            Ok((scx, inner, tcp, websocket)) => Ok(Self {
                core,
                scx,
                runtime: Mutex::new(Some(runtime)),
                tcp,
                websocket,
                inner,
                slots,
            }),
            Err(fault) => {
                runtime.shutdown_background();
                Err(fault)
            }
        }
    }

    /// The address of the TCP listener.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// The address of the WebSocket listener.
    pub fn websocket_address(&self) -> Option<SocketAddr> {
        self.websocket
    }

    /// The address of the library's own listener, which serves the door only.
    pub fn inner_address(&self) -> SocketAddr {
        self.inner
    }

    /// All client ids with a session, sorted.
    pub async fn clients(&self) -> Vec<ClientInfo> {
        let shared = self.scx.extends.shared().await;
        let sessions: Vec<Session> = shared.iter().filter_map(|entry| entry.session()).collect();
        drop(shared);
        let mut clients = Vec::with_capacity(sessions.len());
        for session in &sessions {
            clients.push(self.describe(session).await);
        }
        clients.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        clients
    }

    async fn describe(&self, session: &Session) -> ClientInfo {
        let id = &session.id;
        let client = self.core.clients.of(id);
        let client = client.as_deref();
        let count = |counter: fn(&Client) -> &AtomicU64| {
            client.map_or(0, |client| counter(client).load(Ordering::Relaxed))
        };
        let subscriptions = session.subscriptions().await.unwrap_or_default();
        let mut subscriptions: Vec<String> = subscriptions
            .read()
            .await
            .keys()
            .map(ToString::to_string)
            .collect();
        subscriptions.sort_unstable();
        let inflight = session.out_inflight().read().await.len();
        let account = self.core.accounts.get(&id.client_id);
        ClientInfo {
            client_id: id.client_id.to_string(),
            identity: self.core.clients.owner(&id.client_id).unwrap_or_default(),
            peer: client.map(|client| client.peer),
            transport: client.map(|client| client.transport),
            protocol_level: session.protocol().await.unwrap_or_default(),
            connected_ms: session.connected_at().await.unwrap_or_default(),
            published: count(|client| &client.published),
            delivered: count(|client| &client.delivered),
            subscriptions,
            queued_messages: session.deliver_queue().len() + inflight,
            queued_bytes: account.map_or(0, |account| account.held_bytes()),
        }
    }

    /// Ends the connections of a client id; how many there were. The session lives on.
    pub fn disconnect_client(&self, client_id: &str) -> usize {
        self.disconnect(|client| client.client_id() == client_id)
    }

    /// Ends the connections of an identity; how many there were.
    pub fn disconnect_identity(&self, name: &str) -> usize {
        self.disconnect(|client| &*client.identity.name == name)
    }

    /// Ends the connections of all who may not act any more; how many there were.
    pub fn disconnect_fenced(&self) -> usize {
        self.disconnect(|client| client.subject.may_act().is_err())
    }

    fn disconnect(&self, which: impl Fn(&Client) -> bool) -> usize {
        let chosen = self
            .core
            .clients
            .all()
            .into_iter()
            .filter(|client| which(client));
        chosen
            .inspect(|client| client.end(clients::code::ADMINISTRATIVE_ACTION))
            .count()
    }

    /// The names of those who are connected, each once.
    pub fn identities(&self) -> Vec<Arc<str>> {
        self.core.clients.identities()
    }

    /// Writes to the store that failed since the start.
    pub fn write_faults(&self) -> u64 {
        self.core.vault.get().map_or(0, |vault| vault.faults())
    }

    /// The engine in numbers.
    pub async fn stats(&self) -> Stats {
        let subscriptions = self.scx.extends.shared().await.subscriptions_count().await;
        Stats {
            subscriptions,
            ..self.numbers()
        }
    }

    /// The engine in numbers, without those that take time: `subscriptions` is 0.
    pub fn numbers(&self) -> Stats {
        let counters = &self.core.counters;
        let (retained_messages, retained_bytes) = self.core.retained.size();
        Stats {
            connections: self.core.clients.connections(),
            sessions: self.core.clients.sessions(),
            subscriptions: 0,
            retained_messages,
            retained_bytes,
            accepted: counters.accepted.load(Ordering::Relaxed),
            connected: counters.connected.load(Ordering::Relaxed),
            published: counters.published.load(Ordering::Relaxed),
            delivered: counters.delivered.load(Ordering::Relaxed),
            dropped_full: counters.dropped_full.load(Ordering::Relaxed),
            dropped_oversized: counters.dropped_oversized.load(Ordering::Relaxed),
            dropped_expired: counters.dropped_expired.load(Ordering::Relaxed),
            dropped_other: counters.dropped_other.load(Ordering::Relaxed),
            throttled: counters.throttled.load(Ordering::Relaxed),
            bytes_in: counters.bytes_in.load(Ordering::Relaxed),
            bytes_out: counters.bytes_out.load(Ordering::Relaxed),
            refused: self.core.refusals.counts(),
        }
    }

    /// Says goodbye to all clients and ends everything; a second time does nothing.
    pub async fn stop(&self) {
        self.slots.close();
        for client in self.core.clients.all() {
            client.end(clients::code::SERVER_SHUTTING_DOWN);
        }
        let left = tokio::time::timeout(STOP_WAIT, async {
            while self.core.clients.connections() > 0 {
                tokio::time::sleep(STOP_POLL).await;
            }
        });
        if left.await.is_err() {
            tracing::warn!(
                "{} clients did not leave in time",
                self.core.clients.connections()
            );
        }
        self.remember().await;
        let Some(runtime) = self.take_runtime() else {
            return;
        };
        self.let_go(runtime.handle()).await;
        let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(STOP_WAIT));
        if let Err(fault) = ended.await {
            tracing::warn!("failed to end the broker's threads: {fault}");
        }
    }

    fn take_runtime(&self) -> Option<Runtime> {
        self.runtime
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Cuts the circles of references that the library is built of, so that the store is closed and
    /// the memory is free. Runs on the engine's threads: sessions need them to end.
    async fn let_go(&self, runtime: &Handle) {
        let scx = self.scx.clone();
        let cut = runtime.spawn(async move {
            *scx.extends.shared_mut().await = Box::new(DefaultShared::new(None));
            *scx.extends.router_mut().await = Box::new(DefaultRouter::new(None));
            *scx.extends.retain_mut().await = Box::new(DefaultRetainStorage::new());
            *scx.extends.shared_subscription_mut().await = Box::new(DefaultSharedSubscription);
        });
        if let Err(fault) = cut.await {
            tracing::warn!("failed to let go of the library: {fault}");
        }
    }

    /// Writes down how far each session has come, and that from now on nothing is forgotten.
    async fn remember(&self) {
        let Some(vault) = self.core.vault.get() else {
            return;
        };
        let shared = self.scx.extends.shared().await;
        for entry in shared.iter() {
            let lasts = self.core.accounts.get(&entry.id().client_id);
            if let Some(session) = entry
                .session()
                .filter(|_| lasts.is_some_and(|a| a.lasting()))
            {
                hooks::remember_absence(vault, &session).await;
            }
        }
        drop(shared);
        vault.close().await;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.take_runtime() {
            runtime.shutdown_background();
        }
    }
}

fn threads() -> Result<Runtime, EngineError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(THREADS_MAX))
        .thread_name("broker")
        .enable_all()
        .build()
        .map_err(EngineError::Threads)
}

type Opened = (
    ServerContext,
    SocketAddr,
    Option<SocketAddr>,
    Option<SocketAddr>,
);

/// What connections share.
struct Places {
    core: Arc<Core>,
    slots: Arc<Semaphore>,
}

/// Starts the library and the door; runs on the engine's threads.
async fn open(
    Places { core, slots }: Places,
    options: EngineOptions,
    runtime: Handle,
) -> Result<Opened, EngineError> {
    let tcp = bind(options.tcp).await?;
    let websocket = bind(options.websocket).await?;
    let scx = ServerContext::new().busy_check_enable(false).build().await;
    *scx.extends.shared_mut().await =
        Box::new(delivery::Delivery::new(scx.clone(), Arc::clone(&core)));
    *scx.extends.retain_mut().await = Box::new(retained::Storage::new(Arc::clone(&core)));
    *scx.extends.fitter_mgr_mut().await = Box::new(fitting::Fittings::new(&core.limits));
    *scx.extends.shared_subscription_mut().await =
        Box::new(shares::LeastLoaded::new(Arc::clone(&core)));
    hooks::register(&scx, &core).await;

    let inner = settings(&core.limits)
        .bind()
        .and_then(|listener| listener.tcp());
    let inner = inner.map_err(|fault| EngineError::Inner(fault.to_string()))?;
    if let Some(store) = options.store {
        let vault = vault::restore(store, &scx, &core, &inner.cfg).await?;
        runtime.spawn(Arc::clone(&vault).sweep());
        core.vault.get_or_init(|| vault);
    }
    let address = inner
        .local_addr()
        .map_err(|fault| EngineError::Inner(fault.to_string()))?;
    let server = MqttServer::new(scx.clone())
        .listener_by_id(inner, LISTENER_ID)
        .build();
    runtime.spawn(async move {
        if let Err(fault) = server.run().await {
            tracing::error!("failed to run the inner listener: {fault}");
        }
    });

    let door = Arc::new(Door {
        slots,
        core,
        inner: address,
        runtime: runtime.clone(),
    });
    let addresses = (address_of(tcp.as_ref()), address_of(websocket.as_ref()));
    for (listener, transport) in [(tcp, Transport::Tcp), (websocket, Transport::WebSocket)] {
        if let Some(listener) = listener {
            runtime.spawn(door::listen(Arc::clone(&door), listener, transport));
        }
    }
    Ok((scx, address, addresses.0, addresses.1))
}

async fn bind(address: Option<SocketAddr>) -> Result<Option<TcpListener>, EngineError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await;
    listener
        .map(Some)
        .map_err(|source| EngineError::Listen { address, source })
}

fn address_of(listener: Option<&TcpListener>) -> Option<SocketAddr> {
    listener.and_then(|listener| listener.local_addr().ok())
}

/// The library's own limits; what it cannot limit well is limited by the door and the hooks.
fn settings(limits: &Limits) -> Builder {
    Builder::new()
        .name("inner")
        .laddr(([127, 0, 0, 1], 0).into())
        .nodelay(true)
        .tcp_keepalive(false)
        .allow_anonymous(false)
        .max_connections(limits.connections_max)
        .max_handshaking_limit(limits.connections_max)
        .max_packet_size(limits.packet_bytes_max)
        .max_inflight(NonZeroU16::new(limits.inflight_max).unwrap_or(NonZeroU16::MIN))
        .handshake_timeout(limits.connect_timeout)
        // The door notices a stuck client first and knows what to say about it.
        .send_timeout(limits.write_stall_max * 2)
        .max_mqueue_len(limits.queue_messages_max)
        .max_clientid_len(0)
        .max_topic_levels(0)
        .session_expiry_interval(limits.session_expiry_max)
        .max_session_expiry_interval(limits.session_expiry_max)
        // MQTT 5, 4.4: messages are sent again after a reconnect and at no other time.
        .message_retry_interval(Duration::ZERO)
        // A message without an expiry interval does not expire.
        .message_expiry_interval(Duration::ZERO)
        .max_topic_aliases(limits.topic_aliases_max)
}
