//! What a service or a group may use up.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::unit::Period;

/// What may be used up. At 80 % a warning is told; at the limit every instance is parked until the period
/// is over. Days are those of UTC.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Tokens in a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// US dollars in a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub cost_per_day_usd: Option<f64>,
    /// Restarts in an hour that nobody asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts_per_hour: Option<u32>,
    /// How long its instances may run in a day, all together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_clock: Option<Period>,
}
