//! The lock file: one store at a time has a database open, in this process or any other.
//!
//! SQLite's own locks would let a second program in. The lock is a `flock` on `<file>.lock`; the
//! kernel drops it when the process ends, however it ends. The lock file itself is never removed:
//! removing it would let two processes hold locks on two files of the same name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::Error;
use crate::options::with_suffix;

/// A process id has at most 10 digits; more than this is not one.
const HOLDER_BYTES_MAX: u64 = 20;

/// Held by every thread and connection of a store, so that it outlives the last of them.
#[derive(Debug)]
pub(crate) struct FileLock {
    // Only its descriptor matters: closing it releases the lock.
    _file: File,
}

// === impl FileLock ===

impl FileLock {
    /// Takes the lock of the database at `path`, or says who has it. Never waits.
    pub(crate) fn acquire(path: &Path) -> Result<Self, Error> {
        let lock_path = with_suffix(path, ".lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(Error::file("create", &lock_path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::InUse {
                    path: path.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::File {
                    action: "lock",
                    path: lock_path,
                    source,
                });
            }
        }
        sign(&mut file).map_err(Error::file("write", &lock_path))?;
        Ok(Self { _file: file })
    }

    /// Refuses when a store has the database at `path` open; leaves no lock file behind.
    pub(crate) fn refuse_if_held(path: &Path) -> Result<(), Error> {
        if with_suffix(path, ".lock").exists() {
            Self::acquire(path)?;
        }
        Ok(())
    }
}

/// Writes this process's id, for the message of the next one that comes.
fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(HOLDER_BYTES_MAX).read_to_string(&mut text) {
        Ok(_) if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => text,
        _ => "unknown".to_owned(),
    }
}
