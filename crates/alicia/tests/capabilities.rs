//! Capabilities of a running fleet: found by what they are, called from the command line and over REST, each call
//! carried out by exactly one instance, also while instances are killed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;

use alicia_contract::orchestrator::InstanceState;
use alicia_testkit::house::{House, signal};
use alicia_testkit::until;
use rustix::process::Signal;
use serde_json::{Value, json};

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

/// Two services of the example fleet, one of them three times, and a plain program whose capability the file names.
fn file() -> String {
    format!(
        "\
health: {{stable_after: 1s}}
services:
  sensors:
    command: [{ALICIA:?}, example, sensors]
    allow: {{publish: [home/sensors/+]}}
  notifier:
    command: [{ALICIA:?}, example, notifier]
    instances: 3
    start_limit: {{starts: 0}}
    back_off: {{initial: 10ms, max: 50ms}}
    allow: {{publish: [home/notifications], subscribe: [system/health/monitor/alerts]}}
  plain:
    command: [sleep, '1000']
    kind: tool
    version: 3.1.4
    capabilities: [{{name: rest, version: 2.0.0, tags: [quiet]}}]
"
    )
}

/// Waits until so many instances would be chosen for a capability.
async fn usable(house: &House, capability: &str, count: usize) {
    until(&format!("{count} offer {capability}"), async || {
        let question = json!({ "capability": capability, "limit": 100 });
        let (_, found) = house.post("/api/registry/resolve", &question).await;
        let healthy = found["instances"].as_array().map_or(0, |found| {
            let well = found.iter().filter(|one| one["standing"] == "healthy");
            well.count()
        });
        healthy == count
    })
    .await;
}

#[tokio::test]
async fn what_the_fleet_can_do_is_called_from_the_command_line() {
    let house = House::start(ALICIA, &file()).await;
    house.all_running().await;
    usable(&house, "measure", 1).await;
    usable(&house, "notify", 3).await;

    let measured = house.says(&["call", "sensors", "measure"]).exits(0).json();
    assert!(measured[0]["name"].is_string(), "{measured}");
    house.says(&["call", "measure"]).exits(0).tells(&["memory"]);
    let told = house
        .says(&["--json", "call", "notifier", "notify", r#"{"text": "tea"}"#])
        .exits(0)
        .json();
    assert_eq!(
        (&told["output"]["text"], &told["attempts"]),
        (&json!("tea"), &json!(1))
    );
    assert_eq!(told["service"], "notifier");

    let mut piped = house.command(&["call", "notify", "-"]);
    piped.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut piped = piped.spawn().expect("it starts");
    let mut input = piped.stdin.take().expect("a pipe");
    input.write_all(br#"{"text": "by pipe"}"#).expect("written");
    drop(input);
    let output = piped.wait_with_output().expect("it ends");
    assert!(String::from_utf8_lossy(&output.stdout).contains("by pipe"));

    house
        .says(&["call", "notifier", "notify", r#"{"text": 7}"#])
        .exits(1)
        .tells(&[
            "/input/text: found 7, expected a text",
            "registry.input_mismatch",
        ]);
    let refused = house
        .says(&["--json", "call", "notify", "{}"])
        .exits(1)
        .json();
    assert_eq!(refused["faults"][0]["pointer"], "/input/text");
    house
        .says(&["call", "notifier", "notify", "{text"])
        .exits(2)
        .tells(&["the input is no JSON"]);
    house
        .says(&["call", "notifi"])
        .exits(1)
        .tells(&["did you mean notify?", "registry.unknown_capability"]);
    house
        .says(&["call", "measure", "--version", "^9"])
        .exits(1)
        .tells(&["no version of measure fits ^9; there are 0.1.0"]);
    house
        .says(&["call", "sensors", "notify"])
        .exits(1)
        .tells(&["sensors does not offer notify"]);
    house
        .says(&["call", "a", "b", "{}", "c"])
        .exits(2)
        .tells(&["unexpected"]);
    house.says(&["call"]).exits(2);
    house
        .says(&["call", "measure", "--timeout", "soon"])
        .exits(2);
}

#[tokio::test]
async fn who_is_there_and_best_is_shown_with_reasons() {
    let house = House::start(ALICIA, &file()).await;
    house.all_running().await;
    usable(&house, "notify", 3).await;

    house
        .says(&["resolve", "notify"])
        .exits(0)
        .tells(&["chosen", "healthy, load", "notifier"]);
    let found = house.says(&["--json", "resolve", "notify"]).exits(0).json();
    assert_eq!(found["verdicts"]["chosen"], 3);
    assert_eq!(found["versions"], json!(["0.1.0"]));
    house
        .says(&["resolve", "notify", "--version", "^2"])
        .exits(1)
        .tells(&["there are 0.1.0", "outside of ^2"]);
    house
        .says(&["resolve", "notify", "--input", r#"{"text": []}"#])
        .exits(1)
        .tells(&["/input/text"]);
    house
        .says(&["resolve", "notify", "--prefer", "beauty"])
        .exits(1)
        .tells(&["registry.invalid_query"]);
    // What the file says of a plain program.
    let rest = house
        .says(&["--json", "resolve", "rest", "--tag", "quiet"])
        .exits(0)
        .json();
    assert_eq!(
        (
            &rest["instances"][0]["service"],
            &rest["instances"][0]["version"]
        ),
        (&json!("plain"), &json!("2.0.0"))
    );

    let agents = house
        .says(&["--json", "agents", "--capability", "rest"])
        .exits(0)
        .json();
    assert_eq!(
        (&agents[0]["kind"], &agents[0]["version"]),
        (&json!("tool"), &json!("3.1.4"))
    );
    house
        .says(&["agents"])
        .exits(0)
        .tells(&["SERVICE", "plain", "notify 0.1.0"]);
    let id = agents[0]["instance"].as_str().expect("an id");
    let card = house.says(&["agents", "--card", id]).exits(0).json();
    assert_eq!(
        (&card["name"], &card["skills"][0]["id"]),
        (&json!("plain"), &json!("rest"))
    );
    assert!(card["signatures"][0]["signature"].is_string(), "{card}");
    house
        .says(&["agents", "--card", "01hnone"])
        .exits(1)
        .tells(&["registry.unknown_instance"]);
    house.says(&["agents", "--card"]).exits(2);
}

#[tokio::test]
async fn no_call_is_carried_out_twice_while_processes_are_killed() {
    const CALLS: usize = 200;
    let house = House::start(ALICIA, &file()).await;
    house.all_running().await;
    usable(&house, "notify", 3).await;
    let mut outcomes: BTreeMap<String, (u16, Value)> = BTreeMap::new();
    for number in 0..CALLS {
        if number % 40 == 20 {
            let slot = format!("notifier-{}", number / 40 % 3 + 1);
            let row = house.reaches(&slot, InstanceState::Running).await;
            signal(row.pid.expect("it runs"), Signal::KILL);
        }
        let text = format!("call-{number:04}.");
        let body = json!({ "capability": "notify", "input": { "text": text }, "timeout": "20s" });
        let outcome = house.post("/api/registry/call", &body).await;
        outcomes.insert(text, outcome);
    }
    usable(&house, "notify", 3).await;
    let printed = house
        .says(&["logs", "notifier", "-n", "5000"])
        .exits(0)
        .stdout;
    let answered = outcomes
        .values()
        .filter(|(status, _)| *status == 200)
        .count();
    assert!(answered >= CALLS - 5, "{answered} of {CALLS} were answered");
    for (text, (status, answer)) in &outcomes {
        let times = printed.matches(text.as_str()).count();
        if *status == 200 {
            assert_eq!(times, 1, "{text} was carried out {times} times: {answer}");
            assert_eq!(answer["attempts"].as_u64().map(|n| n >= 1), Some(true));
        } else {
            assert!(times <= 1, "{text} was carried out {times} times: {answer}");
            let code = answer["code"].as_str().unwrap_or_default();
            let known = [
                "registry.instance_ended",
                "registry.call_timed_out",
                "registry.no_instance",
            ];
            assert!(known.contains(&code), "{answer}");
        }
    }
}
