//! What is known of one service: its slots, its checks, its heartbeats.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::fleet::{AgentLimits, ServiceSpec};
use alicia_contract::health::{HealthState, Heartbeat};
use alicia_contract::id::{InstanceId, ServiceName};
use alicia_contract::orchestrator::{InstanceState, InstanceStatus, ServiceStatus, Transition};
use alicia_contract::unit::UnixSeconds;

use super::Now;
use super::agents::Told;
use super::evidence::{Beat, Due};
use super::flap::Flap;
use super::judge::is_bad;
use super::slot::Slot;

/// Most instances of which heartbeats are kept per service: those that run, and some of the past.
const BEATS_MAX: usize = 2_000;

/// So many heartbeats that cannot be used, in [`BAD_HEARTBEATS_WITHIN`], are an alert.
const BAD_HEARTBEATS: usize = 3;

/// A minute: a service that beats every few seconds is found quickly, an accident is none.
const BAD_HEARTBEATS_WITHIN: Duration = Duration::from_secs(60);

/// How long after a change of the file what fails may fail because of it.
const CHANGE_SUSPECT: Duration = Duration::from_secs(600);

/// A service that is watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    /// The service.
    pub service: ServiceName,
    /// What the file says of it; none: it is not in the fleet.
    pub spec: Option<Arc<ServiceSpec>>,
    /// Its slots, by number. Boxed: a leaf of the tree has room for eleven, and most services have one.
    pub slots: BTreeMap<u32, Box<Slot>>,
    /// Whether the orchestrator has told of it.
    pub pictured: bool,
    /// Instances that the registry lists.
    pub registered: BTreeSet<InstanceId>,
    /// The last heartbeat of each instance; under `None` those that name no instance.
    pub beats: BTreeMap<Option<InstanceId>, Beat>,
    /// Heartbeats that could not be used.
    pub bad_heartbeats: u64,
    /// What was wrong with the last of them.
    pub bad_heartbeat_last: Option<String>,
    /// When the last few of them came.
    pub(super) bad_heartbeats_at: VecDeque<Duration>,
    /// The limits of an agent's work.
    pub agent: AgentLimits,
    /// When its part of the file was last changed.
    pub(crate) changed: Option<Duration>,
    /// The judgement.
    pub judged: Judged,
    /// When it was last judged bad.
    pub bad_last: Option<Duration>,
    /// Since when it is bad, or was a moment ago.
    pub bad_since: Option<Duration>,
    /// Changes between good and bad.
    pub flap: Flap,
}

/// A judgement.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The state.
    pub state: HealthState,
    /// Since when, for people.
    pub since: UnixSeconds,
    /// Since when, for waits.
    pub since_mono: Duration,
    /// Why.
    pub reason: String,
}

// === impl Watch ===

impl Watch {
    pub(crate) fn new(service: ServiceName, now: Now) -> Self {
        let judged = Judged {
            state: HealthState::Unknown,
            since: now.unix,
            since_mono: now.mono,
            reason: "nothing heard of it yet".to_owned(),
        };
        Self {
            service,
            spec: None,
            slots: BTreeMap::new(),
            pictured: false,
            registered: BTreeSet::new(),
            beats: BTreeMap::new(),
            bad_heartbeats: 0,
            bad_heartbeat_last: None,
            bad_heartbeats_at: VecDeque::new(),
            agent: AgentLimits::default(),
            changed: None,
            judged,
            bad_last: None,
            bad_since: None,
            flap: Flap::default(),
        }
    }

    /// Notes that it is bad now, if it is. A pause of less than `lately` belongs to the same badness.
    pub(crate) fn note_bad(&mut self, lately: Duration, now: Now) {
        if is_bad(self.judged.state) {
            self.bad_since = self.bad_lately(lately, now).or(Some(now.mono));
            self.bad_last = Some(now.mono);
        }
    }

    /// Since when it is bad, if it is or was less than `lately` ago.
    #[must_use]
    pub fn bad_lately(&self, lately: Duration, now: Now) -> Option<Duration> {
        let last = self.bad_last?;
        let recent = now.mono.saturating_sub(last) < lately;
        self.bad_since.filter(|_| recent)
    }

    /// The name of a slot as people know it: `api-1`.
    #[must_use]
    pub fn label(&self, slot: u32) -> String {
        format!("{}-{slot}", self.service)
    }

    /// Takes the orchestrator's picture of the service.
    pub(crate) fn picture(&mut self, status: &ServiceStatus, taken: UnixSeconds, now: Now) {
        for seen in &status.instances {
            self.slot(seen, now);
        }
        let listed = |number: u32| status.instances.iter().any(|seen| seen.slot == number);
        self.slots
            .retain(|number, slot| listed(*number) || slot.is_younger(taken, now));
        self.pictured = true;
        self.drop_old_beats();
    }

    /// Takes one slot of the picture, unless more recent news of it came before.
    fn slot(&mut self, seen: &InstanceStatus, now: Now) {
        let slot = self
            .slots
            .entry(seen.slot)
            .or_insert_with(|| Box::new(Slot::new(seen)));
        if slot.is_younger(seen.since, now) && slot.epoch >= seen.epoch {
            return;
        }
        slot.see(seen, now);
        self.expect_beat(seen.slot, now);
    }

    /// Takes one change of one slot. A repeated or late one changes nothing.
    pub(crate) fn transition(&mut self, change: &Transition, now: Now) {
        let Some(slot) = self.slots.get_mut(&change.slot) else {
            let mut slot = Box::new(Slot::before(change));
            slot.take(change, now);
            self.slots.insert(change.slot, slot);
            self.pictured = true;
            return self.expect_beat(change.slot, now);
        };
        let late = change.epoch < slot.epoch || slot.is_younger(change.at, now);
        let repeated =
            (change.at == slot.since || slot.is_younger(change.at, now)) && change.to == slot.state;
        if late || (repeated && slot.last_lines.len() >= change.last_lines.len()) {
            return;
        }
        slot.take(change, now);
        if !change.to.has_process() {
            self.beats.remove(&change.instance);
            self.beats.remove(&None);
        }
        self.expect_beat(change.slot, now);
    }

    /// Where the file demands heartbeats, a run that never sends one is overdue as well.
    fn expect_beat(&mut self, number: u32, now: Now) {
        let Some(timeout) = self.spec.as_ref().and_then(|spec| spec.heartbeat_timeout) else {
            return;
        };
        let Some(slot) = self.slots.get(&number) else {
            return;
        };
        if slot.state != InstanceState::Running || self.beats.contains_key(&None) {
            return;
        }
        let Some(instance) = slot.instance.clone() else {
            return;
        };
        self.beats
            .entry(Some(instance))
            .or_insert_with(|| Beat::awaited(timeout.duration(), now));
    }

    /// Takes a heartbeat that was read without fault. `false`: it is of a run that has ended.
    pub(crate) fn beat(&mut self, heartbeat: &Heartbeat, intervals: u32, now: Now) -> bool {
        if self.ended(heartbeat.instance.as_ref()) {
            return false;
        }
        let demanded = self.spec.as_ref().and_then(|spec| spec.heartbeat_timeout);
        let announced = heartbeat
            .interval_s
            .and_then(|interval_s| Duration::try_from_secs_f64(interval_s).ok());
        let due = match demanded {
            Some(timeout) => Due {
                timeout: Some(timeout.duration()),
                announced: None,
            },
            None => Due {
                timeout: announced.map(|interval| interval * intervals),
                announced,
            },
        };
        if heartbeat.instance.is_none() {
            self.beats.retain(|_, beat| beat.came);
        }
        if !self.beats.contains_key(&heartbeat.instance) && self.beats.len() >= BEATS_MAX {
            return false;
        }
        let beat = self
            .beats
            .entry(heartbeat.instance.clone())
            .or_insert_with(|| Beat::awaited(Duration::ZERO, now));
        beat.take(heartbeat, due, now);
        if let Some(told) = Told::of(heartbeat) {
            beat.work.take(told, &self.agent, now.mono);
        }
        true
    }

    /// Takes what the file says of it now.
    pub(crate) fn specify(&mut self, spec: &Arc<ServiceSpec>, now: Now) {
        if self.spec.as_ref().is_some_and(|before| before != spec) {
            self.changed = Some(now.mono);
        }
        self.spec = Some(spec.clone());
    }

    /// Whether its part of the file was changed so shortly ago that what fails now may fail because of it.
    #[must_use]
    pub fn changed_lately(&self, now: Now) -> bool {
        self.changed
            .is_some_and(|at| now.mono.saturating_sub(at) < CHANGE_SUSPECT)
    }

    /// Counts a heartbeat that could not be used.
    pub(crate) fn bad_heartbeat(&mut self, fault: String, now: Now) {
        self.bad_heartbeats += 1;
        self.bad_heartbeat_last = Some(fault);
        if self.bad_heartbeats_at.len() >= BAD_HEARTBEATS {
            self.bad_heartbeats_at.pop_front();
        }
        self.bad_heartbeats_at.push_back(now.mono);
    }

    /// Whether so many came lately that somebody should look: one alone may be an accident.
    #[must_use]
    pub fn has_bad_heartbeats(&self, now: Now) -> bool {
        let recent = |at: &Duration| now.mono.saturating_sub(*at) < BAD_HEARTBEATS_WITHIN;
        self.bad_heartbeats_at
            .iter()
            .filter(|at| recent(at))
            .count()
            >= BAD_HEARTBEATS
    }

    /// Whether the run is known to be over.
    fn ended(&self, instance: Option<&InstanceId>) -> bool {
        let mut slots = self.slots.values();
        match instance {
            Some(instance) => slots
                .any(|slot| slot.instance.as_ref() == Some(instance) && !slot.state.has_process()),
            None => !self.slots.is_empty() && slots.all(|slot| !slot.state.has_process()),
        }
    }

    /// Forgets heartbeats of runs that no slot and no registration holds any more.
    fn drop_old_beats(&mut self) {
        let running = self
            .slots
            .values()
            .filter_map(|slot| slot.instance.as_ref());
        let held: BTreeSet<&InstanceId> = running.chain(&self.registered).collect();
        // A young one may be ahead of the picture; an overdue one is not.
        self.beats
            .retain(|id, beat| id.as_ref().is_none_or(|id| held.contains(id)) || !beat.lost);
    }

    /// The heartbeat that speaks for a slot: its own, or the nameless one.
    #[must_use]
    pub fn beat_of(&self, slot: &Slot) -> Option<&Beat> {
        self.beats
            .get(&slot.instance)
            .or_else(|| self.beats.get(&None))
    }
}
