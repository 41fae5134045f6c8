//! Supervision: what the end of one instance means for others, and when it is too much.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Budget;
use crate::id::ServiceName;
use crate::unit::Period;

/// What the end of one instance means for the others, after Erlang's supervisors. Written in a service it
/// is about that service's instances, in a group about all services of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Supervision {
    /// Who is restarted with the one that ended.
    pub strategy: Strategy,
    /// So many restarts within `within` are too much; then the group above is restarted as a whole, and
    /// where there is none, everything in it is `failed` and tried again slowly. 0: no limit.
    pub restarts: u32,
    /// The time in which they are counted.
    pub within: Period,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            strategy: Strategy::OneForOne,
            restarts: 10,
            within: Period::from_secs(60),
        }
    }
}

/// Who is restarted with one that ended by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Nobody else.
    #[default]
    OneForOne,
    /// All.
    OneForAll,
    /// Those that come after it in the order of start.
    RestForOne,
}

/// A group of services. A service is in the groups that its `groups` name; only what is said about a group
/// as a whole stands here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupSpec {
    /// What it is for, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The group above it, to which it turns when its own restarts are too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<ServiceName>,
    /// What the end of one instance means for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supervision: Option<Supervision>,
    /// What all its services may use up together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}
