//! The draft as YAML that a person likes to read on: the usual order of keys, comments for what was left out.

use serde_json::{Map, Value};

use crate::draft::Draft;

/// The order of settings; others follow in alphabetical order.
const ORDER: [&str; 34] = [
    "description",
    "container",
    "command",
    "directory",
    "user",
    "env_files",
    "environment",
    "secrets",
    "instances",
    "depends_on",
    "ports",
    "readiness",
    "liveness",
    "start_timeout",
    "restart",
    "back_off",
    "start_limit",
    "success_exit_codes",
    "image",
    "contains",
    "http",
    "tcp",
    "exec",
    "log_line",
    "notify",
    "path",
    "interval",
    "timeout",
    "delay",
    "stop",
    "limits",
    "sandbox",
    "groups",
    "profiles",
];

/// What stands at the top of the new file.
const HEAD: &str =
    "# Made by `alicia import`. `alicia check` says whether it is good, `alicia up` runs it.\n";

pub(crate) fn file(draft: &Draft) -> String {
    let mut text = HEAD.to_owned();
    for note in &draft.notes {
        comment(&mut text, "", &note.to_string());
    }
    if let Some(name) = &draft.name {
        text.push_str(&format!("name: {}\n", scalar(name)));
    }
    if draft.services.is_empty() {
        text.push_str("services: {}\n");
        return text;
    }
    text.push_str("services:\n");
    for (name, service) in &draft.services {
        text.push('\n');
        for note in &service.notes {
            comment(&mut text, "  ", &format!("not carried over: {note}"));
        }
        text.push_str(&format!("  {}:\n", scalar(name.as_str())));
        map(&mut text, &service.settings, 4);
    }
    text
}

fn comment(text: &mut String, indent: &str, message: &str) {
    for line in message.lines() {
        text.push_str(&format!("{indent}# {line}\n"));
    }
}

fn map(text: &mut String, map: &Map<String, Value>, indent: usize) {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort_by_key(|key| {
        let place = ORDER.iter().position(|known| known == key);
        (place.unwrap_or(ORDER.len()), *key)
    });
    for key in keys {
        let space = " ".repeat(indent);
        text.push_str(&format!("{space}{}:", scalar(key)));
        value(text, &map[key.as_str()], indent);
    }
}

fn value(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(inner) if !inner.is_empty() && !is_short(value) => {
            text.push('\n');
            map(text, inner, indent + 2);
        }
        Value::Array(items) if !items.is_empty() && !is_short(value) => {
            text.push('\n');
            for item in items {
                text.push_str(&format!("{}- {}\n", " ".repeat(indent + 2), flow(item)));
            }
        }
        Value::String(long) if long.contains('\n') => block(text, long, indent + 2),
        other => text.push_str(&format!(" {}\n", flow(other))),
    }
}

/// A literal block, where it can hold the text exactly.
fn block(text: &mut String, long: &str, indent: usize) {
    let plain = long.chars().all(|c| c == '\n' || !c.is_control())
        && !long.starts_with([' ', '\n'])
        && !long.ends_with("\n\n");
    if !plain {
        text.push_str(&format!(" {}\n", quoted(long)));
        return;
    }
    text.push_str(if long.ends_with('\n') {
        " |\n"
    } else {
        " |-\n"
    });
    for line in long.lines() {
        match line {
            "" => text.push('\n'),
            line => text.push_str(&format!("{}{line}\n", " ".repeat(indent))),
        }
    }
}

/// Whether it reads well in one line.
fn is_short(value: &Value) -> bool {
    let scalars = |value: &Value| !value.is_object() && !value.is_array();
    match value {
        Value::Object(map) => map.len() == 1 && map.values().all(scalars) && flow(value).len() < 60,
        Value::Array(items) => items.iter().all(scalars) && flow(value).len() < 80,
        _ => true,
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{}: {}", scalar(key), flow(value)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

/// A text as it may stand in a line: plain where nothing could misread it, else in double quotes.
pub(crate) fn scalar(text: &str) -> String {
    let first_is_plain =
        text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '.' | '_'));
    let rest_is_plain = text.chars().all(|c| {
        c.is_ascii_alphanumeric()
            || matches!(c, '/' | '.' | '_' | '-' | '+' | '@' | '=' | ' ' | '%')
    });
    let words = [
        "true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf",
    ];
    let is_word = words.contains(&text.trim_start_matches('.').to_ascii_lowercase().as_str());
    let ends_plain = !text.ends_with(' ');
    // `.5` and `.inf` are numbers.
    let is_number = text.starts_with('.') && text[1..].starts_with(|c: char| c.is_ascii_digit());
    match first_is_plain && rest_is_plain && ends_plain && !is_word && !is_number {
        true => text.to_owned(),
        false => quoted(text),
    }
}

/// JSON strings are double-quoted scalars of YAML 1.2 (section 7.3.1).
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use alicia_file::{Document, Sources};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read_back(settings: &Value) -> Value {
        let mut text = "services:\n  a:\n".to_owned();
        map(&mut text, settings.as_object().expect("a map"), 4);
        let document = Document::parse(Sources::new().file("alicia.yaml", text.clone()));
        let document = document.unwrap_or_else(|faults| panic!("{text}\n{faults:?}"));
        document.to_json()["services"]["a"].clone()
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let settings = json!({
            "command": ["sh", "-c", "echo \"$A\" && exit 1"],
            "environment": {"A": "yes", "B": "1e3", "C": ".5", "D": "a: b # c", "E": "", "F": "x\ny\n"},
            "ports": {"http": 80},
            "depends_on": {"db": "healthy", "cache": "started"},
            "exec": {"command": {"deep": {"list": ["-", "?", "*x", "&y", "!z", "%q", "@r", "~"]}}},
        });
        assert_eq!(read_back(&settings), settings);
    }

    proptest! {
        #[test]
        fn any_text_survives(text in "[ -~\n\u{e9}\u{1f600}]{0,40}") {
            let settings = json!({"environment": {"A": text.clone(), "B": [text]}});
            prop_assert_eq!(read_back(&settings), settings);
        }
    }
}
