//! Log files of instances: their line format, their names, and how the host reads them.
//!
//! A line is `2026-11-20T17:34:26.123456Z stdout F text`. `F` ends a line of the program, `P` is a piece
//! of a longer one whose rest follows with the same stream. The stream `keeper` is the keeper's own voice
//! (lines dropped, and why). Lines are `<stem>.log`, and files put aside are `<stem>.log.<number>`, where
//! a higher number is newer; numbers never repeat, so a reader that knows one finds the next. The host packs
//! files that were put aside into `<stem>.log.<number>.zst` ([`packed`]), which any reader of zstd reads as well.
//!
//! Reading order: [`Line`], [`Filter`], [`read_last`] (a log from its end), `Follow` (a log as it grows), `pack`.

#[cfg(feature = "client")]
mod bloom;
#[cfg(feature = "client")]
mod facts;
#[cfg(feature = "client")]
mod follow;
mod line;
#[cfg(feature = "client")]
pub mod packed;
#[cfg(feature = "client")]
mod read;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "client")]
pub use facts::{Facts, Level, level_of};
#[cfg(feature = "client")]
pub use follow::{Follow, From};
pub(crate) use line::{HEAD_BYTES, format};
pub use line::{Line, LineKind, Stream};
#[cfg(feature = "client")]
pub use read::{Filter, read_all, read_last};

/// What the name of a packed file ends in.
pub(crate) const PACKED: &str = ".zst";

/// A file that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// A higher number is newer.
    pub number: u64,
    /// Whether it is packed.
    pub is_packed: bool,
    /// The file.
    pub path: PathBuf,
}

/// Files that were put aside, oldest first. While one is being packed it is there twice, plain before packed.
///
/// # Errors
/// A directory that cannot be read.
pub fn put_aside(current: &Path) -> io::Result<Vec<Aside>> {
    let (Some(directory), Some(name)) = (current.parent(), current.file_name()) else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let aside = entry.file_name().to_str().and_then(|entry| {
            let number = entry.strip_prefix(name.to_str()?)?.strip_prefix('.')?;
            let plain = number.strip_suffix(PACKED);
            let is_packed = plain.is_some();
            Some((plain.unwrap_or(number).parse::<u64>().ok()?, is_packed))
        });
        files.extend(aside.map(|(number, is_packed)| Aside {
            number,
            is_packed,
            path: entry.path(),
        }));
    }
    files.sort_unstable_by_key(|aside| (aside.number, aside.is_packed));
    Ok(files)
}

/// The same, each number once.
#[cfg(feature = "client")]
pub(crate) fn put_aside_once(current: &Path) -> io::Result<Vec<Aside>> {
    let mut files = put_aside(current)?;
    files.dedup_by_key(|aside| aside.number);
    Ok(files)
}

/// The name of a file that was put aside.
pub(crate) fn numbered(current: &Path, number: u64) -> PathBuf {
    let mut name = current.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Length of a line in the file.
pub(crate) fn line_bytes(text: &[u8]) -> u64 {
    (HEAD_BYTES + text.len() + 1) as u64
}
