//! What is known of one service: its slots, its checks, its heartbeats.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alicia_contract::fleet::ServiceSpec;
use alicia_contract::health::{HealthState, Heartbeat, HeartbeatStatus};
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::orchestrator::{
    Exit, InstanceState, InstanceStatus, ServiceStatus, Transition,
};
use alicia_contract::unit::UnixSeconds;
use alicia_probe::{Threshold, Verdict};

use super::Now;
use super::flap::Flap;

/// Most instances of which heartbeats are kept per service: those that run, and some of the past.
const BEATS_MAX: usize = 2_000;

/// A service that is watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    /// The service.
    pub service: ServiceName,
    /// What the file says of it; none: it is not in the fleet.
    pub spec: Option<ServiceSpec>,
    /// Its slots, by number.
    pub slots: BTreeMap<u32, Slot>,
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
    /// The judgement.
    pub judged: Judged,
    /// When it was last judged bad.
    pub bad_last: Option<Duration>,
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

/// One slot of a service and the process in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// The run.
    pub instance: Option<InstanceId>,
    /// Its epoch.
    pub epoch: Epoch,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Since when.
    pub since: UnixSeconds,
    /// Why.
    pub reason: String,
    /// The ports by name.
    pub ports: BTreeMap<ServiceName, u16>,
    /// How the last run ended.
    pub exit: Option<Exit>,
    /// Its last lines.
    pub last_lines: Vec<String>,
    /// Unexpected ends that were seen; tells occurrences apart.
    pub exits: u32,
    /// Whether it ended unexpectedly and does not run again yet.
    pub recovering: bool,
    /// Results of the checks of this run, by name.
    pub checks: BTreeMap<ServiceName, Check>,
    /// Since when the run is ready, for waits.
    pub running_since: Option<Duration>,
    /// Whether what is known of the process is not older than the last time the monitor was held up.
    pub fresh: bool,
    restarts: u32,
}

/// The verdict of one check on one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Good or bad; none while there are too few tries.
    pub good: Option<bool>,
    /// Since when.
    pub since: UnixSeconds,
    /// The last result in words.
    pub detail: String,
    /// How long the last try took.
    pub latency_ms: Option<f64>,
    /// When the last try was made.
    pub at: UnixSeconds,
    /// How often the verdict turned bad; tells occurrences apart.
    pub falls: u32,
    threshold: Threshold,
    /// As [`Slot::fresh`].
    pub fresh: bool,
}

/// The last heartbeat of an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Beat {
    /// What it said.
    pub status: HeartbeatStatus,
    /// Why.
    pub detail: String,
    /// How long until the next is overdue; none: it announced no interval.
    pub timeout: Option<Duration>,
    /// When it was heard, for waits.
    pub heard_mono: Duration,
    /// When it was heard.
    pub heard: UnixSeconds,
    /// Since when it says this, or is lost.
    pub since: UnixSeconds,
    /// Since when it is overdue, or its last will has not been taken back.
    pub lost: bool,
    /// How often it was lost; tells occurrences apart.
    pub losses: u32,
    /// Whether one came at all; none yet where the file demands them.
    pub came: bool,
    /// As [`Slot::fresh`].
    pub fresh: bool,
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
            judged,
            bad_last: None,
            flap: Flap::default(),
        }
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
            .retain(|number, slot| listed(*number) || slot.since > taken);
        self.pictured = true;
        self.drop_old_beats();
    }

    fn slot(&mut self, seen: &InstanceStatus, now: Now) {
        let known = self.slots.get_mut(&seen.slot);
        let slot = match known {
            Some(slot) if slot.since > seen.since && slot.epoch >= seen.epoch => return,
            Some(slot) => slot,
            None => {
                let slot = Slot::new(seen);
                self.slots.entry(seen.slot).or_insert(slot)
            }
        };
        slot.ports.clone_from(&seen.ports);
        let more_restarts = seen.restarts > slot.restarts;
        slot.restarts = seen.restarts;
        slot.enter(
            &Entering {
                instance: seen.instance.as_ref(),
                epoch: seen.epoch,
                state: seen.state,
                since: seen.since,
                reason: &seen.reason,
                exit: seen.exit.as_ref(),
                last_lines: &[],
                restarted: more_restarts,
            },
            now,
        );
        self.expect_beat(seen.slot, now);
    }

    /// Takes one change of one slot. A repeated or late one changes nothing.
    pub(crate) fn transition(&mut self, change: &Transition, now: Now) {
        let Some(slot) = self.slots.get_mut(&change.slot) else {
            let mut slot = Slot::before(change);
            slot.take(change, now);
            self.slots.insert(change.slot, slot);
            self.pictured = true;
            return self.expect_beat(change.slot, now);
        };
        let late = change.epoch < slot.epoch || change.at < slot.since;
        let repeated = change.at <= slot.since && change.to == slot.state;
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
            .and_then(|interval_s| Duration::try_from_secs_f64(interval_s).ok())
            .map(|interval| interval * intervals);
        let timeout = demanded.map(|period| period.duration()).or(announced);
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
        beat.take(heartbeat, timeout, now);
        true
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
        let (slots, registered) = (&self.slots, &self.registered);
        let held = |id: &InstanceId| {
            registered.contains(id)
                || slots
                    .values()
                    .any(|slot| slot.instance.as_ref() == Some(id))
        };
        // A young one may be ahead of the picture; an overdue one is not.
        self.beats
            .retain(|id, beat| id.as_ref().is_none_or(held) || !beat.lost);
    }

    /// The heartbeat that speaks for a slot: its own, or the nameless one.
    #[must_use]
    pub fn beat_of(&self, slot: &Slot) -> Option<&Beat> {
        self.beats
            .get(&slot.instance)
            .or_else(|| self.beats.get(&None))
    }
}

// === impl Slot ===

/// What a slot is told of its process.
struct Entering<'a> {
    instance: Option<&'a InstanceId>,
    epoch: Epoch,
    state: InstanceState,
    since: UnixSeconds,
    reason: &'a str,
    exit: Option<&'a Exit>,
    last_lines: &'a [String],
    /// Whether the orchestrator counted a restart since it was last heard.
    restarted: bool,
}

impl Slot {
    /// A slot seen for the first time: ends from before do not count.
    fn new(seen: &InstanceStatus) -> Self {
        let down = matches!(seen.state, InstanceState::Backoff | InstanceState::Failed);
        Self {
            instance: None,
            epoch: seen.epoch,
            state: InstanceState::Waiting,
            since: 0.0,
            reason: String::new(),
            ports: BTreeMap::new(),
            exit: seen.exit.clone().filter(|_| !down),
            last_lines: Vec::new(),
            exits: 0,
            recovering: false,
            checks: BTreeMap::new(),
            running_since: None,
            fresh: true,
            restarts: seen.restarts,
        }
    }

    /// A slot of which only a change is known.
    fn before(change: &Transition) -> Self {
        Self {
            instance: None,
            epoch: change.epoch,
            state: change.from,
            since: 0.0,
            reason: String::new(),
            ports: BTreeMap::new(),
            exit: None,
            last_lines: Vec::new(),
            exits: 0,
            recovering: false,
            checks: BTreeMap::new(),
            running_since: None,
            fresh: true,
            restarts: change.restarts,
        }
    }

    fn take(&mut self, change: &Transition, now: Now) {
        self.restarts = self.restarts.max(change.restarts);
        self.enter(
            &Entering {
                instance: change.instance.as_ref(),
                epoch: change.epoch,
                state: change.to,
                since: change.at,
                reason: &change.reason,
                exit: change.exit.as_ref(),
                last_lines: &change.last_lines,
                restarted: false,
            },
            now,
        );
    }

    fn enter(&mut self, to: &Entering<'_>, now: Now) {
        let at_rest = [
            InstanceState::Stopped,
            InstanceState::Completed,
            InstanceState::Failed,
        ];
        if at_rest.contains(&self.state) && !at_rest.contains(&to.state) {
            // Started by a person: a clean slate.
            self.exits = 0;
            self.recovering = false;
        }
        self.note_exit(to);
        if self.instance.as_ref() != to.instance {
            self.checks.clear();
            self.running_since = None;
        }
        self.instance = to.instance.cloned();
        self.epoch = to.epoch;
        self.state = to.state;
        self.since = to.since;
        self.reason.clear();
        self.reason.push_str(to.reason);
        self.fresh = true;
        match to.state {
            InstanceState::Running => {
                self.running_since.get_or_insert(now.mono);
                self.recovering = false;
            }
            InstanceState::Stopping | InstanceState::Stopped | InstanceState::Completed => {
                self.recovering = false;
                self.running_since = None;
            }
            InstanceState::Waiting
            | InstanceState::Starting
            | InstanceState::Backoff
            | InstanceState::Failed => self.running_since = None,
        }
    }

    /// Counts an end once, however often and by whichever message it is told.
    fn note_exit(&mut self, to: &Entering<'_>) {
        let Some(exit) = to.exit else { return };
        if !to.last_lines.is_empty() {
            self.last_lines = to.last_lines.to_vec();
        }
        if self.exit.as_ref().is_some_and(|known| exit.at <= known.at) {
            return;
        }
        self.exit = Some(exit.clone());
        let unexpected =
            matches!(to.state, InstanceState::Backoff | InstanceState::Failed) || to.restarted;
        if unexpected {
            self.exits += 1;
            self.recovering = true;
        }
        if to.last_lines.is_empty() {
            self.last_lines.clear();
        }
    }
}

// === impl Check ===

/// One try of a check, as the prober reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct Try {
    /// Whether it succeeded.
    pub good: bool,
    /// The result in words.
    pub detail: String,
    /// How long it took.
    pub latency_ms: f64,
    /// When it was begun.
    pub begun: Duration,
}

impl Check {
    /// No verdict yet. It turns after `rise` successes or `fall` failures in a row.
    pub(crate) fn new(rise: u32, fall: u32, now: Now) -> Self {
        Self {
            good: None,
            since: now.unix,
            detail: "no result yet".to_owned(),
            latency_ms: None,
            at: now.unix,
            falls: 0,
            threshold: Threshold::new(rise, fall),
            fresh: true,
        }
    }

    /// Counts a try.
    pub(crate) fn count(&mut self, attempt: Try, now: Now) {
        self.detail = attempt.detail;
        self.latency_ms = Some(attempt.latency_ms);
        self.at = now.unix;
        self.fresh = true;
        let turned = self.threshold.observe(attempt.good);
        if let Some(verdict) = turned {
            self.good = Some(verdict == Verdict::Good);
            self.falls += u32::from(verdict == Verdict::Bad);
            self.since = now.unix;
        }
    }
}

// === impl Beat ===

impl Beat {
    fn awaited(timeout: Duration, now: Now) -> Self {
        Self {
            status: HeartbeatStatus::Healthy,
            detail: "none yet".to_owned(),
            timeout: Some(timeout),
            heard_mono: now.mono,
            heard: now.unix,
            since: now.unix,
            lost: false,
            losses: 0,
            came: false,
            fresh: true,
        }
    }

    fn take(&mut self, heartbeat: &Heartbeat, timeout: Option<Duration>, now: Now) {
        if self.status != heartbeat.status || self.lost {
            self.since = now.unix;
        }
        self.status = heartbeat.status;
        self.detail = heartbeat.detail.clone().unwrap_or_default();
        self.timeout = timeout;
        self.heard_mono = now.mono;
        self.heard = now.unix;
        self.lost = false;
        self.came = true;
        self.fresh = true;
    }

    /// Notes when it is overdue. A last will counts only after `offline_after`: the connection may come
    /// back, or the process may have ended, which says more.
    pub(crate) fn look(&mut self, offline_after: Duration, now: Now) {
        let silent = now.mono.saturating_sub(self.heard_mono);
        let overdue = match self.status {
            HeartbeatStatus::Offline => silent >= offline_after,
            HeartbeatStatus::Stopping => false,
            _ => self.timeout.is_some_and(|timeout| silent > timeout),
        };
        if overdue && !self.lost && self.fresh {
            self.lost = true;
            self.losses += 1;
            self.since = now.unix;
        }
    }

    /// Starts the wait for the next one anew: nothing could be heard meanwhile.
    pub(crate) fn wait_again(&mut self, now: Now) {
        self.fresh = true;
        self.heard_mono = now.mono;
    }
}
