//! What an instance may do on the machine, beyond what its user may.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an instance may do on the machine. `sandbox: {}` is the default profile: no new privileges, no
/// capabilities, no system calls that agents have no use for, no signals and no abstract sockets to
/// processes outside. Files and network are restricted only as far as is said.
///
/// What this machine's kernel cannot enforce is an error at the start, unless `best_effort` is set.
/// `alicia doctor` tells what the kernel can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxSpec {
    /// Set-user-id programs gain nothing (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
    /// Paths that may be read and executed. Given: nothing else can be read but these, `writable`, the
    /// working directory and, unless `strict`, the directories of the system (`/usr`, `/etc`, `/proc`, …).
    /// Relative ones count from the file's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<Vec<String>>,
    /// Paths below which files may be read, written, made and removed. Given (or with `read_only`):
    /// nothing else can be written but `/dev/null` and its like, and the directory of the `session`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writable: Option<Vec<String>>,
    /// Paths inside of what is allowed that cannot be opened all the same (their names can be listed); they
    /// must exist. Nothing new can be made in the directories above them. Without lists of files, hide the data directory of
    /// Alicia from a service of the same user; its own token and the directory of its `session` stay open to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<String>,
    /// Only what is listed: the directories of the system and the working directory are not added.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    /// What it may do on the network: `all`, `none`, or lists of TCP ports.
    pub network: Network,
    /// `default` refuses system calls that agents have no use for (mount, ptrace, io_uring, bpf, new
    /// namespaces, …); `all` refuses none. A browser with a sandbox of its own needs `all`.
    pub system_calls: SystemCalls,
    /// No signals and no abstract Unix sockets to processes outside of the instance.
    pub scoped: bool,
    /// Capabilities of the kernel that it keeps, if it has them, by name: `net_bind_service`. All others
    /// are given up, also by root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Start also where the kernel cannot enforce all of this; what is missing is shown with the limits.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub best_effort: bool,
}

impl Default for SandboxSpec {
    fn default() -> Self {
        Self {
            no_new_privileges: true,
            read_only: None,
            writable: None,
            hidden: Vec::new(),
            strict: false,
            network: Network::default(),
            system_calls: SystemCalls::default(),
            scoped: true,
            capabilities: Vec::new(),
            best_effort: false,
        }
    }
}

/// What an instance may do on the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Network {
    /// `all` or `none`.
    Word(NetworkWord),
    /// TCP ports.
    Ports(NetworkPorts),
}

impl Default for Network {
    fn default() -> Self {
        Self::Word(NetworkWord::All)
    }
}

/// All or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkWord {
    /// No restriction.
    All,
    /// Nothing but Unix sockets: no bus either.
    None,
}

/// The TCP ports that an instance may use, of whatever address. Its own `ports` and those of the bus and of
/// REST are always allowed. Everything else that is not TCP is refused, unless `udp` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkPorts {
    /// Ports that it may connect to.
    pub connect: Vec<u16>,
    /// Ports that it may listen on.
    pub bind: Vec<u16>,
    /// Allows UDP to everywhere; names are usually resolved by it.
    pub udp: bool,
}

/// Which system calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SystemCalls {
    /// All but those that agents have no use for.
    #[default]
    Default,
    /// All.
    All,
}
