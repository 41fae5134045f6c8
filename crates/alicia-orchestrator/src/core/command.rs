//! What changes what is wanted: the file, commands, the shutdown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::ServiceName;
use alicia_contract::fleet::Fleet;
use alicia_contract::orchestrator::{FleetAnswer, InstanceState, Verb};

use super::Core;
use super::digest::Digest;
use super::event::{Action, Role, SlotId};
use super::plan::{Plan, Selection};
use super::service::{Service, Slot};

/// SIGKILL.
const KILL: i32 = 9;

impl Core {
    pub(super) fn desired(&mut self, fleet: Arc<Fleet>, selection: Selection) {
        for (name, service) in &mut self.services {
            service.present = fleet.services.contains_key(name);
        }
        for (name, spec) in &fleet.services {
            self.take_spec(name, Arc::new(spec.clone()));
        }
        self.fleet = fleet;
        self.selection = selection;
        self.index_dependents();
        self.refresh_wanted();
    }

    fn take_spec(&mut self, name: &ServiceName, spec: Arc<alicia_contract::fleet::ServiceSpec>) {
        let Some(service) = self.services.get_mut(name) else {
            self.services.insert(name.clone(), Service::new(spec));
            return;
        };
        if service.spec == spec {
            return;
        }
        let old = std::mem::replace(&mut service.spec, spec.clone());
        let digest = Digest::of(&spec);
        let changed = std::mem::replace(&mut service.digest, digest) != service.digest;
        let slots: Vec<SlotId> = ids(name, service);
        for id in slots {
            if changed {
                self.retry(&id, "its settings changed");
            }
            if old.readiness != spec.readiness || old.liveness != spec.liveness {
                self.watch_anew(&id);
            }
        }
    }

    /// Gives a slot that has given up, or is done, another try.
    fn retry(&mut self, id: &SlotId, why: &str) {
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        let over = matches!(
            slot.state,
            InstanceState::Failed | InstanceState::Completed | InstanceState::Backoff
        );
        if over {
            slot.freshen();
            self.set_slot_timer(id, None);
            self.transition(id, InstanceState::Waiting, why.to_owned());
        }
    }

    /// The probes changed: those that run are replaced.
    fn watch_anew(&mut self, id: &SlotId) {
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

    fn index_dependents(&mut self) {
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
    fn refresh_wanted(&mut self) {
        let selected = self.selection.services(&self.fleet);
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in names {
            let overrides = self.overrides.get(&name).copied().unwrap_or_default();
            let Some(service) = self.services.get_mut(&name) else {
                continue;
            };
            service.enabled = !self.closing
                && overrides
                    .enabled
                    .unwrap_or_else(|| selected.contains(&name));
            if service.present {
                service.wanted = overrides.wanted(service.spec.instances);
                self.make_slots(&name);
            }
            self.touch(&name);
        }
    }

    fn make_slots(&mut self, name: &ServiceName) {
        let wanted = self.services.get(name).map_or(0, |service| service.wanted);
        for number in 1..=wanted {
            let id = SlotId {
                service: name.clone(),
                slot: number,
            };
            if self.slot(&id).is_none() {
                self.make_slot(&id);
            }
        }
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
            slot.restarts = known.restarts;
            slot.exit = known.exit;
            slot.instance.clone_from(&known.instance);
            if known.state == InstanceState::Running {
                slot.ready_before = known.instance.map(|instance| (instance, known.since));
            }
            let over = matches!(
                known.state,
                InstanceState::Completed | InstanceState::Failed
            );
            if over && known.digest == service.digest {
                slot.state = known.state;
                slot.since = known.since;
                slot.reason = known.reason;
            }
        }
        service.slots.insert(id.slot, slot);
    }

    pub(super) fn command(&mut self, request: u64, plan: &Plan, reason: &str) {
        for (name, overrides) in plan.overrides(&self.fleet) {
            self.overrides.entry(name).or_default().merge(overrides);
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
