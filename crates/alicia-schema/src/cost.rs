//! How much work checking a value is, counted before it is done. A schema of a few lines can look at a value of a
//! few lines more often than there are atoms: each level that refers to itself twice doubles the work of the next.

use serde_json::Value;

use crate::harm::target_of;

/// Parts of a schema that may be looked at for one value: some milliseconds. A list of ten thousand objects of a
/// dozen fields is checked, what doubles with each level is not.
const LOOKS_MAX: u32 = 200_000;

/// How deep schema and value may go together. Checking goes down as deep on the stack.
const DEPTH_MAX: u32 = 300;

/// Whether a value can be checked in a bounded time, on a bounded stack. Counts at least what is looked at: a
/// pattern of names counts as if it fitted each, a choice as if none of it ended the search.
pub(crate) fn is_bearable(schema: &Value, value: &Value) -> bool {
    let mut count = Count {
        root: schema,
        left: LOOKS_MAX,
    };
    count.look(schema, value, DEPTH_MAX).is_some()
}

/// `None` of its methods: it is too much.
struct Count<'s> {
    root: &'s Value,
    left: u32,
}

impl Count<'_> {
    fn look(&mut self, schema: &Value, value: &Value, depth: u32) -> Option<()> {
        self.take(1)?;
        let depth = depth.checked_sub(1)?;
        let Some(keywords) = schema.as_object() else {
            return Some(());
        };
        // To find what nobody else has looked at, everything beside it is looked at once more.
        let has = |name: &str| keywords.contains_key(name);
        let times = if has("unevaluatedProperties") || has("unevaluatedItems") {
            2
        } else {
            1
        };
        for (name, part) in keywords {
            for _ in 0..times {
                self.keyword(name, part, value, depth)?;
            }
        }
        Some(())
    }

    fn keyword(&mut self, name: &str, part: &Value, value: &Value, depth: u32) -> Option<()> {
        match name {
            "not" | "if" | "then" | "else" => self.look(part, value, depth),
            "allOf" | "anyOf" | "oneOf" => self.all(inner(part), |_| Some(value), depth),
            "dependentSchemas" | "dependencies" => self.all(inner(part), |_| Some(value), depth),
            "$ref" | "$dynamicRef" => {
                let target = part.as_str().and_then(|text| target_of(self.root, text));
                target.map_or(Some(()), |target| self.look(target, value, depth))
            }
            "properties" => {
                let named = part.as_object().into_iter().flatten();
                for (name, part) in named {
                    if let Some(found) = value.get(name) {
                        self.look(part, found, depth)?;
                    }
                }
                Some(())
            }
            "prefixItems" => self.all(inner(part), |at| value.get(at), depth),
            "items" if part.is_array() => self.all(inner(part), |at| value.get(at), depth),
            "patternProperties" => {
                inner(part).try_for_each(|part| self.each(part, value.is_object(), value, depth))
            }
            "additionalProperties" | "unevaluatedProperties" | "propertyNames" => {
                self.each(part, value.is_object(), value, depth)
            }
            "items" | "additionalItems" | "unevaluatedItems" | "contains" => {
                self.each(part, value.is_array(), value, depth)
            }
            // Compared one by one.
            "enum" | "required" => self.take(inner(part).count()),
            "uniqueItems" => self.take(inner(value).count()),
            _ => Some(()),
        }
    }

    /// Looks at several parts, each for the value that `of` gives for its place.
    fn all<'v>(
        &mut self,
        parts: impl Iterator<Item = &'v Value>,
        of: impl Fn(usize) -> Option<&'v Value>,
        depth: u32,
    ) -> Option<()> {
        for (at, part) in parts.enumerate() {
            if let Some(value) = of(at) {
                self.look(part, value, depth)?;
            }
        }
        Some(())
    }

    /// Looks at one part for everything in a value, when the value is of the kind that it is for.
    fn each(&mut self, part: &Value, is_for_it: bool, value: &Value, depth: u32) -> Option<()> {
        let values = inner(value).filter(|_| is_for_it);
        for value in values {
            self.look(part, value, depth)?;
        }
        Some(())
    }

    fn take(&mut self, looks: usize) -> Option<()> {
        let looks = u32::try_from(looks).ok()?;
        self.left = self.left.checked_sub(looks)?;
        Some(())
    }
}

/// What is in a list or an object.
fn inner(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}
