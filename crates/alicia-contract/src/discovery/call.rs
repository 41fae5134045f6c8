//! Calls by capability: exactly one instance that fits and is well carries each out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{InstanceId, ServiceName};
use crate::orchestrator::ServiceCommand;
use crate::topic::{CallTopic, Prefix};
use crate::unit::Period;

/// Has a capability carried out by exactly one instance that fits and is well. Below `system/registry`, because
/// every service may subscribe to `system/discovery/+` and inputs are for nobody else.
pub const CALL: CallTopic<CapabilityCall, CapabilityAnswer> =
    CallTopic::new("system/registry/call");

/// A request to one instance; the answer goes to `reply_to`. What the registry sends calls to.
pub const INSTANCE_COMMAND: CallTopic<ServiceCommand, Value> =
    CallTopic::new("{service}/{instance}/command");

/// How long a call may take unless said otherwise.
pub const CALL_TIMEOUT_DEFAULT: Period = Period::from_secs(30);

/// The longest that a call may take.
pub const CALL_TIMEOUT_MAX: Period = Period::from_secs(3_600);

/// The filter by which the instances of a service share `{service}/command`: one of them gets each message.
#[must_use]
pub fn shared_commands(prefix: &Prefix, service: &ServiceName) -> String {
    format!("$share/{service}/{prefix}/{service}/command")
}

/// A call by capability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CapabilityCall {
    /// The name of the capability.
    pub capability: ServiceName,
    /// Only instances of this service; without it, of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// A range of versions of the capability such as `^1.2`; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Tags that it must have, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The input; checked against the capability's schema before it is sent.
    #[serde(default)]
    pub input: Value,
    /// How long it may take. 1ms to 1h; default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Whether it may be carried out again by another instance when the first ended without an answer.
    #[serde(default)]
    pub retry: bool,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CapabilityAnswer {
    /// The service.
    pub service: ServiceName,
    /// The instance that carried it out.
    pub instance: InstanceId,
    /// The version of its capability.
    pub version: String,
    /// What it answered; checked against the capability's schema.
    pub output: Value,
    /// How long it took, in milliseconds.
    pub latency_ms: f64,
    /// How many instances were asked: more than one when the first had not begun, or a retry was allowed.
    pub attempts: u32,
}
