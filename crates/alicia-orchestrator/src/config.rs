//! The section `orchestrator` of `alicia.yaml`.

use alicia_contract::{ByteSize, Period, ServiceName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::plan::Selection;

/// How services are started and stopped as a whole. What a single service needs stands in `services`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Services and groups that run; with them runs what they need. Default: every service without a profile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<ServiceName>,
    /// Profiles: services that have one of them run too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<ServiceName>,
    /// How long everything may take to stop when the house closes; then what is left is killed.
    pub stop_deadline: Period,
    /// Limits of all logs together; those of one service stand in its `log`.
    pub logs: LogLimits,
}

/// Limits of all logs together. Whole files go, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogLimits {
    /// The most bytes of files that were put aside, packed.
    pub total_size: ByteSize,
    /// Older files go, also those of services that are gone.
    pub max_age: Period,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            total_size: ByteSize::mib(2_048),
            max_age: Period::from_secs(30 * 86_400),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            only: Vec::new(),
            profiles: Vec::new(),
            stop_deadline: Period::from_secs(30),
            logs: LogLimits::default(),
        }
    }
}

impl Config {
    /// What runs by itself.
    pub(crate) fn selection(&self) -> Selection {
        Selection {
            only: self.only.clone(),
            profiles: self.profiles.clone(),
        }
    }
}
