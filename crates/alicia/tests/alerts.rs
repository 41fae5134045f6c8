//! Alerts of a real house: real services fail, a real receiver counts what it is told, and amtool works on it.

#[path = "../../alicia-health/tests/notify/receiver.rs"]
mod receiver;

use std::fs;
use std::process::Command;

use alicia_contract::orchestrator::InstanceState;
use alicia_testkit::house::{House, free_port, is_installed, signal};
use alicia_testkit::until;
use receiver::Receiver;
use rustix::process::Signal;
use serde_json::Value;

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

/// Services of the graph, of which the first is the root.
const SERVICES: usize = 23;

/// Quick enough for tests; the order of the spans is that of the defaults.
fn health(receiver: &Receiver) -> String {
    format!(
        "health:
  stable_after: 1s
  down_after: 2s
  hold_back: 6s
  notifications: {{ group_wait: 4s, group_interval: 1s }}
  channels:
    hook: {{ webhook: {{ url: '{}' }}, allow_private: true }}
",
        receiver.url()
    )
}

async fn firing(house: &House) -> Value {
    let (status, page) = house.get("/api/health/alerts?active=true").await;
    assert_eq!(status, 200, "{page}");
    page
}

fn count(page: &Value, list: &str) -> usize {
    page[list].as_array().map_or(0, Vec::len)
}

/// Figure T5 of the specification, with real processes: the root is killed and does not come back; its 22 dependents
/// fail because of it. One notification, and one when all is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_the_root_of_23_services_is_one_notification() {
    let receiver = Receiver::start().await;
    let port = free_port();
    let mut file = format!(
        "name: graph
{}services:
  s0:
    command: [sh, -c, 'test ! -e broken && exec python3 -m http.server {port} --bind 127.0.0.1']
    readiness: {{ tcp: {{ port: {port} }}, interval: 200ms }}
    start_limit: {{ starts: 2, within: 60s }}
",
        health(&receiver)
    );
    for n in 1..SERVICES {
        file += &format!(
            "  s{n}:
    command: sleep 100000
    depends_on: {{ s{}: started }}
    checks: {{ root: {{ tcp: {{ port: {port} }}, interval: 200ms, fall: 2 }} }}
",
            (n - 1) / 3
        );
    }
    let house = House::start(ALICIA, &file).await;
    house.all_running().await;
    until("every service is healthy", async || {
        let (_, page) = house.get("/api/health/services").await;
        let services = page["services"].as_array().cloned().unwrap_or_default();
        services.len() == SERVICES && services.iter().all(|of| of["state"] == "healthy")
    })
    .await;
    fs::write(house.path().join("broken"), "").expect("written");
    for pid in house.processes_of("s0") {
        signal(pid, Signal::KILL);
    }
    house.reaches("s0-1", InstanceState::Failed).await;
    // Whether the host heard of the root or of a dependent first: each is held back or blamed on the root.
    until("every dependent has the root as its reason", async || {
        let page = firing(&house).await;
        let of = |list: &str| {
            let found = page[list].as_array().cloned().unwrap_or_default();
            found.into_iter().filter(|one| one["cause"] == "s0").count()
        };
        of("held_back") + of("alerts") == SERVICES - 1
    })
    .await;
    receiver.has(1).await;
    let said = house.says(&["alerts"]);
    assert!(said.stdout.contains("s0, which"), "{}", said.stdout);
    assert_eq!(
        said.stdout.matches("is the cause").count(),
        SERVICES - 1,
        "{}",
        said.stdout
    );

    fs::remove_file(house.path().join("broken")).expect("removed");
    let started = house.run(&["start", "s0"]);
    assert!(started.status.success(), "{started:?}");
    until("all is over", async || {
        let page = firing(&house).await;
        count(&page, "alerts") == 0 && count(&page, "held_back") == 0
    })
    .await;
    until("that is told", async || receiver.told().len() >= 2).await;
    let (_, page) = house.get("/api/health/notifications").await;
    assert_eq!(count(&page, "notifications"), 2, "{page}");
    assert_eq!(
        receiver.told(),
        ["new firing service=s0", "resolved resolved service=s0"]
    );
}

/// Figure T6, with a real process and a real check: it turns bad and good as often as it can in the test's time, and at
/// most two notifications come of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_toggles_makes_at_most_two_notifications() {
    let receiver = Receiver::start().await;
    let file = format!(
        "name: flap
{}services:
  api:
    command: sleep 100000
    checks: {{ flag: {{ exec: {{ command: [sh, -c, 'test ! -e flag'] }}, interval: 100ms, fall: 1 }} }}
",
        health(&receiver)
    );
    let house = House::start(ALICIA, &file).await;
    let flag = house.path().join("flag");
    let turned = async |wanted: &str| {
        until(&format!("it is {wanted}"), async || {
            house.get("/api/health/services/api").await.1["state"] == wanted
        })
        .await;
    };
    turned("healthy").await;
    // Each turn takes a second or more; the first notification is due after four.
    for _ in 0..12 {
        fs::write(&flag, "").expect("written");
        turned("unhealthy").await;
        fs::remove_file(&flag).expect("removed");
        turned("healthy").await;
    }
    receiver.has(1).await;
    let (_, page) = house.get("/api/health/notifications").await;
    assert!((1..=2).contains(&count(&page, "notifications")), "{page}");
    assert!(
        receiver.told().iter().all(|told| told.contains("firing")),
        "{:?}",
        receiver.told()
    );
}

/// The host is killed after the receiver has the notification, before that is written down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_a_delivery_repeats_it_under_the_same_id_and_tells_nothing_twice() {
    let receiver = Receiver::start().await;
    receiver.reply(0, &[]);
    let file = format!(
        "name: kill
{}services:
  api: {{ command: 'false', start_limit: {{ starts: 1, within: 60s }} }}
",
        health(&receiver)
    );
    let mut house = House::start(ALICIA, &file).await;
    let first = receiver.has(1).await.remove(0);
    house.kill_host();
    house.start_host().await;
    let tries = receiver.has(2).await;
    assert_eq!(first.header("webhook-id"), tries[1].header("webhook-id"));
    assert_eq!(first.text, tries[1].text);
    until("it is on the record, once", async || {
        let (_, page) = house.get("/api/health/notifications").await;
        count(&page, "notifications") == 1 && page["notifications"][0]["delivery"] == "delivered"
    })
    .await;
    let acknowledged = house.says(&["alerts", "ack", "api", "--note", "on it"]);
    assert!(
        acknowledged.stdout.contains("acknowledged"),
        "{}",
        acknowledged.stdout
    );
    assert!(
        house
            .says(&["alerts"])
            .stdout
            .contains("ack by key/admin: on it")
    );
    assert_eq!(receiver.told(), ["new firing service=api"]);
    let test = house.run(&["alerts", "test-channel", "hook"]);
    assert!(test.status.success(), "{test:?}");
    let unknown = house.run(&["alerts", "test-channel", "nosuch"]);
    assert!(!unknown.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amtool_lists_alerts_and_keeps_silences() {
    if !is_installed("amtool", "prometheus-alertmanager") {
        return;
    }
    let receiver = Receiver::start().await;
    let file = format!("name: am\n{}services: {{}}\n", health(&receiver));
    let house = House::start(ALICIA, &file).await;
    let login = house.path().join("amtool-http.yml");
    let text = format!("authorization: {{ credentials: {} }}\n", house.key());
    fs::write(&login, text).expect("written");
    let amtool = |arguments: &[&str]| {
        let output = Command::new("amtool")
            .env("HOME", house.path())
            .arg(format!(
                "--alertmanager.url={}/api/health/alertmanager",
                house.api()
            ))
            .arg(format!("--http.config.file={}", login.display()))
            .args(arguments)
            .output()
            .expect("amtool runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("a text");
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out
    };
    let json = |arguments: &[&str]| -> Value {
        let arguments = [&["-o", "json"], arguments].concat();
        serde_json::from_str(&amtool(&arguments)).expect("JSON")
    };
    assert!(amtool(&["config", "show"]).contains("alicia.yaml"));
    amtool(&[
        "alert",
        "add",
        "alertname=DiskFull",
        "service=node",
        "severity=critical",
        "disk=sda",
        "--annotation=summary=the disk is full",
    ]);
    until("it is an alert", async || {
        count(&firing(&house).await, "alerts") == 1
    })
    .await;
    let ours = firing(&house).await["alerts"][0].clone();
    assert_eq!(
        (&ours["rule"], &ours["summary"]),
        (&"external".into(), &"the disk is full".into())
    );
    let query = ["alert", "query", "disk=~sd."];
    let found = json(&query);
    assert_eq!(found[0]["labels"]["alertname"], "DiskFull", "{found}");
    assert_eq!(found[0]["status"]["state"], "active");
    assert_eq!(
        json(&["alert", "query", "disk=sdb"]),
        Value::Array(Vec::new())
    );

    let id = amtool(&[
        "silence",
        "add",
        "disk=sda",
        "--comment=new disk",
        "--duration=1h",
        "--author=bob",
    ]);
    let id = id.trim().to_owned();
    assert_eq!(
        json(&query),
        Value::Array(Vec::new()),
        "silenced ones are not shown"
    );
    let silenced = json(&["alert", "query", "--silenced", "disk=sda"]);
    assert_eq!(silenced[0]["status"]["silencedBy"][0], id.as_str());
    assert_eq!(amtool(&["silence", "query", "-q"]).trim(), id);
    let ours = firing(&house).await["alerts"][0].clone();
    assert_eq!(
        ours["muted"][0]["why"],
        "silenced by key/admin: new disk (bob)"
    );
    assert!(
        house
            .says(&["alerts", "silences"])
            .stdout
            .contains("disk=\"sda\"")
    );
    amtool(&["silence", "expire", &id]);
    assert_eq!(json(&["silence", "query"]), Value::Array(Vec::new()));
    assert_eq!(
        json(&["silence", "query", "--expired"])[0]["status"]["state"],
        "expired"
    );
    assert_eq!(json(&query)[0]["status"]["state"], "active");

    // What is wrong is refused with a text that amtool shows.
    let refused = Command::new("amtool")
        .env("HOME", house.path())
        .arg(format!(
            "--alertmanager.url={}/api/health/alertmanager",
            house.api()
        ))
        .arg(format!("--http.config.file={}", login.display()))
        .args([
            "silence",
            "add",
            "disk=~.*",
            "--comment=all",
            "--author=bob",
        ])
        .output()
        .expect("amtool runs");
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).expect("a text");
    assert!(said.contains("would silence everything"), "{said}");
    let told = receiver.has(1).await.remove(0).json();
    assert_eq!(told["alerts"][0]["labels"]["disk"], "sda");
}
