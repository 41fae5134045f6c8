//! What a service promises: its service-level objectives.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::unit::Period;

/// The objectives of a service. At least one of `availability` and `latency`.
///
/// While the error budget is burnt too quickly, the alert `slo_burn` fires: at 14.4 times the sustainable rate over 1 h
/// and 5 min, or 6 times over 6 h and 30 min (critical), or 1 time over 3 d and 6 h (warning).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// How much of the time it must work, in percent. 50 to 99.999.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 50.0, max = 99.999))]
    pub availability: Option<f64>,
    /// How many answers must be quick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyObjective>,
    /// Over which time the promise is kept or broken. 1d to 90d.
    #[serde(default = "window")]
    pub window: Period,
    /// The fewest observations in the longer of two windows that an alert may rest on. 1 to 100000.
    #[serde(default = "events")]
    #[schemars(range(min = 1, max = 100_000))]
    pub events_min: u32,
}

/// `99 % of the tries of check x take at most 200 ms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LatencyObjective {
    /// How many of the tries, in percent. 50 to 99.999.
    #[schemars(range(min = 50.0, max = 99.999))]
    pub target: f64,
    /// How long one may take.
    pub max: Period,
    /// The check of the service whose latency counts. Default: all of its checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<crate::id::ServiceName>,
}

fn window() -> Period {
    Period::from_secs(30 * 86_400)
}

fn events() -> u32 {
    30
}
