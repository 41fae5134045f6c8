//! Groups of alerts: what is told together, once, and when it is told again.
//!
//! ```text
//!             an alert that is ripe                 nothing of it fires any more
//!  (nothing) ───────────────────────▶ told ─────────────────────────────────────▶ told as over, forgotten
//!                                     │  ▲
//!                                     └──┘  more or worse: after `interval`; unchanged: after `repeat`
//! ```
//!
//! An alert is ripe a moment after it fired, so that what comes together is told together; one of a service
//! that depends on others waits longer, because one of those may turn out to be the cause.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alicia_contract::health::{Alert, Severity};
use alicia_contract::unit::UnixSeconds;
use serde::{Deserialize, Serialize};

use super::matcher::{Compiled, Labels, all_hold};

/// The waits of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// From an alert to its notification.
    pub wait: Duration,
    /// The same, of a service that depends on others.
    pub hold_back: Duration,
    /// From one notification of a group to the next, when something changed.
    pub interval: Duration,
    /// The same, when nothing changed.
    pub repeat: Duration,
}

impl Default for Waits {
    /// The first wait is as long as a service takes from its first crash to being given up or called down: one
    /// notification says it all.
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(15),
            hold_back: Duration::from_secs(20),
            interval: Duration::from_secs(60),
            repeat: Duration::from_secs(4 * 3_600),
        }
    }
}

/// How a channel is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manner {
    /// When a group begins, grows, gets worse, lasts, and is over.
    #[default]
    Person,
    /// The same, but not when it is over.
    PersonUntilOver,
    /// Each change, and again and again what fires: for a receiver that forgets what it is not told again.
    Mirror,
    /// Only by escalation.
    Escalation,
}

/// Which alerts go to a channel, and how they are put together.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The channel.
    pub channel: String,
    /// Only alerts that are at least so bad.
    pub min_severity: Severity,
    /// Only alerts for which all of these hold.
    pub matchers: Vec<Compiled>,
    /// The labels by which alerts are put together; none: all are.
    pub group_by: Vec<String>,
    /// The waits.
    pub waits: Waits,
    /// How.
    pub manner: Manner,
}

/// Why a group is told now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// For the first time.
    New,
    /// More fires, or something got worse.
    Changed,
    /// It lasts.
    Repeat,
    /// It is over.
    Resolved,
    /// Nobody took note of it.
    Escalation,
    /// Somebody tries the channel.
    Test,
}

impl Reason {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Repeat => "repeat",
            Self::Resolved => "resolved",
            Self::Escalation => "escalation",
            Self::Test => "test",
        }
    }
}

/// What was last told of a group; stored before it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// When.
    pub at: UnixSeconds,
    /// The ids of the alerts that fired.
    pub firing: BTreeSet<String>,
    /// The worst of them.
    pub severity: Severity,
}

/// An alert as a group sees it.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// The alert, which fires.
    pub alert: &'a Alert,
    /// Whether nobody is to be notified of it.
    pub muted: bool,
    /// For how long it has been known.
    pub age: Duration,
    /// Whether its service depends on others.
    pub depends: bool,
}

/// What is to be done about a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing now.
    Rest,
    /// It was never told, or is not to be told: forget it.
    Forget,
    /// Tell it, with these firing.
    Tell(Reason, BTreeSet<String>),
}

// === impl Route ===

impl Route {
    /// Whether an alert goes this way.
    #[must_use]
    pub fn takes(&self, severity: Severity, labels: &Labels) -> bool {
        severity >= self.min_severity && all_hold(&self.matchers, labels)
    }

    /// Decides on a group. `said`: what was last told of it, and for how long that has been so.
    #[must_use]
    pub fn look(&self, members: &[Member<'_>], said: Option<(&Said, Duration)>) -> Verdict {
        let ready = self.ready(members);
        match said {
            None if ready.is_empty() && !members.iter().any(|member| !member.muted) => {
                Verdict::Forget
            }
            None if self.manner == Manner::Escalation || ready.is_empty() => Verdict::Rest,
            None => Verdict::Tell(Reason::New, ready),
            Some((said, elapsed)) => self.look_again(members, ready, said, elapsed),
        }
    }

    fn look_again(
        &self,
        members: &[Member<'_>],
        ready: BTreeSet<String>,
        said: &Said,
        elapsed: Duration,
    ) -> Verdict {
        let fires = |id: &String| members.iter().any(|member| member.alert.id == *id);
        let gone = said.firing.iter().filter(|id| !fires(id)).count();
        let rested = elapsed >= self.waits.interval;
        if gone == said.firing.len() && ready.is_empty() {
            return match self.manner {
                _ if !rested => Verdict::Rest,
                Manner::PersonUntilOver => Verdict::Forget,
                _ => Verdict::Tell(Reason::Resolved, BTreeSet::new()),
            };
        }
        let more = ready.iter().any(|id| !said.firing.contains(id));
        let worse = worst(members, &ready).is_some_and(|worst| worst > said.severity);
        let less = gone > 0 && self.manner == Manner::Mirror;
        let changed = match self.manner {
            Manner::Escalation => false,
            _ => more || worse || less,
        };
        if changed && rested {
            return Verdict::Tell(Reason::Changed, ready);
        }
        let lasts = |member: &Member<'_>| {
            let noted = member.alert.acknowledged.is_some() && self.manner != Manner::Mirror;
            ready.contains(&member.alert.id) && !noted
        };
        let again = elapsed >= self.waits.repeat && self.manner != Manner::Escalation;
        if again && members.iter().any(lasts) {
            return Verdict::Tell(Reason::Repeat, ready);
        }
        Verdict::Rest
    }

    /// The ids that a notification now would name: as soon as one is ripe, all that need not wait for a cause.
    fn ready(&self, members: &[Member<'_>]) -> BTreeSet<String> {
        let audible = || members.iter().filter(|member| !member.muted);
        if !audible().any(|member| self.is_ripe(member)) {
            return BTreeSet::new();
        }
        audible()
            .filter(|member| !member.depends || self.is_ripe(member))
            .map(|member| member.alert.id.clone())
            .collect()
    }

    fn is_ripe(&self, member: &Member<'_>) -> bool {
        let Waits {
            wait, hold_back, ..
        } = self.waits;
        let needed = if member.depends {
            wait.max(hold_back)
        } else {
            wait
        };
        member.age >= needed
    }
}

/// The worst of those named.
#[must_use]
pub fn worst(members: &[Member<'_>], ids: &BTreeSet<String>) -> Option<Severity> {
    let named = members
        .iter()
        .filter(|member| ids.contains(&member.alert.id));
    named.map(|member| member.alert.severity).max()
}

/// The group of an alert: what the labels are by which it is put together, as text.
#[must_use]
pub fn key_of(group_by: &[String], labels: &Labels, cause: Option<&str>) -> String {
    let value = |name: &String| match name.as_str() {
        // The root of what is wrong: itself, unless a cause is known.
        "root" => cause.or_else(|| labels.get("service").map(String::as_str)),
        name => labels.get(name).map(String::as_str),
    };
    let parts: BTreeMap<&String, &str> = group_by
        .iter()
        .map(|name| (name, value(name).unwrap_or("")))
        .collect();
    let texts: Vec<String> = parts
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if texts.is_empty() {
        "all".to_owned()
    } else {
        texts.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn route(manner: Manner) -> Route {
        Route {
            channel: "hook".to_owned(),
            min_severity: Severity::Info,
            matchers: Vec::new(),
            group_by: vec!["service".to_owned()],
            waits: Waits {
                wait: Duration::from_secs(5),
                hold_back: Duration::from_secs(10),
                ..Waits::default()
            },
            manner,
        }
    }

    fn alert(id: &str, severity: &str) -> Alert {
        serde_json::from_value(json!({
            "id": id, "rule": "check_failed", "severity": severity, "state": "firing", "service": "api",
            "instance": null, "summary": "", "detail": "", "started": 0.0, "ended": null, "count": 1,
        }))
        .expect("an alert")
    }

    fn member(alert: &Alert, age_s: u64) -> Member<'_> {
        Member {
            alert,
            muted: false,
            age: Duration::from_secs(age_s),
            depends: false,
        }
    }

    fn said(ids: &[&str], severity: Severity) -> Said {
        Said {
            at: 0.0,
            firing: ids.iter().map(|id| (*id).to_owned()).collect(),
            severity,
        }
    }

    fn tell(reason: Reason, ids: &[&str]) -> Verdict {
        Verdict::Tell(reason, ids.iter().map(|id| (*id).to_owned()).collect())
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn the_first_notification_waits_for_what_comes_with_it_and_longer_for_a_cause() {
        let route = route(Manner::Person);
        let (one, two) = (alert("1", "warning"), alert("2", "critical"));
        let look = |members: &[Member<'_>]| route.look(members, None);
        assert_eq!(look(&[]), Verdict::Forget);
        assert_eq!(look(&[member(&one, 4)]), Verdict::Rest);
        assert_eq!(
            look(&[member(&one, 5), member(&two, 0)]),
            tell(Reason::New, &["1", "2"])
        );
        let depends = |age| Member {
            depends: true,
            ..member(&one, age)
        };
        assert_eq!(look(&[depends(9)]), Verdict::Rest);
        assert_eq!(look(&[depends(10)]), tell(Reason::New, &["1"]));
        let muted = Member {
            muted: true,
            ..member(&one, 60)
        };
        assert_eq!(look(&[muted]), Verdict::Forget);
    }

    #[test]
    fn it_is_told_again_when_it_grows_gets_worse_lasts_or_is_over() {
        let route = route(Manner::Person);
        let (one, two) = (alert("1", "warning"), alert("2", "critical"));
        let before = said(&["1"], Severity::Warning);
        let look = |members: &[Member<'_>], elapsed_s: u64| {
            route.look(members, Some((&before, Duration::from_secs(elapsed_s))))
        };
        assert_eq!(look(&[member(&one, 90)], 70), Verdict::Rest);
        assert_eq!(
            look(&[member(&one, 90), member(&two, 9)], 30),
            Verdict::Rest
        );
        let grown = tell(Reason::Changed, &["1", "2"]);
        assert_eq!(look(&[member(&one, 90), member(&two, 9)], 60), grown);
        let worse = alert("1", "critical");
        assert_eq!(
            look(&[member(&worse, 90)], 60),
            tell(Reason::Changed, &["1"])
        );
        let repeated = tell(Reason::Repeat, &["1"]);
        assert_eq!(look(&[member(&one, 90)], 4 * 3_600), repeated);
        assert_eq!(look(&[], 59), Verdict::Rest);
        assert_eq!(look(&[], 60), tell(Reason::Resolved, &[]));
    }

    #[test]
    fn what_somebody_took_note_of_is_not_repeated_and_what_is_muted_stays_told() {
        let route = route(Manner::Person);
        let mut one = alert("1", "warning");
        let before = said(&["1"], Severity::Warning);
        let muted = Member {
            muted: true,
            ..member(&one, 90)
        };
        assert_eq!(
            route.look(&[muted], Some((&before, 9 * HOUR))),
            Verdict::Rest
        );
        one.acknowledged = serde_json::from_value(json!({ "by": "key/bob", "at": 0.0 })).ok();
        assert!(one.acknowledged.is_some());
        let look = route.look(&[member(&one, 90)], Some((&before, 9 * HOUR)));
        assert_eq!(look, Verdict::Rest);
    }

    #[test]
    fn a_mirror_is_told_each_change_and_an_escalation_only_the_end() {
        let one = alert("1", "warning");
        let before = said(&["1", "2"], Severity::Warning);
        let look = |manner| route(manner).look(&[member(&one, 90)], Some((&before, HOUR)));
        assert_eq!(look(Manner::Mirror), tell(Reason::Changed, &["1"]));
        assert_eq!(look(Manner::Person), Verdict::Rest);
        assert_eq!(look(Manner::Escalation), Verdict::Rest);
        let ended = |manner| route(manner).look(&[], Some((&before, HOUR)));
        assert_eq!(ended(Manner::Escalation), tell(Reason::Resolved, &[]));
        assert_eq!(ended(Manner::PersonUntilOver), Verdict::Forget);
        assert_eq!(
            route(Manner::Escalation).look(&[member(&one, 90)], None),
            Verdict::Rest
        );
    }

    #[test]
    fn groups_are_named_by_their_labels() {
        let labels: Labels = [("service", "api"), ("rule", "flapping")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let key = |by: &[&str], cause| {
            let by: Vec<String> = by.iter().map(|name| (*name).to_owned()).collect();
            key_of(&by, &labels, cause)
        };
        assert_eq!(key(&[], None), "all");
        assert_eq!(key(&["service", "rule"], None), "rule=flapping,service=api");
        assert_eq!(key(&["root"], None), "root=api");
        assert_eq!(key(&["root"], Some("db")), "root=db");
        assert_eq!(key(&["room"], None), "room=");
    }
}
