//! What the keeper knows of an instance, a listener and itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LimitState, Version};

/// One instance: a run of a program with everything that it started.
///
/// ```text
/// start ──► running ──stop──► stopping
///              │                 │        leader ends: `exit` is set, `Exited`
///              └────► exited ◄───┘        tree is empty: `empty` is set, `Emptied`, `Stopped`
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceInfo {
    /// The name that the host gave.
    pub instance: String,
    /// Number of this run, unique and rising in a keeper's directory.
    pub run: u64,
    /// What the host gave.
    #[serde(default)]
    pub labels: Value,
    /// Process id of the leader.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: with the pid it names a process for good (until reboot).
    #[serde(default)]
    pub start_ticks: u64,
    /// Wall clock, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Where it is in its life.
    pub state: InstanceState,
    /// How the leader ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// No process of it is left.
    #[serde(default)]
    pub empty: bool,
    /// How its processes are held together.
    pub containment: Containment,
    /// Limits that were asked for and are not in force, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_enforced: Vec<String>,
    /// Every limit that was asked for, and what holds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitState>,
    /// The log file that is written now.
    pub log: PathBuf,
    /// The last that it said on its `NOTIFY_SOCKET` under each name (`READY`, `STATUS`, `X_ALICIA_…`), for
    /// hosts that were not there to hear; at most 32 names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notified: BTreeMap<String, String>,
    /// Its cgroup, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
}

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// The leader lives.
    Running,
    /// Asked to end; the leader still lives.
    Stopping,
    /// The leader has ended (others of the tree may not have: see [`InstanceInfo::empty`]).
    Exited,
}

/// How the processes of an instance are held together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Containment {
    /// A cgroup of its own: no process can leave it.
    Cgroup,
    /// Owner tag in the environment, session, output pipes and parent chain, found again by a scan of
    /// `/proc`.
    Scan,
}

/// How a leader ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// The kernel killed it for want of memory, as far as one can tell.
    #[serde(default)]
    pub out_of_memory: bool,
    /// A process of its tree was killed for want of memory, by the kernel's own count (the memory
    /// controller of cgroup version 2 or 1) or by the keeper because the tree was over its limit. True
    /// also where `out_of_memory` is.
    #[serde(default)]
    pub oom_killed: bool,
    /// Its leader was ended because it did not say `WATCHDOG=1` in time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watchdog: bool,
    /// The limit (`memory`, `processes`) for which the keeper killed its tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_limit: Option<String>,
    /// What was seen of it, in words: `140 forks were refused within a second, with 30 processes and threads
    /// allowed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_limit_why: Option<String>,
    /// The most memory that its tree used at once, in bytes, where a memory controller counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// It was asked to end by [`Request::Stop`](super::Request::Stop) or a shutdown.
    #[serde(default)]
    pub requested: bool,
    /// Wall clock, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// From start to end, in milliseconds.
    #[serde(default)]
    pub ran_ms: u64,
    /// What it used, with the children that it waited for.
    #[serde(default)]
    pub usage: Usage,
}

/// The status of an ended process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It ended by itself.
    Code(i32),
    /// It was ended by a signal.
    Signal {
        /// Number of the signal.
        signal: i32,
        /// A core was written.
        #[serde(default)]
        core: bool,
    },
    /// It was a child of a keeper that died: its status is not known.
    Lost,
}

/// Resources that a process used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in user mode, in microseconds.
    pub user_us: u64,
    /// Processor time in the kernel, in microseconds.
    pub system_us: u64,
    /// Largest resident set, in bytes.
    pub rss_bytes_max: u64,
}

/// A socket that the keeper holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerInfo {
    /// Its name.
    pub name: String,
    /// What the host asked for.
    pub requested: String,
    /// What is bound: the port is never 0.
    pub address: String,
    /// [`Event::ListenerReady`](super::Event::ListenerReady) is to come.
    #[serde(default)]
    pub is_watched: bool,
}

/// The keeper about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Its process id.
    pub pid: u32,
    /// What it speaks.
    pub protocol: Version,
    /// Resident set, in bytes.
    pub rss_bytes: u64,
    /// Wall clock of its start, in milliseconds since 1970; an upgrade does not change it.
    pub started_unix_ms: u64,
    /// Counts the keepers of its directory, from 1; an upgrade does not change it. 0: an older keeper, which
    /// does not count.
    #[serde(default)]
    pub generation: u64,
    /// Instances whose leader lives.
    pub running: u32,
    /// Instances in all, exit records included.
    pub instances: u32,
    /// Connected hosts.
    pub clients: u32,
    /// What containment new instances get.
    pub containment: Containment,
    /// Why it is not the cgroup, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containment_reason: Option<String>,
    /// Controllers of the cgroup that enforce [`Limits`](super::Limits).
    #[serde(default)]
    pub controllers: Vec<String>,
    /// Controllers of cgroup version 1 that enforce what those do not.
    #[serde(default)]
    pub controllers_1: Vec<String>,
    /// Log lines that could not be written, since the start.
    pub lines_dropped: u64,
    /// Messages on notify sockets that were not understood or came from no process of the instance.
    #[serde(default)]
    pub notifications_dropped: u64,
    /// Niceness that the keeper reached.
    #[serde(default)]
    pub nice: i32,
}
