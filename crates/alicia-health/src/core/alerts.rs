//! The book of alerts: one episode per key, from firing to resolved.
//!
//! ```text
//!              condition, not suppressed              held off for `hold`
//!   (nothing) ──────────────────────────▶ firing ───────────────────────▶ resolved
//!                                          │  ▲ again: count + 1            │
//!                                          └──┘                             │
//!        fires again soon after: a new episode, whose hold is twice as long ┘
//! ```
//!
//! Suppression (a root cause elsewhere, flapping) stops new episodes only. One that fires is resolved when
//! its condition is over, whatever else is going on.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::health::{Acknowledgement, Alert, AlertState, Severity};
use alicia_contract::id::{InstanceId, ServiceName};
use serde_json::Value;

use super::Now;
use super::conditions::{Condition, Key, Rule};

/// An episode that fires within this time after the last one shows a cause that is not mended.
const RECURRENCE: Duration = Duration::from_secs(60);

/// The longest that an alert is held after its condition is over.
const HOLD_MAX: Duration = Duration::from_secs(60);

/// The label that tells checks of one instance apart.
const CHECK_LABEL: &str = "check";

/// A change of an alert.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// As it is now.
    pub alert: Alert,
    /// Whether it is news: it fired, its cause changed, or it is over. Otherwise only the record changes.
    pub news: bool,
}

/// What holds for all conditions of a service at one look.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gate {
    /// The service that is the cause of what is wrong with this one.
    pub root: Option<ServiceName>,
    /// Whether it flaps.
    pub flapping: bool,
    /// Whether anything of it should run. If not, what it said before is over.
    pub wanted: bool,
    /// Its instances that should run, by name.
    pub instances: Vec<String>,
}

/// Every alert that fires, and what is remembered of those that did.
#[derive(Debug, Clone, PartialEq)]
pub struct Book {
    stable_after: Duration,
    firing: BTreeMap<Key, Episode>,
    memory: BTreeMap<Key, Memory>,
    held_back: BTreeMap<Key, String>,
    sequence: u128,
}

#[derive(Debug, Clone, PartialEq)]
struct Episode {
    alert: Alert,
    /// The last occurrence that was counted; none since a restart, which began to count anew.
    occurrence: Option<u32>,
    over_since: Option<Duration>,
    hold: Duration,
}

#[derive(Debug, Clone, PartialEq)]
struct Memory {
    occurrence: u32,
    /// When the last episode ended, and its hold.
    ended: Option<(Duration, Duration)>,
}

// === impl Book ===

impl Book {
    /// An empty book. `seed` makes the ids of two runs differ.
    #[must_use]
    pub fn new(stable_after: Duration, seed: u64) -> Self {
        Self {
            stable_after,
            firing: BTreeMap::new(),
            memory: BTreeMap::new(),
            held_back: BTreeMap::new(),
            sequence: u128::from(seed) << 16,
        }
    }

    /// Takes an alert that fired before a restart. One that cannot be understood is not taken.
    pub fn restore(&mut self, alert: Alert) {
        let Some(key) = key_of(&alert) else { return };
        let hold = self.hold_of(key.rule);
        let episode = Episode {
            alert,
            occurrence: None,
            over_since: None,
            hold,
        };
        self.firing.insert(key, episode);
    }

    /// Every alert that fires.
    pub fn firing(&self) -> impl Iterator<Item = &Alert> {
        self.firing.values().map(|episode| &episode.alert)
    }

    /// What would fire if it were not suppressed, and why it is.
    pub fn held_back(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.held_back.iter().map(|(key, why)| (key, why.as_str()))
    }

    /// Notes who has seen an alert. `None`: no such alert fires.
    pub fn acknowledge(&mut self, id: &str, by: Acknowledgement) -> Option<Change> {
        let mut alerts = self.firing.values_mut().map(|episode| &mut episode.alert);
        let alert = alerts.find(|alert| alert.id == id)?;
        alert.acknowledged = Some(by);
        Some(Change {
            alert: alert.clone(),
            news: true,
        })
    }

    /// Brings the alerts of a service in line with its conditions.
    pub fn reconcile(
        &mut self,
        service: &ServiceName,
        conditions: Vec<Condition>,
        gate: &Gate,
        now: Now,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        self.end_absent(service, &conditions, gate, now, &mut changes);
        for condition in conditions {
            if self.firing.contains_key(&condition.key) {
                self.go_on(condition, gate, now, &mut changes);
            } else {
                self.begin(condition, gate, now, &mut changes);
            }
        }
        changes
    }

    /// Ends what has no condition any more: at once when the instance was stopped, given up or is no more,
    /// and after the hold otherwise, for it may only have been restarted.
    fn end_absent(
        &mut self,
        service: &ServiceName,
        conditions: &[Condition],
        gate: &Gate,
        now: Now,
        changes: &mut Vec<Change>,
    ) {
        let absent = |key: &Key| {
            key.service == *service && !conditions.iter().any(|condition| condition.key == *key)
        };
        let over: Vec<Key> = self
            .firing
            .keys()
            .filter(|key| absent(key))
            .cloned()
            .collect();
        for key in over {
            self.look_whether_over(&key, gate.waits(&key), now, changes);
        }
        self.held_back.retain(|key, _| !absent(key));
        let firing = &self.firing;
        self.memory.retain(|key, memory| {
            !absent(key) || firing.contains_key(key) || memory.is_recent(now.mono)
        });
        for (key, memory) in &mut self.memory {
            if absent(key) {
                memory.occurrence = 0;
            }
        }
    }

    fn begin(&mut self, condition: Condition, gate: &Gate, now: Now, changes: &mut Vec<Change>) {
        let seen = self
            .memory
            .get(&condition.key)
            .map_or(0, |memory| memory.occurrence);
        if !condition.active && condition.occurrence <= seen {
            self.held_back.remove(&condition.key);
            return;
        }
        if let Some(why) = gate.holds_back(condition.key.rule) {
            self.remember(&condition);
            self.held_back.insert(condition.key, why);
            return;
        }
        self.held_back.remove(&condition.key);
        let episode = self.episode(&condition, now);
        changes.push(Change {
            alert: episode.alert.clone(),
            news: true,
        });
        self.remember(&condition);
        self.firing.insert(condition.key, episode);
    }

    fn episode(&mut self, condition: &Condition, now: Now) -> Episode {
        self.sequence += 1;
        let hold = self.hold_of(condition.key.rule);
        let ended = self
            .memory
            .get(&condition.key)
            .and_then(|memory| memory.ended);
        let hold = match ended {
            Some((at, held)) if now.mono.saturating_sub(at) < RECURRENCE => {
                (held * 2).min(HOLD_MAX)
            }
            _ => hold,
        };
        Episode {
            alert: alert_of(condition, id_at(now, self.sequence), now),
            occurrence: Some(condition.occurrence),
            over_since: (!condition.active).then_some(now.mono),
            hold,
        }
    }

    /// What is final or has thresholds of its own needs no hold.
    fn hold_of(&self, rule: Rule) -> Duration {
        match rule {
            Rule::CrashLoop | Rule::Flapping => Duration::ZERO,
            Rule::ServiceDown | Rule::Restarted | Rule::CheckFailed | Rule::HeartbeatLost => {
                self.stable_after
            }
        }
    }

    fn remember(&mut self, condition: &Condition) {
        let memory = self.memory.entry(condition.key.clone()).or_insert(Memory {
            occurrence: 0,
            ended: None,
        });
        memory.occurrence = condition.occurrence;
    }

    fn go_on(&mut self, condition: Condition, gate: &Gate, now: Now, changes: &mut Vec<Change>) {
        let episode = self
            .firing
            .get_mut(&condition.key)
            .expect("the caller looked");
        if let Some(change) = episode.update(&condition, gate.flapping, now) {
            changes.push(change);
        }
        self.remember(&condition);
        if !condition.active {
            self.look_whether_over(&condition.key, true, now, changes);
        }
    }

    fn look_whether_over(&mut self, key: &Key, waits: bool, now: Now, changes: &mut Vec<Change>) {
        let Some(episode) = self.firing.get_mut(key) else {
            return;
        };
        let since = *episode.over_since.get_or_insert(now.mono);
        if waits && now.mono.saturating_sub(since) < episode.hold {
            return;
        }
        let Some(mut episode) = self.firing.remove(key) else {
            return;
        };
        episode.alert.state = AlertState::Resolved;
        episode.alert.ended = Some(now.unix);
        if let Some(memory) = self.memory.get_mut(key) {
            memory.ended = Some((now.mono, episode.hold.max(self.stable_after)));
        }
        changes.push(Change {
            alert: episode.alert,
            news: true,
        });
    }
}

// === impl Gate ===

impl Gate {
    /// Whether what an alert is about should still run.
    fn waits(&self, key: &Key) -> bool {
        match &key.instance {
            Some(instance) => self.instances.contains(instance),
            None => self.wanted,
        }
    }

    /// Why no new alert of this rule is made.
    fn holds_back(&self, rule: Rule) -> Option<String> {
        if let Some(root) = &self.root {
            return Some(format!("{root}, which it depends on, is the cause"));
        }
        let told = matches!(rule, Rule::Flapping | Rule::CrashLoop);
        (self.flapping && !told).then(|| "it is flapping, which is told already".to_owned())
    }
}

// === impl Memory ===

impl Memory {
    fn is_recent(&self, now: Duration) -> bool {
        self.ended
            .is_some_and(|(at, _)| now.saturating_sub(at) < RECURRENCE)
    }
}

// === impl Episode ===

impl Episode {
    /// Takes what changed. A repetition raises the count and is no news; another cause is.
    fn update(&mut self, condition: &Condition, flapping: bool, now: Now) -> Option<Change> {
        let counted = self.occurrence.replace(condition.occurrence);
        let again = condition
            .occurrence
            .saturating_sub(counted.unwrap_or(condition.occurrence));
        let alert = &mut self.alert;
        let before = alert.clone();
        alert.count = alert.count.saturating_add(again);
        if condition.active {
            self.over_since = None;
        } else if again > 0 {
            self.over_since = Some(now.mono);
        }
        let first_lines = alert.last_lines.is_empty() && !condition.last_lines.is_empty();
        let worse = condition.severity != alert.severity;
        let other_cause = again > 0 && condition.detail != alert.detail;
        if worse || again > 0 || first_lines {
            alert.severity = condition.severity;
            alert.summary.clone_from(&condition.summary);
            alert.detail.clone_from(&condition.detail);
            alert.suggestion.clone_from(&condition.suggestion);
            alert.last_lines.clone_from(&condition.last_lines);
        }
        let news = !flapping && (worse || other_cause || first_lines);
        (*alert != before).then(|| Change {
            alert: alert.clone(),
            news,
        })
    }
}

fn alert_of(condition: &Condition, id: String, now: Now) -> Alert {
    let key = &condition.key;
    let labels = key
        .check
        .iter()
        .map(|check| (CHECK_LABEL.to_owned(), Value::from(check.as_str())))
        .collect();
    Alert {
        id,
        rule: key.rule.as_str().to_owned(),
        severity: condition.severity,
        state: AlertState::Firing,
        service: key.service.clone(),
        instance: key.instance.clone(),
        summary: condition.summary.clone(),
        detail: condition.detail.clone(),
        last_lines: condition.last_lines.clone(),
        suggestion: condition.suggestion.clone(),
        started: now.unix,
        ended: None,
        count: 1,
        labels,
        acknowledged: None,
    }
}

/// The key of an alert as it was written.
fn key_of(alert: &Alert) -> Option<Key> {
    let check = alert.labels.get(CHECK_LABEL).and_then(Value::as_str);
    Some(Key {
        rule: Rule::from_name(&alert.rule)?,
        service: alert.service.clone(),
        instance: alert.instance.clone(),
        check: check.map(str::to_owned),
    })
}

/// Ids sort by time, and count up within a millisecond.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a wall clock before 1970 becomes 0, and 2^64 ms are far away"
)]
fn id_at(now: Now, sequence: u128) -> String {
    InstanceId::from_parts((now.unix * 1e3).max(0.0) as u64, sequence).to_string()
}

/// How many alerts fire, by severity.
#[must_use]
pub fn count_by_severity(book: &Book) -> [(Severity, u32); 3] {
    let count = |severity: Severity| {
        let firing = book.firing().filter(|alert| alert.severity == severity);
        (severity, u32::try_from(firing.count()).unwrap_or(u32::MAX))
    };
    [
        count(Severity::Info),
        count(Severity::Warning),
        count(Severity::Critical),
    ]
}
