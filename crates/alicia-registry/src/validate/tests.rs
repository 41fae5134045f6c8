//! Each rule, and that all faults are told at once.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{FAULTS_MAX, read};

fn good() -> Value {
    json!({
        "service": "weather",
        "instance": "01jd3v9g3w8x7k2m4n5p6q7r8s",
        "version": "1.2.0",
        "capabilities": [{ "name": "forecast", "version": "1.0.0", "input_schema": { "type": "object" } }],
        "endpoints": { "http": "http://127.0.0.1:8080", "mqtt": "alicia/weather/command" },
        "labels": { "room": "roof" },
        "metadata": { "any": [1, "thing"] },
    })
}

fn pointers(value: Value) -> Vec<String> {
    let faults = read(value).err().unwrap_or_default();
    faults.into_iter().map(|fault| fault.pointer).collect()
}

#[test]
fn a_good_one_is_read_with_defaults() {
    let registration = read(good()).expect("has no fault");
    assert_eq!(registration.lease_s, 30.0);
    assert_eq!(registration.epoch.0, 0);
    assert_eq!(registration.protocols, ["1.0.0"]);
}

#[test]
fn each_rule_names_its_place() {
    let check = |pointer: &str, value: Value| {
        let mut body = good();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let parent = body.pointer_mut(parent).expect("the parent is there");
        match parent {
            Value::Array(items) => items[name.parse::<usize>().expect("an index")] = value,
            other => other[name] = value,
        }
        assert_eq!(pointers(body), [pointer]);
    };
    check("/service", json!("Weather"));
    check("/service", json!("register"));
    check("/instance", json!("weather-1"));
    check("/version", json!("1.2"));
    check("/epoch", json!(-1));
    check("/kind", json!("robot"));
    check("/protocols", json!(["2.0.0"]));
    check("/protocols", json!([]));
    check("/capabilities/0/version", json!("one"));
    check("/capabilities/0/input_schema", json!("object"));
    check(
        "/capabilities/0/input_schema",
        json!({ "x": "y".repeat(33_000) }),
    );
    check("/capabilities/0/cost_usd", json!(-0.5));
    check("/endpoints/http", json!("127.0.0.1:8080"));
    check("/endpoints/http", json!("http://:8080"));
    check("/endpoints/http", json!("http://a b"));
    check("/endpoints/mcp", json!("javascript:alert(1)"));
    check("/endpoints/mqtt", json!("alicia/+/command"));
    check("/labels/room", json!("x".repeat(257)));
    check("/labels/room", json!(7));
    check("/metadata", json!({ "x": "y".repeat(66_000) }));
    check("/metadata", json!([1]));
    check("/lease_s", json!(0.5));
    check("/lease_s", json!(1e9));
    check("/lease_s", json!("long"));
}

#[test]
fn all_faults_are_told_at_once() {
    let mut body = good();
    body["version"] = json!("x");
    body["lease_s"] = json!(0);
    body["capabilities"][0]["name"] = json!("A b");
    body.as_object_mut().expect("object").remove("service");
    let mut found = pointers(body);
    found.sort();
    assert_eq!(
        found,
        ["/capabilities/0/name", "/lease_s", "/service", "/version"]
    );
}

#[test]
fn counts_are_limited_and_so_is_the_answer() {
    let mut body = good();
    body["capabilities"] = (0..100)
        .map(|_| json!({ "name": "A", "version": "?" }))
        .collect();
    let found = pointers(body);
    assert_eq!(found.len(), FAULTS_MAX);
    assert!(read(json!({ "x": "y".repeat(300_000) })).is_err());
    assert!(read(json!(null)).is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_~/]{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever stands in any field: no panic, and what is accepted is a registration that reads back.
    #[test]
    fn any_value_in_any_field_is_answered(
        field in prop::sample::select(vec![
            "service", "instance", "epoch", "kind", "version", "protocols", "capabilities",
            "endpoints", "metadata", "labels", "lease_s",
        ]),
        value in any_json(),
    ) {
        let mut body = good();
        body[field] = value;
        if let Ok(registration) = read(body) {
            let again = serde_json::to_value(&registration).expect("writes");
            prop_assert_eq!(read(again).expect("reads back"), registration);
        }
    }
}
