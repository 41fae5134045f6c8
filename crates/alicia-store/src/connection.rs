//! Opening connections: the settings every one of them needs, and the checks before the first.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, OpenFlags};

use crate::error::Error;
use crate::options::{Kind, directory_of, with_suffix};

/// The first version whose checkpoints cannot damage a WAL that is being reset meanwhile (SQLite
/// 3.51.3 release notes, "WAL-reset database corruption bug"). 3.51.3 as SQLite counts it.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// How long a statement waits for outside tools (`sqlite3`, a file-level backup) that hold a lock.
/// Inside the process nobody waits: there is one writer.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// "ALIC", in the header of every database: tells our files from other programs' files.
pub(crate) const APPLICATION_ID: i32 = 0x414c_4943;

/// Files up to this size are checked page by page at every open: measured, 14 MiB take 0.05 s.
/// Larger ones are checked when asked: `Store::check`.
const CHECK_AT_OPEN_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Only the owner reads a module's data.
const FILE_MODE: u32 = 0o600;

/// The connection that changes the database: the writer's.
pub(crate) struct WriteConnection {
    pub(crate) connection: Connection,
    pub(crate) seal: Seal,
}

/// Keeps foreign SQL (a job's, a migration's) from ending the transaction that it runs in.
pub(crate) struct Seal(Arc<AtomicBool>);

// === impl Seal ===

impl Seal {
    fn install(connection: &mut Connection) -> rusqlite::Result<Self> {
        let sealed = Arc::new(AtomicBool::new(false));
        let seal = Self(Arc::clone(&sealed));
        connection.authorizer(Some(move |context: AuthContext<'_>| match context.action {
            AuthAction::Transaction { .. } if sealed.load(Relaxed) => Authorization::Deny,
            _ => Authorization::Allow,
        }))?;
        Ok(seal)
    }

    /// Runs `work`, in which BEGIN, COMMIT and ROLLBACK are "not authorized". `work` does not panic.
    pub(crate) fn around<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.store(true, Relaxed);
        let result = work();
        self.0.store(false, Relaxed);
        result
    }
}

/// The database file of a store, as its threads know it.
#[derive(Debug)]
pub(crate) struct DataFile {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
}

// === impl DataFile ===

impl DataFile {
    /// Makes the file if there is none, checks it if there is one, and opens it for writing.
    /// The caller holds the lock.
    pub(crate) fn open_first(&self) -> Result<WriteConnection, Error> {
        check_sqlite_version(rusqlite::version_number())?;
        self.create_or_keep()?;
        let opening = |source| Error::opening(&self.path, source);
        let connection = open(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(opening)?;
        // A refused file stays as it was found: its log is not folded in when this connection closes.
        keep_log_on_close(&connection, true).map_err(opening)?;
        if origin(&self.path, &connection)? == Origin::Foreign {
            return Err(Error::Foreign {
                path: self.path.clone(),
            });
        }
        if file_bytes(&self.path) <= CHECK_AT_OPEN_BYTES_MAX {
            check_pages(&self.path, &connection, "quick_check")?;
        }
        keep_log_on_close(&connection, false).map_err(opening)?;
        self.configure(&connection)
            .and_then(|()| sealed(connection))
            .map_err(opening)
    }

    /// A connection for the writer, after the first.
    pub(crate) fn open_again(&self) -> rusqlite::Result<WriteConnection> {
        self.open_writable().and_then(sealed)
    }

    /// A connection for the checkpointer.
    pub(crate) fn open_writable(&self) -> rusqlite::Result<Connection> {
        let connection = open(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        self.configure(&connection)?;
        Ok(connection)
    }

    /// A connection that cannot change anything.
    pub(crate) fn open_read_only(&self) -> rusqlite::Result<Connection> {
        let connection = open(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    /// Size of the write-ahead log in bytes; 0 when there is none.
    pub(crate) fn wal_bytes(&self) -> u64 {
        file_bytes(&with_suffix(&self.path, "-wal"))
    }

    /// A new file is made here and not by SQLite: with our mode whatever the umask, and with its
    /// directory entry on disk before the first acknowledged write.
    fn create_or_keep(&self) -> Result<(), Error> {
        let path = &self.path;
        if file_bytes(path) == 0 {
            if self.wal_bytes() > 0 {
                return Err(Error::LogWithoutDatabase { path: path.clone() });
            }
            create_private(path)?;
            sync_directory(path)?;
        }
        set_private(path)
    }

    fn configure(&self, connection: &Connection) -> rusqlite::Result<()> {
        let synchronous = match self.kind {
            Kind::State => "FULL",
            Kind::Telemetry => "NORMAL",
        };
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", synchronous)?;
        // What a savepoint would need for its undo goes to a temporary file otherwise, a few pages
        // for each job.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // The checkpointer does it: see checkpoint.rs.
        connection.pragma_update(None, "wal_autocheckpoint", 0)
    }
}

fn sealed(mut connection: Connection) -> rusqlite::Result<WriteConnection> {
    let seal = Seal::install(&mut connection)?;
    Ok(WriteConnection { connection, seal })
}

/// Opens an existing file with what holds for every connection.
pub(crate) fn open(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // An I/O error on a mapped page is a SIGBUS; on a read call it is an error that we can handle.
    connection.pragma_update(None, "mmap_size", 0)?;
    Ok(connection)
}

/// Whether the last connection to close leaves the log as it is, or folds it in and removes it.
pub(crate) fn keep_log_on_close(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
        .map(drop)
}

/// Makes an empty file that only its owner may read.
pub(crate) fn create_private(path: &Path) -> Result<std::fs::File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)
        .map_err(Error::file("create", path))
}

/// Sets the mode by hand: the mode at creation is cut by the umask, and an old file may be open wide.
pub(crate) fn set_private(path: &Path) -> Result<(), Error> {
    std::fs::set_permissions(path, Permissions::from_mode(FILE_MODE))
        .map_err(Error::file("set the mode of", path))
}

/// Makes the names in the directory of `path` durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), Error> {
    let directory = directory_of(path);
    std::fs::File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(Error::file("sync the directory", directory))
}

/// Whose a database is, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A store made it.
    Ours,
    /// It has no table yet.
    Empty,
    /// Some other program made it.
    Foreign,
}

/// Reads whose the database at `path` is.
pub(crate) fn origin(path: &Path, connection: &Connection) -> Result<Origin, Error> {
    let opening = |source| Error::opening(path, source);
    let id: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(opening)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(opening)?;
    Ok(match (id, tables) {
        (APPLICATION_ID, _) => Origin::Ours,
        (0, 0) => Origin::Empty,
        _ => Origin::Foreign,
    })
}

/// Runs `quick_check` or `integrity_check`; damage is an error that names the first fault.
pub(crate) fn check_pages(path: &Path, connection: &Connection, pragma: &str) -> Result<(), Error> {
    let detail: String = connection
        .query_row(&format!("PRAGMA {pragma}(1)"), [], |row| row.get(0))
        .map_err(|source| Error::opening(path, source))?;
    match detail.as_str() {
        "ok" => Ok(()),
        _ => Err(Error::Corrupt {
            path: path.to_owned(),
            detail,
        }),
    }
}

fn check_sqlite_version(number: i32) -> Result<(), Error> {
    if number >= SQLITE_VERSION_MIN {
        return Ok(());
    }
    Err(Error::SqliteTooOld {
        found: dotted(number),
        needed: dotted(SQLITE_VERSION_MIN),
    })
}

fn dotted(number: i32) -> String {
    format!(
        "{}.{}.{}",
        number / 1_000_000,
        number / 1000 % 1000,
        number % 1000
    )
}

/// Size of a file in bytes; 0 when there is none.
pub(crate) fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_sqlite_is_refused_by_name() {
        let error = check_sqlite_version(3_040_001).expect_err("3.40.1 is too old");
        assert!(error.to_string().contains("3.40.1"), "{error}");
        assert!(error.to_string().contains("3.51.3"), "{error}");
        check_sqlite_version(3_051_003).expect("3.51.3 will do");
        check_sqlite_version(rusqlite::version_number()).expect("the bundled one will do");
    }
}
