//! Signals, stops and the end of trees.
//!
//! A run is over when its container is empty, not when its leader ends. `settle` is the one place that
//! decides what to do next about a run that is ending; it may be called at any time, and often.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::chores::Chore;
use super::instance::{Asker, Instance, Stopping};
use super::limits;
use super::timers::Timer;
use super::{Keeper, note};
use crate::containment::Container;
use crate::protocol::{Event, Failure, FailureCode, InstanceState, Reply, StopSpec, Target};
use crate::{clock, signals, sys};

/// Between looks at a tree that is being killed; each waits twice as long as the one before.
const LOOK_INTERVAL_MS: u64 = 2;
const LOOK_INTERVAL_MS_MAX: u64 = 250;
/// Between looks at a tree that has its grace period and cannot tell when it is empty.
const GRACE_LOOK_INTERVAL_MS: u64 = 20;
/// A grace period beyond this is no grace period (a week).
const GRACE_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// Whether hosts know already that a run is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// `Exited` said so.
    WithExit,
    /// `Emptied` must say so.
    NotYet,
}

impl Keeper {
    pub(super) fn signal(
        &mut self,
        name: &str,
        signal: i32,
        target: Target,
    ) -> Result<(), Failure> {
        check_signal(signal)?;
        let run = self.run_of(name)?;
        self.send(run, &[signal], target)
    }

    /// The asker is answered when nothing is left.
    pub(super) fn stop(&mut self, asker: Asker, spec: &StopSpec) -> Result<(), Failure> {
        if let Some(signal) = spec.signal {
            check_signal(signal)?;
        }
        let run = self.run_of(&spec.instance)?;
        let Some(instance) = self.instances.get_mut(&run) else {
            return Err(unknown(&spec.instance));
        };
        if let (true, Some(exit)) = (instance.info.empty, instance.info.exit.clone()) {
            let killed = instance.killed_count();
            self.clients
                .answer(asker, Ok(Reply::Stopped { exit, killed }));
            return Ok(());
        }
        let signal = spec.signal.unwrap_or(instance.stop_signal);
        let grace_ms = spec.grace_ms.unwrap_or(instance.stop_grace_ms);
        self.begin_stop(run, (signal, spec.target), grace_ms, Some(asker));
        Ok(())
    }

    /// Ends everything, then the keeper. Returns what still runs.
    pub(super) fn shut_down(&mut self, grace_ms: u64) -> Reply {
        if !self.is_shutting_down {
            self.is_shutting_down = true;
            self.broadcast(&Event::ShuttingDown);
        }
        let living = self
            .instances
            .iter()
            .filter(|(_, instance)| !instance.info.empty);
        let living: Vec<_> = living
            .map(|(run, it)| (*run, it.stop_signal, it.stop_grace_ms.min(grace_ms)))
            .collect();
        let running = u32::try_from(living.len()).unwrap_or(u32::MAX);
        for (run, signal, grace_ms) in living {
            self.begin_stop(run, (signal, Target::Tree), grace_ms, None);
        }
        Reply::ShuttingDown { running }
    }

    pub(super) fn begin_stop(
        &mut self,
        run: u64,
        (signal, target): (i32, Target),
        grace_ms: u64,
        asker: Option<Asker>,
    ) {
        let Some(instance) = self.instances.get_mut(&run).filter(|it| !it.info.empty) else {
            return;
        };
        let deadline_ms = clock::monotonic_ms() + grace_ms.min(GRACE_MS_MAX);
        let stopping = instance
            .stopping
            .get_or_insert_with(|| Stopping::new(deadline_ms, Vec::new()));
        stopping.shorten(deadline_ms);
        stopping.askers.extend(asker);
        let is_alive = instance.is_alive();
        if is_alive {
            instance.info.state = InstanceState::Stopping;
        }
        self.ending.insert(run);
        if is_alive && signal != libc::SIGKILL {
            // A stopped process would take the signal only when it goes on. What cannot be signalled is
            // killed at the deadline.
            if let Err(failure) = self.send(run, &[signal, libc::SIGCONT], target) {
                note(&format!("run {run}: {failure}"));
            }
        } else if signal == libc::SIGKILL
            && let Some(stopping) = self
                .instances
                .get_mut(&run)
                .and_then(|it| it.stopping.as_mut())
        {
            stopping.deadline_ms = clock::monotonic_ms();
        }
        self.settle(run);
    }

    /// One that is ending says that it needs more time.
    pub(super) fn extend_stop(&mut self, run: u64, time_ms: u64) {
        let stopping = self
            .instances
            .get_mut(&run)
            .and_then(|it| it.stopping.as_mut());
        // The timer that is set comes too early, and sets the next one.
        if let Some(stopping) = stopping {
            stopping.extend(clock::monotonic_ms(), time_ms);
        }
    }

    /// The next step of a run that is ending.
    pub(super) fn settle(&mut self, run: u64) {
        let Some(instance) = self
            .instances
            .get(&run)
            .filter(|_| self.ending.contains(&run))
        else {
            return;
        };
        match instance.container {
            Some(Container::Scan(_)) => self.scans.is_due = true,
            _ => self.settle_if_cgroup(run),
        }
    }

    pub(super) fn settle_if_cgroup(&mut self, run: u64) {
        let Some(instance) = self.instances.get_mut(&run) else {
            return;
        };
        let Some(Container::Cgroup(cgroup)) = &instance.container else {
            return;
        };
        // Asked in any case: reading it is what makes the kernel tell of the next change only.
        let is_populated = cgroup.is_populated();
        if !instance.is_alive() && !is_populated {
            self.emptied(run, Heard::NotYet);
        } else if instance.must_die() {
            instance.killed.extend(cgroup.pids());
            if let Err(error) = cgroup.kill() {
                note(&format!(
                    "{}: cannot kill the cgroup: {error}",
                    instance.info.instance
                ));
            }
            self.look_again(run);
        } else {
            self.look_at_deadline(run);
        }
    }

    /// After a kill: soon, then less and less often.
    pub(super) fn look_again(&mut self, run: u64) {
        if let Some(instance) = self.instances.get_mut(&run) {
            let wait_ms = (LOOK_INTERVAL_MS << instance.looks.min(16)).min(LOOK_INTERVAL_MS_MAX);
            instance.looks += 1;
            self.settle_at(run, clock::monotonic_ms() + wait_ms);
        }
    }

    /// A run waits for one timer, the earliest: looks that came for other reasons must not multiply.
    fn settle_at(&mut self, run: u64, at_ms: u64) {
        if let Some(instance) = self.instances.get_mut(&run)
            && instance.settle_at_ms.is_none_or(|set_ms| at_ms < set_ms)
        {
            instance.settle_at_ms = Some(at_ms);
            self.timers.set(at_ms, Timer::Settle(run));
        }
    }

    /// The timer of a run has come; one that was replaced by an earlier one does nothing.
    pub(super) fn settle_timer(&mut self, run: u64, now_ms: u64) {
        if let Some(instance) = self.instances.get_mut(&run)
            && instance.settle_at_ms.is_some_and(|set_ms| set_ms <= now_ms)
        {
            instance.settle_at_ms = None;
            self.settle(run);
        }
    }

    /// During grace. A cgroup tells when it is empty; a scan has to look.
    pub(super) fn look_at_deadline(&mut self, run: u64) {
        let Some(instance) = self.instances.get(&run) else {
            return;
        };
        let Some(stopping) = &instance.stopping else {
            return;
        };
        let now_ms = clock::monotonic_ms();
        let at_ms = match instance.container {
            Some(Container::Scan(_)) if !instance.is_alive() => {
                stopping.deadline_ms.min(now_ms + GRACE_LOOK_INTERVAL_MS)
            }
            _ => stopping.deadline_ms,
        };
        self.settle_at(run, at_ms);
    }

    /// No process of the run is left.
    pub(super) fn emptied(&mut self, run: u64, heard: Heard) {
        self.close_output(run);
        self.ending.remove(&run);
        let Some(instance) = self.instances.get_mut(&run) else {
            return;
        };
        instance.info.empty = true;
        if let Some(Container::Cgroup(cgroup)) = instance.container.take() {
            self.chores
                .push(Chore::RemoveCgroup(cgroup.path().to_owned()));
        }
        instance.info.cgroup = None;
        instance.watched.out_of_memory = None;
        instance.watched.forks = None;
        if instance.watched.has_cgroup1 {
            let name = limits::group_name(&instance.info.instance, run);
            self.chores.push(Chore::RemoveGroups(name));
        }
        instance.notify = None;
        let killed = instance.killed_count();
        let name = instance.info.instance.clone();
        let stopping = instance.stopping.take();
        let exit = instance.info.exit.clone();
        let (is_forgotten, is_stillborn) = (instance.is_forgotten, instance.is_stillborn);
        if !is_stillborn {
            if heard == Heard::NotYet {
                self.broadcast(&Event::Emptied {
                    instance: name.clone(),
                    run,
                    killed,
                });
            }
            if let (Some(stopping), Some(exit)) = (stopping, exit) {
                let instance = name;
                self.broadcast(&Event::Stopped {
                    instance,
                    run,
                    exit: exit.clone(),
                    killed,
                });
                for asker in stopping.askers {
                    let exit = exit.clone();
                    self.clients
                        .answer(asker, Ok(Reply::Stopped { exit, killed }));
                }
            }
        }
        if is_forgotten {
            self.instances.remove(&run);
            self.chores.push(Chore::RemoveRecord(run));
        }
    }

    fn run_of(&self, name: &str) -> Result<u64, Failure> {
        self.names.get(name).copied().ok_or_else(|| unknown(name))
    }

    /// Sends signals to processes that are members for certain at this moment.
    fn send(&mut self, run: u64, signals: &[i32], target: Target) -> Result<(), Failure> {
        let Some(instance) = self.instances.get(&run) else {
            return Ok(());
        };
        let refuse = |error: std::io::Error| {
            Failure::system(format!("the signal cannot be sent: {error}"), &error)
        };
        match (target, &instance.container) {
            (Target::Leader, _) => match &instance.pidfd {
                Some(pidfd) => send_all(pidfd.as_fd(), signals).map_err(refuse),
                None => Err(Failure::new(
                    FailureCode::InstanceUnknown,
                    "its leader has ended",
                )),
            },
            (Target::Tree, Some(Container::Cgroup(cgroup))) => {
                let pidfds: Vec<_> = cgroup.pids().into_iter().filter_map(open).collect();
                // Asked again: a pid that was given to a stranger in between is not in the cgroup.
                let members = cgroup.pids();
                for (_, pidfd) in pidfds.iter().filter(|(pid, _)| members.contains(pid)) {
                    // It may have ended.
                    drop(send_all(pidfd.as_fd(), signals));
                }
                Ok(())
            }
            (Target::Tree, Some(Container::Scan(_))) => {
                self.send_to_scanned(run, signals);
                Ok(())
            }
            (Target::Tree, None) => Err(Failure::new(
                FailureCode::InstanceUnknown,
                "all its processes have ended",
            )),
        }
    }
}

impl Instance {
    /// Whether what is left is to be killed: the leader ended by itself, or the grace period is over.
    pub(super) fn must_die(&self) -> bool {
        match &self.stopping {
            Some(stopping) => clock::monotonic_ms() >= stopping.deadline_ms,
            None => !self.is_alive(),
        }
    }
}

fn send_all(pidfd: BorrowedFd<'_>, signals: &[i32]) -> std::io::Result<()> {
    signals
        .iter()
        .try_for_each(|signal| sys::send_signal(pidfd, *signal))
}

/// A process by number, to be checked after it was opened.
pub(super) fn open(pid: u32) -> Option<(u32, std::os::fd::OwnedFd)> {
    let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
    Some((pid, pidfd_open(raw, PidfdFlags::empty()).ok()?))
}

fn check_signal(signal: i32) -> Result<(), Failure> {
    if signals::is_number(signal) {
        return Ok(());
    }
    Err(Failure::new(
        FailureCode::InvalidRequest,
        format!("there is no signal {signal}"),
    ))
}

fn unknown(name: &str) -> Failure {
    Failure::new(
        FailureCode::InstanceUnknown,
        format!("there is no instance \"{name}\""),
    )
}
