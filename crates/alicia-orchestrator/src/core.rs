//! Every decision about the life of instances: `(state, event, now) -> actions`, without I/O.
//!
//! ```text
//!            wanted                  spawned               ready
//!  stopped ─────────► waiting ─────────────────► starting ───────► running
//!     ▲                  ▲  │ cannot be started     │                 │
//!     │                  │  └──────────────┐        │ start_timeout   │ liveness bad, stop,
//!     │                  │                 ▼        │                 │ restart, other settings
//!     │ tree is empty    │ and wanted    failed     ▼                 ▼
//!     └────────────── stopping ◄────────────────────┴─────────────────┘
//!                        │ was unwell               │                 │
//!                        ▼                          │ ends by itself  │
//!            spawned  backoff ◄─────────────────────┴─────────────────┤
//!     starting ◄─────────┘ crash loop ► failed      success ► completed
//!                                         │         provider's limit, budget ► parked
//!      waiting ◄──────────────────────────┴─ its time has come ─────────────────┘
//!                                                   pause ► paused ► running
//! ```
//!
//! - A slot holds at most one run. A run is let go when the keeper says that its whole process tree is
//!   gone, and only then the next one is started, with a higher epoch.
//! - Level, not edge: an event changes what is known or wanted, and `settle` compares the two for every
//!   service that it touches. A lost or repeated event does no harm that the next sync does not mend.
//! - Dependencies hold back the first start and every start after a stop. A restart after a crash does
//!   not wait for them: what it needs may be on its own way back, and recovery must not queue.
//! - A stop waits for those dependents that are to stop as well. Stopping or restarting a service alone
//!   leaves its dependents as they are.
//! - Readiness is asked until it is good for the first time, then liveness begins.

mod back_off;
pub mod budget;
pub mod cause;
mod command;
pub mod deployment;
pub mod digest;
pub mod event;
mod life;
mod load;
pub mod notice;
mod park;
mod pause;
pub mod plan;
mod progress;
mod react;
pub mod scaling;
mod service;
mod settle;
mod status;
mod supervise;
mod sync;
pub mod update;
mod updating;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::fleet::Fleet;
use alicia_contract::{Epoch, InstanceId, ServiceName};

use event::{Action, Event, Memory, Now, Remembered, SlotId};
use plan::{Overrides, Selection};
use service::{Run, Service, Slot, Stray};

/// How many times a slot can be started under one keeper: once a second for eleven days.
const EPOCHS_PER_KEEPER: u64 = 1_000_000;

/// The state of everything that is or should be running.
#[derive(Debug)]
pub struct Core {
    fleet: Arc<Fleet>,
    selection: Selection,
    services: BTreeMap<ServiceName, Service>,
    overrides: BTreeMap<ServiceName, Overrides>,
    /// Runs that belong to no slot; each is being stopped.
    strays: BTreeMap<InstanceId, Stray>,
    /// Where each run is.
    slots_by_instance: BTreeMap<InstanceId, SlotId>,
    /// The highest epoch of each slot, also of slots that are gone.
    epochs: BTreeMap<SlotId, Epoch>,
    /// No epoch up to this one is used again.
    epochs_before: Epoch,
    /// What was known before this life, until the slot is made.
    remembered: BTreeMap<SlotId, Remembered>,
    /// Deadlines; one that its owner no longer has is passed over.
    timers: BTreeSet<(Duration, Owner)>,
    /// From when on the next one that was parked may start.
    resume_free_at: Duration,
    /// What services with a budget have used up.
    ledger: budget::Ledger,
    /// Restarts in each group.
    storms: BTreeMap<ServiceName, supervise::Storms>,
    /// Slots whose run has to end because another one did. Those that start again wait for them.
    falling: BTreeSet<SlotId>,
    /// Services to be settled.
    dirty: BTreeSet<ServiceName>,
    /// Whether the keeper is there.
    keeper: bool,
    /// Counts the connections to the keeper.
    session: u64,
    closing: bool,
    revision: u64,
    random: fastrand::Rng,
    now: Now,
    actions: Vec<Action>,
}

/// Whose deadline it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    /// The next start, or the end of `start_timeout`.
    Slot(SlotId),
    /// The end of a stop.
    Run(InstanceId),
    /// The end of the time in which a run must get on.
    Gauge(InstanceId),
    /// The next look at the budgets.
    Budgets,
    /// The next step of an update.
    Update(ServiceName),
}

impl Core {
    /// A core that knows only what is remembered. Nothing is started before the fleet and the keeper
    /// are known. The seed decides jitter and instance ids.
    #[must_use]
    pub fn new(memory: Memory, seed: u64) -> Self {
        let epochs = memory
            .slots
            .iter()
            .map(|(id, slot)| (id.clone(), slot.epoch))
            .collect();
        Self {
            fleet: Arc::default(),
            selection: Selection::default(),
            services: BTreeMap::new(),
            overrides: memory.overrides,
            strays: BTreeMap::new(),
            slots_by_instance: BTreeMap::new(),
            epochs,
            epochs_before: Epoch::default(),
            remembered: memory.slots,
            timers: BTreeSet::new(),
            resume_free_at: Duration::ZERO,
            ledger: budget::Ledger::new(memory.accounts),
            storms: BTreeMap::new(),
            falling: BTreeSet::new(),
            dirty: BTreeSet::new(),
            keeper: false,
            session: 0,
            closing: false,
            revision: 0,
            random: fastrand::Rng::with_seed(seed),
            now: Now::default(),
            actions: Vec::new(),
        }
    }

    /// Takes one event and says what is to be done.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        self.now = now;
        match event {
            Event::Desired(fleet, selection) => self.desired(fleet, selection),
            Event::KeeperSynced(found) => self.synced(found),
            Event::KeeperLost => self.keeper_lost(),
            Event::Spawned(instance, process) => self.spawned(&instance, process),
            Event::SpawnFailed(instance, fault) => self.spawn_failed(&instance, fault),
            Event::Exited {
                instance,
                exit,
                empty,
                output,
            } => self.exited(&instance, exit, (empty, output)),
            Event::Notified(instance, fields) => self.notified(&instance, &fields),
            Event::Counted(instance, counters) => self.counted(&instance, &counters),
            Event::Spent(spent) => self.spent(&spent),
            Event::Emptied { instance, killed } => self.emptied(&instance, killed),
            Event::Probed(instance, role, verdict) => self.probed(&instance, role, verdict),
            Event::Ill(slot, since, why) => self.ill(&slot, since, why),
            Event::Called(service) => self.called(&service),
            Event::Idle(service) => self.idle(&service),
            Event::Scaled(service, instances) => self.scaled(&service, instances),
            Event::TimerFired => self.timer_fired(),
            Event::Command {
                request,
                plan,
                reason,
            } => self.command(request, &plan, &reason),
            Event::Shutdown => self.shutdown(),
            Event::ShutdownOverdue => self.shutdown_overdue(),
        }
        self.settle();
        mem::take(&mut self.actions)
    }

    /// Sees to it that no epoch of an earlier keeper is used again. The keeper knows every run that it
    /// holds, and what it let go is written down here; but when both die between a start and its record,
    /// nobody knows of that start. So the epochs of each keeper begin above those that all before it can
    /// have used.
    pub fn raise_epochs(&mut self, keeper_generation: u64) {
        let before = keeper_generation
            .saturating_sub(1)
            .saturating_mul(EPOCHS_PER_KEEPER);
        self.epochs_before = self.epochs_before.max(Epoch(before));
    }

    /// When [`Event::TimerFired`] is due, on the monotonic clock.
    #[must_use]
    pub fn next_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether no process is left that the core knows of.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.slots_by_instance.is_empty() && self.strays.is_empty()
    }

    /// Whether this run is in a slot, or being stopped because it is in none.
    #[must_use]
    pub fn knows(&self, instance: &InstanceId) -> bool {
        self.slots_by_instance.contains_key(instance) || self.strays.contains_key(instance)
    }

    /// Whether there is such a slot.
    #[must_use]
    pub fn has_slot(&self, id: &SlotId) -> bool {
        self.slot(id).is_some()
    }

    /// Whether the keeper is there.
    #[must_use]
    pub fn has_keeper(&self) -> bool {
        self.keeper
    }

    /// The fleet that is wanted.
    #[must_use]
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// What runs by itself.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    fn slot(&self, id: &SlotId) -> Option<&Slot> {
        Some(self.services.get(&id.service)?.slots.get(&id.slot)?)
    }

    fn slot_mut(&mut self, id: &SlotId) -> Option<&mut Slot> {
        let service = self.services.get_mut(&id.service)?;
        Some(service.slots.get_mut(&id.slot)?)
    }

    /// The slot of a run. Every run in the index is in its slot.
    fn slot_of(&self, instance: &InstanceId) -> Option<SlotId> {
        self.slots_by_instance.get(instance).cloned()
    }

    fn run_mut(&mut self, id: &SlotId) -> Option<&mut Run> {
        self.slot_mut(id)?.run.as_mut()
    }

    /// Has a service settled again, and those whose waits depend on it.
    fn touch(&mut self, name: &ServiceName) {
        if let Some(service) = self.services.get(name) {
            let needs = service.spec.depends_on.0.keys();
            self.dirty.extend(needs.chain(&service.needed_by).cloned());
        }
        self.dirty.insert(name.clone());
        self.revision += 1;
    }

    fn set_slot_timer(&mut self, id: &SlotId, at: Option<Duration>) {
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut slot.deadline, at);
        self.replace_timer(before, at, || Owner::Slot(id.clone()));
    }

    /// Sets a timer in the place of an earlier one of the same owner: a program that moves its deadline with
    /// every message must not pile them up.
    fn replace_timer(
        &mut self,
        before: Option<Duration>,
        at: Option<Duration>,
        owner: impl Fn() -> Owner,
    ) {
        if let Some(before) = before {
            self.timers.remove(&(before, owner()));
        }
        if let Some(at) = at {
            self.timers.insert((at, owner()));
        }
    }

    fn timer_fired(&mut self) {
        while self.next_timer().is_some_and(|at| at <= self.now.monotonic) {
            let Some((at, owner)) = self.timers.pop_first() else {
                return;
            };
            match owner {
                Owner::Slot(id) if self.slot(&id).is_some_and(|slot| slot.deadline == Some(at)) => {
                    self.slot_due(&id);
                }
                Owner::Run(instance) => self.stop_due(&instance, at),
                Owner::Gauge(instance) => self.gauge_due(&instance, at),
                Owner::Budgets => self.budgets_due(at),
                Owner::Update(name) => drop(self.dirty.insert(name)),
                Owner::Slot(_) => {}
            }
        }
    }
}
