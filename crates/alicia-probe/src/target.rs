//! What a probe looks at, with everything filled in that the service decides: port, directory, environment.

use std::path::Path;
use std::time::Duration;

use alicia_contract::Period;
use alicia_contract::fleet::{Command, Probe, ProbeKind, TlsCheck};

use crate::connect::{Place, TcpTarget};
use crate::disk::DiskTarget;
use crate::dns::DnsTarget;
use crate::exec::ExecTarget;
use crate::gpu::GpuTarget;
use crate::grpc::GrpcTarget;
use crate::http::HttpTarget;
use crate::llm::LlmTarget;
use crate::mqtt::MqttTarget;
use crate::process::ProcessTarget;
use crate::tls::Tls;

/// Why a probe cannot be tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It has no kind, or several.
    #[error("resolve the probe: expected exactly one kind, such as `http`, `tcp` or `exec`")]
    Kind,
    /// A line of output is waited for by whoever reads the output.
    #[error("resolve the probe: a line of output is not looked for by trying")]
    LogLine,
    /// It names no port, and the service has none that it could mean.
    #[error(
        "resolve the probe: it has no port, and the service has none named `http` and not exactly one"
    )]
    Port,
    /// The path cannot be sent.
    #[error("resolve the probe: {0:?} is no path of HTTP")]
    Path(String),
    /// The command is empty or has an open quote.
    #[error("resolve the probe: split the command {0:?}")]
    Command(String),
    /// A regular expression cannot be read.
    #[error("resolve the probe: {0:?} is no regular expression")]
    Pattern(String),
    /// A header cannot be sent.
    #[error("resolve the probe: the header {0:?} cannot be sent")]
    Header(String),
    /// No certificate can be for this name.
    #[error("resolve the probe: no certificate can be for {0:?}")]
    ServerName(String),
    /// There is no bus that a probe without a host could mean.
    #[error("resolve the probe: it names no broker, and the service has no bus")]
    Bus,
    /// It looks at a process, and there is none.
    #[error("resolve the probe: the number of the process is not known")]
    Process,
    /// The name server is no address.
    #[error("resolve the probe: {0:?} is no address of a name server")]
    NameServer(String),
    /// The name cannot be asked for.
    #[error("resolve the probe: {0:?} is no name of DNS")]
    Name(String),
    /// The variable with the key is not set.
    #[error("resolve the probe: the service has no variable {0:?}")]
    Variable(String),
}

/// What a service decides for its probes.
#[derive(Debug, Clone, Copy)]
pub struct Context<'c> {
    /// The port of a probe that names none.
    pub port: Option<u16>,
    /// The number of its process, when there is one.
    pub pid: Option<u32>,
    /// The working directory of a program, and where relative paths begin.
    pub directory: &'c Path,
    /// The whole environment of a program; nothing is inherited.
    pub environment: &'c [(String, String)],
}

/// What is looked at.
#[derive(Debug, Clone)]
pub enum Target {
    /// GET a page.
    Http(Box<HttpTarget>),
    /// Open a connection.
    Tcp(TcpTarget),
    /// Send a message through a broker.
    Mqtt(Box<MqttTarget>),
    /// Ask a gRPC server.
    Grpc(Box<GrpcTarget>),
    /// Look a name up.
    Dns(DnsTarget),
    /// Ask a language model.
    Llm(Box<LlmTarget>),
    /// Run a program.
    Exec(ExecTarget),
    /// Look at a process.
    Process(ProcessTarget),
    /// Look at a disk.
    Disk(DiskTarget),
    /// Look at graphics processors.
    Gpu(GpuTarget),
}

// === impl Target ===

impl Target {
    /// What a probe looks at, in the context of its service.
    ///
    /// # Errors
    /// When something is missing that a try needs.
    pub fn resolve(probe: &Probe, context: &Context<'_>) -> Result<Self, TargetError> {
        Ok(match probe.kind().ok_or(TargetError::Kind)? {
            ProbeKind::LogLine(_) => return Err(TargetError::LogLine),
            ProbeKind::Http(check) => Self::Http(Box::new(HttpTarget::new(check, context)?)),
            ProbeKind::Tcp(check) => Self::Tcp(TcpTarget {
                place: context.place(&check.host, check.port, check.tls.as_ref())?,
                latency_max: limit(check.latency_max),
            }),
            ProbeKind::Mqtt(check) => Self::Mqtt(Box::new(MqttTarget::new(check, context)?)),
            ProbeKind::Grpc(check) => Self::Grpc(Box::new(GrpcTarget::new(check, context)?)),
            ProbeKind::Dns(check) => Self::Dns(DnsTarget::new(check)?),
            ProbeKind::Llm(check) => Self::Llm(Box::new(LlmTarget::new(check, context)?)),
            ProbeKind::Exec(check) => Self::Exec(ExecTarget {
                words: words(&check.command)?,
                directory: context.directory.to_owned(),
                environment: context.environment.to_vec(),
            }),
            ProbeKind::Process(check) => {
                let pid = context.pid.ok_or(TargetError::Process)?;
                Self::Process(ProcessTarget::new(check, pid))
            }
            ProbeKind::Disk(check) => Self::Disk(DiskTarget::new(check, context.directory)),
            ProbeKind::Gpu(check) => Self::Gpu(GpuTarget::new(check)),
        })
    }

    /// A good answer of the whole try that takes longer is bad.
    pub(crate) fn latency_max(&self) -> Option<Duration> {
        match self {
            Self::Http(target) => target.latency_max,
            Self::Tcp(target) => target.latency_max,
            Self::Grpc(target) => target.latency_max,
            Self::Dns(target) => target.latency_max,
            Self::Llm(target) => target.latency_max,
            // Of a broker, the round trip counts and not the connection.
            Self::Mqtt(_) => None,
            Self::Exec(_) | Self::Process(_) | Self::Disk(_) | Self::Gpu(_) => None,
        }
    }
}

// === impl Context ===

impl Context<'_> {
    pub(crate) fn place(
        &self,
        host: &str,
        port: Option<u16>,
        tls: Option<&TlsCheck>,
    ) -> Result<Place, TargetError> {
        let host = bare(host);
        Ok(Place {
            port: port.or(self.port).ok_or(TargetError::Port)?,
            tls: tls
                .map(|tls| Tls::new(tls, &host, self.directory))
                .transpose()?,
            host,
        })
    }

    /// A variable of the service's environment.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

pub(crate) fn limit(period: Option<Period>) -> Option<Duration> {
    period.map(Period::duration)
}

/// `::1` of `[::1]`.
fn bare(host: &str) -> String {
    let inside = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inside.unwrap_or(host).to_owned()
}

fn words(command: &Command) -> Result<Vec<String>, TargetError> {
    let (words, text) = match command {
        Command::List(words) => (Ok(words.clone()), words.join(" ")),
        Command::Text(text) => (shell_words::split(text), text.clone()),
    };
    match words {
        Ok(words) if words.first().is_some_and(|program| !program.is_empty()) => Ok(words),
        _ => Err(TargetError::Command(text)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolve(probe: serde_json::Value, port: Option<u16>) -> Result<Target, TargetError> {
        let probe: Probe = serde_json::from_value(probe).expect("a probe");
        let context = Context {
            port,
            pid: None,
            directory: Path::new("/srv"),
            environment: &[],
        };
        Target::resolve(&probe, &context)
    }

    #[test]
    fn the_own_port_wins_over_that_of_the_service() {
        let port = |probe, port| match resolve(probe, port) {
            Ok(Target::Tcp(target)) => Ok(target.place.port),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        };
        assert_eq!(port(json!({"tcp": {"port": 1}}), Some(2)), Ok(1));
        assert_eq!(port(json!({"tcp": {}}), Some(2)), Ok(2));
        assert_eq!(port(json!({"tcp": {}}), None), Err(TargetError::Port));
    }

    #[test]
    fn what_cannot_be_tried_is_refused() {
        let error = |probe| resolve(probe, Some(80)).expect_err("it cannot be tried");
        assert_eq!(error(json!({})), TargetError::Kind);
        assert_eq!(error(json!({"tcp": {}, "http": {}})), TargetError::Kind);
        assert_eq!(
            error(json!({"log_line": {"contains": "up"}})),
            TargetError::LogLine
        );
        for path in ["health", "http://a/", "/a b", ""] {
            let expected = TargetError::Path(path.to_owned());
            assert_eq!(error(json!({"http": {"path": path}})), expected);
        }
        for command in ["", "a \"b"] {
            let expected = TargetError::Command(command.to_owned());
            assert_eq!(error(json!({"exec": {"command": command}})), expected);
        }
        assert_eq!(
            error(json!({"http": {"body_matches": "("}})),
            TargetError::Pattern("(".to_owned())
        );
        assert_eq!(
            error(json!({"http": {"headers": {"a b": "c"}}})),
            TargetError::Header("a b".to_owned())
        );
        assert_eq!(error(json!({"mqtt": {}})), TargetError::Bus);
        assert_eq!(error(json!({"process": {}})), TargetError::Process);
        assert_eq!(
            error(json!({"dns": {"name": "a", "server": "b"}})),
            TargetError::NameServer("b".to_owned())
        );
        assert_eq!(
            error(json!({"dns": {"name": "a..b"}})),
            TargetError::Name("a..b".to_owned())
        );
        assert_eq!(
            error(json!({"llm": {"model": "m", "key_variable": "KEY"}})),
            TargetError::Variable("KEY".to_owned())
        );
        assert_eq!(
            error(json!({"tcp": {"tls": {"server_name": "a b"}}})),
            TargetError::ServerName("a b".to_owned())
        );
    }
}
