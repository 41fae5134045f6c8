//! The keeper's directory: lock, socket, log, records.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, flock};

use crate::error::{Error, Result};
use crate::socket::Address;
use crate::sys;

const LOCK_NAME: &str = "keeper.lock";
/// How many keepers this directory has had.
const GENERATION_NAME: &str = "generation";
const LOG_NAME: &str = "keeper.log";
const RECORDS_NAME: &str = "records";
const NOTIFY_NAME: &str = "notify";
/// Services of other users pass through to their notify sockets; nobody else can list or read.
const DIRECTORY_MODE: u32 = 0o711;
/// Files of the keeper are for its user only.
const UMASK: u32 = 0o077;
/// The keeper says little. A log that has grown beyond this begins anew.
const LOG_BYTES_MAX: u64 = 1024 * 1024;

/// An open directory. The lock and the socket live as long as the process.
#[derive(Debug)]
pub(super) struct Place {
    directory: PathBuf,
    lock: File,
    socket: UnixListener,
    generation: u64,
}

/// Which process goes on as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detached {
    /// The one that was called: it may end.
    Starter,
    /// The keeper.
    Keeper,
}

impl Place {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        rustix::process::umask(Mode::from_raw_mode(UMASK));
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Directory { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .and_then(|()| fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE)))
            .map_err(fail(directory))?;
        let directory = fs::canonicalize(directory).map_err(fail(directory))?;
        let lock_path = directory.join(LOCK_NAME);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(fail(&lock_path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::Locked { directory });
        }
        let records = directory.join(RECORDS_NAME);
        fs::create_dir_all(&records).map_err(fail(&records))?;
        let notify = directory.join(NOTIFY_NAME);
        make_anew(&notify).map_err(fail(&notify))?;
        let socket = bind(&directory).map_err(fail(&directory))?;
        let generation = next_generation(&directory).map_err(fail(&directory))?;
        Ok(Self {
            directory,
            lock,
            socket,
            generation,
        })
    }

    /// What the program before an upgrade had open.
    pub(super) fn resume(
        directory: PathBuf,
        (lock, socket): (OwnedFd, OwnedFd),
        generation: u64,
    ) -> Self {
        rustix::process::umask(Mode::from_raw_mode(UMASK));
        Self {
            directory,
            lock: lock.into(),
            socket: socket.into(),
            generation,
        }
    }

    /// Counts the keepers of this directory. An upgrade in place is no new one.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn records(&self) -> PathBuf {
        self.directory.join(RECORDS_NAME)
    }

    /// The notify socket of a run.
    pub(super) fn notify_path(&self, run: u64) -> PathBuf {
        self.directory.join(NOTIFY_NAME).join(run.to_string())
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// A process of its own: no parent that waits, no terminal, no directory kept busy.
    pub(super) fn detach(&self) -> Result<Detached> {
        let log_path = self.directory.join(LOG_NAME);
        let fail = |source| Error::Directory {
            path: log_path.clone(),
            source,
        };
        let log = open_log(&log_path).map_err(fail)?;
        if matches!(
            sys::fork().map_err(Error::system("detach"))?,
            sys::Fork::Parent
        ) {
            return Ok(Detached::Starter);
        }
        let null = File::open("/dev/null").map_err(Error::system("open /dev/null"))?;
        rustix::process::setsid()
            .map_err(|error| Error::system("begin a session")(error.into()))?;
        let redirect = || -> io::Result<()> {
            rustix::stdio::dup2_stdin(&null)?;
            rustix::stdio::dup2_stdout(&log)?;
            rustix::stdio::dup2_stderr(&log)?;
            rustix::process::chdir("/")?;
            Ok(())
        };
        redirect().map_err(Error::system("redirect the standard descriptors"))?;
        Ok(Detached::Keeper)
    }

    /// Nobody shall connect any more.
    pub(super) fn close(&self) {
        if let Ok(address) = Address::of(&self.directory) {
            // A socket that stays is found to be stale by whoever comes next.
            drop(fs::remove_file(address.path()));
        }
    }
}

/// Empty, and for anybody to pass through: sockets that a dead keeper left are nobody's.
fn make_anew(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE))
}

/// The lock is held, so a socket that is there belongs to a dead keeper.
fn bind(directory: &Path) -> io::Result<UnixListener> {
    let address = Address::of(directory)?;
    match fs::remove_file(address.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixListener::bind(address.path())?;
    fs::set_permissions(address.path(), Permissions::from_mode(0o600))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// One more than the last keeper had. Synced, because after a power failure it must not be used again.
fn next_generation(directory: &Path) -> io::Result<u64> {
    let path = directory.join(GENERATION_NAME);
    let last = fs::read_to_string(&path).unwrap_or_default();
    let generation = last.trim().parse::<u64>().unwrap_or_default() + 1;
    let beside = directory.join(format!("{GENERATION_NAME}.new"));
    let mut file = File::create(&beside)?;
    writeln!(file, "{generation}")?;
    file.sync_all()?;
    fs::rename(&beside, &path)?;
    File::open(directory)?.sync_all()?;
    Ok(generation)
}

fn open_log(path: &Path) -> io::Result<File> {
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    if log.metadata()?.len() > LOG_BYTES_MAX {
        log.set_len(0)?;
    }
    Ok(log)
}
