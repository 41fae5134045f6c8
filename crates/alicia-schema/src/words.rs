//! Faults in words: what was found, what was expected.

use alicia_contract::problem::InputFault;
use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::Value;

use crate::escape;

/// Longest text of one fault, in characters; it may quote what was sent.
const MESSAGE_CHARS_MAX: usize = 240;

/// Longest part of a value that is repeated, in characters.
const FOUND_CHARS_MAX: usize = 60;

/// A fault of a value; `at` is the pointer of the whole value.
pub(crate) fn of(error: &ValidationError<'_>, at: &str) -> InputFault {
    let place = format!("{at}{}", error.instance_path());
    match error.kind() {
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            fault(&format!("{place}/{}", escape(name)), "is missing")
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let first = unexpected.first().map_or("", String::as_str);
            let more = match unexpected.len() {
                0 | 1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            let message = format!("is not known here{more}");
            fault(&format!("{place}/{}", escape(first)), &message)
        }
        kind => {
            let expected = expected(kind);
            let message = match expected {
                Some(expected) => format!("found {}, expected {expected}", found(error.instance())),
                None => error.to_string(),
            };
            fault(&place, &message)
        }
    }
}

fn expected(kind: &Kind) -> Option<String> {
    Some(match kind {
        Kind::Type { kind } => match kind {
            TypeKind::Single(one) => type_in_words(one.as_str()).to_owned(),
            TypeKind::Multiple(several) => {
                let words: Vec<&str> = several
                    .iter()
                    .map(|one| type_in_words(one.as_str()))
                    .collect();
                words.join(" or ")
            }
        },
        Kind::Enum { options } => match options.as_array() {
            Some(options) => {
                let words: Vec<String> = options.iter().map(Value::to_string).collect();
                format!("one of {}", words.join(", "))
            }
            None => options.to_string(),
        },
        Kind::Constant { expected_value } => expected_value.to_string(),
        Kind::Minimum { limit } => format!("{limit} or more"),
        Kind::ExclusiveMinimum { limit } => format!("more than {limit}"),
        Kind::Maximum { limit } => format!("{limit} or less"),
        Kind::ExclusiveMaximum { limit } => format!("less than {limit}"),
        Kind::MinLength { limit } => format!("a text of at least {limit} characters"),
        Kind::MaxLength { limit } => format!("a text of at most {limit} characters"),
        Kind::MinItems { limit } => format!("a list of at least {limit}"),
        Kind::MaxItems { limit } => format!("a list of at most {limit}"),
        Kind::Pattern { pattern } => format!("a text that matches {pattern}"),
        Kind::FalseSchema => "nothing at all".to_owned(),
        _ => return None,
    })
}

fn type_in_words(name: &str) -> &'static str {
    match name {
        "string" => "a text",
        "number" => "a number",
        "integer" => "a whole number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "an object",
        _ => "null",
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => kind(value).to_owned(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(FOUND_CHARS_MAX) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}

/// What a value is, in words.
#[must_use]
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

pub(crate) fn fault(pointer: &str, message: &str) -> InputFault {
    InputFault {
        pointer: pointer.to_owned(),
        message: clip(message),
    }
}

pub(crate) fn clip(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
