//! What host and keeper say to each other over the Unix socket. Data only.
//!
//! Both sides send [`Hello`] first. Then the host sends requests, each with an id of its choice, and gets
//! exactly one reply with the same id; the keeper pushes events without an id. A message is one JSON
//! document in one frame (see [`frame`]). Fields that a reader does not know are ignored, and a new field
//! always has a default, so that old and new understand each other within one major version.

mod event;
pub mod frame;
mod instance;
mod limit;
mod sandbox;
mod spec;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use event::{Event, LogTrouble};
pub use instance::{
    Containment, Exit, ExitStatus, InstanceInfo, InstanceState, ListenerInfo, Stats, Usage,
};
pub use limit::{HeldBy, LimitState};
pub use sandbox::{FileAccess, NetworkAccess, OwnFiles, Sandbox};
pub use spec::is_name;
pub use spec::{
    Limits, LogSpec, PASSED_FIRST, PassedDirectory, PassedFile, ResourceLimit, StartSpec, StopSpec,
    Target,
};

/// The version that this build speaks.
pub const PROTOCOL: Version = Version { major: 1, minor: 2 };

/// Version of the protocol: majors must be equal, minors may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Raised when an old reader would misunderstand.
    pub major: u32,
    /// Raised when something is added that an old reader may ignore.
    pub minor: u32,
}

/// The first message of either side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What the sender speaks.
    pub protocol: Version,
    /// Program and version, for people who read logs.
    #[serde(default)]
    pub program: String,
    /// Process id of the sender.
    #[serde(default)]
    pub pid: u32,
}

/// A message of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromHost {
    /// Must be the first message.
    Hello(Hello),
    /// `[id, request]`; the request is decoded on its own, so that one which this keeper does not know
    /// is answered with its id.
    Request(u64, Value),
}

/// A message of the keeper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromKeeper {
    /// The first message.
    Hello(Hello),
    /// `[id, reply]` to the request of the same id.
    Reply(u64, Box<Reply>),
    /// `[id, failure]`: the request was refused or failed.
    Failed(u64, Failure),
    /// Something happened. Decoded on its own, so that a host skips kinds that it does not know.
    Event(Value),
    /// The last message before the keeper closes a connection because of what the host sent.
    Goodbye(Failure),
}

/// What the host can ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Everything that the keeper holds. Answer: [`Reply::Listed`].
    List,
    /// Start a process. Answer: [`Reply::Started`], after `exec` succeeded.
    Start(Box<StartSpec>),
    /// Send a signal. Answer: [`Reply::Done`].
    Signal {
        /// Whom.
        instance: String,
        /// Signal number, 1 to 64.
        signal: i32,
        /// The leader alone, or every process of the instance.
        #[serde(default)]
        target: Target,
    },
    /// Stop an instance. Answer: [`Reply::Stopped`], once no process of it is left.
    Stop(StopSpec),
    /// The exit of this run was noticed: its record may go. Answer: [`Reply::Done`].
    Forget {
        /// Whose record.
        instance: String,
        /// Which run; another one is not forgotten by mistake.
        run: u64,
    },
    /// Bind a TCP address and hold it, whoever dies. Asking again for the same name and address is
    /// answered with the listener that is there. Answer: [`Reply::Listening`].
    Listen {
        /// How `StartSpec::listeners` calls it.
        name: String,
        /// `127.0.0.1:8080`, `[::1]:0`; port 0 lets the kernel choose.
        address: String,
    },
    /// Close a held socket (instances that inherited it keep it). Answer: [`Reply::Done`].
    Unlisten {
        /// Which.
        name: String,
    },
    /// Tell once when somebody connects to a held socket while no instance that inherited it lives: now, or
    /// as soon as the last such instance has ended. Starting one takes the watch back. A watch outlives
    /// the host that asked for it; where nobody was there to hear, asking again tells again. Answer:
    /// [`Reply::Done`].
    WatchListener {
        /// Which.
        name: String,
    },
    /// Stop all instances, then end. Answer: [`Reply::ShuttingDown`] at once; the connection closes
    /// when the keeper ends.
    Shutdown {
        /// Upper limit of every instance's own grace period, in milliseconds.
        grace_ms: u64,
    },
    /// Answer: [`Reply::Stats`].
    Stats,
    /// Become another program, in place: same pid, every child, pipe, socket and connection kept. The
    /// keeper adds `--resume FD` to the arguments. Answer: [`Reply::Upgraded`], by the new program.
    Upgrade {
        /// Absolute path.
        program: String,
        /// Without the program's name.
        arguments: Vec<String>,
    },
}

/// What the keeper answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done,
    /// Everything that the keeper holds.
    Listed {
        /// In order of start.
        instances: Vec<InstanceInfo>,
        /// In order of name.
        listeners: Vec<ListenerInfo>,
    },
    /// The process runs.
    Started(InstanceInfo),
    /// No process of the instance is left.
    Stopped {
        /// How the leader ended.
        exit: Exit,
        /// How many processes had to be killed by force.
        killed: u32,
    },
    /// The address is bound.
    Listening(ListenerInfo),
    /// The keeper stops everything and ends.
    ShuttingDown {
        /// How many instances still run.
        running: u32,
    },
    /// The keeper about itself.
    Stats(Stats),
    /// The new program has taken over.
    Upgraded(Hello),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people: what was tried, what is wrong.
    pub message: String,
    /// The system's error number, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
}

/// Kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// No such file, or not found in any directory of `PATH` (the message has the `PATH`).
    ProgramNotFound,
    /// The file is there, but may not be executed, or is of no known format.
    ProgramNotExecutable,
    /// The working directory does not exist or is no directory.
    DirectoryNotFound,
    /// The working directory may not be entered.
    DirectoryNotAccessible,
    /// No such user.
    UserUnknown,
    /// No such group.
    GroupUnknown,
    /// The keeper lacks the right to do that.
    NotPermitted,
    /// The limit of processes is reached (`EAGAIN`): try again later.
    ProcessLimit,
    /// Out of memory.
    OutOfMemory,
    /// Out of file descriptors.
    TooManyFiles,
    /// The arguments and the environment are too long (`E2BIG`).
    ArgumentsTooLong,
    /// A field of the request is not valid; the message says which.
    InvalidRequest,
    /// An instance, or the record of its exit, has that name.
    InstanceExists,
    /// No instance has that name.
    InstanceUnknown,
    /// No listener has that name.
    ListenerUnknown,
    /// A listener has that name, with another address.
    ListenerExists,
    /// Another program has that address.
    AddressInUse,
    /// The address cannot be bound here.
    AddressNotAvailable,
    /// This kernel, or the keeper's rights, cannot enforce the sandbox; the message says what and why.
    SandboxNotEnforced,
    /// The log file cannot be opened.
    LogNotAvailable,
    /// The keeper does not know this request: it is older than the host.
    RequestUnknown,
    /// A limit of the keeper is reached; the message says which.
    LimitReached,
    /// The keeper is shutting down.
    ShuttingDown,
    /// The other program could not be executed; the keeper goes on as it is.
    UpgradeFailed,
    /// The two sides speak different major versions.
    ProtocolMismatch,
    /// What was sent is no message of this protocol.
    ProtocolViolation,
    /// Another fault of the system; see the message and `errno`.
    System,
    /// A code that this build does not know.
    #[serde(other)]
    Other,
}

impl Hello {
    /// This program's greeting.
    pub(crate) fn own() -> Self {
        Self {
            protocol: PROTOCOL,
            program: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
            pid: std::process::id(),
        }
    }

    /// Whether the sender can be understood.
    ///
    /// # Errors
    /// [`FailureCode::ProtocolMismatch`], with both versions in the message.
    pub fn check(&self) -> Result<(), Failure> {
        if self.protocol.major == PROTOCOL.major {
            return Ok(());
        }
        Err(Failure::new(
            FailureCode::ProtocolMismatch,
            format!(
                "{} speaks version {} of the keeper's protocol, this side speaks version {}",
                self.program, self.protocol.major, PROTOCOL.major
            ),
        ))
    }
}

impl Failure {
    /// A failure without an error number.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            errno: None,
        }
    }
}

impl Failure {
    /// A failure of a system call; the code follows from the error number.
    pub(crate) fn system(message: impl Into<String>, error: &std::io::Error) -> Self {
        let errno = error.raw_os_error();
        let code = match errno {
            Some(libc::EAGAIN) => FailureCode::ProcessLimit,
            Some(libc::ENOMEM) => FailureCode::OutOfMemory,
            Some(libc::EMFILE | libc::ENFILE) => FailureCode::TooManyFiles,
            Some(libc::EPERM | libc::EACCES) => FailureCode::NotPermitted,
            Some(libc::EADDRINUSE) => FailureCode::AddressInUse,
            Some(libc::EADDRNOTAVAIL) => FailureCode::AddressNotAvailable,
            Some(libc::E2BIG) => FailureCode::ArgumentsTooLong,
            _ => FailureCode::System,
        };
        Self {
            code,
            message: message.into(),
            errno,
        }
    }
}
