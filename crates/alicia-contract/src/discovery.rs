//! Registry: who registers, who is there, who is best for a capability, and calls to it.

mod call;
mod resolve;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{Epoch, InstanceId, ServiceName};
use crate::topic::{EventTopic, StateTopic};
use crate::unit::{Period, UnixSeconds};

pub use call::{
    CALL, CALL_TIMEOUT_DEFAULT, CALL_TIMEOUT_MAX, CapabilityAnswer, CapabilityCall,
    INSTANCE_COMMAND, shared_commands,
};
pub use resolve::{
    CANDIDATES_DEFAULT, CANDIDATES_MAX, CHOICES_DEFAULT, CHOICES_MAX, Candidate, Choice,
    Preference, RESOLVE, Resolution, Standing, Verdict, Wanted,
};

/// A service or agent announces itself, or renews.
pub const REGISTER: EventTopic<Registration> = EventTopic::new("system/discovery/register");

/// It leaves.
pub const UNREGISTER: EventTopic<Unregistration> = EventTopic::new("system/discovery/unregister");

/// The current instances of one service, retained.
pub const INSTANCES: StateTopic<ServiceInstances> = StateTopic::new("system/discovery/{service}");

/// Instances as they come, fall silent and go.
pub const EVENTS: EventTopic<PresenceChange> = EventTopic::new("system/discovery/events");

/// Names that no service may have: they are levels of the topics above and of those of
/// [`crate::health`], where the name of a service would stand.
pub const RESERVED_NAMES: [&str; 7] = [
    "register",
    "unregister",
    "events",
    "resolve",
    "check",
    "monitor",
    "system",
];

/// The largest `metadata`, in bytes of JSON.
pub const METADATA_BYTES_MAX: usize = 64 << 10;

/// The lease of one who names none.
pub const LEASE_DEFAULT: Period = Period::from_secs(30);

/// The protocol major that this build speaks.
pub const PROTOCOL_MAJOR: u64 = 1;

/// What an entry is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A program that serves.
    #[default]
    Service,
    /// One that acts by itself.
    Agent,
    /// One that agents call.
    Tool,
}

/// Something that an instance can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Capability {
    /// The name, for example `weather-forecast`.
    pub name: ServiceName,
    /// Its version (semver).
    #[serde(default = "first_version")]
    pub version: String,
    /// What it does, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of the input.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub input_schema: Value,
    /// JSON Schema of the output.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output_schema: Value,
    /// A hint of the cost of one call, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// A hint of the usual latency, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Tags, free to choose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl Capability {
    /// A capability of the first version, of which only the name is said.
    #[must_use]
    pub fn new(name: ServiceName) -> Self {
        Self {
            name,
            version: first_version(),
            description: None,
            input_schema: Value::Null,
            output_schema: Value::Null,
            cost_usd: None,
            latency_ms: None,
            tags: Vec::new(),
        }
    }
}

fn first_version() -> String {
    "0.1.0".to_owned()
}

/// Where an instance is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoints {
    /// The base URL over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// The MQTT topic of its commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<String>,
    /// The URL of its MCP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<String>,
    /// The URL of its A2A endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub a2a: Option<String>,
}

/// An instance announces itself. Sent again, it renews the lease and replaces what was said before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Registration {
    /// The service.
    pub service: ServiceName,
    /// The instance; for a supervised one `ALICIA_INSTANCE`.
    pub instance: InstanceId,
    /// The epoch; for a supervised one `ALICIA_EPOCH`. Fences older copies.
    #[serde(default)]
    pub epoch: Epoch,
    /// What it is.
    #[serde(default)]
    pub kind: Kind,
    /// The version of the program (semver).
    #[serde(default = "first_version")]
    pub version: String,
    /// Versions of Alicia's protocol that it speaks (semver); their major must match.
    #[serde(default = "protocol_versions")]
    pub protocols: Vec<String>,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// Where it is reached.
    #[serde(default)]
    pub endpoints: Endpoints,
    /// Any JSON object up to 64 KiB.
    #[serde(default)]
    pub metadata: serde_json::Map<String, Value>,
    /// Labels to find it by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How long it counts as present without a sign of life, in seconds. 1 to 86,400.
    #[serde(default = "lease_seconds")]
    pub lease_s: f64,
}

fn protocol_versions() -> Vec<String> {
    vec![format!("{PROTOCOL_MAJOR}.0.0")]
}

fn lease_seconds() -> f64 {
    LEASE_DEFAULT.duration().as_secs_f64()
}

/// An instance leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unregistration {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
}

/// Whether an instance is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Known from before a restart of the registry and not seen since.
    Unverified,
    /// There.
    Present,
    /// Its lease ran out; it may come back.
    Suspect,
    /// Gone.
    Gone,
}

/// One entry of the registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RegisteredInstance {
    /// What it said of itself.
    #[serde(flatten)]
    pub registration: Registration,
    /// Whether it is there.
    pub presence: Presence,
    /// Since when.
    pub since: UnixSeconds,
    /// The last sign of life.
    pub seen: UnixSeconds,
    /// Whether the orchestrator started it; then its exit, not its lease, ends the entry.
    pub supervised: bool,
    /// Who registered it, as the bus or REST authenticated it.
    pub owner: String,
}

/// The instances of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceInstances {
    /// The service.
    pub service: ServiceName,
    /// Those that are present, suspect or unverified.
    pub instances: Vec<RegisteredInstance>,
    /// Whether metadata, schemas and descriptions were left out, because there are many instances. REST has
    /// them.
    #[serde(default)]
    pub shortened: bool,
    /// How many instances were left out for the same reason.
    #[serde(default)]
    pub omitted: u32,
}

/// An instance came, fell silent, came back or went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PresenceChange {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// What it was; none: not known before.
    pub from: Option<Presence>,
    /// What it is now.
    pub to: Presence,
    /// Why, in words: `registered`, `lease ran out`, `killed by SIGKILL`, …
    pub reason: String,
    /// When.
    pub at: UnixSeconds,
}
