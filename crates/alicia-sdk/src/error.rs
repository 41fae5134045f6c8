//! What can go wrong, at the start of a service and in its handlers.

use std::fmt;

use alicia_bus::CallError;
use alicia_contract::Problem;

/// Why a service does not start, or why a handler failed.
#[derive(thiserror::Error)]
pub enum Error {
    /// A setting is missing.
    #[error("read {variable}: it is not set; {advice}")]
    Missing {
        /// The environment variable.
        variable: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A setting is wrong.
    #[error("read {variable}: found {found:?}, expected {expected}")]
    Invalid {
        /// The environment variable, or what the program said.
        variable: &'static str,
        /// What is there.
        found: String,
        /// What should be there.
        expected: &'static str,
    },
    /// Two commands have one name.
    #[error("add the command {0:?}: there is one of that name")]
    CommandTwice(String),
    /// The port of `/health` is not free.
    #[error("listen on 127.0.0.1:{port} for /health")]
    Listen {
        /// `PORT`.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The signals that stop the service cannot be heard.
    #[error("listen for signals")]
    Signals(#[source] std::io::Error),
    /// The bus did not take a message or a subscription.
    #[error("use the bus")]
    Bus(#[from] alicia_bus::Error),
    /// A call to another service failed.
    #[error("call another service")]
    Call(#[from] CallError),
    /// A value cannot be written or read as JSON.
    #[error("convert JSON")]
    Json(#[from] serde_json::Error),
    /// A file or socket failed.
    #[error("use a file or socket")]
    Io(#[from] std::io::Error),
    /// A handler refuses, in words for the caller.
    #[error("do what was asked: {}", .0.detail)]
    Refused(Box<Problem>),
    /// A handler failed; the log says why, the caller is told only that it failed.
    #[error("handle the message")]
    Handler(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A handler panicked.
    #[error("handle the message: the handler panicked: {0}")]
    Panicked(String),
}

impl Error {
    /// An answer of a command handler that says why not: `detail` goes to the caller. `status` is as in
    /// HTTP, 400 to 599.
    #[must_use]
    pub fn refused(status: u16, detail: impl Into<String>) -> Self {
        Self::Refused(Box::new(problem(
            status,
            "service.refused",
            "The command was refused",
            detail.into(),
        )))
    }

    /// Any other error of a handler.
    #[must_use]
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Handler(error.into())
    }

    /// The error and what caused it, in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = format!("failed to {self}");
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

/// As `main` shows it when it returns it: the whole chain, in words.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

/// A problem document of this service.
pub(crate) fn problem(status: u16, code: &str, title: &str, detail: String) -> Problem {
    Problem {
        kind: format!("/docs/errors/{code}"),
        title: title.to_owned(),
        status,
        detail,
        code: code.to_owned(),
        request_id: None,
        faults: Vec::new(),
    }
}
