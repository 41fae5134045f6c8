//! What changes what is wanted: the file, commands, the shutdown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::fleet::Fleet;
use alicia_contract::orchestrator::{ExitCause, FleetAnswer, InstanceState, Verb};
use alicia_contract::{Epoch, ServiceName};

use super::Core;
use super::event::{Action, Role, SlotId};
use super::plan::{Plan, Selection};
use super::service::{Service, Slot};

/// SIGKILL.
const KILL: i32 = 9;

impl Core {
    pub(super) fn desired(&mut self, fleet: Arc<Fleet>, selection: Selection) {
        for (name, service) in &mut self.services {
            let was_present =
                std::mem::replace(&mut service.present, fleet.services.contains_key(name));
            if !was_present && service.update.is_none() {
                // It left the file in the middle of an update, and is back.
                service.unpin();
            }
        }
        for (name, spec) in &fleet.services {
            self.take_spec(name, spec.clone());
        }
        self.fleet = fleet;
        self.selection = selection;
        self.index_dependents();
        self.refresh_wanted();
        self.begin_budgets();
    }

    /// Gives a slot that has given up, or is done, another try.
    pub(super) fn retry(&mut self, id: &SlotId, why: &str) {
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        let over = matches!(
            slot.state,
            InstanceState::Failed
                | InstanceState::Completed
                | InstanceState::Backoff
                | InstanceState::Parked
        );
        if over {
            slot.freshen();
            self.set_slot_timer(id, None);
            self.transition(id, InstanceState::Waiting, why.to_owned());
        }
    }

    /// The probes changed: those that run are replaced.
    pub(super) fn watch_anew(&mut self, id: &SlotId) {
        let Some(service) = self.services.get(&id.service) else {
            return;
        };
        let spec = service.spec.clone();
        let Some(slot) = service.slots.get(&id.slot).filter(|slot| slot.runs()) else {
            return;
        };
        let (state, run) = (slot.state, slot.run.as_ref());
        let Some((instance, started)) = run.map(|run| (run.instance.clone(), run.started)) else {
            return;
        };
        let age = self.now.monotonic.saturating_sub(started);
        self.actions.push(Action::Unwatch(instance));
        match (state, &spec.readiness, &spec.liveness) {
            (InstanceState::Starting, Some(probe), _) => {
                self.watch(id, Role::Readiness, probe, age);
            }
            (InstanceState::Starting, None, _) => self.ready(id, "its process runs", age),
            (InstanceState::Running, _, Some(probe)) => self.watch(id, Role::Liveness, probe, age),
            _ => {}
        }
    }

    pub(super) fn index_dependents(&mut self) {
        let mut needed_by: BTreeMap<ServiceName, Vec<ServiceName>> = BTreeMap::new();
        for (name, service) in &self.services {
            for need in service.spec.depends_on.0.keys() {
                needed_by
                    .entry(need.clone())
                    .or_default()
                    .push(name.clone());
            }
        }
        for (name, service) in &mut self.services {
            service.needed_by = needed_by.remove(name).unwrap_or_default();
        }
    }

    /// Works out anew which services should run, in how many instances.
    pub(super) fn refresh_wanted(&mut self) {
        let selected = self.selection.services(&self.fleet);
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in names {
            let enabled = self.overrides.get(&name).and_then(|set| set.enabled);
            if let Some(service) = self.services.get_mut(&name) {
                service.enabled =
                    !self.closing && enabled.unwrap_or_else(|| selected.contains(&name));
            }
            self.count_wanted(&name);
        }
    }

    /// Works out anew how many instances of a service are wanted.
    pub(super) fn count_wanted(&mut self, name: &ServiceName) {
        let overrides = self.overrides.get(name).copied().unwrap_or_default();
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        if service.present {
            let instances = service.spec.instances;
            service.wanted = service.load.wanted(instances, overrides);
            self.fit_places(name);
        }
        self.touch(name);
    }

    /// A new slot, as it is remembered.
    pub(super) fn make_slot(&mut self, id: &SlotId) {
        let epoch = self.epochs.get(id).copied().unwrap_or_default();
        let mut slot = Slot::new(epoch, self.now.unix);
        let Some(service) = self.services.get_mut(&id.service) else {
            return;
        };
        if service.wants(id.slot) {
            slot.state = InstanceState::Waiting;
        }
        if let Some(known) = self.remembered.remove(id) {
            let same = known.digest == service.digest;
            slot.restarts = known.restarts;
            slot.unfinished = known.epoch > Epoch::default()
                && known
                    .exit
                    .as_ref()
                    .is_none_or(|exit| exit.class != ExitCause::Success);
            // How it ended with other settings, or before somebody stopped it, says nothing any more.
            slot.exit = known
                .exit
                .filter(|_| same && known.state != InstanceState::Stopped);
            slot.instance.clone_from(&known.instance);
            if matches!(known.state, InstanceState::Running | InstanceState::Paused) {
                let is_paused = known.state == InstanceState::Paused;
                slot.paused_before = is_paused.then(|| known.reason.clone());
                slot.ready_before = known.instance.map(|instance| (instance, known.since));
            }
            let over = matches!(
                known.state,
                InstanceState::Completed | InstanceState::Failed | InstanceState::Parked
            );
            if over && same {
                slot.state = known.state;
                slot.since = known.since;
                slot.reason = known.reason;
                slot.slow = known.state == InstanceState::Failed;
                slot.next_start = known.next_start;
            }
        }
        service.slots.insert(id.slot, Box::new(slot));
        self.take_up_wait(id);
    }

    pub(super) fn command(&mut self, request: u64, plan: &Plan, reason: &str) {
        for (name, overrides) in plan.overrides(&self.fleet) {
            self.overrides.entry(name).or_default().merge(overrides);
        }
        let wakes = match plan.verb {
            Verb::Start | Verb::Restart => plan.named,
            Verb::Scale => plan.instances > 0,
            Verb::Stop | Verb::Pause | Verb::Resume => false,
        };
        if wakes {
            for name in &plan.services {
                self.called(name);
            }
        }
        self.refresh_wanted();
        let ids: Vec<SlotId> = plan
            .services
            .iter()
            .filter_map(|name| Some((name, self.services.get(name)?)))
            .flat_map(|(name, service)| ids(name, service))
            .collect();
        for id in &ids {
            match plan.verb {
                Verb::Start => self.start_slot(id, plan.named, reason),
                Verb::Restart => self.restart_slot(id, reason),
                Verb::Pause => self.pause(id, reason, ExitCause::Operator),
                Verb::Resume => self.resume(id, reason),
                Verb::Stop | Verb::Scale => {}
            }
        }
        self.start_needed(&plan.needed, reason);
        let answer = FleetAnswer {
            accepted: !self.closing,
            services: plan.services.clone(),
            detail: self.detail(plan),
        };
        self.actions.push(Action::Answer { request, answer });
    }

    fn detail(&self, plan: &Plan) -> String {
        if self.closing {
            return "everything is being stopped".into();
        }
        let verb = plan.verb.as_str();
        match (plan.services.as_slice(), plan.verb) {
            ([service], Verb::Scale) => format!("scale {service} to {}", plan.instances),
            ([service], _) => format!("{verb} {service}"),
            (services, _) => format!("{verb} {} services", services.len()),
        }
    }

    fn start_slot(&mut self, id: &SlotId, named: bool, reason: &str) {
        let done = self
            .slot(id)
            .is_some_and(|slot| slot.state == InstanceState::Completed);
        if named || !done {
            self.retry(id, reason);
        }
    }

    /// What is needed is started when it does not run; what is done stays done.
    fn start_needed(&mut self, needed: &[ServiceName], reason: &str) {
        let ids: Vec<SlotId> = needed
            .iter()
            .filter_map(|name| Some(ids(name, self.services.get(name)?)))
            .flatten()
            .collect();
        for id in ids {
            self.start_slot(&id, false, reason);
        }
    }

    fn restart_slot(&mut self, id: &SlotId, reason: &str) {
        self.retry(id, reason);
        if let Some(slot) = self.slot_mut(id)
            && slot.run.as_ref().is_some_and(|run| !run.ended)
        {
            slot.restart = Some(reason.to_owned());
        }
        self.touch(&id.service);
    }

    pub(super) fn shutdown(&mut self) {
        self.closing = true;
        self.refresh_wanted();
    }

    pub(super) fn shutdown_overdue(&mut self) {
        let runs: BTreeSet<_> = self
            .slots_by_instance
            .keys()
            .chain(self.strays.keys())
            .cloned()
            .collect();
        for instance in runs {
            self.order_stop(&instance, KILL, Duration::ZERO);
        }
    }
}

pub(super) fn ids(name: &ServiceName, service: &Service) -> Vec<SlotId> {
    service
        .slots
        .keys()
        .map(|slot| SlotId {
            service: name.clone(),
            slot: *slot,
        })
        .collect()
}
