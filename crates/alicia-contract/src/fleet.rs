//! The `services:` of `alicia.yaml`: what should run and how. The doc comments are the user's reference.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::id::ServiceName;
use crate::unit::{ByteSize, Period};

pub use agent::AgentLimits;
pub use budget::Budget;
pub use capability::CapabilitySpec;
pub use container::{ContainerSpec, HOST_NETWORK, Pull};
pub use limits::{LOG_LINES_PER_SECOND_DEFAULT, MEMORY_LIMIT_MIN, ResourceLimits};
pub use notify::NotifySpec;
pub use on_exit::{ExitMatch, OnExit, Reaction};
pub use probe::{
    DiskCheck, DnsCheck, DnsType, ExecCheck, GpuCheck, GrpcCheck, HttpCheck, JsonLimits, JsonTest,
    LlmCheck, LogLineCheck, MqttCheck, PROBE_INTERVAL_MIN, Probe, ProbeKind, ProcessCheck,
    TcpCheck, TlsCheck,
};
pub use progress::{Progress, ProgressAction};
pub use sandbox::{Network, NetworkPorts, NetworkWord, SandboxSpec, SystemCalls};
pub use secret::{SecretForm, SecretSpec, Secrets};
pub use session::Session;
pub use slo::{LatencyObjective, Slo};
pub use supervision::{GroupSpec, Strategy, Supervision};

mod agent;
mod budget;
mod capability;
mod container;
mod limits;
mod notify;
mod on_demand;
mod on_exit;
mod probe;
mod progress;
mod sandbox;
mod scaling;
mod secret;
mod session;
mod supervision;
mod update;

pub use on_demand::OnDemandSpec;
pub use scaling::ScalingSpec;
pub use update::{CanarySpec, UpdateSpec, UpdateStrategy};
mod slo;

/// The most services in one fleet; a limit so that a generated file cannot exhaust the machine.
pub const SERVICES_MAX: usize = 10_000;

/// The most instances of one service.
pub const INSTANCES_MAX: u32 = 1_000;

/// What should run: every service of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    /// The name of the fleet, shown on the page.
    pub name: String,
    /// The services by name.
    pub services: BTreeMap<ServiceName, Arc<ServiceSpec>>,
    /// What is said about groups as a whole, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<ServiceName, GroupSpec>,
}

impl Fleet {
    /// Holds each service that is the same in the other fleet once, together with it.
    pub fn share_with(&mut self, other: &Self) {
        for (name, spec) in &mut self.services {
            if let Some(same) = other.services.get(name).filter(|theirs| *theirs == spec) {
                *spec = same.clone();
            }
        }
    }
}

/// One service: a program that runs in one or more instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// The program and its arguments: a list, or one text that is split like a shell would, without
    /// running a shell. Write `[sh, -c, "…"]` for a shell. With `container`: what runs in it instead of the
    /// command of the image.
    #[serde(default, skip_serializing_if = "Command::is_empty")]
    pub command: Command,
    /// Run it in a container of Docker or Podman.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerSpec>,
    /// What it is for, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The working directory; relative to the file's own directory, which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The user that it runs as, by name or number. Only root may set it. Default: the user of Alicia.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Environment variables. They add to a small base (`PATH`, `HOME`, `LANG`, `TZ`, `USER`) and to what
    /// Alicia sets (`ALICIA_*`, `PORT`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, Scalar>,
    /// Files of `NAME=value` lines, read at each start, before `environment`. Relative to the file's directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_files: Vec<String>,
    /// What it must know and nobody else: a list of names of stored secrets (`alicia secret set NAME`), or a map from
    /// name to where it comes from. Each is given as a descriptor that `ALICIA_FD_<NAME>` names, or with
    /// `as: environment` as a variable.
    #[serde(default, skip_serializing_if = "Secrets::is_empty")]
    pub secrets: Secrets,
    /// How many instances run. 0 to 1000.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub instances: u32,
    /// What must be there first: a list of services (each must be `healthy`), or a map from service to
    /// condition (`started`, `healthy`, `completed`).
    #[serde(default, skip_serializing_if = "Dependencies::is_empty")]
    pub depends_on: Dependencies,
    /// When an instance counts as ready. Without it, ready means started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
    /// When an instance counts as alive. One that fails is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
    /// How long an instance may take from its start to ready before it counts as failed.
    #[serde(default = "start_timeout")]
    pub start_timeout: Period,
    /// What happens when an instance ends by itself.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How long to wait between restarts.
    #[serde(default)]
    pub back_off: BackOff,
    /// How many starts in which time are a crash loop.
    #[serde(default)]
    pub start_limit: StartLimit,
    /// Exit codes, besides 0, that count as success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub success_exit_codes: Vec<u8>,
    /// How it is asked to end.
    #[serde(default)]
    pub stop: StopSpec,
    /// Ports: a number, or `auto` for a free one. Each is passed as `PORT_<NAME>`; one named `http`, or the
    /// only one, also as `PORT`. With several instances a fixed port is shared by no two: use `auto`, or
    /// `{number: 8080, held: true}` for one on which Alicia listens and which all instances inherit
    /// (`LISTEN_FDS`, in the order of the names).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<ServiceName, Port>,
    /// Further bus topics that it may use.
    #[serde(default, skip_serializing_if = "Allow::is_empty")]
    pub allow: Allow,
    /// Groups: `alicia up GROUP` and `alicia stop GROUP` act on all services of a group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ServiceName>,
    /// Profiles: a service with profiles starts only when one of them is asked for (`alicia up --profile
    /// dev`), or when it is named or needed by one that starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<ServiceName>,
    /// What it is: `service`, `agent` or `tool`. Default: what its program says, else `service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<crate::discovery::Kind>,
    /// The version of its program (semver). Default: what the program says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it can do, for programs that do not register it themselves: found by `alicia resolve`, carried out
    /// by `alicia call` through a command of that name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<CapabilitySpec>,
    /// Labels, free to choose; shown and searchable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where its output goes and how much is kept.
    #[serde(default)]
    pub log: LogSpec,
    /// What one instance may use of the machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: ResourceLimits,
    /// What an instance may do on the machine. `{}` is the default profile; without it, whatever its user may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxSpec>,
    /// Whether it says by `sd_notify(3)` that it is ready, alive and what it does: `true`, or
    /// `{watchdog: 10s}`.
    #[serde(default, skip_serializing_if = "NotifySpec::is_off")]
    pub notify: NotifySpec,
    /// Health checks beside the process itself; they raise alerts but restart nothing (`liveness` does).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: BTreeMap<ServiceName, Probe>,
    /// Alerts when the service's heartbeat on the bus stops for this long. Only for services that send one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_timeout: Option<Period>,
    /// What follows the end of an instance, by why it ended.
    #[serde(default, skip_serializing_if = "OnExit::is_default")]
    pub on_exit: OnExit,
    /// Looks whether an agent gets on with its work, and does something about one that does not: pauses, restarts,
    /// kills it, or asks. To be told only, see `agent`; both may be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What it may use up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// What the end of one instance means for the others of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervision: Option<Supervision>,
    /// For programs that go on where they were: a directory that stays, and word that it is a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// How running instances are brought to new settings. Default: stopped and started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateSpec>,
    /// Lets the number of instances follow the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingSpec>,
    /// Runs only while somebody is connected to a held port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<OnDemandSpec>,
    /// What it promises: availability and latency over a window, with alerts while the promise is being broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<Slo>,
    /// Limits of an agent's work: progress, loops, tool errors, tokens, cost. They raise alerts and touch nothing; what
    /// is done about an agent that does not get on says `progress`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentLimits>,
}

fn one() -> u32 {
    1
}

fn start_timeout() -> Period {
    Period::from_secs(60)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl ServiceSpec {
    /// A service with this command and a default for all else.
    #[must_use]
    pub fn new(command: Vec<String>) -> Self {
        serde_json::from_value(serde_json::json!({ "command": command }))
            .expect("every other field has a default")
    }
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Command {
    /// `python3 -u api.py`: split at spaces; quotes and backslashes as in a shell.
    Text(String),
    /// `[python3, -u, api.py]`: taken as it is.
    List(#[schemars(length(min = 1))] Vec<String>),
}

impl Default for Command {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Command {
    /// Whether there are no words; only a service in a container may do without.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::List(words) => words.is_empty(),
        }
    }
}

/// A text, number or truth value of an environment variable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// `text`
    Text(String),
    /// `1883`
    Whole(i64),
    /// `0.5`
    Real(f64),
    /// `true`
    Truth(bool),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Whole(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
            Self::Truth(truth) => truth.fmt(f),
        }
    }
}

/// The condition of a dependency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Its process runs.
    Started,
    /// Every instance is ready.
    #[default]
    Healthy,
    /// It ran and ended with success.
    Completed,
}

/// What a service needs, by service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Dependencies(pub BTreeMap<ServiceName, Condition>);

impl Dependencies {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Dependencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = match Value::deserialize(deserializer)? {
            Value::Array(names) => names
                .into_iter()
                .map(|name| serde_json::from_value(name).map(|name| (name, Condition::default())))
                .collect::<Result<_, _>>(),
            other => serde_json::from_value(other),
        };
        map.map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Dependencies {
    fn schema_name() -> Cow<'static, str> {
        "Dependencies".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<ServiceName>();
        let condition = generator.subschema_for::<Condition>();
        json_schema!({
            "anyOf": [
                { "type": "array", "items": name },
                { "type": "object", "additionalProperties": condition },
            ]
        })
    }
}

/// When an instance that ended by itself is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// However it ended.
    #[default]
    Always,
    /// When it ended by a signal or with an exit code that is not a success.
    OnFailure,
    /// Not at all.
    Never,
}

/// The waits between restarts. The first restart after a quiet time is immediate; each further one waits
/// longer, by a factor, up to a maximum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackOff {
    /// The wait before the second restart.
    pub initial: Period,
    /// The longest wait.
    pub max: Period,
    /// By how much each wait is longer than the one before. 1 to 10.
    #[schemars(range(min = 1.0, max = 10.0))]
    pub factor: f64,
    /// The part of each wait that is random, so that a fleet does not restart in step. 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub jitter: f64,
    /// An instance that ran this long starts from a clean slate.
    pub reset_after: Period,
}

impl Default for BackOff {
    fn default() -> Self {
        Self {
            initial: Period::from_millis(200),
            max: Period::from_secs(30),
            factor: 2.0,
            jitter: 0.2,
            reset_after: Period::from_secs(30),
        }
    }
}

/// More starts than this are a crash loop: the instance is `failed`, an alert is raised, and it is tried
/// again slowly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StartLimit {
    /// The number of starts. 0: no limit.
    pub starts: u32,
    /// The time in which they are counted.
    pub within: Period,
    /// How often one that is `failed` is tried again.
    pub retry_every: Period,
    /// Whether one that is `failed` stays so until a person starts it.
    pub give_up: bool,
}

impl Default for StartLimit {
    fn default() -> Self {
        Self {
            starts: 6,
            within: Period::from_secs(60),
            retry_every: Period::from_secs(300),
            give_up: false,
        }
    }
}

/// How an instance is asked to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StopSpec {
    /// The signal that asks.
    pub signal: StopSignal,
    /// How long it may take; then the whole process tree is killed.
    pub grace: Period,
}

impl Default for StopSpec {
    fn default() -> Self {
        Self {
            signal: StopSignal::Sigterm,
            grace: Period::from_secs(10),
        }
    }
}

/// A signal that asks a program to end or to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum StopSignal {
    /// 15, the usual request to end.
    Sigterm,
    /// 2, as Control-C sends it.
    Sigint,
    /// 3.
    Sigquit,
    /// 1.
    Sighup,
    /// 10.
    Sigusr1,
    /// 12.
    Sigusr2,
    /// 28, which nginx and Apache take as a request to end gracefully.
    Sigwinch,
    /// 9, at once.
    Sigkill,
}

impl StopSignal {
    /// The number on Linux.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Sighup => 1,
            Self::Sigint => 2,
            Self::Sigquit => 3,
            Self::Sigkill => 9,
            Self::Sigusr1 => 10,
            Self::Sigusr2 => 12,
            Self::Sigterm => 15,
            Self::Sigwinch => 28,
        }
    }
}

/// A port of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Port {
    /// A free port, chosen at each start.
    Auto,
    /// This one.
    Fixed(u16),
    /// One on which Alicia listens on behalf of the service: it is bound as long as the service is in the file,
    /// and every instance inherits the socket. Without a number a free one is chosen once.
    Held(Option<u16>),
}

/// A held port as it is written in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldPort {
    number: Value,
    held: bool,
}

impl Serialize for Port {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Fixed(number) => serializer.serialize_u16(*number),
            Self::Held(number) => HeldPort {
                number: number.map_or_else(|| "auto".into(), Value::from),
                held: true,
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let plain = |value: &Value| {
            let number = value
                .as_u64()
                .and_then(|n| u16::try_from(n).ok())
                .filter(|n| *n > 0);
            match (value.as_str(), number) {
                (Some("auto"), _) => Some(Self::Auto),
                (_, Some(number)) => Some(Self::Fixed(number)),
                _ => None,
            }
        };
        let found = match serde_json::from_value::<HeldPort>(value.clone()) {
            Ok(HeldPort { number, held }) => match (plain(&number), held) {
                (Some(Self::Auto), true) => Some(Self::Held(None)),
                (Some(Self::Fixed(number)), true) => Some(Self::Held(Some(number))),
                (port, _) => port,
            },
            Err(_) => plain(&value),
        };
        found.ok_or_else(|| {
            serde::de::Error::custom(format!(
                "found {value}, expected `auto`, a port from 1 to 65535, or `{{number: 8080, held: true}}`"
            ))
        })
    }
}

impl JsonSchema for Port {
    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "const": "auto" },
                { "type": "integer", "minimum": 1, "maximum": 65535 },
                {
                    "type": "object",
                    "properties": {
                        "number": { "anyOf": [
                            { "const": "auto" },
                            { "type": "integer", "minimum": 1, "maximum": 65535 },
                        ] },
                        "held": { "type": "boolean" },
                    },
                    "required": ["number", "held"],
                    "additionalProperties": false,
                },
            ]
        })
    }
}

/// Bus topics beyond those that every service has. `{prefix}` is not written: `rooms/+/temperature` means
/// `alicia/rooms/+/temperature`. A topic that starts with `/` is taken from the root, without the prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// Topics or filters that it may publish to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// Filters that it may subscribe to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscribe: Vec<String>,
    /// Services whose command topic it may publish to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<ServiceName>,
}

impl Allow {
    /// Whether nothing is added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.publish.is_empty() && self.subscribe.is_empty() && self.command.is_empty()
    }
}

/// Output of a service: one file per instance slot, rotated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSpec {
    /// A file is rotated at this size.
    pub max_size: ByteSize,
    /// How many rotated files are kept per instance slot. 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub max_files: u32,
    /// A rotated file older than this is deleted.
    pub max_age: Period,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self {
            max_size: ByteSize::mib(10),
            max_files: 50,
            max_age: Period::from_secs(30 * 86_400),
        }
    }
}
