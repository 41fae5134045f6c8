//! The state as others see it: the picture for the bus and REST.

use alicia_contract::envelope::MESSAGE_BYTES_MAX;
use alicia_contract::health::{
    ALERTS_IN_STATUS_MAX, Alert, CheckState, FleetHealth, HealthState, HeartbeatStatus,
    ServiceHealth,
};
use alicia_contract::orchestrator::InstanceState;

use super::evidence::{Beat, Check};
use super::judge::{badness, said};
use super::slot::Slot;
use super::watch::Watch;
use super::{Monitor, Now, wanted_slots};

/// What the envelope around the picture may take of a message, in bytes.
const ENVELOPE_BYTES: usize = 4 << 10;

impl Monitor {
    /// The health of the fleet.
    #[must_use]
    pub fn report(&self, now: Now) -> FleetHealth {
        let services: Vec<ServiceHealth> = self.watches.values().map(service_health).collect();
        FleetHealth {
            state: self.worst(),
            at: now.unix,
            services,
            alerts_firing: u32::try_from(self.book.firing().count()).unwrap_or(u32::MAX),
            alerts: self.newest_alerts(),
            held_back: self
                .book
                .held_back()
                .take(ALERTS_IN_STATUS_MAX)
                .cloned()
                .collect(),
            omitted: 0,
        }
    }

    /// The firing alerts, newest first, as many as the picture carries.
    fn newest_alerts(&self) -> Vec<Alert> {
        let mut firing: Vec<&Alert> = self.book.firing().collect();
        firing.sort_by(|a, b| b.started.total_cmp(&a.started));
        let newest = firing.into_iter().take(ALERTS_IN_STATUS_MAX);
        let mut alerts: Vec<Alert> = newest.cloned().collect();
        for alert in &mut alerts {
            alert.last_lines.clear();
        }
        alerts
    }

    /// The worst state of those that should be there. A service that was stopped on purpose is no fault.
    fn worst(&self) -> HealthState {
        let counted = self.watches.values().filter(|watch| {
            watch.slots.is_empty() || wanted_slots(watch).next().is_some() || has_failed(watch)
        });
        counted
            .map(|watch| watch.judged.state)
            .max_by_key(|state| badness(*state))
            .unwrap_or(HealthState::Healthy)
    }
}

fn has_failed(watch: &Watch) -> bool {
    watch
        .slots
        .values()
        .any(|slot| slot.state == InstanceState::Failed)
}

/// The health of one service.
#[must_use]
pub fn service_health(watch: &Watch) -> ServiceHealth {
    let mut checks = Vec::new();
    for (number, slot) in &watch.slots {
        let name = watch.label(*number);
        checks.push(process_state(&name, slot));
        checks.extend(
            slot.checks
                .iter()
                .map(|(check, result)| check_state(&name, check.as_str(), result)),
        );
    }
    for (instance, beat) in &watch.beats {
        let slot = watch
            .slots
            .iter()
            .find(|(_, slot)| slot.instance == *instance);
        checks.push(beat_state(
            slot.map(|(number, _)| watch.label(*number)),
            beat,
        ));
    }
    ServiceHealth {
        service: watch.service.clone(),
        state: watch.judged.state,
        since: watch.judged.since,
        reason: watch.judged.reason.clone(),
        flapping: watch.flap.was_on(),
        checks,
        bad_heartbeats: watch.bad_heartbeats,
    }
}

fn process_state(name: &str, slot: &Slot) -> CheckState {
    let state = match slot.state {
        _ if !slot.fresh => HealthState::Unknown,
        InstanceState::Running | InstanceState::Completed => HealthState::Healthy,
        InstanceState::Waiting | InstanceState::Starting => HealthState::Starting,
        InstanceState::Backoff | InstanceState::Failed => HealthState::Down,
        InstanceState::Parked | InstanceState::Paused => HealthState::Degraded,
        InstanceState::Stopping | InstanceState::Stopped => HealthState::Unknown,
    };
    CheckState {
        name: "process".to_owned(),
        instance: Some(name.to_owned()),
        state,
        since: slot.since,
        detail: slot.reason.clone(),
        latency_ms: None,
        at: slot.since,
    }
}

fn check_state(name: &str, check: &str, result: &Check) -> CheckState {
    let state = match result.good {
        _ if !result.fresh => HealthState::Unknown,
        None => HealthState::Unknown,
        Some(true) => HealthState::Healthy,
        Some(false) => HealthState::Unhealthy,
    };
    CheckState {
        name: check.to_owned(),
        instance: Some(name.to_owned()),
        state,
        since: result.since,
        detail: result.detail.clone(),
        latency_ms: result.latency_ms,
        at: result.at,
    }
}

fn beat_state(instance: Option<String>, beat: &Beat) -> CheckState {
    let state = match beat.status {
        _ if !beat.fresh || !beat.came && !beat.lost => HealthState::Unknown,
        _ if beat.lost => HealthState::Down,
        HeartbeatStatus::Starting => HealthState::Starting,
        HeartbeatStatus::Healthy => HealthState::Healthy,
        HeartbeatStatus::Degraded => HealthState::Degraded,
        HeartbeatStatus::Unhealthy => HealthState::Unhealthy,
        HeartbeatStatus::Stopping | HeartbeatStatus::Offline => HealthState::Unknown,
    };
    CheckState {
        name: "heartbeat".to_owned(),
        instance,
        state,
        since: beat.since,
        detail: if beat.came {
            said(beat)
        } else {
            beat.detail.clone()
        },
        latency_ms: None,
        at: beat.heard,
    }
}

/// Makes the picture fit into one message: first the checks go, then the older alerts, then healthy services, then
/// whatever is left over, best first; `omitted` says how many services, `alerts_firing` how many alerts there are.
#[must_use]
pub fn fit(mut health: FleetHealth) -> FleetHealth {
    let limit = MESSAGE_BYTES_MAX - ENVELOPE_BYTES;
    if bytes(&health) <= limit {
        return health;
    }
    for service in &mut health.services {
        service.checks.clear();
    }
    if bytes(&health) <= limit {
        return health;
    }
    // Half of the message is for services.
    while bytes(&FleetHealth {
        services: Vec::new(),
        ..health.clone()
    }) > limit / 2
        && !(health.alerts.is_empty() && health.held_back.is_empty())
    {
        health.alerts.truncate(health.alerts.len() / 2);
        health.held_back.truncate(health.held_back.len() / 2);
    }
    health
        .services
        .sort_by_key(|service| std::cmp::Reverse(badness(service.state)));
    let mut room = limit.saturating_sub(bytes(&FleetHealth {
        services: Vec::new(),
        ..health.clone()
    }));
    let fitting = health.services.iter().take_while(|service| {
        let needed = serde_json::to_vec(service).map_or(usize::MAX, |text| text.len() + 1);
        let fits = needed <= room;
        room = room.saturating_sub(needed);
        fits
    });
    let kept = fitting.count();
    health.omitted = u32::try_from(health.services.len() - kept).unwrap_or(u32::MAX);
    health.services.truncate(kept);
    health
}

fn bytes(health: &FleetHealth) -> usize {
    serde_json::to_vec(health).map_or(usize::MAX, |text| text.len())
}
