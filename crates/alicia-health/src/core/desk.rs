//! The desk: who is notified of which alerts, when. Pure: `(state, event, now) -> actions`.
//!
//! ```text
//!  changes of alerts ──▶ what fires ──▶ per channel: fits? ─▶ groups ─▶ muted? ripe? said before? ──▶ drafts
//!                                              silences, windows, inhibition, causes ┘
//!                                              nobody took note ─▶ escalation ───────────────────────▶ drafts
//! ```
//!
//! What was said of a group is stored with the draft, before anything is sent: after a crash the same is not
//! said twice, and what is over is still said to be over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::fleet::Fleet;
use alicia_contract::health::{
    Alert, AlertState, DeliveryState, Mute, MuteKind, Notification, Severity,
};
use alicia_contract::id::ServiceName;

use super::Now;
use super::alerts::id_at;
use super::escalate::{Climb, Policy};
use super::group::{Manner, Member, Reason, Route, Said, Verdict, key_of};
use super::maintenance::Windows;
use super::matcher::{Compiled, Labels, all_hold, labels_of};
use super::silence::Silences;

/// A tick that comes later than this shows that the desk was held up: the machine slept, or was overloaded.
const STALL: Duration = Duration::from_secs(3);

/// How long nothing is said after the desk was held up: what fires may be over, and the monitor needs its
/// time to find that out.
const SETTLE: Duration = Duration::from_secs(10);

/// Most alerts that one notification carries; the summary counts the others.
pub const ALERTS_IN_NOTIFICATION_MAX: usize = 100;

/// A rule of inhibition: an alert for which `target` holds is not told while one fires for which `source` holds,
/// where the labels `equal` are the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Inhibition {
    /// The alert that says enough.
    pub source: Vec<Compiled>,
    /// The alert that adds nothing.
    pub target: Vec<Compiled>,
    /// The labels that must be the same.
    pub equal: Vec<String>,
}

/// What the file says of notifications.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// A route for each channel.
    pub routes: Vec<Route>,
    /// Who is told when nobody takes note.
    pub policies: Vec<Policy>,
    /// What adds nothing to something else.
    pub inhibitions: Vec<Inhibition>,
    /// How alerts are put together for escalation.
    pub group_by: Vec<String>,
}

/// A notification that is to be stored and sent, and what was said with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// What it is.
    pub notification: Notification,
    /// The alerts in it, the worst first, then those that are over.
    pub alerts: Vec<Alert>,
    /// What is remembered of the group from now on; none: it is forgotten.
    pub said: Option<Said>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Store and send.
    Send(Box<Draft>),
    /// Forget what was said of a group, of a channel.
    Forget(String, String),
    /// Store how far the escalation of a group has come; none: forget it. With the key of the policy.
    Climb(String, String, Option<Climb>),
}

/// The desk.
#[derive(Debug)]
pub struct Desk {
    rules: Rules,
    fleet: Arc<Fleet>,
    /// Alerts that fire, and those that are over and were said to fire.
    alerts: BTreeMap<String, Known>,
    said: BTreeMap<(String, String), (Said, Since)>,
    climbs: BTreeMap<(String, String), (Climb, Since)>,
    /// Of each rule of inhibition: the alerts that say enough, by the labels that must be the same.
    enough: Vec<BTreeMap<Vec<String>, Enough>>,
    /// Whether `enough` is older than the alerts.
    is_stale: bool,
    /// Silences.
    pub silences: Silences,
    /// Maintenance windows.
    pub windows: Windows,
    ticked: Option<Now>,
    /// Nothing is said before.
    quiet_until: Duration,
    sequence: u128,
}

/// A moment in the past, for waits: monotonic, so that a clock that is set changes no wait; with what had passed
/// before a restart.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Since {
    at: Duration,
    before: Duration,
}

impl Since {
    fn now(now: Now) -> Self {
        Self {
            at: now.mono,
            before: Duration::ZERO,
        }
    }

    /// A moment that was stored with wall time. A clock that was set back makes it recent.
    fn stored(at: f64, now: Now) -> Self {
        Self {
            at: now.mono,
            before: Duration::try_from_secs_f64(now.unix - at).unwrap_or(Duration::ZERO),
        }
    }

    fn elapsed(self, now: Now) -> Duration {
        self.before.saturating_add(now.mono.saturating_sub(self.at))
    }
}

/// An alert that says enough.
#[derive(Debug, Clone)]
struct Enough {
    id: String,
    why: String,
}

#[derive(Debug, Clone)]
struct Known {
    alert: Alert,
    /// When it was first seen.
    seen: Duration,
}

// === impl Desk ===

impl Desk {
    /// A desk that knows no alerts. `seed` makes the ids of two runs differ.
    #[must_use]
    pub fn new(rules: Rules, seed: u64) -> Self {
        Self {
            rules,
            fleet: Arc::default(),
            alerts: BTreeMap::new(),
            said: BTreeMap::new(),
            climbs: BTreeMap::new(),
            enough: Vec::new(),
            is_stale: true,
            silences: Silences::default(),
            windows: Windows::default(),
            ticked: None,
            quiet_until: Duration::ZERO,
            sequence: u128::from(!seed) << 16,
        }
    }

    /// Takes what was said of a group before a restart. Of a channel that is no more it is dropped.
    pub fn restore_said(&mut self, key: (String, String), said: Said, now: Now) -> bool {
        let known = self.rules.routes.iter().any(|route| route.channel == key.0);
        if known {
            let since = Since::stored(said.at, now);
            self.said.insert(key, (said, since));
        }
        known
    }

    /// Takes how far an escalation had come before a restart. Of a policy that is no more it is dropped.
    pub fn restore_climb(&mut self, key: (String, String), climb: Climb, now: Now) -> bool {
        let known = self.rules.policies.iter().any(|policy| policy.key == key.0);
        if known {
            let since = Since::stored(climb.since, now);
            self.climbs.insert(key, (climb, since));
        }
        known
    }

    /// The ids of all alerts that were said to fire.
    pub fn said_ids(&self) -> BTreeSet<String> {
        let said = self.said.values();
        said.flat_map(|(said, _)| said.firing.iter().cloned())
            .collect()
    }

    /// What should run: what depends on what, and the labels of services.
    pub fn set_fleet(&mut self, fleet: Arc<Fleet>) {
        self.fleet = fleet;
        self.is_stale = true;
    }

    /// The first of these names that is neither a service nor a group.
    #[must_use]
    pub fn unknown<'n>(&self, names: &'n [ServiceName]) -> Option<&'n ServiceName> {
        let services = &self.fleet.services;
        let is_group =
            |name: &ServiceName| services.values().any(|spec| spec.groups.contains(name));
        names
            .iter()
            .find(|name| !services.contains_key(*name) && !is_group(name))
    }

    /// Takes an alert as it is now.
    pub fn take(&mut self, alert: Alert, now: Now) {
        let seen = self
            .alerts
            .get(&alert.id)
            .map_or(now.mono, |known| known.seen);
        self.alerts.insert(alert.id.clone(), Known { alert, seen });
        self.is_stale = true;
    }

    /// A new id for something that is made now.
    pub fn next_id(&mut self, now: Now) -> String {
        self.sequence += 1;
        id_at(now, self.sequence)
    }

    /// A new id for a silence. Clients of Alertmanager want a UUID; this one sorts by time (RFC 9562, version 7).
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a wall clock before 1970 becomes 0, and 2^48 ms are far away"
    )]
    pub fn next_uuid(&mut self, now: Now) -> String {
        self.sequence += 1;
        let ms = (now.unix * 1e3).max(0.0) as u64 & 0xffff_ffff_ffff;
        let [high, middle, low] = [self.sequence >> 60, self.sequence >> 48, self.sequence];
        format!(
            "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
            ms >> 16,
            ms & 0xffff,
            high & 0xfff,
            middle & 0xfff,
            low & 0xffff_ffff_ffff
        )
    }

    /// Why nobody is notified of an alert.
    #[must_use]
    pub fn mutes(&self, alert: &Alert, now: Now) -> Vec<Mute> {
        if alert.state == AlertState::Resolved {
            return Vec::new();
        }
        self.mutes_of(alert, &labels_of(alert, &self.fleet), now)
    }

    fn mutes_of(&self, alert: &Alert, labels: &Labels, now: Now) -> Vec<Mute> {
        let mut mutes = Vec::new();
        if let Some(cause) = &alert.cause {
            mutes.push(Mute {
                by: MuteKind::Dependency,
                id: cause.to_string(),
                why: format!("{cause}, which {} depends on, is the cause", alert.service),
            });
        }
        if let Some(window) = self.windows.of(&alert.service, &self.fleet, now.unix) {
            mutes.push(Mute {
                by: MuteKind::Maintenance,
                id: window.id.clone(),
                why: reason("in maintenance", &window.by, &window.comment),
            });
        }
        if let Some(silence) = self.silences.of(labels, now.unix) {
            mutes.push(Mute {
                by: MuteKind::Silence,
                id: silence.id.clone(),
                why: reason("silenced", &silence.by, &silence.comment),
            });
        }
        if let Some(other) = self.inhibited_by(labels) {
            mutes.push(Mute {
                by: MuteKind::Inhibition,
                id: other.id.clone(),
                why: other.why.clone(),
            });
        }
        mutes
    }

    /// The alert that makes one with these labels superfluous. One that is a source of the rule itself is not
    /// inhibited by its like.
    fn inhibited_by(&self, labels: &Labels) -> Option<&Enough> {
        let rules = self.rules.inhibitions.iter().zip(&self.enough);
        let mut rules = rules
            .filter(|(rule, _)| all_hold(&rule.target, labels) && !all_hold(&rule.source, labels));
        rules.find_map(|(rule, enough)| enough.get(&values(&rule.equal, labels)))
    }

    /// Finds the alerts that say enough. One of which the cause is elsewhere says nothing itself.
    fn refresh_enough(&mut self) {
        if !self.is_stale {
            return;
        }
        self.is_stale = false;
        let mut found = vec![BTreeMap::new(); self.rules.inhibitions.len()];
        for (alert, _) in self.firing().filter(|(alert, _)| alert.cause.is_none()) {
            let labels = labels_of(alert, &self.fleet);
            for (rule, enough) in self.rules.inhibitions.iter().zip(&mut found) {
                if all_hold(&rule.source, &labels) {
                    let other = || Enough {
                        id: alert.id.clone(),
                        why: format!("{} ({}) says enough", alert.summary, alert.rule),
                    };
                    let same = values(&rule.equal, &labels);
                    enough.entry(same).or_insert_with(other);
                }
            }
        }
        self.enough = found;
    }

    fn firing(&self) -> impl Iterator<Item = (&Alert, Duration)> {
        self.alerts
            .values()
            .filter(|known| known.alert.state == AlertState::Firing)
            .map(|known| (&known.alert, known.seen))
    }

    /// Lets time pass: decides what is to be said now.
    pub fn tick(&mut self, now: Now) -> Vec<Order> {
        if self.ticked.is_some_and(|last| gap(last, now) > STALL) {
            self.quiet_until = now.mono + SETTLE;
        }
        self.ticked = Some(now);
        self.refresh_enough();
        if now.mono < self.quiet_until {
            return Vec::new();
        }
        self.silences.forget(now.unix);
        self.windows.refresh(now.unix);
        let seen = self.look_at_all(now);
        let mut orders = Vec::new();
        self.tell_groups(&seen, now, &mut orders);
        self.escalate(&seen, now, &mut orders);
        self.forget_over();
        orders
    }

    fn look_at_all(&self, now: Now) -> Vec<Seen> {
        let depends = |alert: &Alert| {
            let spec = self.fleet.services.get(&alert.service);
            spec.is_some_and(|spec| !spec.depends_on.is_empty())
        };
        let firing = self.firing().map(|(alert, seen)| {
            let labels = labels_of(alert, &self.fleet);
            Seen {
                muted: !self.mutes_of(alert, &labels, now).is_empty(),
                age: now.mono.saturating_sub(seen),
                depends: depends(alert),
                alert: alert.clone(),
                labels,
            }
        });
        firing.collect()
    }

    fn tell_groups(&mut self, seen: &[Seen], now: Now, orders: &mut Vec<Order>) {
        let routes = std::mem::take(&mut self.rules.routes);
        for route in &routes {
            let groups = self.groups_of(route, seen);
            for (group, members) in groups {
                let key = (route.channel.clone(), group);
                let said = self.said.get(&key);
                let elapsed = said.map(|(said, since)| (said, since.elapsed(now)));
                match route.look(&members, elapsed) {
                    Verdict::Rest => {}
                    Verdict::Forget => {
                        if self.said.remove(&key).is_some() {
                            orders.push(Order::Forget(key.0, key.1));
                        }
                    }
                    Verdict::Tell(reason, ids) => {
                        let draft = self.draft(key, &members, (reason, ids), now);
                        orders.push(Order::Send(Box::new(draft)));
                    }
                }
            }
        }
        self.rules.routes = routes;
    }

    /// The groups of a channel: those of which something was said, and those of what fires. An alert stays in
    /// the group in which it was told.
    fn groups_of<'s>(&self, route: &Route, seen: &'s [Seen]) -> BTreeMap<String, Vec<Member<'s>>> {
        let mut groups: BTreeMap<String, Vec<Member<'_>>> = BTreeMap::new();
        let mut told: BTreeMap<&str, &str> = BTreeMap::new();
        for ((channel, group), (said, _)) in &self.said {
            if *channel == route.channel {
                groups.entry(group.clone()).or_default();
                told.extend(said.firing.iter().map(|id| (id.as_str(), group.as_str())));
            }
        }
        for seen in seen {
            let told = told.get(seen.alert.id.as_str());
            if told.is_some() || route.takes(seen.alert.severity, &seen.labels) {
                let cause = seen.alert.cause.as_ref().map(|cause| cause.as_str());
                let group = told.map_or_else(
                    || key_of(&route.group_by, &seen.labels, cause),
                    |group| (*group).to_owned(),
                );
                groups.entry(group).or_default().push(seen.member());
            }
        }
        groups
    }

    /// Writes a notification, and notes that it was said.
    fn draft(
        &mut self,
        key: (String, String),
        members: &[Member<'_>],
        (reason, ids): (Reason, BTreeSet<String>),
        now: Now,
    ) -> Draft {
        let before = self.said.remove(&key).map(|(said, _)| said);
        let named = members
            .iter()
            .filter(|member| ids.contains(&member.alert.id));
        let mut alerts: Vec<Alert> = named.map(|member| member.alert.clone()).collect();
        alerts.sort_by(|a, b| (b.severity.cmp(&a.severity)).then(a.started.total_cmp(&b.started)));
        let worst = alerts.first().map(|alert| alert.severity);
        let firing = alerts.len();
        let over = before
            .iter()
            .flat_map(|said| &said.firing)
            .filter_map(|id| {
                let alert = &self.alerts.get(id)?.alert;
                (alert.state == AlertState::Resolved).then(|| alert.clone())
            });
        alerts.extend(over);
        let resolved = alerts.len() - firing;
        let severity = worst
            .or_else(|| before.as_ref().map(|said| said.severity))
            .unwrap_or(Severity::Info);
        let summary = summary(&alerts, firing);
        alerts.truncate(ALERTS_IN_NOTIFICATION_MAX);
        // What is muted now and was told before is still to be told as over.
        let muted = before.iter().flat_map(|said| &said.firing).filter(|id| {
            members
                .iter()
                .any(|member| member.muted && member.alert.id == **id)
        });
        let firing_ids: BTreeSet<String> = ids.iter().chain(muted).cloned().collect();
        let said = (!firing_ids.is_empty()).then_some(Said {
            at: now.unix,
            firing: firing_ids,
            severity,
        });
        if let Some(said) = &said {
            let entry = (said.clone(), Since::now(now));
            self.said.insert(key.clone(), entry);
        }
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Draft {
            notification: Notification {
                id: self.next_id(now),
                channel: key.0,
                group: key.1,
                state: if ids.is_empty() {
                    AlertState::Resolved
                } else {
                    AlertState::Firing
                },
                severity,
                summary,
                firing: count(firing),
                resolved: count(resolved),
                reason: reason.as_str().to_owned(),
                created: now.unix,
                delivery: DeliveryState::Waiting,
                attempts: 0,
                next_try: Some(now.unix),
                done: None,
                error: None,
            },
            alerts,
            said,
        }
    }

    fn escalate(&mut self, seen: &[Seen], now: Now, orders: &mut Vec<Order>) {
        let policies = std::mem::take(&mut self.rules.policies);
        for policy in &policies {
            let mut groups: BTreeMap<String, Vec<Member<'_>>> = BTreeMap::new();
            for seen in seen.iter().filter(|seen| !seen.muted) {
                if all_hold(&policy.matchers, &seen.labels) {
                    let cause = seen.alert.cause.as_ref().map(|cause| cause.as_str());
                    let group = key_of(&self.rules.group_by, &seen.labels, cause);
                    groups.entry(group).or_default().push(seen.member());
                }
            }
            let unnoted = |members: &Vec<Member<'_>>| {
                let noted = |member: &Member<'_>| member.alert.acknowledged.is_some();
                !members.iter().all(noted)
            };
            let goes_on = |group: &String| groups.get(group).is_some_and(unnoted);
            self.drop_climbs(&policy.key, goes_on, orders);
            for (group, members) in groups.into_iter().filter(|(_, of)| unnoted(of)) {
                self.climb(policy, group, &members, now, orders);
            }
        }
        self.rules.policies = policies;
    }

    /// Forgets how far groups have come that are over, or of which somebody took note.
    fn drop_climbs(
        &mut self,
        policy: &str,
        goes_on: impl Fn(&String) -> bool,
        orders: &mut Vec<Order>,
    ) {
        self.climbs.retain(|(of, group), _| {
            let keep = of != policy || goes_on(group);
            if !keep {
                orders.push(Order::Climb(of.clone(), group.clone(), None));
            }
            keep
        });
    }

    fn climb(
        &mut self,
        policy: &Policy,
        group: String,
        members: &[Member<'_>],
        now: Now,
        orders: &mut Vec<Order>,
    ) {
        let key = (policy.key.clone(), group);
        let is_new = !self.climbs.contains_key(&key);
        let start = Climb {
            since: now.unix,
            done: 0,
        };
        let entry = self.climbs.entry(key.clone());
        let (climb, since) = entry.or_insert((start, Since::now(now)));
        let due = policy.due(*climb, since.elapsed(now));
        climb.done += due.len();
        if is_new || !due.is_empty() {
            orders.push(Order::Climb(key.0, key.1.clone(), Some(*climb)));
        }
        for step in due {
            for channel in &step.channels {
                let ids = members
                    .iter()
                    .map(|member| member.alert.id.clone())
                    .collect();
                let key = (channel.clone(), key.1.clone());
                let mut draft = self.draft(key, members, (Reason::Escalation, ids), now);
                let severity = draft.notification.severity;
                draft.notification.severity = step.severity.unwrap_or(severity).max(severity);
                orders.push(Order::Send(Box::new(draft)));
            }
        }
    }

    /// Alerts that are over are kept only while a group still has to be told so.
    fn forget_over(&mut self) {
        let said = self.said_ids();
        self.alerts
            .retain(|id, known| known.alert.state == AlertState::Firing || said.contains(id));
    }

    /// A notification that only shows that a channel works.
    pub fn test(&mut self, channel: &str, by: &str, now: Now) -> Option<Draft> {
        let known = self
            .rules
            .routes
            .iter()
            .any(|route| route.channel == channel);
        known.then(|| Draft {
            notification: Notification {
                id: self.next_id(now),
                channel: channel.to_owned(),
                group: "test".to_owned(),
                state: AlertState::Firing,
                severity: Severity::Info,
                summary: format!("this is a test of the channel {channel}, asked for by {by}"),
                firing: 0,
                resolved: 0,
                reason: Reason::Test.as_str().to_owned(),
                created: now.unix,
                delivery: DeliveryState::Waiting,
                attempts: 0,
                next_try: Some(now.unix),
                done: None,
                error: None,
            },
            alerts: Vec::new(),
            said: None,
        })
    }

    /// The channels that an alert goes to.
    #[must_use]
    pub fn receivers(&self, alert: &Alert) -> Vec<String> {
        let labels = labels_of(alert, &self.fleet);
        let routes = self.rules.routes.iter();
        let takes = |route: &&Route| {
            route.manner != Manner::Escalation && route.takes(alert.severity, &labels)
        };
        routes
            .filter(takes)
            .map(|route| route.channel.clone())
            .collect()
    }

    /// The labels by which alerts are put together unless a channel has its own.
    #[must_use]
    pub fn group_by(&self) -> &[String] {
        &self.rules.group_by
    }
}

/// An alert that fires, as it is looked at in one tick.
struct Seen {
    alert: Alert,
    labels: Labels,
    muted: bool,
    age: Duration,
    depends: bool,
}

impl Seen {
    fn member(&self) -> Member<'_> {
        Member {
            alert: &self.alert,
            muted: self.muted,
            age: self.age,
            depends: self.depends,
        }
    }
}

/// How long the last tick is ago, on the clock that says more, as the monitor judges itself.
fn gap(last: Now, now: Now) -> Duration {
    let wall = Duration::try_from_secs_f64((now.unix - last.unix).abs()).unwrap_or(Duration::MAX);
    now.mono.saturating_sub(last.mono).max(wall)
}

/// The values of some labels.
fn values(names: &[String], labels: &Labels) -> Vec<String> {
    let value = |name: &String| labels.get(name).cloned().unwrap_or_default();
    names.iter().map(value).collect()
}

fn reason(what: &str, by: &str, comment: &str) -> String {
    if comment.is_empty() {
        format!("{what} by {by}")
    } else {
        format!("{what} by {by}: {comment}")
    }
}

/// One line: the first alert, and how many more there are.
fn summary(alerts: &[Alert], firing: usize) -> String {
    let (shown, prefix) = if firing > 0 {
        (&alerts[..firing], "")
    } else {
        (alerts, "over: ")
    };
    let Some(first) = shown.first() else {
        return "over".to_owned();
    };
    match shown.len() - 1 {
        0 => format!("{prefix}{}", first.summary),
        more => format!("{prefix}{} (and {more} more)", first.summary),
    }
}

#[cfg(test)]
mod tests;
