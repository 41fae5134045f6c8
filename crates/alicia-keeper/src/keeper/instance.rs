//! An instance, as the keeper holds it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::limits::Watched;
use super::notify::Notify;
use crate::containment::Container;
use crate::output::{LogFile, Pipe};
use crate::protocol::{InstanceInfo, InstanceState};

/// Who asked, and under which id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asker {
    pub(super) client: u64,
    pub(super) id: u64,
}

/// A log that several runs of one slot may share for a moment.
pub(super) type SharedLog = Rc<RefCell<LogFile>>;

/// One run.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) info: InstanceInfo,
    pub(super) stop_signal: i32,
    pub(super) stop_grace_ms: u64,
    /// While the leader lives.
    pub(super) pidfd: Option<OwnedFd>,
    /// While it is not empty.
    pub(super) container: Option<Container>,
    pub(super) pipes: [Option<Pipe>; 2],
    /// While a pipe or a marker line may still come.
    pub(super) log: Option<SharedLog>,
    /// Until the program is executed.
    pub(super) starting: Option<Starting>,
    pub(super) stopping: Option<Stopping>,
    /// Where it may say something.
    pub(super) notify: Option<Notify>,
    /// Names of held sockets that it inherited.
    pub(super) listeners: Vec<String>,
    /// Limits that the keeper looks after.
    pub(super) watched: Watched,
    /// Processes that were killed by force.
    pub(super) killed: BTreeSet<u32>,
    /// Looks since the first kill; each waits longer than the one before.
    pub(super) looks: u32,
    /// When it is looked at next, if a timer is set.
    pub(super) settle_at_ms: Option<u64>,
    /// The host has let it go; it is held until it is empty.
    pub(super) is_forgotten: bool,
    /// Its program was never executed: nobody hears of it.
    pub(super) is_stillborn: bool,
    /// Left by a keeper that died: no child, no pipes.
    pub(super) is_survivor: bool,
}

/// A child on its way to its program.
#[derive(Debug)]
pub(super) struct Starting {
    /// Says what failed, or closes.
    pub(super) report: OwnedFd,
    pub(super) asker: Asker,
    /// For messages.
    pub(super) program: String,
}

/// An end that was asked for.
#[derive(Debug)]
pub(super) struct Stopping {
    /// When everything that is left is killed, on the monotonic clock.
    pub(super) deadline_ms: u64,
    /// No words of its own put that off beyond this.
    latest_ms: u64,
    pub(super) askers: Vec<Asker>,
}

/// By how much a run may put its end off in all, when it says that it needs the time: an hour.
const EXTENDED_MS_MAX: u64 = 3_600_000;

impl Stopping {
    pub(super) fn new(deadline_ms: u64, askers: Vec<Asker>) -> Self {
        Self {
            deadline_ms,
            latest_ms: deadline_ms.saturating_add(EXTENDED_MS_MAX),
            askers,
        }
    }

    /// Somebody asks again: the earlier time counts.
    pub(super) fn shorten(&mut self, deadline_ms: u64) {
        self.deadline_ms = self.deadline_ms.min(deadline_ms);
        self.latest_ms = self
            .latest_ms
            .min(deadline_ms.saturating_add(EXTENDED_MS_MAX));
    }

    /// It says that it needs so much time from now on. Once its time is over, that is not heard.
    pub(super) fn extend(&mut self, now_ms: u64, time_ms: u64) {
        if now_ms < self.deadline_ms {
            let asked_ms = now_ms.saturating_add(time_ms).min(self.latest_ms);
            self.deadline_ms = self.deadline_ms.max(asked_ms);
        }
    }
}

impl Instance {
    pub(super) fn is_alive(&self) -> bool {
        self.info.state != InstanceState::Exited
    }

    /// By a host, not by the recovery after a keeper's death.
    pub(super) fn was_asked_to_end(&self) -> bool {
        let is_own_decision = self.is_survivor || self.watched.over.is_some();
        self.stopping
            .as_ref()
            .is_some_and(|it| !is_own_decision || !it.askers.is_empty())
    }

    pub(super) fn killed_count(&self) -> u32 {
        u32::try_from(self.killed.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_put_off_by_words_but_not_for_ever_and_not_once_it_has_come() {
        let mut stopping = Stopping::new(10_000, Vec::new());
        stopping.extend(9_000, 500);
        assert_eq!(stopping.deadline_ms, 10_000, "it has that much time anyway");
        stopping.extend(9_000, 5_000);
        assert_eq!(stopping.deadline_ms, 14_000);
        stopping.extend(14_000, 5_000);
        assert_eq!(stopping.deadline_ms, 14_000, "its time is over");
        stopping.extend(13_000, u64::MAX);
        assert_eq!(stopping.deadline_ms, 10_000 + EXTENDED_MS_MAX);
        stopping.shorten(20_000);
        assert_eq!(stopping.deadline_ms, 20_000, "somebody is in a hurry");
        stopping.extend(15_000, u64::MAX);
        assert_eq!(stopping.deadline_ms, 10_000 + EXTENDED_MS_MAX);
        stopping.shorten(15_000);
        stopping.extend(15_000, u64::MAX);
        assert_eq!(stopping.deadline_ms, 15_000, "it is killed");
    }
}
