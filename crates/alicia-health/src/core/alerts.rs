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

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alicia_contract::health::{Acknowledgement, Alert, AlertState, HeldBack, Severity};
use alicia_contract::id::{InstanceId, ServiceName};
use serde_json::Value;

use super::Now;
use super::conditions::{Condition, Key, Rule};
use super::suppress::Root;

/// An episode that fires within this time after the last one shows a cause that is not mended.
const RECURRENCE: Duration = Duration::from_secs(60);

/// The longest that an alert is held after its condition is over.
const HOLD_MAX: Duration = Duration::from_secs(60);

/// The label that tells checks of one instance apart.
const CHECK_LABEL: &str = "check";

/// The label that tells alerts from outside apart.
pub const FINGERPRINT_LABEL: &str = "fingerprint";

/// A change of an alert.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// As it is now.
    pub alert: Alert,
    /// Whether it is news: it fired, its cause changed, or it is over. Otherwise only the record changes.
    pub news: bool,
}

impl Change {
    fn and_news(mut self, news: bool) -> Self {
        self.news |= news;
        self
    }
}

/// What holds for all conditions of a service at one look.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gate {
    /// The service that is the cause of what is wrong with this one.
    pub root: Option<Root>,
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
    hold_back: Duration,
    firing: BTreeMap<Key, Episode>,
    memory: BTreeMap<Key, Memory>,
    held_back: BTreeMap<Key, HeldBack>,
    sequence: u128,
}

#[derive(Debug, Clone, PartialEq)]
struct Episode {
    alert: Alert,
    /// The last occurrence that was counted; none since a restart, which began to count anew.
    occurrence: Option<u32>,
    over_since: Option<Duration>,
    hold: Duration,
    /// When it fired, for waits; none: before a restart.
    began: Option<Duration>,
    /// Since when the root that it is blamed on is bad no more.
    cause_gone: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq)]
struct Memory {
    occurrence: u32,
    /// When the last episode ended, and its hold.
    ended: Option<(Duration, Duration)>,
}

// === impl Book ===

impl Book {
    /// An empty book. `seed` makes the ids of two runs differ. A root that is found at most `hold_back` after
    /// an alert of what depends on it is the cause of that one too.
    #[must_use]
    pub fn new(stable_after: Duration, hold_back: Duration, seed: u64) -> Self {
        Self {
            stable_after,
            hold_back,
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
            began: None,
            cause_gone: None,
        };
        self.firing.insert(key, episode);
    }

    /// Every alert that fires.
    pub fn firing(&self) -> impl Iterator<Item = &Alert> {
        self.firing.values().map(|episode| &episode.alert)
    }

    /// What would fire if it were not suppressed, and why it is.
    pub fn held_back(&self) -> impl Iterator<Item = &HeldBack> {
        self.held_back.values()
    }

    /// Notes who has seen an alert, or takes it back. `None`: no such alert fires.
    pub fn acknowledge(&mut self, id: &str, by: Option<Acknowledgement>) -> Option<Change> {
        let mut alerts = self.firing.values_mut().map(|episode| &mut episode.alert);
        let alert = alerts.find(|alert| alert.id == id)?;
        alert.acknowledged = by;
        Some(Change {
            alert: alert.clone(),
            news: true,
        })
    }

    /// Ends acknowledgements whose time is over.
    pub fn expire_acknowledgements(&mut self, now: Now) -> Vec<Change> {
        let over = |alert: &Alert| {
            let until = alert.acknowledged.as_ref().and_then(|by| by.until);
            until.is_some_and(|until| until <= now.unix)
        };
        let alerts = self.firing.values_mut().map(|episode| &mut episode.alert);
        alerts
            .filter(|alert| over(alert))
            .map(|alert| {
                alert.acknowledged = None;
                Change {
                    alert: alert.clone(),
                    news: true,
                }
            })
            .collect()
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
            self.take(condition, gate, now, &mut changes);
        }
        changes
    }

    /// Brings in line what is told from elsewhere, of all services: it begins and ends as it is told.
    pub fn reconcile_told(&mut self, conditions: Vec<(Condition, Gate)>, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        let told: BTreeSet<Key> = conditions.iter().map(|(of, _)| of.key.clone()).collect();
        let firing = self.firing.keys();
        let kept = firing
            .chain(self.held_back.keys())
            .chain(self.memory.keys());
        let is_over = |key: &&Key| !key.rule.is_watched() && !told.contains(key);
        let over: BTreeSet<Key> = kept.filter(is_over).cloned().collect();
        for key in over {
            changes.extend(self.end_told(&key, now));
        }
        for (condition, gate) in conditions {
            self.take(condition, &gate, now, &mut changes);
        }
        changes
    }

    /// Takes one thing that is told from elsewhere.
    pub fn take_told(&mut self, condition: Condition, gate: &Gate, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        self.take(condition, gate, now, &mut changes);
        changes
    }

    /// Ends one thing that was told from elsewhere.
    pub fn end_told(&mut self, key: &Key, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        self.held_back.remove(key);
        self.memory.remove(key);
        self.look_whether_over(key, false, now, &mut changes);
        changes
    }

    /// Forgets what is remembered of services that are not watched any more and did not fire lately.
    pub fn forget(&mut self, is_watched: impl Fn(&ServiceName) -> bool, now: Now) {
        let firing = &self.firing;
        self.memory.retain(|key, memory| {
            firing.contains_key(key) || memory.is_recent(now.mono) || is_watched(&key.service)
        });
    }

    fn take(&mut self, condition: Condition, gate: &Gate, now: Now, changes: &mut Vec<Change>) {
        if self.firing.contains_key(&condition.key) {
            self.go_on(condition, gate, now, changes);
        } else {
            self.begin(condition, gate, now, changes);
        }
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
        let absent = |key: &&Key| {
            key.rule.is_watched() && !conditions.iter().any(|condition| condition.key == **key)
        };
        let over: Vec<Key> = of(&self.firing, service).filter(absent).cloned().collect();
        for key in over {
            self.look_whether_over(&key, gate.waits(&key), now, changes);
        }
        let held: Vec<Key> = of(&self.held_back, service)
            .filter(absent)
            .cloned()
            .collect();
        held.iter().for_each(|key| drop(self.held_back.remove(key)));
        let remembered: Vec<Key> = of(&self.memory, service).filter(absent).cloned().collect();
        for key in remembered {
            let fires = self.firing.contains_key(&key);
            match self.memory.get_mut(&key) {
                Some(memory) if fires || memory.is_recent(now.mono) => memory.occurrence = 0,
                _ => drop(self.memory.remove(&key)),
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
        if let Some((cause, why)) = gate.holds_back(condition.key.rule) {
            self.remember(&condition);
            let since = self.held_back.get(&condition.key).map(|held| held.since);
            let held = HeldBack {
                rule: condition.key.rule.as_str().to_owned(),
                severity: condition.severity,
                service: condition.key.service.clone(),
                instance: condition.key.instance.clone(),
                summary: condition.summary,
                cause,
                why,
                since: since.unwrap_or(now.unix),
            };
            self.held_back.insert(condition.key, held);
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
            began: Some(now.mono),
            cause_gone: None,
        }
    }

    /// What is final or has thresholds of its own needs no hold.
    fn hold_of(&self, rule: Rule) -> Duration {
        match rule {
            Rule::Flapping | Rule::RestartBreaker | Rule::DeliveryFailed | Rule::External => {
                Duration::ZERO
            }
            _ => self.stable_after,
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
        let blamed = episode.blame(gate.root.as_ref(), condition.active, self.hold_back, now);
        let change = episode.update(&condition, gate.flapping, now);
        if let Some(change) = change.map(|change| change.and_news(blamed)).or_else(|| {
            blamed.then(|| Change {
                alert: episode.alert.clone(),
                news: true,
            })
        }) {
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

/// What is kept of one service.
fn of<'m, T>(kept: &'m BTreeMap<Key, T>, service: &ServiceName) -> impl Iterator<Item = &'m Key> {
    let first = Key {
        service: service.clone(),
        rule: Rule::ALL[0],
        instance: None,
        check: None,
    };
    let service = service.clone();
    kept.range(first..)
        .map(|(key, _)| key)
        .take_while(move |key| key.service == service)
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

    /// Why no new alert of this rule is made, and the service that is the cause.
    fn holds_back(&self, rule: Rule) -> Option<(Option<ServiceName>, String)> {
        if let Some(root) = &self.root {
            return Some((Some(root.service.clone()), root.why()));
        }
        let told = matches!(rule, Rule::Flapping | Rule::CrashLoop) || !rule.is_watched();
        let why = || (None, "it is flapping, which is told already".to_owned());
        (self.flapping && !told).then(why)
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
    /// Takes note of a root that was found a moment after it fired. When the root is well again, what depends on it
    /// gets `hold_back` to recover too; what is over needs no other cause any more. `true`: the cause changed.
    fn blame(
        &mut self,
        root: Option<&Root>,
        is_active: bool,
        hold_back: Duration,
        now: Now,
    ) -> bool {
        let began = self.began;
        let late =
            |root: &&Root| began.is_some_and(|began| root.since.saturating_sub(began) <= hold_back);
        let before = self.alert.cause.clone();
        let cause = match (root, &before) {
            (Some(root), Some(_)) => Some(root.service.clone()),
            (root, None) => root.filter(late).map(|root| root.service.clone()),
            (None, Some(known)) => {
                let gone = *self.cause_gone.get_or_insert(now.mono);
                let patient = now.mono.saturating_sub(gone) < hold_back;
                (patient || !is_active).then(|| known.clone())
            }
        };
        if root.is_some() {
            self.cause_gone = None;
        }
        self.alert.cause = cause;
        self.alert.cause != before
    }

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
            alert.labels = labels_of(condition);
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
        labels: labels_of(condition),
        acknowledged: None,
        cause: None,
        muted: Vec::new(),
    }
}

/// What the parts of a key that are no field of an alert are called among its labels.
fn check_label(rule: Rule) -> &'static str {
    if rule == Rule::External {
        FINGERPRINT_LABEL
    } else {
        CHECK_LABEL
    }
}

fn labels_of(condition: &Condition) -> BTreeMap<String, Value> {
    let mut labels = condition.labels.clone();
    if let Some(check) = &condition.key.check {
        let name = check_label(condition.key.rule).to_owned();
        labels.insert(name, Value::from(check.as_str()));
    }
    labels
}

/// The key of an alert as it was written.
pub(super) fn key_of(alert: &Alert) -> Option<Key> {
    let rule = Rule::from_name(&alert.rule)?;
    let check = alert.labels.get(check_label(rule)).and_then(Value::as_str);
    Some(Key {
        rule,
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
pub(super) fn id_at(now: Now, sequence: u128) -> String {
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
