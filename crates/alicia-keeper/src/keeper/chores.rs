//! What can wait until answers and events are written.

use std::path::PathBuf;

use super::{Keeper, note};
use crate::containment::Cgroup;

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
    pub(super) fn do_chores(&mut self) {
        for chore in std::mem::take(&mut self.chores) {
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
