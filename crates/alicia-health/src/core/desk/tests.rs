//! The desk by stories, alone and behind the monitor.

mod escalation;

use alicia_contract::fleet::{Condition as Needs, ServiceSpec};
use alicia_contract::health::{Acknowledgement, MatchOp, Matcher};
use alicia_contract::id::ServiceName;
use alicia_contract::orchestrator::InstanceState;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::core::group::Waits;
use crate::core::maintenance::{When, Window};
use crate::core::silence::Wanted;
use crate::core::tests::story::{Story, TICK_MS, name_of, spec};
use crate::core::{Action, Event};

fn route(channel: &str, manner: Manner) -> Route {
    Route {
        channel: channel.to_owned(),
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

fn rules() -> Rules {
    Rules {
        routes: vec![route("hook", Manner::Person)],
        group_by: vec!["service".to_owned()],
        ..Rules::default()
    }
}

fn alert(id: &str, service: &str) -> Alert {
    serde_json::from_value(json!({
        "id": id, "rule": "check_failed", "severity": "warning", "state": "firing", "service": service,
        "instance": null, "summary": format!("{service} fails"), "detail": "", "started": 0.0, "ended": null,
        "count": 1,
    }))
    .expect("an alert")
}

/// A desk, its clock, and all that was sent.
struct Office {
    desk: Desk,
    s: u64,
    jumped_s: f64,
    sent: Vec<Draft>,
    orders: Vec<Order>,
}

impl Office {
    fn new(rules: Rules) -> Self {
        let mut office = Self {
            desk: Desk::new(rules, 1),
            s: 100,
            jumped_s: 0.0,
            sent: Vec::new(),
            orders: Vec::new(),
        };
        office.tick();
        office
    }

    fn now(&self) -> Now {
        let mono = Duration::from_secs(self.s);
        Now {
            unix: 1_000_000.0 + mono.as_secs_f64() + self.jumped_s,
            mono,
        }
    }

    fn tick(&mut self) {
        self.orders = self.desk.tick(self.now());
        for order in &self.orders {
            if let Order::Send(draft) = order {
                self.sent.push((**draft).clone());
            }
        }
    }

    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.s += 1;
            self.tick();
        }
    }

    fn fire(&mut self, id: &str, service: &str) {
        self.desk.take(alert(id, service), self.now());
    }

    fn resolve(&mut self, id: &str, service: &str) {
        let mut over = alert(id, service);
        over.state = AlertState::Resolved;
        over.ended = Some(self.now().unix);
        self.desk.take(over, self.now());
    }

    fn acknowledge(&mut self, id: &str, service: &str) {
        let mut noted = alert(id, service);
        noted.acknowledged = Some(Acknowledgement {
            by: "key/bob".to_owned(),
            note: None,
            at: self.now().unix,
            until: None,
        });
        self.desk.take(noted, self.now());
    }

    /// What was sent, as `channel group reason`.
    fn said(&self) -> Vec<String> {
        let text = |draft: &Draft| {
            let Notification {
                channel,
                group,
                reason,
                ..
            } = &draft.notification;
            format!("{channel} {group} {reason}")
        };
        self.sent.iter().map(text).collect()
    }
}

#[test]
fn a_group_is_told_once_and_its_end_once() {
    let mut office = Office::new(rules());
    office.fire("1", "api");
    office.wait(3);
    office.fire("2", "api");
    office.fire("3", "db");
    office.wait(120);
    assert_eq!(
        office.said(),
        ["hook service=api new", "hook service=db new"]
    );
    assert_eq!(
        (
            office.sent[0].notification.firing,
            office.sent[0].alerts.len()
        ),
        (2, 2)
    );
    assert_eq!(
        office.sent[0].notification.summary,
        "api fails (and 1 more)"
    );
    office.resolve("1", "api");
    office.wait(120);
    assert_eq!(office.sent.len(), 2, "part of it is no end");
    office.resolve("2", "api");
    office.wait(5);
    assert_eq!(office.said()[2..], ["hook service=api resolved"]);
    let last = &office.sent[2];
    assert_eq!(
        (last.notification.firing, last.notification.resolved),
        (0, 2)
    );
    assert!(last.said.is_none());
    office.wait(120);
    assert_eq!(office.sent.len(), 3);
}

#[test]
fn what_is_over_before_it_is_ripe_is_never_told() {
    let mut office = Office::new(rules());
    office.fire("1", "api");
    office.wait(3);
    office.resolve("1", "api");
    office.wait(600);
    assert_eq!(office.said(), [""; 0]);
}

#[test]
fn silenced_and_maintained_alerts_are_not_told_but_their_end_is_if_they_were() {
    let mut office = Office::new(rules());
    office.fire("1", "api");
    office.wait(10);
    let now = office.now().unix;
    let matchers = vec![Matcher {
        name: "service".to_owned(),
        op: MatchOp::Fits,
        value: "api|db".to_owned(),
    }];
    let wanted = Wanted {
        id: None,
        matchers,
        starts: now,
        ends: now + 1_000.0,
        by: "key/bob".to_owned(),
        comment: "moving".to_owned(),
    };
    office
        .desk
        .silences
        .set(wanted, "s1".to_owned(), now)
        .expect("made");
    office.fire("2", "db");
    office.wait(120);
    assert_eq!(office.said(), ["hook service=api new"]);
    let mutes = office.desk.mutes(&alert("2", "db"), office.now());
    assert_eq!(
        (mutes[0].by, mutes[0].id.as_str()),
        (MuteKind::Silence, "s1")
    );
    assert_eq!(mutes[0].why, "silenced by key/bob: moving");
    office.resolve("1", "api");
    office.resolve("2", "db");
    office.wait(120);
    assert_eq!(office.said()[1..], ["hook service=api resolved"]);

    let window = Window {
        id: "w1".to_owned(),
        services: vec![ServiceName::new("web").expect("an id")],
        when: When::Once(office.now().unix, office.now().unix + 60.0),
        comment: String::new(),
        by: "alicia.yaml".to_owned(),
    };
    office
        .desk
        .windows
        .set(window, office.now().unix)
        .expect("made");
    office.fire("3", "web");
    office.wait(59);
    assert_eq!(office.sent.len(), 2);
    office.wait(10);
    assert_eq!(
        office.said()[2..],
        ["hook service=web new"],
        "it lasted longer than the window"
    );
}

#[test]
fn a_worse_alert_of_the_same_service_says_enough() {
    let mut rules = rules();
    let texts = |text: &str| vec![Compiled::parse(text).expect("reads")];
    rules.inhibitions.push(Inhibition {
        source: texts("rule=service_down"),
        target: texts("rule!=service_down"),
        equal: vec!["service".to_owned()],
    });
    let mut office = Office::new(rules);
    let mut down = alert("1", "api");
    down.rule = "service_down".to_owned();
    office.desk.take(down, office.now());
    office.fire("2", "api");
    office.fire("3", "db");
    office.wait(30);
    assert_eq!(office.sent[0].notification.firing, 1);
    assert_eq!(
        office.said(),
        ["hook service=api new", "hook service=db new"]
    );
    let mutes = office.desk.mutes(&alert("2", "api"), office.now());
    assert_eq!(
        (mutes[0].by, mutes[0].id.as_str()),
        (MuteKind::Inhibition, "1")
    );
}

#[test]
fn after_a_restart_nothing_is_said_twice_and_the_end_is_still_said() {
    let mut office = Office::new(rules());
    office.fire("1", "api");
    office.fire("2", "db");
    office.wait(30);
    assert_eq!(office.sent.len(), 2);
    let mut later = Office::new(rules());
    later.s = office.s + 100;
    for draft in &office.sent {
        let key = (
            draft.notification.channel.clone(),
            draft.notification.group.clone(),
        );
        let said = draft.said.clone().expect("it fires");
        assert!(later.desk.restore_said(key, said, later.now()));
    }
    let gone = ("nosuch".to_owned(), "x".to_owned());
    let said = office.sent[0].said.clone().expect("it fires");
    assert!(!later.desk.restore_said(gone, said, later.now()));
    assert_eq!(later.desk.said_ids().len(), 2);
    later.fire("1", "api");
    later.resolve("2", "db");
    later.wait(600);
    assert_eq!(later.said(), ["hook service=db resolved"]);
}

#[test]
fn a_jump_of_the_clock_or_a_sleep_makes_no_storm() {
    let mut office = Office::new(rules());
    for n in 0..50 {
        office.fire(&format!("{n}"), &format!("s{n}"));
    }
    office.wait(30);
    assert_eq!(office.sent.len(), 50);
    for jump_s in [9.0 * 3_600.0, -20.0 * 3_600.0] {
        office.jumped_s += jump_s;
        office.wait(60);
        assert_eq!(office.sent.len(), 50, "{jump_s}");
    }
    // The machine was busy for a minute; what fired is over by the time it looks again.
    office.fire("new", "other");
    office.s += 60;
    office.tick();
    assert_eq!(office.sent.len(), 50);
    office.resolve("new", "other");
    office.wait(60);
    assert_eq!(office.sent.len(), 50);
}

/// A monitor and a desk behind it, on one clock.
struct Both {
    story: Story,
    desk: Desk,
    sent: Vec<Draft>,
    seen: usize,
}

impl Both {
    fn of(fleet: Fleet, rules: Rules) -> Self {
        let mut desk = Desk::new(rules, 1);
        desk.set_fleet(Arc::new(fleet.clone()));
        Self {
            story: Story::of_fleet(fleet),
            desk,
            sent: Vec::new(),
            seen: 0,
        }
    }

    /// Hands what the monitor told over to the desk.
    fn hand_over(&mut self) {
        let now = self.story.now();
        for alert in &self.story.news[self.seen..] {
            self.desk.take(alert.clone(), now);
        }
        self.seen = self.story.news.len();
        for order in self.desk.tick(now) {
            if let Order::Send(draft) = order {
                self.sent.push(*draft);
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.story.wait(TICK_MS);
            self.hand_over();
        }
    }

    fn said(&self, reason: &str) -> usize {
        let of = |draft: &&Draft| draft.notification.reason == reason;
        self.sent.iter().filter(of).count()
    }
}

/// A graph of services: each but the first needs the one before it by thirds.
fn graph(services: u32) -> Fleet {
    let mut found: BTreeMap<ServiceName, Arc<ServiceSpec>> = BTreeMap::new();
    found.insert(name_of("s0"), spec().into());
    for n in 1..services {
        let mut dependent = spec();
        let parent = name_of(&format!("s{}", (n - 1) / 3));
        dependent.depends_on.0.insert(parent, Needs::Healthy);
        found.insert(name_of(&format!("s{n}")), dependent.into());
    }
    Fleet {
        services: found,
        ..Fleet::default()
    }
}

/// Figure of the specification (T5): the root of 23 services dies, whoever notices first: one notification, and
/// one that it is over.
#[test]
fn the_root_of_a_graph_makes_one_notification_whoever_is_late() {
    for late_ms in [0, 1_000, 4_000, 8_000] {
        let mut both = Both::of(graph(23), rules());
        let names: Vec<String> = (0..23).map(|n| format!("s{n}")).collect();
        for name in &names {
            both.story.start(name);
        }
        both.wait(2_000);
        // The dependents notice first; the root is found `late_ms` later.
        for step in 0..60_u64 {
            for name in &names[1..] {
                both.story.probe(name, false);
            }
            if step * 1_000 >= late_ms {
                both.story.probe("s0", false);
            }
            both.wait(1_000);
        }
        assert_eq!(both.said("new"), 1, "{late_ms}: {:?}", both.sent);
        if late_ms > 0 {
            let late = both.story.monitor.book().firing();
            // Its own dependents fired before; what depends on those was held back at once.
            assert_eq!(late.filter(|alert| alert.cause.is_some()).count(), 3);
        }
        assert_eq!(both.sent[0].notification.group, "service=s0");
        let blamed = both.story.monitor.book().held_back().count()
            + both
                .story
                .monitor
                .book()
                .firing()
                .filter(|alert| alert.cause.is_some())
                .count();
        assert_eq!(blamed, 22, "{late_ms}: each has its reason");
        for held in both.story.monitor.book().held_back() {
            assert_eq!(
                held.cause,
                Some(name_of("s0")),
                "the root, not what is between"
            );
        }
        // The root recovers first; those that depend on it take their time.
        for step in 0..120 {
            for (n, name) in names.iter().enumerate() {
                both.story.probe(name, n == 0 || step >= 15);
            }
            both.wait(1_000);
        }
        assert_eq!(both.story.firing(), [""; 0]);
        assert_eq!(
            (both.said("resolved"), both.sent.len()),
            (1, 2),
            "{late_ms}"
        );
    }
}

/// Figure of the specification (T6): a service that toggles every 5 s for 10 minutes makes at most two.
#[test]
fn ten_minutes_of_toggling_make_at_most_two_notifications() {
    let fleet = || Fleet {
        services: [(name_of("api"), spec().into())].into(),
        ..Fleet::default()
    };
    let mut process = Both::of(fleet(), rules());
    process.story.start("api");
    for _ in 0..60 {
        process.story.enter("api", InstanceState::Backoff);
        process.wait(5_000);
        process.story.start("api");
        process.wait(5_000);
    }
    assert!((1..=2).contains(&process.sent.len()), "{:?}", process.sent);

    let mut check = Both::of(fleet(), rules());
    check.story.start("api");
    for s in 0..600 {
        check.story.probe("api", s / 5 % 2 == 0);
        check.wait(1_000);
    }
    assert!((1..=2).contains(&check.sent.len()), "{:?}", check.sent);
}

#[test]
fn a_dependent_that_stays_bad_after_its_root_is_told() {
    let mut both = Both::of(graph(2), rules());
    both.story.start("s0");
    both.story.start("s1");
    let probe = |both: &mut Both, seconds: u64, root: bool| {
        for _ in 0..seconds {
            both.story.probe("s0", root);
            both.story.probe("s1", false);
            both.wait(1_000);
        }
    };
    probe(&mut both, 60, false);
    assert_eq!(both.said("new"), 1);
    probe(&mut both, 120, true);
    let groups: Vec<&str> = both
        .sent
        .iter()
        .map(|draft| draft.notification.group.as_str())
        .collect();
    assert_eq!(groups, ["service=s0", "service=s0", "service=s1"]);
}

/// What can happen at the desk.
#[derive(Debug, Clone)]
enum Step2 {
    Fire(u8, u8),
    Resolve(u8, u8),
    Note(u8, u8),
    Wait(u64),
    Jump(f64),
    Sleep(u64),
    Restart,
}

fn any_step() -> impl Strategy<Value = Step2> {
    let alert = (0..4_u8, 0..3_u8);
    prop_oneof![
        3 => alert.clone().prop_map(|(id, service)| Step2::Fire(id, service)),
        2 => alert.clone().prop_map(|(id, service)| Step2::Resolve(id, service)),
        1 => alert.prop_map(|(id, service)| Step2::Note(id, service)),
        3 => (1..200_u64).prop_map(Step2::Wait),
        1 => (-100_000.0..100_000.0).prop_map(Step2::Jump),
        1 => (4..5_000_u64).prop_map(Step2::Sleep),
        1 => Just(Step2::Restart),
    ]
}

proptest! {
    /// Whatever happens, of a channel and group: it begins with `new`, ends with `resolved`, never says twice the
    /// same within the interval, and when all is over, everything that was said to fire was said to be over.
    #[test]
    fn each_group_is_told_from_its_beginning_to_its_end(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut office = Office::new(rules());
        let mut firing: BTreeMap<String, String> = BTreeMap::new();
        let mut over: BTreeMap<String, String> = BTreeMap::new();
        let names = |id: u8, service: u8| (format!("{id}-{service}"), format!("s{service}"));
        for step in steps {
            match step {
                Step2::Fire(id, service) => {
                    let (id, service) = names(id, service);
                    if !over.contains_key(&id) {
                        office.fire(&id, &service);
                        firing.insert(id, service);
                    }
                }
                Step2::Resolve(id, service) => {
                    let (id, service) = names(id, service);
                    if firing.remove(&id).is_some() {
                        office.resolve(&id, &service);
                        over.insert(id, service);
                    }
                }
                Step2::Note(id, service) => {
                    let (id, service) = names(id, service);
                    if firing.contains_key(&id) {
                        office.acknowledge(&id, &service);
                    }
                }
                Step2::Wait(s) => office.wait(s),
                Step2::Jump(s) => office.jumped_s += s,
                Step2::Sleep(s) => {
                    let before = office.sent.len();
                    office.s += s;
                    office.tick();
                    prop_assert_eq!(office.sent.len(), before, "nothing right after it was held up");
                }
                Step2::Restart => {
                    // What was stored is what the drafts said last.
                    let mut stored: BTreeMap<(String, String), Option<Said>> = BTreeMap::new();
                    for draft in &office.sent {
                        let Notification { channel, group, .. } = &draft.notification;
                        stored.insert((channel.clone(), group.clone()), draft.said.clone());
                    }
                    let mut desk = Desk::new(rules(), 2);
                    let now = office.now();
                    for (key, said) in stored {
                        if let Some(said) = said {
                            desk.restore_said(key, said, now);
                        }
                    }
                    office.desk = desk;
                    for (id, service) in firing.clone() {
                        office.fire(&id, &service);
                    }
                    for (id, service) in over.clone() {
                        office.resolve(&id, &service);
                    }
                    office.tick();
                }
            }
        }
        for (id, service) in firing {
            office.resolve(&id, &service);
        }
        office.wait(200);
        let mut open: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for draft in &office.sent {
            let Notification { group, reason, .. } = &draft.notification;
            prop_assert_eq!(reason == "new", !open.contains_key(group), "{} {}", group, reason);
            let said = open.entry(group.clone()).or_default();
            match &draft.said {
                Some(now) => said.extend(now.firing.iter().cloned()),
                None => {
                    prop_assert_eq!(reason.as_str(), "resolved");
                    open.remove(group);
                }
            }
        }
        prop_assert!(open.is_empty(), "{:?}", open);
    }
}

#[test]
fn the_monitor_hands_on_what_it_is_told_from_outside() {
    let mut both = Both::of(graph(1), rules());
    let condition = crate::core::conditions::Condition {
        key: crate::core::conditions::Key {
            rule: crate::core::conditions::Rule::External,
            service: name_of("elsewhere"),
            instance: None,
            check: Some("f1".to_owned()),
        },
        active: true,
        occurrence: 0,
        severity: Severity::Critical,
        summary: "the disk of another machine is full".to_owned(),
        detail: String::new(),
        last_lines: Vec::new(),
        suggestion: None,
        labels: [("team".to_owned(), json!("storage"))].into(),
    };
    let told = Event::Tell(Box::new(condition.clone()), Some(Duration::from_secs(30)));
    both.story.tell(told);
    both.wait(20_000);
    assert_eq!(both.said("new"), 1);
    let fired = &both.sent[0].alerts[0];
    assert_eq!(
        (
            fired.labels["team"].as_str(),
            fired.labels["fingerprint"].as_str()
        ),
        (Some("storage"), Some("f1"))
    );
    both.wait(120_000);
    assert_eq!(both.said("resolved"), 1, "nobody told it again in time");
    both.story
        .tell(Event::Tell(Box::new(condition.clone()), None));
    both.wait(600_000);
    assert_eq!(both.story.firing(), ["external"]);
    both.story.tell(Event::Untell(condition.key));
    assert!(matches!(both.story.actions[0], Action::Alert(_)));
    assert_eq!(both.story.firing(), [""; 0]);
}
