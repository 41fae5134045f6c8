//! A row by the command line while no host runs.

use alicia_module::{Clock, Paths};
use alicia_store::audit::{self, Entry, Origin, Outcome};
use alicia_store::{Options, Store};
use serde_json::json;

use super::HOST;
use super::keys::AuditKeys;

/// What was done.
#[derive(Debug, Clone)]
pub struct Done {
    /// Who: `user/1000`.
    pub actor: String,
    /// What: `secret.set`.
    pub action: String,
    /// On what: `secret:db`.
    pub target: String,
}

/// Why there is no row; then nothing may be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The keys.
    #[error("open the keys of the audit log")]
    Keys(#[source] std::io::Error),
    /// The directory.
    #[error("make the directory of the databases")]
    Directory(#[source] std::io::Error),
    /// The row.
    #[error("write to the audit log; nothing was done")]
    Store(#[from] alicia_store::Error),
}

/// The audit log of a host that does not run.
#[derive(Debug, Clone)]
pub struct Offline {
    paths: Paths,
}

impl Offline {
    /// Of this data directory.
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        Self {
            paths: paths.clone(),
        }
    }

    /// Writes a row; on return it is on disk.
    ///
    /// # Errors
    /// When it cannot be written, for example because a host has started meanwhile.
    pub async fn note(&self, done: Done, now_unix: f64) -> Result<(), Error> {
        use std::os::unix::fs::DirBuilderExt;
        let keys = AuditKeys::open(&self.paths.audit()).map_err(Error::Keys)?;
        let path = self.paths.database(HOST);
        let directory = path.with_file_name("");
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(Error::Directory)?;
        let options = Options::new(path, &[], Clock::system().for_store()).audit_key(keys.hashing);
        let store = Store::open(options)?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "microseconds of this millennium"
        )]
        let time_unix_us = (now_unix * 1e6) as i64;
        let write = store.write(move |tx| {
            let entry = Entry {
                time_unix_us,
                actor: &done.actor,
                action: &done.action,
                target: &done.target,
                outcome: Outcome::Done,
                detail: &json!({}),
            };
            audit::append(tx, &entry)
        });
        let written: Result<i64, alicia_store::Error> =
            Origin::new("command line", "").scope(write).await;
        store.close().await;
        written.map(drop).map_err(Error::Store)
    }
}
