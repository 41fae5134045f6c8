//! What a value may be, in words.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{cell, properties};

/// Longer lists of words stand below the table only.
const WORDS_MAX: usize = 4;

/// The definition that a value refers to.
pub(super) fn definition<'s>(schema: &'s Value, value: &'s Value) -> Option<&'s Value> {
    name(value).map(|name| &schema["$defs"][name])
}

fn name(value: &Value) -> Option<&str> {
    value["$ref"].as_str()?.strip_prefix("#/$defs/")
}

/// The mappings with keys of their own that a value may be or hold, each with its place in the file.
pub(super) fn mappings(schema: &Value, value: &Value, place: &str) -> Vec<(String, String)> {
    if let Some(name) = name(value) {
        let inner = &schema["$defs"][name];
        if !properties(inner).is_empty() || is_empty_mapping(inner) {
            return vec![(name.to_owned(), place.to_owned())];
        }
        return mappings(schema, inner, place);
    }
    let alternatives = value["anyOf"].as_array().into_iter().flatten();
    let mut found: Vec<(String, String)> = alternatives
        .flat_map(|value| mappings(schema, value, place))
        .collect();
    if value["items"].is_object() {
        found.extend(mappings(schema, &value["items"], &format!("{place}[]")));
    }
    if let Some(inner) = values(value) {
        found.extend(mappings(schema, inner, &format!("{place}.NAME")));
    }
    for (key, inner) in properties(value) {
        found.extend(mappings(schema, inner, &format!("{place}.{key}")));
    }
    found.dedup();
    found
}

/// A section that exists and has nothing to set.
fn is_empty_mapping(schema: &Value) -> bool {
    schema["type"] == "object"
        && values(schema).is_none()
        && schema["additionalProperties"] == false
}

/// What the values of a map are.
fn values(value: &Value) -> Option<&Value> {
    let patterns = value["patternProperties"].as_object();
    patterns
        .and_then(|patterns| patterns.values().next())
        .or_else(|| Some(&value["additionalProperties"]).filter(|inner| inner.is_object()))
}

/// What a value is, for the table.
pub(super) fn text(schema: &Value, links: &BTreeMap<&str, String>, value: &Value) -> String {
    let again = |value: &Value| text(schema, links, value);
    if let Some(name) = name(value) {
        return match links.get(name) {
            Some(link) => format!("[mapping](#{link})"),
            None => again(&schema["$defs"][name]),
        };
    }
    if let Some(word) = value["const"].as_str() {
        return format!("`{word}`");
    }
    if let Some(words) = value["oneOf"].as_array() {
        if words.len() > WORDS_MAX {
            return "one of the words below".to_owned();
        }
        return alternatives(words.iter().map(again));
    }
    if let Some(kinds) = value["anyOf"].as_array() {
        let kinds = kinds.iter().filter(|kind| kind["type"] != "null");
        return alternatives(kinds.map(again));
    }
    let kind = match &value["type"] {
        Value::Array(kinds) => kinds
            .iter()
            .find_map(|kind| kind.as_str().filter(|kind| *kind != "null")),
        kind => kind.as_str(),
    };
    match kind {
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("integer") => "whole number".to_owned(),
        Some("number") => "number".to_owned(),
        Some("string") => of_text(value["pattern"].as_str()).to_owned(),
        Some("array") => format!("list of: {}", again(&value["items"])),
        Some("object") => match values(value) {
            Some(inner) => format!("map from name to: {}", again(inner)),
            None if properties(value).is_empty() => "mapping".to_owned(),
            None => format!("mapping with {}", listed(value)),
        },
        _ => "anything".to_owned(),
    }
}

/// The keys of a mapping that has no section of its own.
fn listed(value: &Value) -> String {
    let keys = properties(value).keys();
    let keys: Vec<String> = keys.map(|key| format!("`{key}`")).collect();
    keys.join(", ")
}

fn alternatives(kinds: impl Iterator<Item = String>) -> String {
    let mut seen: Vec<String> = Vec::new();
    for kind in kinds {
        if !seen.contains(&kind) {
            seen.push(kind);
        }
    }
    // What lists or maps ends where the next alternative begins.
    let is_long = seen.iter().any(|kind| kind.contains(':'));
    seen.join(if is_long { "; or " } else { " or " })
}

/// A pattern is one of a quantity, of an id, or of something that its description explains.
fn of_text(pattern: Option<&str>) -> &'static str {
    match pattern {
        Some(pattern) if pattern.contains("ms|s|m|h|d") => "period",
        Some(pattern) if pattern.contains("KMGT") => "size",
        Some("^[a-z0-9-]{1,63}$") => "name",
        _ => "text",
    }
}

/// The default of a value; nothing where the keys of a mapping have their own.
pub(super) fn default(schema: &Value, value: &Value) -> String {
    let is_mapping = definition(schema, value)
        .is_some_and(|inner| !properties(inner).is_empty() || is_empty_mapping(inner));
    match &value["default"] {
        Value::Null => String::new(),
        _ if is_mapping => String::new(),
        Value::String(text) => format!("`{}`", cell(text)),
        Value::Array(list) if list.iter().any(|item| item.is_object()) => String::new(),
        Value::Array(list) if list.is_empty() => String::new(),
        Value::Object(map) if map.is_empty() => String::new(),
        other => format!("`{}`", cell(&other.to_string())),
    }
}

/// Words, each with what it means.
pub(super) type Words<'s> = Vec<(&'s str, &'s str)>;

/// The words that a value may be, or that it may list.
pub(super) fn words<'s>(schema: &'s Value, value: &'s Value) -> Words<'s> {
    if let Some(inner) = definition(schema, value) {
        return words(schema, inner);
    }
    if let Some(inner) = values(value) {
        return words(schema, inner);
    }
    if value["items"].is_object() {
        return words(schema, &value["items"]);
    }
    if let Some(kinds) = value["anyOf"].as_array() {
        let kinds = kinds.iter().filter(|kind| kind["$ref"].is_string());
        return kinds.flat_map(|kind| words(schema, kind)).collect();
    }
    let words = value["oneOf"].as_array().into_iter().flatten();
    words
        .filter_map(|word| {
            let about = word["description"].as_str()?;
            Some((word["const"].as_str()?, about))
        })
        .collect()
}
