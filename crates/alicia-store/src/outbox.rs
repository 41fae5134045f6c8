//! The outbox: messages that must not be lost, written in the same transaction as the change they tell.
//!
//! ```text
//!  job: change + push ──COMMIT──► take ──► send, wait for the acknowledgement ──► done
//! ```
//!
//! A crash between sending and [`done`] sends again: delivery is at least once, in the order of the
//! ids, and an id is never used twice, so receivers can tell a repeat. One task of the module drains
//! it; `take` gives the same messages until they are done.

use rusqlite::{Connection, Transaction, params};

use crate::error::Error;

/// Largest payload: above this a message would not pass the bus.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// Most messages of one [`take`].
pub const TAKE_ROWS_MAX: u32 = 1000;

/// A message that waits to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Rises with every message, never used twice.
    pub id: i64,
    /// Where to.
    pub topic: String,
    /// The bytes, as given.
    pub payload: Vec<u8>,
}

/// Adds a message and gives its id. Call it in the closure that makes the change.
///
/// # Errors
/// [`Error::TooLarge`], or SQLite's.
pub fn push(tx: &Transaction<'_>, topic: &str, payload: &[u8]) -> Result<i64, Error> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Error::TooLarge {
            what: "the payload of an outbox message",
            bytes: payload.len(),
            limit_bytes: PAYLOAD_BYTES_MAX,
        });
    }
    tx.prepare_cached("INSERT INTO outbox (topic, payload) VALUES (?1, ?2)")?
        .execute(params![topic, payload])?;
    Ok(tx.last_insert_rowid())
}

/// The oldest messages, at most `limit` and never more than [`TAKE_ROWS_MAX`]. They stay.
///
/// # Errors
/// SQLite's.
pub fn take(connection: &Connection, limit: u32) -> Result<Vec<Message>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT id, topic, payload FROM outbox ORDER BY id LIMIT ?1")?;
    let messages = statement.query_map([limit.min(TAKE_ROWS_MAX)], |row| {
        Ok(Message {
            id: row.get(0)?,
            topic: row.get(1)?,
            payload: row.get(2)?,
        })
    })?;
    Ok(messages.collect::<Result<_, _>>()?)
}

/// Removes messages that were delivered, and gives how many were there. Repeating it is no fault.
///
/// # Errors
/// SQLite's.
pub fn done(tx: &Transaction<'_>, ids: &[i64]) -> Result<usize, Error> {
    let mut statement = tx.prepare_cached("DELETE FROM outbox WHERE id = ?1")?;
    let mut removed = 0;
    for id in ids {
        removed += statement.execute([id])?;
    }
    Ok(removed)
}

/// How many messages wait: a gauge for `/metrics` and health.
///
/// # Errors
/// SQLite's.
pub fn depth(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))?)
}
