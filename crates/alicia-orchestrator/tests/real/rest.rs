//! REST: what it answers, and what it refuses.

use std::time::Duration;

use alicia_contract::orchestrator::InstanceState::{Running, Stopped};
use alicia_contract::platform::Scope;
use alicia_identity::Identity;
use alicia_module::{Exposition, Module};
use alicia_orchestrator::Config;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{Home, House, eventually, shell, within};

fn services() -> Value {
    json!({
        "api": { "command": "sleep 1000", "groups": ["web"], "depends_on": { "db": "started" } },
        "db": { "command": "sleep 1000", "ports": { "sql": 54_321 }, "description": "rows" },
        "tool": { "command": "sleep 1000", "profiles": ["dev"] },
    })
}

#[tokio::test]
async fn wrong_input_is_refused_with_a_code_and_what_to_do() {
    let house = House::new(services()).await;
    let check = async |path: &str, body: Value, status: u16, code: &str| {
        let (found, problem) = house.post(path, body).await;
        assert_eq!(
            (found.as_u16(), problem["code"].as_str()),
            (status, Some(code)),
            "{problem}"
        );
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
    };
    let nothing = json!({});
    check(
        "/services/apu/start",
        nothing.clone(),
        404,
        "orchestrator.unknown_service",
    )
    .await;
    check(
        "/start?service=apu",
        nothing.clone(),
        404,
        "orchestrator.unknown_service",
    )
    .await;
    check(
        "/start?group=gone",
        nothing.clone(),
        404,
        "orchestrator.unknown_service",
    )
    .await;
    check(
        "/start?service=",
        nothing.clone(),
        422,
        "orchestrator.invalid_parameter",
    )
    .await;
    check(
        "/stop?service=A%2FB",
        nothing.clone(),
        422,
        "orchestrator.invalid_parameter",
    )
    .await;
    check(
        "/start?wait=11m",
        nothing.clone(),
        422,
        "orchestrator.invalid_parameter",
    )
    .await;
    check(
        "/start?wait=soon",
        nothing.clone(),
        422,
        "host.invalid_input",
    )
    .await;
    check(
        "/start?colour=red",
        nothing.clone(),
        422,
        "host.invalid_input",
    )
    .await;
    check(
        "/services/A_B/stop",
        nothing.clone(),
        404,
        "host.no_such_path",
    )
    .await;
    let long = format!("/stop?reason={}", "x".repeat(501));
    check(&long, nothing.clone(), 422, "orchestrator.long_reason").await;
    check(
        "/scale/api",
        json!({ "instances": 1_001 }),
        422,
        "orchestrator.invalid_scale",
    )
    .await;
    check(
        "/scale/api",
        json!({ "instances": -1 }),
        422,
        "host.invalid_input",
    )
    .await;
    check("/scale/api", nothing.clone(), 422, "host.invalid_input").await;
    check(
        "/scale/gone",
        json!({ "instances": 1 }),
        404,
        "orchestrator.unknown_service",
    )
    .await;
    check(
        "/scale/db",
        json!({ "instances": 2 }),
        409,
        "orchestrator.fixed_port",
    )
    .await;
    let signal = |signal: &str| json!({ "signal": signal });
    check(
        "/services/api/signal",
        signal("SIGWHAT"),
        422,
        "host.invalid_input",
    )
    .await;
    check(
        "/services/tool/signal",
        signal("SIGHUP"),
        409,
        "orchestrator.not_running",
    )
    .await;
    check(
        "/services/gone/signal",
        signal("SIGHUP"),
        404,
        "orchestrator.unknown_service",
    )
    .await;
    for path in ["/services/gone", "/services/gone/logs"] {
        let (status, problem) = house.get(path).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(problem["code"], "orchestrator.unknown_service");
    }
    for path in [
        "/services/api/logs?tail=10001",
        "/services/api/logs?since=x",
        "/services/api/logs?tail=-1",
        "/audit?limit=0",
        "/audit?limit=1001",
        "/audit?before=x",
        "/dependencies?format=pdf",
    ] {
        assert_eq!(
            house.get(path).await.0,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{path}"
        );
    }
    house.finish().await;
}

#[tokio::test]
async fn commands_are_idempotent_and_act_on_services_groups_and_the_fleet() {
    let house = House::new(services()).await;
    let (_, answer) = house.post("/start?wait=20s", json!({})).await;
    assert_eq!(
        answer["services"],
        json!(["db", "api"]),
        "a profile is not asked for"
    );
    assert_eq!(answer["settled"], true);
    // Its end has an audit row of its own.
    eventually("the first deployment is over", async || {
        house.get("/deployments/1").await.1["state"] == "done"
    })
    .await;
    let pid = house.pid("api", 1).await;
    let (status, answer) = house
        .post("/start?service=api,db&wait=20s", json!({}))
        .await;
    assert_eq!((status, &answer["settled"]), (StatusCode::OK, &json!(true)));
    assert_eq!(house.pid("api", 1).await, pid, "what runs goes on");
    house.post("/services/tool/start?wait=20s", json!({})).await;
    assert_eq!(house.state("tool", 1).await, Some(Running));
    house
        .post("/stop?group=web&wait=20s&reason=night", json!({}))
        .await;
    assert_eq!(house.state("api", 1).await, Some(Stopped));
    assert_eq!(house.state("db", 1).await, Some(Running));
    let (_, answer) = house
        .post("/services/api/restart?wait=20s", json!({}))
        .await;
    assert_eq!(
        answer["instances"][0]["state"], "running",
        "a restart starts what is stopped"
    );
    let (_, answer) = house.post("/stop?wait=20s", json!({})).await;
    assert_eq!(answer["settled"], true, "{answer}");
    let (_, rows) = house.get("/audit?limit=3").await;
    let actions: Vec<_> = rows
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| &row["action"])
        .collect();
    assert_eq!(
        actions,
        [
            "orchestrator.stop",
            "orchestrator.restart",
            "orchestrator.stop"
        ]
    );
    assert_eq!(rows[2]["detail"]["reason"], "night");
    assert_eq!(rows[0]["actor"], "key/admin");
    let before = rows[2]["id"].as_u64().expect("an id");
    let (_, older) = house.get(&format!("/audit?before={before}&limit=1")).await;
    assert_eq!(older[0]["action"], "orchestrator.start");
    house.finish().await;
}

#[tokio::test]
async fn a_reader_may_look_and_not_touch() {
    let house = House::new(services()).await;
    let call = async |request: axum::http::request::Builder, who: Option<Identity>| {
        let mut request = request.body(Body::empty()).expect("a request");
        if let Some(who) = who {
            request.extensions_mut().insert(who);
        }
        house
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("an answer")
            .status()
    };
    let reader = || {
        Some(Identity::Key {
            name: "r".into(),
            scope: Scope::Read,
        })
    };
    assert_eq!(
        call(Request::get("/status"), reader()).await,
        StatusCode::OK
    );
    assert_eq!(
        call(Request::get("/status"), None).await,
        StatusCode::UNAUTHORIZED
    );
    for path in [
        "/stop",
        "/services/api/stop",
        "/scale/api",
        "/services/api/signal",
    ] {
        assert_eq!(
            call(Request::post(path), reader()).await,
            StatusCode::FORBIDDEN,
            "{path}"
        );
        assert_eq!(
            call(Request::post(path), None).await,
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
    house.finish().await;
}

#[tokio::test]
async fn the_fleet_is_shown_in_every_form() {
    let house = House::new(services()).await;
    house.until_running("api", 1).await;
    let (_, rows) = house.get("/instances").await;
    let row = rows
        .as_array()
        .expect("rows")
        .iter()
        .find(|row| row["instance"] == "api-1");
    let row = row.expect("it is there");
    for field in [
        "service",
        "instance",
        "state",
        "pid",
        "restarts",
        "since",
        "exit",
        "health",
        "cpu",
        "memory_bytes",
    ] {
        assert!(row.get(field).is_some(), "{field} in {row}");
    }
    let (_, graph) = house.get("/dependencies").await;
    assert_eq!(graph["critical_path"], json!(["db", "api"]));
    assert_eq!(graph["order"], json!(["db", "tool", "api"]));
    assert!(
        house
            .text("/dependencies?format=dot")
            .await
            .contains("\"api\" -> \"db\"")
    );
    assert!(
        house
            .text("/dependencies?format=mermaid")
            .await
            .starts_with("flowchart LR")
    );
    let (_, view) = house.get("/services/db").await;
    assert_eq!(view["description"], "rows");
    assert_eq!(view["instances"][0]["ports"]["sql"], 54_321);
    let mut out = Exposition::default();
    out.begin("orchestrator");
    eventually("the metrics have it", async || {
        out = Exposition::default();
        out.begin("orchestrator");
        house.module.metrics(&mut out);
        out.text()
            .contains("alicia_orchestrator_instances{state=\"running\"} 2")
    })
    .await;
    assert!(out.text().contains("alicia_orchestrator_spawns_total 2"));
    assert!(
        out.text()
            .contains("alicia_orchestrator_restarts_total{service=\"api\"} 0")
    );
    house.finish().await;
}

#[tokio::test]
async fn the_use_of_a_tree_is_that_of_all_its_processes() {
    let house =
        House::new(json!({ "busy": { "command": shell("while :; do :; done & wait") } })).await;
    let busy = house
        .until("busy", 1, |instance| {
            instance.cpu.is_some_and(|cpu| cpu > 0.05)
        })
        .await;
    assert!(
        busy.memory_bytes.is_some_and(|bytes| bytes > 100_000),
        "{busy:?}"
    );
    house.finish().await;
}

#[tokio::test]
async fn logs_are_read_filtered_and_followed() {
    let script = "n=0; while :; do n=$((n+1)); echo line $n; while [ ! -e go ]; do sleep 0.01; done; \
                  rm go; done";
    let house = House::new(json!({ "api": { "command": shell(script) } })).await;
    house.until_running("api", 1).await;
    let go = house.home().path().join("go");
    let taken = async || {
        std::fs::write(&go, "").expect("it can be written");
        eventually("it was taken", async || !go.exists()).await;
    };
    taken().await;
    eventually("two lines", async || {
        house.text("/services/api/logs").await.lines().count() == 2
    })
    .await;
    let text = house
        .text("/services/api/logs?grep=line%202&since=1h")
        .await;
    assert!(text.trim_end().ends_with(" api-1 line 2"), "{text}");
    assert_eq!(
        house
            .text("/services/api/logs?tail=1")
            .await
            .lines()
            .count(),
        1
    );
    assert_eq!(house.text("/services/api/logs?slot=2").await, "");
    assert_eq!(house.text("/services/api/logs?since=0s").await, "");
    let request = Request::get("/services/api/logs?follow=true&tail=1")
        .header("accept", "application/x-ndjson")
        .extension(Identity::Key {
            name: "r".into(),
            scope: Scope::Read,
        })
        .body(Body::empty())
        .expect("a request");
    let response = house
        .router
        .clone()
        .oneshot(request)
        .await
        .expect("an answer");
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let mut body = response.into_body().into_data_stream();
    let mut next = async || {
        let chunk = within("a line", futures_util::StreamExt::next(&mut body)).await;
        let chunk = chunk.expect("it goes on").expect("bytes");
        serde_json::from_slice::<Value>(&chunk).expect("one object")
    };
    assert_eq!(next().await["text"], "line 2");
    taken().await;
    let line = next().await;
    assert_eq!(
        (&line["text"], &line["stream"]),
        (&json!("line 3"), &json!("stdout"))
    );
    assert_eq!(line["instance"], "api-1");
    house.finish().await;
}

#[tokio::test]
async fn a_signal_reaches_the_processes() {
    let script = "trap 'echo told' HUP; echo up; while :; do sleep 0.01; done";
    let ready = json!({ "log_line": { "contains": "up" } });
    let house =
        House::new(json!({ "api": { "command": shell(script), "readiness": ready } })).await;
    house.until_running("api", 1).await;
    let (status, answer) = house
        .post("/services/api/signal", json!({ "signal": "SIGHUP" }))
        .await;
    assert_eq!(
        (status, answer),
        (StatusCode::OK, json!({ "instances": ["api-1"] }))
    );
    eventually("it heard", async || {
        house.text("/services/api/logs").await.contains("told")
    })
    .await;
    house.finish().await;
}

#[tokio::test]
async fn what_is_selected_runs_with_what_it_needs_and_a_reload_changes_it() {
    let name = |text: &str| alicia_contract::ServiceName::new(text).expect("a name");
    let config = Config {
        only: vec![name("api")],
        ..Config::default()
    };
    let services = json!({
        "api": { "command": "sleep 1000", "depends_on": ["db"] },
        "db": { "command": "sleep 1000" },
        "web": { "command": "sleep 1000" },
    });
    let house = House::open(Home::new(), services, config).await;
    house.until_running("api", 1).await;
    assert_eq!(house.state("db", 1).await, Some(Running));
    assert_eq!(house.state("web", 1).await, Some(Stopped));
    let config = Config {
        only: vec![name("web")],
        ..Config::default()
    };
    house.module.reload(config).await.expect("is taken");
    house.until_running("web", 1).await;
    house
        .until("db", 1, |instance| instance.state == Stopped)
        .await;
    assert_eq!(house.state("api", 1).await, Some(Stopped));
    tokio::time::timeout(Duration::from_secs(20), house.finish())
        .await
        .expect("it closes");
}
