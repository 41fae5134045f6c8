//! What is wrong according to somebody else: alerts from outside, notifications that cannot be delivered,
//! restarts that did not help. It holds until it is said to be over, or, where it was told with a time, until
//! that is over and nobody told it again.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::health::Alert;

use super::Now;
use super::alerts::key_of;
use super::conditions::{Condition, Key, Rule};

/// How long an alert from outside holds after a restart unless it is told again: what Alertmanager calls
/// `resolve_timeout`, with its default.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(300);

/// Most that is kept; more is not taken. Each is an alert, and nobody reads ten thousand.
const TOLD_MAX: usize = 10_000;

/// What was told and holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    entries: BTreeMap<Key, Entry>,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    condition: Condition,
    until: Option<Duration>,
}

// === impl Told ===

impl Told {
    /// Takes what is told, for this long unless it is told again; none: until it is said to be over. `false`: there
    /// is too much already.
    pub fn tell(&mut self, condition: Condition, holds: Option<Duration>, now: Now) -> bool {
        if self.entries.len() >= TOLD_MAX && !self.entries.contains_key(&condition.key) {
            return false;
        }
        let until = holds.map(|holds| now.mono.saturating_add(holds));
        let entry = Entry { condition, until };
        self.entries.insert(entry.condition.key.clone(), entry);
        true
    }

    /// It is over.
    pub fn untell(&mut self, key: &Key) {
        self.entries.remove(key);
    }

    /// Drops what was not told again in time.
    pub fn expire(&mut self, now: Now) {
        self.entries
            .retain(|_, entry| entry.until.is_none_or(|until| until > now.mono));
    }

    /// All that holds.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.entries.values().map(|entry| &entry.condition)
    }

    /// Takes an alert that fired before a restart, if it is one of these.
    pub fn restore(&mut self, alert: &Alert, now: Now) {
        let Some(key) = key_of(alert).filter(|key| !key.rule.is_watched()) else {
            return;
        };
        let holds = (key.rule == Rule::External).then_some(RESOLVE_TIMEOUT);
        let condition = Condition {
            key,
            active: true,
            occurrence: 0,
            severity: alert.severity,
            summary: alert.summary.clone(),
            detail: alert.detail.clone(),
            last_lines: Vec::new(),
            suggestion: alert.suggestion.clone(),
            labels: alert.labels.clone(),
        };
        let _there_is_room = self.tell(condition, holds, now);
    }
}
