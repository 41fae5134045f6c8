//! Finding the best instances for a wanted capability, with a reason for every candidate.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::discovery::{Endpoints, Kind, Presence};
use crate::id::{Epoch, InstanceId, ServiceName};
use crate::problem::InputFault;
use crate::topic::CallTopic;

/// Asks for the best instances for a capability.
pub const RESOLVE: CallTopic<Wanted, Resolution> = CallTopic::new("system/discovery/resolve");

/// Instances in an answer unless asked otherwise.
pub const CHOICES_DEFAULT: u32 = 5;

/// Most instances in an answer.
pub const CHOICES_MAX: u32 = 100;

/// Candidates that are listed with their reasons unless asked otherwise; beyond that they are counted.
pub const CANDIDATES_DEFAULT: u32 = 20;

/// Most candidates that are listed.
pub const CANDIDATES_MAX: u32 = 500;

/// What decides between instances that all fit and are equally well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    /// The least loaded: calls under way and use of the processor.
    Load,
    /// The cheapest, by its hint.
    Cost,
    /// The quickest, by its hint.
    Latency,
    /// The newest version of the capability.
    Version,
}

/// What is wanted. Everything that is given must fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The name of the capability.
    pub capability: ServiceName,
    /// A range of its versions such as `^1.2` or `>=1, <3`; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Tags that it must have, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Only instances of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The input that it will be given; it must fit the capability's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// A JSON Schema of what it will be given: whatever fits this must fit the capability's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    /// What decides between those that fit and are equally well, in this order. Default: load, cost, latency.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefer: Vec<Preference>,
    /// Most instances in the answer. 1 to 100; default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<u32>,
    /// Most candidates that are listed with their reasons. 0 to 500; default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 500))]
    pub explain: Option<u32>,
}

impl Wanted {
    /// A capability, of any version.
    #[must_use]
    pub fn new(capability: ServiceName) -> Self {
        Self {
            capability,
            version: None,
            tags: Vec::new(),
            service: None,
            input: None,
            input_schema: None,
            prefer: Vec::new(),
            limit: None,
            explain: None,
        }
    }
}

/// How well an instance is, as far as the registry has heard. The order is that of preference.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// There, and it says that it is well.
    Healthy,
    /// There; nothing was heard of how it is.
    Unknown,
    /// Works, with less than it should have.
    Degraded,
    /// On its way; gets no work yet.
    Starting,
    /// Known from before a restart of the registry and not seen since; gets no work.
    Unverified,
    /// Its heartbeat is overdue; gets no work.
    Silent,
    /// Its lease ran out; gets no work.
    Suspect,
    /// There and does not work; gets no work.
    Unhealthy,
    /// Was asked to end; gets no new work.
    Draining,
}

impl Standing {
    /// Every one, in the order of preference.
    pub const ALL: [Self; 9] = [
        Self::Healthy,
        Self::Unknown,
        Self::Degraded,
        Self::Starting,
        Self::Unverified,
        Self::Silent,
        Self::Suspect,
        Self::Unhealthy,
        Self::Draining,
    ];

    /// Whether it may be given work.
    #[must_use]
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Healthy | Self::Unknown | Self::Degraded)
    }

    /// As it stands in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Starting => "starting",
            Self::Unverified => "unverified",
            Self::Silent => "silent",
            Self::Suspect => "suspect",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }
}

/// What came of a candidate.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is in the answer.
    Chosen,
    /// It would do; others are better by load, cost, latency or turn, or are enough.
    Spare,
    /// It belongs to another service than the one that was named.
    Service,
    /// Its version is outside the range.
    Version,
    /// It lacks a tag.
    Tag,
    /// The input does not fit its schema; see the faults.
    Input,
    /// Not everything that fits the caller's schema fits its own; see the faults.
    InputSchema,
    /// It is on its way.
    Starting,
    /// It was not seen since a restart of the registry.
    Unverified,
    /// Its heartbeat is overdue.
    Silent,
    /// Its lease ran out.
    Suspect,
    /// It does not work.
    Unhealthy,
    /// It was asked to end.
    Draining,
    /// The caller may not give it commands; only calls are checked for it.
    NotAllowed,
    /// It cannot be called alone over the bus; only calls are checked for it.
    NotCallable,
}

impl Verdict {
    /// As it stands in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Spare => "spare",
            Self::Service => "service",
            Self::Version => "version",
            Self::Tag => "tag",
            Self::Input => "input",
            Self::InputSchema => "input-schema",
            Self::Starting => "starting",
            Self::Unverified => "unverified",
            Self::Silent => "silent",
            Self::Suspect => "suspect",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
            Self::NotAllowed => "not-allowed",
            Self::NotCallable => "not-callable",
        }
    }
}

/// An instance that fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Choice {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// What it is.
    pub kind: Kind,
    /// The version of the capability.
    pub version: String,
    /// Where it is reached.
    pub endpoints: Endpoints,
    /// How well it is.
    pub standing: Standing,
    /// Calls under way and use of the processor in cores, to a tenth.
    pub load: f64,
    /// The hint of the cost of one call, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// The hint of the usual latency, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
}

/// An instance that has the capability, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// The version of its capability.
    pub version: String,
    /// Whether it is there.
    pub presence: Presence,
    /// What came of it.
    pub verdict: Verdict,
    /// Why, in words.
    pub reason: String,
    /// Where the input, or the schema of it, does not fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<InputFault>,
}

/// The best instances for a capability, and what came of every candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resolution {
    /// The capability that was wanted.
    pub capability: ServiceName,
    /// Those to use, the best first; none: see `detail`.
    pub instances: Vec<Choice>,
    /// Why, in words.
    pub detail: String,
    /// The versions of the capability that there are, the newest first.
    pub versions: Vec<String>,
    /// For a capability that nobody has: the nearest name that somebody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<ServiceName>,
    /// What came of every candidate: how many, by verdict.
    pub verdicts: BTreeMap<Verdict, u32>,
    /// The candidates with their reasons, those in use first, as many as were asked for.
    pub candidates: Vec<Candidate>,
    /// How many candidates are counted and not listed.
    #[serde(default)]
    pub omitted: u32,
    /// What could not be taken into account, because the part that knows it has not been heard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_code_are_the_names_in_messages() {
        for standing in Standing::ALL {
            assert_eq!(serde_json::json!(standing), standing.as_str());
        }
        for verdict in [
            Verdict::InputSchema,
            Verdict::NotAllowed,
            Verdict::NotCallable,
            Verdict::Spare,
        ] {
            assert_eq!(serde_json::json!(verdict), verdict.as_str());
        }
        assert!(Standing::ALL.is_sorted(), "the order is that of preference");
    }
}
