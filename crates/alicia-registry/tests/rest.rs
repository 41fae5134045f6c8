//! REST of the registry: what is found, what is refused, and that what was answered is on disk.

use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::platform::Scope;
use alicia_identity::Identity;
use alicia_registry::{Config, RegistryModule};
use alicia_testkit::{Bench, Running};
use serde_json::{Value, json};

fn id(n: u64) -> InstanceId {
    InstanceId::from_parts(n, 7)
}

fn service(name: &str) -> Identity {
    Identity::Service {
        service: ServiceName::new(name).expect("an id"),
        instance: id(1),
        epoch: Epoch(1),
    }
}

fn key(name: &str, scope: Scope) -> Identity {
    Identity::Key {
        name: name.to_owned(),
        scope,
    }
}

fn body(name: &str, n: u64) -> Value {
    json!({
        "service": name,
        "instance": id(n),
        "version": format!("1.{n}.0"),
        "capabilities": [{ "name": "speech", "version": format!("{n}.0.0") }],
        "labels": { "room": if n.is_multiple_of(2) { "hall" } else { "roof" } },
    })
}

async fn found(registry: &Running<RegistryModule>, query: &str) -> Vec<String> {
    let (status, page) = registry
        .admin("GET", &format!("/agents{query}"), &Value::Null)
        .await;
    assert_eq!(status, 200, "{query}: {page}");
    let agents = page["agents"].as_array().expect("a list").iter();
    agents
        .map(|agent| agent["version"].as_str().expect("a text").to_owned())
        .collect()
}

#[tokio::test]
async fn instances_are_found_by_what_they_said() {
    let bench = Bench::alone();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    for n in 1..=5 {
        let (status, _) = registry.admin("POST", "/agents", &body("robot", n)).await;
        assert_eq!(status, 200);
    }
    assert_eq!(
        found(&registry, "?capability=speech&version=%5E2").await,
        ["1.2.0"]
    );
    assert_eq!(
        found(&registry, "?version=%3E%3D1.4").await,
        ["1.4.0", "1.5.0"]
    );
    assert_eq!(
        found(&registry, "?label=room%3Dhall").await,
        ["1.2.0", "1.4.0"]
    );
    assert_eq!(found(&registry, "?label=floor").await, [""; 0]);
    assert_eq!(found(&registry, "?status=gone").await, [""; 0]);
    assert_eq!(found(&registry, "?capability=vision").await, [""; 0]);
    let (_, page) = registry.admin("GET", "/agents?limit=2", &Value::Null).await;
    let next = page["next"].as_str().expect("more").to_owned();
    let rest = found(&registry, &format!("?cursor={next}&limit=3")).await;
    assert_eq!(rest, ["1.3.0", "1.4.0", "1.5.0"]);
    let (_, page) = registry
        .admin("GET", &format!("/agents?cursor={}", id(3)), &Value::Null)
        .await;
    assert_eq!(page["next"], Value::Null);
    let (_, services) = registry.admin("GET", "/services", &Value::Null).await;
    assert_eq!(services["services"][0]["instances"]["present"], 5);
    let (status, view) = registry.admin("GET", "/services/robot", &Value::Null).await;
    assert_eq!(
        (status, view["instances"].as_array().map(Vec::len)),
        (200, Some(5))
    );
    registry.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_place() {
    let bench = Bench::alone();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    let mut wrong = body("robot", 1);
    wrong["version"] = json!("one");
    wrong["lease_s"] = json!(0);
    wrong["protocols"] = json!(["9.0.0"]);
    let (status, problem) = registry.admin("POST", "/agents", &wrong).await;
    assert_eq!(
        (status, &problem["code"]),
        (422, &json!("registry.invalid_registration"))
    );
    let mut places: Vec<&str> = problem["faults"]
        .as_array()
        .expect("faults")
        .iter()
        .filter_map(|fault| fault["pointer"].as_str())
        .collect();
    places.sort_unstable();
    assert_eq!(places, ["/lease_s", "/protocols", "/version"]);
    let check = async |method: &str, path: &str, expected: u16| {
        let (status, problem) = registry.admin(method, path, &Value::Null).await;
        assert_eq!(status, expected, "{method} {path}: {problem}");
        assert!(problem["code"].is_string(), "{problem}");
    };
    check("GET", "/agents?version=one", 422).await;
    check("GET", "/agents?limit=0", 422).await;
    check("GET", "/agents?limit=9999", 422).await;
    check("GET", "/agents?cursor=A%20B", 422).await;
    check("GET", "/agents?colour=red", 422).await;
    check("GET", "/agents/nosuch", 404).await;
    check("GET", "/agents/NO%2FSUCH", 404).await;
    check("DELETE", "/agents/nosuch", 404).await;
    check("GET", "/services/nosuch", 404).await;
    registry.stop().await;
}

#[tokio::test]
async fn only_the_holder_or_an_admin_may_change_an_entry() {
    let bench = Bench::alone();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    let tom = key("tom", Scope::Operate);
    let check = async |method: &str, path: &str, who: Option<&Identity>, body: Value, expected| {
        let (status, answer) = registry.call(method, path, who, &body).await;
        assert_eq!(status, expected, "{method} {path} as {who:?}: {answer}");
    };
    let one = format!("/agents/{}", id(1));
    check("POST", "/agents", None, body("robot", 1), 401).await;
    check(
        "POST",
        "/agents",
        Some(&key("eve", Scope::Read)),
        body("robot", 1),
        403,
    )
    .await;
    check(
        "POST",
        "/agents",
        Some(&service("api")),
        body("robot", 1),
        403,
    )
    .await;
    check("POST", "/agents", Some(&tom), body("robot", 1), 200).await;
    check(
        "POST",
        "/agents",
        Some(&key("eve", Scope::Operate)),
        body("robot", 1),
        403,
    )
    .await;
    check(
        "DELETE",
        &one,
        Some(&key("eve", Scope::Operate)),
        Value::Null,
        403,
    )
    .await;
    check("POST", "/agents", Some(&tom), body("other", 1), 409).await;
    check("DELETE", &one, Some(&tom), Value::Null, 200).await;
    check("POST", "/agents", Some(&tom), body("robot", 1), 409).await;
    check(
        "POST",
        "/agents",
        Some(&service("api")),
        body("api", 2),
        200,
    )
    .await;
    check(
        "DELETE",
        &format!("/agents/{}", id(2)),
        Some(&key("root", Scope::Admin)),
        Value::Null,
        200,
    )
    .await;
    registry.stop().await;
}

#[tokio::test]
async fn what_was_answered_survives_and_is_unverified_until_seen() {
    let bench = Bench::alone();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    for n in 1..=3 {
        assert_eq!(
            registry.admin("POST", "/agents", &body("robot", n)).await.0,
            200
        );
    }
    let left = format!("/agents/{}", id(3));
    assert_eq!(registry.admin("DELETE", &left, &Value::Null).await.0, 200);
    registry.stop().await;

    let registry = bench.start::<RegistryModule>(Config::default()).await;
    assert_eq!(
        found(&registry, "?status=unverified").await,
        ["1.1.0", "1.2.0"]
    );
    assert_eq!(found(&registry, "?status=gone").await, ["1.3.0"]);
    assert_eq!(
        registry.admin("POST", "/agents", &body("robot", 1)).await.0,
        200
    );
    assert_eq!(found(&registry, "?status=present").await, ["1.1.0"]);
    assert_eq!(
        registry.admin("POST", "/agents", &body("robot", 3)).await.0,
        409
    );
    registry.stop().await;
}

#[tokio::test]
async fn a_full_registry_takes_no_more() {
    let bench = Bench::alone();
    let registry = bench
        .start::<RegistryModule>(Config {
            instances_max: 2,
            ..Config::default()
        })
        .await;
    for n in 1..=2 {
        assert_eq!(
            registry.admin("POST", "/agents", &body("robot", n)).await.0,
            200
        );
    }
    let (status, problem) = registry.admin("POST", "/agents", &body("robot", 3)).await;
    assert_eq!((status, &problem["code"]), (503, &json!("registry.full")));
    registry.stop().await;
}
