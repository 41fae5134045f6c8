//! One module's place in the house, and the land that all stand on.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use alicia_bus::{Bus, Keys, PasswordSource, Signing};
use alicia_contract::fleet::Fleet;
use alicia_identity::{Authority, Identity};
use alicia_module::context::system_seed;
use alicia_module::desk::Desk;
use alicia_module::spawn::{Spawner, TaskFault};
use alicia_module::{Addresses, Clock, Context, Ending, ExternalBus, Paths, Reload, Running, Spec};
use alicia_store::Store;
use axum::Router;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{RESTART_WINDOW, RESTARTS_MAX, View};
use crate::Error;

/// How long a module's tasks may take to notice that it ended.
const TASKS_PATIENCE: Duration = Duration::from_secs(5);

/// What every module of the house shares.
#[derive(Clone)]
pub(crate) struct LandParts {
    pub(crate) clock: Clock,
    pub(crate) identity: Authority,
    pub(crate) paths: Paths,
    pub(crate) program: PathBuf,
    pub(crate) addresses: Addresses,
    pub(crate) external_bus: Option<ExternalBus>,
    /// Hashes what looks like a secret in audit rows.
    pub(crate) audit_key: alicia_store::audit::Key,
    pub(crate) desk: Desk,
}

/// From which contexts are made.
pub(crate) struct Land {
    parts: LandParts,
    fleet: watch::Receiver<Arc<Fleet>>,
    faults: mpsc::Sender<TaskFault>,
}

impl Land {
    pub(crate) fn new(
        parts: LandParts,
        fleet: watch::Receiver<Arc<Fleet>>,
        faults: mpsc::Sender<TaskFault>,
    ) -> Self {
        Self {
            parts,
            fleet,
            faults,
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.parts.clock
    }

    pub(crate) fn identity(&self) -> &Authority {
        &self.parts.identity
    }

    /// A context for one module, with its own connection, database and tasks.
    fn context(&self, spec: &Spec) -> Result<Context, Error> {
        let LandParts {
            clock,
            identity,
            paths,
            program,
            addresses,
            external_bus,
            audit_key,
            desk,
        } = self.parts.clone();
        let options = alicia_store::Options::new(
            paths.database(spec.name),
            spec.migrations,
            clock.for_store(),
        )
        .audit_key(audit_key);
        let store = Store::open(options).map_err(|source| Error::Store {
            module: spec.name,
            source: Box::new(source),
        })?;
        let tasks = Spawner::new(spec.name, self.faults.clone());
        let (bus, connection) = Bus::start(self.bus_options(spec.name));
        tasks.spawn("bus", connection);
        let seed = system_seed(&clock);
        let fleet = self.fleet.clone();
        Ok(Context {
            bus,
            store,
            clock,
            identity,
            fleet,
            paths,
            program,
            addresses,
            external_bus,
            desk,
            tasks,
            seed,
        })
    }

    /// The options of a connection as `system/<module>`.
    pub(crate) fn bus_options(&self, module: &str) -> alicia_bus::Options {
        let who = Identity::Module(module.to_owned());
        let prefix = self.parts.identity.prefix().clone();
        let mut options =
            alicia_bus::Options::new(self.parts.addresses.bus(), who.to_string(), prefix);
        options.signing = self.signing(module);
        match &self.parts.external_bus {
            None => {
                options.password = PasswordSource::Fixed(self.parts.identity.issue_token(&who));
            }
            Some(ExternalBus {
                username,
                password_file,
            }) => {
                options.username = username.clone().unwrap_or_default();
                options.password = password_file
                    .clone()
                    .map_or(PasswordSource::None, PasswordSource::File);
            }
        }
        options
    }
}

impl Land {
    /// A module signs with a key of its own, which is new with each start of it.
    fn signing(&self, module: &str) -> Option<Signing> {
        let (identity, now) = (self.parts.identity.clone(), self.parts.clock.unix());
        match identity.module_signer(module, now) {
            Ok(signer) => Some(Signing::new(Some(signer), Arc::new(House(identity)), now)),
            Err(error) => {
                tracing::error!(module, %error, "the module has no key to sign with");
                None
            }
        }
    }
}

/// The keys of the house, as the bus asks for them.
struct House(Authority);

impl Keys for House {
    fn known_key(&self, kid: &str) -> Option<alicia_signature::KnownKey> {
        self.0.known_key(kid)
    }

    fn policy(&self) -> alicia_contract::identity::SignaturePolicy {
        self.0.signature_policy()
    }
}

/// One module's place.
pub(crate) struct Slot {
    spec: Spec,
    section: Value,
    life: Option<Life>,
    failed: Option<String>,
    since: f64,
    restarts: u32,
    /// When the last panics happened, oldest first.
    panics: VecDeque<Instant>,
}

/// A module that runs, and what ends with it.
struct Life {
    running: Arc<dyn Running>,
    router: Router,
    pages: Option<Router>,
    tasks: Spawner,
    store: Store,
}

impl Slot {
    pub(crate) fn new(spec: Spec) -> Self {
        Self {
            spec,
            section: Value::Null,
            life: None,
            failed: None,
            since: 0.0,
            restarts: 0,
            panics: VecDeque::new(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.spec.name
    }

    pub(crate) async fn start(&mut self, land: &Land, section: Value) -> Result<(), Error> {
        self.section = section;
        let context = land.context(&self.spec)?;
        let (tasks, store) = (context.tasks.clone(), context.store.clone());
        match (self.spec.start)(context, self.section.clone()).await {
            Ok(running) => {
                let (router, pages) = (running.router(), running.pages());
                self.life = Some(Life {
                    running,
                    router,
                    pages,
                    tasks,
                    store,
                });
                self.failed = None;
                self.since = land.clock().unix();
                tracing::info!(module = self.name(), "started");
                Ok(())
            }
            Err(source) => {
                tasks.shut_down(TASKS_PATIENCE).await;
                store.close().await;
                Err(Error::Module {
                    module: self.name(),
                    source,
                })
            }
        }
    }

    pub(crate) async fn stop(&mut self, ending: Ending) {
        let Some(life) = self.life.take() else { return };
        life.running.stop(ending).await;
        self.clear(life).await;
        tracing::info!(module = self.name(), "stopped");
    }

    async fn clear(&self, life: Life) {
        if !life.tasks.shut_down(TASKS_PATIENCE).await {
            tracing::warn!(
                module = self.name(),
                "tasks went on after the end of their module"
            );
        }
        life.store.close().await;
    }

    /// Ends what is left after a panic. `false`: nothing ran.
    pub(crate) async fn end_after_panic(&mut self) -> bool {
        let Some(life) = self.life.take() else {
            return false;
        };
        // The panic may have left its state half changed: it is left alone, not asked to end in good order.
        self.clear(life).await;
        true
    }

    /// Starts again after a panic, unless that happened too often.
    pub(crate) async fn start_again_after(&mut self, land: &Land, fault: &TaskFault) {
        let now = land.clock().now();
        self.panics.retain(|at| now - *at < RESTART_WINDOW);
        self.panics.push_back(now);
        let why = format!("task {} panicked: {}", fault.task, fault.message);
        if self.panics.len() >= RESTARTS_MAX {
            tracing::error!(module = self.name(), %why, "given up: too many panics");
            self.failed = Some(format!(
                "given up after {RESTARTS_MAX} panics; the last: {why}"
            ));
            return;
        }
        self.restarts += 1;
        tracing::warn!(module = self.name(), %why, restarts = self.restarts, "starting again");
        let section = self.section.clone();
        if let Err(error) = self.start(land, section).await {
            let why = alicia_module::api::error::chain(&error);
            tracing::error!(module = self.name(), %why, "could not start again");
            self.failed = Some(why);
        }
    }

    /// Gives the module a new section; `None` when nothing changed for it.
    pub(crate) async fn reload(
        &mut self,
        land: &Land,
        section: Value,
    ) -> Result<Option<Reload>, alicia_module::Error> {
        let Some(life) = &self.life else {
            return Ok(None);
        };
        if section == self.section {
            return Ok(None);
        }
        let outcome = life.running.reload(section.clone()).await?;
        match outcome {
            Reload::Applied => self.section = section,
            Reload::Restart => {
                let before = std::mem::take(&mut self.section);
                self.stop(Ending::Leave).await;
                if let Err(error) = self.start(land, section).await {
                    // The old section worked: rather that than nothing.
                    self.start(land, before).await?;
                    return Err(error.into());
                }
            }
        }
        Ok(Some(outcome))
    }

    pub(crate) fn view(&self) -> View {
        let life = self.life.as_ref();
        View {
            name: self.spec.name,
            running: life.map(|life| life.running.clone()),
            router: life.map(|life| life.router.clone()).unwrap_or_default(),
            pages: life.and_then(|life| life.pages.clone()),
            store: life.map(|life| life.store.clone()),
            failed: self.failed.clone(),
            since: self.since,
            restarts: self.restarts,
        }
    }
}
