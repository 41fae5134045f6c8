//! What a service offers, as the file says it, for programs that do not say it themselves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::discovery::Capability;
use crate::id::ServiceName;

/// Something that the service can do. `alicia resolve` finds it, `alicia call` has it carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CapabilitySpec {
    /// The name, for example `weather-forecast`; also the name of the command that carries it out.
    pub name: ServiceName,
    /// Its version (semver). Default: 0.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it does, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A JSON Schema of the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<serde_json::Map<String, Value>>,
    /// A JSON Schema of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<serde_json::Map<String, Value>>,
    /// A hint of the cost of one call, in US dollars. 0 or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub cost_usd: Option<f64>,
    /// A hint of the usual latency, in milliseconds. 0 or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub latency_ms: Option<f64>,
    /// Tags, free to choose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl From<&CapabilitySpec> for Capability {
    fn from(spec: &CapabilitySpec) -> Self {
        let schema = |of: &Option<serde_json::Map<String, Value>>| {
            of.clone().map_or(Value::Null, Value::Object)
        };
        let named = Self::new(spec.name.clone());
        Self {
            version: spec.version.clone().unwrap_or(named.version),
            name: named.name,
            description: spec.description.clone(),
            input_schema: schema(&spec.input),
            output_schema: schema(&spec.output),
            cost_usd: spec.cost_usd,
            latency_ms: spec.latency_ms,
            tags: spec.tags.clone(),
        }
    }
}
