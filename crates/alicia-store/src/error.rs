//! All that can go wrong with a store. Texts read after "failed to" and say what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::migration::Owner;

/// A store's fault. Each text names the file, and what to do where the caller cannot know.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The linked SQLite has a known fault in WAL checkpoints.
    #[error(
        "use SQLite {found}: version {needed} or newer is needed, because older ones can damage a \
         WAL file at a checkpoint; build with the bundled SQLite"
    )]
    SqliteTooOld {
        /// The version linked in, for example `3.40.1`.
        found: String,
        /// The oldest version that is accepted.
        needed: String,
    },

    /// Another store, in this process or another, has the file open.
    #[error("open {path}: it is already open in process {holder}; stop that process first")]
    InUse {
        /// The database file.
        path: PathBuf,
        /// Process id of the holder, or `unknown`.
        holder: String,
    },

    /// The file could not be opened or prepared by SQLite.
    #[error("open {path}")]
    Open {
        /// The database file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },

    /// The file is no intact database. It is left exactly as found.
    #[error(
        "open {path}: the file is damaged ({detail}) and was left untouched; keep a copy of it, then \
         bring back a backup with `alicia store restore`"
    )]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// What SQLite found.
        detail: String,
    },

    /// The database is gone or empty, yet its write-ahead log still holds acknowledged writes.
    #[error(
        "open {path}: it is missing or empty, but {path}-wal holds writes that belong to it; put the \
         file back beside its log, or move the log away and restore a backup"
    )]
    LogWithoutDatabase {
        /// The database file that should be there.
        path: PathBuf,
    },

    /// A SQLite database that some other program made.
    #[error("open {path}: it is a database, but not one of Alicia's; name another file")]
    Foreign {
        /// The foreign file.
        path: PathBuf,
    },

    /// The file was written by a newer program.
    #[error(
        "open {path}: its {owner} schema is number {found}, this program knows up to number {known}; \
         run the newer program, or restore the backup made before the upgrade"
    )]
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// Whose schema.
        owner: Owner,
        /// Highest number applied to the file.
        found: u32,
        /// Highest number this program has.
        known: u32,
    },

    /// A migration that was already applied has been edited since.
    #[error(
        "open {path}: {owner} migration {number} ({name}) is not what was applied to this file; never \
         edit an applied migration, add a new one"
    )]
    EditedMigration {
        /// The database file.
        path: PathBuf,
        /// Whose schema.
        owner: Owner,
        /// Number of the edited migration.
        number: u32,
        /// Its name now.
        name: &'static str,
    },

    /// The list of migrations is not 1, 2, 3, …
    #[error("migrate {path}: migration {found} stands where {expected} is due")]
    MigrationOrder {
        /// The database file.
        path: PathBuf,
        /// The number that is due.
        expected: u32,
        /// The number that was found.
        found: u32,
    },

    /// A migration failed; the file is as it was before.
    #[error("apply {owner} migration {number} ({name}) to {path}; nothing was changed")]
    Migration {
        /// The database file.
        path: PathBuf,
        /// Whose schema.
        owner: Owner,
        /// Number of the migration.
        number: u32,
        /// Its name.
        name: &'static str,
        /// SQLite's reason.
        source: rusqlite::Error,
    },

    /// A migration left rows that point to nothing; the file is as it was before.
    #[error(
        "migrate {path}: table {table} would refer to rows that do not exist; nothing was changed"
    )]
    DanglingReference {
        /// The database file.
        path: PathBuf,
        /// The table with the dangling reference.
        table: String,
    },

    /// A file operation failed.
    #[error("{action} {path}")]
    File {
        /// What was tried, for example `create`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// A thread could not be started.
    #[error("start the writer thread of {path}")]
    Thread {
        /// The database file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// The batch was not committed (disk full, I/O error, locked by another tool): no job in it counts.
    #[error("commit to {path}; nothing of the batch was kept")]
    NotCommitted {
        /// The database file.
        path: PathBuf,
        /// SQLite's reason, shared by all jobs of the batch.
        source: Arc<rusqlite::Error>,
    },

    /// SQLite undid the whole batch while a job ran: no job in it counts.
    #[error(
        "commit to {path}; SQLite undid the batch while one of its jobs ran (disk full or I/O error)"
    )]
    BatchUndone {
        /// The database file.
        path: PathBuf,
    },

    /// The closure panicked. Its own changes were undone, those of other jobs were not.
    #[error("run a job on the store: it panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },

    /// The write queue is full; only [`Store::try_write`](crate::Store::try_write) says so.
    #[error("queue a write: {limit} are waiting already")]
    QueueFull {
        /// The queue's size in jobs.
        limit: usize,
    },

    /// All read connections stayed busy for the whole wait.
    #[error("read: all {readers} read connections stayed busy for {wait_ms} ms")]
    ReadersBusy {
        /// Number of read connections.
        readers: usize,
        /// How long was waited, in milliseconds.
        wait_ms: u64,
    },

    /// The store was closed.
    #[error("use the store: it is closed")]
    Closed,

    /// A job waited for another write on its own store, which would never end.
    #[error("write: a job on the writer thread cannot wait for another; do both in one closure")]
    WithinJob,

    /// A statement failed.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),

    /// A value could not be written as or read from JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),

    /// A value is larger than its limit.
    #[error("write {what}: {bytes} bytes, the limit is {limit_bytes}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
}

// === impl Error ===

impl Error {
    /// Whether the disk (or a quota) is full: worth trying again when there is room.
    pub fn is_disk_full(&self) -> bool {
        self.sqlite_code() == Some(ErrorCode::DiskFull)
    }

    /// SQLite's code, where SQLite is the cause.
    pub fn sqlite_code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sql(source) | Self::Open { source, .. } | Self::Migration { source, .. } => {
                source.sqlite_error_code()
            }
            Self::NotCommitted { source, .. } => source.sqlite_error_code(),
            _ => None,
        }
    }

    /// The fault of opening `path`: damage is told apart from all else.
    pub(crate) fn opening(path: &Path, source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt {
                path: path.to_owned(),
                detail: source.to_string(),
            },
            _ => Self::Open {
                path: path.to_owned(),
                source,
            },
        }
    }

    /// For `map_err` on a file operation.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
