//! What happens to a run: it is there, becomes ready, ends, is asked to end, is gone.

use std::time::Duration;

use alicia_contract::InstanceId;
use alicia_contract::fleet::{Probe, RestartPolicy, ServiceSpec};
use alicia_contract::orchestrator::{Exit, InstanceState, Transition};

use super::event::{Action, Process, Record, Role, SlotId, SpawnFault, Verdict};
use super::service::{StopCause, Stray};
use super::{Core, Owner, back_off};

/// What a leader that ended by itself leaves behind has this long to end. Short: the next run waits for
/// it, and the one that would have told it to end is gone.
const REMAINS_GRACE: Duration = Duration::from_millis(500);

/// How much longer than its grace period a stop may take before it is asked again, with force.
const STOP_MARGIN: Duration = Duration::from_secs(5);

impl Core {
    pub(super) fn spawned(&mut self, instance: &InstanceId, process: Process) {
        let Some(id) = self.slot_of(instance) else {
            self.stray(instance, None);
            return;
        };
        let now = self.now.monotonic;
        let Some(run) = self.run_mut(&id) else { return };
        if run.process.is_some() {
            return;
        }
        run.process = Some(process);
        run.started = now;
        self.begin(&id, Duration::ZERO);
    }

    /// Takes a process that runs into `starting`, and on to `running` when it has no readiness probe.
    pub(super) fn begin(&mut self, id: &SlotId, age: Duration) {
        let Some(service) = self.services.get(&id.service) else {
            return;
        };
        let spec = service.spec.clone();
        let timeout = self.now.monotonic + spec.start_timeout.duration();
        match &spec.readiness {
            Some(probe) => {
                self.transition(id, InstanceState::Starting, "waits for readiness".into());
                self.set_slot_timer(id, Some(timeout));
                self.watch(id, Role::Readiness, probe, age);
            }
            None => {
                self.transition(id, InstanceState::Starting, "its process runs".into());
                self.ready(id, "its process runs", age);
            }
        }
    }

    pub(super) fn ready(&mut self, id: &SlotId, why: &str, age: Duration) {
        self.set_slot_timer(id, None);
        self.transition(id, InstanceState::Running, why.into());
        let spec = self
            .services
            .get(&id.service)
            .map(|service| service.spec.clone());
        if let Some(probe) = spec.as_ref().and_then(|spec| spec.liveness.as_ref()) {
            self.watch(id, Role::Liveness, probe, age);
        }
    }

    pub(super) fn watch(&mut self, id: &SlotId, role: Role, probe: &Probe, age: Duration) {
        let Some(instance) = self.slot(id).and_then(|slot| slot.instance.clone()) else {
            return;
        };
        let (slot, probe) = (id.clone(), Box::new(probe.clone()));
        self.actions.push(Action::Watch {
            instance,
            slot,
            role,
            probe,
            age,
        });
    }

    pub(super) fn spawn_failed(&mut self, instance: &InstanceId, fault: SpawnFault) {
        let Some(id) = self.slot_of(instance) else {
            return;
        };
        if self
            .slot(&id)
            .and_then(|s| s.run.as_ref())
            .is_none_or(|run| run.process.is_some())
        {
            return;
        }
        let (cause, lasting) = match fault {
            SpawnFault::Lasting(cause) => (cause, true),
            SpawnFault::Passing(cause) => (cause, false),
        };
        let exit = Exit {
            code: None,
            signal: None,
            cause: cause.clone(),
            at: self.now.unix,
        };
        if let Some(slot) = self.slot_mut(&id) {
            slot.exit = Some(exit);
        }
        self.release(&id);
        let wanted = self
            .services
            .get(&id.service)
            .is_some_and(|s| s.wants(id.slot));
        match (wanted, lasting) {
            (true, true) => self.transition(&id, InstanceState::Failed, cause),
            (true, false) => self.try_again(&id, &cause),
            (false, _) => self.touch(&id.service),
        }
    }

    pub(super) fn exited(&mut self, instance: &InstanceId, exit: Exit, empty: bool) {
        if self.strays.contains_key(instance) && empty {
            self.emptied(instance, 0);
        }
        let Some(id) = self.slot_of(instance) else {
            return;
        };
        if self.run_mut(&id).is_some_and(|run| run.process.is_none()) {
            self.transition(&id, InstanceState::Starting, "its process ran".into());
        }
        let Some(slot) = self.slot_mut(&id) else {
            return;
        };
        let Some(run) = slot.run.as_mut() else { return };
        let stop = run.stop.clone();
        if !std::mem::replace(&mut run.ended, true) {
            // How it was ended on purpose is no news, but why is.
            slot.exit = Some(match &stop {
                Some(StopCause::Unwell(cause)) => Exit {
                    cause: cause.clone(),
                    ..exit.clone()
                },
                _ => exit.clone(),
            });
            self.actions.push(Action::Unwatch(instance.clone()));
            if stop.is_none() {
                self.ended_by_itself(&id, &exit, empty);
            }
        }
        if empty {
            self.emptied(instance, 0);
        }
    }

    fn ended_by_itself(&mut self, id: &SlotId, exit: &Exit, empty: bool) {
        self.set_slot_timer(id, None);
        if !empty {
            self.stop_run(id, StopCause::Remains, "");
        }
        let Some(service) = self.services.get(&id.service) else {
            return;
        };
        let spec = service.spec.clone();
        let must_stop = self
            .slot(id)
            .and_then(|slot| service.must_stop(id.slot, slot));
        let success = is_success(&spec, exit);
        match (must_stop, spec.restart) {
            // It went before it was asked to: what follows is decided when it is gone.
            (Some(why), _) => self.transition(id, InstanceState::Stopping, why),
            (None, RestartPolicy::OnFailure | RestartPolicy::Never) if success => {
                self.transition(id, InstanceState::Completed, exit.cause.clone());
            }
            (None, RestartPolicy::Never) => {
                let reason = format!("{}; it is never restarted", exit.cause);
                self.transition(id, InstanceState::Failed, reason);
            }
            (None, _) => self.try_again(id, &exit.cause),
        }
    }

    /// Decides about the restart of a slot whose run does not do what it should.
    fn try_again(&mut self, id: &SlotId, cause: &str) {
        let Some(spec) = self
            .services
            .get(&id.service)
            .map(|service| service.spec.clone())
        else {
            return;
        };
        let (now, random) = (self.now, self.random.f64());
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        let started = slot.starts.back().copied().unwrap_or(now.monotonic);
        if now.monotonic.saturating_sub(started) >= spec.back_off.reset_after.duration() {
            slot.streak = 0;
        }
        let limit = &spec.start_limit;
        let within = limit.within.duration();
        slot.starts
            .retain(|start| now.monotonic.saturating_sub(*start) <= within);
        let starts = slot.starts.len();
        if limit.starts > 0 && starts >= limit.starts as usize {
            let reason = format!("{cause}; {starts} starts within {}: given up", limit.within);
            self.transition(id, InstanceState::Failed, reason);
            return;
        }
        slot.streak = slot.streak.saturating_add(1);
        slot.restarts = slot.restarts.saturating_add(1);
        let wait = back_off::wait(&spec.back_off, slot.streak, random);
        slot.next_start = Some(now.unix + wait.as_secs_f64());
        self.transition(id, InstanceState::Backoff, cause.to_owned());
        let at = (!wait.is_zero()).then(|| now.monotonic + wait);
        self.set_slot_timer(id, at);
    }

    /// The deadline of a slot is over.
    pub(super) fn slot_due(&mut self, id: &SlotId) {
        self.set_slot_timer(id, None);
        let Some(slot) = self.slot(id) else { return };
        if slot.state == InstanceState::Starting && slot.runs() {
            let timeout = self.services[&id.service].spec.start_timeout;
            let waited_for = slot.reason.clone();
            self.unwell(id, format!("not ready within {timeout}: {waited_for}"));
        }
        self.dirty.insert(id.service.clone());
    }

    pub(super) fn probed(&mut self, instance: &InstanceId, role: Role, verdict: Verdict) {
        let Some(id) = self.slot_of(instance) else {
            return;
        };
        let Some(slot) = self.slot_mut(&id) else {
            return;
        };
        if slot
            .run
            .as_ref()
            .is_none_or(|run| run.stop.is_some() || run.ended)
        {
            return;
        }
        match (role, slot.state, verdict) {
            (Role::Readiness, InstanceState::Starting, Verdict::Good) => {
                let started = slot.run.as_ref().map_or(Duration::ZERO, |run| run.started);
                let age = self.now.monotonic.saturating_sub(started);
                self.actions.push(Action::Unwatch(instance.clone()));
                self.ready(&id, "it is ready", age);
            }
            (Role::Readiness, InstanceState::Starting, Verdict::Bad(why)) => {
                slot.reason = format!("waits for readiness: {why}");
                self.revision += 1;
            }
            (Role::Liveness, InstanceState::Running, Verdict::Bad(why)) => {
                self.unwell(&id, format!("liveness failed: {why}"));
            }
            _ => {}
        }
    }

    /// Ends a run that does not work, to restart it as after a crash.
    fn unwell(&mut self, id: &SlotId, cause: String) {
        self.stop_run(id, StopCause::Unwell(cause.clone()), &cause);
    }

    /// Asks a run to end, the whole tree of it.
    pub(super) fn stop_run(&mut self, id: &SlotId, cause: StopCause, why: &str) {
        let Some(spec) = self
            .services
            .get(&id.service)
            .map(|service| service.spec.clone())
        else {
            return;
        };
        let remains = cause == StopCause::Remains;
        let Some(run) = self.run_mut(id) else { return };
        let instance = run.instance.clone();
        run.stop = Some(cause);
        let grace = if remains {
            REMAINS_GRACE
        } else {
            spec.stop.grace.duration()
        };
        self.order_stop(&instance, spec.stop.signal.number(), grace);
        if !remains {
            self.actions.push(Action::Unwatch(instance));
            self.set_slot_timer(id, None);
            self.transition(id, InstanceState::Stopping, why.to_owned());
        }
    }

    /// Sends a stop and sets the time at which it is repeated with force.
    pub(super) fn order_stop(&mut self, instance: &InstanceId, signal: i32, grace: Duration) {
        let at = self.now.monotonic + grace + STOP_MARGIN;
        self.actions.push(Action::Stop {
            instance: instance.clone(),
            signal,
            grace,
        });
        self.timers.insert((at, Owner::Run(instance.clone())));
        if let Some(stray) = self.strays.get_mut(instance) {
            stray.stop_deadline = Some(at);
        } else if let Some(id) = self.slot_of(instance)
            && let Some(run) = self.run_mut(&id)
        {
            run.stop_deadline = Some(at);
        }
    }

    pub(super) fn stop_due(&mut self, instance: &InstanceId, at: Duration) {
        let of_stray = self
            .strays
            .get(instance)
            .and_then(|stray| stray.stop_deadline);
        let of_run = || {
            self.slot(&self.slot_of(instance)?)?
                .run
                .as_ref()?
                .stop_deadline
        };
        if of_stray.or_else(of_run) == Some(at) {
            self.order_stop(instance, SIGKILL, Duration::ZERO);
        }
    }

    /// Stops a run that belongs to no slot, or not to the slot that it names.
    pub(super) fn stray(&mut self, instance: &InstanceId, slot: Option<SlotId>) {
        self.strays.insert(
            instance.clone(),
            Stray {
                slot,
                stop_deadline: None,
            },
        );
        self.order_stop(instance, SIGTERM, STRAY_GRACE);
    }

    pub(super) fn emptied(&mut self, instance: &InstanceId, killed: u32) {
        if let Some(stray) = self.strays.remove(instance) {
            self.actions.push(Action::Forget(instance.clone()));
            if let Some(id) = stray.slot {
                self.touch(&id.service);
            }
        }
        let Some(id) = self.slot_of(instance) else {
            return;
        };
        if self.run_mut(&id).is_some_and(|run| !run.ended) {
            let cause = "ended unseen".to_owned();
            let exit = Exit {
                code: None,
                signal: None,
                cause,
                at: self.now.unix,
            };
            self.exited(instance, exit, true);
            return;
        }
        let stop = self
            .slot(&id)
            .and_then(|slot| slot.run.as_ref()?.stop.clone());
        self.release(&id);
        let Some(slot) = self.slot(&id) else { return };
        if slot.state != InstanceState::Stopping {
            self.touch(&id.service);
            return;
        }
        let service = &self.services[&id.service];
        match stop {
            Some(StopCause::Unwell(cause)) if service.wants(id.slot) && slot.restart.is_none() => {
                self.unwell_gone(&id, &cause);
            }
            _ => self.stopped(&id, killed),
        }
    }

    fn unwell_gone(&mut self, id: &SlotId, cause: &str) {
        if self.services[&id.service].spec.restart == RestartPolicy::Never {
            let reason = format!("{cause}; it is never restarted");
            self.transition(id, InstanceState::Failed, reason);
        } else {
            self.try_again(id, cause);
        }
    }

    fn stopped(&mut self, id: &SlotId, killed: u32) {
        let reason = match killed {
            0 => "it ended when asked to".to_owned(),
            1 => "1 process was killed by force".to_owned(),
            _ => format!("{killed} processes were killed by force"),
        };
        if let Some(slot) = self.slot_mut(id)
            && slot.restart.is_some()
        {
            slot.freshen();
        }
        let wanted = self
            .services
            .get(&id.service)
            .is_some_and(|s| s.wants(id.slot));
        let to = if wanted {
            InstanceState::Waiting
        } else {
            InstanceState::Stopped
        };
        self.transition(id, to, reason);
    }

    /// Lets the run of a slot go: nothing of it is left.
    pub(super) fn release(&mut self, id: &SlotId) {
        if let Some(run) = self.slot_mut(id).and_then(|slot| slot.run.take()) {
            self.slots_by_instance.remove(&run.instance);
            self.actions.push(Action::Forget(run.instance));
        }
        self.touch(&id.service);
    }

    /// Moves a slot to another state and says so; a new reason alone is only kept.
    pub(super) fn transition(&mut self, id: &SlotId, to: InstanceState, reason: String) {
        let at = self.now.unix;
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        let from = std::mem::replace(&mut slot.state, to);
        if to != InstanceState::Backoff {
            slot.next_start = None;
        }
        // One failed try after the other is news each time.
        if from == to && to != InstanceState::Backoff {
            slot.reason = reason;
            self.revision += 1;
            return;
        }
        slot.since = at;
        slot.reason.clone_from(&reason);
        let process = slot.run.as_ref().and_then(|run| run.process.as_ref());
        let ended = matches!(
            to,
            InstanceState::Backoff
                | InstanceState::Failed
                | InstanceState::Completed
                | InstanceState::Stopped
        );
        let transition = Transition {
            service: id.service.clone(),
            slot: id.slot,
            instance: slot.instance.clone(),
            epoch: slot.epoch,
            from,
            to,
            reason,
            exit: slot.exit.clone().filter(|_| ended),
            last_lines: Vec::new(),
            pid: process.map(|process| process.pid),
            restarts: slot.restarts,
            at,
        };
        let digest = slot.run.as_ref().map(|run| run.digest.clone());
        let digest = digest.unwrap_or_else(|| self.services[&id.service].digest.clone());
        self.actions
            .push(Action::Record(Box::new(Record { transition, digest })));
        self.touch(&id.service);
    }
}

/// The usual request to end, and the end.
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// How long a run that belongs to no slot has to end; its own settings are not known.
const STRAY_GRACE: Duration = Duration::from_secs(10);

fn is_success(spec: &ServiceSpec, exit: &Exit) -> bool {
    exit.code.is_some_and(|code| {
        code == 0 || u8::try_from(code).is_ok_and(|code| spec.success_exit_codes.contains(&code))
    })
}
