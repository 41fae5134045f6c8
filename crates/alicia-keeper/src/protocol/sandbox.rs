//! What an instance may do on the machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What an instance may do, enforced by the kernel from before its program is executed, for all that it
/// starts, and never taken back. What cannot be enforced is a refusal of the start, unless `best_effort` is
/// set; then it is named in [`InstanceInfo::limits`](super::InstanceInfo::limits).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    /// `PR_SET_NO_NEW_PRIVS`. The kernel wants it for everything else here.
    pub no_new_privileges: bool,
    /// Which files. Without: everything but the kernel's own (`/proc`, `/sys`, `/boot`: reading only) and
    /// devices other than terminals, shared memory, graphics and `/dev/null` with its like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<FileAccess>,
    /// Paths inside of what is allowed that cannot be opened, made or removed all the same (names can be
    /// listed). Absolute, and must exist. What lies beside them is allowed one by one as it is at the start: nothing new can be made in
    /// the directories above them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<PathBuf>,
    /// What it was given, and may use although it is hidden.
    #[serde(skip_serializing_if = "OwnFiles::is_empty")]
    pub own: OwnFiles,
    /// Which TCP ports. Without: no restriction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkAccess>,
    /// No signals and no abstract Unix sockets to processes outside of the instance.
    pub scoped: bool,
    /// Refuses system calls that agents have no use for.
    pub filter_system_calls: bool,
    /// Capabilities that it keeps, by name without `CAP_`, in lower case; all others are given up.
    pub capabilities: Vec<String>,
    /// Start also where not all of this can be enforced.
    pub best_effort: bool,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            no_new_privileges: true,
            files: None,
            hidden: Vec::new(),
            own: OwnFiles::default(),
            network: None,
            scoped: true,
            filter_system_calls: true,
            capabilities: Vec::new(),
            best_effort: false,
        }
    }
}

/// Files below these paths; nothing else can be opened, made or removed. Paths are absolute and must exist.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileAccess {
    /// May be read and executed. `None`: everything may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<Vec<PathBuf>>,
    /// May be read, written, made and removed.
    pub writable: Vec<PathBuf>,
    /// Adds the directories of the system to `read_only`, so that programs start: `/usr`, `/etc`, `/proc`, ….
    pub with_system: bool,
}

/// Files of the instance's own, wherever they lie. Paths are absolute and must exist.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnFiles {
    /// May be read.
    pub read_only: Vec<PathBuf>,
    /// May be read, written, made and removed.
    pub writable: Vec<PathBuf>,
}

impl OwnFiles {
    fn is_empty(&self) -> bool {
        self.read_only.is_empty() && self.writable.is_empty()
    }
}

/// TCP ports of any address. What is not TCP is refused, but for Unix sockets and the route socket of the
/// kernel; a list that is empty allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkAccess {
    /// To connect to.
    pub connect: Vec<u16>,
    /// To listen on.
    pub bind: Vec<u16>,
    /// Allows UDP, to everywhere.
    pub udp: bool,
}

impl NetworkAccess {
    /// No socket of the internet protocols at all.
    pub(crate) fn is_none(&self) -> bool {
        self.connect.is_empty() && self.bind.is_empty() && !self.udp
    }
}
