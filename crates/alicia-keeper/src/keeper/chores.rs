//! What can wait until answers and events are written; most of it a little longer, because a host that hears
//! of an end answers with a start, and that start should find the loop idle.

use std::path::PathBuf;

use super::timers::Timer;
use super::{Keeper, note};
use crate::clock;
use crate::containment::Cgroup;

/// How long what is not urgent waits: longer than a host takes to answer an end with a start.
const PATIENCE_MS: u64 = 10;

/// One thing to do.
#[derive(Debug)]
pub(super) enum Chore {
    /// Write down a start, for a keeper after this one.
    WriteStart(u64),
    /// Write down an exit.
    WriteExit(u64),
    /// Remove both.
    RemoveRecord(u64),
    /// Remove the groups of cgroup version 1 of a run.
    RemoveGroups(String),
    /// Remove an empty cgroup.
    RemoveCgroup(PathBuf),
}

impl Keeper {
    /// Does what is urgent, and lets the rest wait.
    pub(super) fn do_urgent_chores(&mut self) {
        if self.chores.is_empty() {
            return;
        }
        let is_heard = self.clients.connections.values().any(|it| it.is_greeted);
        let (urgent, rest) = std::mem::take(&mut self.chores)
            .into_iter()
            .partition(|chore| match chore {
                Chore::WriteStart(_) => true,
                // Nobody else knows of it.
                Chore::WriteExit(_) => !is_heard,
                _ => false,
            });
        self.chores = rest;
        self.do_all(urgent);
        if !self.chores.is_empty() && !self.are_chores_due {
            self.are_chores_due = true;
            let at_ms = clock::monotonic_ms() + PATIENCE_MS;
            self.timers.set(at_ms, Timer::Chores);
        }
    }

    /// Does everything, in order.
    pub(super) fn do_chores(&mut self) {
        self.are_chores_due = false;
        let chores = std::mem::take(&mut self.chores);
        self.do_all(chores);
    }

    fn do_all(&mut self, chores: Vec<Chore>) {
        for chore in chores {
            match chore {
                Chore::WriteStart(run) => self.write_start(run),
                Chore::WriteExit(run) => self.write_exit(run),
                Chore::RemoveRecord(run) => self.remove_record(run),
                Chore::RemoveGroups(name) => {
                    if !self.cgroup1.remove(&name) {
                        note(&format!("cannot remove the groups {name}"));
                    }
                }
                Chore::RemoveCgroup(path) => {
                    // A process that is not yet gone for good; nothing can be done but to try again at
                    // the next start.
                    if Cgroup::open(path.clone()).is_ok_and(|cgroup| !cgroup.remove()) {
                        note(&format!("cannot remove {}", path.display()));
                    }
                }
            }
        }
    }
}
