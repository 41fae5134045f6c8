//! New versions of a fleet under the real binary: planned, deployed, updated without a lost request, taken back,
//! recorded; and services that run only while somebody is connected.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use alicia_contract::orchestrator::InstanceState;
use alicia_testkit::house::{House, free_port, is_installed};
use alicia_testkit::until;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");
const SERVER: &str = include_str!("support/served.py");

/// A request that takes longer than this is lost.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);

fn served(port: u16, version: u32, manner: &str) -> String {
    // Only one that never becomes ready is waited for in vain; a busy machine is slow.
    let deadline = if manner == "never-ready" { "2s" } else { "50s" };
    format!(
        "services:
  web:
    command: [python3, served.py, '{version}', {manner}]
    instances: 2
    ports: {{http: {{number: {port}, held: true}}, admin: auto}}
    readiness: {{http: {{path: /}}}}
    update: {{min_healthy: 300ms, deadline: {deadline}}}
"
    )
}

fn write(house: &House, file: &str) {
    fs::write(house.path().join("alicia.yaml"), file).expect("the file is written");
}

fn server(house: &House) {
    fs::write(house.path().join("served.py"), SERVER).expect("the program is written");
}

/// One request; what went wrong, or the version that answered.
async fn ask(port: u16) -> Result<String, String> {
    let asked = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = match timeout(REQUEST_PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string())?,
        Err(_) => return Err("no answer in time".to_owned()),
    };
    match (
        answer.starts_with("HTTP/1.1 200"),
        answer.rsplit_once("\r\n"),
    ) {
        (true, Some((_, body))) => Ok(body.to_owned()),
        _ => Err(format!("found {answer:?}")),
    }
}

/// How often each version answered, and every request that was lost.
type Told = (BTreeMap<String, u64>, Vec<String>);

/// Requests without a pause, until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Told>>,
}

impl Load {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no context to spawn in"
    )]
    fn start(port: u16, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let (mut answers, mut lost) = (BTreeMap::new(), Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    match ask(port).await {
                        Ok(version) => *answers.entry(version).or_default() += 1,
                        Err(error) => lost.push(error),
                    }
                }
                (answers, lost)
            })
        };
        Self {
            clients: (0..clients).map(client).collect(),
            stop,
        }
    }

    async fn end(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let (mut answers, mut lost) = (BTreeMap::<String, u64>::new(), Vec::new());
        for client in self.clients {
            let (found, failed) = client.await.expect("a client ends");
            for (version, count) in found {
                *answers.entry(version).or_default() += count;
            }
            lost.extend(failed);
        }
        (answers, lost)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_in_ten_updates_of_which_three_are_bad() {
    if !is_installed("python3", "python3") {
        return;
    }
    let port = free_port();
    let mut house = House::new(ALICIA, &served(port, 0, "good"));
    server(&house);
    house.start_host().await;
    house.all_running().await;
    let load = Load::start(port, 4);
    let mut expected = BTreeMap::from([("version 0".to_owned(), true)]);
    for version in 1..=10 {
        let manner = match version {
            3 => "crash",
            6 => "never-ready",
            9 => "ends-soon",
            _ => "good",
        };
        write(&house, &served(port, version, manner));
        let told = house.says(&["deploy", "--json", "--reason", manner]);
        let answer = told.json();
        let deployment = &answer["deployment"];
        if manner == "good" {
            assert_eq!(deployment["state"], "done", "{told}");
            assert_eq!(told.code, Some(0), "{told}");
        } else {
            assert_eq!(deployment["state"], "reverted", "{told}");
            assert_eq!(told.code, Some(1), "{told}");
            let lines = &deployment["services"]["web"]["last_lines"];
            assert!(
                lines.to_string().contains(&format!("version {version}")),
                "{told}"
            );
            let differs = answer["file_differs"].as_str().unwrap_or_default();
            assert!(
                differs.contains("the file on disk is not what runs"),
                "{told}"
            );
        }
        // A bad one may answer before it is found out, and need not.
        expected.insert(format!("version {version}"), manner == "good");
    }
    let (answers, lost) = load.end().await;
    assert!(
        lost.is_empty(),
        "{} requests were lost: {:?}",
        lost.len(),
        lost.first()
    );
    for (version, must_answer) in &expected {
        assert!(
            !must_answer || answers.contains_key(version),
            "{version}: {answers:?}"
        );
    }
    assert!(
        answers.keys().all(|version| expected.contains_key(version)),
        "{answers:?}"
    );
    let rows = house.all_running().await;
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.restarts == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_killed_during_an_update_goes_on_with_it() {
    if !is_installed("python3", "python3") {
        return;
    }
    let port = free_port();
    let slow = |version: u32| {
        served(port, version, "good").replace("min_healthy: 300ms", "min_healthy: 2s")
    };
    let mut house = House::new(ALICIA, &slow(1));
    server(&house);
    house.start_host().await;
    house.all_running().await;
    let load = Load::start(port, 2);
    write(&house, &slow(2));
    house.says(&["deploy", "--no-wait"]).exits(0);
    until("a new one is ready beside the old ones", || async {
        let rows = house.rows().await;
        rows.iter()
            .filter(|row| row.state == InstanceState::Running)
            .count()
            == 3
    })
    .await;
    house.kill_host();
    house.start_host().await;
    until("the deployment is done", || async {
        let (_, page) = house.get("/api/orchestrator/deployments").await;
        page["deployments"][0]["state"] == "done"
    })
    .await;
    let (_, page) = house.get("/api/orchestrator/deployments").await;
    assert_eq!(
        page["deployments"].as_array().map(Vec::len),
        Some(2),
        "{page}"
    );
    assert_eq!(ask(port).await.as_deref(), Ok("version 2"));
    let (_, lost) = load.end().await;
    assert!(
        lost.is_empty(),
        "{} requests were lost: {:?}",
        lost.len(),
        lost.first()
    );
}

const FIRST: &str = "\
services:
  api: {command: [sleep, '1000'], environment: {LEVEL: info, API_TOKEN: canary-one}}
  db: {command: [sleep, '1001']}
";
const SECOND: &str = "\
services:
  api: {command: [sleep, '1000'], environment: {LEVEL: debug, API_TOKEN: canary-two}}
  db: {command: [sleep, '1001'], labels: {team: a}}
  more: {command: [sleep, '1002']}
";

#[tokio::test]
async fn a_plan_says_what_a_deployment_then_does_and_a_rollback_takes_it_back() {
    let house = House::start(ALICIA, FIRST).await;
    let before = house.all_running().await;
    // One that is overtaken is none to go back to.
    until("the first deployment is done", || async {
        let (_, page) = house.get("/api/orchestrator/deployments").await;
        page["deployments"][0]["state"] == "done"
    })
    .await;
    house
        .says(&["plan"])
        .exits(0)
        .tells(&["nothing would change"]);
    house.says(&["deploy"]).exits(0).tells(&["nothing to do"]);

    write(&house, SECOND);
    let plan = house.says(&["plan"]).exits(2).tells(&[
        "api: restart",
        "environment.LEVEL: info -> debug",
        "needs a new process",
        "environment.API_TOKEN: (secret) -> (secret)",
        "db: change in place",
        "labels.team: (not set) -> a",
        "more: start",
    ]);
    assert!(!plan.text().contains("canary"), "{plan}");
    let json = house.says(&["plan", "--json"]).json();
    let kinds: BTreeMap<&str, &str> = json["services"]
        .as_array()
        .expect("services")
        .iter()
        .filter_map(|change| Some((change["service"].as_str()?, change["change"].as_str()?)))
        .collect();
    assert_eq!(
        kinds,
        BTreeMap::from([("api", "restart"), ("db", "apply"), ("more", "start")])
    );

    house
        .says(&["deploy", "--reason", "more of it"])
        .exits(0)
        .tells(&["deployment 2", "done"]);
    let after = house.all_running().await;
    let pid = |rows: &[alicia_contract::orchestrator::ProcessRow], name: &str| {
        rows.iter()
            .find(|row| row.instance == name)
            .and_then(|row| row.pid)
    };
    assert_eq!(
        pid(&before, "db-1"),
        pid(&after, "db-1"),
        "its labels changed in place"
    );
    assert_ne!(pid(&before, "api-1"), pid(&after, "api-1"));
    assert_eq!(after.len(), 3);

    house.says(&["rollback"]).exits(0).tells(&[
        "deployment 3",
        "done",
        "the file on disk is not what runs",
    ]);
    assert_eq!(house.all_running().await.len(), 2);
    house
        .says(&["status"])
        .tells(&["the file on disk is not what runs"]);
    let listed = house.says(&["deployments", "--json"]).json();
    let rows = listed["deployments"].as_array().expect("rows");
    let told: Vec<_> = rows
        .iter()
        .map(|row| (&row["number"], &row["state"], &row["rollback_to"]))
        .collect();
    assert_eq!(told[0], (&json!(3), &json!("done"), &json!(1)));
    assert_eq!(rows[1]["reason"], "more of it");
    assert_eq!(rows[1]["actor"], "key/admin");
    let second = house.says(&["deployments", "2", "--fleet"]).text();
    assert!(
        second.contains("\"LEVEL\": \"debug\"") && !second.contains("canary"),
        "{second}"
    );
    house
        .says(&["rollback", "99"])
        .exits(1)
        .tells(&["orchestrator.unknown_deployment"]);
}

#[tokio::test]
async fn what_was_deployed_stays_in_force_over_a_killed_host_until_the_file_changes() {
    let mut house = House::start(ALICIA, FIRST).await;
    house.all_running().await;
    fs::write(house.path().join("next.yaml"), SECOND).expect("it is written");
    house
        .says(&["deploy", "-f", "next.yaml"])
        .exits(0)
        .tells(&["the file on disk is not what runs"]);
    let before = house.all_running().await;
    assert_eq!(before.len(), 3);
    house.kill_host();
    house.start_host().await;
    let after = house.all_running().await;
    let pids = |rows: &[alicia_contract::orchestrator::ProcessRow]| {
        rows.iter().map(|row| row.pid).collect::<Vec<_>>()
    };
    assert_eq!(pids(&before), pids(&after));
    house.kill_host();
    write(&house, &FIRST.replace("1001", "1003"));
    house.start_host().await;
    until("the changed file is in force", || async {
        let (_, page) = house.get("/api/orchestrator/deployments").await;
        page["deployments"][0]["number"] == 3 && page["deployments"][0]["state"] == "done"
    })
    .await;
    assert_eq!(house.all_running().await.len(), 2);
}

#[tokio::test]
async fn a_version_without_services_ends_nothing_unless_somebody_says_that_it_is_meant() {
    let mut house = House::start(ALICIA, FIRST).await;
    let before = house.all_running().await;
    let pids = |rows: &[alicia_contract::orchestrator::ProcessRow]| {
        rows.iter().map(|row| row.pid).collect::<Vec<_>>()
    };
    let empty = json!({ "file": "" });
    let (status, problem) = house.post("/api/orchestrator/deploy", &empty).await;
    assert_eq!(
        (status, &problem["code"]),
        (422, &json!("orchestrator.empty_fleet")),
        "{problem}"
    );
    write(&house, "");
    house
        .says(&["deploy"])
        .exits(1)
        .tells(&["without any service: 2 are in force", "--allow-empty"]);
    house
        .says(&["plan"])
        .exits(2)
        .tells(&["api: stop", "db: stop"]);
    // Read again, and found at the next start: it is told, and ends nothing.
    let (status, problem) = house.post("/api/host/reload", &json!({})).await;
    assert_eq!(status, 422, "{problem}");
    assert!(problem.to_string().contains("has no services"), "{problem}");
    house.kill_host();
    house.start_host().await;
    assert_eq!(pids(&house.all_running().await), pids(&before));
    until("it is told", || async {
        house
            .says(&["status"])
            .text()
            .contains("the file on disk has no services")
    })
    .await;
    house
        .says(&["deploy", "--allow-empty", "--reason", "it moves"])
        .exits(0)
        .tells(&["api: stop", "done"]);
    assert_eq!(house.rows().await.len(), 0);
}

#[tokio::test]
async fn a_faulty_file_is_refused_with_its_faults_and_a_key_makes_a_request_good_once() {
    let house = House::start(ALICIA, FIRST).await;
    house.all_running().await;
    let faulty = "services:\n  api: {command: [sleep, '1'], depends_on: [nobody]}\n";
    for path in ["plan", "deploy"] {
        let (status, problem) = house
            .post(
                &format!("/api/orchestrator/{path}"),
                &json!({ "file": faulty }),
            )
            .await;
        assert_eq!(
            (status, &problem["code"]),
            (422, &json!("orchestrator.faulty_file"))
        );
        assert!(
            problem["faults"].to_string().contains("nobody"),
            "{problem}"
        );
    }
    write(&house, faulty);
    house.says(&["plan"]).exits(1).tells(&["nobody"]);
    house.says(&["deploy"]).exits(1).tells(&["nobody"]);
    assert_eq!(house.all_running().await.len(), 2);

    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let deploy = |file: &'static str| {
        let request = client
            .post(format!("{}/api/orchestrator/deploy", house.api()))
            .bearer_auth(house.key())
            .header("Idempotency-Key", "one")
            .json(&json!({ "file": file }));
        async move {
            let answer = request.send().await.expect("an answer");
            let status = answer.status().as_u16();
            (status, answer.json::<Value>().await.expect("JSON"))
        }
    };
    let (first, again) = (deploy(SECOND).await, deploy(SECOND).await);
    assert_eq!((first.0, again.0), (200, 200), "{again:?}");
    assert_eq!(
        first.1["deployment"]["number"],
        again.1["deployment"]["number"]
    );
    let (status, problem) = deploy(FIRST).await;
    assert_eq!(
        (status, &problem["code"]),
        (422, &json!("orchestrator.key_used"))
    );
    let (_, page) = house.get("/api/orchestrator/deployments").await;
    assert_eq!(
        page["deployments"].as_array().map(Vec::len),
        Some(2),
        "{page}"
    );
    let (_, audit) = house.get("/api/orchestrator/audit").await;
    assert!(audit.to_string().contains("orchestrator.deploy"), "{audit}");
}

#[tokio::test]
async fn a_service_on_demand_starts_with_its_first_client_and_ends_when_nobody_is_there() {
    if !is_installed("python3", "python3") {
        return;
    }
    let port = free_port();
    let file = format!(
        "services:
  web:
    command: [python3, served.py, '1']
    ports: {{http: {{number: {port}, held: true}}, admin: auto}}
    on_demand: {{idle_after: 500ms}}
"
    );
    let mut house = House::new(ALICIA, &file);
    server(&house);
    house.start_host().await;
    for _ in 0..2 {
        until("somebody listens for it", || async {
            house.processes_of("web").is_empty() && ask(port).await.as_deref() == Ok("version 1")
        })
        .await;
        until("it sleeps again", || async {
            house.processes_of("web").is_empty()
        })
        .await;
    }
    house.kill_host();
    house.start_host().await;
    assert_eq!(ask(port).await.as_deref(), Ok("version 1"));
}

const BUSY: &str = "\
import os, time
while True:
    if not os.path.exists('busy'):
        time.sleep(0.2)
";

#[tokio::test]
async fn the_number_of_instances_follows_the_load_and_says_why() {
    if !is_installed("python3", "python3") {
        return;
    }
    let file = "\
services:
  worker:
    command: [python3, busy.py]
    scaling: {min: 1, max: 3, cpu: 0.05, cool_down: 1s, scale_down_after: 2s}
";
    let mut house = House::new(ALICIA, file);
    fs::write(house.path().join("busy.py"), BUSY).expect("the program is written");
    house.start_host().await;
    assert_eq!(house.all_running().await.len(), 1);
    fs::write(house.path().join("busy"), "").expect("it is written");
    until("three of them share the work", || async {
        house.rows().await.len() == 3
    })
    .await;
    fs::remove_file(house.path().join("busy")).expect("it is removed");
    until("one is enough", || async { house.rows().await.len() == 1 }).await;
    let (_, audit) = house.get("/api/orchestrator/audit").await;
    let scaled = |row: &&Value| row["action"] == "orchestrator.scale";
    let rows: Vec<&Value> = audit
        .as_array()
        .expect("rows")
        .iter()
        .filter(scaled)
        .collect();
    assert!(rows.len() >= 2, "{audit}");
    assert!(
        rows.iter().all(|row| row["actor"] == "system/orchestrator"),
        "{audit}"
    );
    let reason = rows[0]["detail"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("0.05 is aimed at, for 2s"), "{reason}");
    // A number that a person asks for holds.
    house.says(&["scale", "worker", "2"]).exits(0);
    fs::write(house.path().join("busy"), "").expect("it is written");
    house.says(&["plan"]).exits(0);
    assert_eq!(house.rows().await.len(), 2);
}
