//! What happens to a run: it is there, becomes ready, ends, is asked to end, is gone.

use std::time::Duration;

use alicia_contract::InstanceId;
use alicia_contract::fleet::Probe;
use alicia_contract::orchestrator::{Exit, ExitCause, InstanceState, Transition};

use super::cause::{Evidence, Said};
use super::event::{Action, Process, Record, Role, SlotId, SpawnFault, Verdict};
use super::notice::EXTEND_MAX;
use super::service::{StopCause, Stray};
use super::{Core, Owner, cause, notice, react};

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
        let Some(spec) = self.spec_of(id) else {
            return;
        };
        let timeout = self.now.monotonic + spec.start_timeout.duration();
        match &spec.readiness {
            _ if notice::says_ready(&spec) => {
                let why = "waits until it says that it is ready";
                self.transition(id, InstanceState::Starting, why.into());
                self.set_slot_timer(id, Some(timeout));
                let run = self.slot(id).and_then(|slot| slot.run.as_ref());
                if run.is_some_and(|run| run.words.is_ready) {
                    self.ready(id, "it says that it is ready", age);
                }
            }
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
        if let Some(run) = self.run_mut(id) {
            run.was_ready = true;
        }
        self.transition(id, InstanceState::Running, why.into());
        let spec = self.spec_of(id);
        if let Some(probe) = spec.as_ref().and_then(|spec| spec.liveness.as_ref()) {
            self.watch(id, Role::Liveness, probe, age);
        }
        self.watch_progress(id);
    }

    pub(super) fn watch(&mut self, id: &SlotId, role: Role, probe: &Probe, age: Duration) {
        if probe.is_told() {
            // The program itself tells; the keeper hears it.
            return;
        }
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
            class: if lasting {
                ExitCause::ProgramNotFound
            } else {
                ExitCause::Unknown
            },
            at: self.now.unix,
            ..Exit::default()
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
            (true, true) => self.fail_slowly(&id, &cause),
            (true, false) => self.try_again(&id, &cause),
            (false, _) => self.touch(&id.service),
        }
    }

    pub(super) fn exited(
        &mut self,
        instance: &InstanceId,
        exit: Exit,
        (empty, output): (bool, Option<Said>),
    ) {
        if self.strays.contains_key(instance) && empty {
            self.emptied(instance, 0);
        }
        let Some(id) = self.slot_of(instance) else {
            return;
        };
        if self.run_mut(&id).is_some_and(|run| run.process.is_none()) {
            self.transition(&id, InstanceState::Starting, "its process ran".into());
        }
        let exit = self.with_cause(&id, exit, output);
        let Some(slot) = self.slot_mut(&id) else {
            return;
        };
        let Some(run) = slot.run.as_mut() else { return };
        let stop = run.stop.clone();
        let started = run.started;
        if !std::mem::replace(&mut run.ended, true) {
            slot.unfinished = exit.class != ExitCause::Success;
            slot.exit = Some(exit);
            self.book_run(&id.service, started);
            self.actions.push(Action::Unwatch(instance.clone()));
            if stop.is_none() {
                self.ended_by_itself(&id, empty);
            }
        }
        if empty {
            self.emptied(instance, 0);
        }
    }

    /// An end with its cause, as a class and in words.
    fn with_cause(&self, id: &SlotId, exit: Exit, output: Option<Said>) -> Exit {
        let (Some(spec), Some(slot)) = (self.spec_of(id), self.slot(id)) else {
            return exit;
        };
        let Some(run) = &slot.run else { return exit };
        let (own, unwell) = match &run.stop {
            Some(StopCause::Unwell(class, words)) => (Some(*class), Some(words.clone())),
            Some(StopCause::Asked) => (Some(self.why_asked(id)), None),
            Some(StopCause::Remains) | None => (None, None),
        };
        let said = cause::classify(&Evidence {
            spec: &spec,
            exit: &exit,
            own,
            said: run.words.said,
            output,
        });
        // How it was ended on purpose is no news, but why is.
        let cause = match (unwell, own, react::in_words(said.class)) {
            (Some(words), ..) => words,
            (None, None, Some(words)) => format!("{}: {words}", exit.cause),
            _ => exit.cause.clone(),
        };
        Exit {
            cause,
            class: said.class,
            resume_at: said.resume_at,
            ..exit
        }
    }

    /// Why a run that nothing is wrong with is asked to end.
    fn why_asked(&self, id: &SlotId) -> ExitCause {
        let service = self.services.get(&id.service);
        let slot = self.slot(id);
        if self.closing {
            ExitCause::HostShutdown
        } else if slot.is_some_and(|slot| slot.restart.is_some()) {
            ExitCause::Operator
        } else if slot.is_some_and(|slot| slot.bring_back.is_some()) {
            ExitCause::Supervision
        } else if service.is_some_and(|service| service.enabled && service.spent_out.is_some()) {
            ExitCause::Budget
        } else {
            ExitCause::Operator
        }
    }

    fn ended_by_itself(&mut self, id: &SlotId, empty: bool) {
        self.set_slot_timer(id, None);
        if !empty {
            self.stop_run(id, StopCause::Remains, "");
        }
        let Some(service) = self.services.get(&id.service) else {
            return;
        };
        let must_stop = self
            .slot(id)
            .and_then(|slot| service.must_stop(id.slot, slot));
        match must_stop {
            // It went before it was asked to: what follows is decided when it is gone.
            Some(why) => self.transition(id, InstanceState::Stopping, why),
            None => self.follow(id, false),
        }
    }

    /// The deadline of a slot is over.
    pub(super) fn slot_due(&mut self, id: &SlotId) {
        self.set_slot_timer(id, None);
        let Some(slot) = self.slot(id) else { return };
        match slot.state {
            InstanceState::Starting if slot.runs() => {
                let waited_for = slot.reason.clone();
                let timeout = self.spec_of(id).map(|spec| spec.start_timeout);
                let timeout = timeout.unwrap_or_default();
                let cause = format!("not ready within {timeout}: {waited_for}");
                self.unwell(id, ExitCause::StartTimeout, cause);
            }
            InstanceState::Running => self.saved(id),
            InstanceState::Parked => self.park_due(id),
            InstanceState::Failed => self.try_once_more(id),
            _ => {}
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
                self.unwell(&id, ExitCause::Liveness, format!("liveness failed: {why}"));
            }
            _ => {}
        }
    }

    /// Ends a run that does not work, to restart it as after a crash.
    pub(super) fn unwell(&mut self, id: &SlotId, class: ExitCause, cause: String) {
        self.stop_run(id, StopCause::Unwell(class, cause.clone()), &cause);
    }

    /// Asks a run to end, the whole tree of it.
    pub(super) fn stop_run(&mut self, id: &SlotId, cause: StopCause, why: &str) {
        let Some(spec) = self.spec_of(id) else {
            return;
        };
        let remains = cause == StopCause::Remains;
        let class = match &cause {
            StopCause::Unwell(class, _) => *class,
            StopCause::Asked => self.why_asked(id),
            StopCause::Remains => ExitCause::Unknown,
        };
        let is_paused = self
            .slot(id)
            .is_some_and(|slot| slot.state == InstanceState::Paused);
        let Some(run) = self.run_mut(id) else { return };
        let instance = run.instance.clone();
        let at_once = run.words.is_last;
        run.stop = Some(cause);
        let (signal, grace) = match (remains, at_once) {
            (true, _) => (spec.stop.signal.number(), REMAINS_GRACE),
            (false, true) => (SIGKILL, Duration::ZERO),
            (false, false) => (spec.stop.signal.number(), spec.stop.grace.duration()),
        };
        self.order_stop(&instance, signal, grace);
        if is_paused {
            // One that is held still hears no request to end.
            self.let_go(id);
        }
        if !remains {
            self.actions.push(Action::Unwatch(instance));
            self.set_slot_timer(id, None);
            self.transition_because(id, InstanceState::Stopping, why.to_owned(), class);
        }
    }

    /// Sends a stop and sets the time at which it is repeated with force.
    pub(super) fn order_stop(&mut self, instance: &InstanceId, signal: i32, grace: Duration) {
        let at = self.now.monotonic + grace + STOP_MARGIN;
        let patience = if grace.is_zero() {
            Duration::ZERO
        } else {
            EXTEND_MAX
        };
        if let Some(id) = self.slot_of(instance)
            && let Some(run) = self.run_mut(&id)
        {
            run.stop_latest = at + patience;
        }
        self.actions.push(Action::Stop {
            instance: instance.clone(),
            signal,
            grace,
        });
        self.set_stop_timer(instance, at);
    }

    /// A run that is ending says that it needs more time. The keeper hears it too, and waits as long.
    pub(super) fn extend_stop(&mut self, id: &SlotId, time: Duration) {
        let now = self.now.monotonic;
        let Some(run) = self.run_mut(id) else { return };
        let at = (now + time + STOP_MARGIN).min(run.stop_latest);
        if run.stop_deadline.is_some_and(|deadline| deadline < at) {
            let instance = run.instance.clone();
            self.set_stop_timer(&instance, at);
        }
    }

    fn set_stop_timer(&mut self, instance: &InstanceId, at: Duration) {
        let before = if let Some(stray) = self.strays.get_mut(instance) {
            stray.stop_deadline.replace(at)
        } else if let Some(id) = self.slot_of(instance)
            && let Some(run) = self.run_mut(&id)
        {
            run.stop_deadline.replace(at)
        } else {
            None
        };
        self.replace_timer(before, Some(at), || Owner::Run(instance.clone()));
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
                cause,
                class: ExitCause::Lost,
                at: self.now.unix,
                ..Exit::default()
            };
            self.exited(instance, exit, (true, None));
            return;
        }
        let (stop, is_last) = match self.slot(&id).and_then(|slot| slot.run.as_ref()) {
            Some(run) => (run.stop.clone(), run.words.is_last),
            None => (None, false),
        };
        self.release(&id);
        let Some(slot) = self.slot(&id) else { return };
        if slot.state != InstanceState::Stopping {
            self.touch(&id.service);
            return;
        }
        let service = &self.services[&id.service];
        match stop {
            Some(StopCause::Unwell(..))
                if service.wants(id.slot)
                    && slot.restart.is_none()
                    && slot.bring_back.is_none() =>
            {
                self.follow(&id, is_last);
            }
            _ => self.stopped(&id, killed),
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
        let back = self.slot_mut(id).and_then(|slot| slot.bring_back.take());
        match (wanted, back) {
            (true, Some(back)) if back.slowly => self.fail_slowly(id, &back.reason),
            (true, _) => self.transition(id, InstanceState::Waiting, reason),
            (false, _) => self.transition(id, InstanceState::Stopped, reason),
        }
    }

    /// Lets the run of a slot go: nothing of it is left.
    pub(super) fn release(&mut self, id: &SlotId) {
        if let Some(run) = self.slot_mut(id).and_then(|slot| slot.run.take()) {
            self.slots_by_instance.remove(&run.instance);
            self.actions.push(Action::Forget(run.instance));
        }
        self.touch(&id.service);
        if self.falling.remove(id) && !self.is_circle_falling(&id.service) {
            // Others wait until all of them are gone.
            self.touch_circle(&id.service);
        }
    }

    /// Moves a slot to another state and says so; a new reason alone is only kept.
    pub(super) fn transition(&mut self, id: &SlotId, to: InstanceState, reason: String) {
        self.transition_because(id, to, reason, ExitCause::Unknown);
    }

    /// The same, with the class of what made it change; of an end it is that of the end.
    pub(super) fn transition_because(
        &mut self,
        id: &SlotId,
        to: InstanceState,
        reason: String,
        because: ExitCause,
    ) {
        let (at, now_monotonic) = (self.now.unix, self.now.monotonic);
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        let from = std::mem::replace(&mut slot.state, to);
        if !matches!(
            to,
            InstanceState::Backoff | InstanceState::Failed | InstanceState::Parked
        ) {
            slot.next_start = None;
        }
        // One failed try after the other is news each time.
        if from == to && to != InstanceState::Backoff {
            slot.reason = reason;
            self.revision += 1;
            return;
        }
        slot.since = at;
        slot.since_monotonic = now_monotonic;
        slot.reason.clone_from(&reason);
        let process = slot.run.as_ref().and_then(|run| run.process.as_ref());
        let ended = matches!(
            to,
            InstanceState::Backoff
                | InstanceState::Failed
                | InstanceState::Completed
                | InstanceState::Stopped
                | InstanceState::Parked
        );
        let exit = slot.exit.clone().filter(|_| ended);
        let of_exit = exit.as_ref().map_or(ExitCause::Unknown, |exit| exit.class);
        let cause = if because.is_unknown() && to != InstanceState::Stopped {
            of_exit
        } else {
            because
        };
        let transition = Transition {
            service: id.service.clone(),
            slot: id.slot,
            instance: slot.instance.clone(),
            epoch: slot.epoch,
            from,
            to,
            reason,
            exit,
            cause,
            next_start: slot.next_start,
            last_lines: Vec::new(),
            pid: process.map(|process| process.pid),
            restarts: slot.restarts,
            at,
        };
        let digest = slot.run.as_ref().map(|run| run.digest.clone());
        let exit = slot.exit.clone();
        let digest = digest.unwrap_or_else(|| self.digest_of(id));
        let record = Record {
            transition,
            digest,
            exit,
            began_unix_us: None,
        };
        self.actions.push(Action::Record(Box::new(record)));
        self.touch(&id.service);
    }

    /// Says something about a run that goes on: it is published and kept like a change.
    pub(super) fn note(&mut self, id: &SlotId, reason: String, cause: ExitCause) {
        let at = self.now.unix;
        let Some(slot) = self.slot(id) else { return };
        let process = slot.run.as_ref().and_then(|run| run.process.as_ref());
        let transition = Transition {
            service: id.service.clone(),
            slot: id.slot,
            instance: slot.instance.clone(),
            epoch: slot.epoch,
            from: slot.state,
            to: slot.state,
            reason,
            exit: None,
            cause,
            next_start: slot.next_start,
            last_lines: Vec::new(),
            pid: process.map(|process| process.pid),
            restarts: slot.restarts,
            at,
        };
        let digest = slot.run.as_ref().map(|run| run.digest.clone());
        let exit = slot.exit.clone();
        let digest = digest.unwrap_or_else(|| self.digest_of(id));
        let record = Record {
            transition,
            digest,
            exit,
            began_unix_us: None,
        };
        self.actions.push(Action::Record(Box::new(record)));
        self.revision += 1;
    }
}

/// The usual request to end, and the end.
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// How long a run that belongs to no slot has to end; its own settings are not known.
const STRAY_GRACE: Duration = Duration::from_secs(10);
