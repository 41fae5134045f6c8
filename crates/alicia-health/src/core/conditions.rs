//! What should be an alert: conditions, read from what is known of a service.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::health::{HealthState, HeartbeatStatus, Severity};
use alicia_contract::id::ServiceName;
use alicia_contract::orchestrator::InstanceState;
use serde_json::Value;

use super::Now;
use super::agents::Finding;
use super::evidence::{Beat, Check};
use super::judge::said;
use super::slot::Slot;
use super::watch::Watch;
use crate::suggest;

/// The check that is the service's own word. With a blank, so that no check of the file has this name.
const OWN_WORD: &str = "own word";

/// The rules. Their names are part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Nothing of the service works, for a while already.
    ServiceDown,
    /// An instance was given up.
    CrashLoop,
    /// An instance ended unexpectedly.
    Restarted,
    /// A check is bad, or the service says that it is.
    CheckFailed,
    /// Heartbeats stopped.
    HeartbeatLost,
    /// It changes too often.
    Flapping,
    /// Heartbeats come that cannot be used.
    BadHeartbeats,
    /// An agent makes no progress.
    AgentStuck,
    /// An agent repeats itself.
    AgentLoop,
    /// An agent's calls of tools fail.
    AgentToolErrors,
    /// An agent burns tokens.
    AgentTokens,
    /// An agent burns money.
    AgentCost,
    /// An agent's model is slow to begin.
    AgentSlow,
    /// An agent does not keep up.
    AgentQueue,
    /// The error budget of a service is burnt too quickly.
    SloBurn,
    /// It is parked or paused, its budget is nearly used up, or its progress probe asks.
    Attention,
    /// Restarts by the monitor did not help.
    RestartBreaker,
    /// A notification could not be delivered.
    DeliveryFailed,
    /// Posted from outside, over the Alertmanager API.
    External,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 19] = [
        Self::ServiceDown,
        Self::CrashLoop,
        Self::Restarted,
        Self::CheckFailed,
        Self::HeartbeatLost,
        Self::Flapping,
        Self::BadHeartbeats,
        Self::AgentStuck,
        Self::AgentLoop,
        Self::AgentToolErrors,
        Self::AgentTokens,
        Self::AgentCost,
        Self::AgentSlow,
        Self::AgentQueue,
        Self::SloBurn,
        Self::Attention,
        Self::RestartBreaker,
        Self::DeliveryFailed,
        Self::External,
    ];

    /// The name in alerts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServiceDown => "service_down",
            Self::CrashLoop => "crash_loop",
            Self::Restarted => "restarted",
            Self::CheckFailed => "check_failed",
            Self::HeartbeatLost => "heartbeat_lost",
            Self::Flapping => "flapping",
            Self::BadHeartbeats => "bad_heartbeats",
            Self::AgentStuck => "agent_stuck",
            Self::AgentLoop => "agent_loop",
            Self::AgentToolErrors => "agent_tool_errors",
            Self::AgentTokens => "agent_tokens",
            Self::AgentCost => "agent_cost",
            Self::AgentSlow => "agent_slow",
            Self::AgentQueue => "agent_queue",
            Self::SloBurn => "slo_burn",
            Self::Attention => "attention",
            Self::RestartBreaker => "restart_breaker",
            Self::DeliveryFailed => "delivery_failed",
            Self::External => "external",
        }
    }

    /// Whether it is read from what is known of a service, at each look. The others are told from elsewhere:
    /// see [`super::told`].
    #[must_use]
    pub const fn is_watched(self) -> bool {
        !matches!(
            self,
            Self::RestartBreaker | Self::DeliveryFailed | Self::External | Self::SloBurn
        )
    }

    /// The rule of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == name)
    }
}

/// What makes two conditions the same: an alert has one episode per key at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The service. First, so that what belongs to one lies together.
    pub service: ServiceName,
    /// The rule.
    pub rule: Rule,
    /// The instance, `api-1`.
    pub instance: Option<String>,
    /// The check, where there are several.
    pub check: Option<String>,
}

/// Something that is, or was a moment ago, as it should not be.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What it is about.
    pub key: Key,
    /// Whether it holds now.
    pub active: bool,
    /// Rises with each occurrence, so that one between two looks is not lost.
    pub occurrence: u32,
    /// How bad it is.
    pub severity: Severity,
    /// One line.
    pub summary: String,
    /// The evidence. A change of it is news.
    pub detail: String,
    /// The last lines of output.
    pub last_lines: Vec<String>,
    /// What to do.
    pub suggestion: Option<String>,
    /// Labels of its own.
    pub labels: BTreeMap<String, Value>,
}

/// The conditions of a service. A key that is not among them does not hold, for sure.
#[must_use]
pub fn conditions(watch: &Watch, down_after: Duration, now: Now) -> Vec<Condition> {
    let mut found = Vec::new();
    for (number, slot) in &watch.slots {
        of_slot(watch, *number, slot, now, &mut found);
    }
    found.extend(bad_heartbeats(watch, now));
    if watch.slots.is_empty() {
        let mut of_all = BTreeMap::new();
        for beat in watch.beats.values() {
            let lost = heartbeat_lost(watch, None, beat, Severity::Critical);
            let of_one = lost.into_iter().chain(says_unhealthy(watch, None, beat));
            for condition in of_one.chain(agent_findings(watch, None, beat, now)) {
                merge(&mut of_all, condition);
            }
        }
        found.extend(of_all.into_values());
    }
    let given_up = found
        .iter()
        .any(|found| found.key.rule == Rule::CrashLoop && found.active);
    // Without a slot, heartbeats are all there is: that they are lost says it already.
    let lost = |found: &Condition| found.key.rule == Rule::HeartbeatLost && found.active;
    let told = watch.slots.is_empty() && found.iter().any(lost);
    if !given_up && !told {
        found.extend(service_down(watch, down_after, now));
    }
    found
}

/// Instances without a slot have one alert together: it holds while it does for one of them, and tells of that one.
fn merge(of_all: &mut BTreeMap<Key, Condition>, condition: Condition) {
    let Some(known) = of_all.get_mut(&condition.key) else {
        of_all.insert(condition.key.clone(), condition);
        return;
    };
    let occurrence = known.occurrence.saturating_add(condition.occurrence);
    if condition.active && !known.active {
        *known = condition;
    }
    known.occurrence = occurrence;
}

fn of_slot(watch: &Watch, number: u32, slot: &Slot, now: Now, found: &mut Vec<Condition>) {
    let name = watch.label(number);
    match slot.state {
        InstanceState::Stopping | InstanceState::Stopped | InstanceState::Completed => return,
        InstanceState::Parked | InstanceState::Paused => {
            return found.push(held(watch, &name, slot));
        }
        InstanceState::Failed => return found.push(crash_loop(watch, name, slot, now)),
        _ => found.extend(restarted(watch, &name, slot, now)),
    }
    if slot.crash_loops > 0 {
        // It is tried again: the alert ends when that was good for a while, not with each try.
        found.push(crash_loop(watch, name.clone(), slot, now));
    }
    if slot.state != InstanceState::Running {
        return;
    }
    found.extend(attention(watch, &name, slot));
    for (check, result) in &slot.checks {
        found.extend(check_failed(watch, &name, check, result));
    }
    if let Some(beat) = watch.beat_of(slot) {
        found.extend(heartbeat_lost(watch, Some(&name), beat, Severity::Warning));
        found.extend(says_unhealthy(watch, Some(&name), beat));
        found.extend(agent_findings(watch, Some(&name), beat, now));
    }
}

fn key(watch: &Watch, rule: Rule, instance: Option<&str>, check: Option<&str>) -> Key {
    Key {
        rule,
        service: watch.service.clone(),
        instance: instance.map(str::to_owned),
        check: check.map(str::to_owned),
    }
}

/// What is known of an end, for advice.
pub(crate) fn evidence<'e>(
    watch: &'e Watch,
    slot: &'e Slot,
    cause: &'e str,
    now: Now,
) -> suggest::Evidence<'e> {
    suggest::Evidence {
        service: &watch.service,
        class: slot
            .exit
            .as_ref()
            .map(|exit| exit.class)
            .unwrap_or_default(),
        cause,
        last_lines: &slot.last_lines,
        root: None,
        after_change: watch.changed_lately(now),
    }
}

fn restarted(watch: &Watch, name: &str, slot: &Slot, now: Now) -> Option<Condition> {
    let exit = slot.exit.as_ref().filter(|_| slot.exits > 0)?;
    Some(Condition {
        key: key(watch, Rule::Restarted, Some(name), None),
        active: slot.recovering,
        occurrence: slot.exits,
        severity: Severity::Warning,
        summary: format!("{name} ended unexpectedly and is restarted"),
        detail: exit.cause.clone(),
        last_lines: slot.last_lines.clone(),
        labels: BTreeMap::new(),
        suggestion: Some(suggest::first(&evidence(watch, slot, &exit.cause, now))),
    })
}

fn crash_loop(watch: &Watch, name: String, slot: &Slot, now: Now) -> Condition {
    let service = &watch.service;
    let cause = slot.exit.as_ref().map_or("", |exit| &exit.cause);
    let detail = if cause.is_empty() || slot.reason.contains(cause) {
        format!(
            "{}; mend the cause, then `alicia start {service}`",
            slot.reason
        )
    } else {
        format!(
            "{}: {cause}; mend the cause, then `alicia start {service}`",
            slot.reason
        )
    };
    Condition {
        key: key(watch, Rule::CrashLoop, Some(&name), None),
        active: slot.state == InstanceState::Failed,
        occurrence: slot.crash_loops.max(1),
        severity: Severity::Critical,
        summary: format!("{name} failed"),
        labels: BTreeMap::new(),
        suggestion: Some(suggest::first(&evidence(watch, slot, &detail, now))),
        detail,
        last_lines: slot.last_lines.clone(),
    }
}

/// It does not run, and that is meant so: until a provider lets it, a budget does, or a person.
fn held(watch: &Watch, name: &str, slot: &Slot) -> Condition {
    let service = &watch.service;
    let (word, severity) = match slot.state {
        InstanceState::Parked => ("parked", Severity::Info),
        _ => ("paused", Severity::Warning),
    };
    Condition {
        key: key(watch, Rule::Attention, Some(name), None),
        active: true,
        occurrence: 0,
        severity,
        summary: format!("{name} is {word}"),
        detail: slot.reason.clone(),
        last_lines: slot.last_lines.clone(),
        labels: BTreeMap::new(),
        suggestion: Some(format!(
            "`alicia explain {name}` says why; `alicia resume {service}` lets it go on now"
        )),
    }
}

/// It runs, and a person should look.
fn attention(watch: &Watch, name: &str, slot: &Slot) -> Option<Condition> {
    let detail = slot.attention.clone()?;
    Some(Condition {
        key: key(watch, Rule::Attention, Some(name), None),
        active: true,
        occurrence: 0,
        severity: Severity::Warning,
        summary: format!("{name} needs a look"),
        detail,
        last_lines: Vec::new(),
        labels: BTreeMap::new(),
        suggestion: Some(format!("`alicia explain {name}`")),
    })
}

fn check_failed(
    watch: &Watch,
    name: &str,
    check: &ServiceName,
    result: &Check,
) -> Option<Condition> {
    (result.falls > 0).then(|| Condition {
        key: key(watch, Rule::CheckFailed, Some(name), Some(check.as_str())),
        active: result.good == Some(false),
        occurrence: result.falls,
        severity: Severity::Warning,
        summary: format!("check {check} of {name} fails"),
        detail: result.detail.clone(),
        last_lines: Vec::new(),
        labels: BTreeMap::new(),
        suggestion: Some(suggest::of_check(&watch.service, &result.detail)),
    })
}

fn heartbeat_lost(
    watch: &Watch,
    name: Option<&str>,
    beat: &Beat,
    severity: Severity,
) -> Option<Condition> {
    if beat.losses == 0 {
        return None;
    }
    let who = name.unwrap_or(watch.service.as_str());
    let detail = if beat.status == HeartbeatStatus::Offline {
        "its connection to the bus broke: the broker published its last will".to_owned()
    } else {
        format!("no heartbeat for {:.1} s", beat.silent.as_secs_f64())
    };
    Some(Condition {
        key: key(watch, Rule::HeartbeatLost, name, None),
        active: beat.lost,
        occurrence: beat.losses,
        severity,
        summary: format!("{who} sends no heartbeats"),
        detail,
        last_lines: Vec::new(),
        labels: BTreeMap::new(),
        suggestion: Some(suggest::logs(&watch.service)),
    })
}

/// What an agent's own numbers say is wrong with its work.
fn agent_findings(watch: &Watch, name: Option<&str>, beat: &Beat, now: Now) -> Vec<Condition> {
    if !beat.fresh || beat.lost {
        return Vec::new();
    }
    let who = name.unwrap_or(watch.service.as_str());
    let condition = |finding: Finding| Condition {
        key: key(watch, finding.rule, name, None),
        active: true,
        occurrence: 0,
        severity: finding.severity,
        summary: format!("{who} {}", finding.what),
        detail: finding.detail,
        last_lines: Vec::new(),
        labels: BTreeMap::new(),
        suggestion: Some(suggest::logs(&watch.service)),
    };
    let found = beat.work.findings(&watch.agent, now.mono);
    found.into_iter().map(condition).collect()
}

fn bad_heartbeats(watch: &Watch, now: Now) -> Option<Condition> {
    watch.has_bad_heartbeats(now).then(|| Condition {
        key: key(watch, Rule::BadHeartbeats, None, None),
        active: true,
        occurrence: 0,
        severity: Severity::Warning,
        summary: format!("heartbeats of {} cannot be used", watch.service),
        detail: watch.bad_heartbeat_last.clone().unwrap_or_default(),
        last_lines: Vec::new(),
        labels: BTreeMap::new(),
        suggestion: Some(format!(
            "alicia bus sub 'alicia/system/health/{}'",
            watch.service
        )),
    })
}

fn says_unhealthy(watch: &Watch, name: Option<&str>, beat: &Beat) -> Option<Condition> {
    let who = name.unwrap_or(watch.service.as_str());
    let unhealthy = beat.status == HeartbeatStatus::Unhealthy && !beat.lost;
    unhealthy.then(|| Condition {
        key: key(watch, Rule::CheckFailed, name, Some(OWN_WORD)),
        active: true,
        occurrence: 0,
        severity: Severity::Warning,
        summary: format!("{who} says that it is unhealthy"),
        detail: said(beat),
        last_lines: Vec::new(),
        labels: BTreeMap::new(),
        suggestion: Some(suggest::logs(&watch.service)),
    })
}

fn service_down(watch: &Watch, down_after: Duration, now: Now) -> Option<Condition> {
    let judged = &watch.judged;
    let down_for = now.mono.saturating_sub(judged.since_mono);
    let down = judged.state == HealthState::Down;
    (down && down_for >= down_after).then(|| Condition {
        key: key(watch, Rule::ServiceDown, None, None),
        active: true,
        occurrence: 0,
        severity: Severity::Critical,
        summary: format!("{} is down", watch.service),
        detail: judged.reason.clone(),
        last_lines: watch
            .slots
            .values()
            .next()
            .map(|s| s.last_lines.clone())
            .unwrap_or_default(),
        labels: BTreeMap::new(),
        suggestion: Some(suggest::logs(&watch.service)),
    })
}

/// The condition that the service flaps.
pub(crate) fn flapping(watch: &Watch) -> Condition {
    Condition {
        key: key(watch, Rule::Flapping, None, None),
        active: true,
        occurrence: 0,
        severity: Severity::Warning,
        summary: format!("{} is flapping", watch.service),
        detail:
            "it changes between good and bad again and again; until it settles, its further alerts \
                 are held back"
                .to_owned(),
        last_lines: Vec::new(),
        labels: BTreeMap::new(),
        suggestion: Some(suggest::logs(&watch.service)),
    }
}
