//! Services in containers, on a real engine: Docker from Debian, with an image made of busybox.

#[path = "support/engine.rs"]
mod engine;

use alicia_contract::orchestrator::{ExitCause, InstanceState};
use alicia_testkit::house::{House, signal};
use alicia_testkit::until;
use rustix::process::Signal;

use engine::{Daemon, IMAGE};

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

fn file(daemon: &Daemon, services: &str) -> String {
    let engine = daemon.address();
    format!("name: containers\nservices:\n{services}")
        .replace("ENGINE", &format!("image: {IMAGE}, engine: {engine}"))
}

#[tokio::test]
async fn a_service_in_a_container_lives_as_any_other() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let services = "  web:
    container: {ENGINE, volumes: ['./pages:/pages:ro']}
    command: sh -c 'echo serving on $PORT; exec httpd -f -p 127.0.0.1:$PORT -h /pages'
    ports: {http: auto}
    environment: {COLOUR: red}
    readiness: {http: {path: /index.html}}
    liveness: {exec: {command: [cat, /pages/index.html]}}
    checks:
      inside: {exec: {command: [cat, /pages/index.html]}, interval: 1s}
      talker: {exec: {command: [dd, if=/dev/zero, bs=1M, count=3]}, interval: 1s}
      outside: {exec: {command: [cat, /etc/passwd]}, interval: 1s}
    limits: {memory: 64MiB, processes: 16}
";
    let mut house = House::new(ALICIA, &file(&daemon, services));
    std::fs::create_dir(house.path().join("pages")).expect("a directory");
    std::fs::write(house.path().join("pages/index.html"), "hello").expect("a page");
    house.start_host().await;
    let first = house.reaches("web-1", InstanceState::Running).await;
    let containers = daemon.containers();
    assert_eq!(containers.len(), 1, "{containers:?}");
    until("its output is in the log", async || {
        house.says(&["logs", "web"]).text().contains("serving on ")
    })
    .await;
    let inspected = daemon.inspect(&containers[0]);
    assert_eq!(inspected[0]["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(inspected[0]["HostConfig"]["PidsLimit"], 16);
    let environment = inspected[0]["Config"]["Env"].to_string();
    assert!(environment.contains("COLOUR=red"), "{environment}");
    assert!(environment.contains("ALICIA_SERVICE=web"), "{environment}");
    let token = daemon.docker(&["exec", &containers[0], "sh", "-c", "cat $ALICIA_TOKEN_FILE"]);
    assert!(
        token.starts_with("alt_"),
        "the token of the service is there: {token}"
    );

    // Programs of checks run in the container too, however much they say.
    let checked = async |check: &str, state: &str| {
        until(&format!("{check} is {state}"), async || {
            let (_, view) = house.get("/api/health/services/web").await;
            let checks = view["checks"].as_array().cloned().unwrap_or_default();
            let mut checks = checks.iter().filter(|it| it["name"] == check);
            checks.any(|it| it["state"] == state)
        })
        .await;
    };
    checked("inside", "healthy").await;
    checked("talker", "healthy").await;
    checked("outside", "unhealthy").await;

    // The host dies: the container goes on.
    house.kill_host();
    assert_eq!(daemon.containers(), containers);
    house.start_host().await;
    let kept = house.reaches("web-1", InstanceState::Running).await;
    assert_eq!((kept.pid, kept.restarts), (first.pid, 0));
    assert_eq!(daemon.containers(), containers);

    // The container dies: another takes its place.
    daemon.docker(&["kill", &containers[0]]);
    until("another container runs", async || {
        let now = daemon.containers();
        now.len() == 1 && now != containers
    })
    .await;
    let second = house.reaches("web-1", InstanceState::Running).await;
    assert_eq!(second.restarts, 1);
    assert_eq!(second.exit.and_then(|exit| exit.code), Some(137));

    // The stand-in is killed: its container does not stay behind.
    let before = daemon.containers();
    signal(second.pid.expect("it runs"), Signal::KILL);
    until("another container runs", async || {
        let now = daemon.containers();
        now.len() == 1 && now != before
    })
    .await;
    house.reaches("web-1", InstanceState::Running).await;

    house.says(&["stop", "web"]).exits(0);
    until("no container is left", async || {
        daemon.containers().is_empty()
    })
    .await;
}

#[tokio::test]
async fn what_goes_wrong_with_a_container_is_said() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let services = "  hungry:
    container: {ENGINE}
    command: sh -c 'dd if=/dev/zero of=/dev/null bs=60M count=1'
    limits: {memory: 20MiB}
    restart: never
  stranger:
    container: {ENGINE, pull: never}
    restart: never
  deaf:
    container: {ENGINE}
    command: [sh, -c, \"trap '' TERM; echo deaf; while true; do sleep 1; done\"]
    readiness: {log_line: {contains: deaf}}
    stop: {grace: 500ms}
"
    .replacen(
        "stranger:\n    container: {ENGINE",
        &format!(
            "stranger:\n    container: {{image: no-such-image, engine: {}",
            daemon.address()
        ),
        1,
    );
    let house = House::start(ALICIA, &file(&daemon, &services)).await;
    let hungry = house.reaches("hungry-1", InstanceState::Failed).await;
    let exit = hungry.exit.expect("it ended");
    assert_eq!(exit.code, Some(137));
    assert_eq!(exit.class, ExitCause::OutOfMemory, "{exit:?}");
    house.reaches("stranger-1", InstanceState::Failed).await;
    let said = house.says(&["logs", "stranger"]).text();
    assert!(said.contains("No such image"), "{said}");

    house.reaches("deaf-1", InstanceState::Running).await;
    house.says(&["stop", "deaf"]).exits(0);
    until("no container is left", async || {
        daemon.containers().is_empty()
    })
    .await;
    // Long enough for the engine to kill it, and not the keeper.
    let deaf = house.row("deaf-1").await.expect("it is known");
    assert_eq!(deaf.state, InstanceState::Stopped);
    assert_eq!(deaf.exit.and_then(|exit| exit.code), Some(137));
}

#[tokio::test]
async fn without_an_engine_the_service_says_so() {
    let services = "services:\n  web:\n    container: {image: x, engine: unix:///nowhere/docker.sock}\n    restart: never\n";
    let house = House::start(ALICIA, services).await;
    let failed = house.reaches("web-1", InstanceState::Failed).await;
    assert_eq!(failed.exit.and_then(|exit| exit.code), Some(69));
    let said = house.says(&["logs", "web"]).text();
    assert!(said.contains("/nowhere/docker.sock"), "{said}");
    assert!(said.contains("start the engine"), "{said}");
}
