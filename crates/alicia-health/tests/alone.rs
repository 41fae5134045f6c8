//! The monitor starts with no neighbour at all: no bus, no orchestrator. It says what is missing, and REST works.

use alicia_health::{Config, HealthModule};
use alicia_module::{Health, Module};
use alicia_testkit::Bench;
use serde_json::{Value, json};

#[tokio::test]
async fn alone_it_says_what_is_missing_and_serves() {
    let bench = Bench::alone();
    let monitor = bench.start::<HealthModule>(Config::default()).await;
    let health = monitor.module.health();
    assert!(
        matches!(&health, Health::Degraded(why) if why.contains("bus")),
        "{health:?}"
    );
    let (status, body) = monitor.admin("GET", "/health", &Value::Null).await;
    assert_eq!((status, &body["status"]), (200, &json!("degraded")));
    let check = async |method: &str, path: &str, body: Value, expected: u16| {
        let (status, answer) = monitor.admin(method, path, &body).await;
        assert_eq!(status, expected, "{method} {path}: {answer}");
    };
    check("GET", "/services", Value::Null, 200).await;
    check("GET", "/services/api", Value::Null, 404).await;
    check("GET", "/dependencies", Value::Null, 200).await;
    check(
        "GET",
        "/alerts?active=true&severity=critical",
        Value::Null,
        200,
    )
    .await;
    check("GET", "/alerts?limit=0", Value::Null, 422).await;
    check("GET", "/alerts?severity=terrible", Value::Null, 422).await;
    check("POST", "/alerts/nosuch/ack", json!({}), 404).await;
    check("POST", "/alerts/nosuch/ack", json!({ "note": 7 }), 422).await;
    check("POST", "/restart/api", Value::Null, 404).await;
    let (status, _) = monitor.call("GET", "/alerts", None, &Value::Null).await;
    assert_eq!(status, 401);
    monitor.stop().await;
}
