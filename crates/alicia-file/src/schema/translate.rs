//! Errors of the validator, said in words.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Kind;
use serde_json::Value;

use super::hint;
use super::words::{self, expected, found};
use crate::document::Document;
use crate::fault::Fault;
use crate::tree::{pointer_to, segments, split_last};

/// Says what the validator found, in words.
pub(super) struct Translator<'t> {
    pub(super) document: &'t Document,
    pub(super) root: &'t Value,
}

// === impl Translator ===

impl Translator<'_> {
    /// The faults of one error.
    pub(super) fn faults(&self, error: &ValidationError<'_>) -> Vec<Fault> {
        match error.kind() {
            Kind::AdditionalProperties { unexpected } => unexpected
                .iter()
                .map(|key| self.unexpected(error, key))
                .collect(),
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
                self.alternatives(error, context)
            }
            Kind::PropertyNames { error: inner } => vec![self.key_name(error, inner)],
            Kind::Required { property } => self.missing(error, property).into_iter().collect(),
            Kind::MinItems { .. } | Kind::MinLength { .. } | Kind::MinProperties { .. } => {
                vec![self.too_small(error)]
            }
            Kind::MaxItems { limit } => vec![self.too_large(error, *limit, "items")],
            Kind::MaxLength { limit } => vec![self.too_large(error, *limit, "characters")],
            Kind::MaxProperties { limit } => vec![self.too_large(error, *limit, "keys")],
            Kind::UniqueItems => {
                let message = format!("{} has the same item twice", self.subject(error));
                vec![self.at(error, message).with_hint("remove one of them")]
            }
            _ => vec![self.unfit(error)],
        }
    }

    /// A value of the wrong kind or out of range.
    fn unfit(&self, error: &ValidationError<'_>) -> Fault {
        self.unfit_for(error, self.schema(error))
    }

    fn unfit_for(&self, error: &ValidationError<'_>, schema: &Value) -> Fault {
        let value = error.instance();
        let (subject, found) = (self.subject(error), found(value));
        let message = format!(
            "{subject} is {found}, expected {}",
            expected(self.root, schema)
        );
        self.at(error, message)
            .with_hint_if(hint::for_value(self.root, schema, value))
    }

    fn too_small(&self, error: &ValidationError<'_>) -> Fault {
        let (subject, limit, unit) = match error.kind() {
            Kind::MinItems { limit } => (self.subject(error), *limit, "items"),
            Kind::MinProperties { limit } => (self.subject(error), *limit, "keys"),
            Kind::MinLength { limit } => (self.subject(error), *limit, "characters"),
            _ => (self.subject(error), 1, "values"),
        };
        let message = match limit {
            1 => format!("{subject} is empty"),
            limit => format!("{subject} is too short, expected {limit} {unit} or more"),
        };
        self.at(error, message)
            .with_hint("write a value, or remove the key")
    }

    fn too_large(&self, error: &ValidationError<'_>, limit: u64, unit: &str) -> Fault {
        let message = format!("{} has more than {limit} {unit}", self.subject(error));
        self.at(error, message).with_hint("make it shorter")
    }

    /// A key that must be there; nothing when it is there with a typo, which is said anyway.
    fn missing(&self, error: &ValidationError<'_>, property: &Value) -> Option<Fault> {
        let name = property.as_str().unwrap_or_default();
        let pointer = error.instance_path().as_str();
        let known = &self.schema(error)["properties"];
        let names = error
            .instance()
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys());
        let mut strangers = names.filter(|key| known.get(key.as_str()).is_none());
        if strangers.any(|key| hint::meant(key, &[name]).is_some()) {
            return None;
        }
        let message = format!("{} has no `{name}`", self.subject(error));
        let hint = match known[name]["description"].as_str() {
            Some(text) => format!("add `{name}:` ({})", first_sentence(text)),
            None => format!("add `{name}:`"),
        };
        Some(self.document.fault_at(pointer, message).with_hint(hint))
    }

    /// A key that is not known, or that is no name where keys are names.
    fn unexpected(&self, error: &ValidationError<'_>, key: &str) -> Fault {
        let schema = self.schema(error);
        let parent = error.instance_path().as_str();
        let pointer = pointer_to(parent, key);
        let patterns = schema["patternProperties"].as_object();
        let name = patterns.and_then(|patterns| patterns.keys().find_map(|p| words::of_pattern(p)));
        if let Some(words) = name {
            let message = format!("found the key `{}`, expected {words}", words::shorten(key));
            return self
                .document
                .fault_at_key(&pointer, message)
                .with_hint(hint::for_name(key));
        }
        let hint = match error.instance()[key].get("command") {
            Some(_) if parent.is_empty() => {
                "a service stands below `services:`, indented".to_owned()
            }
            _ => hint::for_unknown_key(self.root, schema, key),
        };
        let message = format!("unknown key `{}`", words::shorten(key));
        self.document
            .fault_at_key(&pointer, message)
            .with_hint(hint)
    }

    fn key_name(&self, error: &ValidationError<'_>, inner: &ValidationError<'_>) -> Fault {
        let key = inner.instance().as_str().unwrap_or_default();
        let pointer = pointer_to(error.instance_path().as_str(), key);
        let words = match inner.kind() {
            Kind::Pattern { pattern } => words::of_pattern(pattern).unwrap_or("another key"),
            _ => "another key",
        };
        let message = format!("found the key `{}`, expected {words}", words::shorten(key));
        self.document
            .fault_at_key(&pointer, message)
            .with_hint(hint::for_name(key))
    }

    /// None of several alternatives fits: the faults of the one that was meant, or what all of them expect.
    fn alternatives(
        &self,
        error: &ValidationError<'_>,
        context: &[Vec<ValidationError<'static>>],
    ) -> Vec<Fault> {
        let path = error.schema_path().as_str();
        let schemas = self.root.pointer(path).and_then(Value::as_array);
        let meant = schemas
            .into_iter()
            .flatten()
            .zip(context)
            .filter(|(schema, _)| words::listed(self.root, schema).is_none())
            .filter(|(schema, _)| words::type_fits(self.root, schema, error.instance()))
            .min_by_key(|(_, errors)| errors.len());
        match meant {
            Some((_, errors)) if !errors.is_empty() => {
                errors.iter().flat_map(|error| self.faults(error)).collect()
            }
            _ => vec![self.unfit(error)],
        }
    }

    /// The schema that the failed keyword belongs to.
    fn schema(&self, error: &ValidationError<'_>) -> &Value {
        let (parent, _) = split_last(error.schema_path().as_str());
        self.root.pointer(parent).unwrap_or(&Value::Null)
    }

    fn at(&self, error: &ValidationError<'_>, message: String) -> Fault {
        self.document
            .fault_at(error.instance_path().as_str(), message)
    }

    /// What the sentence is about: "`restart`", "item 2 of `command`", "the file".
    fn subject(&self, error: &ValidationError<'_>) -> String {
        let path = error.instance_path().as_str();
        let segments: Vec<String> = segments(path).collect();
        let list = split_last(path).0;
        match &segments[..] {
            [] => "the file".to_owned(),
            [.., key, index] if self.document.is_list(list) => {
                let number = index.parse::<usize>().map_or(0, |index| index + 1);
                format!("item {number} of `{key}`")
            }
            [.., key] => format!("`{}`", words::shorten(key)),
        }
    }
}

/// A description without what follows its first sentence.
fn first_sentence(text: &str) -> &str {
    let ends = [". ", ": ", ".\n", ":\n", "\n"];
    let end = ends.iter().filter_map(|end| text.find(end)).min();
    text[..end.unwrap_or(text.len())]
        .trim()
        .trim_end_matches('.')
}
