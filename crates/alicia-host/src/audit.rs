//! The audit log of the house: the host's own rows, refusals, checkpoints, and the reading of all modules' rows.
//!
//! ```text
//!  request ─► guard ─► row of the host ─► the platform's operation        what cannot be written down is not done
//!                 └──► module ─► row in the transaction of the change
//!  every minute, every 1,000 rows: the ends of all chains ─► signed ─► a file elsewhere, a retained topic
//! ```
//!
//! Reading order: `record` (the host's rows), [`checkpoint`] (the witness), [`read`] (pages), [`verify`].

pub mod checkpoint;
pub mod keys;
pub mod offline;
pub mod read;
pub(crate) mod record;
pub mod verify;

use std::path::{Path, PathBuf};

/// The name under which the host's own rows go.
pub const HOST: &str = "host";

/// The databases of a data directory, by module. Those of modules that were run alone are among them.
///
/// # Errors
/// A directory that cannot be read.
pub fn databases(directory: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(module) = name.and_then(|name| name.strip_suffix(".db")) {
            found.push((module.to_owned(), path.clone()));
        }
    }
    found.sort();
    Ok(found)
}
