//! Calls by capability on a real bus: exactly one instance carries each out, under kills too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alicia_bus::{Bus, CallError};
use alicia_contract::Problem;
use alicia_contract::discovery::{
    CALL, CapabilityAnswer, CapabilityCall, INSTANCE_COMMAND, REGISTER, RESOLVE, Resolution, Wanted,
};
use alicia_contract::health::{HEARTBEAT, Heartbeat};
use alicia_contract::id::{InstanceId, ServiceName};
use alicia_contract::orchestrator::{SERVICE_COMMAND, ServiceCommand, TRANSITIONS, Transition};
use alicia_contract::topic::{CallTopic, EventTopic, Prefix};
use alicia_registry::{Config, RegistryModule};
use alicia_testkit::{Bench, PATIENCE, Running, until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const RAW_REGISTER: EventTopic<Value> = EventTopic::new(REGISTER.template());

/// As long as a call of these tests may take; only one whose instance was killed needs it.
const CALL_DEADLINE: &str = "20s";

macro_rules! bench {
    () => {
        match Bench::with_mosquitto().await {
            Some(bench) => bench,
            None => return,
        }
    };
}

fn id(n: u64) -> InstanceId {
    InstanceId::from_parts(n, 7)
}

/// Which instance carried out which call, in order.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<(u64, u64)>>>);

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Vec<(u64, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn by(&self, n: u64) -> usize {
        self.lock().iter().filter(|(by, _)| *by == n).count()
    }
}

/// An instance of `met` with the capability `work`. Dropped, it is killed: no answer, no goodbye.
struct Instance {
    n: u64,
    bus: Bus,
    _tasks: JoinSet<()>,
}

impl Instance {
    async fn start(bench: &Bench, n: u64, ledger: &Ledger) -> Self {
        Self::start_on(bench, n, ledger, true).await
    }

    async fn start_on(bench: &Bench, n: u64, ledger: &Ledger, has_own_topic: bool) -> Self {
        let mut options = bench.broker().options("met");
        options.client_id = format!("met-{n}");
        let (bus, connection) = Bus::start(options);
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        bus.connected(PATIENCE).await.expect("connects");
        let instance = id(n);
        let own = INSTANCE_COMMAND.at(bus.prefix(), &["met", instance.as_str()]);
        let of_all = SERVICE_COMMAND.at(bus.prefix(), &["met"]);
        let topic = if has_own_topic { own } else { of_all };
        let mut requests = bus
            .serve_at::<ServiceCommand, Value>(&topic)
            .await
            .expect("subscribes");
        let ledger = ledger.clone();
        tasks.spawn(async move {
            let mut working = JoinSet::new();
            while let Some(request) = requests.next().await {
                let ledger = ledger.clone();
                working.spawn(async move {
                    let number = request.query.arguments["number"]
                        .as_u64()
                        .expect("a number");
                    ledger.lock().push((n, number));
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    let answer = match number {
                        900_001 => Ok(json!("not what the schema says")),
                        900_002 => Err(busy()),
                        _ => Ok(json!({ "number": number, "by": n })),
                    };
                    request.respond(answer).await.ok();
                });
            }
        });
        let body = json!({
            "service": "met", "instance": instance, "lease_s": 600.0, "endpoints": { "mqtt": topic },
            "capabilities": [{
                "name": "work", "version": "1.0.0",
                "input_schema": { "type": "object", "properties": { "number": { "type": "integer" } }, "required": ["number"] },
                "output_schema": { "type": "object", "required": ["number", "by"] },
            }],
        });
        bus.publish(RAW_REGISTER, &[], &body).await.expect("sent");
        Self {
            n,
            bus,
            _tasks: tasks,
        }
    }

    async fn beats(&self, status: &str) {
        let body = json!({ "service": "met", "instance": id(self.n), "status": status, "detail": "by hand" });
        let heartbeat: Heartbeat = serde_json::from_value(body).expect("a heartbeat");
        self.bus
            .publish(HEARTBEAT, &["met"], &heartbeat)
            .await
            .expect("sent");
    }
}

fn busy() -> Problem {
    serde_json::from_value(json!({
        "type": "/docs/errors/service.busy", "title": "Busy", "status": 503, "detail": "not now", "code": "service.busy",
    }))
    .expect("a problem")
}

fn went(n: u64, to: &str) -> Transition {
    serde_json::from_value(json!({
        "service": "met", "slot": n, "instance": id(n), "epoch": 0, "from": "running", "to": to,
        "reason": "by hand", "exit": null, "pid": null, "restarts": 0, "at": 4e9,
    }))
    .expect("a transition")
}

/// Waits until the registry would choose exactly these.
async fn usable(registry: &Running<RegistryModule>, expected: &[u64]) {
    let expected: BTreeSet<String> = expected.iter().map(|n| id(*n).to_string()).collect();
    until(&format!("{expected:?} are there"), async || {
        let question = json!({ "capability": "work", "limit": 100 });
        let (_, found) = registry.admin("POST", "/resolve", &question).await;
        let found = found["instances"].as_array().cloned().unwrap_or_default();
        let found: BTreeSet<String> = found
            .iter()
            .filter_map(|one| Some(one["instance"].as_str()?.to_owned()))
            .collect();
        found == expected
    })
    .await;
}

async fn call(registry: &Running<RegistryModule>, number: u64) -> (u16, Value) {
    let body =
        json!({ "capability": "work", "input": { "number": number }, "timeout": CALL_DEADLINE });
    registry.admin("POST", "/call", &body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_a_thousand_calls_is_carried_out_once_while_instances_are_killed() {
    let bench = bench!();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    registry.is_well().await;
    let ledger = Ledger::default();
    let orchestrator = bench.client("system/orchestrator").await;
    let mut instances = BTreeMap::new();
    for n in 1..=3 {
        instances.insert(n, Instance::start(&bench, n, &ledger).await);
    }
    let unwell = Instance::start(&bench, 50, &ledger).await;
    let drains = Instance::start(&bench, 51, &ledger).await;
    // A heartbeat before its registration was heard would be lost.
    usable(&registry, &[1, 2, 3, 50, 51]).await;
    unwell.beats("unhealthy").await;
    usable(&registry, &[1, 2, 3, 51]).await;
    orchestrator
        .publish(TRANSITIONS, &[], &went(51, "stopping"))
        .await
        .expect("sent");
    usable(&registry, &[1, 2, 3]).await;
    let by_drained = ledger.by(drains.n);

    let registry = Arc::new(registry);
    let mut calls = JoinSet::new();
    let mut outcomes: BTreeMap<u64, (u16, Value)> = BTreeMap::new();
    let mut next = 1_000;
    for number in 0..1_000_u64 {
        let registry = Arc::clone(&registry);
        calls.spawn(async move { (number, call(&registry, number).await) });
        if calls.len() >= 16 {
            let (number, outcome) = calls.join_next().await.expect("one").expect("no panic");
            outcomes.insert(number, outcome);
        }
        // Killed in the midst of its work; the orchestrator says so, and starts another one.
        if number % 100 == 50 {
            let (n, victim) = instances.pop_first().expect("three are there");
            drop(victim);
            orchestrator
                .publish(TRANSITIONS, &[], &went(n, "backoff"))
                .await
                .expect("sent");
            next += 1;
            instances.insert(next, Instance::start(&bench, next, &ledger).await);
        }
    }
    while let Some(done) = calls.join_next().await {
        let (number, outcome) = done.expect("no panic");
        outcomes.insert(number, outcome);
    }

    assert_eq!(outcomes.len(), 1_000);
    let mut carried_out: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (by, number) in ledger.lock().iter() {
        carried_out.entry(*number).or_default().push(*by);
    }
    let mut answered = 0;
    for (number, (status, answer)) in &outcomes {
        let by = carried_out.get(number).map_or(&[][..], Vec::as_slice);
        assert!(by.len() <= 1, "{number} was carried out by {by:?}");
        if *status == 200 {
            answered += 1;
            assert_eq!(answer["output"]["number"], json!(number));
            assert_eq!(by, [answer["output"]["by"].as_u64().expect("a number")]);
        } else {
            let code = answer["code"].as_str().unwrap_or_default();
            let expected = ["registry.instance_ended", "registry.call_timed_out"];
            assert!(expected.contains(&code), "{number}: {answer}");
        }
    }
    assert!(answered > 900, "only {answered} were answered");
    assert_eq!((ledger.by(unwell.n), ledger.by(drains.n)), (0, by_drained));
    Arc::into_inner(registry).expect("nobody else").stop().await;
}

#[tokio::test]
async fn who_had_not_begun_is_followed_by_another_and_what_failed_is_not() {
    let bench = bench!();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    registry.is_well().await;
    let ledger = Ledger::default();
    let first = Instance::start(&bench, 1, &ledger).await;
    let second = Instance::start(&bench, 2, &ledger).await;
    usable(&registry, &[1, 2]).await;
    let (status, problem) = call(&registry, 900_002).await;
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("service.busy")),
        "{problem}"
    );
    assert_eq!(ledger.lock().len(), 2, "both say that they did not begin");
    ledger.lock().clear();
    let (status, problem) = call(&registry, 900_001).await;
    assert_eq!(
        (status, &problem["code"]),
        (502, &json!("registry.output_mismatch"))
    );
    assert_eq!(problem["faults"][0]["pointer"], "/output");
    assert_eq!(
        ledger.lock().len(),
        1,
        "an answer that does not fit is not tried again"
    );
    let (status, problem) = registry
        .admin(
            "POST",
            "/call",
            &json!({ "capability": "work", "input": { "number": "x" } }),
        )
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (422, &json!("registry.input_mismatch"))
    );
    assert_eq!(problem["faults"][0]["pointer"], "/input/number");
    assert_eq!(
        problem["faults"][0]["message"],
        "found \"x\", expected a whole number"
    );
    // Nobody hears the first any more, and the registry does not know yet: the broker says so at once.
    first.bus.close().await;
    for number in 1..=4 {
        let (status, answer) = call(&registry, number).await;
        assert_eq!(
            (status, &answer["output"]["by"]),
            (200, &json!(second.n)),
            "{answer}"
        );
    }
    registry.stop().await;
}

/// Two instances say the same version and promise different things.
#[tokio::test]
async fn an_answer_is_checked_against_what_its_own_instance_promised() {
    let bench = bench!();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    registry.is_well().await;
    let ledger = Ledger::default();
    let _honest = Instance::start(&bench, 1, &ledger).await;
    let other = Instance::start(&bench, 2, &ledger).await;
    usable(&registry, &[1, 2]).await;
    let own = INSTANCE_COMMAND.at(other.bus.prefix(), &["met", id(2).as_str()]);
    let body = json!({
        "service": "met", "instance": id(2), "lease_s": 600.0, "endpoints": { "mqtt": own },
        "capabilities": [{ "name": "work", "version": "1.0.0", "output_schema": { "type": "string" } }],
    });
    other
        .bus
        .publish(RAW_REGISTER, &[], &body)
        .await
        .expect("sent");
    until("it is known what the other one promises", async || {
        let path = format!("/agents/{}", id(2));
        let (_, found) = registry.admin("GET", &path, &Value::Null).await;
        found["capabilities"][0]["output_schema"]["type"] == "string"
    })
    .await;
    for number in 1..=4 {
        let (status, answer) = call(&registry, number).await;
        let by = ledger.lock().last().map(|(by, _)| *by);
        let expected = if by == Some(1) { 200 } else { 502 };
        assert_eq!(status, expected, "{by:?}: {answer}");
    }
    assert!(ledger.by(1) > 0 && ledger.by(2) > 0, "both had a turn");
    registry.stop().await;
}

#[tokio::test]
async fn a_plain_service_is_called_while_it_is_alone() {
    let bench = bench!();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    registry.is_well().await;
    let ledger = Ledger::default();
    let _first = Instance::start_on(&bench, 1, &ledger, false).await;
    usable(&registry, &[1]).await;
    let (status, answer) = call(&registry, 7).await;
    assert_eq!(
        (status, &answer["output"]["number"]),
        (200, &json!(7)),
        "{answer}"
    );
    let _second = Instance::start_on(&bench, 2, &ledger, false).await;
    usable(&registry, &[1, 2]).await;
    // Both would carry it out.
    let (status, problem) = call(&registry, 8).await;
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("registry.no_instance"))
    );
    assert!(
        problem["detail"]
            .as_str()
            .expect("a text")
            .contains("cannot be called alone")
    );
    assert_eq!(ledger.lock().len(), 1);
    registry.stop().await;
}

#[tokio::test]
async fn what_a_registration_names_as_its_topic_is_not_believed() {
    let bench = bench!();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    registry.is_well().await;
    let victim = bench.client("victim").await;
    let mut heard = victim
        .serve_at::<Value, Value>(&format!("{}/victim/command", Prefix::default()))
        .await
        .expect("subscribes");
    let attacker = bench.client("attacker").await;
    let body = json!({
        "service": "attacker", "instance": id(1), "endpoints": { "mqtt": "alicia/victim/command" },
        "capabilities": [{ "name": "work" }],
    });
    attacker
        .publish(RAW_REGISTER, &[], &body)
        .await
        .expect("sent");
    usable(&registry, &[1]).await;
    let (status, problem) = registry
        .admin(
            "POST",
            "/call",
            &json!({ "capability": "work", "input": {} }),
        )
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("registry.no_instance"))
    );
    let nothing = tokio::time::timeout(Duration::from_millis(50), heard.next()).await;
    assert!(nothing.is_err(), "the victim was given a command");
    registry.stop().await;
}

#[tokio::test]
async fn questions_and_calls_are_answered_on_the_bus() {
    let bench = bench!();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    registry.is_well().await;
    let ledger = Ledger::default();
    let _instance = Instance::start(&bench, 1, &ledger).await;
    usable(&registry, &[1]).await;
    let name = ServiceName::new("work").expect("an id");
    let caller = bench.client("key/robot").await;
    let found: Resolution = caller
        .call(RESOLVE, &[], &Wanted::new(name.clone()), PATIENCE)
        .await
        .expect("is answered");
    assert_eq!(found.instances[0].instance, id(1));
    let ask = CapabilityCall {
        capability: name,
        service: None,
        version: Some("^1".to_owned()),
        tags: Vec::new(),
        input: json!({ "number": 5 }),
        timeout: None,
        retry: false,
    };
    let answer: CapabilityAnswer = caller
        .call(CALL, &[], &ask, PATIENCE)
        .await
        .expect("is answered");
    assert_eq!(
        (answer.output["number"].as_u64(), answer.attempts),
        (Some(5), 1)
    );
    let refused = async |bus: &Bus, body: &Value| {
        let raw: CallTopic<Value, Value> = CallTopic::new(CALL.template());
        match bus.call(raw, &[], body, PATIENCE).await {
            Err(CallError::Refused { problem, .. }) => problem.code,
            other => panic!("{body} gave {other:?}"),
        }
    };
    let body = serde_json::to_value(&ask).expect("plain data");
    // A service commands only what its file allows.
    let stranger = bench.client("stranger").await;
    assert_eq!(refused(&stranger, &body).await, "registry.call_not_allowed");
    assert_eq!(refused(&caller, &json!(7)).await, "registry.invalid_query");
    let wrong = json!({ "capability": "work", "input": { "number": [] } });
    assert_eq!(refused(&caller, &wrong).await, "registry.input_mismatch");
    registry.stop().await;
}
