//! Compares what is wanted with what is there, and does the next step for each slot.

use std::time::Duration;

use alicia_contract::ServiceName;
use alicia_contract::fleet::{Condition, RestartPolicy};
use alicia_contract::orchestrator::InstanceState;

use super::Core;
use super::event::{Action, SlotId, Spawn};
use super::service::{Run, Service, Slot, StopCause};

/// The next step for one slot.
#[derive(Debug, PartialEq)]
enum Step {
    /// Everything is as it should be, or something is under way.
    Rest,
    /// Ask its run to end.
    Stop(String),
    /// It is not wanted and has no run.
    Park,
    /// It is not wanted any more, has no run, and goes.
    Drop,
    /// It is wanted and has to wait for this.
    Wait(String),
    /// Its budget is used up.
    ParkSpent,
    /// Start it.
    Spawn,
}

impl Core {
    /// Takes steps until nothing is left to do but to wait for events.
    pub(super) fn settle(&mut self) {
        while let Some(name) = self.dirty.pop_first() {
            self.settle_service(&name);
        }
    }

    fn settle_service(&mut self, name: &ServiceName) {
        self.go_on_with_update(name);
        let Some(service) = self.services.get(name) else {
            return;
        };
        let numbers: Vec<u32> = service.slots.keys().copied().collect();
        // The highest first: they are the first to go when there are too many.
        for number in numbers.into_iter().rev() {
            let id = SlotId {
                service: name.clone(),
                slot: number,
            };
            let step = self.next_step(&id);
            self.take_step(&id, step);
        }
        let gone = |service: &Service| !service.present && service.slots.is_empty();
        if self.services.get(name).is_some_and(gone) {
            self.services.remove(name);
        }
    }

    fn next_step(&self, id: &SlotId) -> Step {
        let Some(service) = self.services.get(&id.service) else {
            return Step::Rest;
        };
        let Some(slot) = service.slots.get(&id.slot) else {
            return Step::Rest;
        };
        match (&slot.run, service.wants(id.slot)) {
            (Some(run), _) => self.step_of_run(service, id, slot, run),
            (None, false) if !service.present || !service.places.contains(&id.slot) => {
                match self.keeper {
                    true => Step::Drop,
                    // The keeper may hold a run there: what is remembered of it must not be lost.
                    false => Step::Rest,
                }
            }
            (None, false) if slot.state == InstanceState::Stopped => Step::Rest,
            // A provider's limit does not end with the house.
            (None, false) if self.closing && slot.state == InstanceState::Parked => Step::Rest,
            (None, false) => Step::Park,
            (None, true) => self.step_to_start(service, id, slot),
        }
    }

    fn step_of_run(&self, service: &Service, id: &SlotId, slot: &Slot, run: &Run) -> Step {
        let can_be_stopped = run.process.is_some() && run.stop.is_none() && self.keeper;
        match service.must_stop(id.slot, slot) {
            Some(why) if can_be_stopped && !self.dependents_stop_first(service) => Step::Stop(why),
            _ => Step::Rest,
        }
    }

    /// Whether a direct dependent has a run that has to end as well.
    fn dependents_stop_first(&self, service: &Service) -> bool {
        service
            .needed_by
            .iter()
            .filter_map(|name| self.services.get(name))
            .any(|dependent| {
                let mut slots = dependent.slots.iter();
                slots.any(|(n, slot)| slot.run.is_some() && dependent.must_stop(*n, slot).is_some())
            })
    }

    fn step_to_start(&self, service: &Service, id: &SlotId, slot: &Slot) -> Step {
        match slot.state {
            InstanceState::Completed | InstanceState::Failed | InstanceState::Parked => Step::Rest,
            _ if service.spent_out.is_some() => Step::ParkSpent,
            InstanceState::Backoff if slot.deadline.is_some() => Step::Rest,
            _ if self.is_being_brought_down(id) => {
                Step::Wait("waits until those that are restarted with it have ended".into())
            }
            InstanceState::Backoff if self.is_free(id) => Step::Spawn,
            InstanceState::Backoff => Step::Rest,
            _ => match self.held_back_by(service, id) {
                Some(reason) => Step::Wait(reason),
                None => Step::Spawn,
            },
        }
    }

    /// What a first start has to wait for.
    fn held_back_by(&self, service: &Service, id: &SlotId) -> Option<String> {
        if !self.is_free(id) {
            return Some("waits for the keeper".into());
        }
        service
            .spec
            .depends_on
            .0
            .iter()
            .find_map(|(name, condition)| {
                let wanted = wanted_of(*condition);
                let Some(needed) = self.services.get(name) else {
                    return Some(format!(
                        "waits for {name} to be {wanted}: it is not in the file"
                    ));
                };
                let unmet = needed.unmet(*condition)?;
                let never = *condition == Condition::Completed
                    && needed.spec.restart == RestartPolicy::Always;
                let advice = if never {
                    "; it is restarted whenever it ends: write `restart: on-failure` for it"
                } else {
                    ""
                };
                Some(format!("waits for {name} to be {wanted}: {unmet}{advice}"))
            })
    }

    /// Whether a process may be started there.
    fn is_free(&self, id: &SlotId) -> bool {
        self.keeper
            && !self
                .strays
                .values()
                .any(|stray| stray.slot.as_ref() == Some(id))
    }

    fn take_step(&mut self, id: &SlotId, step: Step) {
        match step {
            Step::Rest => {}
            Step::Stop(why) => self.stop_run(id, StopCause::Asked, &why),
            Step::Park => {
                self.set_slot_timer(id, None);
                if let Some(slot) = self.slot_mut(id) {
                    slot.restart = None;
                }
                self.transition(id, InstanceState::Stopped, "it is not wanted".into());
            }
            Step::Drop => self.drop_slot(id),
            Step::Wait(reason) => self.transition(id, InstanceState::Waiting, reason),
            Step::ParkSpent => self.park_spent(id),
            Step::Spawn => self.spawn(id),
        }
    }

    fn drop_slot(&mut self, id: &SlotId) {
        if self
            .slot(id)
            .is_some_and(|slot| slot.state != InstanceState::Stopped)
        {
            self.transition(id, InstanceState::Stopped, "it is not wanted".into());
        }
        if let Some(service) = self.services.get_mut(&id.service) {
            service.slots.remove(&id.slot);
        }
        self.touch(&id.service);
    }

    fn spawn(&mut self, id: &SlotId) {
        if self
            .slot(id)
            .is_some_and(|slot| slot.state != InstanceState::Backoff)
        {
            self.transition(id, InstanceState::Waiting, "it is being started".into());
        }
        let last = self.epochs.get(id).copied().unwrap_or_default();
        let epoch = last.max(self.epochs_before).next();
        let random = self.random.u128(..) >> 48;
        let unix_ms = Duration::try_from_secs_f64(self.now.unix)
            .unwrap_or_default()
            .as_millis();
        let unix_ms = u64::try_from(unix_ms).unwrap_or_default();
        let instance = alicia_contract::InstanceId::from_parts(unix_ms, random);
        let (now, session) = (self.now.monotonic, self.session);
        let Some(service) = self.services.get_mut(&id.service) else {
            return;
        };
        let Some(slot) = service.slots.get(&id.slot) else {
            return;
        };
        let (spec, digest) = (
            service.spec_of(slot).clone(),
            service.digest_of(slot).clone(),
        );
        let Some(slot) = service.slots.get_mut(&id.slot) else {
            return;
        };
        if slot.restart.is_some() {
            slot.freshen();
        }
        slot.epoch = epoch;
        slot.instance = Some(instance.clone());
        // No more than the start limit looks at.
        while slot.starts.len() >= (spec.start_limit.starts as usize).max(1) {
            slot.starts.pop_front();
        }
        slot.starts.push_back(now);
        slot.has_turn = false;
        slot.bring_back = None;
        let resume = slot.unfinished;
        slot.unfinished = true;
        slot.run = Some(Run::new(instance.clone(), digest.clone(), session, now));
        self.epochs.insert(id.clone(), epoch);
        self.slots_by_instance.insert(instance.clone(), id.clone());
        self.set_slot_timer(id, None);
        self.revision += 1;
        let spawn = Spawn {
            slot: id.clone(),
            instance,
            epoch,
            spec,
            digest,
            resume,
        };
        self.actions.push(Action::Spawn(Box::new(spawn)));
    }
}

fn wanted_of(condition: Condition) -> &'static str {
    match condition {
        Condition::Started => "started",
        Condition::Healthy => "healthy",
        Condition::Completed => "completed",
    }
}
