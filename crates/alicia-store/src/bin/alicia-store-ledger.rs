//! Test program: writes as fast as it can and prints each acknowledged id, until it is killed.
//!
//! `alicia-store-ledger FILE FIRST_ID`. What it printed is the ledger that `tests/kill.rs` holds the
//! file to. One line is one write(2), so a kill never tears a line that was acknowledged.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use alicia_store::{Error, Migration, Options, Store, Transaction};
use tokio::task::JoinSet;

/// Tasks that write at the same time, so that batches hold jobs of several.
const WRITERS: usize = 8;

/// Long enough that the log passes its size limits within the test.
const BODY_BYTES: usize = 120;

const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "ledger",
    sql: "CREATE TABLE entry (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
          CREATE TABLE mirror (id INTEGER PRIMARY KEY REFERENCES entry (id)) STRICT;",
}];

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(first_id)) = (arguments.next(), arguments.next()) else {
        return Err("usage: alicia-store-ledger FILE FIRST_ID".into());
    };
    let store = Store::open(Options::new(path, MIGRATIONS, Arc::new(|| 0)))?;
    let next_id = Arc::new(AtomicI64::new(first_id.parse()?));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write_for_ever(store.clone(), Arc::clone(&next_id)));
    }
    match writers.join_next().await {
        Some(ended) => ended?,
        None => Ok(()),
    }
}

/// Ends only when a write fails or nobody reads the ledger any more.
async fn write_for_ever(store: Store, next_id: Arc<AtomicI64>) -> Result<(), Failure> {
    loop {
        let id = next_id.fetch_add(1, Relaxed);
        store.write(move |tx| write(tx, id)).await?;
        std::io::stdout().write_all(format!("{id}\n").as_bytes())?;
    }
}

/// Two rows that only count together.
fn write(tx: &Transaction<'_>, id: i64) -> Result<(), Error> {
    let body = "x".repeat(BODY_BYTES);
    tx.prepare_cached("INSERT INTO entry (id, body) VALUES (?1, ?2)")?
        .execute((id, body))?;
    tx.prepare_cached("INSERT INTO mirror (id) VALUES (?1)")?
        .execute([id])?;
    Ok(())
}
