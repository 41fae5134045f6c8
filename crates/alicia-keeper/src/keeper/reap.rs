//! Ends of leaders.

use alicia_failpoint::failpoint;

use super::Keeper;
use super::chores::Chore;
use super::instance::Instance;
use crate::clock;
use crate::containment::Container;
use crate::process_table;
use crate::protocol::{Event, Exit, ExitStatus, InstanceState, Usage};
use crate::sys::{self, Reaped};

impl Keeper {
    /// Takes the status of every ended child. Orphans of instances fall to the keeper too; their ends
    /// are the moment at which a tree may have become empty.
    pub(super) fn reap(&mut self) {
        let mut any = false;
        while let Some(reaped) = sys::reap() {
            any = true;
            if let Some(run) = self.pids.remove(&reaped.pid) {
                failpoint("keeper/reaped");
                self.leader_ended(run, &reaped);
            }
        }
        if any {
            let ending: Vec<u64> = self.ending.iter().copied().collect();
            for run in ending {
                self.settle_if_cgroup(run);
            }
            self.scan_after_end();
        }
    }

    /// A process that an earlier keeper started has ended: nobody can know how.
    pub(super) fn survivor_ended(&mut self, run: u64) {
        self.leader_gone(run, ExitStatus::Lost, Usage::default());
        self.settle(run);
    }

    fn leader_ended(&mut self, run: u64, reaped: &Reaped) {
        // The child may have failed before its program, and the report not be read yet.
        self.executed(run);
        self.leader_gone(run, reaped.status, reaped.usage);
    }

    fn leader_gone(&mut self, run: u64, status: ExitStatus, usage: Usage) {
        self.drain_output(run);
        self.drain_notifications(run);
        let Some(instance) = self.instances.get_mut(&run).filter(|it| it.is_alive()) else {
            return;
        };
        instance.watched.judge(status, &usage);
        let Some(instance) = self.instances.get(&run) else {
            return;
        };
        let tree_kills = self.out_of_memory_kills(instance);
        let memory_peak_bytes = self.memory_peak(instance);
        let Some(instance) = self.instances.get_mut(&run) else {
            return;
        };
        let out_of_memory =
            was_out_of_memory(instance, status, (tree_kills, &mut self.oom_kills_seen));
        let at_unix_ms = clock::unix_ms();
        let exit = Exit {
            status,
            out_of_memory,
            oom_killed: out_of_memory || tree_kills.is_some_and(|it| it > 0),
            over_limit: instance.watched.over.clone(),
            over_limit_why: instance.watched.over_why.clone(),
            memory_peak_bytes,
            watchdog: had_watchdog(instance),
            requested: instance.was_asked_to_end(),
            at_unix_ms,
            ran_ms: at_unix_ms.saturating_sub(instance.info.started_unix_ms),
            usage,
        };
        instance.info.state = InstanceState::Exited;
        instance.info.exit = Some(exit.clone());
        instance.pidfd = None;
        // For a scan this is not known yet, and a restart should not wait for it.
        let empty = match &instance.container {
            Some(Container::Cgroup(cgroup)) => !cgroup.is_populated(),
            Some(Container::Scan(_)) => false,
            None => true,
        };
        let name = instance.info.instance.clone();
        let is_stillborn = instance.is_stillborn;
        let listeners = instance.listeners.clone();
        self.ending.insert(run);
        if !is_stillborn {
            self.chores.push(Chore::WriteExit(run));
            self.broadcast(&Event::Exited {
                instance: name,
                run,
                exit,
                empty,
            });
        }
        self.arm_listeners(&listeners);
        if empty {
            self.emptied(run, super::stop::Heard::WithExit);
        }
    }
}

fn had_watchdog(instance: &Instance) -> bool {
    let watchdog = instance.notify.as_ref().and_then(|it| it.watchdog);
    watchdog.is_some_and(|watchdog| watchdog.has_fired)
}

/// The kernel's own word where the memory controller is there; else a kill that was not ours while the
/// machine's counter of such kills rose since the last kill that was looked at.
fn was_out_of_memory(
    instance: &Instance,
    status: ExitStatus,
    (tree_kills, kills_seen): (Option<u64>, &mut u64),
) -> bool {
    if instance.watched.over.as_deref() == Some("memory") {
        return true;
    }
    let is_kill = matches!(
        status,
        ExitStatus::Signal {
            signal: libc::SIGKILL,
            ..
        }
    );
    if !is_kill || instance.killed.contains(&instance.info.pid) {
        return false;
    }
    if let Some(kills) = tree_kills {
        return kills > 0;
    }
    let before = std::mem::replace(kills_seen, process_table::out_of_memory_kills());
    *kills_seen > before
}
