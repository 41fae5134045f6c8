//! `${NAME}` in values: put in where the value is known, since `alicia.yaml` takes texts as they are.

use std::collections::BTreeMap;

use serde_json::Value;

/// Puts in every variable of a value. What is missing, and what was written instead, is added to `missing`.
pub(super) fn all(
    value: Value,
    variables: &BTreeMap<String, String>,
    missing: &mut BTreeMap<String, String>,
) -> Value {
    match value {
        Value::String(text) => Value::String(one(&text, variables, missing)),
        Value::Array(items) => items
            .into_iter()
            .map(|item| all(item, variables, missing))
            .collect(),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| (key, all(value, variables, missing)))
            .collect(),
        other => other,
    }
}

fn one(
    text: &str,
    variables: &BTreeMap<String, String>,
    missing: &mut BTreeMap<String, String>,
) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (expression, tail) = match after.strip_prefix('{').map(split_braces) {
            Some(Some(split)) => split,
            Some(None) => ("", after),
            None => after.split_at(name_length(after)),
        };
        if expression.is_empty() {
            out.push('$');
            rest = after;
            continue;
        }
        out.push_str(&value_of(expression, variables, missing));
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// What is in the braces, which may hold others: `${A:-${B}}`.
fn split_braces(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

fn name_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len())
}

/// `NAME`, `NAME:-default`, `NAME-default`, `NAME:?message`, `NAME:+other`.
fn value_of(
    expression: &str,
    variables: &BTreeMap<String, String>,
    missing: &mut BTreeMap<String, String>,
) -> String {
    let (name, operation) = expression.split_at(name_length(expression));
    let (colon, operation) = match operation.strip_prefix(':') {
        Some(operation) => (true, operation),
        None => (false, operation),
    };
    let set = variables
        .get(name)
        .filter(|value| !(colon && value.is_empty()));
    match (operation.chars().next(), set) {
        (Some('+'), Some(_)) => one(&operation[1..], variables, missing),
        (Some('+'), None) => String::new(),
        (_, Some(value)) => value.clone(),
        (Some('-'), None) => one(&operation[1..], variables, missing),
        (Some('?'), None) => {
            let message = one(&operation[1..], variables, missing);
            missing.insert(
                name.to_owned(),
                format!("it is required and not set: {message}"),
            );
            String::new()
        }
        (_, None) => {
            missing.insert(
                name.to_owned(),
                "it is not set, so nothing stands there".to_owned(),
            );
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_as_compose_does() {
        let variables = BTreeMap::from([
            ("A".to_owned(), "x".to_owned()),
            ("EMPTY".to_owned(), String::new()),
        ]);
        for (text, expect) in [
            ("$A-${A}", "x-x"),
            ("$$A", "$A"),
            ("${B:-y}", "y"),
            ("${EMPTY:-y}", "y"),
            ("${EMPTY-y}", ""),
            ("${A:+z}${B:+z}", "z"),
            ("${B:-${A}}!", "x!"),
            ("100 $", "100 $"),
            ("${B", "${B"),
        ] {
            assert_eq!(
                one(text, &variables, &mut BTreeMap::new()),
                expect,
                "{text}"
            );
        }
        let mut missing = BTreeMap::new();
        assert_eq!(one("${C:?say it}$D", &variables, &mut missing), "");
        assert!(missing["C"].ends_with("say it"), "{missing:?}");
        assert!(missing.contains_key("D"));
    }
}
