//! The room on a disk.

use std::path::{Path, PathBuf};

use alicia_contract::ByteSize;
use alicia_contract::fleet::DiskCheck;

use crate::attempt::{Deadline, Seen};

/// What is bad when no limit is given, in percent: where file systems slow down and programs begin to fail.
const FREE_PERCENT_MIN: f64 = 5.0;

/// A disk and what is expected of it.
#[derive(Debug, Clone)]
pub struct DiskTarget {
    path: PathBuf,
    free_min: Option<u64>,
    free_percent_min: Option<f64>,
    entries_percent_min: Option<f64>,
}

/// What the file system says of itself.
#[derive(Debug, Clone, Copy)]
struct Room {
    free: u64,
    total: u64,
    entries_free: u64,
    entries: u64,
}

// === impl DiskTarget ===

impl DiskTarget {
    pub(crate) fn new(check: &DiskCheck, directory: &Path) -> Self {
        let none = check.free_min.is_none()
            && check.free_percent_min.is_none()
            && check.entries_percent_min.is_none();
        Self {
            path: directory.join(&check.path),
            free_min: check.free_min.map(ByteSize::bytes),
            free_percent_min: check
                .free_percent_min
                .or_else(|| none.then_some(FREE_PERCENT_MIN)),
            entries_percent_min: check.entries_percent_min,
        }
    }

    /// A disk behind a network may not answer: it is asked on a thread, which is left to itself at the deadline.
    pub(crate) async fn attempt(&self, deadline: &Deadline) -> Seen {
        let path = self.path.clone();
        let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&path));
        let shown = self.path.display();
        let stat = deadline
            .within("no answer of the disk", asked)
            .await?
            .map_err(|error| format!("failed to look at {shown}: {error}"))?
            .map_err(|error| format!("failed to look at {shown}: {error}"))?;
        self.judge(Room {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            entries_free: stat.f_favail,
            entries: stat.f_files,
        })
    }

    fn judge(&self, room: Room) -> Seen {
        let free_percent = percent(room.free, room.total);
        let free = format!("{} free ({free_percent:.1} %)", size(room.free));
        if let Some(expected) = self.free_min.filter(|expected| room.free < *expected) {
            return Err(format!("{free}, expected {} or more", ByteSize(expected)));
        }
        if let Some(expected) = self.free_percent_min.filter(|least| free_percent < *least) {
            return Err(format!("{free}, expected {expected} % or more"));
        }
        // Some file systems have no fixed number of entries, and say 0.
        let entries_percent = percent(room.entries_free, room.entries);
        let least = self.entries_percent_min.filter(|_| room.entries > 0);
        if let Some(expected) = least.filter(|least| entries_percent < *least) {
            return Err(format!(
                "{entries_percent:.1} % of the file entries free, expected {expected} % or more"
            ));
        }
        Ok(free)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
fn percent(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 100.0,
        whole => part as f64 / whole as f64 * 100.0,
    }
}

/// Whole mebibytes: the bytes would be noise.
pub(crate) fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes {
        0..MIB => format!("{}KiB", bytes >> 10),
        _ => format!("{}MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_judged() {
        let room = Room {
            free: 50 << 20,
            total: 1_000 << 20,
            entries_free: 10,
            entries: 1_000,
        };
        let check = |text: &str, expected: Result<&str, &str>| {
            let check: DiskCheck = serde_json::from_str(text).expect("a check");
            let seen = DiskTarget::new(&check, Path::new("/")).judge(room);
            let seen = seen.as_deref().map_err(String::as_str);
            assert_eq!(seen, expected, "{text}");
        };
        let free = "50MiB free (5.0 %)";
        check("{}", Ok(free));
        check(r#"{"free_min": "50MiB"}"#, Ok(free));
        check(
            r#"{"free_min": "51MiB"}"#,
            Err("50MiB free (5.0 %), expected 51MiB or more"),
        );
        check(
            r#"{"free_percent_min": 10}"#,
            Err("50MiB free (5.0 %), expected 10 % or more"),
        );
        check(
            r#"{"entries_percent_min": 2}"#,
            Err("1.0 % of the file entries free, expected 2 % or more"),
        );
    }

    #[test]
    fn nothing_of_nothing_is_free() {
        assert!((percent(0, 0) - 100.0).abs() < f64::EPSILON);
    }
}
