//! The module: start, reload, health, stop.

use std::sync::Arc;
use std::time::Duration;

use alicia_module::module::{Ending, Error, Health, Module, Reload};
use alicia_module::{Api, Context, Exposition};
use alicia_store::Migration;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::api;
use crate::archive;
use crate::bus::{self, Healths};
use crate::command::Commander;
use crate::config::Config;
use crate::core::plan::Selection;
use crate::deploy::{self, Deployer};
use crate::engine::{self, Engine, Handle, Input, Killed, Parts, record};
use crate::explain::Explainer;
use crate::history;
use crate::metrics::Counts;
use crate::store;

/// How long killed processes may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How long the keeper, which has nothing left to do, may take to end, and the records to be written.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// The orchestrator.
pub struct Orchestrator {
    pub(crate) cx: Context,
    pub(crate) handle: Handle,
    pub(crate) commander: Commander,
    pub(crate) deployer: Deployer,
    pub(crate) explainer: Explainer,
    pub(crate) healths: watch::Receiver<Healths>,
    /// How many may follow logs at once.
    pub(crate) followers: Arc<Semaphore>,
    archive: Arc<archive::Counts>,
    counts: Arc<Counts>,
    records: record::Sender,
    config: watch::Sender<Config>,
    selection: watch::Sender<Selection>,
}

impl std::fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orchestrator")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

impl Module for Orchestrator {
    const NAME: &'static str = "orchestrator";
    const MIGRATIONS: &'static [Migration] = store::MIGRATIONS;
    type Config = Config;

    async fn start(cx: Context, config: Config) -> Result<Self, Error> {
        let memory = store::load(&cx.store).await?;
        history::note_host(&cx);
        let counts = Arc::<Counts>::default();
        let records = record::start(&cx, &counts);
        let (selection, selected) = watch::channel(config.selection());
        let (newest, opening) = deploy::open(&cx).await?;
        if *cx.fleet.borrow() != opening.fleet {
            // What was deployed stays in force, and what was taken back stays away, whatever the file says.
            cx.desk.put(opening.fleet.clone()).await?;
        }
        let (told, hears) = engine::deployment::queue();
        let handle = Engine::start(Parts {
            cx: cx.clone(),
            memory,
            opening,
            selection: config.selection(),
            told,
            records: records.clone(),
            counts: counts.clone(),
        });
        let deployer = Deployer::new(cx.clone(), handle.clone(), selected.clone(), newest);
        let commander = Commander::new(cx.clone(), handle.clone(), selected);
        cx.spawn("deployments", deploy::follow(deployer.clone(), hears));
        cx.spawn(
            "newest deployment",
            deploy::announce(cx.clone(), deployer.follow_newest()),
        );
        cx.spawn("scaling", engine::scaling::run(cx.clone(), handle.clone()));
        cx.spawn(
            "on demand",
            engine::on_demand::watch_idle(cx.clone(), handle.clone()),
        );
        let (healths_in, healths) = watch::channel(Healths::new());
        cx.spawn(
            "status",
            bus::publish_status(cx.clone(), handle.published.clone()),
        );
        cx.spawn(
            "requests",
            bus::serve(cx.clone(), commander.clone(), deployer.clone()),
        );
        let explainer = Explainer::new(cx.clone(), handle.clone());
        cx.spawn("explain", bus::serve_explain(cx.clone(), explainer.clone()));
        cx.spawn("plan", bus::serve_plan(cx.clone(), deployer.clone()));
        cx.spawn("work", bus::follow_work(cx.clone(), handle.clone()));
        cx.spawn("spent", bus::follow_spent(cx.clone(), handle.clone()));
        cx.spawn("health", bus::follow_health(cx.clone(), healths_in));
        cx.spawn(
            "health in updates",
            engine::deployment::watch_health(handle.clone(), healths.clone()),
        );
        cx.spawn(
            "fleet",
            follow_fleet(cx.clone(), deployer.clone(), selection.subscribe()),
        );
        let config = watch::Sender::new(config);
        let archive = Arc::<archive::Counts>::default();
        let keeper = handle.keeper.clone();
        let (counted, limits) = (archive.clone(), config.subscribe());
        cx.spawn("logs", archive::run(cx.clone(), counted, limits, keeper));
        Ok(Self {
            cx,
            archive,
            handle,
            commander,
            deployer,
            explainer,
            healths,
            followers: Arc::new(Semaphore::new(api::logs::FOLLOWERS_MAX)),
            counts,
            records,
            config,
            selection,
        })
    }

    fn routes() -> Api<Arc<Self>> {
        api::routes()
    }

    fn health(&self) -> Health {
        match self.handle.trouble.borrow().as_ref() {
            None => match self.deployer.differs() {
                None => Health::Ok,
                Some(differs) => Health::Degraded(differs),
            },
            Some(reason) => Health::Degraded(format!(
                "the keeper is away: {reason}; nothing can be started or stopped"
            )),
        }
    }

    fn metrics(&self, out: &mut Exposition) {
        self.counts.write(&self.handle.published.borrow(), out);
        self.archive.write(out);
    }

    async fn reload(&self, config: Config) -> Result<Reload, Error> {
        self.selection.send_replace(config.selection());
        self.config.send_replace(config);
        Ok(Reload::Applied)
    }

    async fn stop(&self, ending: Ending) {
        if ending == Ending::Finish {
            self.finish().await;
        }
        if timeout(CLOSE_PATIENCE, self.records.flush()).await.is_err() {
            tracing::warn!("the last transitions were not written down in time");
        }
    }
}

// === impl Orchestrator ===

impl Orchestrator {
    /// Stops everything in reverse order, then the keeper, and says what had to be killed.
    async fn finish(&self) {
        let deadline = self.config.borrow().stop_deadline.duration();
        let stopping = self.handle.ask(Input::Shutdown);
        tokio::pin!(stopping);
        let killed = match timeout(deadline, &mut stopping).await {
            Ok(killed) => killed.unwrap_or_default(),
            Err(_) => {
                tracing::warn!(
                    ?deadline,
                    "not everything has ended in time: killing what is left"
                );
                if let Err(error) = self.handle.send(Input::ShutdownOverdue).await {
                    tracing::error!(%error, "nothing can be killed");
                }
                let rest = timeout(KILL_PATIENCE, stopping).await;
                rest.unwrap_or(Ok(Vec::new())).unwrap_or_default()
            }
        };
        for Killed {
            instance,
            processes,
        } in killed
        {
            tracing::warn!(instance, processes, "killed by force");
        }
        self.end_keeper().await;
        if let Err(error) = store::begin_anew(&self.cx.store).await {
            tracing::warn!(%error, "what was asked for by hand is still remembered");
        }
    }

    async fn end_keeper(&self) {
        self.handle.closing.cancel();
        let Some(keeper) = self.handle.keeper.borrow().clone() else {
            return;
        };
        if let Err(error) = keeper.shutdown(Duration::ZERO).await {
            tracing::warn!(%error, "the keeper was not asked to end");
            return;
        }
        let mut keeper = self.handle.keeper.clone();
        let gone = timeout(CLOSE_PATIENCE, keeper.wait_for(Option::is_none)).await;
        if gone.is_err() {
            tracing::warn!("the keeper has not ended");
        }
    }
}

/// Passes the file's changes, and those of what is selected, on to the engine.
async fn follow_fleet(cx: Context, deployer: Deployer, mut selection: watch::Receiver<Selection>) {
    let mut fleet = cx.fleet.clone();
    fleet.mark_changed();
    loop {
        tokio::select! {
            changed = fleet.changed() => {
                if changed.is_err() {
                    return;
                }
                let fleet = fleet.borrow_and_update().clone();
                deployer.heard(fleet).await;
            }
            changed = selection.changed() => {
                if changed.is_err() {
                    return;
                }
                selection.mark_unchanged();
                deployer.reselect().await;
            }
        }
    }
}
