//! What to do about a value that is not what the schema expects.

use serde_json::Value;

use super::below::Below;
use super::foreign;
use super::words::{self, shorten};
use crate::nearest::{NAMES_MAX, by_distance, near, nearest, one_of};

/// The most keys that are named when none is like it and not all can be.
const LIKE_MAX: usize = 5;

/// Values that have another name elsewhere.
const FOREIGN_VALUES: [(&str, &str); 8] = [
    ("unless-stopped", "always"),
    ("no", "never"),
    ("off", "never"),
    ("ready", "healthy"),
    ("running", "started"),
    ("service_started", "started"),
    ("service_healthy", "healthy"),
    ("service_completed_successfully", "completed"),
];

/// The known key that an unknown one was meant to be.
pub(super) fn meant<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    meant_by(key, known).map(|(_, name)| name)
}

/// The same, with how many characters differ; none for what has another name elsewhere.
fn meant_by<'k>(key: &str, known: &[&'k str]) -> Option<(usize, &'k str)> {
    foreign::path_here(key)
        .and_then(|here| known.iter().copied().find(|name| *name == here))
        .map(|name| (0, name))
        .or_else(|| near(key, known.iter().copied()))
}

/// A key that the schema does not know.
pub(super) fn for_unknown_key(root: &Value, schema: &Value, key: &str) -> String {
    let properties = schema["properties"].as_object();
    let known: Vec<&str> = properties
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    let known = &known[..];
    let is_of_ours = known.contains(&"services") || known.contains(&"depends_on");
    if let Some(words) = foreign::words(key).filter(|_| is_of_ours) {
        return words.to_owned();
    }
    let below = Below::of(root, schema);
    let (here, there) = (meant_by(key, known), below.path(key));
    below
        .foreign(key)
        .or(match (here, there) {
            (Some((here, _)), Some((there, path))) if there < here => Some(path),
            (Some((_, name)), _) => Some(format!("did you mean `{name}`?")),
            (None, Some((_, path))) => Some(path),
            (None, None) => None,
        })
        .or_else(|| below.last_part(key))
        .or_else(|| below.first_part(key))
        .unwrap_or_else(|| not_near(key, known))
}

/// A key that is like none of those that are known.
fn not_near(key: &str, known: &[&str]) -> String {
    let all = known.iter().copied();
    match known.len() {
        0 => "remove it".to_owned(),
        count if count > NAMES_MAX => {
            let likest = by_distance(key, all).into_iter().take(LIKE_MAX);
            let likest = one_of(likest.map(|(_, name)| name));
            format!("none of the {count} keys here is like it; the least unlike are {likest}")
        }
        _ => format!("expected {}", one_of(all)),
    }
}

/// A key that is no name.
pub(super) fn for_name(found: &str) -> String {
    let proposal: String = found
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(alicia_contract::id::ID_CHARS_MAX)
        .collect();
    match proposal.trim_matches('-') {
        "" => "choose another name".to_owned(),
        proposal => format!("write for example `{proposal}`"),
    }
}

/// A value of the wrong kind.
pub(super) fn for_value(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let schema = words::resolve(root, schema);
    if let Some(known) = listed_anywhere(root, schema) {
        return for_listed(&known, value);
    }
    let branches = words::branches(root, schema);
    let schema = match branches[..] {
        [one] => one,
        _ => schema,
    };
    let has = |kind: &str| branches.iter().any(|branch| branch["type"] == kind);
    let kind = match words::first_type(schema) {
        None if has("string") => Some("string"),
        None if has("array") => Some("array"),
        kind => kind,
    };
    match (kind?, value) {
        (_, Value::Null) => Some("write a value, or remove the key".to_owned()),
        ("boolean", Value::String(text)) => truth(text).map(|truth| format!("write `{truth}`")),
        ("integer" | "number", Value::String(text)) => number(text),
        ("string", value) => for_text(schema, value),
        ("array", Value::Object(_)) => Some("begin each item with `- `".to_owned()),
        ("array", Value::String(text)) => Some(format!("write `[{}]`", shorten(text))),
        ("array", scalar) => Some(format!("write `[{scalar}]`")),
        ("object", Value::Array(_)) => Some("write `key: value` lines without `- `".to_owned()),
        ("object", _) => Some("write `key: value` lines below the key, indented".to_owned()),
        _ => None,
    }
}

/// All listed values of a schema and of its alternatives.
fn listed_anywhere<'s>(root: &'s Value, schema: &'s Value) -> Option<Vec<&'s str>> {
    words::listed(root, schema).or_else(|| {
        let branches = words::branches(root, schema);
        let lists: Vec<&str> = branches
            .iter()
            .filter_map(|branch| words::listed(root, branch))
            .flatten()
            .collect();
        (!lists.is_empty()).then_some(lists)
    })
}

fn for_listed(known: &[&str], value: &Value) -> Option<String> {
    match value {
        Value::String(text) => {
            let foreign = FOREIGN_VALUES.iter().find(|(there, _)| there == text);
            foreign
                .and_then(|(_, here)| known.iter().find(|name| *name == here))
                .copied()
                .or_else(|| nearest(text, known.iter().copied()))
                .map(|name| format!("did you mean `{name}`?"))
        }
        // `no` and `off` are text in YAML 1.2, but people who know 1.1 write `false` for "never".
        Value::Bool(false) => known.contains(&"never").then(|| "write `never`".to_owned()),
        Value::Bool(true) => known
            .contains(&"always")
            .then(|| "write `always`".to_owned()),
        Value::Null => Some("write a value, or remove the key".to_owned()),
        Value::Object(_) | Value::Array(_) => Some("write the word behind the key".to_owned()),
        Value::Number(_) => None,
    }
}

fn for_text(schema: &Value, value: &Value) -> Option<String> {
    let known = schema["pattern"].as_str().and_then(words::of_pattern);
    match (known, value) {
        (Some(words::PERIOD), Value::Number(number)) => {
            Some(format!("write `{number}s` for seconds"))
        }
        (Some(words::PERIOD), Value::String(text)) => {
            let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            match bare {
                true => Some(format!("write `{text}s` for seconds")),
                false => {
                    Some("write whole numbers with ms, s, m, h or d, such as `1h30m`".to_owned())
                }
            }
        }
        (Some(words::NAME), Value::String(text)) => Some(for_name(text)),
        (Some(_), Value::Number(number)) => Some(format!("write `{number}MiB` for mebibytes")),
        (Some(_), Value::String(_)) => {
            Some("write a whole number with B, KiB, MiB, GiB, kB, MB or GB".to_owned())
        }
        (None, Value::Number(_) | Value::Bool(_)) => {
            Some(format!("write it in quotes: `\"{value}\"`"))
        }
        (None, Value::Array(_)) => Some("write one text, without `- `".to_owned()),
        (None, Value::Object(_)) => Some("put a text that contains `: ` in quotes".to_owned()),
        _ => None,
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "yes" | "on" | "y" | "true" | "1" | "enabled" => Some(true),
        "no" | "off" | "n" | "false" | "0" | "disabled" => Some(false),
        _ => None,
    }
}

fn number(text: &str) -> Option<String> {
    let bare = text.trim_start_matches('0');
    match text.parse::<f64>() {
        Ok(_) if bare != text && !bare.is_empty() => Some(format!("write `{bare}`")),
        Ok(_) => Some("remove the quotes".to_owned()),
        Err(_) => None,
    }
}
