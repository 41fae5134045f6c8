//! The Engine API of Docker, which Podman speaks too, over a Unix socket.
//!
//! Version 1.41 is asked for, that of Docker 20.10: each newer engine speaks it, and Podman 4 does.
//! Source: <https://docs.docker.com/reference/api/engine/version/v1.41/>.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The version of the API that is spoken.
const VERSION: &str = "v1.41";

/// How long an answer of the engine may take that is no stream. Removing a container takes a while on a busy disk.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// The largest answer that is read whole.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Where the sockets of engines are, by custom.
const SOCKETS: [&str; 3] = [
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/podman/podman.sock",
];

/// Why the engine did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No engine was found.
    #[error(
        "find a container engine: there is no socket at {0}; install docker or podman, or name the socket as `container.engine`"
    )]
    NoEngine(String),
    /// The address of the engine is no Unix socket.
    #[error("read the address of the engine {0:?}, expected unix:///path/to/the.sock")]
    Address(String),
    /// The socket cannot be connected to.
    #[error(
        "connect to the container engine at {path}: {source}{}",
        advice(source)
    )]
    Connect {
        /// The socket.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("talk to the container engine: {0}")]
    Talk(String),
    /// It took too long.
    #[error("hear from the container engine within {} s", ANSWER_TIME_MAX.as_secs())]
    Timeout,
    /// The engine refused.
    #[error("have the engine {what}: {message} (status {status})")]
    Refused {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What the engine said.
        message: String,
    },
}

fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "; add the user to the engine's group",
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => {
            "; start the engine, for example with `systemctl start docker`"
        }
        _ => "",
    }
}

/// A container engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    socket: PathBuf,
}

/// One request.
pub(crate) struct Ask<'a> {
    /// In words, after "have the engine".
    pub(crate) what: &'a str,
    pub(crate) method: Method,
    /// The path below the version, with its query.
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
}

// === impl Engine ===

impl Engine {
    /// The engine at a socket (`unix:///path`), else that of `$DOCKER_HOST`, else the first that is there.
    ///
    /// # Errors
    /// When the address is no Unix socket, or no socket is there.
    pub fn find(address: Option<&str>, docker_host: Option<&str>) -> Result<Self, Error> {
        if let Some(address) = address.or(docker_host).filter(|text| !text.is_empty()) {
            let path = address.strip_prefix("unix://").unwrap_or(address);
            if !path.starts_with('/') {
                return Err(Error::Address(address.to_owned()));
            }
            return Ok(Self {
                socket: path.into(),
            });
        }
        let there = SOCKETS.iter().map(Path::new).find(|path| path.exists());
        match there {
            Some(path) => Ok(Self {
                socket: path.to_owned(),
            }),
            None => Err(Error::NoEngine(SOCKETS.join(", "))),
        }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The name and version of the engine, such as `Docker 20.10.24`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn version(&self) -> Result<String, Error> {
        let version = self
            .ask(Ask::get("say its version", "/version".to_owned()))
            .await?;
        let component = version.pointer("/Components/0/Name");
        let is_podman = component
            .and_then(Value::as_str)
            .is_some_and(|name| name.starts_with("Podman"));
        let name = if is_podman { "Podman" } else { "Docker" };
        Ok(format!(
            "{name} {}",
            version["Version"]
                .as_str()
                .unwrap_or("of an unknown version")
        ))
    }

    /// Asks and reads the answer whole; `null` when it is empty.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Value, Error> {
        let answer = async {
            let (_, body) = self.send(ask).await?;
            let bytes = Limited::new(body, ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| Error::Talk(error.to_string()))?
                .to_bytes();
            Ok(serde_json::from_slice(&bytes).unwrap_or_default())
        };
        timeout(ANSWER_TIME_MAX, answer)
            .await
            .map_err(|_| Error::Timeout)?
    }

    /// Asks and gives the answer as it comes. A refusal is read whole.
    pub(crate) async fn send(&self, ask: Ask<'_>) -> Result<(StatusCode, Incoming), Error> {
        let talk = |error: hyper::Error| Error::Talk(error.to_string());
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| Error::Connect {
                path: self.socket.display().to_string(),
                source,
            })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(talk)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the answer or the sender; what goes wrong on it, the answer says"
        )]
        drop(tokio::spawn(connection));
        let body = ask.body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(ask.method)
            .uri(format!("/{VERSION}{}", ask.path))
            .header("host", "engine")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Error::Talk(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(talk)?;
        let (head, body) = response.into_parts();
        if head.status.is_success() || head.status == StatusCode::NOT_MODIFIED {
            return Ok((head.status, body));
        }
        let bytes = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let bytes = bytes.map(|body| body.to_bytes()).unwrap_or_default();
        Err(Error::Refused {
            what: ask.what.to_owned(),
            status: head.status.as_u16(),
            message: message_of(&bytes),
        })
    }
}

/// What the engine says: `{"message": …}`, or a text.
fn message_of(bytes: &[u8]) -> String {
    let json: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let message = json["message"].as_str().or(json["cause"].as_str());
    match message {
        Some(message) => message.trim().to_owned(),
        None => String::from_utf8_lossy(bytes).trim().to_owned(),
    }
}

// === impl Ask ===

impl<'a> Ask<'a> {
    pub(crate) fn get(what: &'a str, path: String) -> Self {
        Self {
            what,
            method: Method::GET,
            path,
            body: None,
        }
    }

    pub(crate) fn post(what: &'a str, path: String, body: Option<Value>) -> Self {
        Self {
            what,
            method: Method::POST,
            path,
            body,
        }
    }

    pub(crate) fn delete(what: &'a str, path: String) -> Self {
        Self {
            what,
            method: Method::DELETE,
            path,
            body: None,
        }
    }
}

impl Error {
    /// Whether the engine says that there is no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether another try may go better: the engine is not there, or is busy.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Talk(_) | Self::Timeout => true,
            Self::Refused { status, .. } => *status == 409 || *status >= 500,
            Self::NoEngine(_) | Self::Address(_) => false,
        }
    }
}

/// A value in a query, escaped (RFC 3986, section 2.1).
pub(crate) fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unix_sockets() {
        let find = |address, host| Engine::find(address, host).map(|engine| engine.socket);
        assert_eq!(
            find(Some("unix:///a.sock"), Some("unix:///b.sock")).expect("is one"),
            Path::new("/a.sock")
        );
        assert_eq!(
            find(None, Some("/b.sock")).expect("is one"),
            Path::new("/b.sock")
        );
        for wrong in ["tcp://127.0.0.1:2375", "a.sock"] {
            assert!(
                matches!(find(Some(wrong), None), Err(Error::Address(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn values_of_queries_are_escaped() {
        assert_eq!(
            escape("{\"a\":[\"b=c\"]}"),
            "%7B%22a%22%3A%5B%22b%3Dc%22%5D%7D"
        );
    }
}
