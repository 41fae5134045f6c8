//! Reading the YAML of others: values by pointer, in whatever form people write them.

use std::collections::BTreeSet;

use alicia_file::{Document, Fault, FileText, Sources, pointer_to};
use serde_json::Value;

use crate::draft::Service;

/// A part of a document, with the settings that somebody has looked at.
pub(crate) struct Part<'d> {
    document: &'d Document,
    pointer: String,
    value: Value,
    seen: BTreeSet<String>,
}

/// Reads the files as one document of another program.
pub(crate) fn document(files: Vec<FileText>) -> Result<Document, Vec<Fault>> {
    let sources = files
        .into_iter()
        .fold(Sources::new().foreign(), |sources, file| {
            sources.file(file.name, file.bytes)
        });
    Document::parse(sources)
}

/// The map below a key, as parts.
pub(crate) fn parts<'d>(
    document: &'d Document,
    key: &str,
) -> Result<Vec<(String, Part<'d>)>, Vec<Fault>> {
    let pointer = pointer_to("", key);
    let root = document.to_json();
    let Some(map) = root.get(key).and_then(Value::as_object) else {
        let message = format!("found no map `{key}:`, so there is nothing to import");
        let hint = "is this a file of that program? The first word after `import` says which it is";
        return Err(vec![document.fault_at(&pointer, message).with_hint(hint)]);
    };
    let part = |(name, value): (&String, &Value)| {
        let part = Part {
            document,
            pointer: pointer_to(&pointer, name),
            value: value.clone(),
            seen: BTreeSet::new(),
        };
        (name.clone(), part)
    };
    Ok(map.iter().map(part).collect())
}

// === impl Part ===

impl Part<'_> {
    /// A value, which counts as looked at. `null` is as if it were not there.
    pub(crate) fn get(&mut self, key: &str) -> Option<Value> {
        self.seen.insert(key.to_owned());
        self.value
            .get(key)
            .filter(|value| !value.is_null())
            .cloned()
    }

    /// A text, or a number or truth value as it is written.
    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        self.get(key).as_ref().and_then(text)
    }

    /// A number, also in quotes.
    pub(crate) fn number(&mut self, key: &str) -> Option<f64> {
        self.text(key)?.trim().parse().ok()
    }

    /// A truth value.
    pub(crate) fn truth(&mut self, key: &str) -> bool {
        self.get(key).is_some_and(|value| match value {
            Value::Bool(truth) => truth,
            Value::String(text) => text == "true",
            _ => false,
        })
    }

    /// A list of texts, or one text.
    pub(crate) fn texts(&mut self, key: &str) -> Vec<String> {
        self.get(key).as_ref().map(texts).unwrap_or_default()
    }

    /// Where a value stands, for notes.
    pub(crate) fn place(&self, key: &str) -> String {
        let pointer = pointer_to(&self.pointer, key);
        self.document.origin(&pointer).to_string()
    }

    /// Notes that a setting has no counterpart, when it is there.
    pub(crate) fn leave(&mut self, service: &mut Service, key: &str, why: &str) {
        if self.get(key).is_some() {
            service.note(self.place(key), format!("`{key}`: {why}"));
        }
    }

    /// Notes every setting that nobody has looked at. Keys that start with `x-` are free for comments.
    pub(crate) fn leave_rest(&self, service: &mut Service) {
        for key in self
            .value
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys())
        {
            if !self.seen.contains(key) && !key.starts_with("x-") {
                service.note(self.place(key), format!("`{key}` has no counterpart"));
            }
        }
    }

    /// Whether it is a map; nothing else can be a service.
    pub(crate) fn is_map(&self) -> bool {
        self.value.is_object() || self.value.is_null()
    }

    /// A fault at this part.
    pub(crate) fn fault(&self, message: impl Into<String>) -> Fault {
        self.document.fault_at(&self.pointer, message)
    }

    /// The value as a whole.
    pub(crate) fn value(&self) -> &Value {
        &self.value
    }
}

/// A scalar as a text.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// A list of scalars, or one.
pub(crate) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(text).collect(),
        other => text(other).into_iter().collect(),
    }
}

/// `NAME=value` pairs as a list of texts or a map. Without a value: it came from the shell.
pub(crate) fn pairs(value: &Value) -> Vec<(String, Option<String>)> {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
        list => texts(list)
            .into_iter()
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (pair, None),
            })
            .collect(),
    }
}
