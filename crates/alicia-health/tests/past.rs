//! History, objectives, reports, advice and the public page over REST, on a real bus and database.

#[path = "bus/world.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod world;

use std::sync::Arc;

use alicia_contract::fleet::ServiceSpec;
use alicia_contract::id::Epoch;
use alicia_contract::orchestrator::InstanceState;
use alicia_health::{Config, HealthModule};
use alicia_identity::Identity;
use alicia_module::Module as _;
use alicia_testkit::{Bench, Running, until};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use world::{World, instance_of, name};

macro_rules! bench {
    () => {
        match Bench::with_mosquitto().await {
            Some(bench) => bench,
            None => return,
        }
    };
}

fn config(section: Value) -> Config {
    serde_json::from_value(section).expect("a section")
}

/// An answer that is no JSON: status, kind, text.
async fn text(
    monitor: &Running<HealthModule>,
    path: &str,
    accept: &str,
    caller: Option<Identity>,
) -> (u16, String, String) {
    let mut request = Request::get(path)
        .header("accept", accept)
        .body(Body::empty())
        .expect("a request");
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    let router = HealthModule::routes().into_router(Arc::clone(&monitor.module));
    let answer = router.oneshot(request).await.expect("routers do not fail");
    let kind = answer.headers().get("content-type");
    let kind = kind
        .map_or("", |kind| kind.to_str().expect("text"))
        .to_owned();
    let status = answer.status().as_u16();
    let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20)
        .await
        .expect("a body");
    (
        status,
        kind,
        String::from_utf8(bytes.to_vec()).expect("text"),
    )
}

fn reader() -> Option<Identity> {
    let scope = alicia_contract::platform::Scope::Read;
    let name = "reader".to_owned();
    Some(Identity::Key { name, scope })
}

#[tokio::test]
async fn changes_are_kept_over_a_restart_of_the_monitor_and_reported() {
    let bench = bench!();
    let mut world = World::new(&bench, &["api"]).await;
    let monitor = bench.start::<HealthModule>(Config::default()).await;
    world.start("api").await;
    monitor.is_well().await;
    let states = async |monitor: &Running<HealthModule>| -> Vec<String> {
        let (_, view) = monitor.admin("GET", "/services/api", &Value::Null).await;
        let history = view["history"].as_array().cloned().unwrap_or_default();
        let state = |change: &Value| change["state"].as_str().unwrap_or_default().to_owned();
        history.iter().map(state).collect()
    };
    until("it is healthy in the history", async || {
        states(&monitor)
            .await
            .first()
            .is_some_and(|state| state == "healthy")
    })
    .await;
    world.enter("api", InstanceState::Backoff).await;
    world.start("api").await;
    until("its fall is in the history", async || {
        let states = states(&monitor).await;
        states.first().is_some_and(|state| state == "healthy")
            && states.contains(&"down".to_owned())
    })
    .await;
    let before = states(&monitor).await;
    monitor.stop().await;
    let monitor = bench.start::<HealthModule>(Config::default()).await;
    // It has to hear of the service first.
    until("the service is known again", async || {
        !states(&monitor).await.is_empty()
    })
    .await;
    let after = states(&monitor).await;
    assert!(after.ends_with(&before), "{before:?} {after:?}");
    let (_, view) = monitor.admin("GET", "/services/api", &Value::Null).await;
    assert_eq!(view["uptime"][0]["window"], "24h");
    let (status, report) = monitor
        .admin("GET", "/reports?period=1h", &Value::Null)
        .await;
    assert_eq!(
        (status, &report["incidents_count"]),
        (200, &json!(1)),
        "{report}"
    );
    assert_eq!(report["incidents"][0]["service"], "api");
    let (_, kind, markdown) = text(
        &monitor,
        "/reports?period=7d&format=markdown",
        "*/*",
        reader(),
    )
    .await;
    assert_eq!(kind, "text/markdown; charset=utf-8");
    assert!(markdown.starts_with("# home: "), "{markdown}");
    let (_, kind, html) = text(
        &monitor,
        "/reports",
        "text/html,application/xhtml+xml",
        reader(),
    )
    .await;
    assert_eq!(kind, "text/html; charset=utf-8");
    assert!(html.starts_with("<!DOCTYPE html>"), "{html}");
    for path in [
        "/reports?period=1s",
        "/reports?period=x",
        "/reports?format=pdf",
    ] {
        let (status, _) = monitor.admin("GET", path, &Value::Null).await;
        assert_eq!(status, 422, "{path}");
    }
    assert_eq!(text(&monitor, "/reports", "*/*", None).await.0, 401);
    monitor.stop().await;
}

#[tokio::test]
async fn advice_names_the_evidence_and_the_command() {
    let bench = bench!();
    let mut world = World::new(&bench, &["api"]).await;
    let monitor = bench.start::<HealthModule>(Config::default()).await;
    world.start("api").await;
    monitor.is_well().await;
    let (_, none) = monitor.admin("GET", "/suggestions", &Value::Null).await;
    assert_eq!(none["suggestions"], json!([]));
    world.last_line = "Error: listen EADDRINUSE: address already in use :::8080".to_owned();
    world.enter("api", InstanceState::Failed).await;
    let suggestions = async || {
        let path = "/suggestions?service=api";
        monitor.admin("GET", path, &Value::Null).await.1
    };
    until("there is advice", async || {
        suggestions().await["suggestions"][0].is_object()
    })
    .await;
    let found = suggestions().await;
    let first = &found["suggestions"][0];
    assert_eq!(
        (&first["service"], &first["instance"]),
        (&json!("api"), &json!("api-1"))
    );
    let advice = &first["advice"][0];
    assert_eq!(advice["rule"], "port_taken", "{first}");
    assert_eq!(advice["command"], "ss -ltnp 'sport = :8080'");
    assert_eq!(advice["evidence"][0], world.last_line);
    until("the alert has it too", async || {
        let (_, page) = monitor
            .admin("GET", "/alerts?active=true", &Value::Null)
            .await;
        page["alerts"][0]["suggestion"] == "ss -ltnp 'sport = :8080'"
    })
    .await;
    let (status, problem) = monitor
        .admin("GET", "/suggestions?service=db", &Value::Null)
        .await;
    assert_eq!(status, 404, "there is no such service: {problem}");
    monitor.stop().await;
}

#[tokio::test]
async fn the_public_page_is_off_unless_the_file_says_so() {
    let bench = bench!();
    let mut world = World::new(&bench, &["api", "db"]).await;
    let monitor = bench.start::<HealthModule>(Config::default()).await;
    let (status, _, body) = text(&monitor, "/status", "text/html", None).await;
    assert_eq!(status, 404);
    assert!(body.contains("health.no_status_page"), "{body}");
    assert_eq!(text(&monitor, "/badges/api", "*/*", None).await.0, 404);
    monitor.stop().await;
    let section =
        json!({ "status_page": { "enabled": true, "title": "Our <house>", "services": ["api"] } });
    let monitor = bench.start::<HealthModule>(config(section)).await;
    world.start("api").await;
    let page = async || {
        let (status, kind, body) = text(&monitor, "/status", "text/html", None).await;
        assert_eq!((status, kind.as_str()), (200, "text/html; charset=utf-8"));
        body
    };
    until("it works", async || {
        page().await.contains("All services work.")
    })
    .await;
    let page = page().await;
    assert!(page.contains("<h1>Our &lt;house&gt;</h1>"), "{page}");
    assert!(
        !page.contains(">db<") && !page.contains("<script"),
        "{page}"
    );
    let (status, kind, badge) = text(&monitor, "/badges/api", "*/*", None).await;
    assert_eq!((status, kind.as_str()), (200, "image/svg+xml"));
    assert!(badge.contains("api: works"), "{badge}");
    assert!(
        text(&monitor, "/badges/api?uptime=24h", "*/*", None)
            .await
            .2
            .contains("api: ")
    );
    assert_eq!(
        text(&monitor, "/badges/api?uptime=1y", "*/*", None).await.0,
        404
    );
    assert_eq!(
        text(&monitor, "/badges/db", "*/*", None).await.0,
        404,
        "not on the page"
    );
    monitor.stop().await;
}

#[tokio::test]
async fn the_performance_of_services_is_told_as_json_and_for_prometheus() {
    let bench = bench!();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let mut spec = ServiceSpec::new(vec!["api".to_owned()]);
    let check = json!({ "tcp": { "port": port }, "interval": "100ms" });
    spec.checks.insert(
        name("port"),
        serde_json::from_value(check).expect("a check"),
    );
    let slo =
        json!({ "availability": 99.9, "latency": { "target": 99, "max": "1s", "check": "port" } });
    spec.slo = Some(serde_json::from_value(slo).expect("objectives"));
    let mut world = World::of(&bench, [("api", spec)]).await;
    let monitor = bench.start::<HealthModule>(Config::default()).await;
    world.start("api").await;
    let figures = async || monitor.admin("GET", "/metrics", &Value::Null).await.1;
    until("it works", async || {
        figures().await["services"][0]["state"] == "healthy"
    })
    .await;
    let figures = figures().await;
    assert_eq!(figures["services"][0]["instances"][0]["instance"], "api-1");
    let (_, kind, text) = text(&monitor, "/metrics", "text/plain;version=0.0.4", reader()).await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    assert!(
        text.contains("alicia_health_service_up{service=\"api\"} 1"),
        "{text}"
    );
    let (_, slos) = monitor.admin("GET", "/slos", &Value::Null).await;
    let objectives = slos["objectives"].as_array().expect("a list");
    let named: Vec<&str> = objectives
        .iter()
        .filter_map(|of| of["objective"].as_str())
        .collect();
    assert_eq!(named, ["availability", "latency"], "{slos}");
    assert_eq!(objectives[0]["budget_left_percent"], 100.0);
    monitor.stop().await;
}

/// A check of a broker goes through a real one; a program sees the files and the token of its service.
#[tokio::test]
async fn checks_reach_brokers_and_see_the_environment_of_the_service() {
    let bench = bench!();
    let port = bench.broker().address().port;
    let mut spec = ServiceSpec::new(vec!["api".to_owned()]);
    std::fs::write(bench.path().join("vars.env"), "FROM_FILE=yes\n").expect("written");
    spec.env_files = vec!["vars.env".to_owned()];
    let mut add = |check: &str, kind: Value| {
        let mut probe = json!({ "interval": "100ms", "fall": 1 });
        probe
            .as_object_mut()
            .expect("an object")
            .extend(kind.as_object().expect("an object").clone());
        spec.checks
            .insert(name(check), serde_json::from_value(probe).expect("a check"));
    };
    add(
        "broker",
        json!({ "mqtt": { "host": "127.0.0.1", "port": port } }),
    );
    add("house", json!({ "mqtt": {} }));
    add(
        "slow",
        json!({ "mqtt": { "host": "127.0.0.1", "port": port, "latency_max": "0s" } }),
    );
    add(
        "nobody",
        json!({ "mqtt": { "host": "127.0.0.1", "port": 1 } }),
    );
    let script = "test \"$FROM_FILE\" = yes && test -s \"$ALICIA_TOKEN_FILE\" && test -n \"$ALICIA_MQTT_URL\" && test \"$ALICIA_EPOCH\" -gt 0";
    add(
        "sees",
        json!({ "exec": { "command": ["sh", "-c", script] } }),
    );
    let mut world = World::of(&bench, [("api", spec)]).await;
    let monitor = bench.start::<HealthModule>(Config::default()).await;
    // What the orchestrator would write.
    let credentials = bench.path().join("credentials");
    std::fs::create_dir_all(&credentials).expect("made");
    std::fs::write(credentials.join(instance_of(Epoch(1)).as_str()), "a token").expect("written");
    world.start("api").await;
    let check = async |of: &str, state: &str, part: &str| {
        until(&format!("{of} is {state}: {part}"), async || {
            let (_, view) = monitor.admin("GET", "/services/api", &Value::Null).await;
            let checks = view["checks"].as_array().cloned().unwrap_or_default();
            checks.iter().any(|check| {
                let detail = check["detail"].as_str().unwrap_or_default();
                check["name"] == of && check["state"] == state && detail.contains(part)
            })
        })
        .await;
    };
    check("broker", "healthy", "round trip of").await;
    check("house", "healthy", "round trip of").await;
    check("slow", "unhealthy", "but it took").await;
    check("nobody", "unhealthy", "connection refused").await;
    check("sees", "healthy", "exit code 0").await;
    std::fs::remove_file(bench.path().join("vars.env")).expect("removed");
    monitor.stop().await;
    // A file that is gone is said.
    let monitor = bench.start::<HealthModule>(Config::default()).await;
    world.show().await;
    until("the missing file is named", async || {
        let (_, view) = monitor.admin("GET", "/services/api", &Value::Null).await;
        view["reason"]
            .as_str()
            .is_some_and(|why| why.contains("vars.env"))
            || view["checks"].as_array().is_some_and(|checks| {
                checks.iter().any(|check| {
                    check["detail"]
                        .as_str()
                        .unwrap_or_default()
                        .contains("failed to read the variables")
                })
            })
    })
    .await;
    monitor.stop().await;
}
