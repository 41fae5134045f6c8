//! How a service of another user comes to what is its own in a data directory that is closed to others: through a
//! descriptor of the directory, which goes around those above it.
//!
//! ```text
//!  data (0700) ─ credentials (0711) ─ <instance> (0600, of the user)
//!                     ▲
//!  /proc/self/fd/3 ───┘   opened by the keeper, as a path only
//! ```
//!
//! Nothing else is opened by that: what lies in the directory has its own mode, and above it the mode of the data
//! directory counts as before.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use alicia_keeper::protocol::{PASSED_FIRST, PassedDirectory};

/// The directories that one start passes.
#[derive(Debug)]
pub(super) struct Doors {
    /// Who has to get there; none: whoever Alicia itself runs as.
    user: Option<u32>,
    /// The number of the first descriptor.
    first: usize,
    opened: Vec<PassedDirectory>,
}

// === impl Doors ===

impl Doors {
    /// For a process of this user that inherits so many sockets.
    pub(super) fn of(user: Option<u32>, sockets: usize) -> Self {
        Self {
            user,
            first: PASSED_FIRST + sockets,
            opened: Vec::new(),
        }
    }

    /// A directory as the process names it: by its path when its user can come there, else by a descriptor that is
    /// passed under this name.
    pub(super) fn way_to(&mut self, name: &str, directory: &Path) -> PathBuf {
        if self.user.is_none_or(|user| can_reach(user, directory)) {
            return directory.to_owned();
        }
        let known = self.opened.iter().position(|it| it.name == name);
        let index = known.unwrap_or_else(|| {
            self.opened.push(PassedDirectory {
                name: name.to_owned(),
                path: directory.to_owned(),
            });
            self.opened.len() - 1
        });
        PathBuf::from(format!("/proc/self/fd/{}", self.first + index))
    }

    /// What is to be passed, in order.
    pub(super) fn opened(self) -> Vec<PassedDirectory> {
        self.opened
    }
}

/// Whether a user may pass every directory on the way, as its owner or as anybody. Groups are not looked at: who may
/// pass by them gets a descriptor, which is as good.
fn can_reach(user: u32, directory: &Path) -> bool {
    directory.ancestors().all(|directory| {
        fs::metadata(directory).is_ok_and(|it| {
            let bit = if it.uid() == user { 0o100 } else { 0o001 };
            user == 0 || it.mode() & bit != 0
        })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_descriptor_is_passed_where_the_path_is_closed() {
        let base = tempfile::tempdir().expect("a directory");
        let directory = base.path().join("credentials");
        fs::create_dir(&directory).expect("made");
        let own = fs::metadata(&directory).expect("there").uid();
        let mode = |mode| {
            for directory in [base.path(), &directory] {
                fs::set_permissions(directory, fs::Permissions::from_mode(mode)).expect("is ours");
            }
        };
        let check = |user: Option<u32>, sockets: usize, expected: &[&str]| {
            let mut doors = Doors::of(user, sockets);
            let ways = ["credentials", "state", "credentials"]
                .map(|name| doors.way_to(name, &directory).display().to_string());
            let shown = directory.display().to_string();
            assert_eq!(
                ways,
                [0, 1, 0].map(|at| expected
                    .get(at)
                    .map_or(shown.clone(), |it| (*it).to_owned()))
            );
            let passed: Vec<_> = doors.opened().into_iter().map(|it| it.name).collect();
            assert_eq!(passed, ["credentials", "state"][..expected.len()]);
        };
        mode(0o700);
        check(None, 0, &[]);
        check(Some(own), 0, &[]);
        check(
            Some(own + 4_711),
            0,
            &["/proc/self/fd/3", "/proc/self/fd/4"],
        );
        check(
            Some(own + 4_711),
            2,
            &["/proc/self/fd/5", "/proc/self/fd/6"],
        );
        mode(0o711);
        check(Some(own + 4_711), 2, &[]);
    }
}
