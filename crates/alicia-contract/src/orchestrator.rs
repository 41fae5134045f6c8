//! Orchestrator: commands to it, and the state of the fleet as it tells it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::deployment::DeploymentPlan;
use crate::fleet::{Condition, RestartPolicy, StopSignal};
use crate::id::{Epoch, InstanceId, ServiceName};
use crate::topic::{CallTopic, EventTopic, StateTopic};
use crate::unit::UnixSeconds;

/// `{verb}` is one of [`REQUEST_VERBS`]: start, stop, restart, scale by message.
pub const REQUESTS: CallTopic<FleetRequest, FleetAnswer> =
    CallTopic::new("system/orchestrator/{verb}");

/// What the orchestrator can be asked for on [`REQUESTS`]: every [`Verb`], a signal, and other versions of the fleet.
pub const REQUEST_VERBS: [&str; 10] = [
    Verb::Start.as_str(),
    Verb::Stop.as_str(),
    Verb::Restart.as_str(),
    Verb::Scale.as_str(),
    Verb::Pause.as_str(),
    Verb::Resume.as_str(),
    "signal",
    "deploy",
    "rollback",
    "update",
];

/// What a version of the file would change, and why. Nothing is changed.
pub const PLAN: CallTopic<PlanRequest, DeploymentPlan> = CallTopic::new("system/orchestrator/plan");

/// The state of the whole fleet, retained.
pub const STATUS: StateTopic<FleetStatus> = StateTopic::new("system/orchestrator/status");

/// Every change of an instance, as it happens.
pub const TRANSITIONS: EventTopic<Transition> = EventTopic::new("system/orchestrator/events");

/// Commands to all services, for example `drain`.
pub const BROADCAST_COMMANDS: EventTopic<ServiceCommand> =
    EventTopic::new("system/orchestrator/commands");

/// A request to one service; the answer goes to `reply_to`.
pub const SERVICE_COMMAND: CallTopic<ServiceCommand, Value> = CallTopic::new("{service}/command");

/// Why an instance is where it is: the chain of causes.
pub const EXPLAIN: CallTopic<ExplainRequest, Explanation> =
    CallTopic::new("system/orchestrator/explain");

/// What was spent on behalf of a service, told by whoever meters it (the gateway). Counts against its
/// `budget`.
pub const SPENT: EventTopic<Spent> = EventTopic::new("system/usage/spent");

/// What the orchestrator can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Start what does not run.
    Start,
    /// Stop what runs.
    Stop,
    /// Stop and start again.
    Restart,
    /// Change the number of instances.
    Scale,
    /// Hold the processes of what runs still.
    Pause,
    /// Let what is paused go on, and start what is parked now.
    Resume,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 6] = [
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Scale,
        Self::Pause,
        Self::Resume,
    ];

    /// The verb as the topic level.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Scale => "scale",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// A request to the orchestrator. The verb is in the topic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetRequest {
    /// The services or groups; none: all.
    #[serde(default)]
    pub services: Vec<ServiceName>,
    /// For `scale`: the number of instances wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Why, for the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For `deploy`: the text of the file; none: the host's own file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// For `deploy`: a version without any service is meant, and ends and removes everything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
    /// For `rollback`: the number of the deployment; none: the last good one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<u64>,
    /// For `signal`: which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<StopSignal>,
    /// For `signal`: to this slot only; none: to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
}

/// Asks what a version of the file would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// The text of the file; none: the host reads its own file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// What a request did: accepted means written down and under way, not finished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FleetAnswer {
    /// Whether it was accepted.
    pub accepted: bool,
    /// The services that it acts on, in the order of their start.
    pub services: Vec<ServiceName>,
    /// Why it was refused, or what it does.
    pub detail: String,
}

/// A command to a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceCommand {
    /// The name of the command.
    pub command: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Value,
}

/// Where an instance is in its life. Drawn in the orchestrator's `core`.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// Wants to run and waits for what it depends on.
    Waiting,
    /// The process runs and is not ready yet.
    Starting,
    /// Ready.
    Running,
    /// Ended by itself and waits for its next start.
    Backoff,
    /// Was asked to end.
    Stopping,
    /// Not wanted, not running.
    #[default]
    Stopped,
    /// Ran to its end with success and is not started again.
    Completed,
    /// Does not work; see the reason. Tried again at `next_start`, where there is one; `alicia start`
    /// tries again at once.
    Failed,
    /// Waits for a moment from which on it makes sense again: a provider's limit, a budget. Starts at
    /// `next_start`; `alicia resume` starts it now.
    Parked,
    /// Its processes are held still; `alicia resume` lets them go on.
    Paused,
}

impl InstanceState {
    /// Whether a process is there.
    #[must_use]
    pub const fn has_process(self) -> bool {
        matches!(
            self,
            Self::Starting | Self::Running | Self::Stopping | Self::Paused
        )
    }
}

/// Why a run ended, as far as it decides what follows.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ExitCause {
    /// With success.
    Success,
    /// With another exit code or by a signal, and nothing says why.
    Crash,
    /// Killed for want of memory.
    OutOfMemory,
    /// Its configuration is wrong.
    Configuration,
    /// A port that it needs is taken.
    PortTaken,
    /// It was not let in.
    Authentication,
    /// A provider asks for fewer requests.
    #[serde(alias = "provider-rate-limit")]
    ProviderLimit,
    /// What a provider grants is used up.
    ProviderQuota,
    /// Its liveness probe failed.
    Liveness,
    /// It made no progress, repeated itself, or used too much too fast.
    Progress,
    /// It was not ready in time.
    StartTimeout,
    /// Its watchdog was not fed.
    Watchdog,
    /// It could not be started: the program, its directory or its user is not there.
    ProgramNotFound,
    /// Its budget, or that of its group, is used up.
    Budget,
    /// Another instance of its group ended.
    Supervision,
    /// It ended with the keeper, or while nobody looked.
    Lost,
    /// A person or program asked for it.
    Operator,
    /// Everything is being stopped.
    HostShutdown,
    /// Not known to this build.
    #[default]
    #[serde(other)]
    Unknown,
}

impl ExitCause {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Crash => "crash",
            Self::OutOfMemory => "out-of-memory",
            Self::Configuration => "configuration",
            Self::PortTaken => "port-taken",
            Self::Authentication => "authentication",
            Self::ProviderLimit => "provider-limit",
            Self::ProviderQuota => "provider-quota",
            Self::Liveness => "liveness",
            Self::Progress => "progress",
            Self::StartTimeout => "start-timeout",
            Self::Watchdog => "watchdog",
            Self::ProgramNotFound => "program-not-found",
            Self::Budget => "budget",
            Self::Supervision => "supervision",
            Self::Lost => "lost",
            Self::Operator => "operator",
            Self::HostShutdown => "host-shutdown",
            Self::Unknown => "unknown",
        }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }
}

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exit {
    /// The exit code; none when a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal, by name (`SIGKILL`); none when it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Why, in words: `killed by SIGKILL`, `exit code 1`, `liveness failed: …`, `program not found: …`.
    pub cause: String,
    /// Why, as what decides about what follows.
    #[serde(default, skip_serializing_if = "ExitCause::is_unknown")]
    pub class: ExitCause,
    /// From when on it makes sense again, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_at: Option<UnixSeconds>,
    /// When.
    pub at: UnixSeconds,
}

/// One slot of a service: at most one process at a time, numbered from 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceStatus {
    /// The number of the slot, from 1.
    pub slot: u32,
    /// The run in this slot; none before the first start.
    pub instance: Option<InstanceId>,
    /// Counts the starts of this slot.
    pub epoch: Epoch,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Since when it is there.
    pub since: UnixSeconds,
    /// The process id of the leader.
    pub pid: Option<u32>,
    /// How often it was restarted because it ended by itself, since the last start by a person.
    pub restarts: u32,
    /// How the last run ended.
    pub exit: Option<Exit>,
    /// Why it is where it is, in words.
    pub reason: String,
    /// When it is started next; in `backoff`, `parked` and `failed`.
    pub next_start: Option<UnixSeconds>,
    /// What it says of itself (`STATUS=` of `sd_notify(3)`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// What a person should look at: a progress probe that asks, a budget that is nearly used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<String>,
    /// What it has told of its work; none when it tells nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// The ports by name.
    #[serde(default)]
    pub ports: BTreeMap<ServiceName, u16>,
    /// The use of the processor by the whole process tree, in cores (1.0 is one core busy).
    pub cpu: Option<f64>,
    /// Resident memory of the whole process tree, in bytes.
    pub memory_bytes: Option<u64>,
    /// How its process tree is held: `cgroup2` or `sweep`.
    pub containment: Option<String>,
    /// What holds each of its limits and each part of its sandbox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitHeld>,
}

/// A limit of an instance, and what holds it on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitHeld {
    /// `memory`, `cpu`, `processes`, `open_files`, …, or a part of the sandbox: `sandbox.files`,
    /// `sandbox.network`, `sandbox.scope`, `sandbox.system_calls`.
    pub limit: String,
    /// `cgroup2`, `cgroup1`, `rlimit`, `landlock`, `seccomp`, `polled` (looked at every 50 ms) or `none`.
    pub held_by: String,
    /// Why by nothing better, or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a run has told of its work, since its start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Work {
    /// Steps.
    pub steps: f64,
    /// Tokens.
    pub tokens: f64,
    /// US dollars.
    pub cost_usd: f64,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// When it last made a step or used a token.
    pub at: UnixSeconds,
}

/// One service with all its slots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStatus {
    /// The name.
    pub service: ServiceName,
    /// What it is for.
    pub description: Option<String>,
    /// How many instances are wanted.
    pub wanted: u32,
    /// What it depends on.
    pub depends_on: BTreeMap<ServiceName, Condition>,
    /// What happens when it ends by itself.
    pub restart: RestartPolicy,
    /// The groups that it is in.
    pub groups: Vec<ServiceName>,
    /// The slots.
    pub instances: Vec<InstanceStatus>,
}

/// The whole fleet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FleetStatus {
    /// The name of the fleet.
    pub fleet: String,
    /// Rises with every change; a reader that sees a lower one looks at an older picture.
    pub revision: u64,
    /// When this picture was taken.
    pub at: UnixSeconds,
    /// The services in the order of their start.
    pub services: Vec<ServiceStatus>,
}

/// One change of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Transition {
    /// The service.
    pub service: ServiceName,
    /// The slot.
    pub slot: u32,
    /// The run.
    pub instance: Option<InstanceId>,
    /// The epoch of the run.
    pub epoch: Epoch,
    /// Where it was.
    pub from: InstanceState,
    /// Where it is now.
    pub to: InstanceState,
    /// Why.
    pub reason: String,
    /// How it ended, when it did.
    pub exit: Option<Exit>,
    /// What made it change, where that has a class: also on the way to `stopping`.
    #[serde(default, skip_serializing_if = "ExitCause::is_unknown")]
    pub cause: ExitCause,
    /// When it is started next; in `backoff`, `parked` and `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_start: Option<UnixSeconds>,
    /// The last lines of its output; only on the way to `backoff` and `failed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
    /// The process id, when there is one.
    pub pid: Option<u32>,
    /// Restarts so far.
    pub restarts: u32,
    /// When.
    pub at: UnixSeconds,
}

/// A row of `alicia ps --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessRow {
    /// The service.
    pub service: ServiceName,
    /// The instance: the service and its slot, `api-1`.
    pub instance: String,
    /// Where it is in its life.
    pub state: InstanceState,
    /// The process id.
    pub pid: Option<u32>,
    /// How often it was restarted.
    pub restarts: u32,
    /// Since when it is in this state.
    pub since: UnixSeconds,
    /// How the last run ended.
    pub exit: Option<Exit>,
    /// What health says of it; none without the health module.
    pub health: Option<crate::health::HealthState>,
    /// Use of the processor in cores.
    pub cpu: Option<f64>,
    /// Resident memory in bytes.
    pub memory_bytes: Option<u64>,
    /// What holds each of its limits and each part of its sandbox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitHeld>,
    /// Why it is where it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it is started next; in `backoff`, `parked` and `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_start: Option<UnixSeconds>,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// What a person should look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<String>,
}

pub use explain::{
    EXPLAIN_DEPTH_MAX, ExplainRequest, Explanation, SlotExplanation, Step, StepKind,
};
pub use spent::Spent;

mod explain;
mod spent;
