//! What holds a limit.

use serde::{Deserialize, Serialize};

/// A limit that was asked for, and what holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitState {
    /// `memory`, `cpu`, `processes` for the tree; `open_files`, `file_size`, `core` and other names of
    /// [`ResourceLimit`](super::ResourceLimit) for each process; `sandbox.files`, `sandbox.network`,
    /// `sandbox.scope`, `sandbox.system_calls` for what an instance may do.
    pub limit: String,
    /// What holds it.
    pub held_by: HeldBy,
    /// Why it is held by nothing better, or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What holds a limit, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldBy {
    /// A controller of the instance's own cgroup, version 2.
    Cgroup2,
    /// A controller of a cgroup of version 1.
    Cgroup1,
    /// The kernel, for each process by itself (`setrlimit(2)`).
    Rlimit,
    /// Landlock.
    Landlock,
    /// A filter of system calls.
    Seccomp,
    /// The keeper looks every 50 ms and kills the tree that is over it.
    Polled,
    /// Nothing.
    None,
    /// Something that this build does not know.
    #[serde(other)]
    Other,
}

impl HeldBy {
    /// As it is written in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup2 => "cgroup2",
            Self::Cgroup1 => "cgroup1",
            Self::Rlimit => "rlimit",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::Polled => "polled",
            Self::None => "none",
            Self::Other => "other",
        }
    }
}

impl LimitState {
    /// One that is held as well as can be.
    pub(crate) fn held(limit: &str, held_by: HeldBy) -> Self {
        Self {
            limit: limit.to_owned(),
            held_by,
            why: None,
        }
    }

    pub(crate) fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }
}
