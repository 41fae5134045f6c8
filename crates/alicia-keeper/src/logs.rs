//! Log files of instances: their line format, their names, and how the host reads them.
//!
//! A line is `2026-11-20T17:34:26.123456Z stdout F text`. `F` ends a line of the program, `P` is a piece
//! of a longer one whose rest follows with the same stream. The stream `keeper` is the keeper's own voice
//! (lines dropped, and why). Lines are `<stem>.log`, and files put aside are `<stem>.log.<number>`, where
//! a higher number is newer; numbers never repeat, so a reader that knows one finds the next.

#[cfg(feature = "client")]
mod follow;
mod line;
mod read;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "client")]
pub use follow::{Follow, From};
pub(crate) use line::{HEAD_BYTES, format};
pub use line::{Line, LineKind, Stream};
pub use read::{Filter, read_all, read_last};

/// Files that were put aside, oldest first, with their numbers.
pub(crate) fn put_aside(current: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
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
        let number = entry.file_name().to_str().and_then(|entry| {
            let number = entry.strip_prefix(name.to_str()?)?.strip_prefix('.')?;
            number.parse::<u64>().ok()
        });
        files.extend(number.map(|number| (number, entry.path())));
    }
    files.sort_unstable_by_key(|(number, _)| *number);
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
