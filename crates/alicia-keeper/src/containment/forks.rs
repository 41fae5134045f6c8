//! Forks that the kernel refused a tree, as the controller `pids` of either version counts them.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// `pids.events` has one short line.
const EVENTS_BYTES: usize = 64;

/// The count of one group, held open.
#[derive(Debug)]
pub(crate) struct RefusedForks {
    events: File,
}

// === impl RefusedForks ===

impl RefusedForks {
    /// `None` where the group has no such count.
    pub(crate) fn open(group: &Path) -> Option<Self> {
        let events = File::open(group.join("pids.events")).ok()?;
        Some(Self { events })
    }

    /// Says `EPOLLPRI` when the count has changed since it was read last, at most every 10 ms; with version 1
    /// not on every kernel (Linux 6.18 does not).
    pub(crate) fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// How many forks were refused so far; `None` once the group is gone.
    pub(crate) fn count(&self) -> Option<u64> {
        let mut text = [0; EVENTS_BYTES];
        let length = self.events.read_at(&mut text, 0).ok()?;
        parse_count(std::str::from_utf8(&text[..length]).ok()?)
    }
}

/// Processes and threads that are in a group or below it.
pub(crate) fn tasks_in(group: &Path) -> Option<u64> {
    let current = fs::read_to_string(group.join("pids.current")).ok()?;
    current.trim().parse().ok()
}

/// Processes and threads that may be in a group; `None` where it has no limit.
pub(crate) fn tasks_allowed_in(group: &Path) -> Option<u32> {
    let max = fs::read_to_string(group.join("pids.max")).ok()?;
    max.trim().parse().ok()
}

fn parse_count(events: &str) -> Option<u64> {
    let mut lines = events.lines();
    lines.find_map(|line| line.strip_prefix("max ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_by_its_name() {
        for (events, expect) in [
            ("max 0\n", Some(0)),
            ("forkfail 7\nmax 1192\n", Some(1_192)),
            ("maximum 3\n", None),
            ("max many\n", None),
            ("", None),
        ] {
            assert_eq!(parse_count(events), expect, "{events:?}");
        }
    }

    #[test]
    fn a_group_without_a_limit_allows_no_number_of_tasks() {
        let group = tempfile::tempdir().unwrap();
        assert_eq!(tasks_allowed_in(group.path()), None);
        for (max, expect) in [("30\n", Some(30)), ("max\n", None), ("", None)] {
            fs::write(group.path().join("pids.max"), max).unwrap();
            assert_eq!(tasks_allowed_in(group.path()), expect, "{max:?}");
        }
    }
}
