//! The monitor on a real bus, with real probes: what is told, when, and that nothing of it is lost.

#[path = "bus/world.rs"]
mod world;

use alicia_bus::Hostility;
use alicia_contract::fleet::{Probe, ServiceSpec};
use alicia_contract::health::{AlertState, CHECK, HEARTBEAT, HealthState, Heartbeat};
use alicia_contract::orchestrator::{InstanceState, REQUESTS};
use alicia_contract::topic::EventTopic;
use alicia_health::{Config, HealthModule};
use alicia_testkit::{Bench, PATIENCE, until};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use world::{Listener, World, name};

/// Quick enough for tests; the order of the spans is that of the defaults.
fn config() -> Config {
    Config {
        stable_after: alicia_contract::Period::from_secs(1),
        down_after: alicia_contract::Period::from_secs(2),
        ..Config::default()
    }
}

macro_rules! bench {
    () => {
        match Bench::with_mosquitto().await {
            Some(bench) => bench,
            None => return,
        }
    };
}

#[tokio::test]
async fn a_killed_service_is_told_and_cleared() {
    let bench = bench!();
    let mut world = World::new(&bench, &["api"]).await;
    let listener = Listener::of(&bench).await;
    let monitor = bench.start::<HealthModule>(config()).await;
    world.start("api").await;
    monitor.is_well().await;
    listener.service("api", HealthState::Healthy).await;
    world.enter("api", InstanceState::Backoff).await;
    listener.alert("restarted", AlertState::Firing).await;
    world.start("api").await;
    listener.alert("restarted", AlertState::Resolved).await;
    listener.service("api", HealthState::Healthy).await;
    let fired = listener.alerts()[0].clone();
    assert_eq!(fired.detail, "killed by SIGKILL");
    assert_eq!(fired.last_lines, ["the last line"]);
    let (_, page) = monitor
        .admin("GET", "/alerts?active=false", &Value::Null)
        .await;
    assert_eq!(page["alerts"][0]["id"], fired.id.as_str());
    monitor.stop().await;
}

#[tokio::test]
async fn checks_run_against_real_ports_and_programs() {
    let bench = bench!();
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let number = port.local_addr().expect("bound").port();
    let directory = bench.path().join("flag");
    let mut spec = ServiceSpec::new(vec!["api".to_owned()]);
    let probe = |kind: Value| -> Probe {
        let mut all = json!({ "interval": "100ms", "fall": 2 });
        for (field, value) in kind.as_object().expect("an object") {
            all[field] = value.clone();
        }
        serde_json::from_value(all).expect("a probe")
    };
    let exec = format!("test ! -e {}", directory.display());
    spec.checks
        .insert(name("port"), probe(json!({ "tcp": {} })));
    let command = json!(["sh", "-c", exec]);
    spec.checks.insert(
        name("flag"),
        probe(json!({ "exec": { "command": command } })),
    );
    let mut world = World::of(&bench, [("api", spec)]).await;
    world.ports.insert(name("http"), number);
    let listener = Listener::of(&bench).await;
    let monitor = bench.start::<HealthModule>(config()).await;
    world.start("api").await;
    let checks = async |wanted: &str| {
        let (_, view) = monitor.admin("GET", "/services/api", &Value::Null).await;
        let checks = view["checks"].as_array().cloned().unwrap_or_default();
        let of = |wanted: &str| checks.iter().filter(|c| c["state"] == wanted).count();
        of(wanted)
    };
    until("process and both checks are healthy", async || {
        checks("healthy").await == 3
    })
    .await;
    drop(port);
    std::fs::write(&directory, "").expect("a file");
    until("both checks fail", async || checks("unhealthy").await == 2).await;
    until("both are told", async || {
        let firing = |a: &&alicia_contract::health::Alert| a.rule == "check_failed";
        listener.alerts().iter().filter(firing).count() == 2
    })
    .await;
    let again = TcpListener::bind(("127.0.0.1", number))
        .await
        .expect("the port is free again");
    std::fs::remove_file(&directory).expect("the file is there");
    until("both are over", async || {
        let (_, page) = monitor
            .admin("GET", "/alerts?active=true", &Value::Null)
            .await;
        page["alerts"].as_array().is_some_and(Vec::is_empty)
    })
    .await;
    drop(again);
    assert!(
        monitor.metrics().contains("alicia_health_checks 2"),
        "{}",
        monitor.metrics()
    );
    monitor.stop().await;
}

#[tokio::test]
async fn bad_heartbeats_are_counted_and_shown() {
    let bench = bench!();
    let mut world = World::new(&bench, &["api"]).await;
    let monitor = bench.start::<HealthModule>(config()).await;
    world.start("api").await;
    let api = bench.client("api").await;
    let raw: EventTopic<Value> = EventTopic::new(HEARTBEAT.template());
    let good = json!({ "service": "api", "status": "degraded", "interval_s": 60 });
    let state = async || monitor.admin("GET", "/services/api", &Value::Null).await.1;
    until("it is watched", async || {
        state().await["state"] == "healthy"
    })
    .await;
    for bad in [
        json!({ "service": "db", "status": "down" }),
        json!({ "service": "api", "status": "unhealthy", "uptime_s": 1e300 }),
        json!([]),
    ] {
        api.publish(raw, &["api"], &bad).await.expect("sent");
    }
    let topic = HEARTBEAT.at(api.prefix(), &["api"]);
    let no_json = "{\"service\":\"api\",\"status\":\"unhealthy\",\"uptime_s\":NaN}";
    api.raw_publish(&topic, no_json, Default::default(), Default::default())
        .await
        .expect("sent");
    until("four are counted", async || {
        state().await["bad_heartbeats"] == 4
    })
    .await;
    assert_eq!(state().await["state"], "healthy");
    assert!(state().await["bad_heartbeat_last"].is_string());
    api.publish(raw, &["api"], &good).await.expect("sent");
    until("a good one counts", async || {
        state().await["state"] == "degraded"
    })
    .await;
    monitor.stop().await;
}

#[tokio::test]
async fn services_are_asked_for_heartbeats_and_the_orchestrator_for_restarts() {
    let bench = bench!();
    let api = bench.client("api").await;
    let mut asked = api.events(CHECK).await.expect("subscribes");
    let mut world = World::new(&bench, &["api"]).await;
    let monitor = bench.start::<HealthModule>(config()).await;
    let question = tokio::time::timeout(PATIENCE, asked.message())
        .await
        .expect("in time");
    assert_eq!(question.expect("open").payload.services, []);
    world.start("api").await;
    monitor.is_well().await;
    let (status, problem) = monitor.admin("POST", "/restart/api", &Value::Null).await;
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("health.unavailable"))
    );
    let mut requests = world.bus.serve(REQUESTS).await.expect("serves");
    let answers = async {
        let request = requests.next().await.expect("a request");
        assert_eq!(request.values, ["restart"]);
        let services = request.query.services.clone();
        let answer = alicia_contract::orchestrator::FleetAnswer {
            accepted: true,
            services,
            detail: request.query.reason.clone().unwrap_or_default(),
        };
        request.respond(Ok(answer)).await.expect("answered");
    };
    let (_, (status, answer)) =
        tokio::join!(answers, monitor.admin("POST", "/restart/api", &Value::Null));
    assert_eq!((status, &answer["services"]), (200, &json!(["api"])));
    assert!(
        answer["detail"]
            .as_str()
            .expect("a text")
            .contains("key/admin"),
        "{answer}"
    );
    monitor.stop().await;
}

#[tokio::test]
async fn alerts_wait_for_the_broker_and_survive_the_monitor() {
    let bench = bench!();
    let mut world = World::new(&bench, &["api"]).await;
    let monitor = bench.start::<HealthModule>(config()).await;
    world.start("api").await;
    monitor.is_well().await;
    world.enter("api", InstanceState::Failed).await;
    let (_, firing) = {
        until("it fires", async || {
            let (_, page) = monitor
                .admin("GET", "/alerts?active=true", &Value::Null)
                .await;
            page["alerts"].as_array().map(Vec::len) == Some(1)
        })
        .await;
        monitor
            .admin("GET", "/alerts?active=true", &Value::Null)
            .await
    };
    let id = firing["alerts"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let ack = format!("/alerts/{id}/ack");
    let (status, alert) = monitor
        .admin("POST", &ack, &json!({ "note": "on it" }))
        .await;
    assert_eq!(
        (status, &alert["acknowledged"]["by"]),
        (200, &json!("key/admin"))
    );
    monitor.stop().await;
    // It comes back with the broker away, and knows the alert before anything was heard.
    bench.broker().kill();
    let monitor = bench.start::<HealthModule>(config()).await;
    let (_, page) = monitor.admin("GET", "/services", &Value::Null).await;
    assert!(page["services"].is_array());
    bench.broker().restart().await;
    let listener = Listener::of(&bench).await;
    world.connected().await;
    world.show().await;
    until("it is known to be down", async || {
        monitor.admin("GET", "/services/api", &Value::Null).await.1["state"] == "down"
    })
    .await;
    world.start("api").await;
    listener.alert("crash_loop", AlertState::Resolved).await;
    let told = listener.alerts();
    assert!(
        told.iter().all(|alert| alert.id == id),
        "one episode: {told:?}"
    );
    assert_eq!(
        told[0].acknowledged.as_ref().expect("kept").note.as_deref(),
        Some("on it")
    );
    monitor.stop().await;
}

/// Whatever the bus does to messages, what is told at the end is true, and each episode is whole.
#[tokio::test]
async fn on_a_hostile_bus_alerts_pair_and_the_picture_ends_up_true() {
    let mut bench = bench!();
    bench.hostility = Some(Hostility::new(3));
    let mut world = World::new(&bench, &["api", "db"]).await;
    let listener = Listener::of(&bench).await;
    let monitor = bench.start::<HealthModule>(config()).await;
    let services = ["api", "db"];
    for service in services {
        world.start(service).await;
    }
    monitor.is_well().await;
    for _ in 0..5 {
        for service in services {
            world.enter(service, InstanceState::Backoff).await;
            world.start(service).await;
            let beat: Heartbeat =
                serde_json::from_value(json!({ "service": service, "status": "healthy" })).unwrap();
            world
                .bus
                .publish(HEARTBEAT, &[service], &beat)
                .await
                .expect("sent");
        }
    }
    for service in services {
        listener.service(service, HealthState::Healthy).await;
    }
    until("nothing fires", async || {
        let (_, page) = monitor
            .admin("GET", "/alerts?active=true", &Value::Null)
            .await;
        page["alerts"].as_array().is_some_and(Vec::is_empty)
    })
    .await;
    for service in services {
        let of = |state: AlertState| {
            let told = listener.alerts();
            let of = told
                .iter()
                .filter(|a| a.service.as_str() == service && a.state == state);
            of.map(|alert| alert.id.clone())
                .collect::<std::collections::BTreeSet<_>>()
        };
        until("each that fired was resolved", async || {
            !of(AlertState::Firing).is_empty() && of(AlertState::Firing) == of(AlertState::Resolved)
        })
        .await;
    }
    monitor.stop().await;
}
