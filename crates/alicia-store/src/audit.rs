//! The audit log: who did what to what, written in the same transaction as the change itself.
//!
//! The table is append-only; its triggers refuse UPDATE and DELETE. If the row cannot be written, the
//! change is not made either: privileged actions fail closed. Each row holds the SHA-256 of the row before
//! and of itself ([`chain`]), so that a change by other means is found. What looks like a secret is replaced by
//! a keyed hash before it is written (`redact`).

pub mod chain;
mod origin;
mod redact;

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row, Transaction, params};
use serde_json::Value;

use crate::error::Error;
pub use origin::Origin;
pub use redact::{Key, looks_secret};

/// Largest `detail`, as JSON text. A row says what was done; bulk data belongs elsewhere.
pub const DETAIL_BYTES_MAX: usize = 16 * 1024;

/// Most rows of one [`list`].
pub const LIST_ROWS_MAX: u32 = 1000;

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was tried and failed.
    Failed,
    /// The actor may not do it.
    Denied,
}

/// A row to be written.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// When, in microseconds since the Unix epoch; from the module's clock.
    pub time_unix_us: i64,
    /// Who: an identity, for example `spiffe://home/agent/hall` or `key:4f2a`.
    pub actor: &'a str,
    /// What: module and verb, for example `orchestrator.stop`.
    pub action: &'a str,
    /// On what: for example `service:weather`.
    pub target: &'a str,
    /// How it ended.
    pub outcome: Outcome,
    /// Anything else, without secrets; at most [`DETAIL_BYTES_MAX`].
    pub detail: &'a Value,
}

/// A row as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Rises with every row, never used twice.
    pub id: i64,
    /// When, in microseconds since the Unix epoch.
    pub time_unix_us: i64,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// On what.
    pub target: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Anything else.
    pub detail: Value,
    /// From where it was asked: `rest 127.0.0.1:50412`, `bus`; empty when the module did it by itself.
    pub origin: String,
    /// The trace that the request belongs to; empty when there was none.
    pub trace: String,
}

/// Where a page of rows begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// Rows with a greater id, oldest first. `After(0)`: from the very first.
    After(i64),
    /// Rows with a smaller id, newest first.
    Before(i64),
}

// === impl Cursor ===

impl Cursor {
    /// The newest rows, newest first.
    pub const NEWEST: Self = Self::Before(i64::MAX);
}

// === impl Outcome ===

impl Outcome {
    /// As it stands in the table: `done`, `failed`, `denied`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Denied => "denied",
        }
    }

    /// Anything unknown (from a newer program) is read as a failure, not lost.
    fn from_text(text: &str) -> Self {
        match text {
            "done" => Self::Done,
            "denied" => Self::Denied,
            _ => Self::Failed,
        }
    }
}

/// Adds a row and gives its id. Call it in the closure that makes the change.
///
/// # Errors
/// [`Error::TooLarge`], or SQLite's; pass it on, so that the change is undone.
pub fn append(tx: &Transaction<'_>, entry: &Entry<'_>) -> Result<i64, Error> {
    append_from(tx, entry, &Origin::of_job())
}

/// As [`append`], for a job that writes for others: where the request came from is known to its module only.
///
/// # Errors
/// As [`append`].
pub fn append_from(tx: &Transaction<'_>, entry: &Entry<'_>, origin: &Origin) -> Result<i64, Error> {
    let detail = serde_json::to_string(&*redact::value(entry.detail))?;
    if detail.len() > DETAIL_BYTES_MAX {
        return Err(Error::TooLarge {
            what: "the detail of an audit row",
            bytes: detail.len(),
            limit_bytes: DETAIL_BYTES_MAX,
        });
    }
    let (id, before) = chain::tail(tx)?;
    let text = |text: &str| redact::text(text).into_owned();
    let row = chain::Fields {
        id,
        time_unix_us: entry.time_unix_us,
        actor: &text(entry.actor),
        action: entry.action,
        target: &text(entry.target),
        outcome: entry.outcome.as_str(),
        detail: &detail,
        origin: &origin.from,
        trace: &origin.trace,
    };
    let hash = row.hash(&before);
    tx.prepare_cached(
        "INSERT INTO audit (id, time_unix_us, actor, action, target, outcome, detail, origin, trace, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        row.id,
        row.time_unix_us,
        row.actor,
        row.action,
        row.target,
        row.outcome,
        row.detail,
        row.origin,
        row.trace,
        &hash[..],
    ])?;
    Ok(id)
}

/// A page of at most `limit` rows, never more than [`LIST_ROWS_MAX`].
///
/// # Errors
/// SQLite's, or a `detail` that is no JSON.
pub fn list(connection: &Connection, cursor: Cursor, limit: u32) -> Result<Vec<Record>, Error> {
    const COLUMNS: &str =
        "SELECT id, time_unix_us, actor, action, target, outcome, detail, origin, trace FROM audit";
    let (condition, id) = match cursor {
        Cursor::After(id) => ("WHERE id > ?1 ORDER BY id ASC LIMIT ?2", id),
        Cursor::Before(id) => ("WHERE id < ?1 ORDER BY id DESC LIMIT ?2", id),
    };
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} {condition}"))?;
    let mut rows = statement.query(params![id, limit.min(LIST_ROWS_MAX)])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(record(row)?);
    }
    Ok(records)
}

fn record(row: &Row<'_>) -> Result<Record, Error> {
    Ok(Record {
        id: row.get(0)?,
        time_unix_us: row.get(1)?,
        actor: row.get(2)?,
        action: row.get(3)?,
        target: row.get(4)?,
        outcome: Outcome::from_text(row.get_ref(5)?.as_str().map_err(rusqlite::Error::from)?),
        detail: serde_json::from_str(row.get_ref(6)?.as_str().map_err(rusqlite::Error::from)?)?,
        origin: row.get(7)?,
        trace: row.get(8)?,
    })
}

/// Opens the database of a module to read its audit log, also while a host runs. Nothing can be changed through it.
///
/// # Errors
/// SQLite's.
pub fn open_to_read(path: &Path) -> Result<Connection, Error> {
    let opening = |source| Error::opening(path, source);
    let connection =
        crate::connection::open(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(opening)?;
    connection
        .pragma_update(None, "query_only", true)
        .map_err(opening)?;
    Ok(connection)
}
