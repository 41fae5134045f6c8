//! The life of instances, with real processes under a real keeper.

use std::time::Duration;

use crate::support::{House, eventually, lives, send, shell};
use alicia_contract::orchestrator::InstanceState::{
    Completed, Failed, Running, Starting, Stopped, Waiting,
};
use alicia_orchestrator::Config;
use axum::http::StatusCode;
use rustix::process::Signal;
use serde_json::json;

#[tokio::test]
async fn services_start_in_order_and_stop_in_reverse() {
    let log = |name: &str| {
        // `trap` needs a shell that waits in a way that a signal interrupts.
        shell(&format!(
            "echo start {name} >> ../order; trap 'echo stop {name} >> ../order; exit 0' TERM; \
             echo ready; while :; do sleep 0.02; done"
        ))
    };
    let home = crate::support::Home::new();
    std::fs::create_dir(home.path().join("run")).expect("it can be made");
    let ready = json!({ "log_line": { "contains": "ready" } });
    let services = json!({
        "web": { "command": log("web"), "directory": "run", "depends_on": ["api"], "readiness": ready },
        "api": { "command": log("api"), "directory": "run", "depends_on": ["db", "migrate"],
                 "readiness": ready },
        "db": { "command": log("db"), "directory": "run", "readiness": ready },
        "migrate": { "command": shell("echo migrate >> ../order"), "directory": "run",
                     "restart": "on-failure", "depends_on": ["db"] },
    });
    let house = House::open(home.clone(), services, Config::default()).await;
    let (_, answer) = house.post("/start?wait=20s", json!({})).await;
    assert_eq!(answer["settled"], true, "{answer}");
    assert_eq!(house.state("web", 1).await, Some(Running));
    assert_eq!(house.state("migrate", 1).await, Some(Completed));
    house.finish().await;
    let order = std::fs::read_to_string(home.path().join("order")).expect("it was written");
    let order: Vec<&str> = order.lines().collect();
    let expected = [
        "start db",
        "migrate",
        "start api",
        "start web",
        "stop web",
        "stop api",
        "stop db",
    ];
    assert_eq!(order, expected);
    eventually("the keeper is gone too", async || {
        crate::support::keeper_pids(home.path()).is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_killed_instance_is_back_at_once_with_its_cause() {
    let house = House::new(json!({ "api": { "command": "sleep 1000" } })).await;
    let old = house.pid("api", 1).await;
    send(old, Signal::KILL);
    let new = house
        .until("api", 1, |instance| {
            instance.pid.is_some_and(|pid| pid != old)
        })
        .await;
    assert_eq!((new.restarts, new.epoch.0), (1, 2));
    assert_eq!(new.exit.expect("it ended").cause, "killed by SIGKILL");
    eventually("the history follows behind", async || {
        let (_, view) = house.get("/services/api").await;
        let transitions = view["transitions"].as_array().expect("a list");
        transitions
            .iter()
            .any(|transition| transition["to"] == "backoff")
    })
    .await;
    house.finish().await;
}

#[tokio::test]
async fn a_crash_loop_ends_in_failed_and_a_start_by_hand_tries_again() {
    let spec = json!({
        "command": shell("echo the disk is full >&2; exit 3"),
        "back_off": { "initial": "1ms" },
        "start_limit": { "starts": 3, "within": "1m" },
    });
    let house = House::new(json!({ "api": spec })).await;
    let failed = house
        .until("api", 1, |instance| instance.state == Failed)
        .await;
    assert_eq!(
        failed.reason,
        "exit code 3; 3 starts within 1m; the next try is in 5m"
    );
    assert_eq!(failed.exit.expect("it ended").code, Some(3));
    let logs = house.text("/services/api/logs").await;
    assert_eq!(logs.matches("the disk is full").count(), 3, "{logs}");
    let (status, answer) = house.post("/services/api/start?wait=20s", json!({})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["instances"][0]["state"], "failed", "{answer}");
    let logs = house.text("/services/api/logs").await;
    assert_eq!(logs.matches("the disk is full").count(), 6, "{logs}");
    house.finish().await;
}

#[tokio::test]
async fn what_cannot_start_says_what_to_do() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = holder.local_addr().expect("it is bound").port();
    let taken =
        json!({ "command": "sleep 9", "ports": {"http": port}, "start_limit": {"starts": 1} });
    let house = House::new(json!({
        "no-program": { "command": "no-such-program --x" },
        "no-directory": { "command": "sleep 9", "directory": "gone" },
        "no-user": { "command": "sleep 9", "user": "nobody-of-this-name" },
        "no-env-file": { "command": "sleep 9", "env_files": ["gone.env"] },
        "port-taken": taken,
    }))
    .await;
    let check = async |service: &str, said: &[&str], restarts: u32| {
        let failed = house
            .until(service, 1, |instance| instance.state == Failed)
            .await;
        for words in said {
            assert!(
                failed.reason.contains(words),
                "{service}: {}",
                failed.reason
            );
        }
        assert_eq!(failed.restarts, restarts, "{service}");
    };
    check(
        "no-program",
        &["no-such-program", "PATH", "correct `command`"],
        0,
    )
    .await;
    check("no-directory", &["gone", "correct `directory`"], 0).await;
    check("no-user", &["nobody-of-this-name", "correct `user`"], 0).await;
    check("no-env-file", &["gone.env", "env_files"], 0).await;
    let pid = std::process::id().to_string();
    check("port-taken", &[&port.to_string(), &pid, "`auto`"], 0).await;
    house.finish().await;
}

#[tokio::test]
async fn one_that_hangs_is_found_by_liveness_and_restarted() {
    let server = "import http.server as h; h.HTTPServer(('127.0.0.1', int(__import__('os').environ['PORT'])), \
                  h.SimpleHTTPRequestHandler).serve_forever()";
    let probe = json!({ "http": {}, "interval": "100ms", "timeout": "200ms", "fall": 2 });
    let house = House::new(json!({ "api": {
        "command": ["python3", "-c", server], "ports": { "http": "auto" },
        "readiness": probe, "liveness": probe, "stop": { "grace": "200ms" },
    }}))
    .await;
    let old = house.until_running("api", 1).await;
    let pid = old.pid.expect("it runs");
    send(pid, Signal::STOP);
    let new = house
        .until("api", 1, |instance| {
            instance.state == Running && instance.pid != Some(pid)
        })
        .await;
    let cause = new.exit.expect("it ended").cause;
    assert!(cause.starts_with("liveness failed: "), "{cause}");
    assert_eq!(new.ports, old.ports, "the port stays");
    assert!(!lives(pid));
    house.finish().await;
}

#[tokio::test]
async fn a_hostile_grandchild_goes_with_its_instance() {
    // A daemon: forked twice, in a session of its own, deaf to SIGTERM.
    let script = "setsid sh -c 'trap \"\" TERM; echo $$ > grandchild; while :; do sleep 0.05; done' \
                  >/dev/null 2>&1 & exec sleep 1000";
    let house = House::new(json!({
        "api": { "command": shell(script), "stop": { "grace": "200ms" } },
    }))
    .await;
    house.until_running("api", 1).await;
    let file = house.home().path().join("grandchild");
    let mut grandchild = 0;
    eventually("the grandchild runs", async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        grandchild = text.trim().parse().unwrap_or(0);
        grandchild != 0
    })
    .await;
    let (_, answer) = house.post("/stop?service=api&wait=20s", json!({})).await;
    assert_eq!(answer["instances"][0]["state"], "stopped", "{answer}");
    assert!(
        !lives(grandchild),
        "the stop was over before the tree was empty"
    );
    let reason = answer["instances"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("killed by force"), "{reason}");
    house.finish().await;
}

#[tokio::test]
async fn scaling_and_a_changed_file_touch_only_what_they_must() {
    let service = |seconds: u32| json!({ "command": format!("sleep {seconds}") });
    let house = House::new(json!({ "a": service(1000), "b": service(1000) })).await;
    let (status, answer) = house
        .post("/scale/a?wait=20s", json!({ "instances": 3 }))
        .await;
    assert_eq!(
        (status, &answer["settled"]),
        (StatusCode::OK, &json!(true)),
        "{answer}"
    );
    let (a, b) = (house.pid("a", 1).await, house.pid("b", 1).await);
    house.pid("a", 3).await;
    house
        .post("/scale/a?wait=20s", json!({ "instances": 1 }))
        .await;
    assert_eq!(house.instance("a", 2).await, None);
    house.change(json!({ "a": service(1000), "b": service(2000), "c": service(1) }));
    let changed = house
        .until("b", 1, |instance| {
            instance.state == Running && instance.pid != Some(b)
        })
        .await;
    assert_eq!(changed.restarts, 0);
    house
        .until("c", 1, |instance| instance.state != Waiting)
        .await;
    assert_eq!(house.pid("a", 1).await, a);
    house.change(json!({ "a": service(1000) }));
    eventually("b is gone", async || house.instance("b", 1).await.is_none()).await;
    assert_eq!(house.pid("a", 1).await, a);
    house.finish().await;
}

#[tokio::test]
async fn an_instance_finds_its_environment_and_its_token() {
    let home = crate::support::Home::new();
    std::fs::write(home.path().join("some.env"), "FROM_FILE=file\n").expect("it can be written");
    let house = House::open(
        home.clone(),
        json!({ "api": {
            "command": shell("env > environment; cat $ALICIA_TOKEN_FILE > token; exec sleep 1000"),
            "environment": { "LEVEL": 3 }, "env_files": ["some.env"], "ports": { "http": "auto" },
        }}),
        Config::default(),
    )
    .await;
    let instance = house.until_running("api", 1).await;
    eventually("it has written", async || {
        home.path()
            .join("token")
            .metadata()
            .is_ok_and(|m| m.len() > 0)
    })
    .await;
    let environment = std::fs::read_to_string(home.path().join("environment")).expect("written");
    let port = instance.ports.values().next().expect("a port");
    let id = instance.instance.expect("it runs");
    for line in [
        "ALICIA_SERVICE=api",
        "ALICIA_SLOT=1",
        "ALICIA_EPOCH=1",
        "ALICIA_MQTT_USERNAME=api",
        "ALICIA_TOPIC_PREFIX=alicia",
        "ALICIA_API_URL=http://127.0.0.1:4000",
        "LEVEL=3",
        "FROM_FILE=file",
        &format!("PORT={port}"),
        &format!("ALICIA_INSTANCE={id}"),
    ] {
        assert!(
            environment.lines().any(|found| found == line),
            "{line} in {environment}"
        );
    }
    assert!(!environment.contains("CARGO"), "nothing else is inherited");
    let token = std::fs::read_to_string(home.path().join("token")).expect("written");
    let file = house.paths.credentials().join(id.as_str());
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), token);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &file.metadata().expect("it is there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    house.post("/stop?wait=20s", json!({})).await;
    eventually("the token is gone", async || !file.exists()).await;
    assert_eq!(house.state("api", 1).await, Some(Stopped));
    house.finish().await;
}

#[tokio::test]
async fn a_slow_starter_is_starting_until_its_line_comes() {
    let house = House::new(json!({ "api": {
        "command": shell("while [ ! -e go ]; do sleep 0.01; done; echo now ready; exec sleep 1000"),
        "readiness": { "log_line": { "contains": "now ready" } },
    }}))
    .await;
    let starting = house
        .until("api", 1, |i| {
            i.state == Starting && i.reason.contains("line")
        })
        .await;
    assert!(starting.reason.contains("now ready"), "{}", starting.reason);
    std::fs::write(house.home().path().join("go"), "").expect("it can be written");
    house.until_running("api", 1).await;
    house.finish().await;
}

#[tokio::test]
async fn exec_probes_run_in_the_surroundings_of_the_service() {
    let house = House::new(json!({ "api": {
        "command": "sleep 1000", "environment": { "FILE": "flag" },
        "readiness": { "exec": { "command": shell("test \"$ALICIA_SERVICE\" = api && test -e $FILE") } },
    }}))
    .await;
    house.until("api", 1, |i| i.state == Starting).await;
    std::fs::write(house.home().path().join("flag"), "").expect("it can be written");
    house.until_running("api", 1).await;
    house.finish().await;
}

#[tokio::test]
async fn what_does_not_end_in_time_is_killed_when_the_house_closes() {
    let config = Config {
        stop_deadline: alicia_contract::Period::from_millis(300),
        ..Config::default()
    };
    let home = crate::support::Home::new();
    let script = "trap '' TERM; echo deaf; while :; do sleep 0.05; done";
    let services = json!({ "api": {
        "command": shell(script), "stop": { "grace": "10m" },
        "readiness": { "log_line": { "contains": "deaf" } },
    }});
    let house = House::open(home, services, config).await;
    let pid = house.pid("api", 1).await;
    let closing = tokio::time::timeout(Duration::from_secs(15), house.finish());
    closing.await.expect("the deadline is kept");
    assert!(!lives(pid));
}

#[tokio::test]
async fn another_user_runs_it_and_can_read_its_token() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: other users are not tested");
        return;
    }
    let home = crate::support::Home::new();
    // Others must get to the credentials and to the directory of the service.
    for directory in [home.path().to_owned(), home.path().join("data")] {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory, open).expect("it is ours");
    }
    let script = "echo $(id -un) $USER $HOME; cat $ALICIA_TOKEN_FILE >/dev/null && echo token; exec sleep 1000";
    let services = json!({ "api": { "command": shell(script), "user": "nobody" } });
    let house = House::open(home, services, Config::default()).await;
    house.until_running("api", 1).await;
    eventually("it has read its token", async || {
        let logs = house.text("/services/api/logs").await;
        logs.contains("nobody nobody /nonexistent") && logs.contains(" token")
    })
    .await;
    house.finish().await;
}
