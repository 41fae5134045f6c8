//! What the core holds of a service: its slots, and the run in each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::fleet::{Condition, ServiceSpec};
use alicia_contract::orchestrator::{Exit, InstanceState};
use alicia_contract::{Epoch, InstanceId, ServiceName, UnixSeconds};

use super::digest::Digest;
use super::event::{Process, SlotId};

/// A service, as long as it is in the file or one of its runs is there.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) digest: Digest,
    /// Whether the file has it.
    pub(super) present: bool,
    /// Whether it should run.
    pub(super) enabled: bool,
    /// How many instances.
    pub(super) wanted: u32,
    pub(super) slots: BTreeMap<u32, Slot>,
    /// Who depends on it directly.
    pub(super) needed_by: Vec<ServiceName>,
}

/// One numbered place for an instance.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: InstanceState,
    pub(super) since: UnixSeconds,
    pub(super) reason: String,
    /// A run whose process tree is not known to be gone.
    pub(super) run: Option<Run>,
    /// The last run, also when it is gone.
    pub(super) instance: Option<InstanceId>,
    pub(super) epoch: Epoch,
    pub(super) restarts: u32,
    /// Failures in a row, since the last good run.
    pub(super) streak: u32,
    /// When it was started, for the start limit.
    pub(super) starts: VecDeque<Duration>,
    pub(super) exit: Option<Exit>,
    pub(super) next_start: Option<UnixSeconds>,
    /// The end of `start_timeout`, or of the back-off.
    pub(super) deadline: Option<Duration>,
    /// Somebody asked for a restart, and why.
    pub(super) restart: Option<String>,
    /// The run that is remembered to have been ready, and since when.
    pub(super) ready_before: Option<(InstanceId, UnixSeconds)>,
}

/// One run of the program.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) instance: InstanceId,
    pub(super) digest: Digest,
    /// None until the keeper says that it runs.
    pub(super) process: Option<Process>,
    /// The connection over which it was asked for.
    pub(super) session: u64,
    pub(super) started: Duration,
    /// It was asked to end, and why.
    pub(super) stop: Option<StopCause>,
    /// The leader has ended; others of its tree may not have.
    pub(super) ended: bool,
    /// When the stop should be over.
    pub(super) stop_deadline: Option<Duration>,
}

/// Why a run was asked to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StopCause {
    /// Nobody wants it, or somebody wants another one in its place.
    Asked,
    /// It does not work: this counts as if it had ended by itself.
    Unwell(String),
    /// The leader ended by itself: what it left behind is cleared away.
    Remains,
}

/// A run that belongs to no slot.
#[derive(Debug)]
pub(super) struct Stray {
    /// The slot that it says it is of; nothing is started there before it is gone.
    pub(super) slot: Option<SlotId>,
    pub(super) stop_deadline: Option<Duration>,
}

// === impl Service ===

impl Service {
    pub(super) fn new(spec: Arc<ServiceSpec>) -> Self {
        Self {
            digest: Digest::of(&spec),
            spec,
            present: true,
            enabled: false,
            wanted: 0,
            slots: BTreeMap::new(),
            needed_by: Vec::new(),
        }
    }

    /// Whether this slot should have a run.
    pub(super) fn wants(&self, slot: u32) -> bool {
        self.present && self.enabled && slot <= self.wanted
    }

    /// Why a condition on this service is not met; `None` when it is.
    pub(super) fn unmet(&self, condition: Condition) -> Option<String> {
        if self.wanted == 0 {
            return Some("0 instances are wanted".into());
        }
        let first = (1..=self.wanted).find(|number| {
            !self
                .slots
                .get(number)
                .is_some_and(|slot| self.meets(*number, slot, condition))
        })?;
        let state = self
            .slots
            .get(&first)
            .map_or(InstanceState::Stopped, |slot| slot.state);
        Some(format!("instance {first} is {}", state_name(state)))
    }

    fn meets(&self, number: u32, slot: &Slot, condition: Condition) -> bool {
        if slot.state == InstanceState::Completed && slot.restart.is_none() {
            return true;
        }
        let stays = self.wants(number) && slot.restart.is_none() && !self.is_outdated(slot);
        match condition {
            Condition::Started => {
                stays && matches!(slot.state, InstanceState::Starting | InstanceState::Running)
            }
            Condition::Healthy => stays && slot.state == InstanceState::Running,
            Condition::Completed => false,
        }
    }

    /// Whether the run in the slot was started with other settings.
    pub(super) fn is_outdated(&self, slot: &Slot) -> bool {
        self.present
            && slot
                .run
                .as_ref()
                .is_some_and(|run| run.digest != self.digest)
    }

    /// Whether the run in the slot has to end; why.
    pub(super) fn must_stop(&self, number: u32, slot: &Slot) -> Option<String> {
        if !self.present {
            return Some("it is no longer in the file".into());
        }
        if !self.enabled {
            return Some("it is not wanted".into());
        }
        if number > self.wanted {
            return Some(format!("{} instances are wanted", self.wanted));
        }
        if slot.restart.is_some() {
            return slot.restart.clone();
        }
        self.is_outdated(slot)
            .then(|| "its settings changed".into())
    }
}

// === impl Slot ===

impl Slot {
    pub(super) fn new(epoch: Epoch, since: UnixSeconds) -> Self {
        Self {
            state: InstanceState::Stopped,
            since,
            reason: "not started yet".into(),
            run: None,
            instance: None,
            epoch,
            restarts: 0,
            streak: 0,
            starts: VecDeque::new(),
            exit: None,
            next_start: None,
            deadline: None,
            restart: None,
            ready_before: None,
        }
    }

    /// Forgets earlier failures: a person starts it.
    pub(super) fn freshen(&mut self) {
        self.restarts = 0;
        self.streak = 0;
        self.starts.clear();
        self.restart = None;
    }

    /// Whether its process runs and nobody asked it to end.
    pub(super) fn runs(&self) -> bool {
        self.run
            .as_ref()
            .is_some_and(|run| run.process.is_some() && run.stop.is_none() && !run.ended)
    }
}

/// The state as it is written everywhere.
pub(super) fn state_name(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Waiting => "waiting",
        InstanceState::Starting => "starting",
        InstanceState::Running => "running",
        InstanceState::Backoff => "in back-off",
        InstanceState::Stopping => "stopping",
        InstanceState::Stopped => "stopped",
        InstanceState::Completed => "completed",
        InstanceState::Failed => "failed",
    }
}
