//! A check against a JSON Schema, whose faults are written for the person who wrote the file.
//!
//! The validator finds everything that is wrong; [`translate`] says it in words, and [`words`] turns a part of a
//! schema into what is expected ("a whole number from 0 to 1000").

use serde_json::Value;

use crate::document::Document;
use crate::fault::Fault;

pub(crate) use words::shorten;

mod below;
mod foreign;
mod hint;
mod translate;
pub(crate) mod words;

/// The most faults of one check; who has more mends these first.
pub(crate) const FAULTS_MAX: usize = 200;

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// It is no JSON Schema.
    #[error("compile the schema: {0}")]
    Compile(String),
}

/// A compiled JSON Schema.
#[derive(Debug)]
pub struct Schema {
    validator: jsonschema::Validator,
    root: Value,
}

// === impl Schema ===

impl Schema {
    /// Compiles a schema. References are followed inside of it only, never over the network.
    ///
    /// # Errors
    /// When it is no JSON Schema.
    pub fn compile(root: Value) -> Result<Self, SchemaError> {
        let validator = jsonschema::validator_for(&root)
            .map_err(|error| SchemaError::Compile(error.to_string()))?;
        Ok(Self { validator, root })
    }

    pub(crate) fn check(&self, document: &Document) -> Vec<Fault> {
        let value = document.to_json();
        let translator = translate::Translator {
            document,
            root: &self.root,
        };
        self.validator
            .iter_errors(&value)
            .flat_map(|error| translator.faults(&error))
            .take(FAULTS_MAX)
            .collect()
    }
}
