//! New settings for services that run: taken over in place, with a restart, or step by step as [`super::update`]
//! says. Which slots have a run while that goes on are the *places* of a service.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::fleet::{ServiceSpec, UpdateSpec, UpdateStrategy};
use alicia_contract::orchestrator::InstanceState;
use alicia_contract::{ServiceName, UnixSeconds};

use super::digest::Digest;
use super::event::{Action, Found, FoundState, SlotId, UpdateEnd};
use super::service::{Service, Slot, StopCause, state_name};
use super::update::{Condition, Phase, Seen, Step, View, next};
use super::{Core, Owner, command};

/// One version of the settings of a service.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) digest: Digest,
}

/// A service on its way to new settings, which are the service's own.
#[derive(Debug)]
pub(super) struct Update {
    /// What it had when it was last well.
    pub(super) base: Arc<Settings>,
    pub(super) phase: Phase,
    /// How it is done. A revert goes the way of the update that it takes back.
    pub(super) settings: UpdateSpec,
    /// The next step by time.
    wake: Option<Duration>,
}

impl Update {
    /// Whether nothing happens by itself any more.
    pub(super) fn is_halted(&self) -> bool {
        matches!(self.phase, Phase::Halted(_))
    }

    /// Whether the slots stay, and their runs are replaced in them.
    fn is_in_place(&self) -> bool {
        self.settings.strategy == UpdateStrategy::Recreate
    }
}

impl Core {
    /// The settings of a slot.
    #[must_use]
    pub fn spec_of(&self, id: &SlotId) -> Option<Arc<ServiceSpec>> {
        let service = self.services.get(&id.service)?;
        let slot = service.slots.get(&id.slot);
        Some(slot.map_or_else(
            || service.spec.clone(),
            |slot| service.spec_of(slot).clone(),
        ))
    }

    pub(super) fn digest_of(&self, id: &SlotId) -> Digest {
        let service = &self.services[&id.service];
        let slot = service.slots.get(&id.slot);
        slot.map_or_else(
            || service.digest.clone(),
            |slot| service.digest_of(slot).clone(),
        )
    }

    /// Whether this service is on its way to other settings.
    #[must_use]
    pub fn is_updating(&self, name: &ServiceName) -> bool {
        let update = self
            .services
            .get(name)
            .and_then(|service| service.update.as_ref());
        update.is_some_and(|update| !update.is_halted())
    }

    /// How far an update is, in words.
    #[must_use]
    pub fn update_progress(&self, name: &ServiceName) -> Option<String> {
        let service = self.services.get(name)?;
        let update = service.update.as_ref()?;
        let ready = service
            .places
            .iter()
            .filter_map(|number| service.slots.get(number))
            .filter(|slot| service.is_on_target(slot) && slot.state == InstanceState::Running);
        let mut done = format!("{} of {} ready", ready.count(), service.wanted);
        if let Some((number, state)) = service.holds_update_up() {
            let state = state_name(state);
            done.push_str(&format!("; instance {number} is {state}"));
        }
        Some(match &update.phase {
            Phase::Canary => format!(
                "canary: {done}, watched for {}",
                update.settings.canary.watched
            ),
            Phase::Forward => format!("{}: {done}", update.settings.strategy.as_str()),
            Phase::Reverting(why) => format!("goes back, because {why}: {done}"),
            Phase::Halted(why) => format!("stopped, because {why}"),
        })
    }

    /// Health says that an instance does not work. During an update that counts against the new settings; at other
    /// times it is for alerts, and for whoever reads them.
    pub(super) fn ill(&mut self, id: &SlotId, since: UnixSeconds, why: String) {
        let Some(service) = self.services.get_mut(&id.service) else {
            return;
        };
        let is_new = |slot: &Slot| {
            slot.state == InstanceState::Running && slot.pinned.is_none() && since >= slot.since
        };
        if service.update.is_none() || !service.slots.get(&id.slot).is_some_and(|slot| is_new(slot))
        {
            return;
        }
        if let Some(slot) = service.slots.get_mut(&id.slot)
            && let Some(instance) = slot.instance.clone()
        {
            slot.ill = Some((instance, format!("health says: {why}")));
            self.dirty.insert(id.service.clone());
        }
    }

    pub(super) fn take_spec(&mut self, name: &ServiceName, spec: Arc<ServiceSpec>) {
        let Some(service) = self.services.get_mut(name) else {
            let mut service = Service::new(spec);
            service.load.asleep = service.spec.on_demand.is_some();
            self.services.insert(name.clone(), service);
            return;
        };
        if service.spec == spec {
            return;
        }
        let digest = Digest::of(&spec);
        let old = Settings {
            spec: std::mem::replace(&mut service.spec, spec.clone()),
            digest: std::mem::replace(&mut service.digest, digest.clone()),
        };
        if spec.on_demand.is_none() {
            service.load.asleep = false;
        }
        if spec.scaling.is_none() {
            service.load.scaled = None;
        }
        if old.digest == digest {
            self.take_in_place(name, &old.spec, &spec);
            return;
        }
        match spec.update.clone().filter(|_| service.has_served()) {
            Some(settings) => self.begin_update(name, old, settings),
            None => {
                service.update = None;
                service.unpin();
                self.take_with_restart(name, &old.spec, &spec);
            }
        }
    }

    fn take_in_place(&mut self, name: &ServiceName, old: &ServiceSpec, new: &ServiceSpec) {
        if old.readiness == new.readiness && old.liveness == new.liveness {
            return;
        }
        let Some(service) = self.services.get(name) else {
            return;
        };
        for id in command::ids(name, service) {
            if self.slot(&id).is_some_and(|slot| slot.pinned.is_none()) {
                self.watch_anew(&id);
            }
        }
    }

    /// What gave up is tried again; what runs is restarted, because its digest differs.
    fn take_with_restart(&mut self, name: &ServiceName, old: &ServiceSpec, new: &ServiceSpec) {
        let ids = self
            .services
            .get(name)
            .map(|service| command::ids(name, service));
        for id in ids.unwrap_or_default() {
            self.retry(&id, "its settings changed");
        }
        self.take_in_place(name, old, new);
    }

    fn begin_update(&mut self, name: &ServiceName, old: Settings, settings: UpdateSpec) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        let old = Arc::new(old);
        // What came in between was never well.
        let base = service
            .update
            .take()
            .map_or_else(|| old.clone(), |update| update.base);
        let phase = match settings.strategy {
            UpdateStrategy::Canary => Phase::Canary,
            _ => Phase::Forward,
        };
        let update = Update {
            base,
            phase,
            settings,
            wake: None,
        };
        let in_place = update.is_in_place();
        service.update = Some(update);
        if in_place {
            service.unpin();
            let new = service.spec.clone();
            self.take_with_restart(name, &old.spec, &new);
        } else {
            service.pin(&old);
        }
        self.touch(name);
    }

    /// The next steps of an update.
    pub(super) fn go_on_with_update(&mut self, name: &ServiceName) {
        let (keeper, now) = (self.keeper && !self.closing, self.now.monotonic);
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        let Some(update) = service.update.take() else {
            return;
        };
        if !service.present {
            // It stops with whatever settings each of its runs has.
            return;
        }
        if keeper && !service.enabled && !update.is_halted() && service.is_empty() {
            // Nothing is left to protect: the next start has the new settings.
            return self.end_update_of_stopped(name, update.phase);
        }
        if !keeper || !service.enabled {
            service.update = Some(update);
            return;
        }
        let instances = service.seen();
        let steps = next(
            &update.phase,
            &View {
                settings: &update.settings,
                wanted: service.wanted,
                instances: &instances,
                now,
            },
        );
        let in_place = update.is_in_place();
        service.update = Some(update);
        for step in steps {
            match step {
                Step::Add | Step::Retire(_) if in_place => {}
                Step::Add => self.add_place(name),
                Step::Retire(slot) => self.remove_place(name, slot),
                Step::Proceed => self.proceed(name),
                Step::Finish => self.finish_update(name),
                Step::Fail(why) => self.fail_update(name, why, &instances),
                Step::Wait(at) => {
                    self.wake_update(name, at);
                    continue;
                }
            }
            if !in_place {
                self.touch(name);
            }
        }
    }

    fn wake_update(&mut self, name: &ServiceName, at: Duration) {
        let update = self
            .services
            .get_mut(name)
            .and_then(|service| service.update.as_mut());
        if let Some(update) = update {
            let before = update.wake.replace(at);
            self.replace_timer(before, Some(at), || Owner::Update(name.clone()));
        }
    }

    fn proceed(&mut self, name: &ServiceName) {
        if let Some(update) = self
            .services
            .get_mut(name)
            .and_then(|service| service.update.as_mut())
        {
            update.phase = Phase::Forward;
        }
        self.touch(name);
    }

    fn finish_update(&mut self, name: &ServiceName) {
        let Some(update) = self
            .services
            .get_mut(name)
            .and_then(|service| service.update.take())
        else {
            return;
        };
        let end = match update.phase {
            Phase::Reverting(why) => UpdateEnd::Reverted(why),
            _ => UpdateEnd::Done,
        };
        self.fit_places(name);
        self.touch(name);
        self.actions.push(Action::Updated {
            service: name.clone(),
            end,
            failed: None,
        });
    }

    /// A person stopped the service on its way to other settings.
    fn end_update_of_stopped(&mut self, name: &ServiceName, phase: Phase) {
        if let Some(service) = self.services.get_mut(name) {
            service.unpin();
        }
        self.fit_places(name);
        self.touch(name);
        let end = match phase {
            Phase::Reverting(why) => UpdateEnd::Reverted(why),
            _ => UpdateEnd::Stopped,
        };
        self.actions.push(Action::Updated {
            service: name.clone(),
            end,
            failed: None,
        });
    }

    fn fail_update(&mut self, name: &ServiceName, why: String, instances: &[Seen]) {
        let now = self.now.monotonic;
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        let Some(mut update) = service.update.take() else {
            return;
        };
        let deadline = update.settings.deadline.duration();
        let failed = instances.iter().find(|seen| {
            seen.on_target
                && match &seen.condition {
                    Condition::Broken(_) => true,
                    Condition::Coming(since) => since.is_some_and(|since| now >= since + deadline),
                    Condition::Ready(_) => false,
                }
        });
        // What goes back is another run in the same slot.
        let failed = failed.map(|seen| {
            let slot = service.slots.get(&seen.slot);
            (seen.slot, slot.and_then(|slot| slot.instance.clone()))
        });
        let reverts = update.settings.auto_revert && update.base.digest != service.digest;
        let end = match reverts {
            true => UpdateEnd::Reverting(why.clone()),
            false => UpdateEnd::Failed(why.clone()),
        };
        update.phase = match reverts {
            true => Phase::Reverting(why),
            false => Phase::Halted(why),
        };
        let base = update.base.clone();
        let in_place = update.is_in_place();
        service.update = Some(update);
        self.actions.push(Action::Updated {
            service: name.clone(),
            end,
            failed,
        });
        if reverts {
            self.revert(name, &base, in_place);
        }
        self.touch(name);
    }

    /// The settings that were good before are those of the service again.
    fn revert(&mut self, name: &ServiceName, base: &Arc<Settings>, in_place: bool) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        let bad = Arc::new(Settings {
            spec: std::mem::replace(&mut service.spec, base.spec.clone()),
            digest: std::mem::replace(&mut service.digest, base.digest.clone()),
        });
        let mut fleet = alicia_contract::fleet::Fleet::clone(&self.fleet);
        fleet.services.insert(name.clone(), base.spec.clone());
        self.fleet = Arc::new(fleet);
        if in_place {
            self.take_with_restart(name, &bad.spec, &base.spec);
        } else {
            service.pin(&bad);
        }
        self.index_dependents();
        self.count_wanted(name);
    }

    /// Makes as many places as are wanted; an update does that by itself.
    pub(super) fn fit_places(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        let by_update = service
            .update
            .as_ref()
            .is_some_and(|update| !update.is_in_place() && !update.is_halted());
        if by_update {
            return;
        }
        let wanted = service.wanted as usize;
        while service.places.len() > wanted {
            service.places.pop_last();
        }
        if service.places.len() < wanted {
            let known = self.remembered_places(name);
            let Some(service) = self.services.get_mut(name) else {
                return;
            };
            for number in known.into_iter().chain(1..) {
                if service.places.len() >= wanted {
                    break;
                }
                // The last run there may still be on its way out, with settings of before an update.
                if service.places.insert(number)
                    && let Some(slot) = service.slots.get_mut(&number)
                {
                    slot.pinned = None;
                }
            }
        }
        let places = self
            .services
            .get(name)
            .map(|service| service.places.clone());
        for number in places.unwrap_or_default() {
            self.need_slot(name, number);
        }
    }

    /// Slots that had a run in an earlier life: after updates these need not be the first ones.
    fn remembered_places(&self, name: &ServiceName) -> Vec<u32> {
        let digest = self.services.get(name).map(|service| &service.digest);
        let mut known: Vec<(bool, u32)> = self
            .remembered
            .iter()
            .filter(|(id, known)| id.service == *name && known.state != InstanceState::Stopped)
            .map(|(id, known)| (Some(&known.digest) != digest, id.slot))
            .collect();
        known.sort_unstable();
        known.into_iter().map(|(_, slot)| slot).collect()
    }

    fn need_slot(&mut self, name: &ServiceName, number: u32) {
        let id = SlotId {
            service: name.clone(),
            slot: number,
        };
        if self.slot(&id).is_none() {
            self.make_slot(&id);
        }
    }

    fn add_place(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        // A slot whose last run is still on its way out is not waited for.
        let is_free = |number: &u32| {
            !service.places.contains(number)
                && service
                    .slots
                    .get(number)
                    .is_none_or(|slot| slot.run.is_none())
        };
        let Some(number) = (1..).find(is_free) else {
            return;
        };
        service.places.insert(number);
        if let Some(slot) = service.slots.get_mut(&number) {
            slot.pinned = None;
            slot.freshen();
        }
        self.need_slot(name, number);
        let id = SlotId {
            service: name.clone(),
            slot: number,
        };
        self.retry(&id, "its settings changed");
    }

    fn remove_place(&mut self, name: &ServiceName, number: u32) {
        if let Some(service) = self.services.get_mut(name) {
            service.places.remove(&number);
        }
    }

    /// What runs decides about the places, where what is remembered falls short of it. A run that is known already has
    /// its place, or is on its way out.
    pub(super) fn claim_places(&mut self, found: &[Found]) {
        for service in self.services.values_mut() {
            service
                .update
                .iter_mut()
                .for_each(|update| update.wake = None);
        }
        let running = found
            .iter()
            .filter(|run| run.state == FoundState::Running && !self.knows(&run.instance));
        let ids: BTreeSet<&SlotId> = running.filter_map(|run| run.slot.as_ref()).collect();
        self.go_on_as_scaled(&ids);
        for id in &ids {
            let asleep = |service: &Service| service.load.asleep;
            if self.services.get(&id.service).is_some_and(asleep) {
                self.called(&id.service);
            }
            let Some(service) = self.services.get_mut(&id.service) else {
                continue;
            };
            if service.places.contains(&id.slot) || id.slot == 0 {
                continue;
            }
            let runs = |number: &u32| {
                let id = SlotId {
                    service: id.service.clone(),
                    slot: *number,
                };
                ids.contains(&id)
            };
            let in_steps = service
                .update
                .as_ref()
                .is_some_and(|update| !update.is_in_place());
            let idle = service
                .places
                .iter()
                .copied()
                .rev()
                .find(|number| !runs(number));
            if in_steps {
                service.places.insert(id.slot);
            } else if let Some(idle) = idle {
                service.places.remove(&idle);
                service.places.insert(id.slot);
            }
        }
    }

    /// A service that was scaled by its load keeps the number of its instances over a restart of the host.
    fn go_on_as_scaled(&mut self, running: &BTreeSet<&SlotId>) {
        let mut scaled = Vec::new();
        for (name, service) in &mut self.services {
            let Some(scaling) = service.spec.scaling.as_ref() else {
                continue;
            };
            let count = running.iter().filter(|id| id.service == *name).count();
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            if count > 0 && service.load.scaled.is_none() && service.update.is_none() {
                service.load.scaled = Some(count.clamp(scaling.min, scaling.max.max(scaling.min)));
                scaled.push(name.clone());
            }
        }
        for name in scaled {
            self.count_wanted(&name);
        }
    }

    /// Which version a run that is taken over has.
    pub(super) fn pin_found(&mut self, id: &SlotId, digest: &Digest) {
        let Some(service) = self.services.get_mut(&id.service) else {
            return;
        };
        let Some(update) = service
            .update
            .as_ref()
            .filter(|update| !update.is_in_place())
        else {
            return;
        };
        let older = Settings {
            spec: update.base.spec.clone(),
            digest: digest.clone(),
        };
        let pinned = (*digest != service.digest).then(|| Arc::new(older));
        if let Some(slot) = service.slots.get_mut(&id.slot) {
            slot.pinned = pinned;
        }
    }
}

impl Service {
    /// Whether it runs, or ran when the last host looked: then there is something to protect.
    fn has_served(&self) -> bool {
        self.slots
            .values()
            .any(|slot| slot.run.is_some() || slot.ready_before.is_some())
    }

    /// Whether nothing of it is left.
    fn is_empty(&self) -> bool {
        self.slots.values().all(|slot| slot.run.is_none())
    }

    /// Slots have the settings of the service again.
    pub(super) fn unpin(&mut self) {
        self.slots.values_mut().for_each(|slot| slot.pinned = None);
    }

    /// Slots keep these settings, except those that have the new ones already: by what they are to run, or by what does
    /// run there since an update that was itself overtaken.
    fn pin(&mut self, old: &Arc<Settings>) {
        for slot in self.slots.values_mut() {
            let runs_new = slot
                .run
                .as_ref()
                .is_some_and(|run| run.digest == self.digest);
            let pinned = slot.pinned.get_or_insert_with(|| old.clone());
            if runs_new || pinned.digest == self.digest {
                slot.pinned = None;
            }
        }
    }

    /// An instance with the new settings that will not come up before a person or time lets it.
    fn holds_update_up(&self) -> Option<(u32, InstanceState)> {
        let places = self.places.iter();
        let slots = places.filter_map(|number| Some((*number, self.slots.get(number)?)));
        slots
            .filter(|(_, slot)| self.is_on_target(slot))
            .map(|(number, slot)| (number, slot.state))
            .find(|(_, state)| matches!(state, InstanceState::Paused | InstanceState::Parked))
    }

    fn is_on_target(&self, slot: &Slot) -> bool {
        match &slot.run {
            Some(run) => run.digest == self.digest,
            None => slot.pinned.is_none(),
        }
    }

    /// The places as the rule of updates sees them.
    fn seen(&self) -> Vec<Seen> {
        let slots = self
            .places
            .iter()
            .filter_map(|number| Some((*number, self.slots.get(number)?)));
        slots
            .map(|(number, slot)| Seen {
                slot: number,
                on_target: self.is_on_target(slot),
                condition: condition(slot),
            })
            .collect()
    }

    /// Why a slot should not have a run.
    pub(super) fn why_not_there(&self) -> String {
        match self.update.as_ref().map(|update| &update.phase) {
            Some(Phase::Reverting(why)) => format!("the update is taken back: {why}"),
            Some(_) => "a new instance has taken its place".into(),
            None if self.load.asleep => "nobody is connected".into(),
            None => format!("{} instances are wanted", self.wanted),
        }
    }
}

fn condition(slot: &Slot) -> Condition {
    let ill = slot
        .ill
        .as_ref()
        .filter(|(run, _)| slot.instance.as_ref() == Some(run));
    if let Some((_, why)) = ill {
        return Condition::Broken(why.clone());
    }
    let started = slot
        .run
        .as_ref()
        .filter(|run| run.process.is_some())
        .map(|run| run.started);
    match slot.state {
        InstanceState::Running | InstanceState::Completed => Condition::Ready(slot.since_monotonic),
        // It does not serve, and that is not the fault of its settings.
        InstanceState::Paused => Condition::Coming(None),
        InstanceState::Backoff | InstanceState::Failed => Condition::Broken(slot.reason.clone()),
        InstanceState::Stopping => match slot.run.as_ref().and_then(|run| run.stop.as_ref()) {
            Some(StopCause::Asked) => Condition::Coming(None),
            _ => Condition::Broken(slot.reason.clone()),
        },
        _ => Condition::Coming(started),
    }
}
