//! Numbered, forward-only migrations: the module's own, and those of the tables every store has.
//!
//! Table `migration` says what was applied, by whom and when. All that is pending is applied in one
//! transaction; an existing file is copied first.

use std::fmt::{self, Display, Formatter};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use sha2::{Digest, Sha256};

use crate::backup;
use crate::connection::{APPLICATION_ID, WriteConnection};
use crate::error::Error;
use crate::options::Options;

/// One step of a schema. Once released it is never edited; a later step changes what it made.
///
/// Plain SQL; BEGIN, COMMIT and ROLLBACK are refused. Foreign keys are off while it runs, so that a table may be
/// rebuilt, and checked before the COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// 1 for the first, then one more each time.
    pub number: u32,
    /// What it does, in a word or two.
    pub name: &'static str,
    /// The statements.
    pub sql: &'static str,
}

/// Whose part of a file's schema a migration makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The tables that every store has: audit, outbox.
    Store,
    /// The module's own tables.
    Module,
}

// === impl Owner ===

impl Owner {
    /// As it stands in table `migration`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Module => "module",
        }
    }
}

impl Display for Owner {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Tables that every store has, whatever its module.
const OF_THE_STORE: &[Migration] = &[
    Migration {
        number: 1,
        name: "audit and outbox",
        sql: include_str!("tables.sql"),
    },
    Migration {
        number: 2,
        name: "audit chain",
        sql: include_str!("audit_chain.sql"),
    },
];

/// The list of what was applied; made by hand because the steps are recorded in it.
const LIST: &str = "CREATE TABLE IF NOT EXISTS migration (
    owner TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_unix_us INTEGER NOT NULL,
    PRIMARY KEY (owner, number)
) STRICT, WITHOUT ROWID";

/// Whose schema a list of migrations makes.
struct Schema {
    owner: Owner,
    steps: &'static [Migration],
}

/// Checks what the file has against what the program knows, and applies the rest.
pub(crate) fn bring_up_to_date(
    writable: &mut WriteConnection,
    options: &Options,
) -> Result<(), Error> {
    let connection = &writable.connection;
    let schemas = [
        Schema {
            owner: Owner::Store,
            steps: OF_THE_STORE,
        },
        Schema {
            owner: Owner::Module,
            steps: options.migrations,
        },
    ];
    let opening = |source| Error::opening(&options.path, source);
    let is_new = !has_list(connection).map_err(opening)?;
    let mut pending = Vec::new();
    for schema in &schemas {
        check_order(options, schema)?;
        let applied = if is_new {
            Vec::new()
        } else {
            applied(connection, schema).map_err(opening)?
        };
        check_applied(options, schema, &applied)?;
        pending.extend(
            schema
                .steps
                .iter()
                .skip(applied.len())
                .map(|step| (schema.owner, step)),
        );
    }
    if pending.is_empty() {
        return Ok(());
    }
    if !is_new {
        backup::before_migration(&options.path, &backup_label(&pending))?;
    }
    apply_all(writable, options, &pending)
}

/// The `<n>` in `<file>.before-<n>.backup`: the module's first pending number where it has one.
fn backup_label(pending: &[(Owner, &'static Migration)]) -> String {
    pending
        .iter()
        .find(|(owner, _)| *owner == Owner::Module)
        .map(|(_, step)| step.number.to_string())
        .or_else(|| {
            pending
                .first()
                .map(|(owner, step)| format!("{owner}-{}", step.number))
        })
        .unwrap_or_default()
}

fn check_order(options: &Options, schema: &Schema) -> Result<(), Error> {
    for (expected, step) in (1..).zip(schema.steps) {
        if step.number != expected {
            let path = options.path.clone();
            return Err(Error::MigrationOrder {
                path,
                expected,
                found: step.number,
            });
        }
    }
    Ok(())
}

/// `applied` holds the checksums of 1, 2, 3, … in this order.
fn check_applied(options: &Options, schema: &Schema, applied: &[String]) -> Result<(), Error> {
    let (path, owner) = (options.path.clone(), schema.owner);
    if applied.len() > schema.steps.len() {
        let count = |length| u32::try_from(length).unwrap_or(u32::MAX);
        let (found, known) = (count(applied.len()), count(schema.steps.len()));
        return Err(Error::NewerSchema {
            path,
            owner,
            found,
            known,
        });
    }
    match schema
        .steps
        .iter()
        .zip(applied)
        .find(|(step, sum)| checksum(step.sql) != **sum)
    {
        None => Ok(()),
        Some((step, _)) => Err(Error::EditedMigration {
            path,
            owner,
            number: step.number,
            name: step.name,
        }),
    }
}

fn has_list(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .query_row(
            "SELECT 1 FROM sqlite_schema WHERE name = 'migration'",
            [],
            |_| Ok(()),
        )
        .optional()
        .map(|found| found.is_some())
}

fn applied(connection: &Connection, schema: &Schema) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT checksum FROM migration WHERE owner = ?1 ORDER BY number";
    let mut statement = connection.prepare(sql)?;
    let checksums = statement.query_map([schema.owner.as_str()], |row| row.get(0))?;
    checksums.collect()
}

fn apply_all(
    WriteConnection { connection, seal }: &mut WriteConnection,
    options: &Options,
    pending: &[(Owner, &'static Migration)],
) -> Result<(), Error> {
    let opening = |source| Error::opening(&options.path, source);
    // Has no effect inside a transaction.
    connection
        .pragma_update(None, "foreign_keys", false)
        .map_err(opening)?;
    let tx = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(opening)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)
        .map_err(opening)?;
    tx.execute_batch(LIST).map_err(opening)?;
    let now_unix_us = (options.clock)();
    for &(owner, step) in pending {
        seal.around(|| apply(&tx, owner, step, now_unix_us))
            .map_err(|source| Error::Migration {
                path: options.path.clone(),
                owner,
                number: step.number,
                name: step.name,
                source,
            })?;
    }
    check_references(&tx, options)?;
    tx.commit().map_err(opening)?;
    connection
        .pragma_update(None, "foreign_keys", true)
        .map_err(opening)
}

fn apply(
    tx: &Transaction<'_>,
    owner: Owner,
    step: &Migration,
    now_unix_us: i64,
) -> rusqlite::Result<()> {
    tx.execute_batch(step.sql)?;
    tx.execute(
        "INSERT INTO migration (owner, number, name, checksum, applied_unix_us)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            owner.as_str(),
            step.number,
            step.name,
            checksum(step.sql),
            now_unix_us
        ],
    )
    .map(drop)
}

fn check_references(tx: &Transaction<'_>, options: &Options) -> Result<(), Error> {
    let dangling: Option<String> = tx
        .query_row("PRAGMA foreign_key_check", [], |row| row.get(0))
        .optional()
        .map_err(|source| Error::opening(&options.path, source))?;
    match dangling {
        None => Ok(()),
        Some(table) => Err(Error::DanglingReference {
            path: options.path.clone(),
            table,
        }),
    }
}

fn checksum(sql: &str) -> String {
    Sha256::digest(sql)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
