//! Why an instance is where it is, as a story.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ExitCause, InstanceState};
use crate::id::ServiceName;
use crate::unit::UnixSeconds;

/// How many dependencies deep an explanation goes.
pub const EXPLAIN_DEPTH_MAX: usize = 8;

/// Asks why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The service.
    pub service: ServiceName,
    /// One slot only. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
}

/// Why the instances of a service are where they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The service.
    pub service: ServiceName,
    /// In one sentence.
    pub summary: String,
    /// When this was told.
    pub at: UnixSeconds,
    /// Each slot.
    pub slots: Vec<SlotExplanation>,
    /// The dependencies that hold it back, each with its own explanation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_back_by: Vec<Explanation>,
}

/// Why one instance is where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SlotExplanation {
    /// The service and its slot: `api-1`.
    pub instance: String,
    /// Where it is.
    pub state: InstanceState,
    /// Since when.
    pub since: UnixSeconds,
    /// In one sentence.
    pub summary: String,
    /// What happened, the oldest first: the chain of causes that led here.
    pub steps: Vec<Step>,
    /// What happens next, where something is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// When.
    pub at: UnixSeconds,
    /// What kind.
    pub kind: StepKind,
    /// In words.
    pub text: String,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, as a class.
    #[serde(default, skip_serializing_if = "ExitCause::is_unknown")]
    pub cause: ExitCause,
    /// How often it happened in a row, when more than once; `at` is the last time.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub times: u32,
    /// The last lines of output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
}

fn once() -> u32 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_once(times: &u32) -> bool {
    *times == 1
}

/// What kind of link it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// The instance changed its state.
    Transition,
    /// It ended.
    Exit,
    /// Somebody asked for something.
    Command,
    /// A new version of the file.
    Deployment,
    /// The host started.
    Host,
    /// The keeper started.
    Keeper,
}
