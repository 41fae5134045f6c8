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

/// `depth` levels, each of which holds the next under `x`.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!({}), |inner, _| json!({ "x": inner }))
}

#[test]
fn what_would_take_for_ever_is_not_checked() {
    let check = |schema: Value, value: Value| {
        let checked = Checked::new(&schema).expect("it compiles");
        assert!(!checked.fits(&value), "{schema}");
        let faults = checked.faults(&value, "/input");
        assert_eq!(faults.len(), 1);
        assert!(faults[0].message.contains("too much"), "{faults:?}");
    };
    // Each level looks at the next one twice: 2^100 looks.
    let twice = json!({ "properties": { "x": { "allOf": [{ "$ref": "#" }, { "$ref": "#" }] } } });
    check(twice, nested(100));
    let unevaluated = json!({
        "anyOf": [{ "properties": { "x": { "$ref": "#" } } }, { "required": ["y"] }],
        "unevaluatedProperties": false,
    });
    check(unevaluated, nested(100));
    // A diamond of references doubles with each step, for each item of a list.
    let mut diamond = serde_json::Map::new();
    for n in 0..9 {
        let next = json!({ "$ref": format!("#/$defs/d{}", n + 1) });
        diamond.insert(format!("d{n}"), json!({ "allOf": [next, next] }));
    }
    diamond.insert("d9".to_owned(), json!({ "type": "integer" }));
    let schema = json!({ "items": { "$ref": "#/$defs/d0" }, "$defs": diamond });
    check(schema.clone(), json!(vec![1; 10_000]));
    assert!(
        Checked::new(&schema)
            .expect("it compiles")
            .fits(&json!([1, 2, 3]))
    );
    let long: Vec<usize> = (0..3_000).collect();
    check(json!({ "items": { "enum": long } }), json!(vec![-1; 1_000]));
}

#[test]
fn what_is_only_large_is_checked() {
    let tree = json!({
        "type": "object",
        "properties": { "left": { "$ref": "#" }, "right": { "$ref": "#" }, "value": { "type": "integer" } },
        "additionalProperties": false,
    });
    let full = (0..10).fold(
        json!({ "value": 1 }),
        |inner, _| json!({ "left": inner, "right": inner, "value": 1 }),
    );
    assert!(faults(tree.clone(), full).is_empty());
    let row = json!({ "id": 1, "name": "a", "tags": ["x", "y"] });
    let table = json!({
        "items": {
            "properties": { "id": { "type": "integer" }, "name": { "type": "string" }, "tags": { "items": { "enum": ["x", "y"] } } },
            "required": ["id", "name"],
        },
    });
    assert!(faults(table, json!(vec![row; 5_000])).is_empty());
}

#[test]
fn schemas_that_go_on_and_on_are_refused_before_they_are_compiled() {
    let chain = |links: usize, link: &dyn Fn(Value) -> Value| {
        let mut defs = serde_json::Map::new();
        for n in 0..links {
            let next = json!({ "$ref": format!("#/d/{}", n + 1) });
            defs.insert(n.to_string(), link(next));
        }
        defs.insert(links.to_string(), json!({}));
        json!({ "$ref": "#/d/0", "d": defs })
    };
    let refused = |schema: Value| {
        let fault = Checked::new(&schema).expect_err("it is refused");
        fault.message
    };
    let same = |next: Value| next;
    assert!(refused(chain(1_000, &same)).contains("on and on"));
    let inner = |next: Value| json!({ "items": next });
    assert!(refused(chain(600, &inner)).contains("levels together"));
    // Many references, each to a diamond of its own: quadratic, and worse, when each is followed anew.
    let mut defs = serde_json::Map::new();
    for n in 0..9 {
        let next = json!({ "$ref": format!("#/d/{}", n + 1) });
        defs.insert(n.to_string(), json!({ "allOf": [next, next, next] }));
    }
    defs.insert("9".to_owned(), json!({}));
    let many: Vec<Value> = (0..1_000).map(|_| json!({ "$ref": "#/d/0" })).collect();
    assert!(refused(json!({ "prefixItems": many, "d": defs })).contains("on and on"));
    assert!(Checked::new(&chain(20, &same)).is_ok());
    assert!(Checked::new(&chain(100, &inner)).is_ok());
}

#[test]
fn schemas_that_refer_to_themselves_are_compared() {
    let list = |kind: &str| {
        json!({ "type": "object", "properties": { "value": { "type": kind }, "next": { "$ref": "#" } },
                "additionalProperties": false })
    };
    assert_eq!(compare(&list("integer"), &list("integer")), []);
    assert_eq!(compare(&list("integer"), &list("number")), []);
    let found = compare(&list("string"), &list("number"));
    assert_eq!(found[0].pointer, "/value");
}

#[test]
fn what_only_looks_the_same_does_not_fit() {
    let check = |narrow: Value, wide: Value, fits: bool| {
        let found = compare(&narrow, &wide);
        assert_eq!(found.is_empty(), fits, "{narrow} into {wide}: {found:?}");
    };
    // The same words, which refer to something else.
    let named = |kind: &str| json!({ "allOf": [{ "$ref": "#/$defs/t" }], "$defs": { "t": { "type": kind } } });
    check(named("string"), named("integer"), false);
    check(named("string"), named("string"), true);
    let beside = |kind: &str| json!({ "$ref": "#/$defs/t", "minLength": 1, "$defs": { "t": { "type": kind } } });
    check(beside("string"), beside("integer"), false);
    // What is not named.
    let others = |kind: &str| json!({ "type": "object", "additionalProperties": { "type": kind } });
    check(others("integer"), others("number"), true);
    check(others("string"), others("number"), false);
    check(json!({ "type": "object" }), others("number"), false);
    let by_pattern = json!({ "type": "object", "patternProperties": { "^a": { "type": "string" } },
                             "additionalProperties": false });
    check(by_pattern.clone(), others("number"), false);
    let a_number = json!({ "type": "object", "properties": { "a": { "type": "number" } } });
    check(by_pattern, a_number, false);
    // The first items of a list.
    let first = json!({ "type": "array", "prefixItems": [{ "type": "string" }], "items": { "type": "number" } });
    check(
        first,
        json!({ "type": "array", "items": { "type": "number" } }),
        false,
    );
}

/// As large as they may be, on a stack as small as that of a worker thread: 2 MiB, also in a build for tests.
#[test]
fn the_deepest_that_is_taken_fits_on_the_stack() {
    let deepest = || {
        let mut defs = serde_json::Map::new();
        for n in 0..165 {
            let next = json!({ "items": { "$ref": format!("#/d/{}", n + 1) } });
            defs.insert(n.to_string(), next);
        }
        defs.insert("165".to_owned(), json!({}));
        let chain = json!({ "$ref": "#/d/0", "d": defs });
        let checked = Checked::new(&chain).expect("it compiles");
        let nested = (0..120).fold(json!([]), |inner, _| json!([inner]));
        assert!(checked.fits(&nested));
        assert_eq!(compare(&chain, &chain), []);
        let more = (0..165).fold(json!({}), |inner, _| json!({ "items": inner }));
        assert!(!compare(&chain, &more).is_empty());
        let choice = json!({ "anyOf": [{ "type": "null" }, { "items": { "$ref": "#" } }] });
        let recursive = Checked::new(&choice).expect("it compiles");
        drop(recursive.faults(&nested, ""));
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    thread
        .spawn(deepest)
        .expect("it starts")
        .join()
        .expect("it ends well");
}
