//! The host as a whole: lock, identity, listener, house; then it waits for orders and signals.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use alicia_bus::{Bus, BusAddress};
use alicia_contract::fleet::Fleet;
use alicia_contract::platform::HostFile;
use alicia_file::Fault;
use alicia_identity::Authority;
use alicia_module::{Addresses, Clock, Ending, ExternalBus, Paths, Spec};
use alicia_store::Store;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::audit::HOST;
use crate::audit::checkpoint::Witness;
use crate::audit::keys::AuditKeys;
use crate::audit::record::Recorder;
use crate::desk::{self, Desk};
use crate::directory;
use crate::file::Loaded;
use crate::house::{House, LandParts};
use crate::http::{self, AuditDesk, Guard, Order, Platform, Stop};
use crate::lock::{self, HostLock};
use crate::renewal::{self, Renewal};
use crate::settings::Settings;

/// The name of the module that is off when the bus is somebody else's. The one name that the host knows: the
/// setting `bus.url` means "not ours".
const BROKER: &str = "broker";

/// The name under which the host itself speaks on the bus.
const IDENTITY: &str = "identity";

/// The module that starts instances.
const ORCHESTRATOR: &str = "orchestrator";

/// Orders that may wait.
const ORDERS_MAX: usize = 16;

/// The name under which checkpoints of the audit log are told on the bus.
const AUDIT: &str = "audit";

/// Where a keeper listens, in its directory.
const KEEPER_SOCKET: &str = "keeper.sock";

/// How long the last checkpoint of the audit log may take when the host ends.
const WITNESS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// What a host is made of.
pub struct HostOptions {
    /// The list of modules, in the order of their start.
    pub modules: &'static [Spec],
    /// The checked file.
    pub loaded: Loaded,
    /// The data directory.
    pub data: PathBuf,
    /// The program file of Alicia itself.
    pub program: PathBuf,
    /// Reads the file again, or checks another text in its place.
    pub reread: Box<Reread>,
    /// The pages of error codes: code and text.
    pub error_pages: &'static [(&'static str, &'static str)],
    /// Time.
    pub clock: Clock,
    /// Set for single modules on the bus of another host.
    pub alone: Option<Alone>,
}

/// Single modules in a process of their own (`alicia run`): they share keys and data directory with the host
/// and leave its lock and its `host.json` alone. Their routes stand at the root too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alone {
    /// The modules.
    pub modules: Vec<String>,
    /// The bus of the host that they belong to; none: `bus.url` of the file.
    pub bus: Option<BusAddress>,
}

/// Reads the file again; with a text, checks that as if it stood in the file.
pub type Reread = dyn Fn(Option<String>) -> Result<Loaded, Vec<Fault>> + Send + Sync;

/// A host that runs.
pub struct Host {
    house: House,
    orders: mpsc::Receiver<Order>,
    orders_in: mpsc::Sender<Order>,
    reread: Arc<Reread>,
    identity: Authority,
    paths: Paths,
    addresses: Addresses,
    api: SocketAddr,
    tasks: TaskTracker,
    listening: CancellationToken,
    clock: Clock,
    /// Ends the witness of the audit log, which answers when it has seen the last rows.
    witness: Option<tokio::sync::oneshot::Sender<tokio::sync::oneshot::Sender<()>>>,
    /// The host's own database: its rows of the audit log.
    store: Store,
    recorder: Recorder,
    _lock: HostLock,
}

impl Host {
    /// Starts everything. On return REST answers and every module of the file works.
    ///
    /// # Errors
    /// The first thing that failed, saying what to do; what had started has been stopped.
    pub async fn start(options: HostOptions) -> Result<Self, Error> {
        let HostOptions {
            modules,
            loaded,
            data,
            program,
            reread,
            error_pages,
            clock,
            alone,
        } = options;
        let loaded = loaded.kept_beside(&Fleet::default());
        let key_file = loaded.settings.secrets.key_file.as_ref();
        let vault_key = key_file.map(|path| loaded.base.join(path));
        let paths = Paths::new(data, &loaded.base).with_vault_key(vault_key);
        let lock = lock::take(&paths, alone.as_ref())?;
        let settings = &loaded.settings;
        let witness_clock = clock.clone();
        let vault = alicia_secrets::Vault::open(&paths.secrets(), paths.vault_key())?;
        let audit_keys = open_audit_keys(&paths)?;
        let store = open_store(&paths, &clock, alone.as_ref(), audit_keys.hashing.clone())?;
        let (recorder, record_refusals) = Recorder::new(store.clone(), clock.clone());
        let identity = Authority::open(&paths.identity(), settings.bus.prefix.clone())?;
        identity.ensure_admin_key(&paths.admin_key(), clock.unix())?;
        identity.set_settings(&settings.identity);
        identity.set_fleet(&loaded.fleet);
        identity.started(clock.unix());
        let listener = listen(settings.http.listen).await?;
        let api = listener
            .local_addr()
            .expect("a bound socket has an address");
        let addresses = Addresses::default();
        addresses.announce_api(api);
        let external_bus = match alone.as_ref().and_then(|alone| alone.bus.clone()) {
            Some(bus) => {
                addresses.announce_bus(bus);
                None
            }
            None => external_bus(settings, &addresses)?,
        };
        let (desk, desk_orders) = alicia_module::desk::Desk::open();
        let reread: Arc<Reread> = Arc::from(reread);
        let land = LandParts {
            clock: clock.clone(),
            identity: identity.clone(),
            paths: paths.clone(),
            program,
            addresses: addresses.clone(),
            external_bus,
            audit_key: audit_keys.hashing,
            desk,
        };
        let wanted = enabled(modules, settings, alone.as_ref());
        let (house, faults) = House::new(wanted, land, loaded.clone());
        let (orders_in, orders) = mpsc::channel(ORDERS_MAX);
        let checkpoints = settings.audit.checkpoints.as_ref();
        let checkpoints = checkpoints.map_or_else(
            || paths.audit().join("checkpoints.jsonl"),
            |path| loaded.base.join(path),
        );
        let (last, last_checkpoint) = tokio::sync::watch::channel(None);
        let audit_desk = AuditDesk {
            recorder,
            databases: paths.database("x").with_file_name(""),
            checkpoints: checkpoints.clone(),
            keys: paths.audit(),
            last_checkpoint,
        };
        let platform = Platform {
            house: house.clone(),
            identity: identity.clone(),
            clock: clock.clone(),
            addresses: addresses.clone(),
            openapi: Arc::new(http::openapi(modules)),
            error_pages,
            open_metrics: settings.http.open_metrics,
            is_alone: alone.is_some(),
            credentials: paths.credentials(),
            orders: orders_in.clone(),
            audit: audit_desk.clone(),
            vault,
        };
        let guard = Guard::new(identity.clone(), clock.clone(), settings.http.hosts.clone());
        let (tasks, listening) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(record_refusals);
        // Credentials are renewed, and keys made known, where instances are started.
        let starts_instances =
            |alone: &Alone| alone.modules.iter().any(|name| name == ORCHESTRATOR);
        if alone.as_ref().is_none_or(starts_instances) {
            let socket = renewal::bind(&paths).map_err(|source| Error::Renewal {
                path: paths.renewal_socket(),
                source,
            })?;
            let serving = Renewal::new(identity.clone(), clock.clone());
            tasks.spawn(serving.serve(socket, listening.clone()));
            let (bus, connection) = Bus::start(house.bus_options(IDENTITY));
            tasks.spawn(connection);
            let publishing = directory::publish(bus, identity.clone(), clock, listening.clone());
            tasks.spawn(publishing);
        }
        tasks.spawn(http::serve(
            listener,
            http::site(platform, guard),
            listening.clone(),
        ));
        // Modules ask while they start.
        tasks.spawn(
            Desk {
                house: house.clone(),
                reread: reread.clone(),
                orders: desk_orders,
            }
            .run(),
        );
        let mut host = Self {
            house: house.clone(),
            orders,
            orders_in,
            reread,
            identity,
            paths,
            addresses,
            api,
            tasks,
            listening,
            clock: witness_clock,
            witness: None,
            store: store.clone(),
            recorder: audit_desk.recorder.clone(),
            _lock: lock,
        };
        // Instances that an earlier host started go on, also when this one cannot begin.
        let unwound = match host.has_keeper() {
            true => Ending::Leave,
            false => Ending::Finish,
        };
        if let Err(error) = house.start(unwound).await {
            host.close().await;
            return Err(error);
        }
        host.tasks.spawn(house.clone().watch(faults));
        if alone.is_none() {
            let (bus, connection) = Bus::start(house.bus_options(AUDIT));
            host.tasks.spawn(connection);
            let (end_witness, ended) = tokio::sync::oneshot::channel();
            host.witness = Some(end_witness);
            let witness = Witness {
                house,
                store,
                clock: host.clock.clone(),
                key: audit_keys.signing,
                databases: audit_desk.databases,
                file: checkpoints,
                bus: Some(bus),
                last,
            };
            host.tasks.spawn(witness.run(ended));
            host.write_down();
        }
        Ok(host)
    }

    /// The address of REST.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// The address of the bus, once it is known.
    #[must_use]
    pub fn bus(&self) -> Option<BusAddress> {
        self.addresses.bus().borrow().clone()
    }

    /// Who is asked about keys.
    #[must_use]
    pub fn identity(&self) -> &Authority {
        &self.identity
    }

    /// A handle that asks the running host to end or to reload, for signals.
    #[must_use]
    pub fn handle(&self) -> HostHandle {
        HostHandle {
            orders: self.orders_in.clone(),
        }
    }

    /// Carries out orders until one of them is to end; then ends.
    pub async fn run(mut self) {
        let stop = loop {
            match self.orders.recv().await {
                Some(Order::Stop(stop)) => break stop,
                Some(Order::Reload(answer)) => {
                    let outcome = self.reload().await;
                    // Nobody waits any more: the reload is done all the same.
                    drop(answer.send(outcome));
                }
                None => break Stop::default(),
            }
        };
        let ending = if stop.leave_running {
            Ending::Leave
        } else {
            Ending::Finish
        };
        self.house.stop(ending).await;
        self.recorder.settle().await;
        self.end_witness().await;
        self.close().await;
    }

    /// The last rows get a witness, unless the disk keeps us waiting.
    async fn end_witness(&mut self) {
        let (done, seen) = tokio::sync::oneshot::channel();
        if let Some(end) = self.witness.take()
            && end.send(done).is_ok()
        {
            drop(tokio::time::timeout(WITNESS_PATIENCE, seen).await);
        }
    }

    async fn reload(&self) -> Result<BTreeMap<String, String>, Vec<String>> {
        let loaded = desk::read(&self.reread, None)
            .await
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let in_force = self.house.fleet().services.len();
        if loaded.fleet.services.is_empty() && in_force > 0 {
            return Err(vec![format!(
                "the file has no services, and {in_force} are in force: `alicia deploy --allow-empty` ends and removes \
                 them, if that is meant"
            )]);
        }
        let loaded = loaded.kept_beside(&self.house.loaded().fleet);
        let told = self.house.reload(loaded).await;
        tracing::info!(?told, "the file was read again");
        Ok(told
            .into_iter()
            .map(|(module, outcome)| (module.to_owned(), outcome))
            .collect())
    }

    /// Whether a keeper holds instances already.
    fn has_keeper(&self) -> bool {
        let socket = self.paths.keeper().join(KEEPER_SOCKET);
        std::os::unix::net::UnixStream::connect(socket).is_ok()
    }

    async fn close(&self) {
        self.listening.cancel();
        lock::remove_host_file(&self.paths.host_file());
        self.store.close().await;
        self.tasks.close();
        // The watcher of panics ends with the process; only the listener is waited for, and it has a limit.
        tokio::task::yield_now().await;
    }

    fn write_down(&self) {
        let found = HostFile {
            pid: std::process::id(),
            api: format!("http://{}", self.api),
            bus: self.bus().map(|bus| bus.to_string()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            directory: Some(self.paths.base().display().to_string()),
        };
        if let Err(error) = lock::write_host_file(&self.paths.host_file(), &found) {
            tracing::warn!(%error, "could not write host.json; commands need --api and --key");
        }
    }
}

/// Asks a running host.
#[derive(Clone)]
pub struct HostHandle {
    orders: mpsc::Sender<Order>,
}

impl HostHandle {
    /// Asks it to end, with or without the services.
    pub async fn stop(&self, leave_running: bool) {
        // A host that no longer takes orders is ending already.
        drop(self.orders.send(Order::Stop(Stop { leave_running })).await);
    }

    /// Asks it to read the file again; the outcome is in the log.
    pub async fn reload(&self) {
        let (answer, told) = tokio::sync::oneshot::channel();
        if self.orders.send(Order::Reload(answer)).await.is_ok()
            && let Ok(Err(faults)) = told.await
        {
            for fault in faults {
                tracing::error!(%fault, "the file was not taken over");
            }
        }
    }
}

/// The host's own database. Single modules have one of their own: the host that they belong to may run beside them.
fn open_store(
    paths: &Paths,
    clock: &Clock,
    alone: Option<&Alone>,
    key: alicia_store::audit::Key,
) -> Result<Store, Error> {
    let name = match alone {
        None => HOST.to_owned(),
        Some(alone) => format!("{HOST}-{}", alone.modules.join("-")),
    };
    let options = alicia_store::Options::new(paths.database(&name), &[], clock.for_store());
    Store::open(options.audit_key(key)).map_err(|source| Error::Store {
        module: HOST,
        source: Box::new(source),
    })
}

fn open_audit_keys(paths: &Paths) -> Result<AuditKeys, Error> {
    AuditKeys::open(&paths.audit()).map_err(|source| Error::Audit {
        path: paths.audit(),
        source,
    })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    if !address.ip().is_loopback() {
        return Err(Error::NotLoopback(address));
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })
}

fn external_bus(settings: &Settings, addresses: &Addresses) -> Result<Option<ExternalBus>, Error> {
    let Some(url) = &settings.bus.url else {
        return Ok(None);
    };
    addresses.announce_bus(url.parse::<BusAddress>()?);
    let username = settings.bus.username.clone();
    Ok(Some(ExternalBus {
        username,
        password_file: settings.bus.password_file.clone(),
    }))
}

fn enabled(modules: &[Spec], settings: &Settings, alone: Option<&Alone>) -> Vec<Spec> {
    let is_on = |module: &&Spec| match alone {
        Some(alone) => alone.modules.iter().any(|name| name == module.name),
        None => {
            let is_replaced = module.name == BROKER && settings.bus.url.is_some();
            settings.is_enabled(module.name) && !is_replaced
        }
    };
    modules.iter().filter(is_on).copied().collect()
}
