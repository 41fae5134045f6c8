//! What the orchestrator says and hears on a real broker: mosquitto, where it is installed.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use alicia_bus::{Bus, BusAddress, Incoming, Options, Subscription};
use alicia_contract::ServiceName;
use alicia_contract::fleet::StopSignal;
use alicia_contract::health::{self, FleetHealth, HealthState, ServiceHealth};
use alicia_contract::orchestrator::{
    EXPLAIN, ExplainRequest, FleetAnswer, FleetRequest, FleetStatus, InstanceState, PLAN,
    PlanRequest, REQUESTS, SPENT, STATUS, Spent, TRANSITIONS, Transition,
};
use alicia_contract::topic::Prefix;
use alicia_orchestrator::Config;
use serde_json::json;
use tokio::sync::watch;

use crate::support::{DEADLINE, Home, House, eventually, shell, within};

/// A broker of its own, which ends with the test.
pub(crate) struct Broker {
    child: Child,
    port: u16,
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Broker {
    /// None where mosquitto is not installed; then these tests prove nothing and say so.
    pub(crate) async fn start(directory: &Path) -> Option<Self> {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        Self::start_on(directory, port).await
    }

    pub(crate) async fn start_on(directory: &Path, port: u16) -> Option<Self> {
        let configuration = directory.join("mosquitto.conf");
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n");
        std::fs::write(&configuration, text).expect("it can be written");
        let places = ["mosquitto", "/usr/sbin/mosquitto"];
        let child = places.iter().find_map(|program| {
            let mut command = Command::new(program);
            command
                .arg("-c")
                .arg(&configuration)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.spawn().ok()
        });
        let Some(child) = child else {
            eprintln!("mosquitto is not installed: the bus is not tested");
            return None;
        };
        let broker = Self { child, port };
        eventually("the broker listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok()
        })
        .await;
        Some(broker)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> BusAddress {
        BusAddress {
            host: "127.0.0.1".into(),
            port: self.port,
        }
    }

    /// A client of somebody else.
    pub(crate) fn client(&self, source: &str) -> Bus {
        let (address, _) = watch::channel(Some(self.address()));
        let (bus, connection) =
            Bus::start(Options::new(address.subscribe(), source, Prefix::default()));
        #[expect(clippy::disallowed_methods, reason = "a client outside of the house")]
        tokio::spawn(async move {
            connection.await;
            drop(address);
        });
        bus
    }
}

pub(crate) async fn next<T: serde::de::DeserializeOwned>(
    subscription: &mut Subscription<T>,
    wanted: impl Fn(&T) -> bool,
) -> T {
    within("a message", async {
        loop {
            match subscription.next().await {
                Some(Incoming::Message(message)) if wanted(&message.payload) => {
                    return message.payload;
                }
                Some(_) => {}
                None => panic!("the bus is closed"),
            }
        }
    })
    .await
}

fn state_of(status: &FleetStatus, service: &str) -> Option<InstanceState> {
    let service = status
        .services
        .iter()
        .find(|s| s.service.as_str() == service)?;
    service.instances.first().map(|instance| instance.state)
}

#[tokio::test]
async fn the_status_is_retained_and_transitions_carry_cause_and_last_lines() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(broker) = Broker::start(directory.path()).await else {
        return;
    };
    let client = broker.client("key/test");
    client.connected(DEADLINE).await.expect("connects");
    let mut transitions = client.events(TRANSITIONS).await.expect("subscribes");
    let services = json!({
        "api": { "command": shell("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; exit 3"),
                 "restart": "never" },
        "db": { "command": "sleep 1000" },
    });
    let home = Home::with_bus(Some(broker.address()));
    let house = House::open(home, services, Config::default()).await;
    let failed: Transition = next(&mut transitions, |t: &Transition| {
        t.to == InstanceState::Failed
    })
    .await;
    assert_eq!(failed.exit.expect("it ended").cause, "exit code 3");
    let expected: Vec<String> = (3..=12).map(|n| format!("line {n}")).collect();
    assert_eq!(failed.last_lines, expected);
    house.until_running("db", 1).await;
    let late = broker.client("key/late");
    let mut states = late.states(STATUS).await.expect("subscribes");
    let status = next(&mut states, |status: &FleetStatus| {
        state_of(status, "db") == Some(InstanceState::Running)
            && state_of(status, "api") == Some(InstanceState::Failed)
    })
    .await;
    assert_eq!(status.fleet, "test");
    house.finish().await;
}

#[tokio::test]
async fn requests_by_message_do_what_rest_does_and_are_audited() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(broker) = Broker::start(directory.path()).await else {
        return;
    };
    let home = Home::with_bus(Some(broker.address()));
    let services = json!({ "api": { "command": "sleep 1000" } });
    let house = House::open(home, services, Config::default()).await;
    house.until_running("api", 1).await;
    let client = broker.client("key/test");
    client.connected(DEADLINE).await.expect("connects");
    let ask = |services: &str, instances, reason: &str| FleetRequest {
        services: vec![ServiceName::new(services).expect("a name")],
        instances,
        reason: Some(reason.to_owned()),
        ..FleetRequest::default()
    };
    let mut answer = None;
    eventually("it listens", async || {
        let request = ask("api", Some(2), "more");
        answer = client
            .call(REQUESTS, &["scale"], &request, DEADLINE)
            .await
            .ok();
        answer.is_some()
    })
    .await;
    assert!(answer.expect("an answer").accepted);
    house.until_running("api", 2).await;
    let pid = house.pid("api", 1).await;
    let refused = client
        .call(REQUESTS, &["stop"], &ask("apu", None, "x"), DEADLINE)
        .await;
    let refused = refused.expect_err("there is no such service").to_string();
    assert!(refused.contains("there is `api`"), "{refused}");
    let signal = |services: &[&str], slot| FleetRequest {
        services: services
            .iter()
            .map(|name| ServiceName::new(*name).expect("a name"))
            .collect(),
        signal: Some(StopSignal::Sigwinch),
        slot,
        ..FleetRequest::default()
    };
    let send =
        async |request: FleetRequest| client.call(REQUESTS, &["signal"], &request, DEADLINE).await;
    let sent = send(signal(&["api"], Some(2))).await.expect("an answer");
    assert_eq!(sent.detail, "sent to api-2");
    for wrong in [
        signal(&[], None),
        signal(&["api", "api"], None),
        signal(&["api"], Some(0)),
        signal(&["api"], Some(3)),
        signal(&["apu"], None),
        FleetRequest {
            signal: None,
            ..signal(&["api"], None)
        },
    ] {
        let refused = send(wrong.clone()).await;
        assert!(refused.is_err(), "{wrong:?} was taken: {refused:?}");
    }
    let refused: Result<FleetAnswer, _> = client
        .call_at("alicia/system/orchestrator/stop", &json!([]), DEADLINE)
        .await;
    let refused = refused.expect_err("a list is no request").to_string();
    assert!(refused.contains("FleetRequest"), "{refused}");
    assert_eq!(house.pid("api", 1).await, pid, "nothing was stopped");
    let unread = PlanRequest {
        file: Some("services: [".to_owned()),
    };
    let plan = client.call(PLAN, &[], &unread, DEADLINE).await;
    assert!(plan.is_err(), "a file that cannot be read: {plan:?}");
    let stopped = client
        .call(REQUESTS, &["stop"], &ask("api", None, "night"), DEADLINE)
        .await;
    assert!(stopped.expect("an answer").accepted);
    house
        .until("api", 1, |instance| {
            instance.state == InstanceState::Stopped
        })
        .await;
    let (_, audit) = house.get("/audit").await;
    assert_eq!(audit[0]["action"], "orchestrator.stop", "{audit}");
    assert_eq!(audit[0]["actor"], "key/test");
    assert_eq!(audit[0]["target"], "service:api");
    assert_eq!(audit[0]["detail"]["reason"], "night");
    house.finish().await;
}

#[tokio::test]
async fn a_broker_that_comes_back_without_memory_hears_the_status_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(broker) = Broker::start(directory.path()).await else {
        return;
    };
    let home = Home::with_bus(Some(broker.address()));
    let services = json!({ "api": { "command": "sleep 1000" } });
    let house = House::open(home, services, Config::default()).await;
    let pid = house.pid("api", 1).await;
    let port = broker.port();
    drop(broker);
    // Without a bus, restarts go on.
    crate::support::send(pid, rustix::process::Signal::KILL);
    let restarted = house
        .until("api", 1, |i| i.pid.is_some_and(|new| new != pid))
        .await;
    let broker = Broker::start_on(directory.path(), port)
        .await
        .expect("it is installed");
    let client = broker.client("key/test");
    let mut states = client.states(STATUS).await.expect("subscribes");
    let status = next(&mut states, |status: &FleetStatus| {
        status.services[0].instances[0].pid == restarted.pid
    })
    .await;
    assert_eq!(status.services[0].instances[0].restarts, 1);
    house.finish().await;
}

#[tokio::test]
async fn rows_show_what_health_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(broker) = Broker::start(directory.path()).await else {
        return;
    };
    let home = Home::with_bus(Some(broker.address()));
    let services = json!({ "api": { "command": "sleep 1000" } });
    let house = House::open(home, services, Config::default()).await;
    house.until_running("api", 1).await;
    let (_, rows) = house.get("/instances").await;
    assert_eq!(rows[0]["health"], json!(null), "there is no health module");
    let monitor = broker.client("system/health");
    let health = FleetHealth {
        state: HealthState::Degraded,
        services: vec![ServiceHealth {
            service: ServiceName::new("api").expect("a name"),
            state: HealthState::Degraded,
            since: 0.0,
            reason: "slow".into(),
            flapping: false,
            checks: Vec::new(),
            bad_heartbeats: 0,
        }],
        ..FleetHealth::default()
    };
    monitor
        .connected(Duration::from_secs(10))
        .await
        .expect("connects");
    monitor
        .set(health::STATUS, &[], &health)
        .await
        .expect("is set");
    eventually("the row has it", async || {
        let (_, rows) = house.get("/instances").await;
        rows[0]["health"] == "degraded"
    })
    .await;
    house.finish().await;
}

#[tokio::test]
async fn what_is_spent_is_heard_on_the_bus_and_explained_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(broker) = Broker::start(directory.path()).await else {
        return;
    };
    let home = Home::with_bus(Some(broker.address()));
    let services = json!({
        "told": { "command": "sleep 1000", "budget": { "tokens_per_day": 100 } },
        "metered": { "command": "sleep 1000", "budget": { "cost_per_day_usd": 1.0 } },
    });
    let house = House::open(home, services, Config::default()).await;
    let instance = house.until_running("told", 1).await.instance;
    house.until_running("metered", 1).await;
    let client = broker.client("key/test");
    client.connected(DEADLINE).await.expect("connects");
    let heartbeat = health::Heartbeat {
        service: ServiceName::new("told").expect("a name"),
        instance,
        status: health::HeartbeatStatus::Healthy,
        detail: None,
        uptime_s: 1.0,
        interval_s: None,
        counters: [("tokens".to_owned(), 250.0)].into(),
        resources: Default::default(),
    };
    let spent = Spent {
        id: "invoice-7".to_owned(),
        service: ServiceName::new("metered").expect("a name"),
        instance: None,
        tokens: 0,
        cost_usd: 0.6,
        at: 0.0,
    };
    let say = async |cost: &Spent| {
        let beat = client
            .publish(health::HEARTBEAT, &["told"], &heartbeat)
            .await;
        beat.expect("it is published");
        client
            .publish(SPENT, &[], cost)
            .await
            .expect("it is published");
    };
    let parked = async |service: &str| house.state(service, 1).await == Some(InstanceState::Parked);
    eventually("the agent's own word counts", async || {
        say(&spent).await;
        parked("told").await
    })
    .await;
    assert!(!parked("metered").await, "a repeated message counts once");
    let more = Spent {
        id: "invoice-8".to_owned(),
        ..spent.clone()
    };
    eventually("who meters counts", async || {
        say(&more).await;
        parked("metered").await
    })
    .await;
    let query = ExplainRequest {
        service: more.service.clone(),
        slot: Some(1),
    };
    let told = client.call(EXPLAIN, &[], &query, DEADLINE).await;
    let told = told.expect("an explanation");
    assert!(
        told.summary
            .contains("its budget is used up: 1.20 of 1.00 $"),
        "{}",
        told.summary
    );
    let query = ExplainRequest {
        service: ServiceName::new("meterd").expect("a name"),
        slot: None,
    };
    let refused = client.call(EXPLAIN, &[], &query, DEADLINE).await;
    let refused = refused.expect_err("there is no such service").to_string();
    assert!(refused.contains("there is `metered`"), "{refused}");
    house.finish().await;
}
