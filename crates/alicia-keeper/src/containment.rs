//! How the processes of an instance are held together, and ended together.
//!
//! The first rung that works is taken: a cgroup (no process can leave it, the kernel kills all at once and
//! tells when it is empty), else a scan of `/proc` by owner tag, session, output pipe and parent chain.

mod cgroup;
mod cgroup1;
mod forks;
mod scan;

use std::path::{Path, PathBuf};

pub(crate) use cgroup::{Cgroup, CgroupRoot};
pub use cgroup1::controllers_of_version_1;
pub(crate) use cgroup1::{Cgroup1Root, TreeLimit};
pub(crate) use forks::{RefusedForks, tasks_allowed_in, tasks_in};
pub(crate) use scan::{Claim, Owners, Scan, Sweep, TAG_NAME};

use crate::protocol::Containment;

/// What holds an instance.
#[derive(Debug)]
pub(crate) enum Container {
    Cgroup(Cgroup),
    Scan(Scan),
}

impl Container {
    pub(crate) fn kind(&self) -> Containment {
        match self {
            Self::Cgroup(_) => Containment::Cgroup,
            Self::Scan(_) => Containment::Scan,
        }
    }

    pub(crate) fn cgroup_path(&self) -> Option<PathBuf> {
        match self {
            Self::Cgroup(cgroup) => Some(cgroup.path().to_owned()),
            Self::Scan(_) => None,
        }
    }
}

/// A short name of a keeper's directory for cgroups and tags: the same for every keeper of it, different
/// for any other (FNV-1a).
pub(crate) fn directory_key(directory: &Path) -> String {
    let bytes = directory.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
