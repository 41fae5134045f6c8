//! Parts of a schema and of a document in words.

use std::sync::LazyLock;

use alicia_contract::id::ID_PATTERN;
use alicia_contract::unit::{ByteSize, Period};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use crate::nearest::{any_of, one_of};

/// The longest text that a sentence repeats, in characters.
const TEXT_CHARS_MAX: usize = 60;

/// The deepest chain of references in a schema that is followed; a schema of ours has two.
const REFERENCES_MAX: usize = 16;

/// How a quantity or name is called, by the pattern that its schema has.
static PATTERNS: LazyLock<[(String, &str); 3]> = LazyLock::new(|| {
    [
        (pattern_of::<Period>(), PERIOD),
        (
            pattern_of::<ByteSize>(),
            "a size such as `64KiB` or `10MiB`",
        ),
        (ID_PATTERN.to_owned(), NAME),
    ]
});

/// What a [`Period`] is called.
pub(super) const PERIOD: &str = "a period such as `30s` or `5m`";

/// What an id is called.
pub(super) const NAME: &str = "a name of 1 to 63 characters out of a-z, 0-9 and `-`";

fn pattern_of<T: JsonSchema>() -> String {
    let schema = T::json_schema(&mut SchemaGenerator::default());
    let pattern = schema.get("pattern").and_then(Value::as_str);
    pattern.unwrap_or_default().to_owned()
}

/// What a pattern stands for, when it is one of ours.
pub(super) fn of_pattern(pattern: &str) -> Option<&'static str> {
    let known = PATTERNS.iter().find(|(known, _)| known == pattern);
    known.map(|(_, words)| *words)
}

/// The schema itself, behind any references.
pub(super) fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let mut schema = schema;
    for _ in 0..REFERENCES_MAX {
        let target = schema["$ref"]
            .as_str()
            .and_then(|reference| reference.strip_prefix('#'))
            .and_then(|pointer| root.pointer(pointer));
        match target {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema
}

/// The alternatives of a schema that has some, without the one for "nothing".
pub(super) fn branches<'s>(root: &'s Value, schema: &'s Value) -> Vec<&'s Value> {
    let list = schema["anyOf"].as_array().or(schema["oneOf"].as_array());
    list.into_iter()
        .flatten()
        .map(|branch| resolve(root, branch))
        .filter(|branch| branch["type"] != "null")
        .collect()
}

/// The values that a schema lists, when it does nothing else.
pub(super) fn listed<'s>(root: &'s Value, schema: &'s Value) -> Option<Vec<&'s str>> {
    let schema = resolve(root, schema);
    if let Some(value) = schema.get("const") {
        return value.as_str().map(|text| vec![text]);
    }
    if let Some(values) = schema["enum"].as_array() {
        return values
            .iter()
            .filter(|value| !value.is_null())
            .map(Value::as_str)
            .collect();
    }
    let branches = branches(root, schema);
    let lists: Option<Vec<_>> = branches.iter().map(|branch| listed(root, branch)).collect();
    lists
        .filter(|lists| !lists.is_empty())
        .map(|lists| lists.concat())
}

/// What a schema expects.
pub(super) fn expected(root: &Value, schema: &Value) -> String {
    let schema = resolve(root, schema);
    if let Some(values) = listed(root, schema) {
        return one_of(values);
    }
    let branches = branches(root, schema);
    if !branches.is_empty() {
        let phrases: Vec<String> = branches
            .iter()
            .map(|branch| alternative(root, branch))
            .collect();
        return any_of(&phrases);
    }
    match first_type(schema) {
        Some("string") => text(schema),
        Some("integer") => format!("a whole number{}", range(schema)),
        Some("number") => format!("a number{}", range(schema)),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("array") => "a list".to_owned(),
        Some("object") => "a map of keys".to_owned(),
        _ => "another value".to_owned(),
    }
}

/// An alternative, with the example that its description starts with.
fn alternative(root: &Value, schema: &Value) -> String {
    let words = expected(root, schema);
    let example = schema["description"]
        .as_str()
        .and_then(|description| description.strip_prefix('`'))
        .and_then(|description| description.split_once('`'));
    match example {
        Some((example, _)) if !words.contains('`') => format!("{words} such as `{example}`"),
        _ => words,
    }
}

fn text(schema: &Value) -> String {
    let known = schema["pattern"].as_str().and_then(of_pattern);
    match (known, schema["examples"][0].as_str()) {
        (Some(words), _) => words.to_owned(),
        (None, Some(example)) => format!("text such as `{example}`"),
        (None, None) => "text".to_owned(),
    }
}

fn range(schema: &Value) -> String {
    // Bounds of a type, such as 4294967295, tell a person nothing.
    let bound = |name: &str| schema.get(name).filter(|bound| bound.as_f64() < Some(4e9));
    match (bound("minimum"), bound("maximum")) {
        (Some(min), Some(max)) => format!(" from {} to {}", short(min), short(max)),
        (Some(min), None) => format!(", {} or more", short(min)),
        (None, Some(max)) => format!(", {} or less", short(max)),
        (None, None) => String::new(),
    }
}

/// `1` instead of `1.0`.
fn short(number: &Value) -> String {
    let text = number.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// The type of a schema; "null" beside another one does not count.
pub(super) fn first_type(schema: &Value) -> Option<&str> {
    match &schema["type"] {
        Value::String(name) => Some(name),
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .find(|name| *name != "null"),
        _ => schema.get("properties").map(|_| "object"),
    }
}

/// Whether a value has a type that the schema could accept.
pub(super) fn type_fits(root: &Value, schema: &Value, value: &Value) -> bool {
    let schema = resolve(root, schema);
    if listed(root, schema).is_some() {
        return value.is_string();
    }
    match first_type(schema) {
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some("null") => value.is_null(),
        _ => true,
    }
}

/// What a value is.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(truth) => format!("`{truth}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.is_empty() => "an empty text".to_owned(),
        Value::String(text) => format!("the text `{}`", shorten(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map of keys".to_owned(),
    }
}

/// A text that is fit for a sentence: on one line and not too long.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(TEXT_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}
