//! One SQLite file per module, with one writer thread and group commit.
//!
//! A write is a closure. Closures that wait at the same time share one transaction and one fsync,
//! each in its own savepoint, so that one that fails is undone alone. [`Store::write`] resolves only
//! after the COMMIT that holds its rows is on disk.
//!
//! ```
//! use std::sync::Arc;
//! use alicia_store::{Error, Migration, Options, Store};
//!
//! const MIGRATIONS: &[Migration] = &[Migration {
//!     number: 1,
//!     name: "lamps",
//!     sql: "CREATE TABLE lamp (name TEXT PRIMARY KEY, lit INTEGER NOT NULL) STRICT",
//! }];
//!
//! # fn main() -> Result<(), Error> {
//! # let directory = tempfile::tempdir().expect("a temporary directory");
//! let clock = Arc::new(|| 1_700_000_000_000_000);
//! let store = Store::open(Options::new(directory.path().join("home.db"), MIGRATIONS, clock))?;
//! let id = store.write_blocking(|tx| -> Result<i64, Error> {
//!     tx.execute("INSERT INTO lamp (name, lit) VALUES ('hall', 1)", [])?;
//!     Ok(tx.last_insert_rowid())
//! })?;
//! assert_eq!(id, 1);
//! # Ok(())
//! # }
//! ```

mod error;
mod options;
mod store;

mod connection;
mod lock;
mod migration;

mod checkpoint;
mod job;
mod reader;
mod writer;

mod backup;
mod stats;

pub mod audit;
pub mod outbox;

pub use error::Error;
pub use job::Pending;
pub use migration::{Migration, Owner};
pub use options::{Clock, Kind, Options};
pub use reader::{READ_WAIT, READERS};
pub use stats::Stats;
pub use store::Store;
pub use writer::{BATCH_JOBS_MAX, QUEUE_JOBS_MAX};

pub use rusqlite::{self, Connection, Transaction};
