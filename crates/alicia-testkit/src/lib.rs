//! For tests only: a real bus, store and context for one module.

#[cfg(feature = "house")]
pub mod house;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alicia_bus::conformance::Mosquitto;
use alicia_bus::{Bus, Hostility, Options};
use alicia_contract::fleet::Fleet;
use alicia_contract::topic::Prefix;
use alicia_identity::{Authority, Identity};
use alicia_module::spawn::{Spawner, TaskFault};
use alicia_module::{Addresses, Clock, Context, Ending, Health, Module, Paths};
use alicia_store::Store;
use axum::body::Body;
use axum::http::Request;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

/// Longer than anything a test waits for takes on a busy machine; only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The largest answer that a test reads.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A house for one module.
pub struct Bench {
    directory: TempDir,
    authority: Authority,
    addresses: Addresses,
    fleet: watch::Sender<Arc<Fleet>>,
    broker: Option<Mosquitto>,
    /// How deliveries to modules are disturbed.
    pub hostility: Option<Hostility>,
}

/// A module that runs. Dropped, its tasks end at their next await, as when the house is killed.
pub struct Running<M> {
    /// The module.
    pub module: Arc<M>,
    store: Store,
    tasks: Spawner,
    faults: mpsc::Receiver<TaskFault>,
}

// === impl Bench ===

impl Bench {
    /// A house without a bus.
    #[must_use]
    pub fn alone() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        std::fs::create_dir_all(&data).expect("a directory for databases");
        let identity = directory.path().join("identity");
        let authority = Authority::open(&identity, Prefix::default()).expect("identities");
        Self {
            directory,
            authority,
            addresses: Addresses::default(),
            fleet: watch::Sender::new(Arc::default()),
            broker: None,
            hostility: None,
        }
    }

    /// A house with a broker of its own; `None` where Mosquitto is not installed.
    pub async fn with_mosquitto() -> Option<Self> {
        Self::with_mosquitto_set("").await
    }

    /// As [`Self::with_mosquitto`], with more lines of its configuration.
    pub async fn with_mosquitto_set(more: &str) -> Option<Self> {
        let broker = Mosquitto::start(more).await?;
        let bench = Self::alone();
        bench.addresses.announce_bus(broker.address());
        Some(Self {
            broker: Some(broker),
            ..bench
        })
    }

    /// The broker.
    ///
    /// # Panics
    /// When the house has none.
    #[must_use]
    pub fn broker(&self) -> &Mosquitto {
        self.broker.as_ref().expect("this house has a broker")
    }

    /// Who answers for identities in this house.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The data directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Changes what should run.
    pub fn set_fleet(&self, fleet: Fleet) {
        self.authority.set_fleet(&fleet);
        self.fleet.send_replace(Arc::new(fleet));
    }

    /// Somebody else on the bus; spawned on the runtime of the test.
    ///
    /// # Panics
    /// When the house has no broker, or it cannot be reached.
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no context to spawn in"
    )]
    pub async fn client(&self, source: &str) -> Bus {
        let mut options = self.broker().options(source);
        options.client_id = format!("{}-client", source.replace('/', "-"));
        let (bus, connection) = Bus::start(options);
        tokio::spawn(connection);
        bus.connected(PATIENCE)
            .await
            .expect("the broker of the test is there");
        bus
    }

    /// Starts a module with this section of the file.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start<M: Module>(&self, config: M::Config) -> Running<M> {
        let (faults_in, faults) = mpsc::channel(8);
        let tasks = Spawner::new(M::NAME, faults_in);
        let context = self.context::<M>(&tasks);
        let store = context.store.clone();
        let module = M::start(context, config).await.expect("the module starts");
        Running {
            module: Arc::new(module),
            store,
            tasks,
            faults,
        }
    }

    fn context<M: Module>(&self, tasks: &Spawner) -> Context {
        let clock = Clock::system();
        let paths = Paths::new(self.path(), self.path());
        let database = paths.database(M::NAME);
        let store = Store::open(alicia_store::Options::new(
            database,
            M::MIGRATIONS,
            clock.for_store(),
        ))
        .expect("the module's database opens");
        let source = Identity::Module(M::NAME.to_owned()).to_string();
        let mut options = Options::new(self.addresses.bus(), source, Prefix::default());
        options.hostility = self.hostility;
        let (bus, connection) = Bus::start(options);
        tasks.spawn("bus", connection);
        Context {
            bus,
            store,
            clock,
            identity: self.authority.clone(),
            fleet: self.fleet.subscribe(),
            paths,
            program: "/bin/false".into(),
            addresses: self.addresses.clone(),
            external_bus: None,
            desk: Default::default(),
            tasks: tasks.clone(),
            seed: 1,
        }
    }
}

// === impl Running ===

impl<M: Module> Running<M> {
    /// Calls an operation as this caller, through the module's router and its access control. `None` as the
    /// caller: somebody without a key. Gives the status and the body.
    ///
    /// # Panics
    /// When the request cannot be made or the answer is no JSON.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        caller: Option<&Identity>,
        body: &Value,
    ) -> (u16, Value) {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(Body::from(text))
            .expect("a request");
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller.clone());
        }
        let router = M::routes().into_router(Arc::clone(&self.module));
        let response = router.oneshot(request).await.expect("routers do not fail");
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await;
        let bytes = bytes.expect("a body");
        let answer = if bytes.is_empty() {
            Ok(Value::Null)
        } else {
            serde_json::from_slice(&bytes)
        };
        (status, answer.expect("an answer in JSON"))
    }

    /// Calls an operation as the holder of an admin key; see [`Self::call`].
    pub async fn admin(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let name = "admin".to_owned();
        let scope = alicia_contract::platform::Scope::Admin;
        self.call(method, path, Some(&Identity::Key { name, scope }), body)
            .await
    }

    /// Waits until the module says that it is well.
    pub async fn is_well(&self) {
        until("the module is well", async || {
            self.module.health() == Health::Ok
        })
        .await;
    }

    /// Its metrics as a scraper reads them.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut out = alicia_module::Exposition::default();
        out.begin(M::NAME);
        self.module.metrics(&mut out);
        out.text()
    }

    /// Ends it in good order.
    ///
    /// # Panics
    /// When a task of it panicked or does not end.
    pub async fn stop(mut self) {
        self.module.stop(Ending::Finish).await;
        assert!(self.tasks.shut_down(PATIENCE).await, "a task does not end");
        assert_eq!(self.faults.try_recv().ok(), None, "a task panicked");
        self.store.close().await;
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waits = async {
        while !holds().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waits).await;
    assert!(in_time.is_ok(), "waited in vain until {what}");
}
