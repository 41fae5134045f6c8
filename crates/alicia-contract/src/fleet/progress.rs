//! Whether an agent gets on with its work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StopSignal;
use crate::unit::Period;

/// Looks whether an agent gets on with its work: it tells its steps, tokens and cost through the
/// `counters` of its heartbeats (`steps`, `tokens`, `cost_usd`) or through `sd_notify`
/// (`X_ALICIA_STEPS`, `X_ALICIA_TOKENS`, `X_ALICIA_COST_USD`, and `X_ALICIA_ACTION` for what it does
/// now).
///
/// The orchestrator looks at it, and acts at once. For what a person should know and a restart does not mend (tool
/// errors, a slow model, a queue, a price that is still bearable) there is `agent`, which raises alerts. A usual pair:
/// `agent: {progress_within: 5m}` tells, `progress: {within: 15m}` restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// It must have made a step, or used a token, within this time. Counts from when it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Period>,
    /// So often in a row it may do the same (`X_ALICIA_ACTION`). 2 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1000))]
    pub repeat: Option<u32>,
    /// So many tokens it may use in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub tokens_per_minute: Option<f64>,
    /// So many US dollars it may cost in an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub cost_per_hour: Option<f64>,
    /// What is done when one of these is not kept.
    #[serde(default)]
    pub then: ProgressAction,
    /// For `checkpoint`: the signal that asks it to save its work. Default: the command `checkpoint` on
    /// its command topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_signal: Option<StopSignal>,
    /// For `checkpoint`: how long saving may take; `X_ALICIA_CHECKPOINT=done` ends it sooner.
    #[serde(default = "checkpoint_within")]
    pub checkpoint_within: Period,
}

fn checkpoint_within() -> Period {
    Period::from_secs(30)
}

/// What is done about an agent that does not get on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProgressAction {
    /// Its processes are held still; `alicia resume` lets them go on.
    Pause,
    /// It is asked to save its work, then restarted.
    Checkpoint,
    /// It is restarted, as after a crash.
    #[default]
    Restart,
    /// It is killed and stays ended until a person starts it.
    Kill,
    /// A person is told; it goes on.
    Ask,
}
