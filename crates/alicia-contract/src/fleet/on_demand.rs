//! Services that run only while somebody is connected.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::unit::Period;

/// The service does not run until somebody connects to one of its held ports, and ends when nobody has been
/// connected for a while. The first client waits and is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OnDemandSpec {
    /// It ends when nobody has been connected for this long.
    pub idle_after: Period,
}

impl Default for OnDemandSpec {
    fn default() -> Self {
        Self {
            idle_after: Period::from_secs(600),
        }
    }
}
