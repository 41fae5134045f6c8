//! What a service can do, as others find it: a command with a version, schemas and hints.

use alicia_contract::ServiceName;
use alicia_contract::discovery::Capability as Said;
use alicia_contract::problem::InputFault;
use alicia_schema::Checked;
use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::error::{Error, problem};
use crate::handler::{Boxed, CommandHandler};

/// Something that a service can do. Others find it with `alicia resolve` and have it done with `alicia call`;
/// see [`crate::Service::capability`].
#[derive(Debug, Clone)]
#[must_use = "a capability is given to a service"]
pub struct Capability {
    said: Result<Said, String>,
}

impl Capability {
    /// A capability of this name: 1 to 63 of a-z, 0-9 and -.
    pub fn new(name: &str) -> Self {
        let said = name.parse::<ServiceName>().map(Said::new);
        Self {
            said: said.map_err(|_| name.to_owned()),
        }
    }

    /// Its version (semver). Default: 0.1.0. Callers name the range that they need.
    pub fn version(self, version: &str) -> Self {
        self.with(|said| version.clone_into(&mut said.version))
    }

    /// What it does, in one line.
    pub fn describes(self, text: &str) -> Self {
        self.with(|said| said.description = Some(text.to_owned()))
    }

    /// Its input is a `T`: inputs that do not fit are refused before the handler is called. Without this, the
    /// input is what the handler takes.
    pub fn input<T: JsonSchema>(self) -> Self {
        self.input_schema(schema_of::<T>())
    }

    /// Its output is a `T`. Without this, it is what the handler answers.
    pub fn output<T: JsonSchema>(self) -> Self {
        self.output_schema(schema_of::<T>())
    }

    /// A JSON Schema of the input, written by hand.
    pub fn input_schema(self, schema: Value) -> Self {
        self.with(|said| said.input_schema = schema)
    }

    /// A JSON Schema of the output, written by hand.
    pub fn output_schema(self, schema: Value) -> Self {
        self.with(|said| said.output_schema = schema)
    }

    /// A tag, by which callers may choose.
    pub fn tag(self, tag: &str) -> Self {
        self.with(|said| said.tags.push(tag.to_owned()))
    }

    /// A hint of the cost of one call, in US dollars. 0 or more.
    pub fn cost_usd(self, cost: f64) -> Self {
        self.with(|said| said.cost_usd = Some(cost))
    }

    /// A hint of the usual latency, in milliseconds. 0 or more.
    pub fn latency_ms(self, latency: f64) -> Self {
        self.with(|said| said.latency_ms = Some(latency))
    }

    fn with(mut self, change: impl FnOnce(&mut Said)) -> Self {
        if let Ok(said) = &mut self.said {
            change(said);
        }
        self
    }

    /// Takes the types of the handler for schemas that were not said.
    pub(crate) fn of_types<Q: JsonSchema, A: JsonSchema>(self) -> Self {
        self.with(|said| {
            if said.input_schema.is_null() {
                said.input_schema = schema_of::<Q>();
            }
            if said.output_schema.is_null() {
                said.output_schema = schema_of::<A>();
            }
        })
    }

    /// As it is registered.
    pub(crate) fn done(self) -> Result<Said, Error> {
        self.said.map_err(|found| Error::Invalid {
            variable: "a capability",
            found,
            expected: "1 to 63 of a-z, 0-9 and -",
        })
    }
}

impl From<Said> for Capability {
    fn from(said: Said) -> Self {
        Self { said: Ok(said) }
    }
}

/// The schema of a type; null for one that takes anything.
fn schema_of<T: JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    let Some(fields) = schema.as_object_mut() else {
        return Value::Null;
    };
    fields.remove("$schema");
    if fields.get("type") == Some(&Value::from("null")) {
        // A handler that takes nothing is called with an empty object by those who know only its schema.
        return serde_json::json!({ "type": ["object", "null"], "maxProperties": 0 });
    }
    let says_nothing = fields.keys().all(|name| name == "title");
    if says_nothing { Value::Null } else { schema }
}

/// A handler behind the check of its input.
pub(crate) fn guarded_by(schema: &Value, handler: CommandHandler) -> Result<CommandHandler, Error> {
    if schema.is_null() {
        return Ok(handler);
    }
    let schema = Checked::new(schema).map_err(Error::other)?;
    Ok(std::sync::Arc::new(move |cx: Context, arguments: Value| {
        // No arguments are as good as an empty object.
        let arguments = if arguments.is_null() {
            Value::Object(Map::new())
        } else {
            arguments
        };
        let faults = schema.faults(&arguments, "/arguments");
        if faults.is_empty() {
            handler(cx, arguments)
        } else {
            let refused: Boxed<_> = Box::pin(std::future::ready(Err(refusal(faults))));
            refused
        }
    }))
}

fn refusal(faults: Vec<InputFault>) -> Error {
    let words: Vec<String> = faults
        .iter()
        .map(|fault| format!("{}: {}", fault.pointer, fault.message))
        .collect();
    let mut problem = problem(
        422,
        "service.invalid_arguments",
        "The arguments do not fit",
        words.join("; "),
    );
    problem.faults = faults;
    Error::Refused(Box::new(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is of interest")]
    struct Set {
        celsius: f64,
    }

    #[test]
    fn schemas_come_from_types_unless_they_are_said() {
        let said = Capability::new("set").of_types::<Set, Value>().done();
        let said = said.expect("a good name");
        assert_eq!(
            said.input_schema["required"],
            serde_json::json!(["celsius"])
        );
        assert!(said.output_schema.is_null(), "{}", said.output_schema);
        let by_hand = serde_json::json!({ "type": "object" });
        let said = Capability::new("set")
            .input_schema(by_hand.clone())
            .of_types::<Set, Set>();
        assert_eq!(said.done().expect("a good name").input_schema, by_hand);
    }

    #[test]
    fn a_name_that_cannot_be_is_a_fault() {
        let wrong = Capability::new("Set it").version("1.0.0").done();
        let text = wrong.expect_err("it is refused").to_string();
        assert!(text.contains("Set it") && text.contains("a-z"), "{text}");
    }
}
