//! The judgement of a service, from what is known of its members: its slots, or, for a service that the
//! orchestrator does not run, the instances that send heartbeats.
//!
//! | a member | is |
//! |---|---|
//! | slot that waits or starts | starting |
//! | slot in back-off or failed | down |
//! | slot that is parked or paused | degraded |
//! | slot that runs: a check is bad, its heartbeat is overdue, broken off or says `unhealthy` | unhealthy |
//! | slot that runs: its heartbeat says `degraded` / `starting` | degraded / starting |
//! | slot that runs, otherwise | healthy |
//! | slot that is stopping or stopped; one that completed | not a member; healthy |
//! | instance without slot: overdue or broken off | down |
//! | instance without slot: otherwise | what its heartbeat says |
//! | any, when nothing was heard since the monitor was held up | unknown |
//!
//! | the members | the service is |
//! |---|---|
//! | none, or all unknown | unknown |
//! | all healthy | healthy |
//! | some work (healthy or degraded), not all of them well | degraded |
//! | none works, one is unhealthy | unhealthy |
//! | none works, one is starting | starting |
//! | none works, otherwise | down |
//!
//! Unknown members do not count beside known ones.

use alicia_contract::health::{HealthState, HeartbeatStatus};
use alicia_contract::orchestrator::InstanceState;

use super::evidence::{Beat, Check};
use super::slot::Slot;
use super::watch::Watch;

/// One that the judgement rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// How it is.
    pub state: HealthState,
    /// Why, with its name.
    pub reason: String,
}

/// Judges a service: its state, and why.
#[must_use]
pub fn judge(watch: &Watch) -> (HealthState, String) {
    let members = members(watch);
    if members.is_empty() {
        return (HealthState::Unknown, unwatched(watch).to_owned());
    }
    let total = members.len();
    let known: Vec<&Member> = members
        .iter()
        .filter(|member| member.state != HealthState::Unknown)
        .collect();
    let state = combine(&known);
    let reason = match state {
        HealthState::Unknown => "nothing heard since the monitor was held up".to_owned(),
        HealthState::Healthy if known.iter().all(|member| member.reason.is_empty()) => {
            String::new()
        }
        _ => reasons(&known, total),
    };
    (state, reason)
}

/// How bad a state is, from well to worst; `unknown` stands between: it is no fault, but it is not well.
#[must_use]
pub const fn badness(state: HealthState) -> u8 {
    match state {
        HealthState::Healthy => 0,
        HealthState::Starting => 1,
        HealthState::Unknown => 2,
        HealthState::Degraded => 3,
        HealthState::Unhealthy => 4,
        HealthState::Down => 5,
    }
}

/// Whether somebody should care.
#[must_use]
pub const fn is_bad(state: HealthState) -> bool {
    matches!(state, HealthState::Unhealthy | HealthState::Down)
}

fn members(watch: &Watch) -> Vec<Member> {
    if watch.slots.is_empty() {
        return watch
            .beats
            .values()
            .filter_map(|beat| by_beat(watch, beat))
            .collect();
    }
    let slots = watch.slots.iter();
    slots
        .filter_map(|(number, slot)| by_slot(watch, *number, slot))
        .collect()
}

fn by_slot(watch: &Watch, number: u32, slot: &Slot) -> Option<Member> {
    let name = watch.label(number);
    let (state, reason) = match slot.state {
        InstanceState::Stopping | InstanceState::Stopped => return None,
        InstanceState::Completed => (HealthState::Healthy, "ran to its end".to_owned()),
        _ if !slot.fresh && !has_fresh_evidence(watch, slot) => {
            (HealthState::Unknown, String::new())
        }
        InstanceState::Waiting | InstanceState::Starting => {
            (HealthState::Starting, format!("{name}: {}", slot.reason))
        }
        InstanceState::Backoff | InstanceState::Failed => {
            let cause = slot
                .exit
                .as_ref()
                .map_or(slot.reason.as_str(), |exit| &exit.cause);
            (HealthState::Down, format!("{name}: {cause}"))
        }
        InstanceState::Parked | InstanceState::Paused => {
            (HealthState::Degraded, format!("{name}: {}", slot.reason))
        }
        InstanceState::Running => running(watch, &name, slot),
    };
    Some(Member { state, reason })
}

fn has_fresh_evidence(watch: &Watch, slot: &Slot) -> bool {
    slot.state == InstanceState::Running
        && (slot
            .checks
            .values()
            .any(|check| check.fresh && check.good.is_some())
            || watch
                .beat_of(slot)
                .is_some_and(|beat| beat.fresh && beat.came))
}

fn running(watch: &Watch, name: &str, slot: &Slot) -> (HealthState, String) {
    let bad = |check: &&Check| check.fresh && check.good == Some(false);
    let failing = slot.checks.iter().find(|(_, check)| bad(check));
    if let Some((check, result)) = failing {
        return (
            HealthState::Unhealthy,
            format!("{name}: check {check}: {}", result.detail),
        );
    }
    let Some(beat) = watch.beat_of(slot).filter(|beat| beat.fresh) else {
        return (HealthState::Healthy, String::new());
    };
    let detail = || format!("{name} says: {}", said(beat));
    match beat.status {
        HeartbeatStatus::Offline if beat.lost => (
            HealthState::Unhealthy,
            format!("{name}: its connection to the bus broke"),
        ),
        _ if beat.lost => (HealthState::Unhealthy, format!("{name}: no heartbeat")),
        HeartbeatStatus::Unhealthy => (HealthState::Unhealthy, detail()),
        HeartbeatStatus::Degraded => (HealthState::Degraded, detail()),
        HeartbeatStatus::Starting => (HealthState::Starting, detail()),
        HeartbeatStatus::Healthy | HeartbeatStatus::Stopping | HeartbeatStatus::Offline => {
            (HealthState::Healthy, String::new())
        }
    }
}

fn by_beat(watch: &Watch, beat: &Beat) -> Option<Member> {
    let service = &watch.service;
    let says = || format!("{service} says: {}", said(beat));
    let (state, reason) = match beat.status {
        HeartbeatStatus::Stopping => return None,
        _ if !beat.fresh => (HealthState::Unknown, String::new()),
        HeartbeatStatus::Offline if beat.lost => (
            HealthState::Down,
            format!("{service}: its connection to the bus broke"),
        ),
        _ if beat.lost => (HealthState::Down, format!("{service}: no heartbeat")),
        HeartbeatStatus::Unhealthy => (HealthState::Unhealthy, says()),
        HeartbeatStatus::Degraded => (HealthState::Degraded, says()),
        HeartbeatStatus::Starting => (HealthState::Starting, says()),
        HeartbeatStatus::Healthy | HeartbeatStatus::Offline => {
            (HealthState::Healthy, String::new())
        }
    };
    Some(Member { state, reason })
}

/// What a heartbeat says, in words.
pub(crate) fn said(beat: &Beat) -> String {
    let status = match beat.status {
        HeartbeatStatus::Starting => "starting",
        HeartbeatStatus::Healthy => "healthy",
        HeartbeatStatus::Degraded => "degraded",
        HeartbeatStatus::Unhealthy => "unhealthy",
        HeartbeatStatus::Stopping => "stopping",
        HeartbeatStatus::Offline => "offline",
    };
    if beat.detail.is_empty() {
        status.to_owned()
    } else {
        format!("{status}, {}", beat.detail)
    }
}

fn combine(known: &[&Member]) -> HealthState {
    let is = |wanted: HealthState| known.iter().any(|member| member.state == wanted);
    let works = is(HealthState::Healthy) || is(HealthState::Degraded);
    match () {
        () if known.is_empty() => HealthState::Unknown,
        () if known
            .iter()
            .all(|member| member.state == HealthState::Healthy) =>
        {
            HealthState::Healthy
        }
        () if works => HealthState::Degraded,
        () if is(HealthState::Unhealthy) => HealthState::Unhealthy,
        () if is(HealthState::Starting) => HealthState::Starting,
        () => HealthState::Down,
    }
}

/// The worst reasons first, at most two; how many more there are.
fn reasons(known: &[&Member], total: usize) -> String {
    let mut told: Vec<&&Member> = known
        .iter()
        .filter(|member| !member.reason.is_empty())
        .collect();
    told.sort_by_key(|member| std::cmp::Reverse(badness(member.state)));
    let bad = told
        .iter()
        .filter(|member| member.state != HealthState::Healthy)
        .count();
    let first: Vec<&str> = told
        .iter()
        .take(2)
        .map(|member| member.reason.as_str())
        .collect();
    let mut text = first.join("; ");
    if bad > 0 && total > 1 {
        text = format!("{bad} of {total} instances: {text}");
    }
    text
}

fn unwatched(watch: &Watch) -> &'static str {
    if !watch.slots.is_empty() {
        return "stopped on request";
    }
    if !watch.beats.is_empty() {
        return "said goodbye";
    }
    if watch.registered.is_empty() {
        "nothing heard of it yet"
    } else {
        "sends no heartbeats"
    }
}
