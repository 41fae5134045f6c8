//! A broker with a simple policy: the user name is the identity, everybody's password is "secret",
//! and everybody may use `open/#` and what begins with the own name.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alicia_broker::{
    Authority, Engine, EngineOptions, Identity, Limits, Login, MIGRATIONS, Observer, Reason,
    Refusal, Refused, Subject,
};
use alicia_store::{Options, Store};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Policy;

struct Person(Identity);

impl Authority for Policy {
    fn authenticate(&self, login: &Login<'_>) -> Result<Arc<dyn Subject>, Refusal> {
        match (login.username, login.password) {
            (Some(name), Some(b"secret")) => Ok(Arc::new(Person(Identity::named(name)))),
            _ => Err(Refusal::new(
                Reason::BadCredentials,
                "wrong name or password",
            )),
        }
    }
}

impl Person {
    fn check(&self, topic: &str) -> Result<(), Refusal> {
        let first = topic.split('/').next().unwrap_or_default();
        if first == "open" || first == &*self.0.name || &*self.0.name == "admin" {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::NotAuthorized,
            format!("{} may not use {topic}", self.0.name),
        ))
    }
}

impl Subject for Person {
    fn identity(&self) -> &Identity {
        &self.0
    }

    fn may_publish(&self, topic: &str, _: bool) -> Result<(), Refusal> {
        self.check(topic)
    }

    fn may_subscribe(&self, filter: &str) -> Result<(), Refusal> {
        self.check(filter)
    }

    fn check_payload(&self, _: &str, payload: &[u8]) -> Result<(), Refusal> {
        let envelope: Option<serde_json::Value> = serde_json::from_slice(payload).ok();
        match envelope
            .as_ref()
            .and_then(|envelope| envelope.get("source"))
        {
            Some(source) if source.as_str() != Some(&self.0.name) => Err(Refusal::new(
                Reason::ForgedSource,
                format!("claims to be {source}"),
            )),
            _ => Ok(()),
        }
    }
}

/// Keeps what was reported.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Vec<Refused>>);

impl Observer for Heard {
    fn refused(&self, refused: &Refused) {
        self.0.lock().unwrap().push(refused.clone());
    }
}

pub(crate) struct House {
    pub(crate) engine: Engine,
    pub(crate) heard: Arc<Heard>,
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::start(limits, None).await
    }

    /// With a database in the directory.
    pub(crate) async fn lasting(directory: &Path) -> Self {
        let clock = Arc::new(|| 1_700_000_000_000_000);
        let options = Options::new(directory.join("broker.db"), MIGRATIONS, clock);
        Self::start(Limits::default(), Some(Store::open(options).unwrap())).await
    }

    async fn start(limits: Limits, store: Option<Store>) -> Self {
        let heard = Arc::new(Heard::default());
        let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let options = EngineOptions {
            tcp: any,
            websocket: any,
            limits,
            store,
        };
        let observer: Arc<dyn Observer> = heard.clone();
        let engine = Engine::start(options, Arc::new(Policy), observer)
            .await
            .unwrap();
        Self { engine, heard }
    }

    /// Ends everything; the database can be opened again.
    pub(crate) async fn stop(self) {
        self.engine.stop().await;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.engine.tcp_address().unwrap()
    }

    pub(crate) async fn refused(&self, reason: Reason) -> u64 {
        let stats = self.engine.stats().await;
        stats
            .refused
            .iter()
            .find(|(other, _)| *other == reason)
            .map_or(0, |(_, count)| *count)
    }

    pub(crate) fn reports(&self) -> Vec<Refused> {
        self.heard.0.lock().unwrap().clone()
    }
}

/// Waits until something is so.
pub(crate) async fn until<F, Fut>(what: &str, mut so: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let waiting = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "waited in vain until {what}"
    );
}
