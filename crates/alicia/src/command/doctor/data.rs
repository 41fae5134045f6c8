//! The data directory: may it be written, by whom else, is there room, are its databases in bounds.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use alicia_module::Paths;
use rustix::fs::{Access, StatVfs, access, statvfs};

use super::Finding;
use crate::show;

/// With less, databases and logs stop soon.
const FREE_BYTES_FAIL: u64 = 64 << 20;
/// Below this it is time to look.
const FREE_BYTES_WARN: u64 = 1 << 30;
/// A log rotates through some files per instance; a database has three.
const FREE_INODES_FAIL: u64 = 1_000;
/// A write-ahead log is reset at each checkpoint; one that grows so large has a reader that never lets go.
const WAL_BYTES_WARN: u64 = 256 << 20;
/// The modules keep bounded histories: a larger database means that something is not cleaned up.
const DATABASE_BYTES_WARN: u64 = 4 << 30;
/// The rights of group and others.
const FOREIGN_RIGHTS: u32 = 0o077;

const CHECK: &str = "data directory";

pub(super) fn look(paths: &Paths) -> Vec<Finding> {
    let data = paths.data();
    let existing = data
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let mut findings = vec![directory(data, existing)];
    if let Ok(stat) = statvfs(existing) {
        findings.push(room(existing, &stat));
        findings.extend(inodes(existing, &stat));
    }
    findings.extend(databases(&data.join("data")));
    findings
}

fn directory(data: &Path, existing: &Path) -> Finding {
    let shown = data.display();
    let rights = Access::WRITE_OK | Access::EXEC_OK;
    if !existing.is_dir() {
        return Finding::fail(
            CHECK,
            format!("{} is not a directory", existing.display()),
            "name another with --data DIR",
        );
    }
    if let Err(error) = access(existing, rights) {
        let found = format!("{} cannot be written: {error}", existing.display());
        return Finding::fail(
            CHECK,
            found,
            "make it writable for this user, or name another with --data DIR",
        );
    }
    if existing != data {
        return Finding::ok(
            CHECK,
            format!("{shown}: not there yet, `alicia up` makes it"),
        );
    }
    match fs::metadata(data) {
        Ok(metadata) if metadata.uid() != rustix::process::geteuid().as_raw() => {
            let found = format!("{shown} belongs to the user {}", metadata.uid());
            Finding::warn(
                CHECK,
                found,
                "run Alicia as that user, or name another directory with --data DIR",
            )
        }
        Ok(metadata) if metadata.mode() & FOREIGN_RIGHTS != 0 => {
            let found = format!(
                "{shown} is open to other users (mode {:o}); it holds keys",
                metadata.mode() & 0o777
            );
            Finding::warn(CHECK, found, format!("chmod 700 {shown}"))
        }
        Ok(_) => Finding::ok(CHECK, format!("{shown}, writable")),
        Err(error) => Finding::fail(
            CHECK,
            format!("{shown} cannot be read: {error}"),
            "check its permissions",
        ),
    }
}

fn room(path: &Path, stat: &StatVfs) -> Finding {
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let found = format!("{} free for {}", show::bytes(free), path.display());
    let mend = "delete what is not needed, or move the data directory with `data:`";
    match free {
        0..FREE_BYTES_FAIL => Finding::fail("disk", found, mend),
        FREE_BYTES_FAIL..FREE_BYTES_WARN => Finding::warn("disk", found, mend),
        _ => Finding::ok("disk", found),
    }
}

/// Some file systems have no fixed number of inodes and say 0.
fn inodes(path: &Path, stat: &StatVfs) -> Option<Finding> {
    let is_short = stat.f_files > 0 && stat.f_favail < FREE_INODES_FAIL;
    is_short.then(|| {
        let found = format!(
            "only {} files can still be made on the file system of {}",
            stat.f_favail,
            path.display()
        );
        Finding::fail(
            "inodes",
            found,
            "delete directories with many small files; `df -i` shows the use",
        )
    })
}

fn databases(directory: &Path) -> Option<Finding> {
    let entries = fs::read_dir(directory).ok()?;
    let sizes = entries.flatten().filter_map(|entry| {
        Some((
            entry.file_name().to_string_lossy().into_owned(),
            entry.metadata().ok()?.len(),
        ))
    });
    let mut files: Vec<(String, u64)> = sizes.collect();
    files.sort();
    let limit = |name: &str| {
        if name.ends_with("-wal") {
            WAL_BYTES_WARN
        } else {
            DATABASE_BYTES_WARN
        }
    };
    if let Some((name, size)) = files.iter().find(|(name, size)| *size > limit(name)) {
        let found = format!("{name} has {}", show::bytes(*size));
        return Some(Finding::warn(
            "databases",
            found,
            "`alicia down && alicia up` ends readers that hold it; report it if it grows again",
        ));
    }
    // What was written last is in the log beside the database.
    let log_of = |name: &str| {
        let mut logs = files.iter();
        logs.find(|(log, _)| log.strip_suffix("-wal") == Some(name))
            .map_or(0, |(_, size)| *size)
    };
    let shown: Vec<String> = files
        .iter()
        .filter(|(name, _)| name.ends_with(".db"))
        .map(|(name, size)| format!("{name} {}", show::bytes(size + log_of(name))))
        .collect();
    (!shown.is_empty()).then(|| Finding::ok("databases", shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::command::doctor::Level;

    #[test]
    fn a_directory_is_judged_by_what_may_be_done_with_it() {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let data = temporary.path();
        let level = |rights: u32| {
            fs::set_permissions(data, fs::Permissions::from_mode(rights)).expect("it is ours");
            directory(data, data).level
        };
        assert_eq!(level(0o700), Level::Ok);
        assert_eq!(level(0o755), Level::Warn);
        let file = data.join("file");
        fs::write(&file, "").expect("writes");
        assert_eq!(directory(&file, &file).level, Level::Fail);
        assert_eq!(directory(&data.join("new"), data).level, Level::Ok);
    }

    #[test]
    fn databases_are_listed_and_a_huge_log_is_told() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(databases(directory.path()), None);
        fs::write(directory.path().join("health.db"), "x").expect("writes");
        assert_eq!(
            databases(directory.path()).expect("there is one").found,
            "health.db 1B"
        );
        let wal = fs::File::create(directory.path().join("health.db-wal")).expect("is made");
        wal.set_len(9).expect("is so long");
        assert_eq!(
            databases(directory.path()).expect("there is one").found,
            "health.db 10B"
        );
        wal.set_len(WAL_BYTES_WARN + 1)
            .expect("a sparse file takes no room");
        assert_eq!(
            databases(directory.path()).expect("there is one").level,
            Level::Warn
        );
        assert_eq!(databases(&directory.path().join("none")), None);
    }
}
