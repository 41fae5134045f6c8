//! What is refused before a schema is compiled, because compiling it or checking against it could do harm.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{SCHEMA_BYTES_MAX, SCHEMA_LEVELS_MAX, SchemaFault, escape};

/// Keywords whose value is a schema for the very value that the schema around it is for: going down through
/// them consumes nothing of the value.
const SAME_VALUE: [&str; 9] = [
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "$ref",
    "$dynamicRef",
];

pub(crate) fn check(schema: &Value) -> Result<(), SchemaFault> {
    if !schema.is_object() {
        return Err(SchemaFault::new("", "expected a JSON Schema as an object"));
    }
    if levels(schema, SCHEMA_LEVELS_MAX) > SCHEMA_LEVELS_MAX {
        let message = format!("found more than {SCHEMA_LEVELS_MAX} levels, expected fewer");
        return Err(SchemaFault::new("", message));
    }
    let bytes = schema.to_string().len();
    if bytes > SCHEMA_BYTES_MAX {
        let message =
            format!("found {bytes} bytes of JSON, expected at most {SCHEMA_BYTES_MAX} bytes");
        return Err(SchemaFault::new("", message));
    }
    let mut references = References {
        root: schema,
        targets: BTreeSet::new(),
        steps: CIRCLE_STEPS_MAX,
    };
    references.check(schema, &mut String::new())?;
    let found = references.levels();
    if found > COMPILED_LEVELS_MAX {
        let message = format!(
            "found {found} levels together with all that is referred to, expected at most {COMPILED_LEVELS_MAX}"
        );
        return Err(SchemaFault::new("", message));
    }
    Ok(())
}

/// How many levels a value has; stops counting beyond a limit, and is itself no deeper on the stack than that.
pub(crate) fn levels(value: &Value, limit: usize) -> usize {
    let below = match value {
        _ if limit == 0 => return 1,
        Value::Array(items) => items.iter().map(|item| levels(item, limit - 1)).max(),
        Value::Object(fields) => fields.values().map(|item| levels(item, limit - 1)).max(),
        _ => None,
    };
    1 + below.unwrap_or(0)
}

/// Every `$ref` must point into the schema, and no chain of references may come back to where it began
/// without having gone into the value.
struct References<'s> {
    root: &'s Value,
    /// Where references lead.
    targets: BTreeSet<String>,
    /// What is left of [`CIRCLE_STEPS_MAX`].
    steps: u32,
}

impl References<'_> {
    fn check(&mut self, part: &Value, at: &mut String) -> Result<(), SchemaFault> {
        let before = at.len();
        match part {
            Value::Object(fields) => {
                for (name, value) in fields {
                    at.push('/');
                    at.push_str(&escape(name));
                    self.check_field(name, value, at, before == 0)?;
                    at.truncate(before);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    at.push_str(&format!("/{index}"));
                    self.check(item, at)?;
                    at.truncate(before);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check_field(
        &mut self,
        name: &str,
        value: &Value,
        at: &mut String,
        is_outermost: bool,
    ) -> Result<(), SchemaFault> {
        match name {
            "$ref" | "$dynamicRef" if value.is_string() => {
                self.check_target(value.as_str().unwrap_or_default(), at)
            }
            "$id" | "id" if value.is_string() && !is_outermost => {
                let message = "an inner `$id` is not followed; refer by `#/…` instead";
                Err(SchemaFault::new(at.as_str(), message))
            }
            "const" | "enum" | "default" | "examples" => Ok(()),
            _ => self.check(value, at),
        }
    }

    fn check_target(&mut self, target: &str, at: &str) -> Result<(), SchemaFault> {
        let Some(found) = target_of(self.root, target) else {
            let message =
                format!("found {target:?}, expected a place in this schema such as #/$defs/name");
            return Err(SchemaFault::new(at, message));
        };
        self.targets.insert(target.to_owned());
        let mut followed = vec![target.to_owned()];
        if comes_back(self.root, found, &mut followed, &mut self.steps) {
            let message =
                format!("found {target:?}, which leads back to itself, or on and on without end");
            return Err(SchemaFault::new(at, message));
        }
        Ok(())
    }

    /// The levels of all places that are referred to, and of the whole: compiling goes down through references too.
    fn levels(&self) -> usize {
        let targets = self.targets.iter();
        let parts = targets.filter_map(|target| target_of(self.root, target));
        let inner: usize = parts.map(|part| levels(part, SCHEMA_LEVELS_MAX)).sum();
        inner + levels(self.root, SCHEMA_LEVELS_MAX)
    }
}

/// Steps that are followed to find circles, over all references; a schema that needs more is refused as one.
const CIRCLE_STEPS_MAX: u32 = 20_000;

/// References that are followed one after the other without going into the value. Nobody writes longer chains.
const CHAIN_MAX: usize = 32;

/// Levels of a schema and of all that is referred to in it, together.
const COMPILED_LEVELS_MAX: usize = 512;

/// Whether following references from here, without going into the value, leads to one that was followed before.
fn comes_back(root: &Value, part: &Value, followed: &mut Vec<String>, steps: &mut u32) -> bool {
    *steps = steps.saturating_sub(1);
    if *steps == 0 || followed.len() > CHAIN_MAX {
        return true;
    }
    let Value::Object(fields) = part else {
        return false;
    };
    fields
        .iter()
        .filter(|(name, _)| SAME_VALUE.contains(&name.as_str()))
        .any(|(_, value)| match value {
            Value::String(target) => {
                if followed.iter().any(|before| before == target) {
                    return true;
                }
                let Some(next) = target_of(root, target) else {
                    return false;
                };
                followed.push(target.clone());
                let comes = comes_back(root, next, followed, steps);
                followed.pop();
                comes
            }
            Value::Array(parts) => parts
                .iter()
                .any(|part| comes_back(root, part, followed, steps)),
            part => comes_back(root, part, followed, steps),
        })
}

/// What a reference points to. Anchors and other documents are not followed.
pub(crate) fn target_of<'s>(root: &'s Value, target: &str) -> Option<&'s Value> {
    let pointer = target.strip_prefix('#')?;
    if pointer.contains('%') {
        return None;
    }
    root.pointer(pointer)
}
