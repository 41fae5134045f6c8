//! What must always be true, whatever happens in the world.

use std::collections::BTreeMap;

use alicia_contract::orchestrator::InstanceState;

use super::{World, slot_of};
use crate::core::event::{SlotId, Spawn};
use crate::core::service::{Service, Slot};

impl World {
    /// What must be true after every event.
    pub(super) fn check(&self) {
        let mut living: BTreeMap<&SlotId, u32> = BTreeMap::new();
        for held in self.held.values().filter(|held| !held.is_empty()) {
            *living.entry(&held.slot).or_default() += 1;
        }
        for (slot, count) in living {
            assert!(count <= 1, "{count} living runs in {slot}");
        }
        for instance in self.held.keys().filter(|_| self.keeper) {
            assert!(
                self.core.knows(instance),
                "{instance} runs and the core does not know it"
            );
        }
        for (name, service) in &self.core.services {
            for (number, slot) in &service.slots {
                let id = SlotId {
                    service: name.clone(),
                    slot: *number,
                };
                self.check_slot(&id, service, slot);
            }
        }
    }

    /// One that runs and need not be asked is good, and stays so when the file says later that it is to be asked.
    pub(super) fn note_good(&mut self) {
        for service in self.core.services.values() {
            for slot in service.slots.values() {
                let is_good = slot.state == InstanceState::Running && !is_asked(service, slot);
                let held = slot
                    .instance
                    .as_ref()
                    .and_then(|run| self.held.get_mut(run));
                if let Some(held) = held.filter(|_| is_good) {
                    held.was_good = true;
                }
            }
        }
    }

    /// Nothing is left lying: what waits has its time, what is held still says so, and nothing is told to be ready
    /// that was not asked.
    fn check_slot(&self, id: &SlotId, service: &Service, slot: &Slot) {
        let waits = slot.state == InstanceState::Parked
            || slot.state == InstanceState::Failed && slot.next_start.is_some();
        assert!(
            !waits || slot.deadline.is_some() || self.core.closing,
            "{id} is {:?} and no time is set for its next start",
            slot.state
        );
        let is_place = service.present && service.places.contains(&id.slot);
        assert!(
            !is_place || service.update.is_some() || slot.pinned.is_none(),
            "{id} keeps old settings, and nothing is updated"
        );
        let held = slot.instance.as_ref().and_then(|run| self.held.get(run));
        let Some(held) = held.filter(|held| held.lives() && !held.asked_to_end && slot.runs())
        else {
            return;
        };
        if !self.keeper {
            return;
        }
        assert_eq!(
            held.frozen,
            slot.state == InstanceState::Paused,
            "{id} is {:?}",
            slot.state
        );
        assert!(
            slot.state != InstanceState::Running || !is_asked(service, slot) || held.was_good,
            "{id} is running, and was never found ready"
        );
    }

    /// Restarts of what ended by itself; starts that somebody asked for are not among them. Supervisors and updates
    /// start what did not end by itself, and count in their own way.
    pub(super) fn check_start_limit(&self, spawn: &Spawn) {
        let spec = &spawn.spec;
        if spec.update.is_some() || !spec.groups.is_empty() || spec.progress.is_some() {
            return;
        }
        let limit = &spawn.spec.start_limit;
        let since = self.now.saturating_sub(limit.within.duration());
        let recent = self.starts[&spawn.slot]
            .iter()
            .filter(|start| **start > since)
            .count();
        assert!(
            limit.starts == 0 || recent <= limit.starts as usize,
            "{recent} restarts of {} within {}",
            spawn.slot,
            limit.within
        );
    }

    /// A first start needs its dependencies; a restart after a failure does not.
    pub(super) fn check_dependencies(&self, spawn: &Spawn) {
        let last = self
            .transitions
            .iter()
            .rev()
            .find(|t| slot_of(t) == spawn.slot);
        if last.is_some_and(|transition| transition.to == InstanceState::Backoff) {
            return;
        }
        let status = self.core.status(0.0);
        for need in spawn.spec.depends_on.0.keys() {
            let needed = status
                .services
                .iter()
                .find(|s| s.service == *need)
                .expect("it is there");
            // Whoever connects to it wakes it up.
            if needed.wanted == 0 && self.fleet.services[need].on_demand.is_some() {
                continue;
            }
            let states: Vec<_> = needed.instances.iter().map(|i| i.state).collect();
            let there = [
                InstanceState::Running,
                InstanceState::Starting,
                InstanceState::Completed,
            ];
            assert!(
                needed.wanted > 0
                    && states.iter().filter(|state| there.contains(state)).count()
                        >= needed.wanted as usize,
                "{} starts while {need} is {states:?}",
                spawn.slot
            );
        }
    }
}

/// Whether others ask an instance if it is ready.
fn is_asked(service: &Service, slot: &Slot) -> bool {
    let readiness = service.spec_of(slot).readiness.as_ref();
    readiness.is_some_and(|probe| !probe.is_told())
}
