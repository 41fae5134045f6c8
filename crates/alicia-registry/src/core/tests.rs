//! Leases, fencing, binding and who may do what: examples, then properties.

use std::sync::Arc;

use alicia_contract::discovery::Standing;
use alicia_contract::fleet::{Fleet, RestartPolicy, ServiceSpec};
use alicia_contract::health::HeartbeatStatus;
use alicia_contract::orchestrator::{Exit, InstanceState, InstanceStatus, ServiceStatus};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).expect("an id")
}

fn id(n: u64) -> InstanceId {
    InstanceId::from_parts(n, 0)
}

fn at(s: f64) -> Now {
    Now {
        unix: 1_000.0 + s,
        mono: Duration::from_secs_f64(s),
    }
}

fn registration(name: &str, n: u64, epoch: u64) -> Registration {
    serde_json::from_value(json!({
        "service": name, "instance": id(n), "epoch": epoch, "lease_s": 10.0
    }))
    .expect("a registration")
}

fn caller(name: &str) -> Caller {
    let rank = match name.split('/').next() {
        Some("key") => Rank::Key,
        Some("system") => Rank::Admin,
        _ => Rank::Service,
    };
    Caller {
        name: name.to_owned(),
        rank,
    }
}

fn register(name: &str, n: u64, epoch: u64) -> Event {
    Event::Register(Box::new(registration(name, n, epoch)), caller(name))
}

fn leave(name: &str, n: u64, by: &str) -> Event {
    Event::Leave(
        Unregistration {
            service: service(name),
            instance: id(n),
        },
        caller(by),
    )
}

fn beat(name: &str, n: Option<u64>, status: HeartbeatStatus) -> Event {
    let heartbeat = Heartbeat {
        service: service(name),
        instance: n.map(id),
        status,
        detail: None,
        uptime_s: 0.0,
        interval_s: None,
        counters: Default::default(),
        resources: Default::default(),
    };
    Event::Heartbeat(heartbeat, Some(name.to_owned()))
}

fn slot(number: u32, n: u64, epoch: u64, state: InstanceState) -> InstanceStatus {
    let exit = (!state.has_process()).then(|| Exit {
        code: None,
        signal: Some("SIGKILL".to_owned()),
        cause: "killed by SIGKILL".to_owned(),
        at: 0.0,
        ..Exit::default()
    });
    InstanceStatus {
        slot: number,
        instance: Some(id(n)),
        epoch: Epoch(epoch),
        state,
        since: 0.0,
        pid: None,
        restarts: 0,
        exit,
        reason: "said so".to_owned(),
        next_start: None,
        ports: [(service("http"), 8080)].into(),
        cpu: None,
        memory_bytes: None,
        containment: None,
        ..InstanceStatus::default()
    }
}

fn picture(revision: u64, taken: f64, name: &str, slots: Vec<InstanceStatus>) -> Event {
    let of_service = ServiceStatus {
        service: service(name),
        description: None,
        wanted: 1,
        depends_on: Default::default(),
        restart: RestartPolicy::Always,
        groups: Vec::new(),
        instances: slots,
    };
    Event::Status(Box::new(FleetStatus {
        fleet: "home".to_owned(),
        revision,
        at: 1_000.0 + taken,
        services: vec![of_service],
    }))
}

fn went(name: &str, n: u64, to: InstanceState) -> Event {
    let of = slot(1, n, 1, to);
    Event::Transition(Box::new(Transition {
        service: service(name),
        slot: 1,
        instance: of.instance,
        epoch: of.epoch,
        from: InstanceState::Running,
        to,
        reason: of.reason,
        exit: of.exit,
        last_lines: Vec::new(),
        cause: Default::default(),
        next_start: None,
        pid: None,
        restarts: 0,
        at: 0.0,
    }))
}

/// Ticks every second up to `until`, as the shell does.
fn ticks(registry: &mut Registry, from: u32, until: u32) -> Vec<Action> {
    (from..=until)
        .flat_map(|s| {
            registry
                .apply(Event::Tick, at(f64::from(s)))
                .expect("a tick is not refused")
        })
        .collect()
}

fn presence(registry: &Registry, n: u64) -> Option<Presence> {
    registry.get(&id(n)).map(|entry| entry.presence)
}

fn changes(actions: &[Action]) -> Vec<(Option<Presence>, Presence)> {
    let tells = actions.iter().filter_map(|action| match action {
        Action::Tell(change) => Some((change.from, change.to)),
        _ => None,
    });
    tells.collect()
}

#[test]
fn a_silent_one_becomes_suspect_then_gone_then_forgotten() {
    let mut registry = Registry::new(Limits::default());
    let actions = registry
        .apply(register("api", 1, 0), at(0.0))
        .expect("accepted");
    assert_eq!(changes(&actions), [(None, Presence::Present)]);
    assert!(actions.contains(&Action::Announce(service("api"))));
    ticks(&mut registry, 0, 9);
    assert_eq!(presence(&registry, 1), Some(Presence::Present));
    let actions = ticks(&mut registry, 10, 45);
    assert_eq!(
        changes(&actions),
        [
            (Some(Presence::Present), Presence::Suspect),
            (Some(Presence::Suspect), Presence::Gone)
        ]
    );
    let actions = ticks(&mut registry, 46, 700);
    assert_eq!(actions, [Action::Forget(id(1))]);
    assert_eq!(registry.services().count(), 0);
}

#[test]
fn heartbeats_renew_and_bring_back_a_suspect_but_not_a_gone_one() {
    let mut registry = Registry::new(Limits::default());
    registry
        .apply(register("api", 1, 0), at(0.0))
        .expect("accepted");
    ticks(&mut registry, 0, 8);
    registry
        .apply(beat("api", None, HeartbeatStatus::Healthy), at(8.0))
        .expect("heard");
    ticks(&mut registry, 9, 17);
    assert_eq!(presence(&registry, 1), Some(Presence::Present));
    ticks(&mut registry, 18, 20);
    assert_eq!(presence(&registry, 1), Some(Presence::Suspect));
    registry
        .apply(beat("api", Some(1), HeartbeatStatus::Degraded), at(20.0))
        .expect("heard");
    assert_eq!(presence(&registry, 1), Some(Presence::Present));
    ticks(&mut registry, 21, 70);
    assert_eq!(presence(&registry, 1), Some(Presence::Gone));
    registry
        .apply(beat("api", Some(1), HeartbeatStatus::Healthy), at(70.0))
        .expect("heard");
    assert_eq!(presence(&registry, 1), Some(Presence::Gone));
    registry
        .apply(register("api", 1, 0), at(71.0))
        .expect("an expired one may register again");
    assert_eq!(presence(&registry, 1), Some(Presence::Present));
}

#[test]
fn a_last_will_makes_suspect_and_a_farewell_renews_nothing() {
    let mut registry = Registry::new(Limits::default());
    registry
        .apply(register("api", 1, 0), at(0.0))
        .expect("accepted");
    registry
        .apply(beat("api", Some(1), HeartbeatStatus::Stopping), at(1.0))
        .expect("heard");
    assert_eq!(presence(&registry, 1), Some(Presence::Present));
    registry
        .apply(beat("api", Some(1), HeartbeatStatus::Offline), at(2.0))
        .expect("heard");
    assert_eq!(presence(&registry, 1), Some(Presence::Suspect));
}

#[test]
fn a_heartbeat_without_instance_renews_only_an_only_one() {
    let mut registry = Registry::new(Limits::default());
    registry
        .apply(register("api", 1, 0), at(0.0))
        .expect("accepted");
    registry
        .apply(register("api", 2, 0), at(0.0))
        .expect("accepted");
    registry
        .apply(beat("api", None, HeartbeatStatus::Healthy), at(8.0))
        .expect("heard");
    ticks(&mut registry, 8, 11);
    assert_eq!(presence(&registry, 1), Some(Presence::Suspect));
    assert_eq!(presence(&registry, 2), Some(Presence::Suspect));
}

#[test]
fn a_registry_that_was_held_up_ends_nothing() {
    let mut registry = Registry::new(Limits::default());
    registry
        .apply(register("api", 1, 0), at(0.0))
        .expect("accepted");
    ticks(&mut registry, 0, 5);
    assert_eq!(registry.apply(Event::Tick, at(300.0)).expect("a tick"), []);
    assert_eq!(presence(&registry, 1), Some(Presence::Present));
    ticks(&mut registry, 301, 311);
    assert_eq!(presence(&registry, 1), Some(Presence::Suspect));
}

#[test]
fn the_exit_of_a_supervised_one_is_its_end() {
    let mut registry = Registry::new(Limits::default());
    registry
        .apply(register("api", 1, 1), at(0.0))
        .expect("accepted");
    let running = vec![slot(1, 1, 1, InstanceState::Running)];
    registry
        .apply(picture(1, 0.5, "api", running), at(0.5))
        .expect("heard");
    ticks(&mut registry, 1, 60);
    assert_eq!(
        presence(&registry, 1),
        Some(Presence::Present),
        "its process is its lease"
    );
    let actions = registry
        .apply(went("api", 1, InstanceState::Backoff), at(60.0))
        .expect("heard");
    assert_eq!(
        changes(&actions),
        [(Some(Presence::Present), Presence::Gone)]
    );
    assert_eq!(
        registry.get(&id(1)).expect("remembered").reason,
        "killed by SIGKILL"
    );
    let refusal = registry
        .apply(register("api", 1, 1), at(61.0))
        .expect_err("it is dead");
    assert!(matches!(refusal, Refusal::Ended { .. }), "{refusal}");
}

#[test]
fn a_program_that_says_nothing_is_found_all_the_same() {
    let mut registry = Registry::new(Limits::default());
    let starting = vec![slot(1, 1, 1, InstanceState::Starting)];
    registry
        .apply(picture(1, 0.0, "web", starting), at(0.0))
        .expect("heard");
    assert_eq!(presence(&registry, 1), None, "not ready, not found");
    let running = vec![slot(1, 1, 1, InstanceState::Running)];
    registry
        .apply(picture(2, 1.0, "web", running.clone()), at(1.0))
        .expect("heard");
    let entry = registry.get(&id(1)).expect("derived").public();
    assert_eq!(
        entry.registration.endpoints.http.as_deref(),
        Some("http://127.0.0.1:8080")
    );
    assert!(entry.supervised);
    let again = registry
        .apply(picture(3, 2.0, "web", running), at(2.0))
        .expect("heard");
    assert_eq!(again, [], "a repeated picture changes nothing");
    registry
        .apply(register("web", 1, 0), at(3.0))
        .expect("it may still speak for itself");
    assert_eq!(registry.get(&id(1)).expect("there").owner, "web");
    assert_eq!(
        registry.get(&id(1)).expect("there").registration.epoch,
        Epoch(1)
    );
}

#[test]
fn the_picture_mends_what_a_missed_transition_left() {
    let mut registry = Registry::new(Limits::default());
    let first = vec![slot(1, 1, 1, InstanceState::Running)];
    registry
        .apply(picture(1, 0.0, "web", first.clone()), at(0.0))
        .expect("heard");
    let second = vec![slot(1, 2, 2, InstanceState::Running)];
    registry
        .apply(picture(2, 5.0, "web", second), at(5.0))
        .expect("heard");
    assert_eq!(presence(&registry, 1), Some(Presence::Gone));
    assert_eq!(presence(&registry, 2), Some(Presence::Present));
    registry
        .apply(picture(1, 0.0, "web", first), at(6.0))
        .expect("an old picture");
    assert_eq!(presence(&registry, 1), Some(Presence::Gone));
    assert_eq!(presence(&registry, 2), Some(Presence::Present));
    let refusal = registry
        .apply(register("web", 9, 1), at(7.0))
        .expect_err("epoch 2 is there");
    assert!(matches!(refusal, Refusal::Fenced { .. }), "{refusal}");
}

#[test]
fn who_drains_is_not_found_any_more() {
    let mut registry = Registry::new(Limits::default());
    let running = vec![slot(1, 1, 1, InstanceState::Running)];
    registry
        .apply(picture(1, 0.0, "web", running), at(0.0))
        .expect("heard");
    registry
        .apply(went("web", 1, InstanceState::Stopping), at(1.0))
        .expect("heard");
    assert_eq!(registry.live(&service("web")).count(), 0);
}

#[test]
fn an_older_epoch_of_the_same_instance_is_fenced() {
    let mut registry = Registry::new(Limits::default());
    registry
        .apply(register("api", 1, 5), at(0.0))
        .expect("accepted");
    let refusal = registry
        .apply(register("api", 1, 4), at(1.0))
        .expect_err("older");
    assert!(matches!(refusal, Refusal::Fenced { .. }), "{refusal}");
    registry
        .apply(leave("api", 1, "api"), at(2.0))
        .expect("left");
    registry
        .apply(register("api", 1, 5), at(3.0))
        .expect_err("a late repeat");
    registry
        .apply(register("api", 1, 6), at(4.0))
        .expect("a new start");
}

#[test]
fn only_the_holder_or_an_admin_acts() {
    let mut registry = Registry::new(Limits::default());
    let mut fleet = Fleet::default();
    fleet.services.insert(
        service("api"),
        ServiceSpec::new(vec!["api".to_owned()]).into(),
    );
    registry
        .apply(Event::Fleet(Arc::new(fleet)), at(0.0))
        .expect("heard");
    let by = |name: &str, n: u64, who: &str| {
        Event::Register(Box::new(registration(name, n, 0)), caller(who))
    };
    let mut check = |event: Event, allowed: bool| {
        let told = format!("{event:?}");
        let outcome = registry.apply(event, at(1.0));
        let denied = matches!(outcome, Err(Refusal::NotYours { .. }));
        assert_eq!(denied, !allowed, "{told} gave {outcome:?}");
    };
    check(by("api", 1, "db"), false);
    check(by("api", 1, "key/bob"), false);
    check(by("api", 1, "api"), true);
    check(by("robot", 2, "key/bob"), true);
    check(by("robot", 2, "key/eve"), false);
    check(by("robot", 2, "robot"), true);
    check(leave("robot", 2, "key/eve"), false);
    check(leave("api", 1, "db"), false);
    check(leave("api", 1, "system/host"), true);
    check(by("api", 3, "system/host"), true);
    check(by("db", 3, "system/host"), true);
}

#[test]
fn a_heartbeat_of_somebody_else_renews_nothing() {
    let mut registry = Registry::new(Limits::default());
    registry
        .apply(register("api", 1, 0), at(0.0))
        .expect("accepted");
    let Event::Heartbeat(forged, _) = beat("api", Some(1), HeartbeatStatus::Healthy) else {
        panic!("it is a heartbeat")
    };
    registry
        .apply(Event::Heartbeat(forged, Some("db".to_owned())), at(9.0))
        .expect("heard");
    ticks(&mut registry, 8, 10);
    assert_eq!(presence(&registry, 1), Some(Presence::Suspect));
}

#[test]
fn the_registry_has_room_for_so_many() {
    let limits = Limits {
        instances: 3,
        instances_per_service: 2,
        ..Limits::default()
    };
    let mut registry = Registry::new(limits);
    registry.apply(register("a", 1, 0), at(0.0)).expect("room");
    registry.apply(register("a", 2, 0), at(0.0)).expect("room");
    let full = registry
        .apply(register("a", 3, 0), at(0.0))
        .expect_err("full");
    assert!(matches!(full, Refusal::Full { limit: 2, .. }), "{full}");
    registry.apply(register("b", 4, 0), at(0.0)).expect("room");
    let full = registry
        .apply(register("c", 5, 0), at(0.0))
        .expect_err("full");
    assert!(matches!(full, Refusal::Full { limit: 3, .. }), "{full}");
    registry
        .apply(register("b", 4, 0), at(1.0))
        .expect("who is in may renew");
}

#[test]
fn a_paused_one_is_there_and_gets_nothing_until_it_goes_on() {
    let mut registry = Registry::new(Limits::default());
    let running = picture(1, 0.0, "web", vec![slot(1, 1, 1, InstanceState::Running)]);
    registry.apply(running, at(0.0)).expect("heard");
    registry
        .apply(register("web", 1, 1), at(1.0))
        .expect("accepted");
    let mut is = |event: Event, s: f64| {
        registry.apply(event, at(s)).expect("heard");
        let entry = registry.get(&id(1)).expect("it is known");
        (entry.presence, registry.standing(entry))
    };
    let held = (Presence::Suspect, Some(Standing::Suspect));
    assert_eq!(is(went("web", 1, InstanceState::Paused), 2.0), held);
    let paused = picture(2, 3.0, "web", vec![slot(1, 1, 1, InstanceState::Paused)]);
    assert_eq!(is(paused, 3.0), held);
    // Not by time either: its process is its lease.
    (4..100).for_each(|s| assert_eq!(is(Event::Tick, f64::from(s)), held));
    let goes_on = picture(3, 100.0, "web", vec![slot(1, 1, 1, InstanceState::Running)]);
    let (presence, standing) = is(goes_on, 100.0);
    assert_eq!(presence, Presence::Present);
    assert!(standing.is_some_and(Standing::is_usable));
    let entry = registry.get(&id(1)).expect("it is known");
    assert_eq!(entry.owner, "web", "its own registration is kept");
    registry
        .apply(register("web", 1, 1), at(101.0))
        .expect("it may renew");
}

#[test]
fn what_is_only_remembered_gives_way() {
    let limits = Limits {
        instances: 4,
        instances_per_service: 3,
        ..Limits::default()
    };
    let mut registry = Registry::new(limits);
    for n in 1..=3 {
        registry
            .apply(register("api", n, 0), at(0.0))
            .expect("accepted");
    }
    let full = registry.apply(register("api", 4, 0), at(1.0));
    assert!(
        matches!(full, Err(Refusal::Full { limit: 3, .. })),
        "{full:?}"
    );
    for n in [2, 1] {
        let left = leave("api", n, "api");
        let s = 5.0 - f64::from(u32::try_from(n).expect("small"));
        registry.apply(left, at(s)).expect("left");
    }
    let actions = registry
        .apply(register("api", 4, 0), at(6.0))
        .expect("there is room");
    assert!(actions.contains(&Action::Forget(id(2))), "the oldest goes");
    assert_eq!(presence(&registry, 1), Some(Presence::Gone));
    registry
        .apply(register("db", 5, 0), at(7.0))
        .expect("there is room");
    registry
        .apply(register("db", 6, 0), at(7.0))
        .expect("in place of what is gone of another");
    assert_eq!(presence(&registry, 1), None);
    let full = registry.apply(register("db", 7, 0), at(7.0));
    assert!(
        matches!(full, Err(Refusal::Full { limit: 4, .. })),
        "{full:?}"
    );
}

/// An hour back: what is told from then on is believed all the same.
#[test]
fn a_clock_that_is_set_back_hides_nothing() {
    let mut registry = Registry::new(Limits::default());
    let back = |s: f64| Now {
        unix: at(s).unix - 3_600.0,
        ..at(s)
    };
    let told = |n: u64, to: InstanceState, now: Now| {
        let Event::Transition(mut transition) = went("web", n, to) else {
            unreachable!("it is one");
        };
        transition.at = now.unix;
        Event::Transition(transition)
    };
    let started = picture(1, 10.0, "web", vec![slot(1, 1, 1, InstanceState::Running)]);
    registry.apply(started, at(10.0)).expect("heard");
    registry
        .apply(told(1, InstanceState::Starting, at(11.0)), at(11.0))
        .expect("heard");
    let standing = |registry: &Registry| registry.standing(registry.get(&id(1)).expect("known"));
    assert_eq!(standing(&registry), Some(Standing::Starting));
    registry
        .apply(told(1, InstanceState::Running, back(12.0)), back(12.0))
        .expect("heard");
    assert_eq!(standing(&registry), Some(Standing::Unknown), "well enough");
    // Its end was missed; the picture does not hold it any more.
    let next = picture(
        2,
        13.0 - 3_600.0,
        "web",
        vec![slot(1, 2, 2, InstanceState::Running)],
    );
    registry.apply(next, back(13.0)).expect("heard");
    assert_eq!(presence(&registry, 1), Some(Presence::Gone));
    assert_eq!(presence(&registry, 2), Some(Presence::Present));
}

#[test]
fn after_a_restart_entries_are_unverified_until_seen() {
    let mut before = Registry::new(Limits::default());
    let saved = before
        .apply(register("api", 1, 0), at(0.0))
        .expect("accepted");
    let mut after = Registry::new(Limits::default());
    for action in saved {
        if let Action::Save(entry) = action {
            after.restore(*entry, at(0.0));
        }
    }
    assert_eq!(presence(&after, 1), Some(Presence::Unverified));
    after
        .apply(beat("api", Some(1), HeartbeatStatus::Healthy), at(1.0))
        .expect("heard");
    assert_eq!(presence(&after, 1), Some(Presence::Present));
}

/// Any event over a small world: two services, four instances.
fn any_event() -> impl Strategy<Value = Event> {
    let name = prop::sample::select(vec!["api", "web"]);
    let state = prop::sample::select(vec![
        InstanceState::Starting,
        InstanceState::Running,
        InstanceState::Stopping,
        InstanceState::Backoff,
        InstanceState::Failed,
    ]);
    let status = prop::sample::select(vec![
        HeartbeatStatus::Healthy,
        HeartbeatStatus::Stopping,
        HeartbeatStatus::Offline,
    ]);
    prop_oneof![
        (name.clone(), 0..4_u64, 0..3_u64).prop_map(|(s, n, epoch)| register(s, n, epoch)),
        (name.clone(), 0..4_u64).prop_map(|(s, n)| leave(s, n, s)),
        (name.clone(), prop::option::of(0..4_u64), status).prop_map(|(s, n, b)| beat(s, n, b)),
        (name.clone(), 0..4_u64, state.clone()).prop_map(|(s, n, to)| went(s, n, to)),
        (name, 0..9_u64, 0..4_u64, 1..3_u64, state).prop_map(|(s, revision, n, epoch, state)| {
            picture(revision, revision as f64, s, vec![slot(1, n, epoch, state)])
        }),
        Just(Event::Tick),
    ]
}

fn snapshot(registry: &Registry) -> Vec<Entry> {
    registry.entries().map(|(_, entry)| entry.clone()).collect()
}

proptest! {
    /// The same events give the same state and actions; a refusal changes nothing; and what ended for
    /// good comes back only with a higher epoch.
    #[test]
    fn replay_is_exact_and_the_dead_stay_dead(
        steps in prop::collection::vec((any_event(), 0..20_u32), 1..80)
    ) {
        let mut one = Registry::new(Limits::default());
        let mut two = Registry::new(Limits::default());
        let mut now_s = 0_u32;
        for (event, wait_s) in steps {
            now_s += wait_s;
            let before = snapshot(&one);
            let outcome = one.apply(event.clone(), at(f64::from(now_s)));
            prop_assert_eq!(&outcome, &two.apply(event, at(f64::from(now_s))));
            prop_assert_eq!(snapshot(&one), snapshot(&two));
            if outcome.is_err() {
                prop_assert_eq!(snapshot(&one), before.clone());
            }
            for old in before.iter().filter(|old| old.ending == Some(Ending::Final)) {
                let new = one.get(&old.registration.instance);
                if let Some(new) = new.filter(|new| new.is_live()) {
                    prop_assert!(new.registration.epoch > old.registration.epoch);
                }
            }
        }
    }

    /// Rows alone rebuild what is known: whoever is live is live (as unverified), whoever is gone is gone.
    #[test]
    fn the_rows_hold_the_state(steps in prop::collection::vec((any_event(), 0..20_u32), 1..60)) {
        let mut registry = Registry::new(Limits::default());
        let mut rows = BTreeMap::new();
        let mut now_s = 0_u32;
        for (event, wait_s) in steps {
            now_s += wait_s;
            for action in registry.apply(event, at(f64::from(now_s))).unwrap_or_default() {
                match action {
                    Action::Save(entry) => {
                        rows.insert(entry.registration.instance.clone(), *entry);
                    }
                    Action::Forget(id) => {
                        rows.remove(&id);
                    }
                    Action::Announce(_) | Action::Tell(_) => {}
                }
            }
        }
        let kept: Vec<_> = rows.values().map(|e| (&e.registration, e.is_live(), e.ending)).collect();
        let held: Vec<_> =
            registry.entries().map(|(_, e)| (&e.registration, e.is_live(), e.ending)).collect();
        prop_assert_eq!(kept, held);
    }
}
