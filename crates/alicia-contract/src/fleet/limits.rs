//! What one instance may use of the machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::unit::ByteSize;

/// The most lines that an instance without a limit of its own may write to its log in a second. A program
/// that says this much is not read by anybody, and would fill a disk in minutes.
pub const LOG_LINES_PER_SECOND_DEFAULT: u32 = 10_000;

/// The least memory that a limit may grant: below this no program starts.
pub const MEMORY_LIMIT_MIN: ByteSize = ByteSize::mib(4);

/// What one instance, with all that it starts, may use of the machine. What holds each limit on this
/// machine (cgroup version 2 or 1, limits of single processes, the keeper's own watch) is shown by
/// `alicia ps --json` and `alicia doctor`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceLimits {
    /// Memory of the whole process tree. An instance over it is killed, with the cause `out of memory`.
    /// At least 4MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Processors: 1.5 is one and a half. 0.01 to 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.01, max = 1024.0))]
    pub cpu: Option<f64>,
    /// Processes and threads of the whole tree. Where a controller holds the limit (cgroup version 2 or 1), one
    /// more is refused to the program that wants it, and a tree to which more than 50 are refused within a
    /// second is killed. Where the keeper looks itself (`polled`), a tree that has one more is killed. The cause
    /// is `over its limit of processes`. A server that sheds load by failing to fork more than 50 times a second
    /// is killed too: give it a higher limit. 1 to 4194304.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_194_304))]
    pub processes: Option<u32>,
    /// Files that each process may have open. 8 to 1048576.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 8, max = 1_048_576))]
    pub open_files: Option<u64>,
    /// The size that a file may reach by writing to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size: Option<ByteSize>,
    /// The size of a core dump; `0B` for none, which is the default in a sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<ByteSize>,
    /// Lines of output in a second. More are dropped and counted; the count is in the log. Default: 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub log_lines_per_second: Option<u32>,
}
