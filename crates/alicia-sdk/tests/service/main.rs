//! A real service, as its own process, on a real broker: what the others see of it.

mod workshop;

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_bus::CallError;
use alicia_bus::conformance::{Mosquitto, PATIENCE};
use alicia_contract::Problem;
use alicia_contract::discovery::{INSTANCE_COMMAND, REGISTER, UNREGISTER};
use alicia_contract::health::{CHECK, CheckRequest, HEARTBEAT, HeartbeatStatus};
use alicia_contract::orchestrator::{SERVICE_COMMAND, ServiceCommand};
use serde_json::{Value, json};
use workshop::{House, Workshop, becomes, get, hear, hear_where, say};

/// A broker and a client on it, or the end of the test where Mosquitto is not installed.
macro_rules! house {
    () => {
        match Mosquitto::start("").await {
            Some(broker) => House::on(broker).await,
            None => return,
        }
    };
}

async fn command(house: &House, command: &str, arguments: Value) -> Result<Value, CallError> {
    let query = ServiceCommand {
        command: command.to_owned(),
        arguments,
    };
    house
        .bus
        .call(SERVICE_COMMAND, &["workshop"], &query, PATIENCE)
        .await
}

async fn problem(house: &House, name: &str, arguments: Value) -> Problem {
    let answer = command(house, name, arguments).await;
    let Err(CallError::Refused { problem, .. }) = answer else {
        unreachable!("expected a problem, got {answer:?}");
    };
    *problem
}

#[tokio::test]
async fn it_registers_and_gives_signs_of_life() {
    let house = house!();
    let mut registrations = house.bus.events(REGISTER).await.expect("subscribes");
    let mut heartbeats = house.bus.events(HEARTBEAT).await.expect("subscribes");
    let variables = [
        ("ALICIA_INSTANCE", "01instance"),
        ("ALICIA_EPOCH", "4"),
        ("ALICIA_SERVICE", "workshop"),
    ];
    let _workshop = Workshop::start(&house, &variables);
    let registration = hear(&mut registrations).await;
    assert_eq!(registration.source.as_deref(), Some("workshop"));
    let registration = registration.payload;
    assert_eq!(registration.service.as_str(), "workshop");
    assert_eq!(registration.instance.as_str(), "01instance");
    assert_eq!(registration.epoch.0, 4);
    assert_eq!(registration.version, "1.2.3");
    let glue = &registration.capabilities[0];
    assert_eq!(
        (glue.name.as_str(), glue.version.as_str()),
        ("glue", "2.0.0")
    );
    assert_eq!(glue.input_schema["properties"]["parts"]["maximum"], 9);
    assert_eq!(registration.labels["room"], "cellar");
    assert_eq!(
        registration.endpoints.mqtt.as_deref(),
        Some("alicia/workshop/01instance/command")
    );
    for _ in 0..3 {
        let heartbeat = hear(&mut heartbeats).await;
        assert_eq!(heartbeat.values, ["workshop"]);
        let heartbeat = heartbeat.payload;
        assert_eq!(heartbeat.status, HeartbeatStatus::Healthy, "{heartbeat:?}");
        assert_eq!(heartbeat.interval_s, Some(0.2));
        assert!(heartbeat.uptime_s > 0.0);
        assert!(heartbeat.resources["memory_bytes"] > 100_000.0);
        assert!(heartbeat.resources.contains_key("cpu"));
    }
}

#[tokio::test]
async fn a_capability_checks_its_input_before_it_is_carried_out() {
    let house = house!();
    let _workshop = Workshop::ready(&house).await;
    let glued = command(&house, "glue", json!({ "parts": 3 })).await;
    assert_eq!(glued.expect("is answered")["glued"], 3);
    let refused = problem(&house, "glue", json!({ "parts": 10 })).await;
    assert_eq!(refused.code, "service.invalid_arguments");
    assert_eq!(refused.faults[0].pointer, "/arguments/parts");
    assert_eq!(refused.faults[0].message, "found 10, expected 9 or less");
    let refused = problem(&house, "glue", Value::Null).await;
    assert_eq!(refused.faults[0].pointer, "/arguments/parts");
    assert_eq!(refused.faults[0].message, "is missing");
}

#[tokio::test]
async fn instances_share_the_topic_of_their_service_and_have_one_of_their_own() {
    let house = house!();
    let names = ["01first", "01second", "01third"];
    let mut registrations = house.bus.events(REGISTER).await.expect("subscribes");
    let _workshops: Vec<Workshop> = names
        .iter()
        .map(|name| Workshop::start(&house, &[("ALICIA_INSTANCE", name)]))
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < names.len() {
        seen.insert(hear(&mut registrations).await.payload.instance.to_string());
    }
    let mut by = std::collections::BTreeSet::new();
    for _ in 0..30 {
        let glued = command(&house, "glue", json!({ "parts": 1 })).await;
        by.insert(glued.expect("is answered")["by"].to_string());
    }
    assert!(by.len() > 1, "one instance did everything: {by:?}");
    for name in names {
        let query = ServiceCommand {
            command: "glue".to_owned(),
            arguments: json!({ "parts": 1 }),
        };
        let values = ["workshop", name];
        let glued = house
            .bus
            .call(INSTANCE_COMMAND, &values, &query, PATIENCE)
            .await;
        assert_eq!(glued.expect("is answered")["by"], name);
    }
}

#[tokio::test]
async fn it_answers_health_checks_that_are_for_it() {
    let house = house!();
    let mut heartbeats = house.bus.events(HEARTBEAT).await.expect("subscribes");
    // Ten minutes between heartbeats: what is heard after the first is an answer.
    let _slow = Workshop::start_slow(&house);
    hear(&mut heartbeats).await;
    let for_another = CheckRequest {
        services: vec!["other".parse().expect("is an id")],
    };
    let for_all = CheckRequest::default();
    for check in [&for_another, &for_all] {
        let asked = house.bus.publish(CHECK, &[], check).await;
        asked.expect("publishes");
    }
    let answer = hear(&mut heartbeats).await.payload;
    assert_eq!(answer.service.as_str(), "slow-workshop");
    let more = tokio::time::timeout(Duration::from_millis(100), heartbeats.message()).await;
    assert!(more.is_err(), "the check of another was answered too");
}

#[tokio::test]
async fn its_commands_are_carried_out_and_faults_are_told() {
    let house = house!();
    let _workshop = Workshop::ready(&house).await;
    let echo = command(&house, "echo", json!([1, "zwei"])).await;
    assert_eq!(
        echo.expect("is answered"),
        json!({ "said": [1, "zwei"], "by": "system/test" })
    );
    let pong = command(&house, "ping", Value::Null).await;
    assert_eq!(pong.expect("is answered"), json!({ "pong": true }));
    let status = command(&house, "status", Value::Null).await;
    assert_eq!(status.expect("is answered")["status"], "healthy");
    let asked = command(&house, "ask", json!("workshop")).await;
    assert_eq!(asked.expect("is answered"), json!({ "pong": true }));

    let unknown = problem(&house, "sing", Value::Null).await;
    assert_eq!(
        (unknown.status, unknown.code.as_str()),
        (404, "service.unknown_command")
    );
    for known in ["\"sing\"", "ask", "echo", "ping", "status", "wait"] {
        assert!(unknown.detail.contains(known), "{}", unknown.detail);
    }
    let wrong = problem(&house, "wait", json!({ "ms": "long" })).await;
    assert_eq!(
        (wrong.status, wrong.code.as_str()),
        (422, "service.invalid_arguments")
    );
    let refused = problem(&house, "refuse", Value::Null).await;
    assert_eq!(
        (refused.status, refused.detail.as_str()),
        (409, "not today")
    );
    for fault in ["fail", "panic"] {
        let failed = problem(&house, fault, Value::Null).await;
        assert_eq!(
            (failed.status, failed.code.as_str()),
            (500, "service.failed")
        );
        assert!(!failed.detail.contains("secret") && !failed.detail.contains("purpose"));
    }
    let slow = problem(&house, "wait", json!({ "ms": 60_000 })).await;
    assert_eq!(
        (slow.status, slow.code.as_str()),
        (504, "service.deadline_exceeded")
    );
    assert!(
        command(&house, "ping", Value::Null).await.is_ok(),
        "it did not survive"
    );
}

#[tokio::test]
async fn it_hears_says_and_counts() {
    let house = house!();
    let mut heard = house
        .bus
        .events_at::<Value>("alicia/workshop/heard")
        .await
        .expect("subscribes");
    let mut ticks = house
        .bus
        .events_at::<String>("alicia/workshop/tick")
        .await
        .expect("subscribes");
    let _workshop = Workshop::ready(&house).await;
    hear(&mut ticks).await;
    let says = house
        .bus
        .publish_at("alicia/rooms/attic/temperature", &18.5)
        .await;
    says.expect("publishes");
    let message = hear(&mut heard).await.payload;
    assert_eq!(message, json!({ "room": "attic", "celsius": 18.5 }));
    let mut heartbeats = house.bus.events(HEARTBEAT).await.expect("subscribes");
    hear_where(&mut heartbeats, |beat| {
        beat.counters.get("rooms_heard") == Some(&1.0)
    })
    .await;
}

#[tokio::test]
async fn its_last_will_says_that_it_is_offline() {
    let house = house!();
    let mut workshop = Workshop::ready(&house).await;
    let mut heartbeats = house.bus.events(HEARTBEAT).await.expect("subscribes");
    workshop.kill();
    let last = hear_where(&mut heartbeats, |beat| {
        beat.status == HeartbeatStatus::Offline
    })
    .await;
    assert_eq!(last.service.as_str(), "workshop");
    assert!(last.instance.is_some());
}

#[tokio::test]
async fn on_sigterm_it_finishes_what_it_does_and_says_goodbye() {
    let house = house!();
    let mut workshop = Workshop::ready(&house).await;
    let mut heartbeats = house.bus.events(HEARTBEAT).await.expect("subscribes");
    let mut leaving = house.bus.events(UNREGISTER).await.expect("subscribes");
    let waiting = command(&house, "wait", json!({ "ms": 500 }));
    let stopping = async {
        // The answer of a later command says that the earlier one has begun.
        command(&house, "ping", Value::Null)
            .await
            .expect("is answered");
        workshop.terminate();
        hear_where(&mut heartbeats, |beat| {
            beat.status == HeartbeatStatus::Stopping
        })
        .await;
    };
    let (waited, ()) = tokio::join!(waiting, stopping);
    assert_eq!(waited.expect("is finished and answered"), "waited");
    assert_eq!(
        hear(&mut leaving).await.payload.service.as_str(),
        "workshop"
    );
    assert_eq!(workshop.exit_code().await, Some(0));
    // Everything that it said is here before anything that is said after its end.
    let beat = alicia_contract::health::Heartbeat {
        service: "marker".parse().expect("is an id"),
        instance: None,
        status: HeartbeatStatus::Healthy,
        detail: None,
        uptime_s: 0.0,
        interval_s: None,
        counters: BTreeMap::new(),
        resources: BTreeMap::new(),
    };
    house
        .bus
        .publish(HEARTBEAT, &["marker"], &beat)
        .await
        .expect("publishes");
    hear_where(&mut heartbeats, |beat| {
        assert_ne!(
            beat.status,
            HeartbeatStatus::Offline,
            "the will was published"
        );
        beat.service.as_str() == "marker"
    })
    .await;
}

#[tokio::test]
async fn it_can_stop_itself() {
    let house = house!();
    let mut workshop = Workshop::ready(&house).await;
    command(&house, "stop", Value::Null)
        .await
        .expect("is answered");
    assert_eq!(workshop.exit_code().await, Some(0));
}

#[tokio::test]
async fn after_a_restart_of_the_broker_it_registers_again_and_serves() {
    let house = house!();
    let _workshop = Workshop::ready(&house).await;
    let mut registrations = house.bus.events(REGISTER).await.expect("subscribes");
    house.broker.restart().await;
    hear(&mut registrations).await;
    let deadline = tokio::time::timeout(PATIENCE, async {
        while command(&house, "ping", Value::Null).await.is_err() {}
    });
    deadline.await.expect("it serves again");
}

#[tokio::test]
async fn its_page_tells_its_health() {
    let house = house!();
    let mut workshop = Workshop::ready(&house).await;
    let (status, body) = get(workshop.port, "/health").expect("answers");
    let body: Value = serde_json::from_str(&body).expect("is JSON");
    assert_eq!((status, &body["status"]), (200, &json!("healthy")));
    assert_eq!(
        (&body["service"], &body["connected"]),
        (&json!("workshop"), &json!(true))
    );
    let (status, text) = get(workshop.port, "/metrics").expect("answers");
    assert_eq!(status, 200);
    assert!(
        text.contains("\nalicia_service_resource{name=\"memory_bytes\"} "),
        "{text}"
    );
    assert_eq!(get(workshop.port, "/other").expect("answers").0, 404);
    assert_eq!(
        say(workshop.port, "PUT /health HTTP/1.1\r\n\r\n")
            .expect("answers")
            .0,
        405
    );
    assert_eq!(
        say(workshop.port, "nonsense\r\n\r\n").expect("answers").0,
        400
    );
    let too_long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000));
    assert_ne!(
        say(workshop.port, &too_long).map(|(status, _)| status),
        Some(200)
    );

    // Those who connect and say nothing keep no probe out.
    let _idle: Vec<_> = (0..100).map(|_| workshop.connect()).collect();
    assert_eq!(get(workshop.port, "/health").expect("answers").0, 200);

    // A bus that is away is not cured by a restart of the service.
    house.broker.kill();
    let port = workshop.port;
    becomes(|| matches!(get(port, "/health"), Some((200, body)) if body.contains("degraded")))
        .await;
    house.broker.restart().await;
    becomes(|| matches!(get(port, "/health"), Some((200, body)) if body.contains("\"healthy\"")))
        .await;

    house.bus.connected(PATIENCE).await.expect("connects again");
    command(&house, "degrade", Value::Null)
        .await
        .expect("is answered");
    let (status, body) = get(port, "/health").expect("answers");
    assert_eq!(status, 503);
    assert!(body.contains("out of glue"), "{body}");
    workshop.kill();
}

#[tokio::test]
async fn without_a_bus_it_waits_and_says_that_it_is_starting() {
    let house = house!();
    house.broker.kill();
    let mut workshop = Workshop::start(&house, &[]);
    let port = workshop.port;
    becomes(|| matches!(get(port, "/health"), Some((503, body)) if body.contains("starting")))
        .await;
    workshop.terminate();
    assert_eq!(
        workshop.exit_code().await,
        Some(0),
        "it does not stop while it waits"
    );
}

#[test]
fn without_settings_it_says_what_is_missing() {
    let output = workshop::program().env_clear().output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("ALICIA_MQTT_URL") && text.contains("alicia up"),
        "{text}"
    );
}

#[test]
fn a_service_has_at_most_twenty_lines() {
    let text = include_str!("../../examples/thermostat.rs");
    let lines = text.lines().map(str::trim);
    let code = lines.filter(|line| !line.is_empty() && !line.starts_with("//"));
    assert!(code.count() <= 20);
}
