//! The keeper comes and goes: what it holds is taken over, what it does not hold is lost.

use std::collections::BTreeSet;

use alicia_contract::InstanceId;
use alicia_contract::orchestrator::{Exit, ExitCause, InstanceState};

use super::event::{Found, FoundState, Process, Role, SlotId};
use super::service::{Run, StopCause};
use super::{Core, command, notice};

impl Core {
    pub(super) fn keeper_lost(&mut self) {
        self.keeper = false;
        self.session += 1;
        self.revision += 1;
    }

    /// Compares everything that the keeper holds with everything that is known.
    pub(super) fn synced(&mut self, mut found: Vec<Found>) {
        self.keeper = true;
        // The newest run of a slot is taken over; older ones are strays.
        found.sort_by_key(|run| std::cmp::Reverse(run.epoch));
        self.claim_places(&found);
        let listed: BTreeSet<InstanceId> = found.iter().map(|run| run.instance.clone()).collect();
        for run in found {
            self.take_in(run);
        }
        self.drop_unlisted(&listed);
        let names: Vec<_> = self.services.keys().cloned().collect();
        self.dirty.extend(names);
    }

    fn take_in(&mut self, run: Found) {
        if let Some(id) = &run.slot {
            let epoch = self.epochs.entry(id.clone()).or_default();
            *epoch = run.epoch.max(*epoch);
        }
        if self.strays.contains_key(&run.instance) {
            self.take_in_stray(&run);
        } else if let Some(id) = self.slot_of(&run.instance) {
            self.compare(&id, run);
        } else {
            match run.slot.clone().filter(|id| self.can_hold(id)) {
                Some(id) => self.adopt(&id, run),
                None => self.refuse(run),
            }
        }
    }

    fn take_in_stray(&mut self, run: &Found) {
        let slot = self
            .strays
            .get(&run.instance)
            .and_then(|stray| stray.slot.clone());
        if run.empty {
            self.emptied(&run.instance, 0);
        } else {
            self.stray(&run.instance, slot);
        }
    }

    fn refuse(&mut self, run: Found) {
        self.stray(&run.instance, run.slot);
        if run.empty {
            self.emptied(&run.instance, 0);
        }
    }

    /// Whether the slot is one of a service that is there, and has no run. Makes it when it is missing.
    fn can_hold(&mut self, id: &SlotId) -> bool {
        if !self.services.contains_key(&id.service) || id.slot == 0 {
            return false;
        }
        if self.slot(id).is_none() {
            self.make_slot(id);
        }
        self.slot(id).is_some_and(|slot| slot.run.is_none())
    }

    /// A run that is known: hears what was missed while the keeper was away.
    fn compare(&mut self, id: &SlotId, run: Found) {
        let instance = run.instance.clone();
        self.spawned(&instance, process_of(&run));
        match run.state {
            FoundState::Exited { exit, .. } => {
                self.notified(&instance, &run.said);
                self.exited(&instance, exit, (run.empty, None));
            }
            FoundState::Running | FoundState::Stopping => {
                self.notified(&instance, &run.said);
                self.repeat_stop(id, &instance);
                self.repeat_pause(id);
            }
        }
    }

    /// A stop that was on its way when the keeper went.
    fn repeat_stop(&mut self, id: &SlotId, instance: &InstanceId) {
        let asked = self.run_mut(id).is_some_and(|run| run.stop.is_some());
        if let Some(spec) = self.spec_of(id).filter(|_| asked) {
            let (signal, grace) = (spec.stop.signal.number(), spec.stop.grace.duration());
            self.order_stop(instance, signal, grace);
        }
    }

    /// Takes over a run of an earlier life of the host.
    fn adopt(&mut self, id: &SlotId, found: Found) {
        let (now, session) = (self.now.monotonic, self.session);
        let instance = found.instance.clone();
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        slot.epoch = found.epoch;
        slot.instance = Some(instance.clone());
        slot.starts.push_back(now.saturating_sub(found.age));
        let started = now.saturating_sub(found.age);
        slot.unfinished = true;
        slot.run = Some(Run {
            process: Some(process_of(&found)),
            ..Run::new(instance.clone(), found.digest.clone(), session, started)
        });
        self.slots_by_instance.insert(instance.clone(), id.clone());
        self.pin_found(id, &found.digest);
        self.touch(&id.service);
        match found.state {
            FoundState::Running => {
                self.go_on(id, &found);
                self.notified(&instance, &found.said);
            }
            FoundState::Stopping => self.stop_run(id, StopCause::Asked, "it was asked to end"),
            FoundState::Exited { exit, requested } => {
                self.notified(&instance, &found.said);
                if requested {
                    self.stop_run(id, StopCause::Asked, "it was asked to end");
                } else if let Some(slot) = self.slot_mut(id) {
                    slot.state = InstanceState::Running;
                }
                self.exited(&instance, exit, (found.empty, None));
            }
        }
    }

    /// A run that was ready stays ready: nobody asks a second time. One that was not is asked.
    fn go_on(&mut self, id: &SlotId, found: &Found) {
        // While it is updated, its own settings may be older ones.
        let Some(spec) = self.spec_of(id) else {
            return;
        };
        let (unix, monotonic) = (self.now.unix, self.now.monotonic);
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        let ready = slot
            .ready_before
            .take()
            .filter(|(instance, _)| *instance == found.instance);
        let Some(since) = ready.map(|(_, since)| since).or_else(|| {
            (spec.readiness.is_none() && !notice::says_ready(&spec))
                .then_some(unix - found.age.as_secs_f64())
        }) else {
            self.begin(id, found.age);
            return;
        };
        slot.state = InstanceState::Running;
        slot.since_monotonic = monotonic.saturating_sub(found.age);
        slot.since = since;
        slot.reason = "taken over by a new host".into();
        if let Some(why) = slot.paused_before.take() {
            slot.state = InstanceState::Paused;
            slot.reason = why;
            // The last host may have died before it said so to the keeper.
            if let Some(run) = &mut slot.run {
                run.was_paused = true;
            }
            return self.repeat_pause(id);
        }
        if let Some(run) = &mut slot.run {
            run.was_ready = true;
        }
        if let Some(probe) = &spec.liveness {
            self.watch(id, Role::Liveness, probe, found.age);
        }
        self.watch_progress(id);
    }

    /// Runs that the keeper does not hold are gone, except those that it has not started yet.
    fn drop_unlisted(&mut self, listed: &BTreeSet<InstanceId>) {
        let strays: Vec<_> = self
            .strays
            .keys()
            .filter(|stray| !listed.contains(*stray))
            .cloned()
            .collect();
        for instance in strays {
            self.emptied(&instance, 0);
        }
        let names: Vec<_> = self.services.keys().cloned().collect();
        for name in names {
            let ids = self
                .services
                .get(&name)
                .map(|service| command::ids(&name, service));
            for id in ids.unwrap_or_default() {
                self.drop_unlisted_run(&id, listed);
            }
        }
    }

    fn drop_unlisted_run(&mut self, id: &SlotId, listed: &BTreeSet<InstanceId>) {
        let (session, unix) = (self.session, self.now.unix);
        let Some(run) = self.slot(id).and_then(|slot| slot.run.as_ref()) else {
            return;
        };
        let under_way = run.process.is_none() && run.session == session;
        if listed.contains(&run.instance) || under_way {
            return;
        }
        let instance = run.instance.clone();
        let had_process = run.process.is_some();
        let stopping = self
            .slot(id)
            .is_some_and(|slot| slot.state == InstanceState::Stopping);
        // What was over before goes on as it was: a try to come, a time for which it is parked.
        let over = self.slot(id).is_some_and(|slot| {
            matches!(
                slot.state,
                InstanceState::Completed | InstanceState::Failed | InstanceState::Parked
            )
        });
        if !over {
            self.set_slot_timer(id, None);
        }
        self.actions.push(super::event::Action::Unwatch(instance));
        if had_process && let Some(slot) = self.slot_mut(id) {
            let cause = "lost with the keeper".to_owned();
            slot.exit = Some(Exit {
                code: None,
                signal: None,
                cause,
                class: ExitCause::Lost,
                at: unix,
                ..Exit::default()
            });
        }
        self.release(id);
        if stopping {
            self.transition(
                id,
                InstanceState::Stopped,
                "it ended with the keeper".into(),
            );
        } else if !over {
            // Not a failure of the program: it starts again as the first time, in order.
            self.transition(id, InstanceState::Waiting, "the keeper was lost".into());
        }
    }
}

fn process_of(run: &Found) -> Process {
    Process {
        pid: run.pid,
        containment: run.containment.clone(),
        limits: run.limits.clone(),
        ports: run.ports.clone(),
    }
}
