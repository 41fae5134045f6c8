//! REST of the registry: what is found, what is refused, and that what was answered is on disk.

use alicia_contract::a2a::AgentCard;
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::identity::Grant;
use alicia_contract::platform::Scope;
use alicia_identity::{Grants, Identity};
use alicia_registry::card::{CARD_TYPE, signed_bytes};
use alicia_registry::{Config, RegistryModule};
use alicia_signature::PublicKey;
use alicia_signature::jws::{Document, DocumentSignature, open_document};
use alicia_testkit::{Bench, Running};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

fn id(n: u64) -> InstanceId {
    InstanceId::from_parts(n, 7)
}

fn service(name: &str) -> Identity {
    run(name, 1)
}

fn run(name: &str, n: u64) -> Identity {
    Identity::Service {
        service: ServiceName::new(name).expect("an id"),
        instance: id(n),
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
    check("POST", "/agents", Some(&run("api", 2)), body("api", 2), 200).await;
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

#[tokio::test]
async fn an_instance_has_a_card_that_the_house_has_signed() {
    let bench = Bench::alone();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    registry.admin("POST", "/agents", &body("robot", 1)).await;
    let path = format!("/agents/{}/card", id(1));
    let (status, card) = registry.admin("GET", &path, &Value::Null).await;
    assert_eq!((status, &card["skills"][0]["id"]), (200, &json!("speech")));
    let known = format!("/agents/{}/.well-known/agent-card.json", id(1));
    let (status, same) = registry.admin("GET", &known, &Value::Null).await;
    assert_eq!((status, &same["name"]), (200, &card["name"]));

    let read: AgentCard = serde_json::from_value(card.clone()).expect("a card");
    let keys: Vec<PublicKey> = bench
        .authority()
        .root_keys(0.0)
        .iter()
        .map(|key| PublicKey::from_text(key).expect("a key"))
        .collect();
    let is_signed = |card: &AgentCard| {
        let document = Document {
            payload: URL_SAFE_NO_PAD.encode(signed_bytes(card)),
            signatures: card
                .signatures
                .iter()
                .map(|one| DocumentSignature {
                    protected: one.protected.clone(),
                    signature: one.signature.clone(),
                })
                .collect(),
        };
        open_document(&document, CARD_TYPE, &keys).is_some()
    };
    assert!(is_signed(&read), "{card}");
    let forged = AgentCard {
        version: "9.9.9".to_owned(),
        ..read
    };
    assert!(!is_signed(&forged));
    let (status, problem) = registry
        .admin("GET", &format!("/agents/{}/card", id(2)), &Value::Null)
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (404, &json!("registry.unknown_instance"))
    );
    registry.stop().await;
}

#[tokio::test]
async fn questions_and_calls_that_cannot_be_are_refused_with_their_place() {
    let bench = Bench::alone();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    let check = async |path: &str, body: Value, status: u16, code: &str, pointer: Option<&str>| {
        let (found, problem) = registry.admin("POST", path, &body).await;
        assert_eq!(
            (found, &problem["code"]),
            (status, &json!(code)),
            "{body}: {problem}"
        );
        if let Some(pointer) = pointer {
            assert_eq!(problem["faults"][0]["pointer"], pointer, "{problem}");
        }
    };
    for path in ["/resolve", "/call"] {
        check(path, json!({}), 422, "registry.invalid_query", Some("")).await;
        check(path, json!([]), 422, "registry.invalid_query", Some("")).await;
        check(
            path,
            json!({ "capability": "No!" }),
            422,
            "registry.invalid_query",
            None,
        )
        .await;
        check(
            path,
            json!({ "capability": "a", "x": 1 }),
            422,
            "registry.invalid_query",
            None,
        )
        .await;
        let ranged = json!({ "capability": "a", "version": "new" });
        check(
            path,
            ranged,
            422,
            "registry.invalid_query",
            Some("/version"),
        )
        .await;
    }
    let timed = json!({ "capability": "a", "timeout": "0s" });
    check(
        "/call",
        timed,
        422,
        "registry.invalid_query",
        Some("/timeout"),
    )
    .await;
    let nobody = json!({ "capability": "speach" });
    check("/call", nobody, 404, "registry.unknown_capability", None).await;
    registry.admin("POST", "/agents", &body("robot", 1)).await;
    let (status, problem) = registry
        .admin("POST", "/call", &json!({ "capability": "speach" }))
        .await;
    assert_eq!(status, 404);
    assert!(
        problem["detail"]
            .as_str()
            .expect("a text")
            .contains("did you mean speech?")
    );
    let newer = json!({ "capability": "speech", "version": "^7" });
    check("/call", newer, 409, "registry.no_such_version", None).await;
    // It named no topic of its own to be asked on.
    let known = json!({ "capability": "speech" });
    check("/call", known.clone(), 503, "registry.no_instance", None).await;
    for caller in [key("reader", Scope::Read), service("stranger")] {
        let (status, problem) = registry.call("POST", "/call", Some(&caller), &known).await;
        assert_eq!(
            (status, &problem["code"]),
            (403, &json!("registry.call_not_allowed"))
        );
        let (status, _) = registry
            .call("POST", "/resolve", Some(&caller), &known)
            .await;
        assert_eq!(status, 200);
    }
    // A key for calls alone may call all; this one cannot be reached, whoever asks.
    let caller = Identity::Limited {
        name: "robot".to_owned(),
        grants: Grants::new(vec!["registry:call".parse::<Grant>().expect("a scope")]),
    };
    let (status, problem) = registry.call("POST", "/call", Some(&caller), &known).await;
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("registry.no_instance"))
    );
    let (status, _) = registry.call("POST", "/call", None, &known).await;
    assert_eq!(status, 401);
    registry.stop().await;
}

#[tokio::test]
async fn a_schema_that_could_do_harm_is_refused_at_registration() {
    let bench = Bench::alone();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    let check = async |schema: Value, place: &str| {
        let mut body = body("robot", 1);
        body["capabilities"][0]["input_schema"] = schema;
        let (status, problem) = registry.admin("POST", "/agents", &body).await;
        assert_eq!(
            (status, &problem["code"]),
            (422, &json!("registry.invalid_registration"))
        );
        let pointer = format!("/capabilities/0/input_schema{place}");
        assert_eq!(problem["faults"][0]["pointer"], json!(pointer), "{problem}");
    };
    check(json!({ "type": "text" }), "/type").await;
    check(json!({ "$ref": "http://127.0.0.1:9/x" }), "/$ref").await;
    check(json!({ "$ref": "#" }), "/$ref").await;
    check(json!([]), "").await;
    let mut twice = body("robot", 1);
    let one = twice["capabilities"][0].clone();
    twice["capabilities"]
        .as_array_mut()
        .expect("a list")
        .push(one);
    let (status, problem) = registry.admin("POST", "/agents", &twice).await;
    assert_eq!(
        (status, &problem["faults"][0]["pointer"]),
        (422, &json!("/capabilities/1/name"))
    );
    registry.stop().await;
}

#[tokio::test]
async fn an_instance_does_not_speak_for_its_siblings() {
    let bench = Bench::alone();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    let met = service("met");
    let check = async |method: &str, path: &str, body: Value, expected: u16| {
        let (status, answer) = registry.call(method, path, Some(&met), &body).await;
        assert_eq!(status, expected, "{method} {path} {body}: {answer}");
    };
    // Its own id is the first one.
    check("POST", "/agents", body("met", 1), 200).await;
    check("POST", "/agents", body("met", 2), 403).await;
    let (status, _) = registry.admin("POST", "/agents", &body("met", 2)).await;
    assert_eq!(status, 200);
    check("POST", "/agents", body("met", 2), 403).await;
    check("DELETE", &format!("/agents/{}", id(2)), Value::Null, 403).await;
    check("DELETE", &format!("/agents/{}", id(1)), Value::Null, 200).await;
    registry.stop().await;
}
