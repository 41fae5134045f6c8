//! Copies of a database: online backup, the copy before a migration, and the way back.
//!
//! A copy is made by `VACUUM INTO`, which reads one state while writers go on. SQLite's page-by-page
//! backup starts again at each foreign write: 3.0 s against 6-14 ms at 2,000 writes a second
//! (measured). A copy appears under its name only when it is whole and synced.

use std::fs::{self, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags};

use crate::connection::{
    self, Origin, check_pages, create_private, file_bytes, keep_log_on_close, origin, set_private,
};
use crate::error::Error;
use crate::lock::FileLock;
use crate::options::{directory_of, with_suffix};

/// Copies made before migrations that are kept beside a database: enough for the last few upgrades.
const COPIES_BEFORE_MIGRATION_MAX: usize = 3;

/// Copies the open database `source` to `target`.
pub(crate) fn back_up(source: &Path, target: &Path) -> Result<(), Error> {
    FileLock::refuse_if_held(target)?;
    copy(source, target)
}

/// Copies the database to `<file>.before-<label>.backup` and removes the oldest of such copies.
pub(crate) fn before_migration(source: &Path, label: &str) -> Result<(), Error> {
    let target = with_suffix(source, &format!(".before-{label}.backup"));
    copy(source, &target)?;
    for old in copies_before_migration(source)?
        .into_iter()
        .skip(COPIES_BEFORE_MIGRATION_MAX)
    {
        fs::remove_file(&old).map_err(Error::file("remove", &old))?;
    }
    Ok(())
}

/// See [`Store::restore`](crate::Store::restore).
pub(crate) fn restore(from: &Path, to: &Path) -> Result<(), Error> {
    let lock = FileLock::acquire(to)?;
    let source = open_source(from)?;
    if origin(from, &source)? != Origin::Ours {
        return Err(Error::Foreign {
            path: from.to_owned(),
        });
    }
    check_pages(from, &source, "integrity_check")?;
    drop(source);
    let staged = with_suffix(to, ".restored");
    copy(from, &staged)?;
    set_aside(to)?;
    fs::rename(&staged, to).map_err(Error::file("put the backup in the place of", to))?;
    connection::sync_directory(to)?;
    drop(lock);
    Ok(())
}

/// Keeps what is at `path` as `<path>.before-restore.backup`, and leaves no log behind that SQLite
/// could take for the log of the file which comes in its place.
///
/// The database itself stays under its name until the rename over it: a crash in between finds either
/// the old one or the new one, never none.
fn set_aside(path: &Path) -> Result<(), Error> {
    let aside = with_suffix(path, ".before-restore.backup");
    remove_if_there(&aside)?;
    remove_if_there(&with_suffix(&aside, "-wal"))?;
    if !path.exists() {
        return move_log(path, &aside);
    }
    fold_log(path);
    fs::hard_link(path, &aside).map_err(Error::file("keep the old file as", &aside))?;
    move_log(path, &aside)
}

/// Brings the log of an intact database into the file, so that one file is all there is to keep. A
/// damaged database is the very reason for many a restore: it and its log are kept as they are.
fn fold_log(path: &Path) {
    let folded = connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(|source| Error::opening(path, source))
        .and_then(|connection| {
            keep_log_on_close(&connection, true)?;
            check_pages(path, &connection, "quick_check")?;
            Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
        });
    if let Err(error) = folded {
        tracing::warn!(path = %path.display(), %error, "the log is kept beside the old database");
    }
}

fn move_log(path: &Path, aside: &Path) -> Result<(), Error> {
    let (wal, aside_wal) = (with_suffix(path, "-wal"), with_suffix(aside, "-wal"));
    if file_bytes(&wal) > 0 {
        fs::rename(&wal, &aside_wal).map_err(Error::file("keep the old log as", &aside_wal))?;
    }
    remove_if_there(&wal)?;
    remove_if_there(&with_suffix(path, "-shm"))
}

/// A consistent copy: written to `<target>.partial`, synced, renamed, the directory synced.
fn copy(source: &Path, target: &Path) -> Result<(), Error> {
    let partial = with_suffix(target, ".partial");
    let file = create_private(&partial)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = "unknown (a backup to it is under way)".to_owned();
            return Err(Error::InUse {
                path: target.to_owned(),
                holder,
            });
        }
        Err(TryLockError::Error(source)) => {
            return Err(Error::File {
                action: "lock",
                path: partial,
                source,
            });
        }
    }
    let written = vacuum_into(source, &partial, &file);
    if written.is_err() {
        remove_if_there(&partial)?;
    }
    written?;
    fs::rename(&partial, target).map_err(Error::file("rename to", target))?;
    connection::sync_directory(target)
}

fn vacuum_into(source: &Path, partial: &Path, file: &fs::File) -> Result<(), Error> {
    // A copy that was cut short by a crash may lie there; VACUUM INTO wants an empty file.
    file.set_len(0).map_err(Error::file("empty", partial))?;
    set_private(partial)?;
    let connection = open_source(source)?;
    let Some(name) = partial.to_str() else {
        let source = std::io::Error::from(std::io::ErrorKind::InvalidFilename);
        return Err(Error::File {
            action: "write",
            path: partial.to_owned(),
            source,
        });
    };
    connection.execute("VACUUM INTO ?1", [name])?;
    drop(connection);
    file.sync_all().map_err(Error::file("sync", partial))
}

fn open_source(path: &Path) -> Result<Connection, Error> {
    connection::open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|source| Error::opening(path, source))
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::File {
            action: "remove",
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// The newest first.
fn copies_before_migration(source: &Path) -> Result<Vec<PathBuf>, Error> {
    let directory = directory_of(source);
    let listing = Error::file("list", directory);
    let prefix = source.file_name().unwrap_or_default().to_string_lossy() + ".before-";
    let found = fs::read_dir(directory).and_then(|entries| {
        let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let label = name
                .strip_prefix(&*prefix)
                .and_then(|rest| rest.strip_suffix(".backup"));
            if label.is_some_and(|label| label != "restore") {
                found.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        Ok(found)
    });
    let mut found = found.map_err(listing)?;
    found.sort_by(|a, b| b.cmp(a));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
