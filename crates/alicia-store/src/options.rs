//! What a store is opened with.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::audit;
use crate::migration::Migration;

/// Gives the time in microseconds since the Unix epoch. Tests and simulations set it.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How much a file may lose when the power goes. A crash of the process loses nothing in either.
///
/// SQLite cannot set this per table, hence two files for a module that needs both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// State, audit, outbox: acknowledged after fsync (`synchronous=FULL`), a power cut loses nothing.
    #[default]
    State,
    /// Metrics, traces, logs: written to the system, synced at checkpoints (`synchronous=NORMAL`).
    /// A power cut loses the last moments; the file stays intact.
    Telemetry,
}

/// What [`Store::open`](crate::Store::open) needs to know.
#[derive(Clone)]
pub struct Options {
    /// The database file. Its directory must exist; beside it lie `-wal`, `-shm` and `.lock`.
    pub path: PathBuf,
    /// How durable an acknowledged write is. Default: [`Kind::State`].
    pub kind: Kind,
    /// The module's schema, step by step, numbered 1, 2, 3 without a gap.
    pub migrations: &'static [Migration],
    /// Dates the migrations.
    pub clock: Clock,
    /// Hashes what looks like a secret in audit rows. Default: a key of this process, so that equal secrets look equal
    /// only until it ends.
    pub audit_key: Option<audit::Key>,
}

// === impl Options ===

impl Options {
    /// A state file.
    pub fn new(path: impl Into<PathBuf>, migrations: &'static [Migration], clock: Clock) -> Self {
        Self {
            path: path.into(),
            kind: Kind::State,
            migrations,
            clock,
            audit_key: None,
        }
    }

    /// With a key of the house for what looks like a secret in audit rows.
    #[must_use]
    pub fn audit_key(self, key: audit::Key) -> Self {
        Self {
            audit_key: Some(key),
            ..self
        }
    }

    /// The same file as telemetry: see [`Kind::Telemetry`].
    #[must_use]
    pub fn telemetry(self) -> Self {
        Self {
            kind: Kind::Telemetry,
            ..self
        }
    }
}

/// `path` with `suffix` put behind the whole file name: `a/b.db` and `-wal` give `a/b.db-wal`.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The directory that `path` lies in; `.` for a bare file name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
