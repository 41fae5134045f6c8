//! The modules' lives: start in the order of the list, restart after a panic within limits, reload, stop in
//! reverse.
//!
//! ```text
//!            start                panic, fewer than 5 in 60 s
//!  (off) ───────────▶ running ◀──────────────────────────────┐
//!    ▲                 │   │ ──────────────────────────────▶ restarting
//!    └──── stop ───────┘   └── panic, 5th in 60 s ─▶ failed (the house stays up)
//! ```

mod slot;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::platform::{HostHealth, ModuleStatus, PartHealth};
use alicia_module::spawn::TaskFault;
use alicia_module::{Ending, Exposition, Health, Reload, Running, Spec};
use arc_swap::ArcSwap;
use axum::Router;
use tokio::sync::{Mutex, mpsc, watch};

use crate::Error;
use crate::file::Loaded;
pub(crate) use slot::LandParts;
use slot::{Land, Slot};

/// More panics than this within [`RESTART_WINDOW`] and a module is given up (OTP calls it intensity).
pub const RESTARTS_MAX: usize = 5;

/// The time in which panics are counted.
pub const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// How many panics may wait to be looked at; more say nothing new.
const FAULTS_WAITING_MAX: usize = 64;

/// All modules of one host. Cheap to clone.
#[derive(Clone)]
pub struct House {
    inner: Arc<Inner>,
}

struct Inner {
    land: Land,
    slots: Mutex<Vec<Slot>>,
    view: ArcSwap<Vec<View>>,
    fleet: watch::Sender<Arc<alicia_contract::fleet::Fleet>>,
    /// What was put in force last.
    loaded: ArcSwap<Loaded>,
    started: tokio::time::Instant,
}

/// What others see of a module, without waiting for its life.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) name: &'static str,
    pub(crate) running: Option<Arc<dyn Running>>,
    pub(crate) router: Router,
    pub(crate) pages: Option<Router>,
    store: Option<alicia_store::Store>,
    failed: Option<String>,
    since: f64,
    restarts: u32,
}

impl House {
    /// A house with these modules, none of which runs yet. Gives the queue of panics for [`House::watch`].
    pub(crate) fn new(
        modules: Vec<Spec>,
        land: LandParts,
        loaded: Arc<Loaded>,
    ) -> (Self, mpsc::Receiver<TaskFault>) {
        let (faults, heard) = mpsc::channel(FAULTS_WAITING_MAX);
        let (fleet, fleet_view) = watch::channel(Arc::new(loaded.fleet.clone()));
        let started = land.clock.now();
        let land = Land::new(land, fleet_view, faults);
        let slots = modules.into_iter().map(Slot::new).collect();
        let inner = Inner {
            land,
            slots: Mutex::new(slots),
            view: ArcSwap::default(),
            fleet,
            loaded: ArcSwap::from(loaded),
            started,
        };
        (
            Self {
                inner: Arc::new(inner),
            },
            heard,
        )
    }

    /// Starts every module in the order of the list.
    ///
    /// # Errors
    /// The first that does not start; those before it are stopped again, in the way of `unwound`.
    pub(crate) async fn start(&self, unwound: Ending) -> Result<(), Error> {
        let mut slots = self.inner.slots.lock().await;
        for at in 0..slots.len() {
            let section = self.loaded().section(slots[at].name());
            if let Err(error) = slots[at].start(&self.inner.land, section).await {
                for slot in slots[..=at].iter_mut().rev() {
                    slot.stop(unwound).await;
                }
                return Err(error);
            }
            self.publish(&slots);
        }
        Ok(())
    }

    /// Restarts modules that panic, until the queue closes.
    pub(crate) async fn watch(self, mut faults: mpsc::Receiver<TaskFault>) {
        let mut waiting = VecDeque::new();
        loop {
            let next = match waiting.pop_front() {
                Some(fault) => Some(fault),
                None => faults.recv().await,
            };
            let Some(fault) = next else { return };
            let mut slots = self.inner.slots.lock().await;
            let slot = slots.iter_mut().find(|slot| slot.name() == fault.module);
            if let Some(slot) = slot
                && slot.end_after_panic().await
            {
                waiting.extend(std::iter::from_fn(|| faults.try_recv().ok()));
                forget_those_with(&fault, &mut waiting);
                slot.start_again_after(&self.inner.land, &fault).await;
            }
            self.publish(&slots);
        }
    }

    /// The options of a connection to the bus as `system/<module>`.
    pub(crate) fn bus_options(&self, module: &str) -> alicia_bus::Options {
        self.inner.land.bus_options(module)
    }

    /// What was put in force last.
    pub(crate) fn loaded(&self) -> Arc<Loaded> {
        self.inner.loaded.load_full()
    }

    /// Tells every module what should run.
    pub(crate) fn put_fleet(&self, fleet: &Arc<alicia_contract::fleet::Fleet>) {
        self.inner.land.identity().set_fleet(fleet);
        self.inner.fleet.send_replace(fleet.clone());
    }

    /// Gives every module its part of a new file. A module that refuses goes on with what it had.
    pub(crate) async fn reload(&self, loaded: Arc<Loaded>) -> BTreeMap<&'static str, String> {
        let identity = self.inner.land.identity();
        identity.set_settings(&loaded.settings.identity);
        self.put_fleet(&Arc::new(loaded.fleet.clone()));
        self.inner.loaded.store(loaded.clone());
        let mut slots = self.inner.slots.lock().await;
        let mut told = BTreeMap::new();
        for slot in slots.iter_mut() {
            let outcome = match slot
                .reload(&self.inner.land, loaded.section(slot.name()))
                .await
            {
                Ok(None) => continue,
                Ok(Some(Reload::Applied)) => "applied".to_owned(),
                Ok(Some(Reload::Restart)) => "restarted".to_owned(),
                Err(error) => format!("refused: {}", alicia_module::api::error::chain(&*error)),
            };
            told.insert(slot.name(), outcome);
        }
        self.publish(&slots);
        told
    }

    /// Stops every module, last started first.
    pub(crate) async fn stop(&self, ending: Ending) {
        let mut slots = self.inner.slots.lock().await;
        for slot in slots.iter_mut().rev() {
            slot.stop(ending).await;
        }
        self.publish(&slots);
    }

    pub(crate) fn views(&self) -> Arc<Vec<View>> {
        self.inner.view.load_full()
    }

    /// What should run, as last put in force.
    pub(crate) fn fleet(&self) -> Arc<alicia_contract::fleet::Fleet> {
        self.inner.fleet.borrow().clone()
    }

    /// The databases of the modules that run.
    pub(crate) fn stores(&self) -> Vec<(String, alicia_store::Store)> {
        let views = self.views();
        let stores = views
            .iter()
            .filter_map(|view| Some((view.name.to_owned(), view.store.clone()?)));
        stores.collect()
    }

    fn publish(&self, slots: &[Slot]) {
        self.inner
            .view
            .store(Arc::new(slots.iter().map(Slot::view).collect()));
    }

    /// How the house is: the worst of its modules.
    #[must_use]
    pub fn health(&self) -> HostHealth {
        let modules: Vec<ModuleStatus> = self.views().iter().map(View::status).collect();
        let failed = modules
            .iter()
            .any(|module| matches!(module.health, PartHealth::Failed(_)));
        let degraded = modules.iter().any(|module| module.health != PartHealth::Ok);
        let status = match (failed, degraded) {
            (true, _) => "failed",
            (_, true) => "degraded",
            _ => "ok",
        };
        HostHealth {
            status: status.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.uptime().as_secs_f64(),
            modules,
        }
    }

    /// The text of `/metrics`.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut out = Exposition::default();
        let views = self.views();
        out.begin("host");
        out.gauge(
            "uptime_seconds",
            "Seconds since the host started.",
            &[],
            self.uptime().as_secs_f64(),
        );
        for view in views.iter() {
            let up = f64::from(u8::from(view.running.is_some()));
            let labels = [("module", view.name)];
            out.gauge("module_up", "Whether the module runs.", &labels, up);
            let restarts = f64::from(view.restarts);
            let help = "Restarts of the module after a panic.";
            out.counter("module_restarts_total", help, &labels, restarts);
        }
        for view in views.iter() {
            if let Some(running) = &view.running {
                out.begin(view.name);
                running.metrics(&mut out);
            }
        }
        out.text()
    }

    fn uptime(&self) -> Duration {
        self.inner.land.clock().now() - self.inner.started
    }
}

/// Several tasks of a module that fall over the same thing are one panic, and not one for each life that follows.
fn forget_those_with(fault: &TaskFault, waiting: &mut VecDeque<TaskFault>) {
    waiting.retain(|other| other.module != fault.module);
}

impl View {
    fn status(&self) -> ModuleStatus {
        let health = match (&self.running, &self.failed) {
            (Some(running), _) => match running.health() {
                Health::Ok => PartHealth::Ok,
                Health::Degraded(why) => PartHealth::Degraded(why),
                Health::Failed(why) => PartHealth::Failed(why),
            },
            (None, Some(why)) => PartHealth::Failed(why.clone()),
            (None, None) => PartHealth::Degraded("not running".to_owned()),
        };
        ModuleStatus {
            module: self.name.to_owned(),
            health,
            since: self.since,
            restarts: self.restarts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_fall_together_are_one_panic_of_their_module() {
        let fault = |module, task| TaskFault {
            module,
            task,
            message: "index out of bounds".to_owned(),
        };
        let first = fault("health", "probes");
        let others = [
            fault("health", "alerts"),
            fault("registry", "sweep"),
            fault("health", "status"),
        ];
        let mut waiting = VecDeque::from(others);
        forget_those_with(&first, &mut waiting);
        let left: Vec<_> = waiting
            .iter()
            .map(|fault| (fault.module, fault.task))
            .collect();
        assert_eq!(left, [("registry", "sweep")]);
    }
}
