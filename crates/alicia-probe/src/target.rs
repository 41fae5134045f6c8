//! What a probe looks at, with everything filled in that the service decides: port, directory, environment.

use std::path::{Path, PathBuf};

use alicia_contract::fleet::{Command, HttpCheck, Probe, ProbeKind};

/// Why a probe cannot be tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It has no kind, or several.
    #[error("resolve the probe: expected exactly one of `http`, `tcp`, `exec` or `log_line`")]
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
}

/// What a service decides for its probes.
#[derive(Debug, Clone, Copy)]
pub struct Context<'c> {
    /// The port of a probe that names none.
    pub port: Option<u16>,
    /// The working directory of a program.
    pub directory: &'c Path,
    /// The whole environment of a program; nothing is inherited.
    pub environment: &'c [(String, String)],
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// GET a page.
    Http(HttpTarget),
    /// Open a connection.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// Run a program.
    Exec {
        /// The program and its arguments; at least one.
        words: Vec<String>,
        /// The working directory.
        directory: PathBuf,
        /// The whole environment.
        environment: Vec<(String, String)>,
    },
}

/// A page and what is expected of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// A name or an address; one of IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path, with a query if there is one.
    pub path: http::uri::PathAndQuery,
    /// The statuses that are good; empty: 200 to 399.
    pub status: Vec<u16>,
    /// A text that the body must contain.
    pub body_contains: Option<String>,
}

// === impl Target ===

impl Target {
    /// What a probe looks at, in the context of its service.
    ///
    /// # Errors
    /// When something is missing that a try needs.
    pub fn resolve(probe: &Probe, context: &Context<'_>) -> Result<Self, TargetError> {
        let port = |own: Option<u16>| own.or(context.port).ok_or(TargetError::Port);
        match probe.kind().ok_or(TargetError::Kind)? {
            ProbeKind::LogLine(_) => Err(TargetError::LogLine),
            ProbeKind::Http(check) => HttpTarget::new(check, port(check.port)?).map(Self::Http),
            ProbeKind::Tcp(check) => Ok(Self::Tcp {
                host: bare(&check.host),
                port: port(check.port)?,
            }),
            ProbeKind::Exec(check) => Ok(Self::Exec {
                words: words(&check.command)?,
                directory: context.directory.to_owned(),
                environment: context.environment.to_vec(),
            }),
        }
    }
}

impl HttpTarget {
    fn new(check: &HttpCheck, port: u16) -> Result<Self, TargetError> {
        let path = http::uri::PathAndQuery::try_from(check.path.as_str());
        let path = path.ok().filter(|_| check.path.starts_with('/'));
        Ok(Self {
            host: bare(&check.host),
            port,
            path: path.ok_or_else(|| TargetError::Path(check.path.clone()))?,
            status: check.status.clone(),
            body_contains: check.body_contains.clone(),
        })
    }
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
            directory: Path::new("/srv"),
            environment: &[],
        };
        Target::resolve(&probe, &context)
    }

    #[test]
    fn the_own_port_wins_over_that_of_the_service() {
        let port = |probe, port| match resolve(probe, port) {
            Ok(Target::Tcp { port, .. }) => Ok(port),
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
    }
}
