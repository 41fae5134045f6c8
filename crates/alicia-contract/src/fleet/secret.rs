//! Secrets of a service: where each comes from and how the process gets it. The file never holds a value.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::id::ServiceName;

/// The secrets of a service, by name: a list of names, or a map from name to where it comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Secrets(pub BTreeMap<ServiceName, SecretSpec>);

/// Where a secret comes from and how the process gets it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SecretSpec {
    /// Its name among the stored secrets (`alicia secret set NAME`). Default: the same name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<ServiceName>,
    /// A file that holds it instead, read at each start. Relative to the file's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How the process gets it.
    #[serde(rename = "as")]
    pub form: SecretForm,
    /// With `as: environment`, the variable. Default: the name in upper case, with `_` for `-`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
}

/// How a process gets a secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretForm {
    /// An open descriptor to read it from; `ALICIA_FD_<NAME>` has its number. Nothing else of the machine sees it.
    #[default]
    Descriptor,
    /// A variable. All that the process starts gets it too, and it shows in `/proc/<pid>/environ`.
    Environment,
}

// === impl Secrets ===

impl Secrets {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let secrets = match Value::deserialize(deserializer)? {
            Value::Array(names) => names
                .into_iter()
                .map(|name| Ok((serde_json::from_value(name)?, SecretSpec::default())))
                .collect(),
            Value::Object(secrets) => secrets
                .into_iter()
                .map(|(name, spec)| {
                    let spec = match spec {
                        Value::Null => SecretSpec::default(),
                        Value::String(store) => SecretSpec {
                            store: Some(serde_json::from_value(store.into())?),
                            ..SecretSpec::default()
                        },
                        spec => serde_json::from_value(spec)?,
                    };
                    Ok((serde_json::from_value(name.into())?, spec))
                })
                .collect(),
            other => serde_json::from_value(other),
        };
        let secrets: Result<BTreeMap<_, _>, serde_json::Error> = secrets;
        secrets.map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Secrets {
    fn schema_name() -> Cow<'static, str> {
        "Secrets".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<ServiceName>();
        let spec = generator.subschema_for::<SecretSpec>();
        json_schema!({
            "anyOf": [
                { "type": "array", "items": name },
                { "type": "object", "additionalProperties": { "anyOf": [spec, name, { "type": "null" }] } },
            ]
        })
    }
}

// === impl SecretSpec ===

impl SecretSpec {
    /// Its name among the stored secrets.
    #[must_use]
    pub fn stored_as<'s>(&'s self, name: &'s ServiceName) -> &'s ServiceName {
        self.store.as_ref().unwrap_or(name)
    }

    /// The variable that holds it, or the number of the descriptor to read it from.
    #[must_use]
    pub fn variable_of(&self, name: &ServiceName) -> String {
        let upper = || name.as_str().to_ascii_uppercase().replace('-', "_");
        match self.form {
            SecretForm::Descriptor => format!("ALICIA_FD_{}", upper()),
            SecretForm::Environment => self.variable.clone().unwrap_or_else(upper),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_alone_are_enough() {
        let name = |text: &str| ServiceName::new(text).expect("a name");
        let read = |value: Value| serde_json::from_value::<Secrets>(value);
        let list = read(json!(["db-password", "key"])).expect("a list");
        let map = read(json!({"db-password": {}, "key": null})).expect("a map");
        assert_eq!(list, map);
        assert_eq!(
            list.0[&name("key")].variable_of(&name("key")),
            "ALICIA_FD_KEY"
        );
        let other = read(json!({"db-password": "prod-db"})).expect("another name");
        let spec = &other.0[&name("db-password")];
        assert_eq!(spec.stored_as(&name("db-password")).as_str(), "prod-db");
        let variable = read(json!({"db-password": {"as": "environment"}})).expect("a variable");
        assert_eq!(
            variable.0[&name("db-password")].variable_of(&name("db-password")),
            "DB_PASSWORD"
        );
        for bad in [
            json!("x"),
            json!(["A b"]),
            json!({"a": {"value": "hunter2"}}),
            json!({"a": {"as": "argument"}}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
