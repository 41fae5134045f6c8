//! A house with the orchestrator in it: a real keeper, a real store, in a directory of its own.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alicia_bus::{Bus, BusAddress};
use alicia_contract::fleet::Fleet;
use alicia_contract::orchestrator::{FleetStatus, InstanceState, InstanceStatus};
use alicia_contract::platform::Scope;
use alicia_contract::topic::Prefix;
use alicia_identity::{Authority, Identity};
use alicia_module::module::Ending;
use alicia_module::spawn::Spawner;
use alicia_module::{Addresses, Clock, Context, Module, Paths};
use alicia_orchestrator::{Config, Orchestrator};
use alicia_store::Store;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

/// Whatever is awaited comes within this time, or the test has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Between two looks at what has no signal of its own.
const LOOK: Duration = Duration::from_millis(2);

/// One life of the host. Its keeper may outlive it; the directory holds both.
pub(crate) struct House {
    pub(crate) fleet: watch::Sender<Arc<Fleet>>,
    pub(crate) module: Arc<Orchestrator>,
    pub(crate) router: Router,
    pub(crate) paths: Paths,
    tasks: Spawner,
    store: Store,
    directory: Option<Arc<Home>>,
}

/// The directory, and the end of the keeper in it.
pub(crate) struct Home {
    directory: TempDir,
    pub(crate) bus: Option<BusAddress>,
}

impl Drop for Home {
    fn drop(&mut self) {
        // The keeper's own lock file has its pid; a keeper ends on SIGTERM with all that it holds.
        for pid in keeper_pids(self.directory.path()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // It may have ended by itself.
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
            }
        }
    }
}

/// Keepers of a directory, by their command line.
pub(crate) fn keeper_pids(directory: &Path) -> Vec<i32> {
    let wanted = directory.join("data/keeper").display().to_string();
    let entries = std::fs::read_dir("/proc").expect("/proc is there");
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains("--daemonise") && line.contains(&wanted)
        })
        .collect()
}

pub(crate) fn fleet(services: Value) -> Fleet {
    serde_json::from_value(json!({ "name": "test", "services": services })).expect("a fleet")
}

pub(crate) fn shell(script: &str) -> Value {
    json!(["sh", "-c", script])
}

impl Home {
    pub(crate) fn new() -> Arc<Self> {
        Self::with_bus(None)
    }

    pub(crate) fn with_bus(bus: Option<BusAddress>) -> Arc<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(directory.path().join("data")).expect("it can be made");
        Arc::new(Self { directory, bus })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl House {
    pub(crate) async fn new(services: Value) -> Self {
        Self::open(Home::new(), services, Config::default()).await
    }

    /// A host in a home that may have had one before.
    pub(crate) async fn open(home: Arc<Home>, services: Value, config: Config) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_orchestrator-test-keeper"));
        Self::open_with(home, services, config, program).await
    }

    /// A host whose keeper is this program.
    pub(crate) async fn open_with(
        home: Arc<Home>,
        services: Value,
        config: Config,
        program: PathBuf,
    ) -> Self {
        let data = home.path().join("data");
        let paths = Paths::new(&data, home.path());
        std::fs::create_dir_all(data.join("data")).expect("it can be made");
        let clock = Clock::system();
        let store = open_store(&paths, &clock).await;
        let identity = Authority::open(&paths.identity(), Prefix::default()).expect("opens");
        let fleet = Arc::new(fleet(services));
        identity.set_fleet(&fleet);
        let (fleet, fleet_out) = watch::channel(fleet);
        let (faults, _) = mpsc::channel(8);
        let tasks = Spawner::new(Orchestrator::NAME, faults);
        let addresses = Addresses::default();
        let bus_address = home.bus.clone().unwrap_or(BusAddress {
            host: "127.0.0.1".into(),
            port: 9,
        });
        addresses.announce_bus(bus_address);
        addresses.announce_api(([127, 0, 0, 1], 4000).into());
        let options =
            alicia_bus::Options::new(addresses.bus(), "system/orchestrator", Prefix::default());
        let (bus, connection) = Bus::start(options);
        tasks.spawn("bus", connection);
        let cx = Context {
            bus,
            store: store.clone(),
            clock: clock.clone(),
            identity,
            fleet: fleet_out,
            paths: paths.clone(),
            program,
            addresses,
            external_bus: None,
            desk: Default::default(),
            tasks: tasks.clone(),
            seed: u64::try_from(clock.unix_us()).expect("after 1970"),
        };
        let module = Arc::new(Orchestrator::start(cx, config).await.expect("starts"));
        let router = Orchestrator::routes().into_router(module.clone());
        Self {
            fleet,
            module,
            router,
            paths,
            tasks,
            store,
            directory: Some(home),
        }
    }

    /// The host dies: nothing is stopped in order.
    pub(crate) async fn crash(mut self) -> Arc<Home> {
        assert!(self.tasks.shut_down(DEADLINE).await);
        self.store.close().await;
        self.directory.take().expect("a home")
    }

    /// The house closes.
    pub(crate) async fn finish(&self) {
        self.module.stop(Ending::Finish).await;
        assert!(self.tasks.shut_down(DEADLINE).await);
    }

    /// The database goes away while the house goes on.
    pub(crate) async fn lose_database(&self) {
        self.store.close().await;
    }

    pub(crate) fn change(&self, services: Value) {
        self.fleet.send_replace(Arc::new(fleet(services)));
    }

    pub(crate) fn home(&self) -> Arc<Home> {
        self.directory.clone().expect("a home")
    }

    // Over REST.

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, text) = self.call(Request::get(path), Body::empty()).await;
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        self.call(Request::get(path), Body::empty()).await.1
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::post(path).header("content-type", "application/json");
        let (status, text) = self.call(request, Body::from(body.to_string())).await;
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    async fn call(
        &self,
        request: axum::http::request::Builder,
        body: Body,
    ) -> (StatusCode, String) {
        let admin = Identity::Key {
            name: "admin".into(),
            scope: Scope::Admin,
        };
        let request = request.extension(admin).body(body).expect("a request");
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("an answer");
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 16 << 20)
            .await
            .expect("a body");
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(crate) async fn status(&self) -> FleetStatus {
        let (status, body) = self.get("/status").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value(body).expect("a status")
    }

    pub(crate) async fn instance(&self, service: &str, slot: u32) -> Option<InstanceStatus> {
        let status = self.status().await;
        let service = status
            .services
            .into_iter()
            .find(|s| s.service.as_str() == service)?;
        service
            .instances
            .into_iter()
            .find(|instance| instance.slot == slot)
    }

    pub(crate) async fn state(&self, service: &str, slot: u32) -> Option<InstanceState> {
        self.instance(service, slot)
            .await
            .map(|instance| instance.state)
    }

    /// Waits until the instance is as wanted, and gives it.
    pub(crate) async fn until(
        &self,
        service: &str,
        slot: u32,
        wanted: impl Fn(&InstanceStatus) -> bool,
    ) -> InstanceStatus {
        let mut last = None;
        let found = timeout(DEADLINE, async {
            loop {
                last = self.instance(service, slot).await;
                match &last {
                    Some(instance) if wanted(instance) => return instance.clone(),
                    _ => sleep(LOOK).await,
                }
            }
        });
        let found = found.await;
        found.unwrap_or_else(|_| panic!("{service}-{slot} did not come there: {last:#?}"))
    }

    pub(crate) async fn until_running(&self, service: &str, slot: u32) -> InstanceStatus {
        self.until(service, slot, |instance| {
            instance.state == InstanceState::Running
        })
        .await
    }

    pub(crate) async fn pid(&self, service: &str, slot: u32) -> u32 {
        self.until_running(service, slot)
            .await
            .pid
            .expect("it has a process")
    }
}

/// The lock of a database that was just closed is held a moment longer when another test forks right then:
/// the child has all descriptors until it executes its program.
async fn open_store(paths: &Paths, clock: &Clock) -> Store {
    let mut store = None;
    eventually("the database opens", async || {
        let database = paths.database(Orchestrator::NAME);
        let options =
            alicia_store::Options::new(database, Orchestrator::MIGRATIONS, clock.for_store());
        match Store::open(options) {
            Err(alicia_store::Error::InUse { .. }) => false,
            opened => {
                store = Some(opened.expect("opens"));
                true
            }
        }
    })
    .await;
    store.expect("it was opened")
}

/// Waits until something is true.
pub(crate) async fn eventually(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_true().await {
            sleep(LOOK).await;
        }
    };
    within(what, waiting).await;
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

pub(crate) fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("it is there");
}

/// Whether a process is there and no zombie.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
