//! The verbs of health on one fleet: each with what is right and what is wrong, in text and as JSON.

#[path = "../../alicia-health/tests/notify/receiver.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod receiver;

use alicia_contract::orchestrator::InstanceState;
use alicia_testkit::house::House;
use alicia_testkit::until;
use receiver::Receiver;
use serde_json::{Value, json};

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

/// One service that works and promises something, one that was given up.
fn file(receiver: &Receiver) -> String {
    format!(
        "name: verbs
health:
  stable_after: 1s
  notifications: {{ group_wait: 1s, group_interval: 1s }}
  channels:
    hook: {{ webhook: {{ url: '{}' }}, allow_private: true }}
services:
  web:
    command: sleep 100000
    slo: {{ availability: 99.9 }}
    checks: {{ up: {{ exec: {{ command: [sh, -c, 'echo fine'] }}, interval: 200ms }} }}
  broken:
    command: [sh, -c, 'echo \"bind: Address already in use\" >&2; exit 1']
    start_limit: {{ starts: 1, within: 60s }}
",
        receiver.url()
    )
}

/// The house, when both services are as they will be.
async fn house(receiver: &Receiver) -> House {
    let house = House::start(ALICIA, &file(receiver)).await;
    house.reaches("broken-1", InstanceState::Failed).await;
    until("both are judged", async || {
        let state = async |name: &str| {
            let (_, view) = house.get(&format!("/api/health/services/{name}")).await;
            view["state"].as_str().unwrap_or_default().to_owned()
        };
        let (_, page) = house.get("/api/health/alerts?active=true").await;
        let fires = page["alerts"].as_array().is_some_and(|all| all.len() == 1);
        let (_, web) = house.get("/api/health/services/web").await;
        let is_tried = web["checks"].to_string().contains("fine");
        let judged = state("web").await == "healthy" && state("broken").await == "down";
        let (_, broken) = house.get("/api/health/services/broken").await;
        let is_told = broken["history"]
            .as_array()
            .is_some_and(|all| !all.is_empty());
        is_tried && is_told && judged && fires
    })
    .await;
    house
}

/// A list that a command prints as JSON.
fn listed(house: &House, arguments: &[&str]) -> Vec<Value> {
    let said = house.says(&[arguments, &["--json"]].concat());
    said.json().as_array().cloned().expect("a list")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_verb_of_health_says_what_it_did_or_why_not() {
    let receiver = Receiver::start().await;
    let house = house(&receiver).await;
    health(&house);
    objectives_and_advice(&house);
    reports(&house);
    let id = alerts(&house);
    acknowledgements(&house, &id);
    silences(&house);
    maintenance(&house);
    channels(&house).await;
}

fn health(house: &House) {
    house
        .says(&["health"])
        .exits(1)
        .tells(&["web", "healthy", "broken", "down", "SERVICE"]);
    let all = listed(house, &["health"]);
    let names: Vec<&Value> = all.iter().map(|of| &of["service"]).collect();
    assert_eq!(names, ["broken", "web"]);
    house.says(&["health", "web"]).exits(0).tells(&[
        "web is healthy since",
        "Checks",
        "fine",
        "Uptime",
        "24h",
    ]);
    house
        .says(&["health", "broken"])
        .exits(1)
        .tells(&["broken is down", "crash_loop", "History"]);
    let one = house.says(&["health", "web", "--json"]).exits(0).json();
    assert_eq!(
        (&one["service"], &one["state"]),
        (&json!("web"), &json!("healthy"))
    );
    house
        .says(&["health", "nosuch"])
        .exits(1)
        .tells(&["no service named nosuch is watched"]);
    house.says(&["health", "Not A Name"]).exits(2);
}

fn objectives_and_advice(house: &House) {
    house
        .says(&["slo"])
        .exits(0)
        .tells(&["web", "works 99.9 % of the time", "BUDGET LEFT"]);
    let objectives = listed(house, &["slo"]);
    assert_eq!(objectives[0]["objective"], "availability");
    house.says(&["slo", "web"]).exits(2);
    house
        .says(&["suggest"])
        .exits(0)
        .tells(&["broken-1 failed (critical)", "run: ", "seen: "]);
    let advice = listed(house, &["suggest", "broken"]);
    assert_eq!(advice[0]["alert_rule"], "crash_loop");
    assert!(!advice[0]["advice"].as_array().expect("a list").is_empty());
    house
        .says(&["suggest", "web"])
        .exits(0)
        .tells(&["nothing is wrong"]);
    assert_eq!(listed(house, &["suggest", "web"]), [] as [Value; 0]);
    house
        .says(&["suggest", "nosuch"])
        .exits(1)
        .tells(&["no service named nosuch is watched"]);
}

fn reports(house: &House) {
    house
        .says(&["report"])
        .exits(0)
        .tells(&["# verbs: ", "## Services", "| web | "]);
    house
        .says(&["report", "--format", "html"])
        .exits(0)
        .tells(&["<!DOCTYPE html>", "<h2>Services</h2>"]);
    let report = house
        .says(&["report", "--period", "7d", "--json"])
        .exits(0)
        .json();
    assert_eq!(report["fleet"], "verbs");
    house
        .says(&["report", "--period", "1s"])
        .exits(1)
        .tells(&["found 1s, expected 1m to"]);
    house
        .says(&["report", "--period", "soon"])
        .exits(1)
        .tells(&["period"]);
    house.says(&["report", "--format", "pdf"]).exits(2);
}

/// Gives the id of the one alert.
fn alerts(house: &House) -> String {
    house
        .says(&["alerts"])
        .exits(0)
        .tells(&["crash_loop", "critical", "broken-1 failed"]);
    let all = listed(house, &["alerts", "list", "--all"]);
    assert_eq!(all.iter().filter(|of| of["state"] == "firing").count(), 1);
    let id = listed(house, &["alerts"])[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let end = &id[id.len() - 6..];
    for name in [id.as_str(), end, "broken", "broken-1"] {
        house
            .says(&["alerts", "show", name])
            .exits(0)
            .tells(&["broken-1 failed", "Address already in use"]);
    }
    let shown = house.says(&["alerts", "show", end, "--json"]).json();
    assert_eq!(shown["id"], id);
    house
        .says(&["alerts", "show", "nosuch"])
        .exits(1)
        .tells(&["there is no alert with the id nosuch"]);
    id
}

fn acknowledgements(house: &House, id: &str) {
    house
        .says(&["alerts", "ack", "broken", "--note", "on it", "--for", "1h"])
        .exits(0)
        .tells(&["acknowledged: broken-1 failed", "alerts unack"]);
    house
        .says(&["alerts"])
        .exits(0)
        .tells(&["ack by key/admin: on it, for"]);
    let open = house.says(&["alerts", "unack", id, "--json"]).exits(0);
    assert_eq!(open.json()["acknowledged"], Value::Null);
    let again = house.says(&["alerts", "ack", id, "--json"]).exits(0);
    assert_eq!(again.json()["acknowledged"]["by"], "key/admin");
    house
        .says(&["alerts", "ack", "web"])
        .exits(1)
        .tells(&["there is no alert with the id web"]);
    house
        .says(&["alerts", "unack", "nosuch"])
        .exits(1)
        .tells(&["no alert with the id nosuch"]);
    house
        .says(&["alerts", "ack", "broken", "--for", "soon"])
        .exits(2);
    let long = "x".repeat(1_001);
    house
        .says(&["alerts", "ack", "broken", "--note", &long])
        .exits(1)
        .tells(&["1000 characters"]);
}

fn silences(house: &House) {
    house
        .says(&["alerts", "silences"])
        .exits(0)
        .tells(&["no silences"]);
    house
        .says(&[
            "alerts",
            "silence",
            "service=broken",
            "--for",
            "2h",
            "--comment",
            "known",
        ])
        .exits(0)
        .tells(&["silenced until", "alerts unsilence"]);
    house.says(&["alerts", "silences"]).exits(0).tells(&[
        "active",
        "service=\"broken\"",
        "known",
        "key/admin",
    ]);
    house
        .says(&["alerts"])
        .tells(&["silenced by key/admin: known"]);
    let id = listed(house, &["alerts", "silences"])[0]["id"].clone();
    let id = id.as_str().expect("an id");
    house
        .says(&["alerts", "unsilence", &id[id.len() - 6..]])
        .exits(0)
        .tells(&["is over"]);
    assert_eq!(listed(house, &["alerts", "silences"]), [] as [Value; 0]);
    let over = listed(house, &["alerts", "silences", "--all"]);
    assert_eq!(over[0]["phase"], "expired");
    house
        .says(&["alerts", "unsilence", id])
        .exits(1)
        .tells(&["no silence with the id"]);
    for (matcher, why) in [
        ("service", "no matcher"),
        ("service=~.*", "would silence everything"),
        ("service=~(", "no regular expression"),
    ] {
        house
            .says(&["alerts", "silence", matcher])
            .exits(1)
            .tells(&[why]);
    }
    house.says(&["alerts", "silence"]).exits(2);
    let silence = ["alerts", "silence", "rule=flapping", "--json"];
    let made = house.says(&silence).exits(0).json();
    assert_eq!(made["matchers"][0]["name"], "rule");
}

fn maintenance(house: &House) {
    let maintenance =
        |arguments: &[&str]| house.says(&[&["alerts", "maintenance"], arguments].concat());
    maintenance(&[]).exits(0).tells(&["no maintenance windows"]);
    maintenance(&["start", "broken", "--for", "30m", "--comment", "new disk"])
        .exits(0)
        .tells(&["in maintenance until", "maintenance end"]);
    maintenance(&["list"])
        .exits(0)
        .tells(&["active", "broken", "new disk"]);
    house
        .says(&["alerts"])
        .tells(&["in maintenance by key/admin: new disk"]);
    let id = listed(house, &["alerts", "maintenance"])[0]["id"].clone();
    let id = id.as_str().expect("an id");
    maintenance(&["end", id]).exits(0).tells(&["is over"]);
    maintenance(&["end", id])
        .exits(1)
        .tells(&["no maintenance window"]);
    maintenance(&["start", "--for", "31d"])
        .exits(1)
        .tells(&["at most 30d"]);
    maintenance(&["start"]).exits(2);
    let all = maintenance(&["start", "--for", "1m", "--json"])
        .exits(0)
        .json();
    assert_eq!(all["phase"], "active");
    let id = all["id"].as_str().expect("an id");
    maintenance(&["end", id, "--json"]).exits(0);
}

async fn channels(house: &House) {
    house
        .says(&["alerts", "test-channel", "hook"])
        .exits(0)
        .tells(&["hook: delivered"]);
    house
        .says(&["alerts", "test-channel", "nosuch"])
        .exits(1)
        .tells(&["the file has no channel `nosuch`: it has `hook`"]);
    house
        .says(&["alerts", "channels"])
        .exits(0)
        .tells(&["hook", "webhook", "127.0.0.1"]);
    assert_eq!(listed(house, &["alerts", "channels"])[0]["kind"], "webhook");
    until("the test is on the record", async || {
        let found = listed(house, &["alerts", "notifications", "--channel", "hook"]);
        let test = |of: &Value| of["reason"] == "test" && of["delivery"] == "delivered";
        found.iter().any(test)
    })
    .await;
    house
        .says(&["alerts", "notifications", "-n", "5"])
        .exits(0)
        .tells(&["test", "delivered", "hook"]);
    house
        .says(&["alerts", "notifications", "--channel", "nosuch"])
        .exits(1)
        .tells(&["the file has no channel `nosuch`: it has `hook`"]);
    house.says(&["alerts", "notifications", "-n", "0"]).exits(2);
}

/// Without a host every verb says so, and what to do.
#[test]
fn without_a_host_the_verbs_say_so() {
    let house = House::new(ALICIA, "name: none\nservices: {}\n");
    for verb in [
        &["health"][..],
        &["slo"],
        &["suggest"],
        &["report"],
        &["alerts"],
        &["alerts", "channels"],
    ] {
        house.says(verb).exits(3).tells(&["alicia up"]);
    }
}
