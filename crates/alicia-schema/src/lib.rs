//! JSON Schemas that strangers send: compiled without harm, with faults by JSON pointer in words.
//!
//! Reading order: [`Checked`] (compile and check), `harm` (what is refused before), `cost` (what would take too
//! long), `words` (faults in words), [`compare`] (whether what fits one schema fits another).

mod compare;
mod cost;
mod harm;
mod words;

use alicia_contract::problem::InputFault;
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

pub use compare::compare;
pub use words::kind;

/// The largest schema, in bytes of JSON.
pub const SCHEMA_BYTES_MAX: usize = 32 << 10;

/// The deepest schema, in levels of JSON. Compiling and checking go down as deep on the stack.
pub const SCHEMA_LEVELS_MAX: usize = 64;

/// The deepest value that is checked, in levels of JSON: as deep as `serde_json` reads.
pub const VALUE_LEVELS_MAX: usize = 128;

/// Most faults that are listed; a hostile value has no right to a long answer.
pub const FAULTS_MAX: usize = 50;

/// Memory that one compiled `pattern` may take, in bytes.
const PATTERN_BYTES_MAX: usize = 256 << 10;

/// Why a schema cannot be used. The text reads after "failed to".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use the schema: at `{pointer}`: {message}")]
pub struct SchemaFault {
    /// Where in the schema, as a JSON pointer.
    pub pointer: String,
    /// What was found and what was expected.
    pub message: String,
}

impl SchemaFault {
    fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            message: words::clip(&message.into()),
        }
    }
}

/// A schema that values are checked against.
#[derive(Debug)]
pub struct Checked {
    validator: Validator,
    schema: Value,
}

impl Checked {
    /// Compiles a schema.
    ///
    /// # Errors
    /// When it is no JSON Schema, too large, too deep, or refers to what is not inside of it.
    pub fn new(schema: &Value) -> Result<Self, SchemaFault> {
        harm::check(schema)?;
        let patterns = PatternOptions::regex()
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX);
        let compiled = jsonschema::options()
            .offline()
            .with_pattern_options(patterns)
            .build(schema);
        compiled
            .map(|validator| Self {
                validator,
                schema: schema.clone(),
            })
            .map_err(|error| SchemaFault::new(error.instance_path().as_str(), error.to_string()))
    }

    /// Whether a value fits. One that cannot be checked does not.
    #[must_use]
    pub fn fits(&self, value: &Value) -> bool {
        self.obstacle(value).is_none() && self.validator.is_valid(value)
    }

    /// What of a value does not fit, at most [`FAULTS_MAX`]; `at` is the pointer of the value itself.
    #[must_use]
    pub fn faults(&self, value: &Value, at: &str) -> Vec<InputFault> {
        if let Some(obstacle) = self.obstacle(value) {
            return vec![words::fault(at, &obstacle)];
        }
        self.validator
            .iter_errors(value)
            .take(FAULTS_MAX)
            .map(|error| words::of(&error, at))
            .collect()
    }

    /// Why a value cannot be checked, in words.
    fn obstacle(&self, value: &Value) -> Option<String> {
        if harm::levels(value, VALUE_LEVELS_MAX) > VALUE_LEVELS_MAX {
            let limit = VALUE_LEVELS_MAX;
            return Some(format!("found more than {limit} levels, expected fewer"));
        }
        let too_much = "is too much for its schema, which looks at each part again and again; send less, or less deep";
        (!cost::is_bearable(&self.schema, value)).then(|| too_much.to_owned())
    }
}

/// One level of a JSON pointer (RFC 6901 section 3).
#[must_use]
pub fn escape(level: &str) -> String {
    level.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests;
