//! Probes: how one looks whether a service is ready, alive or well.

mod machine;
mod network;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::unit::Period;

pub use machine::{DiskCheck, GpuCheck, ProcessCheck};
pub use network::{
    DnsCheck, DnsType, GrpcCheck, JsonLimits, JsonTest, LlmCheck, MqttCheck, TlsCheck,
};

/// One probe: exactly one kind (`http`, `tcp`, `mqtt`, `grpc`, `dns`, `llm`, `exec`, `process`, `disk`, `gpu`,
/// `log_line`), and how often it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// GET a page over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// Open a TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// Send a message through an MQTT broker and wait until it comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<MqttCheck>,
    /// Ask a gRPC server for its health (`grpc.health.v1`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// Look a name up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsCheck>,
    /// Ask a language model for one token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm: Option<LlmCheck>,
    /// Run a program; exit code 0 is success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecCheck>,
    /// Look at the service's own process and all that it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessCheck>,
    /// Look at the room on a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskCheck>,
    /// Look at the NVIDIA graphics processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuCheck>,
    /// Wait for a line of output. Readiness only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_line: Option<LogLineCheck>,
    /// Wait until it says `READY=1` on its `NOTIFY_SOCKET` (`sd_notify(3)`). Readiness only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// It must say `WATCHDOG=1` on its `NOTIFY_SOCKET` at least this often; it is told so by
    /// `WATCHDOG_USEC`. Liveness only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Period>,
    /// The time from one try to the next. 100 ms or more.
    #[serde(default = "interval")]
    pub interval: Period,
    /// How long one try may take.
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// How long after the start of the process the first try is made.
    #[serde(default)]
    pub delay: Period,
    /// How many successes in a row turn it good. 1 to 100.
    #[serde(default = "rise")]
    #[schemars(range(min = 1, max = 100))]
    pub rise: u32,
    /// How many failures in a row turn it bad. 1 to 100.
    #[serde(default = "fall")]
    #[schemars(range(min = 1, max = 100))]
    pub fall: u32,
}

fn interval() -> Period {
    Period::from_secs(1)
}

fn timeout() -> Period {
    Period::from_secs(2)
}

fn rise() -> u32 {
    1
}

fn fall() -> u32 {
    3
}

/// The shortest allowed interval of a probe.
pub const PROBE_INTERVAL_MIN: Period = Period::from_millis(100);

/// The one kind that a probe has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ProbeKind<'p> {
    /// See [`HttpCheck`].
    Http(&'p HttpCheck),
    /// See [`TcpCheck`].
    Tcp(&'p TcpCheck),
    /// See [`MqttCheck`].
    Mqtt(&'p MqttCheck),
    /// See [`GrpcCheck`].
    Grpc(&'p GrpcCheck),
    /// See [`DnsCheck`].
    Dns(&'p DnsCheck),
    /// See [`LlmCheck`].
    Llm(&'p LlmCheck),
    /// See [`ExecCheck`].
    Exec(&'p ExecCheck),
    /// See [`ProcessCheck`].
    Process(&'p ProcessCheck),
    /// See [`DiskCheck`].
    Disk(&'p DiskCheck),
    /// See [`GpuCheck`].
    Gpu(&'p GpuCheck),
    /// See [`LogLineCheck`].
    LogLine(&'p LogLineCheck),
}

impl ProbeKind<'_> {
    /// The names of all kinds, as in the file.
    pub const NAMES: [&'static str; 11] = [
        "http", "tcp", "mqtt", "grpc", "dns", "llm", "exec", "process", "disk", "gpu", "log_line",
    ];

    /// The name of the kind, as in the file.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
            Self::Mqtt(_) => "mqtt",
            Self::Grpc(_) => "grpc",
            Self::Dns(_) => "dns",
            Self::Llm(_) => "llm",
            Self::Exec(_) => "exec",
            Self::Process(_) => "process",
            Self::Disk(_) => "disk",
            Self::Gpu(_) => "gpu",
            Self::LogLine(_) => "log_line",
        }
    }

    /// Whether a try of it reads the environment of the service: its variables, and where its token lies.
    #[must_use]
    pub const fn needs_environment(&self) -> bool {
        matches!(self, Self::Exec(_) | Self::Mqtt(_) | Self::Llm(_))
    }
}

impl Probe {
    /// Every kind that is given, in the order of [`ProbeKind::NAMES`].
    pub fn kinds(&self) -> impl Iterator<Item = ProbeKind<'_>> {
        [
            self.http.as_ref().map(ProbeKind::Http),
            self.tcp.as_ref().map(ProbeKind::Tcp),
            self.mqtt.as_ref().map(ProbeKind::Mqtt),
            self.grpc.as_ref().map(ProbeKind::Grpc),
            self.dns.as_ref().map(ProbeKind::Dns),
            self.llm.as_ref().map(ProbeKind::Llm),
            self.exec.as_ref().map(ProbeKind::Exec),
            self.process.as_ref().map(ProbeKind::Process),
            self.disk.as_ref().map(ProbeKind::Disk),
            self.gpu.as_ref().map(ProbeKind::Gpu),
            self.log_line.as_ref().map(ProbeKind::LogLine),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether nothing is tried: the program itself tells, by `sd_notify(3)`. Such a probe has no kind.
    #[must_use]
    pub const fn is_told(&self) -> bool {
        self.notify || self.watchdog.is_some()
    }

    /// The kind of the probe; `None` unless exactly one is given.
    #[must_use]
    pub fn kind(&self) -> Option<ProbeKind<'_>> {
        let mut kinds = self.kinds();
        let kind = kinds.next()?;
        kinds.next().is_none().then_some(kind)
    }
}

/// GET `http://<host>:<port><path>`, or `https://` with `tls`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// The host; this machine unless given.
    #[serde(default = "loopback")]
    pub host: String,
    /// The port. Default: the service's port named `http`, or its only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The path.
    #[serde(default = "root")]
    pub path: String,
    /// The status codes that are good. Default: 200 to 399.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
    /// A text that the body must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
    /// A regular expression that must match somewhere in the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_matches: Option<String>,
    /// Values in a body of JSON, by JSON pointer: `/status: ok`, `/queue/length: {max: 100}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub json: BTreeMap<String, JsonTest>,
    /// Headers to send, for example `Accept: application/json`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Headers that the answer must have, and a text that each must contain: `content-type: json`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answer_headers: BTreeMap<String, String>,
    /// A good answer that takes longer than this is bad all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_max: Option<Period>,
    /// Speak TLS. `{}`: with the certificates that this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsCheck>,
}

fn loopback() -> String {
    "127.0.0.1".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

/// Connect to `<host>:<port>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    /// The host; this machine unless given.
    #[serde(default = "loopback")]
    pub host: String,
    /// The port. Default: the service's port named `http`, or its only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Shake hands over TLS, too. `{}`: with the certificates that this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsCheck>,
    /// A connection that takes longer than this is bad all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_max: Option<Period>,
}

/// Run a program in the service's directory and environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecCheck {
    /// The program and its arguments, as in a service.
    pub command: super::Command,
}

/// A line of output that contains a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLineCheck {
    /// The text that the line contains.
    #[schemars(length(min = 1))]
    pub contains: String,
}
