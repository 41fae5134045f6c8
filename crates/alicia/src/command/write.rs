//! Writing files so that a reader finds the old text or the new one, and a crash leaves no half of either.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Writes a file, or replaces its text. The permissions of a file that is there are kept, and a link stays a link.
pub(super) fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let beside = beside(&target);
    let written = write_new(&beside, text, &target).and_then(|()| {
        fs::rename(&beside, &target).with_context(|| format!("write {}", path.display()))
    });
    if written.is_err() {
        // It may not have been made at all.
        fs::remove_file(&beside).ok();
    }
    written
}

fn write_new(beside: &Path, text: &str, target: &Path) -> anyhow::Result<()> {
    let cannot = || format!("write {}", target.display());
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(beside)
        .with_context(cannot)?;
    file.write_all(text.as_bytes()).with_context(cannot)?;
    if let Ok(metadata) = fs::metadata(target) {
        file.set_permissions(metadata.permissions())
            .with_context(cannot)?;
    }
    file.sync_all().with_context(cannot)
}

/// A name of this process alone, in the same directory, so that a rename is one step.
pub(super) fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.new", std::process::id()))
}
