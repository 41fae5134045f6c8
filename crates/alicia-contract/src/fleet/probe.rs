//! Probes: how one looks whether a service is ready, alive or well.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::unit::Period;

/// One probe: exactly one of `http`, `tcp`, `exec`, `log_line`, and how often it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// GET a page over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// Open a TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// Run a program; exit code 0 is success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecCheck>,
    /// Wait for a line of output. Readiness only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_line: Option<LogLineCheck>,
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
    /// See [`ExecCheck`].
    Exec(&'p ExecCheck),
    /// See [`LogLineCheck`].
    LogLine(&'p LogLineCheck),
}

impl Probe {
    /// The kind of the probe; `None` unless exactly one is given.
    #[must_use]
    pub fn kind(&self) -> Option<ProbeKind<'_>> {
        let mut kinds = [
            self.http.as_ref().map(ProbeKind::Http),
            self.tcp.as_ref().map(ProbeKind::Tcp),
            self.exec.as_ref().map(ProbeKind::Exec),
            self.log_line.as_ref().map(ProbeKind::LogLine),
        ]
        .into_iter()
        .flatten();
        let kind = kinds.next()?;
        kinds.next().is_none().then_some(kind)
    }
}

/// GET `http://<host>:<port><path>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
}

fn loopback() -> String {
    "127.0.0.1".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

/// Connect to `<host>:<port>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    /// The host; this machine unless given.
    #[serde(default = "loopback")]
    pub host: String,
    /// The port. Default: the service's port named `http`, or its only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
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
