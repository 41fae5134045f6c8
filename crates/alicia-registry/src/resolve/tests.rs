//! Who is chosen, and why the others are not: examples, then that what is counted is all there is.

use std::time::Duration;

use alicia_contract::discovery::{Registration, Standing};
use alicia_contract::health::{FleetHealth, Heartbeat};
use alicia_contract::id::ServiceName;
use alicia_contract::orchestrator::Transition;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::core::{Caller, Event, Limits, Now, Rank};

/// A registry in which time stands still unless it is moved.
struct House {
    registry: Registry,
    now_s: f64,
}

fn id(n: u64) -> InstanceId {
    InstanceId::from_parts(n, 0)
}

impl House {
    fn new() -> Self {
        Self {
            registry: Registry::new(Limits::default()),
            now_s: 0.0,
        }
    }

    fn apply(&mut self, event: Event) {
        let now = Now {
            unix: 1_000.0 + self.now_s,
            mono: Duration::from_secs_f64(self.now_s),
        };
        self.registry.apply(event, now).expect("it is taken");
    }

    fn has(&mut self, service: &str, n: u64, capability: Value) {
        let registration: Registration = serde_json::from_value(json!({
            "service": service, "instance": id(n), "epoch": 1, "capabilities": [capability],
        }))
        .expect("a registration");
        let caller = Caller {
            name: service.to_owned(),
            rank: Rank::Service,
        };
        self.apply(Event::Register(Box::new(registration), caller));
    }

    fn beats(&mut self, service: &str, n: u64, more: Value) {
        let mut body = json!({ "service": service, "instance": id(n), "status": "healthy" });
        let fields = body.as_object_mut().expect("an object");
        fields.extend(more.as_object().cloned().unwrap_or_default());
        let heartbeat: Heartbeat = serde_json::from_value(body).expect("a heartbeat");
        self.apply(Event::Heartbeat(heartbeat, Some(service.to_owned())));
    }

    fn asks(&self, wanted: Value) -> Resolution {
        let wanted: Wanted = serde_json::from_value(wanted).expect("a question");
        resolve(&self.registry, &Query::new(wanted).expect("it is good"))
    }

    /// The instances in the order of the answer, by their numbers.
    fn finds(&self, wanted: Value, expected: &[u64]) {
        let found = self.asks(wanted.clone());
        let ids: Vec<&InstanceId> = found.instances.iter().map(|one| &one.instance).collect();
        let expected: Vec<InstanceId> = expected.iter().map(|n| id(*n)).collect();
        assert_eq!(
            ids,
            expected.iter().collect::<Vec<_>>(),
            "{wanted}: {found:#?}"
        );
    }

    fn verdict(&self, wanted: Value, n: u64) -> (Verdict, String) {
        let found = self.asks(wanted);
        let of = found.candidates.iter().find(|one| one.instance == id(n));
        let of = of.unwrap_or_else(|| panic!("{n} is no candidate: {found:#?}"));
        (of.verdict, of.reason.clone())
    }
}

fn forecast() -> Value {
    json!({
        "name": "forecast", "version": "1.2.0", "tags": ["weather", "europe"],
        "input_schema": { "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] },
    })
}

fn with(base: Value, more: Value) -> Value {
    let mut base = base;
    let fields = base.as_object_mut().expect("an object");
    fields.extend(more.as_object().cloned().unwrap_or_default());
    base
}

#[test]
fn version_tags_and_service_must_fit() {
    let mut house = House::new();
    house.has("met", 1, forecast());
    house.has("met", 2, with(forecast(), json!({ "version": "2.0.0" })));
    house.has("sky", 3, with(forecast(), json!({ "tags": ["weather"] })));
    house.finds(json!({ "capability": "forecast", "version": "^2" }), &[2]);
    house.finds(
        json!({ "capability": "forecast", "tags": ["europe"], "version": "^1" }),
        &[1],
    );
    house.finds(json!({ "capability": "forecast", "service": "sky" }), &[3]);
    let old = json!({ "capability": "forecast", "version": "^2" });
    assert_eq!(house.verdict(old.clone(), 1).0, Verdict::Version);
    assert!(house.verdict(old, 1).1.contains("1.2.0 is outside of ^2"));
    let tagged = json!({ "capability": "forecast", "tags": ["europe"] });
    assert_eq!(
        house.verdict(tagged, 3),
        (Verdict::Tag, "has no tag \"europe\"".to_owned())
    );
    let named = json!({ "capability": "forecast", "service": "sky" });
    assert_eq!(house.verdict(named, 1).0, Verdict::Service);
}

#[test]
fn what_is_not_there_is_answered_with_what_is() {
    let mut house = House::new();
    house.has("met", 1, forecast());
    house.has("met", 2, with(forecast(), json!({ "version": "2.1.0" })));
    let found = house.asks(json!({ "capability": "forecast", "version": "^3" }));
    assert_eq!(found.versions, ["2.1.0", "1.2.0"]);
    assert!(
        found.detail.contains("there are 2.1.0, 1.2.0"),
        "{}",
        found.detail
    );
    let found = house.asks(json!({ "capability": "forcast" }));
    assert_eq!(
        found.nearest.as_ref().map(ServiceName::as_str),
        Some("forecast")
    );
    assert!(
        found.detail.contains("did you mean forecast?"),
        "{}",
        found.detail
    );
    let found = house.asks(json!({ "capability": "zzz" }));
    assert_eq!((found.nearest, found.instances.len()), (None, 0));
}

#[test]
fn the_input_is_checked_with_its_place() {
    let mut house = House::new();
    house.has("met", 1, forecast());
    house.finds(
        json!({ "capability": "forecast", "input": { "city": "Rome" } }),
        &[1],
    );
    let found = house.asks(json!({ "capability": "forecast", "input": { "city": 7 } }));
    assert!(found.instances.is_empty());
    let faults = &found.candidates[0].faults;
    assert_eq!(faults[0].pointer, "/input/city");
    assert_eq!(faults[0].message, "found 7, expected a text");
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
    house.finds(
        json!({ "capability": "forecast", "input_schema": schema }),
        &[1],
    );
    let found =
        house.asks(json!({ "capability": "forecast", "input_schema": { "type": "object" } }));
    assert_eq!(found.candidates[0].verdict, Verdict::InputSchema);
}

#[test]
fn the_well_and_least_loaded_come_first_then_the_cheapest() {
    let mut house = House::new();
    for n in 1..=6 {
        let cost = if n == 5 { 0.5 } else { 0.1 };
        house.has("met", n, with(forecast(), json!({ "cost_usd": cost })));
    }
    let any = json!({ "capability": "forecast", "limit": 9 });
    house.beats("met", 1, json!({ "resources": { "in_flight": 3 } }));
    house.beats("met", 2, json!({ "resources": { "cpu": 0.9 } }));
    house.beats(
        "met",
        3,
        json!({ "status": "degraded", "detail": "no cache" }),
    );
    house.beats("met", 4, json!({}));
    house.beats("met", 5, json!({}));
    // 6 has not said how it is: after those that are well, before those that are not.
    house.finds(any.clone(), &[4, 5, 2, 1, 6, 3]);
    let by_cost = json!({ "capability": "forecast", "limit": 9, "prefer": ["cost"] });
    house.finds(by_cost, &[4, 2, 1, 5, 6, 3]);
    assert!(house.verdict(any.clone(), 3).1.contains("no cache"));
    house.beats(
        "met",
        4,
        json!({ "status": "unhealthy", "detail": "no disk" }),
    );
    house.finds(any.clone(), &[5, 2, 1, 6, 3]);
    assert_eq!(
        house.verdict(any, 4),
        (Verdict::Unhealthy, "no disk".to_owned())
    );
}

#[test]
fn equals_take_turns_and_calls_under_way_count() {
    let mut house = House::new();
    for n in 1..=3 {
        house.has("met", n, forecast());
        house.beats("met", n, json!({}));
    }
    let one = json!({ "capability": "forecast", "limit": 1 });
    let mut order = Vec::new();
    for _ in 0..6 {
        let chosen = house.asks(one.clone()).instances[0].instance.clone();
        house.registry.begin_call(&chosen);
        house.registry.end_call(&chosen);
        order.push(chosen);
    }
    assert_eq!(order[..3], order[3..]);
    assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 3);
    let busy = order[0].clone();
    house.registry.begin_call(&busy);
    for _ in 0..4 {
        let chosen = house.asks(one.clone()).instances[0].instance.clone();
        assert_ne!(chosen, busy);
        house.registry.begin_call(&chosen);
        house.registry.end_call(&chosen);
    }
    // A renewal, which comes every few seconds, forgets neither.
    house.beats("met", 1, json!({}));
    let capability = forecast();
    for n in 1..=3 {
        house.has("met", n, capability.clone());
    }
    assert_ne!(house.asks(one).instances[0].instance, busy);
}

#[test]
fn who_is_suspect_silent_or_drains_gets_nothing() {
    let mut house = House::new();
    for n in 1..=4 {
        house.has("met", n, forecast());
        house.beats("met", n, json!({ "interval_s": 1.0 }));
    }
    let any = json!({ "capability": "forecast", "limit": 9 });
    let transition: Transition = serde_json::from_value(json!({
        "service": "met", "slot": 1, "instance": id(1), "epoch": 1, "from": "running", "to": "stopping",
        "reason": "asked", "exit": null, "pid": null, "restarts": 0, "at": 1000.0,
    }))
    .expect("a transition");
    house.apply(Event::Transition(Box::new(transition.clone())));
    assert_eq!(house.verdict(any.clone(), 1).0, Verdict::Draining);
    house.beats("met", 2, json!({ "status": "offline" }));
    assert_eq!(house.verdict(any.clone(), 2).0, Verdict::Suspect);
    for tick in 1..=20 {
        house.now_s = f64::from(tick) * 0.25;
        if tick == 8 {
            house.beats("met", 4, json!({ "interval_s": 30.0 }));
        }
        house.apply(Event::Tick);
    }
    assert_eq!(house.verdict(any.clone(), 3).0, Verdict::Silent);
    house.finds(any.clone(), &[4]);
    let ended = Transition {
        to: alicia_contract::orchestrator::InstanceState::Stopped,
        at: 1_001.0,
        ..transition
    };
    house.apply(Event::Transition(Box::new(ended)));
    let found = house.asks(any);
    assert!(found.candidates.iter().all(|one| one.instance != id(1)));
}

#[test]
fn the_health_monitor_is_heard_and_not_waited_for() {
    let mut house = House::new();
    house.has("met", 1, forecast());
    house.beats("met", 1, json!({}));
    let any = json!({ "capability": "forecast" });
    assert_eq!(house.asks(any.clone()).degraded.len(), 2);
    let transition: Transition = serde_json::from_value(json!({
        "service": "met", "slot": 7, "instance": id(1), "epoch": 1, "from": "starting", "to": "running",
        "reason": "ready", "exit": null, "pid": 1, "restarts": 0, "at": 1000.0,
    }))
    .expect("a transition");
    house.apply(Event::Transition(Box::new(transition)));
    let judged = |at: f64| -> FleetHealth {
        serde_json::from_value(json!({
            "state": "unhealthy", "at": at, "alerts_firing": 0,
            "services": [{
                "service": "met", "state": "unhealthy", "since": at, "reason": "", "flapping": false,
                "bad_heartbeats": 0,
                "checks": [{ "name": "readiness", "instance": "met-7", "state": "unhealthy", "since": at,
                    "detail": "status 500", "latency_ms": null, "at": at }],
            }],
        }))
        .expect("a picture of health")
    };
    // A judgement about the run before says nothing.
    house.apply(Event::Health(Box::new(judged(900.0))));
    house.finds(any.clone(), &[1]);
    house.apply(Event::Health(Box::new(judged(1_005.0))));
    assert_eq!(
        house.verdict(any.clone(), 1),
        (Verdict::Unhealthy, "readiness: status 500".to_owned())
    );
    assert_eq!(house.asks(any).degraded.len(), 1);
}

#[test]
fn questions_with_faults_are_refused_with_all_of_them() {
    let wanted: Wanted = serde_json::from_value(json!({
        "capability": "forecast", "version": "one", "limit": 0, "explain": 9999, "input_schema": { "type": 3 },
        "tags": vec!["x"; 99],
    }))
    .expect("the shape is good");
    let faults = Query::new(wanted).expect_err("it is refused");
    let places: BTreeSet<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    let expected = [
        "/explain",
        "/input_schema/type",
        "/limit",
        "/tags",
        "/version",
    ];
    assert_eq!(places.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_crowd_is_counted_and_not_listed() {
    let mut house = House::new();
    for n in 1..=1_500 {
        house.has("met", n, forecast());
    }
    for n in 1_501..=1_600 {
        house.has("met", n, with(forecast(), json!({ "version": "9.0.0" })));
    }
    let found =
        house.asks(json!({ "capability": "forecast", "version": "^1", "limit": 3, "explain": 10 }));
    assert_eq!((found.instances.len(), found.candidates.len()), (3, 10));
    assert_eq!(found.verdicts[&Verdict::Version], 100);
    assert_eq!(found.verdicts.values().sum::<u32>(), 1_600);
    assert_eq!(found.omitted, 1_590);
}

proptest! {
    /// Whatever happens, every candidate is counted once, and whoever is chosen is usable and fits.
    #[test]
    fn all_are_counted_and_the_chosen_are_usable(
        steps in proptest::collection::vec((0_u8..6, 1_u64..8), 1..60),
        explain in 0_u32..12,
        limit in 1_u32..6,
    ) {
        let mut house = House::new();
        for (what, n) in steps {
            house.now_s += 0.25;
            let version = if n % 2 == 0 { "1.0.0" } else { "2.0.0" };
            match what {
                0 => {
                    if house.registry.get(&id(n)).is_none_or(|entry| entry.is_live()) {
                        house.has("met", n, with(forecast(), json!({ "version": version })));
                    }
                }
                1 => house.beats("met", n, json!({ "interval_s": 0.5 })),
                2 => house.beats("met", n, json!({ "status": "unhealthy" })),
                3 => house.beats("met", n, json!({ "status": "offline" })),
                4 => house.registry.begin_call(&id(n)),
                _ => house.apply(Event::Tick),
            }
        }
        let found = house.asks(json!({
            "capability": "forecast", "version": "^1", "explain": explain, "limit": limit,
        }));
        let live = house.registry.entries().filter(|(_, entry)| entry.is_live()).count();
        prop_assert_eq!(found.verdicts.values().sum::<u32>() as usize, live);
        prop_assert_eq!(found.candidates.len() + found.omitted as usize, live);
        for choice in &found.instances {
            prop_assert!(choice.standing.is_usable());
            prop_assert_eq!(&choice.version, "1.0.0");
            let entry = house.registry.get(&choice.instance).expect("it is there");
            prop_assert_eq!(house.registry.standing(entry), Some(choice.standing));
        }
        let unusable = |standing: Standing| !standing.is_usable();
        let usable = house.registry.entries().filter(|(_, entry)| {
            let fits = entry.registration.capabilities.iter().any(|one| one.version == "1.0.0");
            fits && house.registry.standing(entry).is_some_and(|standing| !unusable(standing))
        });
        prop_assert_eq!(found.instances.len(), usable.count().min(limit as usize));
    }
}
