//! What can go wrong, for both sides of the socket.

use std::io;
use std::path::PathBuf;

use crate::protocol::Failure;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong. Reads after "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another keeper holds the directory.
    #[error("lock {}: another keeper runs there", directory.display())]
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory cannot be used.
    #[error("prepare {}", path.display())]
    Directory {
        /// The directory or the file in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A system call that the keeper cannot do without.
    #[error("{operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The state that the program before the upgrade left is not readable.
    #[error("read the state of the keeper before the upgrade: {0}")]
    Resume(String),
    /// No keeper listens there.
    #[error("connect to the keeper in {}: none runs there", directory.display())]
    NotRunning {
        /// The directory.
        directory: PathBuf,
    },
    /// The keeper could not be started.
    #[error("start the keeper with {program}: {reason}")]
    NotStarted {
        /// What was executed.
        program: String,
        /// What it said, or the system.
        reason: String,
    },
    /// The connection to the keeper is closed.
    #[error("talk to the keeper: the connection is closed")]
    Closed,
    /// The keeper did not answer in time.
    #[error("get an answer from the keeper within {0:?}")]
    TimedOut(std::time::Duration),
    /// The keeper refused, or what it did failed.
    #[error("have the keeper do that: {0}")]
    Refused(#[from] Failure),
    /// What came is no message of this protocol.
    #[error("understand the keeper: {0}")]
    Protocol(String),
}

impl Error {
    /// The keeper's failure, if this is one.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Refused(failure) => Some(failure),
            _ => None,
        }
    }

    pub(crate) fn system(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { operation, source }
    }
}
