//! How well an instance is, from everything that was heard of it: its presence, its heartbeat, its process,
//! and the judgement of the health monitor. What was not heard is left out, never waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alicia_contract::discovery::{Presence, Standing};
use alicia_contract::health::{FleetHealth, HealthState, Heartbeat, HeartbeatStatus};
use alicia_contract::id::{InstanceId, ServiceName};
use alicia_contract::orchestrator::{FleetStatus, InstanceState};
use alicia_contract::unit::UnixSeconds;

use super::entry::Entry;
use super::{Now, Registry};

/// Heartbeats that may fail to come before an instance counts as silent.
const HEARTBEATS_MISSED_MAX: f64 = 3.0;

/// The shortest and the longest interval of heartbeats that is believed, in seconds.
const INTERVAL_S: (f64, f64) = (0.1, 3_600.0);

/// Who seems silent after the registry was held up has so long to speak again.
const EXCUSED: Duration = Duration::from_secs(15);

/// The most load that is believed: calls under way, and cores in use.
const LOAD_MAX: f64 = 100_000.0;

/// The last heartbeat of an instance.
#[derive(Debug, Clone)]
pub(super) struct Pulse {
    status: HeartbeatStatus,
    detail: Option<String>,
    /// When it counts as silent; none: it does not say how often it speaks.
    due: Option<Duration>,
    is_silent: bool,
}

/// The slot that an instance runs in, by the orchestrator.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slot {
    pub(super) state: InstanceState,
    /// As the health monitor names it: `api-1`.
    pub(super) name: String,
    /// Since when, as the orchestrator says.
    pub(super) at: UnixSeconds,
}

/// The judgement of the health monitor about one slot.
#[derive(Debug, Clone, PartialEq)]
struct Judgement {
    state: HealthState,
    detail: String,
    at: UnixSeconds,
}

/// What was heard of how instances are.
#[derive(Debug, Default)]
pub(super) struct Wellbeing {
    pulses: BTreeMap<InstanceId, Pulse>,
    pub(super) slots: BTreeMap<InstanceId, Slot>,
    judgements: BTreeMap<String, Judgement>,
    pub(super) is_judged: bool,
}

// === impl Wellbeing ===

impl Wellbeing {
    pub(super) fn forget(&mut self, instance: &InstanceId) {
        self.pulses.remove(instance);
        self.slots.remove(instance);
    }

    fn judgement(&self, entry: &Entry) -> Option<&Judgement> {
        let slot = self.slots.get(&entry.registration.instance)?;
        let judgement = self.judgements.get(&slot.name)?;
        // A judgement about the run before says nothing of this one.
        (judgement.at >= entry.since).then_some(judgement)
    }

    /// `None` for one that is gone, or was never there.
    fn of(&self, entry: &Entry) -> Option<Standing> {
        let slot = self.slots.get(&entry.registration.instance);
        let is_stopping = slot.is_some_and(|slot| slot.state == InstanceState::Stopping);
        match entry.presence {
            Presence::Gone => return is_stopping.then_some(Standing::Draining),
            _ if is_stopping => return Some(Standing::Draining),
            _ if slot.is_some_and(|slot| slot.state == InstanceState::Paused) => {
                return Some(Standing::Suspect);
            }
            Presence::Suspect => return Some(Standing::Suspect),
            Presence::Unverified => return Some(Standing::Unverified),
            Presence::Present => {}
        }
        let by_process = match slot {
            Some(slot) if slot.state == InstanceState::Starting => Standing::Starting,
            _ => Standing::Healthy,
        };
        let pulse = self.pulses.get(&entry.registration.instance);
        let by_pulse = pulse.map_or(Standing::Unknown, Pulse::standing);
        let by_monitor = self.judgement(entry).map(|it| standing_of(it.state));
        let by_monitor = by_monitor.unwrap_or(Standing::Unknown);
        // That nothing is known counts only when nobody says that it is well.
        let is_well = [by_pulse, by_monitor].contains(&Standing::Healthy);
        let worst = by_process.max(by_pulse).max(by_monitor);
        Some(if worst == Standing::Unknown && is_well {
            Standing::Healthy
        } else {
            worst
        })
    }
}

// === impl Pulse ===

impl Pulse {
    const fn standing(&self) -> Standing {
        match self.status {
            _ if self.is_silent => Standing::Silent,
            HeartbeatStatus::Healthy => Standing::Healthy,
            HeartbeatStatus::Degraded => Standing::Degraded,
            HeartbeatStatus::Starting => Standing::Starting,
            HeartbeatStatus::Unhealthy => Standing::Unhealthy,
            HeartbeatStatus::Stopping => Standing::Draining,
            HeartbeatStatus::Offline => Standing::Silent,
        }
    }
}

const fn standing_of(state: HealthState) -> Standing {
    match state {
        HealthState::Healthy => Standing::Healthy,
        HealthState::Starting => Standing::Starting,
        HealthState::Degraded => Standing::Degraded,
        HealthState::Unhealthy | HealthState::Down => Standing::Unhealthy,
        HealthState::Unknown => Standing::Unknown,
    }
}

// === impl Registry ===

impl Registry {
    /// Brings the index up to what is known of an instance.
    pub(super) fn index(&mut self, instance: &InstanceId) {
        let Some(entry) = self.entries.get(instance) else {
            self.offers.withdraw(instance);
            return;
        };
        match self.wellbeing.of(entry) {
            Some(standing) if !entry.registration.capabilities.is_empty() => {
                self.offers.put(&entry.registration, standing);
            }
            _ => self.offers.withdraw(instance),
        }
    }

    /// As [`Self::index`], where only its standing may have changed.
    fn restand(&mut self, instance: &InstanceId) {
        let standing = self
            .entries
            .get(instance)
            .and_then(|entry| self.wellbeing.of(entry));
        match standing {
            Some(standing) => self.offers.stands(instance, standing),
            None => self.offers.withdraw(instance),
        }
    }

    /// Remembers how an instance says it is. The caller has checked whose heartbeat it is.
    pub(super) fn pulse(&mut self, instance: &InstanceId, heartbeat: &Heartbeat, now: Now) {
        let due = heartbeat.interval_s.map(|interval_s| {
            let interval_s = interval_s.clamp(INTERVAL_S.0, INTERVAL_S.1);
            now.mono + Duration::from_secs_f64(interval_s * HEARTBEATS_MISSED_MAX)
        });
        let pulse = Pulse {
            status: heartbeat.status,
            detail: heartbeat.detail.clone(),
            due,
            is_silent: false,
        };
        self.wellbeing.pulses.insert(instance.clone(), pulse);
        let of = |name: &str| heartbeat.resources.get(name).copied().unwrap_or_default();
        self.offers
            .reports(instance, whole(of("in_flight")), whole(of("cpu") * 10.0));
        self.restand(instance);
    }

    /// Looks for heartbeats that are overdue.
    pub(super) fn listen_for_silence(&mut self, now: Now) {
        let mut fell_silent = Vec::new();
        for (instance, pulse) in &mut self.wellbeing.pulses {
            if !pulse.is_silent && pulse.due.is_some_and(|due| due <= now.mono) {
                pulse.is_silent = true;
                fell_silent.push(instance.clone());
            }
        }
        fell_silent
            .iter()
            .for_each(|instance| self.restand(instance));
    }

    /// The registry was held up: who seems silent may have spoken.
    pub(super) fn excuse_silence(&mut self, now: Now) {
        for pulse in self.wellbeing.pulses.values_mut() {
            if !pulse.is_silent
                && let Some(due) = &mut pulse.due
            {
                *due = (*due).max(now.mono + EXCUSED);
            }
        }
    }

    /// The orchestrator says where an instance is in its life.
    pub(super) fn slot_is(
        &mut self,
        instance: &InstanceId,
        state: InstanceState,
        (name, at): (String, UnixSeconds),
        now: Now,
    ) {
        let known = self.wellbeing.slots.get(instance);
        // What is of the future is of a clock that was set back since.
        let is_newer = |known: &Slot| known.at > at && known.at <= now.unix;
        let is_same = |known: &Slot| known.state == state && known.name == name;
        if known.is_some_and(|known| is_newer(known) || is_same(known)) {
            return;
        }
        let slot = Slot { state, name, at };
        self.wellbeing.slots.insert(instance.clone(), slot);
        self.restand(instance);
    }

    /// Takes the slots of a whole picture; those that are younger than it stay.
    pub(super) fn take_slots(&mut self, status: &FleetStatus, now: Now) {
        let mut listed = BTreeSet::new();
        for service in &status.services {
            for slot in &service.instances {
                if let Some(instance) = &slot.instance {
                    listed.insert(instance.clone());
                    let name = slot_name(&service.service, slot.slot);
                    self.slot_is(instance, slot.state, (name, status.at), now);
                }
            }
        }
        let gone: Vec<InstanceId> = self
            .wellbeing
            .slots
            .iter()
            .filter(|(_, slot)| slot.at <= status.at || slot.at > now.unix)
            .filter(|(instance, _)| !listed.contains(*instance))
            .map(|(instance, _)| instance.clone())
            .collect();
        for instance in gone {
            self.wellbeing.slots.remove(&instance);
            self.restand(&instance);
        }
    }

    /// The judgement of the health monitor about every service that it watches.
    pub(super) fn judge(&mut self, health: &FleetHealth) {
        self.wellbeing.is_judged = true;
        let mut judgements: BTreeMap<String, Judgement> = BTreeMap::new();
        for check in health.services.iter().flat_map(|service| &service.checks) {
            let Some(name) = &check.instance else {
                continue;
            };
            let is_worse = judgements
                .get(name)
                .is_none_or(|known| standing_of(check.state) > standing_of(known.state));
            if is_worse {
                let judgement = Judgement {
                    state: check.state,
                    detail: format!("{}: {}", check.name, check.detail),
                    at: check.at,
                };
                judgements.insert(name.clone(), judgement);
            }
        }
        let before = std::mem::replace(&mut self.wellbeing.judgements, judgements);
        let changed: Vec<InstanceId> = self
            .wellbeing
            .slots
            .iter()
            .filter(|(_, slot)| before.get(&slot.name) != self.wellbeing.judgements.get(&slot.name))
            .map(|(instance, _)| instance.clone())
            .collect();
        changed.iter().for_each(|instance| self.restand(instance));
    }

    /// How well an instance is; `None` for one that is gone.
    #[must_use]
    pub fn standing(&self, entry: &Entry) -> Option<Standing> {
        self.wellbeing.of(entry)
    }

    /// Why it stands so, in words.
    #[must_use]
    pub fn why(&self, entry: &Entry, standing: Standing) -> String {
        let pulse = self.wellbeing.pulses.get(&entry.registration.instance);
        let own = pulse
            .and_then(|pulse| pulse.detail.as_deref())
            .unwrap_or("says no more about it");
        match standing {
            Standing::Healthy => "well".to_owned(),
            Standing::Unknown => "there; it has not said how it is".to_owned(),
            Standing::Starting => "is on its way and not ready yet".to_owned(),
            Standing::Unverified => entry.reason.clone(),
            Standing::Silent => "its heartbeat is overdue".to_owned(),
            Standing::Suspect | Standing::Draining => entry.reason.clone(),
            Standing::Degraded | Standing::Unhealthy => match self.wellbeing.judgement(entry) {
                Some(judged) if standing_of(judged.state) == standing => judged.detail.clone(),
                _ => own.to_owned(),
            },
        }
    }

    /// Whether the health monitor was heard.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        self.wellbeing.is_judged
    }
}

/// The name of a slot as the health monitor writes it.
pub(super) fn slot_name(service: &ServiceName, slot: u32) -> String {
    format!("{service}-{slot}")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to a small positive number before"
)]
fn whole(load: f64) -> u32 {
    // What is no number counts as nothing.
    if load.is_nan() {
        0
    } else {
        load.clamp(0.0, LOAD_MAX).round() as u32
    }
}
