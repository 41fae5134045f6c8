//! The registry on a real bus: registrations, leases, the orchestrator's word, the retained view; and all of
//! it on a bus that repeats, delays and loses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use alicia_bus::{Bus, CallError, Hostility, Incoming};
use alicia_contract::discovery::{
    EVENTS, INSTANCES, Presence, PresenceChange, REGISTER, RegisteredInstance, ServiceInstances,
    UNREGISTER, Unregistration,
};
use alicia_contract::fleet::RestartPolicy;
use alicia_contract::health::{HEARTBEAT, Heartbeat};
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::orchestrator::{
    Exit, FleetStatus, InstanceState, InstanceStatus, STATUS, ServiceStatus, TRANSITIONS,
    Transition,
};
use alicia_contract::topic::{CallTopic, EventTopic};
use alicia_registry::{Config, RegistryModule};
use alicia_testkit::{Bench, PATIENCE, until};
use serde_json::{Value, json};

const RAW_REGISTER: EventTopic<Value> = EventTopic::new(REGISTER.template());
const CALL_REGISTER: CallTopic<Value, RegisteredInstance> = CallTopic::new(REGISTER.template());

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

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("an id")
}

fn body(service: &str, n: u64, lease_s: f64) -> Value {
    json!({ "service": service, "instance": id(n), "lease_s": lease_s })
}

fn beat(service: &str, n: u64) -> Heartbeat {
    serde_json::from_value(json!({ "service": service, "instance": id(n), "status": "healthy" }))
        .expect("a heartbeat")
}

/// The retained view as a client that knows only MQTT sees it.
#[derive(Clone, Default)]
struct View(Arc<Mutex<BTreeMap<String, ServiceInstances>>>);

impl View {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no context to spawn in"
    )]
    async fn of(bus: &Bus) -> Self {
        let view = Self::default();
        let mut heard = bus.states(INSTANCES).await.expect("subscribes");
        let kept = view.clone();
        tokio::spawn(async move {
            while let Some(incoming) = heard.next().await {
                let mut services = kept.0.lock().expect("not poisoned");
                match incoming {
                    Incoming::Message(m) => {
                        services.insert(m.values[0].clone(), m.payload);
                    }
                    Incoming::Cleared { values, .. } => {
                        services.remove(&values[0]);
                    }
                    Incoming::Lagged(_) | Incoming::Reconnected => {}
                }
            }
        });
        view
    }

    fn presences(&self, service: &str) -> Vec<Presence> {
        let services = self.0.lock().expect("not poisoned");
        let instances = services
            .get(service)
            .into_iter()
            .flat_map(|view| &view.instances);
        instances.map(|instance| instance.presence).collect()
    }

    async fn becomes(&self, service: &str, wanted: &[Presence]) {
        let what = format!("{service} is {wanted:?}");
        until(&what, async || self.presences(service) == wanted).await;
    }
}

fn slot(n: u64, state: InstanceState) -> InstanceStatus {
    InstanceStatus {
        slot: 1,
        instance: Some(id(n)),
        epoch: Epoch(n),
        state,
        since: 1.0,
        pid: None,
        restarts: 0,
        exit: None,
        reason: String::new(),
        next_start: None,
        ports: [(name("http"), 8_123)].into(),
        cpu: None,
        memory_bytes: None,
        containment: None,
        ..InstanceStatus::default()
    }
}

fn picture(revision: u64, slots: Vec<InstanceStatus>) -> FleetStatus {
    // Entries are dated by the registry's clock; pictures of this story are always younger.
    let at = 4e9 + f64::from(u32::try_from(revision).expect("small"));
    let service = ServiceStatus {
        service: name("web"),
        description: None,
        wanted: 1,
        depends_on: BTreeMap::new(),
        restart: RestartPolicy::Always,
        groups: Vec::new(),
        instances: slots,
    };
    FleetStatus {
        fleet: "home".to_owned(),
        revision,
        at,
        services: vec![service],
    }
}

fn killed(n: u64) -> Transition {
    let exit = Exit {
        code: None,
        signal: Some("SIGKILL".to_owned()),
        cause: "killed by SIGKILL".to_owned(),
        at: 2.0,
        ..Exit::default()
    };
    Transition {
        service: name("web"),
        slot: 1,
        instance: Some(id(n)),
        epoch: Epoch(n),
        from: InstanceState::Running,
        to: InstanceState::Backoff,
        reason: "ended".to_owned(),
        exit: Some(exit),
        last_lines: Vec::new(),
        cause: Default::default(),
        next_start: None,
        pid: None,
        restarts: 0,
        at: 2.0,
    }
}

#[tokio::test]
async fn a_service_registers_renews_falls_silent_and_goes() {
    let bench = bench!();
    let config = Config {
        suspect_for: alicia_contract::Period::from_secs(1),
        ..Config::default()
    };
    let registry = bench.start::<RegistryModule>(config).await;
    registry.is_well().await;
    let robot = bench.client("robot").await;
    let view = View::of(&robot).await;
    // A client of its own: overlapping subscriptions of one client hear a message once for each.
    let listener = bench.client("listener").await;
    let mut events = listener.events(EVENTS).await.expect("subscribes");
    robot
        .publish(RAW_REGISTER, &[], &body("robot", 1, 1.5))
        .await
        .expect("sent");
    view.becomes("robot", &[Presence::Present]).await;
    view.becomes("robot", &[Presence::Suspect]).await;
    robot
        .publish(HEARTBEAT, &["robot"], &beat("robot", 1))
        .await
        .expect("sent");
    view.becomes("robot", &[Presence::Present]).await;
    view.becomes("robot", &[]).await;
    let mut told: Vec<Presence> = Vec::new();
    while told.last() != Some(&Presence::Gone) {
        let next = tokio::time::timeout(PATIENCE, events.message())
            .await
            .expect("in time");
        let change: PresenceChange = next.expect("the bus is open").payload;
        told.push(change.to);
    }
    use Presence::{Gone, Present, Suspect};
    assert_eq!(told, [Present, Suspect, Present, Suspect, Gone]);
    registry.stop().await;
}

#[tokio::test]
async fn who_wants_an_answer_is_told_why_not() {
    let bench = bench!();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    registry.is_well().await;
    let robot = bench.client("robot").await;
    let refused = async |body: Value| match robot.call(CALL_REGISTER, &[], &body, PATIENCE).await {
        Err(CallError::Refused { problem, .. }) => problem,
        other => panic!("{body} gave {other:?}"),
    };
    let problem = refused(json!({ "service": "robot", "instance": "x", "version": "?" })).await;
    assert_eq!(problem.code, "registry.invalid_registration");
    assert_eq!(problem.faults.len(), 2, "{problem:?}");
    let problem = refused(body("other", 1, 30.0)).await;
    assert_eq!(problem.code, "registry.not_yours");
    let entry = robot
        .call(CALL_REGISTER, &[], &body("robot", 1, 30.0), PATIENCE)
        .await;
    assert_eq!(entry.expect("accepted").owner, "robot");
    let gone = Unregistration {
        service: name("robot"),
        instance: id(1),
    };
    robot.publish(UNREGISTER, &[], &gone).await.expect("sent");
    let entry = format!("/agents/{}", id(1));
    until("it left", async || {
        registry.admin("GET", &entry, &Value::Null).await.1["presence"] == "gone"
    })
    .await;
    assert!(
        registry
            .metrics()
            .contains("alicia_registry_refusals_total 1"),
        "{}",
        registry.metrics()
    );
    registry.stop().await;
}

#[tokio::test]
async fn a_supervised_program_is_found_and_gone_with_its_process() {
    let bench = bench!();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    let orchestrator = bench.client("system/orchestrator").await;
    let view = View::of(&orchestrator).await;
    registry.is_well().await;
    let running = picture(1, vec![slot(1, InstanceState::Running)]);
    orchestrator.set(STATUS, &[], &running).await.expect("set");
    view.becomes("web", &[Presence::Present]).await;
    let (_, found) = registry.admin("GET", "/services/web", &Value::Null).await;
    assert_eq!(
        found["instances"][0]["endpoints"]["http"],
        "http://127.0.0.1:8123"
    );
    assert_eq!(found["instances"][0]["supervised"], true);
    orchestrator
        .publish(TRANSITIONS, &[], &killed(1))
        .await
        .expect("sent");
    view.becomes("web", &[]).await;
    let next = picture(2, vec![slot(2, InstanceState::Running)]);
    orchestrator.set(STATUS, &[], &next).await.expect("set");
    view.becomes("web", &[Presence::Present]).await;
    registry.stop().await;
}

#[tokio::test]
async fn the_view_is_there_again_after_the_broker_and_after_the_registry() {
    let bench = bench!();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    registry.is_well().await;
    let robot = bench.client("robot").await;
    robot
        .publish(RAW_REGISTER, &[], &body("robot", 1, 600.0))
        .await
        .expect("sent");
    View::of(&robot)
        .await
        .becomes("robot", &[Presence::Present])
        .await;
    bench.broker().restart().await;
    let other = bench.client("other").await;
    View::of(&other)
        .await
        .becomes("robot", &[Presence::Present])
        .await;
    registry.stop().await;
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    let view = View::of(&other).await;
    view.becomes("robot", &[Presence::Unverified]).await;
    other
        .publish(HEARTBEAT, &["robot"], &beat("robot", 1))
        .await
        .expect("sent");
    robot.connected(PATIENCE).await.expect("is back");
    robot
        .publish(HEARTBEAT, &["robot"], &beat("robot", 1))
        .await
        .expect("sent");
    view.becomes("robot", &[Presence::Present]).await;
    registry.stop().await;
}

/// Whatever the bus does to messages, the view ends up true.
#[tokio::test]
async fn on_a_hostile_bus_the_view_ends_up_true() {
    let mut bench = bench!();
    bench.hostility = Some(Hostility::new(7));
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    registry.is_well().await;
    let orchestrator = bench.client("system/orchestrator").await;
    let view = View::of(&orchestrator).await;
    for n in 1..=30 {
        let running = picture(2 * n, vec![slot(n, InstanceState::Running)]);
        orchestrator.set(STATUS, &[], &running).await.expect("set");
        orchestrator
            .publish(TRANSITIONS, &[], &killed(n))
            .await
            .expect("sent");
        let client = format!("robot-{n}");
        orchestrator
            .publish(RAW_REGISTER, &[], &body(&client, 100 + n, 600.0))
            .await
            .expect("sent");
    }
    let last = picture(99, vec![slot(31, InstanceState::Running)]);
    orchestrator.set(STATUS, &[], &last).await.expect("set");
    until("only the last run is there", async || {
        let (_, found) = registry.admin("GET", "/services/web", &Value::Null).await;
        let instances = found["instances"].as_array().cloned().unwrap_or_default();
        instances.len() == 1 && instances[0]["instance"] == json!(id(31))
    })
    .await;
    view.becomes("web", &[Presence::Present]).await;
    for n in 1..=30 {
        view.becomes(&format!("robot-{n}"), &[Presence::Present])
            .await;
    }
    registry.stop().await;
}
