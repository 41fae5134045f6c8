//! The life of services under the real binary: they die, hang, crash in a loop, wait for each other, are scaled,
//! changed and stopped, and nothing of them is left.

use std::collections::BTreeMap;
use std::fs;

use alicia_contract::orchestrator::{InstanceState, ProcessRow};
use alicia_testkit::house::{House, is_alive, signal};
use alicia_testkit::until;
use rustix::process::Signal;
use serde_json::Value;

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

const ALERTS: &str = "alicia/system/health/monitor/alerts";

fn pid(row: &ProcessRow) -> u32 {
    row.pid.expect("it has a process")
}

async fn pids(house: &House) -> BTreeMap<String, Option<u32>> {
    let rows = house.rows().await.into_iter();
    rows.map(|row| (row.instance, row.pid)).collect()
}

/// An alert on the bus, in its envelope.
fn is_alert(line: &Value, rule: &str, state: &str) -> bool {
    let alert = &line["payload"]["payload"];
    line["topic"] == ALERTS && alert["rule"] == rule && alert["state"] == state
}

#[tokio::test]
async fn a_killed_instance_is_back_and_its_alert_fires_and_is_resolved() {
    let file = "\
health: {stable_after: 1s}
services:
  api: {command: [sh, -c, 'echo at work; exec sleep 1000']}
  other: {command: [sleep, '1000']}
";
    let house = House::start(ALICIA, file).await;
    let before = house.all_running().await;
    let killed = house.reaches("api-1", InstanceState::Running).await;
    let hearing = house.listen(ALERTS).await;
    signal(pid(&killed), Signal::KILL);

    let fired = hearing
        .hears("the alert", |line| is_alert(line, "restarted", "firing"))
        .await;
    let alert = &fired["payload"]["payload"];
    assert_eq!(alert["instance"], "api-1");
    assert_eq!(alert["detail"], "killed by SIGKILL");
    assert_eq!(alert["last_lines"][0], "at work");

    let row = house.reaches("api-1", InstanceState::Running).await;
    assert_ne!(pid(&row), pid(&killed));
    assert_eq!(row.restarts, 1);
    let exit = row.exit.expect("it ended");
    assert_eq!(exit.cause, "killed by SIGKILL");
    assert_eq!((exit.code, exit.signal.as_deref()), (None, Some("SIGKILL")));
    house
        .says(&["ps"])
        .exits(0)
        .tells(&["api-1", "killed by SIGKILL"]);

    let resolved = hearing
        .hears("its end", |line| is_alert(line, "restarted", "resolved"))
        .await;
    assert_eq!(resolved["payload"]["payload"]["id"], alert["id"]);
    let (status, page) = house.get("/api/health/alerts?active=true").await;
    assert_eq!((status, &page["alerts"]), (200, &Value::Array(Vec::new())));

    let other = house.reaches("other-1", InstanceState::Running).await;
    assert!(before.iter().any(|row| row.pid == other.pid));
}

#[tokio::test]
async fn a_crash_loop_is_given_up_with_its_last_lines_and_start_tries_again() {
    let file = "\
health: {stable_after: 1s}
services:
  crash:
    command: [sh, -c, 'test -e mended && exec sleep 1000; echo before; echo the disk is gone >&2; exit 3']
    back_off: {initial: 10ms, max: 20ms}
    start_limit: {starts: 3, within: 60s}
";
    let house = House::new(ALICIA, file);
    house
        .says(&["up", "-d"])
        .exits(1)
        .tells(&["crash-1", "failed", "exit code 3"]);
    let hearing = house.listen(ALERTS).await;
    let failed = house.reaches("crash-1", InstanceState::Failed).await;
    assert_eq!((failed.restarts, failed.pid), (2, None));

    let find = || async {
        let (_, page) = house.get("/api/health/alerts?active=true").await;
        let alerts = page["alerts"].as_array().cloned().unwrap_or_default();
        alerts
            .into_iter()
            .find(|alert| alert["rule"] == "crash_loop")
    };
    until("the alert is there", || async { find().await.is_some() }).await;
    let alert = find().await.expect("it was just there");
    assert_eq!(alert["severity"], "critical");
    let lines: Vec<_> = alert["last_lines"]
        .as_array()
        .expect("lines")
        .iter()
        .collect();
    assert!(lines.contains(&&Value::from("the disk is gone")), "{alert}");
    let detail = alert["detail"].as_str().expect("a text");
    assert!(detail.contains("alicia start crash"), "{detail}");
    house
        .says(&["alerts"])
        .exits(0)
        .tells(&["crash_loop", "crash-1"]);

    fs::write(house.path().join("mended"), "").expect("it is mended");
    house.says(&["start", "crash"]).exits(0);
    let row = house.reaches("crash-1", InstanceState::Running).await;
    assert_eq!(row.restarts, 0, "a start by a person counts anew");
    hearing
        .hears("its end", |line| is_alert(line, "crash_loop", "resolved"))
        .await;
    house.says(&["down"]).exits(0);
}

#[tokio::test]
async fn a_hung_service_is_restarted_by_its_liveness_probe() {
    let file = "\
services:
  web:
    command: [sh, -c, 'exec python3 -u -m http.server --bind 127.0.0.1 \"$PORT\"']
    ports: {http: auto}
    readiness: {http: {}, interval: 100ms}
    liveness: {http: {}, interval: 200ms, timeout: 1s, fall: 2}
";
    let house = House::start(ALICIA, file).await;
    let before = house.reaches("web-1", InstanceState::Running).await;
    signal(pid(&before), Signal::STOP);
    until("it is restarted", || async {
        let row = house.row("web-1").await;
        row.is_some_and(|row| row.restarts > 0 && row.state == InstanceState::Running)
    })
    .await;
    let row = house.row("web-1").await.expect("it is there");
    let exit = row.exit.clone().expect("it ended");
    assert!(exit.cause.contains("liveness"), "{exit:?}");
    assert_ne!(pid(&row), pid(&before));
    assert!(!is_alive(pid(&before)), "a stopped process ends too");
}

/// Writes down when it starts and when it is asked to end.
const STAGE: &str = r#"
echo "start $ALICIA_SERVICE" >> ../order
trap 'echo "stop $ALICIA_SERVICE" >> ../order; exit 0' TERM
until [ -e "../may-$ALICIA_SERVICE" ]; do sleep 0.05; done
echo "ready $ALICIA_SERVICE" >> ../order
echo "is ready"
while :; do sleep 0.05; done
"#;

const STAGES: &str = "\
services:
  setup:
    command: [sh, -c, 'until [ -e ../may-setup ]; do sleep 0.05; done; echo \"start setup\" >> ../order']
    directory: stage
    restart: never
  db:
    command: [sh, stage.sh]
    directory: stage
    depends_on: {setup: completed}
    readiness: {log_line: {contains: is ready}}
  api: {command: [sh, stage.sh], directory: stage, depends_on: {db: healthy}}
  web: {command: [sh, stage.sh], directory: stage, depends_on: {api: started}}
";

#[tokio::test]
async fn services_start_when_what_they_need_is_there_and_stop_in_reverse() {
    let mut house = House::new(ALICIA, STAGES);
    fs::create_dir(house.path().join("stage")).expect("a directory");
    fs::write(house.path().join("stage/stage.sh"), STAGE).expect("the script is written");
    let may = |service: &str| {
        let sign = house.path().join(format!("may-{service}"));
        fs::write(sign, "").expect("the sign is given");
    };
    may("api");
    may("web");
    let order = house.path().join("order");
    let order = || fs::read_to_string(&order).unwrap_or_default();
    let (setup, db) = (house.path().join("may-setup"), house.path().join("may-db"));

    house.start_host().await;
    house.reaches("setup-1", InstanceState::Running).await;
    house.reaches("db-1", InstanceState::Waiting).await;
    fs::write(setup, "").expect("the sign is given");
    house.reaches("setup-1", InstanceState::Completed).await;
    house.reaches("db-1", InstanceState::Starting).await;
    house.reaches("api-1", InstanceState::Waiting).await;
    house.reaches("web-1", InstanceState::Waiting).await;
    fs::write(db, "").expect("the sign is given");
    for instance in ["db-1", "api-1", "web-1"] {
        house.reaches(instance, InstanceState::Running).await;
    }
    until("all are at work", || async {
        order().matches("ready").count() == 3
    })
    .await;
    let started: Vec<String> = lines(&order(), "start");
    assert_eq!(started, ["setup", "db", "api", "web"]);

    house.says(&["stop"]).exits(0);
    for instance in ["db-1", "api-1", "web-1"] {
        house.reaches(instance, InstanceState::Stopped).await;
    }
    assert_eq!(lines(&order(), "stop"), ["web", "api", "db"]);
}

fn lines(order: &str, verb: &str) -> Vec<String> {
    order
        .lines()
        .filter_map(|line| line.strip_prefix(verb))
        .map(|service| service.trim().to_owned())
        .collect()
}

#[tokio::test]
async fn a_service_is_scaled_up_and_down() {
    let file = "services: {worker: {command: [sleep, '1000'], instances: 2}}\n";
    let house = House::start(ALICIA, file).await;
    let two = house.all_running().await;
    assert_eq!(two.len(), 2);
    house.says(&["scale", "worker", "4"]).exits(0);
    house.reaches("worker-4", InstanceState::Running).await;
    let four = pids(&house).await;
    assert_eq!(four.len(), 4);
    for row in &two {
        assert_eq!(four[&row.instance], row.pid, "those that ran go on");
    }
    house.says(&["scale", "worker", "1"]).exits(0);
    until("one is left", || async {
        house.processes_of("worker") == [pid(&two[0])]
    })
    .await;
    house.says(&["scale", "worker", "0"]).exits(0);
    until("none is left", || async {
        house.processes_of("worker").is_empty()
    })
    .await;
}

const CHOICE: &str = "\
services:
  db: {command: [sleep, '1000'], groups: [data]}
  cache: {command: [sleep, '1000'], groups: [data]}
  api: {command: [sleep, '1000'], depends_on: [db]}
  other: {command: [sleep, '1000']}
  debug: {command: [sleep, '1000'], profiles: [dev]}
";

async fn running(house: &House) -> Vec<String> {
    let rows = house.rows().await.into_iter();
    rows.filter(|row| row.state == InstanceState::Running)
        .map(|row| row.service.to_string())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect()
}

#[tokio::test]
async fn up_starts_what_is_asked_for_and_what_that_needs() {
    let house = House::new(ALICIA, CHOICE);
    house.says(&["up", "-d", "api"]).exits(0);
    assert_eq!(running(&house).await, ["api", "db"]);
    house.says(&["up", "-d", "other", "data"]).exits(0);
    assert_eq!(running(&house).await, ["api", "cache", "db", "other"]);
    house.says(&["stop", "data", "other"]).exits(0);
    let left = running(&house).await;
    assert!(
        !left
            .iter()
            .any(|service| ["cache", "db", "other"].contains(&service.as_str())),
        "{left:?}"
    );
    house.says(&["down"]).exits(0);

    house.says(&["up", "-d"]).exits(0);
    assert_eq!(running(&house).await, ["api", "cache", "db", "other"]);
    house.says(&["down"]).exits(0);
    house.says(&["up", "-d", "--profile", "dev"]).exits(0);
    assert_eq!(
        running(&house).await,
        ["api", "cache", "db", "debug", "other"]
    );
    house.says(&["down"]).exits(0);
}

#[tokio::test]
async fn a_changed_file_touches_only_what_changed() {
    let file = |services: &str| format!("services:\n{services}");
    let service = |name: &str, time: &str| format!("  {name}: {{command: [sleep, '{time}']}}\n");
    let before = [
        service("kept", "1000"),
        service("changed", "1000"),
        service("dropped", "1000"),
    ];
    let house = House::start(ALICIA, &file(&before.concat())).await;
    house.all_running().await;
    let old = pids(&house).await;

    let write = |text: &str| fs::write(house.path().join("alicia.yaml"), text).expect("written");
    let after = [
        service("kept", "1000"),
        service("changed", "2000"),
        service("added", "1000"),
    ];
    write(&file(&after.concat()));
    house.says(&["reload"]).exits(0);
    house.reaches("added-1", InstanceState::Running).await;
    until("what is not in the file is gone", || async {
        house.processes_of("dropped").is_empty()
    })
    .await;
    until("what changed has a new process", || async {
        let row = house.row("changed-1").await;
        row.is_some_and(|row| row.state == InstanceState::Running && row.pid != old["changed-1"])
    })
    .await;
    let new = pids(&house).await;
    assert_eq!(new["kept-1"], old["kept-1"]);

    // A file with a fault changes nothing.
    write("services:\n  kept: {comand: sleep 1}\n");
    house.says(&["reload"]).exits(1).tells(&["comand"]);
    assert_eq!(pids(&house).await, new);
}

const PAIR: &str = "\
services:
  one: {command: [sleep, '1000']}
  two: {command: [sh, -c, 'sleep 1000 & exec sleep 1000']}
";

async fn nothing_is_left(house: &House) {
    until("nothing of the house is left", || async {
        house.processes().is_empty()
    })
    .await;
}

#[tokio::test]
async fn down_ends_everything_with_the_keeper() {
    let house = House::new(ALICIA, PAIR);
    house.says(&["up", "-d"]).exits(0);
    assert!(house.processes().len() >= 5, "{:?}", house.processes());
    house.says(&["down"]).exits(0);
    nothing_is_left(&house).await;
    assert!(house.host_file().is_none());
}

#[tokio::test]
async fn down_with_keep_services_leaves_them_to_the_next_up() {
    let house = House::new(ALICIA, PAIR);
    house.says(&["up", "-d"]).exits(0);
    let before = pids(&house).await;
    house.says(&["down", "--keep-services"]).exits(0);
    house.says(&["ps"]).exits(3);
    for pid in before.values().flatten() {
        assert!(is_alive(*pid));
    }
    house.says(&["up", "-d"]).exits(0);
    assert_eq!(pids(&house).await, before);
    assert!(house.rows().await.iter().all(|row| row.restarts == 0));
    house.says(&["down"]).exits(0);
    nothing_is_left(&house).await;
}

#[tokio::test]
async fn sigterm_to_the_host_ends_all_in_good_order() {
    let file = "\
services:
  polite: {command: [sh, -c, 'trap \"touch said-goodbye; exit 0\" TERM; while :; do sleep 0.05; done']}
  other: {command: [sleep, '1000']}
";
    let mut house = House::start(ALICIA, file).await;
    house.all_running().await;
    signal(house.host_pid().expect("it runs"), Signal::TERM);
    let status = house.host_ended().await;
    assert!(status.success(), "{status}: {}", house.host_log());
    nothing_is_left(&house).await;
    assert!(house.path().join("said-goodbye").exists());
}

/// Forks twice, becomes a session of its own each time, and takes no SIGTERM.
const HOSTILE: &str = r#"
import os, signal, time
for generation in range(2):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        os.chdir("/")
        os.closerange(0, 3)
        time.sleep(1000)
print("all there", flush=True)
time.sleep(1000)
"#;

#[tokio::test]
async fn a_hostile_process_tree_leaves_nothing_behind() {
    let file = "\
services:
  hostile:
    command: [python3, -u, hostile.py]
    readiness: {log_line: {contains: all there}}
    stop: {grace: 200ms}
";
    let mut house = House::new(ALICIA, file);
    fs::write(house.path().join("hostile.py"), HOSTILE).expect("the program is written");
    house.start_host().await;
    for round in 1..=10 {
        house.reaches("hostile-1", InstanceState::Running).await;
        until("the whole tree is there", || async {
            house.processes_of("hostile").len() == 3
        })
        .await;
        house.says(&["stop", "hostile"]).exits(0);
        house.reaches("hostile-1", InstanceState::Stopped).await;
        assert_eq!(house.processes_of("hostile"), [0; 0], "round {round}");
        house.says(&["start", "hostile"]).exits(0);
    }
}
