//! The decisions of the registry, pure: `(state, event, now) -> (state, actions)`.
//!
//! ```text
//!                register                       lease ran out             grace ran out
//!   (unknown) ────────────▶ present ──────────────────────────▶ suspect ──────────────▶ gone ──▶ (forgotten)
//!                            ▲  ▲  ▲   heartbeat, register         │                     │ ▲
//!   restart ──▶ unverified ──┘  │  └───────────────────────────────┘                     │ │
//!                   │           └── register, or its supervisor's word (expired only) ───┘ │
//!                   └── lease ran out: suspect            exit, leave, removal: at once ───┘
//! ```
//!
//! A supervised instance has no lease: its process is its lease. What ended or left never returns under
//! the same id and epoch; what merely expired returns by a new registration, or when its supervisor
//! vouches for it (it may have been the registry that was away).

mod binding;
mod completion;
mod entry;
mod lease;
mod offers;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alicia_contract::discovery::{Presence, PresenceChange, Registration, Unregistration};
use alicia_contract::fleet::{Fleet, INSTANCES_MAX};
use alicia_contract::health::{FleetHealth, Heartbeat};
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::orchestrator::{FleetStatus, Transition};
use alicia_contract::unit::UnixSeconds;

use crate::error::Refusal;
use offers::Offers;
use standing::Wellbeing;

pub(crate) use binding::DERIVED_OWNER;
pub use entry::{Ending, Entry};
pub use offers::{Offer, Place};

/// A moment on both clocks: one for people and records, one for waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Now {
    /// Wall time.
    pub unix: UnixSeconds,
    /// Monotonic time since some fixed start.
    pub mono: Duration,
}

/// The limits and spans that the core works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most entries, gone ones included.
    pub instances: usize,
    /// Most entries of one service.
    pub instances_per_service: usize,
    /// How long a suspect may stay silent before it is gone.
    pub grace: Duration,
    /// How long a gone one is remembered, so that late messages of it are known as such.
    pub memory: Duration,
    /// A tick later than this shows that the registry itself was held up; then all leases start anew.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            instances: 20_000,
            instances_per_service: 2 * INSTANCES_MAX as usize,
            grace: Duration::from_secs(30),
            memory: Duration::from_secs(600),
            stall: Duration::from_secs(3),
        }
    }
}

/// What somebody who asks may do here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// A service: only for itself.
    Service,
    /// The holder of a key: for services that are not in the fleet, and its own entries.
    Key,
    /// Everything.
    Admin,
}

/// Who asks, as the bus or REST authenticated it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name, as in an envelope's `source`.
    pub name: String,
    /// What it may do.
    pub rank: Rank,
}

/// All that can happen to the registry.
#[derive(Debug, Clone)]
pub enum Event {
    /// Somebody registers or renews. The registration is valid in itself.
    Register(Box<Registration>, Caller),
    /// Somebody leaves, or is removed.
    Leave(Unregistration, Caller),
    /// A sign of life, and who sent it when that is known.
    Heartbeat(Heartbeat, Option<String>),
    /// What should run; says which names belong to the fleet.
    Fleet(std::sync::Arc<Fleet>),
    /// The orchestrator's whole picture.
    Status(Box<FleetStatus>),
    /// One change in it.
    Transition(Box<Transition>),
    /// The judgement of the health monitor.
    Health(Box<FleetHealth>),
    /// Time passed.
    Tick,
}

/// What is to be done about it.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write the row of this entry.
    Save(Box<Entry>),
    /// Delete its row.
    Forget(InstanceId),
    /// The retained topic of this service is out of date.
    Announce(ServiceName),
    /// Tell the change.
    Tell(Box<PresenceChange>),
}

/// The registry's state.
#[derive(Debug)]
pub struct Registry {
    limits: Limits,
    entries: BTreeMap<InstanceId, Entry>,
    by_service: BTreeMap<ServiceName, BTreeSet<InstanceId>>,
    fleet: std::sync::Arc<Fleet>,
    /// The lowest epoch over the slots of each service, by the orchestrator's last picture.
    epochs: BTreeMap<ServiceName, Epoch>,
    picture: Option<(UnixSeconds, u64)>,
    ticked: Option<Duration>,
    /// How well instances are, and who offers what: never saved, heard anew after a restart.
    wellbeing: Wellbeing,
    offers: Offers,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            by_service: BTreeMap::new(),
            fleet: std::sync::Arc::default(),
            epochs: BTreeMap::new(),
            picture: None,
            ticked: None,
            wellbeing: Wellbeing::default(),
            offers: Offers::default(),
        }
    }

    /// Takes an entry that was saved before a restart. One that was there is `unverified` until it is seen.
    pub fn restore(&mut self, mut entry: Entry, now: Now) {
        if entry.is_live() {
            entry.presence = Presence::Unverified;
            entry.reason = "known from before a restart of the registry".to_owned();
            entry.deadline = Some(now.mono + entry.lease());
        } else {
            entry.deadline = Some(now.mono + self.limits.memory);
        }
        let instance = entry.registration.instance.clone();
        self.insert(entry);
        self.index(&instance);
    }

    /// Decides on one event.
    ///
    /// # Errors
    /// Why a registration or a departure is refused; then nothing changed.
    pub fn apply(&mut self, event: Event, now: Now) -> Result<Vec<Action>, Refusal> {
        let mut actions = Vec::new();
        match event {
            Event::Register(registration, caller) => {
                self.register(*registration, caller, now, &mut actions)?;
            }
            Event::Leave(departure, caller) => {
                self.leave(&departure, &caller, now, &mut actions)?
            }
            Event::Heartbeat(heartbeat, source) => {
                self.heartbeat(&heartbeat, source.as_deref(), now, &mut actions);
            }
            Event::Fleet(fleet) => self.take_fleet(fleet, &mut actions),
            Event::Status(status) => self.status(&status, now, &mut actions),
            Event::Transition(transition) => self.transition(&transition, now, &mut actions),
            Event::Health(health) => self.judge(&health),
            Event::Tick => self.tick(now, &mut actions),
        }
        for action in &actions {
            match action {
                Action::Save(entry) => self.index(&entry.registration.instance),
                Action::Forget(instance) => self.index(instance),
                Action::Announce(_) | Action::Tell(_) => {}
            }
        }
        Ok(actions)
    }

    /// Whether the orchestrator was heard.
    #[must_use]
    pub fn is_pictured(&self) -> bool {
        self.picture.is_some()
    }

    /// An entry by its id, gone ones included.
    #[must_use]
    pub fn get(&self, instance: &InstanceId) -> Option<&Entry> {
        self.entries.get(instance)
    }

    /// Every entry, by id.
    pub fn entries(&self) -> impl Iterator<Item = (&InstanceId, &Entry)> {
        self.entries.iter()
    }

    /// Every service that has an entry, gone ones included.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.by_service.keys()
    }

    /// The entries of a service that are not gone, by id.
    pub fn live(&self, service: &ServiceName) -> impl Iterator<Item = &Entry> {
        let ids = self.by_service.get(service).into_iter().flatten();
        ids.filter_map(|id| self.entries.get(id))
            .filter(|entry| entry.is_live())
    }

    /// The offers of a capability.
    pub fn offers(&self, capability: &ServiceName) -> impl Iterator<Item = &Offer> {
        self.offers.of(capability)
    }

    /// The names of all capabilities that somebody offers.
    pub fn capabilities(&self) -> impl Iterator<Item = &ServiceName> {
        self.offers.names()
    }

    /// How an instance stands among those that offer the same; `None` when it offers nothing.
    #[must_use]
    pub fn place(&self, instance: &InstanceId) -> Option<Place> {
        self.offers.place(instance)
    }

    /// A call to an instance begins: it counts as load, and it is the last in turn.
    pub fn begin_call(&mut self, instance: &InstanceId) {
        self.offers.begins(instance);
    }

    /// A call to an instance came to its end, whichever it was.
    pub fn end_call(&mut self, instance: &InstanceId) {
        self.offers.ends(instance);
    }

    fn register(
        &mut self,
        mut registration: Registration,
        caller: Caller,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.check_caller(&registration.service, &caller)?;
        self.complete(&mut registration);
        let known = self.entries.get(&registration.instance);
        match known {
            Some(known) => check_known(known, &mut registration, &caller)?,
            None => {
                self.check_epoch(&registration)?;
                self.make_room(&registration.service, actions)?;
            }
        }
        let known = self.entries.get(&registration.instance);
        let from = known.map(|known| known.presence);
        let supervised = known.is_some_and(|known| known.supervised && known.is_live());
        let was_gone = from == Some(Presence::Gone);
        let since = known
            .filter(|_| from == Some(Presence::Present))
            .map_or(now.unix, |k| k.since);
        let mut entry = Entry {
            registration,
            presence: Presence::Present,
            since,
            seen: now.unix,
            supervised,
            owner: caller.name,
            reason: if was_gone {
                "registered again"
            } else {
                "registered"
            }
            .to_owned(),
            ending: None,
            deadline: None,
        };
        entry.deadline = (!supervised).then(|| now.mono + entry.lease());
        let changed = known.is_none_or(|known| {
            known.registration != entry.registration || known.owner != entry.owner
        });
        if from != Some(Presence::Present) {
            actions.push(tell(&entry, from, now));
        }
        if changed || from != Some(Presence::Present) {
            actions.push(Action::Save(Box::new(entry.clone())));
            actions.push(Action::Announce(entry.registration.service.clone()));
        }
        self.insert(entry);
        Ok(())
    }

    fn check_caller(&self, service: &ServiceName, caller: &Caller) -> Result<(), Refusal> {
        let reason = match caller.rank {
            Rank::Admin => return Ok(()),
            Rank::Service if caller.name == service.as_str() => return Ok(()),
            Rank::Service => "a service registers itself only",
            Rank::Key if !self.fleet.services.contains_key(service) => return Ok(()),
            Rank::Key => {
                "the name belongs to a service of the fleet; use its own token, or an admin key"
            }
        };
        Err(Refusal::NotYours {
            caller: caller.name.clone(),
            service: service.clone(),
            reason,
        })
    }

    fn check_epoch(&self, registration: &Registration) -> Result<(), Refusal> {
        // Epoch 0 means "not given": a plain program may not know of epochs.
        let Epoch(given) = registration.epoch;
        if let Some(newest) = self.epochs.get(&registration.service).copied()
            && given > 0
            && registration.epoch < newest
        {
            let (instance, epoch) = (registration.instance.clone(), registration.epoch);
            return Err(Refusal::Fenced {
                instance,
                epoch,
                newest,
            });
        }
        Ok(())
    }

    /// Sees to it that there is room for one more. What is only remembered gives way, the oldest first: rolling
    /// restarts of a large service must not lock its next instances out.
    fn make_room(
        &mut self,
        service: &ServiceName,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let limits = self.limits;
        let of_service = self.by_service.get(service).map_or(0, BTreeSet::len);
        if of_service >= limits.instances_per_service && !self.forget_oldest(Some(service), actions)
        {
            return Err(Refusal::Full {
                limit: limits.instances_per_service,
                within: "of this service",
            });
        }
        if self.entries.len() >= limits.instances && !self.forget_oldest(None, actions) {
            return Err(Refusal::Full {
                limit: limits.instances,
                within: "in the registry",
            });
        }
        Ok(())
    }

    /// Forgets the entry that is gone for longest, of a service or of all; `false`: none is gone.
    fn forget_oldest(&mut self, of: Option<&ServiceName>, actions: &mut Vec<Action>) -> bool {
        let is_of = |entry: &&Entry| of.is_none_or(|of| entry.registration.service == *of);
        let gone = self.entries.values().filter(|entry| !entry.is_live());
        let oldest = gone.filter(is_of).min_by_key(|entry| entry.deadline);
        let Some(oldest) = oldest.map(|entry| entry.registration.instance.clone()) else {
            return false;
        };
        self.remove(&oldest);
        actions.push(Action::Forget(oldest));
        true
    }

    fn leave(
        &mut self,
        departure: &Unregistration,
        caller: &Caller,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let unknown = || Refusal::Unknown(departure.instance.clone());
        let entry = self.entries.get(&departure.instance).ok_or_else(unknown)?;
        if entry.registration.service != departure.service {
            return Err(unknown());
        }
        check_holder(entry, caller)?;
        let reason = if caller.name == entry.owner {
            "left".to_owned()
        } else {
            format!("removed by {}", caller.name)
        };
        self.end(&departure.instance, Ending::Final, &reason, now, actions);
        Ok(())
    }

    /// Makes an entry gone. Of one that is gone already, only an expiry is still made final.
    fn end(
        &mut self,
        instance: &InstanceId,
        ending: Ending,
        reason: &str,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let memory = self.limits.memory;
        let Some(entry) = self.entries.get_mut(instance) else {
            return;
        };
        if entry.ending == Some(Ending::Final) || entry.ending == Some(ending) {
            return;
        }
        entry.ending = Some(ending);
        entry.deadline = Some(now.mono + memory);
        move_to(entry, Presence::Gone, reason, now, actions);
    }

    fn insert(&mut self, entry: Entry) {
        let id = entry.registration.instance.clone();
        self.by_service
            .entry(entry.registration.service.clone())
            .or_default()
            .insert(id.clone());
        self.entries.insert(id, entry);
    }

    fn remove(&mut self, instance: &InstanceId) {
        let Some(entry) = self.entries.remove(instance) else {
            return;
        };
        self.wellbeing.forget(instance);
        let service = &entry.registration.service;
        if let Some(ids) = self.by_service.get_mut(service) {
            ids.remove(instance);
            if ids.is_empty() {
                self.by_service.remove(service);
            }
        }
    }
}

/// Changes the presence of an entry and says so, in the row, to listeners and on the retained topic.
fn move_to(entry: &mut Entry, to: Presence, reason: &str, now: Now, actions: &mut Vec<Action>) {
    let from = entry.presence;
    entry.reason = reason.to_owned();
    if from != to {
        entry.presence = to;
        entry.since = now.unix;
        actions.push(tell(entry, Some(from), now));
        actions.push(Action::Announce(entry.registration.service.clone()));
    }
    actions.push(Action::Save(Box::new(entry.clone())));
}

fn tell(entry: &Entry, from: Option<Presence>, now: Now) -> Action {
    Action::Tell(Box::new(PresenceChange {
        service: entry.registration.service.clone(),
        instance: entry.registration.instance.clone(),
        epoch: entry.registration.epoch,
        from,
        to: entry.presence,
        reason: entry.reason.clone(),
        at: now.unix,
    }))
}

/// Whether a registration may replace the entry of the same id.
fn check_known(
    known: &Entry,
    registration: &mut Registration,
    caller: &Caller,
) -> Result<(), Refusal> {
    let instance = || registration.instance.clone();
    if known.registration.service != registration.service {
        let (service, holder) = (
            registration.service.clone(),
            known.registration.service.clone(),
        );
        return Err(Refusal::OtherService {
            instance: instance(),
            service,
            holder,
        });
    }
    check_holder(known, caller)?;
    let newest = known.registration.epoch;
    if known.supervised && known.is_live() {
        // The id of a supervised run is enough: the orchestrator knows its epoch better.
        registration.epoch = newest;
    }
    if registration.epoch < newest {
        let epoch = registration.epoch;
        return Err(Refusal::Fenced {
            instance: instance(),
            epoch,
            newest,
        });
    }
    if known.ending == Some(Ending::Final) && registration.epoch == newest {
        return Err(Refusal::Ended {
            instance: instance(),
            reason: known.reason.clone(),
        });
    }
    Ok(())
}

/// Only the holder of an entry, or an admin, may change or remove it.
fn check_holder(entry: &Entry, caller: &Caller) -> Result<(), Refusal> {
    let service = &entry.registration.service;
    let holds = caller.rank == Rank::Admin
        || caller.name == entry.owner
        || (caller.rank == Rank::Service && caller.name == service.as_str());
    if holds {
        return Ok(());
    }
    let (caller, service) = (caller.name.clone(), service.clone());
    Err(Refusal::NotYours {
        caller,
        service,
        reason: "somebody else registered this instance",
    })
}

#[cfg(test)]
mod tests;
