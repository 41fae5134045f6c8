//! How many instances of a service run, decided by what they do.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::unit::Period;

/// The number of instances follows the load. `instances` is the number at the start; `alicia scale` holds it
/// until the number in the file changes.
///
/// Every rule says how many instances would bring its value to the target; the largest number wins, within
/// `min` and `max`. A deviation of less than a tenth changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScalingSpec {
    /// The fewest instances. 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub min: u32,
    /// The most instances. 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub max: u32,
    /// The use of the processor by one instance that is aimed at, in cores: `0.7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.01, max = 1024.0))]
    pub cpu: Option<f64>,
    /// Values of heartbeats (`counters` or `resources`) by name, each with what is aimed at for one instance:
    /// `{queue_depth: 10}`. The values of all instances are added and shared out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub per_instance: BTreeMap<String, f64>,
    /// Values of heartbeats by name, each with what is aimed at on average, however many there are:
    /// `{latency_ms: 200}`. An instance more is taken to share the load.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub average: BTreeMap<String, f64>,
    /// How long after a change of the number the next one may come.
    #[serde(default = "cool_down")]
    pub cool_down: Period,
    /// How long fewer instances must have been enough before there are fewer.
    #[serde(default = "scale_down_after")]
    pub scale_down_after: Period,
}

fn cool_down() -> Period {
    Period::from_secs(30)
}

fn scale_down_after() -> Period {
    Period::from_secs(300)
}
