//! `alicia new service --lang python` writes a service that runs as it is.

use std::process::Command;

use alicia_contract::health::HealthState;
use alicia_contract::orchestrator::InstanceState;
use alicia_testkit::house::{House, has};
use alicia_testkit::until;
use serde_json::{Value, json};

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

/// Whether Python can make virtual environments and fetch packages.
fn can_install(house: &House) -> bool {
    let python = |arguments: &[&str]| {
        let output = Command::new("python3").args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    let wheel = house.path().join("wheel").display().to_string();
    let download = [
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "-d",
        &wheel,
        "paho-mqtt",
    ];
    has(
        python(&["-c", "import ensurepip, venv"]),
        "python3 cannot make virtual environments (Debian: python3-venv)",
    ) && has(python(&download), "no package index can be reached")
}

#[tokio::test]
async fn a_new_python_service_runs_unedited() {
    let house = House::new(ALICIA, "name: new\nservices: {}\n");
    if !can_install(&house) {
        return;
    }
    house
        .says(&["new", "service", "hello", "--lang", "python"])
        .exits(0);
    house.says(&["check", "--here"]).exits(0);
    let up = house.says(&["up", "-d", "--wait", "4m"]);
    let logs = house.says(&["logs", "hello"]).text();
    assert_eq!(up.code, Some(0), "{up}\n{logs}");

    let row = house.reaches("hello-1", InstanceState::Running).await;
    assert_eq!(row.restarts, 0);
    until("its heartbeats say that it is well", || async {
        let (_, health) = house.get("/api/health/services").await;
        let service = &health["services"][0];
        let checks = service["checks"].as_array().cloned().unwrap_or_default();
        let beats = |check: &Value| check["name"] == "heartbeat" && check["state"] == "healthy";
        service["state"] == "healthy" && checks.iter().any(beats)
    })
    .await;
    // The orchestrator hears of it over the bus, a moment later.
    until("the row says that it is well", || async {
        let row = house.row("hello-1").await;
        row.is_some_and(|row| row.health == Some(HealthState::Healthy))
    })
    .await;
    until("it is registered", || async {
        let (_, page) = house.get("/api/registry/services/hello").await;
        page.to_string().contains("greet")
    })
    .await;

    // It answers to the reply topic of the key.
    let hearing = house.listen("alicia/keys/admin/replies/#").await;
    let request = json!({
        "message_id": "test-1", "timestamp": 1.0, "source": "key/admin", "message_type": "request",
        "reply_to": "alicia/keys/admin/replies/test", "correlation_id": "test-1",
        "payload": { "command": "greet", "arguments": { "name": "Ada" } },
    });
    house
        .says(&["bus", "pub", "alicia/hello/command", &request.to_string()])
        .exits(0);
    hearing
        .hears("the greeting", |line| {
            line.to_string().contains("Hello, Ada!")
        })
        .await;
    house.says(&["down"]).exits(0);
    until("nothing is left", || async {
        house.processes_of("hello").is_empty()
    })
    .await;
}
