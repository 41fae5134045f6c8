//! What was spent on behalf of a service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, ServiceName};
use crate::unit::UnixSeconds;

/// One amount that was spent on behalf of a service, each told once. Who meters tells it as it happens or
/// summed up over some seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Spent {
    /// Tells one message from the next: a repeated one counts once. At most 64 characters.
    pub id: String,
    /// On whose behalf.
    pub service: ServiceName,
    /// By which run, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Tokens, in and out.
    #[serde(default)]
    pub tokens: u64,
    /// US dollars.
    #[serde(default)]
    pub cost_usd: f64,
    /// When.
    pub at: UnixSeconds,
}
