//! Hostile schemas, faults in words, and comparisons.

use serde_json::{Value, json};

use super::*;

fn faults(schema: Value, value: Value) -> Vec<(String, String)> {
    let checked = Checked::new(&schema).expect("the schema is good");
    let faults = checked.faults(&value, "/input");
    assert_eq!(faults.is_empty(), checked.fits(&value), "{value}");
    faults
        .into_iter()
        .map(|fault| (fault.pointer, fault.message))
        .collect()
}

#[test]
fn what_does_not_fit_is_said_with_its_place() {
    let schema = json!({
        "type": "object",
        "properties": {
            "city": { "type": "string", "minLength": 2 },
            "days": { "type": "integer", "minimum": 1, "maximum": 14 },
            "unit": { "enum": ["C", "F"] },
            "a/b": { "type": "boolean" },
        },
        "required": ["city"],
        "additionalProperties": false,
    });
    assert!(faults(schema.clone(), json!({ "city": "Rome", "days": 3 })).is_empty());
    let check = |value: Value, pointer: &str, message: &str| {
        let found = faults(schema.clone(), value);
        assert_eq!(found, [(pointer.to_owned(), message.to_owned())]);
    };
    check(json!({}), "/input/city", "is missing");
    check(
        json!({ "city": 7 }),
        "/input/city",
        "found 7, expected a text",
    );
    check(
        json!({ "city": "Rome", "days": 0 }),
        "/input/days",
        "found 0, expected 1 or more",
    );
    check(
        json!({ "city": "Rome", "unit": "K" }),
        "/input/unit",
        r#"found "K", expected one of "C", "F""#,
    );
    check(
        json!({ "city": "Rome", "dayz": 1 }),
        "/input/dayz",
        "is not known here",
    );
    check(
        json!({ "city": "Rome", "a/b": 1 }),
        "/input/a~1b",
        "found 1, expected true or false",
    );
    check(json!([]), "/input", "found a list, expected an object");
}

#[test]
fn a_fault_repeats_no_more_than_a_little_of_what_was_sent() {
    let long = "x".repeat(100_000);
    let found = faults(json!({ "type": "integer" }), json!(long));
    assert!(found[0].1.len() < 200, "{}", found[0].1.len());
}

#[test]
fn hostile_schemas_are_refused() {
    let deep = (0..100).fold(json!({}), |inner, _| json!({ "not": inner }));
    let long: Vec<String> = (0..10_000).map(|n| format!("choice-{n}")).collect();
    let check = |schema: Value, expected: &str| {
        let fault = Checked::new(&schema).expect_err("it is refused");
        assert!(fault.to_string().contains(expected), "{fault}");
    };
    check(json!([]), "object");
    check(json!("string"), "object");
    check(json!({ "type": "text" }), "type");
    check(json!({ "type": 7 }), "type");
    check(json!({ "minimum": "a" }), "minimum");
    check(json!({ "pattern": "(" }), "pattern");
    check(json!({ "pattern": "(a{1000}){1000}" }), "pattern");
    check(json!({ "pattern": "(?=a)" }), "pattern");
    check(deep, "levels");
    check(json!({ "enum": long }), "bytes");
    check(
        json!({ "$ref": "http://127.0.0.1:1/schema" }),
        "place in this schema",
    );
    check(
        json!({ "$ref": "file:///etc/passwd" }),
        "place in this schema",
    );
    check(json!({ "$ref": "#/$defs/none" }), "place in this schema");
    check(json!({ "$ref": "#" }), "back to itself");
    check(json!({ "allOf": [{ "$ref": "#" }] }), "back to itself");
    check(
        json!({ "$ref": "#/$defs/a", "$defs": { "a": { "anyOf": [{ "$ref": "#/$defs/b" }] }, "b": { "$ref": "#/$defs/a" } } }),
        "back to itself",
    );
}

#[test]
fn a_schema_may_go_round_through_the_value() {
    let tree = json!({ "type": "object", "properties": { "next": { "$ref": "#" } }, "additionalProperties": false });
    assert!(faults(tree.clone(), json!({ "next": { "next": {} } })).is_empty());
    let found = faults(tree.clone(), json!({ "next": { "other": 1 } }));
    assert_eq!(found[0].0, "/input/next/other");
    let deep = (0..VALUE_LEVELS_MAX + 1).fold(json!({}), |inner, _| json!({ "next": inner }));
    assert!(faults(tree, deep)[0].1.contains("levels"));
}

#[test]
fn a_pattern_costs_linear_time() {
    // The classic of backtracking: 2^n steps for n characters.
    let found = faults(
        json!({ "pattern": "^(a+)+$" }),
        json!(format!("{}b", "a".repeat(50_000))),
    );
    assert_eq!(found.len(), 1);
}

#[test]
fn a_schema_that_promises_enough_fits() {
    let check = |narrow: Value, wide: Value, expected: &[&str]| {
        let found = compare(&narrow, &wide);
        let places: Vec<&str> = found.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(places, expected, "{narrow} into {wide}: {found:?}");
    };
    let city = json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
    check(city.clone(), city.clone(), &[]);
    check(city.clone(), json!({}), &[]);
    check(json!({}), json!({ "type": "string" }), &[""]);
    check(
        json!({ "type": "integer" }),
        json!({ "type": "number" }),
        &[],
    );
    check(
        json!({ "type": "number" }),
        json!({ "type": "integer" }),
        &[""],
    );
    check(
        json!({ "type": ["string", "null"] }),
        json!({ "type": "string" }),
        &[""],
    );
    check(
        json!({ "const": 3 }),
        json!({ "type": "integer", "enum": [1, 3] }),
        &[],
    );
    check(json!({ "enum": [1, 2] }), json!({ "enum": [1] }), &[""]);
    check(json!({ "type": "string" }), json!({ "enum": ["a"] }), &[""]);
    let optional = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    check(optional.clone(), city.clone(), &["/city"]);
    let closed = json!({ "type": "object", "properties": { "city": { "type": "string" } }, "additionalProperties": false });
    check(city.clone(), closed.clone(), &[""]);
    let more = json!({ "type": "object", "properties": { "city": { "type": "string" }, "x": {} }, "additionalProperties": false });
    check(more, closed.clone(), &["/x"]);
    check(closed.clone(), optional, &[]);
    let list = |kind: &str| json!({ "type": "array", "items": { "type": kind } });
    check(list("integer"), list("number"), &[]);
    check(list("string"), list("number"), &["/*"]);
}

#[test]
fn bounds_are_compared() {
    let check = |narrow: Value, wide: Value, fits: bool| {
        let found = compare(&narrow, &wide);
        assert_eq!(found.is_empty(), fits, "{narrow} into {wide}: {found:?}");
    };
    let number = |name: &str, bound: f64| json!({ "type": "number", name: bound });
    check(number("minimum", 2.0), number("minimum", 1.0), true);
    check(number("minimum", 0.0), number("minimum", 1.0), false);
    check(
        number("exclusiveMinimum", 1.0),
        number("minimum", 1.0),
        true,
    );
    check(
        number("minimum", 1.0),
        number("exclusiveMinimum", 1.0),
        false,
    );
    check(
        number("minimum", 1.1),
        number("exclusiveMinimum", 1.0),
        true,
    );
    check(
        number("exclusiveMinimum", 1.0),
        number("exclusiveMinimum", 1.0),
        true,
    );
    check(number("maximum", 5.0), number("maximum", 9.0), true);
    check(number("maximum", 10.0), number("maximum", 9.0), false);
    check(json!({ "type": "number" }), number("maximum", 9.0), false);
    check(
        json!({ "type": "string" }),
        json!({ "type": "string", "minLength": 1 }),
        false,
    );
}

#[test]
fn what_cannot_be_compared_does_not_fit() {
    let check = |narrow: Value, wide: Value, fits: bool| {
        let found = compare(&narrow, &wide);
        assert_eq!(found.is_empty(), fits, "{narrow} into {wide}: {found:?}");
    };
    let text = json!({ "type": "string" });
    check(
        text.clone(),
        json!({ "type": "string", "pattern": "^a" }),
        false,
    );
    let same = json!({ "type": "string", "pattern": "^a" });
    check(same.clone(), same, true);
    let either = json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] });
    check(text.clone(), either.clone(), true);
    check(either.clone(), either.clone(), true);
    check(either, text.clone(), false);
    let named = json!({ "$ref": "#/$defs/t", "$defs": { "t": { "type": "string" } } });
    check(text.clone(), named.clone(), true);
    check(json!({ "type": "integer" }), named, false);
    let narrowed =
        json!({ "$ref": "#/$defs/t", "minLength": 3, "$defs": { "t": { "type": "string" } } });
    check(text, narrowed, false);
    let round = json!({ "type": "object", "properties": { "next": { "$ref": "#" } } });
    check(json!({ "type": "object" }), round, false);
}
