//! Every module can be left out, and a module can run in a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use alicia_contract::orchestrator::InstanceState;
use alicia_testkit::house::{House, signal};
use alicia_testkit::until;
use rustix::process::Signal;
use serde_json::Value;

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

const SERVICES: &str = "services: {a: {command: [sleep, '1000']}}\n";

fn without(module: &str) -> String {
    format!("modules: {{{module}: {{enabled: false}}}}\n{SERVICES}")
}

/// The names of the modules that the host says it has.
async fn modules(house: &House) -> Vec<String> {
    let (_, health) = house.get("/health").await;
    let modules = health["modules"].as_array().expect("modules").iter();
    modules
        .map(|module| module["module"].as_str().expect("a name").to_owned())
        .collect()
}

/// A page or operation of a module that needs no parameter, from the document, which knows all modules.
async fn route_of(house: &House, module: &str) -> String {
    let (_, document) = house.get("/openapi.json").await;
    let paths = document["paths"].as_object().expect("paths");
    let own = format!("/api/{module}/");
    let found = paths.iter().find(|(path, operations)| {
        path.starts_with(&own) && !path.contains('{') && operations["get"].is_object()
    });
    // The page has no operations.
    found.map_or_else(|| "/".to_owned(), |(path, _)| path.clone())
}

/// The others work: what dies is back.
async fn a_killed_service_is_back(house: &House) {
    let before = house.reaches("a-1", InstanceState::Running).await;
    signal(before.pid.expect("it runs"), Signal::KILL);
    until("it is back", || async {
        let row = house.row("a-1").await;
        row.is_some_and(|row| row.state == InstanceState::Running && row.restarts == 1)
    })
    .await;
}

#[tokio::test]
async fn the_host_works_without_any_one_module() {
    let all = {
        let house = House::start(ALICIA, SERVICES).await;
        modules(&house).await
    };
    assert!(all.len() >= 5, "{all:?}");
    for module in &all {
        println!("without {module}");
        let house = House::start(ALICIA, &without(module)).await;
        let expected: Vec<_> = all.iter().filter(|other| *other != module).collect();
        assert_eq!(modules(&house).await.iter().collect::<Vec<_>>(), expected);
        let (status, _) = house.get(&route_of(&house, module).await).await;
        assert_eq!(status, 404, "its routes are not there");
        if module == "orchestrator" {
            house.says(&["ps"]).exits(1).tells(&["orchestrator"]);
        } else {
            a_killed_service_is_back(&house).await;
        }
        if module == "broker" {
            house.says(&["bus", "sub"]).exits(3).tells(&["no bus"]);
        }
        house.says(&["down"]).exits(0);
        until("nothing is left", || async { house.processes().is_empty() }).await;
    }
}

/// A process that is ended when it is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn health_watches_from_a_process_of_its_own() {
    let house = House::start(ALICIA, &without("health")).await;
    let bus = house.host_file().expect("it runs").bus.expect("a bus");
    let mut alone = house.command(&["run", "health", "--bus", &bus]);
    let mut alone = alone.stdout(Stdio::piped()).spawn().expect("it starts");
    let output = BufReader::new(alone.stdout.take().expect("piped"));
    let _alone = Ended(alone);
    let address = output.lines().next().expect("a line").expect("text");

    let client = reqwest::Client::builder().no_proxy().build();
    let client = client.expect("a client");
    let get = async |path: &str| -> Value {
        let request = client.get(format!("{address}{path}"));
        let answer = request.bearer_auth(house.key()).send().await;
        answer.expect("it answers").json().await.expect("JSON")
    };
    until("it is well", || async {
        get("/health").await["status"] == "ok"
    })
    .await;
    until("it sees the service", || async {
        let status = get("/api/health/services").await;
        status["services"][0]["state"] == "healthy"
    })
    .await;
    a_killed_service_is_back(&house).await;
    until("it tells the restart", || async {
        let page = get("/api/health/alerts").await;
        page["alerts"][0]["rule"] == "restarted"
    })
    .await;
}
