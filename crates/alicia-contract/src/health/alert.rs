//! Alerts, what keeps people from being told of them, and how they are told.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::ServiceName;
use crate::topic::CallTopic;
use crate::unit::{Period, UnixSeconds};

/// What a person can do about alerts, by message; `{verb}` is one of [`AlertVerb`].
pub const ALERT_REQUESTS: CallTopic<AlertRequest, AlertAnswer> =
    CallTopic::new("system/health/request/{verb}");

/// How bad an alert is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

impl Severity {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Whether an alert is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// On.
    Firing,
    /// Over.
    Resolved,
}

/// An alert. Published when it fires, when its content changes, and when it is resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// The id: one episode, from firing to resolved.
    pub id: String,
    /// What is wrong, stable: `service_down`, `crash_loop`, `restarted`, `check_failed`, `heartbeat_lost`,
    /// `flapping`, `bad_heartbeats`, `slo_burn`, `agent_stuck`, `agent_loop`, `agent_tool_errors`, `agent_tokens`, `agent_cost`,
    /// `agent_slow`, `agent_queue`, `attention`, `restart_breaker`, `delivery_failed`, `external`.
    pub rule: String,
    /// How bad.
    pub severity: Severity,
    /// On or over.
    pub state: AlertState,
    /// The service.
    pub service: ServiceName,
    /// The instance, when it is about one: `api-1`.
    pub instance: Option<String>,
    /// One line for a person.
    pub summary: String,
    /// The cause and the evidence.
    pub detail: String,
    /// The last lines of output, when the service ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
    /// What to do next, as a command line, when there is a rule for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// When it fired.
    pub started: UnixSeconds,
    /// When it ended.
    pub ended: Option<UnixSeconds>,
    /// How often the same thing happened in this episode.
    pub count: u32,
    /// Free labels.
    #[serde(default)]
    pub labels: BTreeMap<String, Value>,
    /// Who has taken note of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledgement>,
    /// The service that is the cause, found a moment after this alert fired: this one depends on it, and
    /// nobody is notified of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<ServiceName>,
    /// Why nobody is notified of it now; empty: somebody is. Filled in REST and in the picture of the fleet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub muted: Vec<Mute>,
}

/// Somebody took note of an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Acknowledgement {
    /// Who, as authenticated.
    pub by: String,
    /// What they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When.
    pub at: UnixSeconds,
    /// When it ends by itself; none: with the alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixSeconds>,
}

/// What would be an alert if something else were not its cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HeldBack {
    /// The rule.
    pub rule: String,
    /// How bad.
    pub severity: Severity,
    /// The service.
    pub service: ServiceName,
    /// The instance, when it is about one.
    pub instance: Option<String>,
    /// One line for a person.
    pub summary: String,
    /// The service that is the cause; none: it is flapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<ServiceName>,
    /// Why it is held back, in words.
    pub why: String,
    /// Since when.
    pub since: UnixSeconds,
}

/// What keeps people from being notified of an alert.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum MuteKind {
    /// A service that it depends on is the cause.
    Dependency,
    /// A maintenance window.
    Maintenance,
    /// A silence.
    Silence,
    /// A worse alert of the same service.
    Inhibition,
}

/// One reason why nobody is notified of an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mute {
    /// What it is.
    pub by: MuteKind,
    /// The silence, the window, the service or the alert.
    pub id: String,
    /// In words.
    pub why: String,
}

/// A condition on a label of an alert: `service`, `rule`, `severity`, `instance`, or a free one. A label that
/// is not there is the empty text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// The comparison: `=`, `!=`, `=~` or `!~`.
    pub op: MatchOp,
    /// The text, or the regular expression, which must fit the whole label.
    pub value: String,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchOp {
    /// Equal.
    #[serde(rename = "=")]
    Equal,
    /// Not equal.
    #[serde(rename = "!=")]
    NotEqual,
    /// Fits the regular expression.
    #[serde(rename = "=~")]
    Fits,
    /// Does not fit the regular expression.
    #[serde(rename = "!~")]
    FitsNot,
}

/// Where a silence or a window is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not begun.
    Pending,
    /// In force.
    Active,
    /// Over.
    Expired,
}

/// Nobody is notified of alerts that fit, from the start to the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Silence {
    /// The id.
    pub id: String,
    /// All of them must hold. At least one, and not all may fit the empty text.
    pub matchers: Vec<Matcher>,
    /// From when.
    pub starts: UnixSeconds,
    /// Until when.
    pub ends: UnixSeconds,
    /// Who, as authenticated.
    pub by: String,
    /// Why.
    pub comment: String,
    /// When it was last changed.
    pub updated: UnixSeconds,
    /// Where it is in its life, as of the answer.
    pub phase: Phase,
}

/// A maintenance window as it stands: of the file or made by REST.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Maintenance {
    /// The id; those of the file are `file-1`, `file-2`, …
    pub id: String,
    /// The services or groups; none: all.
    pub services: Vec<ServiceName>,
    /// Where it is in its life.
    pub phase: Phase,
    /// When it begins: the current or the next time; none: never again.
    pub starts: Option<UnixSeconds>,
    /// When it ends.
    pub ends: Option<UnixSeconds>,
    /// The repetition, as cron writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Why.
    pub comment: String,
    /// Who made it; `alicia.yaml` for those of the file.
    pub by: String,
}

/// Where the delivery of a notification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Stored, to be sent.
    Waiting,
    /// The receiver has it.
    Delivered,
    /// Given up.
    Failed,
}

/// One notification to one channel, with what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Notification {
    /// The id: receivers get it as `Idempotency-Key` and can tell a repeat by it.
    pub id: String,
    /// The channel.
    pub channel: String,
    /// The group of alerts: what they have in common.
    pub group: String,
    /// Whether the group fires or is over.
    pub state: AlertState,
    /// The worst of its alerts.
    pub severity: Severity,
    /// One line.
    pub summary: String,
    /// The alerts that fire in it.
    pub firing: u32,
    /// The alerts in it that are over.
    pub resolved: u32,
    /// Why it was sent: `new`, `changed`, `repeat`, `resolved`, `escalation`, `test`.
    pub reason: String,
    /// When it was stored.
    pub created: UnixSeconds,
    /// What became of it.
    pub delivery: DeliveryState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next, while it waits.
    pub next_try: Option<UnixSeconds>,
    /// When the receiver had it, or when it was given up.
    pub done: Option<UnixSeconds>,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What can be asked about alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AlertVerb {
    /// Take note of an alert.
    Ack,
    /// Take that back.
    Unack,
    /// Make a silence.
    Silence,
    /// End a silence.
    Unsilence,
    /// Make a maintenance window.
    Maintenance,
    /// End a maintenance window.
    EndMaintenance,
    /// Send a test through a channel.
    TestChannel,
}

impl AlertVerb {
    /// Every verb.
    pub const ALL: [Self; 7] = [
        Self::Ack,
        Self::Unack,
        Self::Silence,
        Self::Unsilence,
        Self::Maintenance,
        Self::EndMaintenance,
        Self::TestChannel,
    ];

    /// Every verb, as the topic level.
    pub const NAMES: [&'static str; 7] = [
        Self::Ack.as_str(),
        Self::Unack.as_str(),
        Self::Silence.as_str(),
        Self::Unsilence.as_str(),
        Self::Maintenance.as_str(),
        Self::EndMaintenance.as_str(),
        Self::TestChannel.as_str(),
    ];

    /// The verb as the topic level.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Unack => "unack",
            Self::Silence => "silence",
            Self::Unsilence => "unsilence",
            Self::Maintenance => "maintenance",
            Self::EndMaintenance => "end-maintenance",
            Self::TestChannel => "test-channel",
        }
    }
}

/// A request about alerts. The verb is in the topic; each takes what it needs of this.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertRequest {
    /// The alert, silence, window or channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What an acknowledgement, a silence or a window is for. At most 1000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How long: of a silence and a window from its start; of an acknowledgement, which without it holds as
    /// long as the alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Period>,
    /// When a silence or a window begins; none: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<UnixSeconds>,
    /// For `silence`: each as `service=~api.*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matchers: Vec<String>,
    /// For `maintenance`: the services or groups; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceName>,
}

/// What a request about alerts did: the one thing that it changed or made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlertAnswer {
    /// The alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alert>,
    /// The silence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence: Option<Silence>,
    /// The window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// The notification that was sent as a test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification: Option<Notification>,
}
