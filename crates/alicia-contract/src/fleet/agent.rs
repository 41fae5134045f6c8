//! Limits of an agent's work, for alerts. What it did is told by its heartbeats.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::unit::Period;

/// When an agent's work is worth an alert. Each limit is off unless it is given.
///
/// The numbers come from heartbeats: `steps`, `tokens`, `cost_usd`, `tool_calls`, `tool_errors` only rise; `queue_age_s`,
/// `ttft_ms` and `repeats` are as of now. The names of OpenTelemetry for generative AI are understood as well.
///
/// The monitor looks at it and alerts, as of anything: it can be silenced, acknowledged, escalated, and it ends by itself. It
/// never stops an agent; `progress` does, and knows of steps and actions through `sd_notify` too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AgentLimits {
    /// No step for this long is an alert (`agent_stuck`). 1s to 7d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_within: Option<Period>,
    /// This many equal steps in a row (`repeats`) are an alert (`agent_loop`). 2 to 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 10_000))]
    pub repeats_max: Option<u32>,
    /// More of the tool calls of `within` failing than this, in percent, is an alert (`agent_tool_errors`); five calls at
    /// least. 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub tool_error_percent_max: Option<f64>,
    /// More tokens per hour than this is an alert (`agent_tokens`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1.0))]
    pub tokens_per_hour_max: Option<f64>,
    /// More cost per hour than this, in US dollars, is an alert (`agent_cost`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub cost_usd_per_hour_max: Option<f64>,
    /// A first token that takes longer than this is an alert (`agent_slow`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_max: Option<Period>,
    /// Work that waits longer than this is an alert (`agent_queue`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_age_max: Option<Period>,
    /// Over which time rates are taken. 1m to 24h; default 10m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Period>,
}
