//! What is refused before a schema is compiled, because compiling it or checking against it could do harm.

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
    references(schema, schema, &mut String::new())
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
fn references(root: &Value, part: &Value, at: &mut String) -> Result<(), SchemaFault> {
    match part {
        Value::Object(fields) => {
            for (name, value) in fields {
                let before = at.len();
                at.push('/');
                at.push_str(&escape(name));
                if let ("$ref" | "$dynamicRef", Some(target)) = (name.as_str(), value.as_str()) {
                    reference(root, target, at)?;
                } else if matches!(name.as_str(), "$id" | "id") && value.is_string() && before > 0 {
                    let message = "an inner `$id` is not followed; refer by `#/…` instead";
                    return Err(SchemaFault::new(at.as_str(), message));
                } else if !matches!(name.as_str(), "const" | "enum" | "default" | "examples") {
                    references(root, value, at)?;
                }
                at.truncate(before);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let before = at.len();
                at.push_str(&format!("/{index}"));
                references(root, item, at)?;
                at.truncate(before);
            }
        }
        _ => {}
    }
    Ok(())
}

fn reference(root: &Value, target: &str, at: &str) -> Result<(), SchemaFault> {
    let Some(found) = target_of(root, target) else {
        let message =
            format!("found {target:?}, expected a place in this schema such as #/$defs/name");
        return Err(SchemaFault::new(at, message));
    };
    if comes_back(
        root,
        found,
        &mut vec![target.to_owned()],
        &mut CIRCLE_STEPS_MAX.clone(),
    ) {
        let message = format!("found {target:?}, which leads back to itself");
        return Err(SchemaFault::new(at, message));
    }
    Ok(())
}

/// Steps that are followed to find a circle; a schema that needs more is refused as one.
const CIRCLE_STEPS_MAX: u32 = 10_000;

/// Whether following references from here, without going into the value, leads to one that was followed before.
fn comes_back(root: &Value, part: &Value, followed: &mut Vec<String>, steps: &mut u32) -> bool {
    *steps = steps.saturating_sub(1);
    if *steps == 0 {
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
fn target_of<'s>(root: &'s Value, target: &str) -> Option<&'s Value> {
    let pointer = target.strip_prefix('#')?;
    if pointer.contains('%') {
        return None;
    }
    root.pointer(pointer)
}
