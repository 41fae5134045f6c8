//! The chain: each row holds the SHA-256 of the hash before it and of its own fields.
//!
//! ```text
//!  genesis ─► hash(row 1) ─► hash(row 2) ─► … ─► hash(row n)  = head, which a signed checkpoint witnesses
//! ```
//!
//! A changed, removed, added or moved row breaks the chain at its place. Rows cut off at the end, and a chain that was
//! computed anew from some row on, are found by a checkpoint only ([`Expected`]). Rows that are older than the chain have
//! no hash of their own; the genesis covers them.

use rusqlite::{Connection, OptionalExtension, Row, Statement, params};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// A hash of the chain.
pub type Hash = [u8; 32];

/// Says what is hashed, so that no other use of SHA-256 gives the same.
const DOMAIN_ROW: &[u8] = b"alicia audit row 1\0";
const DOMAIN_GENESIS: &[u8] = b"alicia audit genesis 1\0";

/// Faults that are told; more of them say nothing new.
pub const FAULTS_MAX: usize = 100;

/// The triggers that keep the table append-only.
const TRIGGERS: [&str; 4] = [
    "audit_is_chained",
    "audit_is_never_cut",
    "audit_is_never_edited",
    "audit_is_never_replaced",
];

const COLUMNS: &str = "SELECT id, time_unix_us, actor, action, target, outcome, detail, origin, trace, hash FROM audit";

/// The end of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many rows there are.
    pub rows: u64,
    /// The id of the last row; 0 when there is none.
    pub id: i64,
    /// The hash of the last row; the genesis when no row is chained yet.
    pub hash: Hash,
}

/// What a witness says of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The row.
    pub id: i64,
    /// Its hash.
    pub hash: Hash,
    /// Who says so, for people: `checkpoint 12`.
    pub witness: String,
}

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// At which row; 0 when it is not about one.
    pub id: i64,
    /// What is wrong there.
    pub what: String,
}

/// What a walk along the chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Where it ends.
    pub head: Head,
    /// At most [`FAULTS_MAX`], in the order of the rows.
    pub faults: Vec<Fault>,
}

/// A row as it is hashed.
pub(super) struct Fields<'a> {
    pub(super) id: i64,
    pub(super) time_unix_us: i64,
    pub(super) actor: &'a str,
    pub(super) action: &'a str,
    pub(super) target: &'a str,
    pub(super) outcome: &'a str,
    pub(super) detail: &'a str,
    pub(super) origin: &'a str,
    pub(super) trace: &'a str,
}

// === impl Fields ===

impl Fields<'_> {
    /// Each text with its length before it: no two rows have the same bytes.
    pub(super) fn hash(&self, before: &Hash) -> Hash {
        let mut sum = Sha256::new_with_prefix(DOMAIN_ROW);
        sum.update(before);
        sum.update(self.id.to_le_bytes());
        sum.update(self.time_unix_us.to_le_bytes());
        self.texts(&mut sum);
        sum.finalize().into()
    }

    fn texts(&self, sum: &mut Sha256) {
        for text in [
            self.actor,
            self.action,
            self.target,
            self.outcome,
            self.detail,
            self.origin,
            self.trace,
        ] {
            sum.update((text.len() as u64).to_le_bytes());
            sum.update(text);
        }
    }
}

/// The id for the next row, and the hash before it.
pub(super) fn tail(connection: &Connection) -> Result<(i64, Hash), Error> {
    // Rises even where rows at the end were removed: the gap stays visible.
    let used: Option<i64> = connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'audit'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let last: Option<(i64, Option<Hash>)> = connection
        .prepare_cached("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (last_id, hash) = match last {
        Some((id, Some(hash))) => (id, hash),
        Some((id, None)) => (id, genesis(connection)?),
        None => (0, genesis(connection)?),
    };
    Ok((used.unwrap_or(0).max(last_id) + 1, hash))
}

/// The end of the chain as it stands, without a look at what is before.
///
/// # Errors
/// SQLite's.
pub fn head(connection: &Connection) -> Result<Head, Error> {
    let rows: i64 = connection.query_row("SELECT count(*) FROM audit", [], |row| row.get(0))?;
    let (_, hash) = tail(connection)?;
    let id: Option<i64> =
        connection.query_row("SELECT max(id) FROM audit", [], |row| row.get(0))?;
    Ok(Head {
        rows: rows.unsigned_abs(),
        id: id.unwrap_or(0),
        hash,
    })
}

/// The hash of no row, or of all rows that are older than the chain.
fn genesis(connection: &Connection) -> Result<Hash, Error> {
    let mut sum = Sha256::new_with_prefix(DOMAIN_GENESIS);
    let mut statement = connection.prepare(&format!("{COLUMNS} WHERE hash IS NULL ORDER BY id"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        sum.update(hash_of(row, &[0; 32])?);
    }
    Ok(sum.finalize().into())
}

fn hash_of(row: &Row<'_>, before: &Hash) -> Result<Hash, Error> {
    let text = |at: usize| -> Result<&str, Error> {
        Ok(row.get_ref(at)?.as_str().map_err(rusqlite::Error::from)?)
    };
    let fields = Fields {
        id: row.get(0)?,
        time_unix_us: row.get(1)?,
        actor: text(2)?,
        action: text(3)?,
        target: text(4)?,
        outcome: text(5)?,
        detail: text(6)?,
        origin: text(7)?,
        trace: text(8)?,
    };
    Ok(fields.hash(before))
}

/// Walks along the whole chain and compares it with what witnesses say. `expected` is sorted by id.
///
/// # Errors
/// SQLite's: a file that cannot be read, or that has no audit table. A chain that is wrong is no error but a report.
pub fn verify(connection: &Connection, expected: &[Expected]) -> Result<Report, Error> {
    let mut walk = Walk {
        hash: genesis(connection)?,
        last_id: None,
        is_chained: false,
        rows: 0,
        faults: Vec::new(),
        expected,
    };
    check_triggers(connection, &mut walk)?;
    let mut statement: Statement<'_> = connection.prepare(&format!("{COLUMNS} ORDER BY id"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        walk.take(row)?;
    }
    walk.end();
    Ok(Report {
        head: Head {
            rows: walk.rows,
            id: walk.last_id.unwrap_or(0),
            hash: walk.hash,
        },
        faults: walk.faults,
    })
}

fn check_triggers(connection: &Connection, walk: &mut Walk<'_>) -> Result<(), Error> {
    let mut statement =
        connection.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = ?1")?;
    for trigger in TRIGGERS {
        if !statement.exists(params![trigger])? {
            walk.fault(
                0,
                format!("the trigger {trigger} is missing: rows could be changed"),
            );
        }
    }
    Ok(())
}

/// The state of a walk.
struct Walk<'a> {
    hash: Hash,
    last_id: Option<i64>,
    /// Whether a row with a hash was seen.
    is_chained: bool,
    rows: u64,
    faults: Vec<Fault>,
    /// What witnesses say of rows that are still to come.
    expected: &'a [Expected],
}

impl Walk<'_> {
    fn take(&mut self, row: &Row<'_>) -> Result<(), Error> {
        let id: i64 = row.get(0)?;
        let due = self.last_id.map_or(1, |last| last + 1);
        if id != due {
            self.fault(id, format!("row {due} is missing before row {id}"));
        }
        self.rows += 1;
        self.last_id = Some(id);
        let stored: Option<Vec<u8>> = row.get(9)?;
        let stored = stored.and_then(|hash| Hash::try_from(hash).ok());
        match stored {
            Some(stored) => {
                if hash_of(row, &self.hash)? != stored {
                    let what = format!(
                        "row {id} does not fit to its hash: it or the row before was changed, moved or added"
                    );
                    self.fault(id, what);
                }
                // On with what stands there: one bad row is one fault.
                self.is_chained = true;
                self.hash = stored;
            }
            None if self.is_chained => {
                self.fault(
                    id,
                    format!("row {id} has no hash, though rows before it have"),
                );
            }
            None => {}
        }
        self.compare(id, stored);
        Ok(())
    }

    fn compare(&mut self, id: i64, stored: Option<Hash>) {
        while let Some((first, rest)) = self.expected.split_first() {
            if first.id > id {
                return;
            }
            self.expected = rest;
            if first.id < id {
                self.fault(
                    first.id,
                    format!("{} saw row {}, which is gone", first.witness, first.id),
                );
            } else if stored.is_some_and(|stored| stored != first.hash) {
                let what = format!(
                    "{} saw another row {id}: the chain was computed anew",
                    first.witness
                );
                self.fault(id, what);
            }
        }
    }

    /// What witnesses saw behind the last row was cut off.
    fn end(&mut self) {
        let last = self.last_id.unwrap_or(0);
        let cut = std::mem::take(&mut self.expected);
        if let Some(furthest) = cut.iter().rev().find(|expected| expected.id > last) {
            let what = format!(
                "the end was cut off: {} saw row {}, the last one here is {last}",
                furthest.witness, furthest.id
            );
            self.fault(last, what);
        }
    }

    fn fault(&mut self, id: i64, what: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { id, what });
        }
    }
}
