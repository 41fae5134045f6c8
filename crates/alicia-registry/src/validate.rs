//! What a registration must be. Every fault is named at once, by JSON pointer.
//!
//! The shape is checked against the JSON Schema of [`Registration`]; what a schema cannot say (semantic
//! versions, URLs, sizes) is checked on the raw value beside it, so that one kind of fault does not hide
//! the other.

mod rules;
mod schemas;

use std::sync::LazyLock;

use alicia_contract::discovery::Registration;
use alicia_contract::problem::InputFault;
use alicia_schema::escape;
use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

/// Most faults that are listed; a hostile body has no right to a long answer.
pub const FAULTS_MAX: usize = 50;

/// Longest text of one fault, in characters; it may quote what was sent.
const MESSAGE_CHARS_MAX: usize = 240;

/// Largest registration, in bytes of JSON: metadata, some schemas, and room.
pub const REGISTRATION_BYTES_MAX: usize = 256 << 10;

static SHAPE: LazyLock<Validator> = LazyLock::new(|| {
    let schema = schemars::schema_for!(Registration);
    jsonschema::validator_for(schema.as_value()).expect("a schema made from a type is valid")
});

/// Checks a registration and reads it.
///
/// # Errors
/// Every fault, at most [`FAULTS_MAX`].
pub fn read(value: Value) -> Result<Registration, Vec<InputFault>> {
    let bytes = value.to_string().len();
    if bytes > REGISTRATION_BYTES_MAX {
        let found = format!("found {bytes} bytes, expected at most {REGISTRATION_BYTES_MAX}");
        return Err(vec![fault("", &found)]);
    }
    let mut faults: Vec<InputFault> = SHAPE
        .iter_errors(&value)
        .take(FAULTS_MAX)
        .map(shape_fault)
        .collect();
    rules::check(&value, &mut faults);
    if !faults.is_empty() {
        faults.truncate(FAULTS_MAX);
        return Err(faults);
    }
    serde_json::from_value(value).map_err(|error| vec![fault("", &error.to_string())])
}

fn shape_fault(error: jsonschema::ValidationError<'_>) -> InputFault {
    let at = error.instance_path().to_string();
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            fault(&format!("{at}/{}", escape(name)), "is missing")
        }
        _ => fault(&at, &error.to_string()),
    }
}

fn fault(pointer: &str, message: &str) -> InputFault {
    InputFault {
        pointer: pointer.to_owned(),
        message: clip(message),
    }
}

fn clip(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests;
