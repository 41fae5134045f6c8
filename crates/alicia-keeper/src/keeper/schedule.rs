//! The keeper's own standing with the scheduler and the killer of processes, and how children lose it.

use std::ffi::CString;
use std::fs;

use rustix::process::{getpriority_process, setpriority_process};
use serde::{Deserialize, Serialize};

/// Ahead of ordinary programs, behind those that need real time: on a box under load, restarts of 2 ms
/// took 36 ms without (research: supervision, section 4).
const NICE: i32 = -5;
/// Nearly the last to be killed for want of memory: it is the parent of all the others.
const OOM_SCORE_ADJ: &str = "-900";
const OOM_PATH: &str = "/proc/self/oom_score_adj";

/// What the keeper reached, and what children must be given back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Standing {
    pub(super) nice: i32,
    /// The value that children get; `None` where the keeper's was not changed.
    pub(super) oom_score_adj: Option<CString>,
}

impl Standing {
    /// Takes what is permitted.
    pub(super) fn raise() -> Self {
        let before = getpriority_process(None).unwrap_or_default();
        let raised = before > NICE && setpriority_process(None, NICE).is_ok();
        let original = fs::read_to_string(OOM_PATH).unwrap_or_default();
        let lowered = fs::write(OOM_PATH, OOM_SCORE_ADJ).is_ok();
        Self {
            nice: if raised { NICE } else { before },
            oom_score_adj: CString::new(original.trim()).ok().filter(|_| lowered),
        }
    }
}
