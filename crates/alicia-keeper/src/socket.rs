//! The place of the socket.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Name of the socket in the keeper's directory.
pub(crate) const SOCKET_NAME: &str = "keeper.sock";
/// `sun_path` has 108 bytes, the closing zero included (`unix(7)`).
pub(crate) const PATH_BYTES_MAX: usize = 107;

/// A path to bind or connect to. A directory whose name is too long for `sun_path` is reached through
/// an open descriptor.
#[derive(Debug)]
pub(crate) struct Address {
    path: PathBuf,
    _directory: Option<File>,
}

impl Address {
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        let path = directory.join(SOCKET_NAME);
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self {
                path,
                _directory: None,
            });
        }
        let directory = File::open(directory)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        Ok(Self {
            path: path.join(SOCKET_NAME),
            _directory: Some(directory),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
