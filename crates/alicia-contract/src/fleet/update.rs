//! How a service is brought to new settings while it serves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::unit::Period;

/// How running instances are brought to new settings that a running process cannot take over. Without it
/// they are stopped and started again, all at once.
///
/// New instances start beside the old ones and must be ready for `min_healthy`; only then do old ones get
/// their stop signal. Both can serve at the same time when the service has automatic ports, or one that Alicia
/// holds: `ports: {http: {number: 8080, held: true}}`. On failure the old settings come back by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateSpec {
    /// In which steps.
    pub strategy: UpdateStrategy,
    /// How many instances may run above `instances` while a rolling update goes on. 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub surge: u32,
    /// How many new instances may be on their way at the same time. 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub parallel: u32,
    /// How long a new instance must have been ready, without a failure, before it counts.
    pub min_healthy: Period,
    /// How long a new instance may take from its start to ready.
    pub deadline: Period,
    /// For `canary`: how many go first, and how long they are watched.
    pub canary: CanarySpec,
    /// Whether a failed update brings the old settings back. Without it both stay as they are: the old
    /// instances serve on, and a person decides.
    pub auto_revert: bool,
}

impl Default for UpdateSpec {
    fn default() -> Self {
        Self {
            strategy: UpdateStrategy::default(),
            surge: 1,
            parallel: 1,
            min_healthy: Period::from_secs(5),
            deadline: Period::from_secs(120),
            canary: CanarySpec::default(),
            auto_revert: true,
        }
    }
}

/// The steps of an update.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateStrategy {
    /// A new instance, then an old one less, and so on.
    #[default]
    Rolling,
    /// All new instances beside all old ones; then the old ones end at once.
    BlueGreen,
    /// Some new instances are watched for a while; then as with `rolling`.
    Canary,
    /// The old instances end, then new ones start. For services of which no two may run.
    Recreate,
}

impl UpdateStrategy {
    /// As it is written in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::BlueGreen => "blue-green",
            Self::Canary => "canary",
            Self::Recreate => "recreate",
        }
    }
}

/// The first instances of a canary update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CanarySpec {
    /// How many go first; no more than `instances`. 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub instances: u32,
    /// How long they are watched.
    #[serde(rename = "for")]
    pub watched: Period,
}

impl Default for CanarySpec {
    fn default() -> Self {
        Self {
            instances: 1,
            watched: Period::from_secs(30),
        }
    }
}
