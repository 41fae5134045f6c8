//! One host on one data directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use alicia_contract::platform::HostFile;
use alicia_module::Paths;
use rustix::fs::{FlockOperation, flock};

use crate::Error;
use crate::host::Alone;

/// Held while the host lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct HostLock {
    _file: File,
}

/// Takes the data directory for this process.
pub(crate) fn take(paths: &Paths, alone: Option<&Alone>) -> Result<HostLock, Error> {
    let failed = |source| Error::Data {
        path: paths.data().to_owned(),
        source,
    };
    for directory in [
        paths.data().to_owned(),
        paths.database("x").with_file_name(""),
        paths.logs(),
    ] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(lock_path(paths, alone))
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = file.read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(Error::AlreadyRunning {
                path: paths.data().to_owned(),
                pid,
            });
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    file.set_len(0).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(HostLock { _file: file })
}

/// Single modules have a lock of their own: the host that they belong to may run on the same directory.
fn lock_path(paths: &Paths, alone: Option<&Alone>) -> PathBuf {
    match alone {
        None => paths.host_lock(),
        Some(alone) => paths
            .data()
            .join(format!("{}.lock", alone.modules.join("-"))),
    }
}

/// Writes where this host is found, in one step.
pub(crate) fn write_host_file(path: &Path, found: &HostFile) -> io::Result<()> {
    let temporary = path.with_extension("json.new");
    let text = serde_json::to_vec_pretty(found).expect("text and numbers");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&text)?;
    fs::rename(&temporary, path)
}

/// Removes it when it is about this process; a host that is gone is not found.
pub(crate) fn remove_host_file(path: &Path) {
    let found = fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice::<HostFile>(&text).ok());
    if found.is_none_or(|found| found.pid != std::process::id()) {
        return;
    }
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "could not remove the host file");
    }
}
