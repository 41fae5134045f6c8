//! Descendants that have left the process group: found by a mark in their environment, and killed.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The variable that holds the mark.
pub(super) const VARIABLE: &str = "ALICIA_PROBE";

/// The most rounds: a process that forks while it is looked for is found in the next one.
const ROUNDS_MAX: usize = 5;

/// Numbers the tries of this process.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// What every process of one try has in its environment.
#[derive(Debug, Clone)]
pub(super) struct Mark(String);

// === impl Mark ===

impl Mark {
    /// A mark that no other try on this machine has: by the number of this process and of the try.
    pub(super) fn new() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{}-{count}", std::process::id()))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Kills whoever has the mark.
    pub(super) async fn sweep(self) {
        // Reading the process table takes some milliseconds, for which the runtime's thread must not stand still.
        let swept = tokio::task::spawn_blocking(move || {
            for _ in 0..ROUNDS_MAX {
                if self.kill_all() == 0 {
                    return;
                }
            }
        });
        // It cannot panic; when the runtime ends, so do we.
        swept.await.ok();
    }

    /// Kills whoever has the mark now, and says how many.
    fn kill_all(&self) -> usize {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter(|process| self.kill(&process.path()).is_some())
            .count()
    }

    fn kill(&self, process: &Path) -> Option<()> {
        let pid: i32 = process.file_name()?.to_str()?.parse().ok()?;
        // The descriptor is taken before the look, so that it means the process that was looked at.
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let environment = fs::read(process.join("environ")).ok()?;
        let mark = format!("{VARIABLE}={}", self.0);
        let mut variables = environment.split(|byte| *byte == 0);
        variables.find(|variable| *variable == mark.as_bytes())?;
        pidfd_send_signal(pidfd, Signal::KILL).ok()
    }
}
