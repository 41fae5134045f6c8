//! What the core holds of a service: its slots, and the run in each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::fleet::{Condition, ServiceSpec};
use alicia_contract::orchestrator::{Exit, ExitCause, InstanceState};
use alicia_contract::{Epoch, InstanceId, ServiceName, UnixSeconds};

use super::digest::Digest;
use super::event::{Process, SlotId};
use super::load::Load;
use super::updating::{Settings, Update};

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
    /// The slots that should have a run, as long as the service is enabled.
    pub(super) places: BTreeSet<u32>,
    /// While it is brought to new settings.
    pub(super) update: Option<Update>,
    /// What its load says about the number of instances.
    pub(super) load: Load,
    /// Boxed: a leaf of the tree has room for eleven, and most services have one.
    pub(super) slots: BTreeMap<u32, Box<Slot>>,
    /// Who depends on it directly.
    pub(super) needed_by: Vec<ServiceName>,
    /// Its budget, or that of a group of it, is used up.
    pub(super) spent_out: Option<SpentOut>,
    /// Its budget is nearly used up.
    pub(super) spent_soon: Option<String>,
    /// Restarts of its instances, for its own supervision.
    pub(super) storms: super::supervise::Storms,
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
    /// Why that run was paused, when it was.
    pub(super) paused_before: Option<String>,
    /// It failed too often, and is tried again slowly until it has run well.
    pub(super) slow: bool,
    /// How often in a row it was parked.
    pub(super) parks: u32,
    /// On the monotonic clock: then it is parked no longer, whatever the wall clock says.
    pub(super) parked_at_most: Duration,
    /// It has its turn among those that are no longer parked.
    pub(super) has_turn: bool,
    /// It has to end because another one did.
    pub(super) bring_back: Option<BringBack>,
    /// What a person should look at.
    pub(super) attention: Option<String>,
    /// Whether there was a run that did not end with success.
    pub(super) unfinished: bool,
    /// Older settings that it keeps while the service is updated; none: those of the service.
    pub(super) pinned: Option<Arc<Settings>>,
    /// The run of which health says, during an update, that it does not work; and why.
    pub(super) ill: Option<(InstanceId, String)>,
    /// Since when it is in its state, on the monotonic clock.
    pub(super) since_monotonic: Duration,
}

/// A run has to end, and comes back, because of another one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BringBack {
    /// Why.
    pub(super) reason: String,
    /// Whether it comes back slowly, as `failed`; else as soon as all are gone.
    pub(super) slowly: bool,
}

/// A budget is used up.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SpentOut {
    /// Which, in words.
    pub(super) reason: String,
    /// When its period is over.
    pub(super) until: UnixSeconds,
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
    /// It was ready once: nobody asks a second time.
    pub(super) was_ready: bool,
    /// It was held still once, under this host.
    pub(super) was_paused: bool,
    /// It was asked to end, and why.
    pub(super) stop: Option<StopCause>,
    /// The leader has ended; others of its tree may not have.
    pub(super) ended: bool,
    /// When the stop should be over.
    pub(super) stop_deadline: Option<Duration>,
    /// No words of its own put that off beyond this.
    pub(super) stop_latest: Duration,
    /// What it said of itself.
    pub(super) words: super::notice::Words,
    /// Its work.
    pub(super) gauge: super::progress::Gauge,
}

/// Why a run was asked to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StopCause {
    /// Nobody wants it, or somebody wants another one in its place.
    Asked,
    /// It does not work: this counts as if it had ended by itself.
    Unwell(ExitCause, String),
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
            places: BTreeSet::new(),
            update: None,
            load: Load::default(),
            slots: BTreeMap::new(),
            needed_by: Vec::new(),
            spent_out: None,
            spent_soon: None,
            storms: super::supervise::Storms::default(),
        }
    }

    /// Whether this slot should have a run.
    pub(super) fn wants(&self, slot: u32) -> bool {
        self.present && self.enabled && self.places.contains(&slot)
    }

    /// Why a condition on this service is not met; `None` when it is.
    pub(super) fn unmet(&self, condition: Condition) -> Option<String> {
        // Whoever connects to it finds it.
        if self.load.asleep {
            return None;
        }
        if self.wanted == 0 {
            return Some("0 instances are wanted".into());
        }
        let meets = |number: &&u32| {
            let slot = self.slots.get(number);
            slot.is_some_and(|slot| self.meets(**number, slot, condition))
        };
        // While it is updated, there may be more than are wanted.
        if self.places.iter().filter(meets).count() >= self.wanted as usize {
            return None;
        }
        let Some(first) = self.places.iter().copied().find(|number| !meets(&number)) else {
            return Some(format!(
                "{} of {} instances are there",
                self.places.len(),
                self.wanted
            ));
        };
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
        let stays = self.wants(number)
            && slot.restart.is_none()
            && slot.bring_back.is_none()
            && !self.is_outdated(slot);
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
                .is_some_and(|run| run.digest != *self.digest_of(slot))
    }

    /// The settings of a slot: older ones while the service is updated.
    pub(super) fn spec_of<'s>(&'s self, slot: &'s Slot) -> &'s Arc<ServiceSpec> {
        slot.pinned
            .as_ref()
            .map_or(&self.spec, |pinned| &pinned.spec)
    }

    /// Their digest.
    pub(super) fn digest_of<'s>(&'s self, slot: &'s Slot) -> &'s Digest {
        slot.pinned
            .as_ref()
            .map_or(&self.digest, |pinned| &pinned.digest)
    }

    /// Whether the run in the slot has to end; why.
    pub(super) fn must_stop(&self, number: u32, slot: &Slot) -> Option<String> {
        if !self.present {
            return Some("it is no longer in the file".into());
        }
        if !self.enabled {
            return Some("it is not wanted".into());
        }
        if !self.places.contains(&number) {
            return Some(self.why_not_there());
        }
        if slot.restart.is_some() {
            return slot.restart.clone();
        }
        if let Some(bring_back) = &slot.bring_back {
            return Some(bring_back.reason.clone());
        }
        if let Some(out) = &self.spent_out {
            return Some(out.reason.clone());
        }
        self.is_outdated(slot)
            .then(|| "its settings changed".into())
    }
}

// === impl Run ===

impl Run {
    /// A run that is asked for, or taken over.
    pub(super) fn new(
        instance: InstanceId,
        digest: Digest,
        session: u64,
        started: Duration,
    ) -> Self {
        Self {
            instance,
            digest,
            process: None,
            session,
            started,
            was_ready: false,
            was_paused: false,
            stop: None,
            ended: false,
            stop_deadline: None,
            stop_latest: Duration::ZERO,
            words: super::notice::Words::default(),
            gauge: super::progress::Gauge::default(),
        }
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
            paused_before: None,
            slow: false,
            parks: 0,
            parked_at_most: Duration::ZERO,
            has_turn: false,
            bring_back: None,
            attention: None,
            unfinished: false,
            pinned: None,
            ill: None,
            since_monotonic: Duration::ZERO,
        }
    }

    /// Forgets earlier failures: a person starts it.
    pub(super) fn freshen(&mut self) {
        self.restarts = 0;
        self.streak = 0;
        self.starts.clear();
        self.restart = None;
        self.slow = false;
        self.parks = 0;
        self.bring_back = None;
        self.attention = None;
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
        InstanceState::Parked => "parked",
        InstanceState::Paused => "paused",
    }
}
