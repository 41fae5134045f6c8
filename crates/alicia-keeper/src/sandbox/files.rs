//! Which files: rules of Landlock, each an open path and what may be done below it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::invalid;
use crate::protocol::{Failure, FileAccess};
use crate::sys::{FileRights, Landlock};

/// What programs need to start: themselves, libraries, settings, time zones, certificates, names.
const SYSTEM: [&str; 12] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/proc",
    "/sys",
    "/run/systemd/resolve",
    "/run/resolvconf",
];
/// Top-level directories that belong to the kernel and to the start of the machine: for reading only.
const PROTECTED: [&str; 3] = ["proc", "sys", "boot"];
/// Devices without power over the machine.
const DEVICES: [&str; 8] = [
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts",
];
/// Shared memory of the user's own.
const SHARED_MEMORY: [&str; 2] = ["shm", "mqueue"];
/// Graphics processors and accelerators.
const GRAPHICS: [&str; 5] = ["nvidia", "dri", "kfd", "dxg", "accel"];

/// The rules.
pub(super) fn rules(
    wanted: Option<&FileAccess>,
    program: &Path,
    landlock: &mut Landlock,
) -> Result<(), Failure> {
    landlock.handle_files();
    let is_open = wanted.is_none();
    devices(is_open, landlock)?;
    let Some(wanted) = wanted else {
        return everything(landlock);
    };
    for path in &wanted.writable {
        allow_listed(path, FileRights::WRITE, landlock)?;
    }
    match &wanted.read_only {
        None => allow_listed(Path::new("/"), FileRights::READ, landlock)?,
        Some(paths) => {
            for path in paths {
                allow_listed(path, FileRights::READ, landlock)?;
            }
            if wanted.with_system {
                for path in SYSTEM {
                    allow_if_there(Path::new(path), FileRights::READ, landlock)?;
                }
            }
            allow_listed(program, FileRights::READ, landlock)?;
        }
    }
    Ok(())
}

/// All but what is the kernel's own. Landlock can only allow, so every other directory is.
fn everything(landlock: &mut Landlock) -> Result<(), Failure> {
    allow_listed(Path::new("/"), FileRights::LIST, landlock)?;
    for path in entries(Path::new("/")) {
        let name = path
            .file_name()
            .and_then(|it| it.to_str())
            .unwrap_or_default();
        match name {
            "dev" => {}
            _ if PROTECTED.contains(&name) => {
                allow_if_there(&path, FileRights::READ, landlock)?;
            }
            _ => allow_if_there(&path, FileRights::WRITE, landlock)?,
        }
    }
    Ok(())
}

fn devices(is_open: bool, landlock: &mut Landlock) -> Result<(), Failure> {
    let directory = Path::new("/dev");
    for name in DEVICES {
        allow_if_there(&directory.join(name), FileRights::DEVICE, landlock)?;
    }
    if is_open {
        for name in SHARED_MEMORY {
            allow_if_there(&directory.join(name), FileRights::WRITE, landlock)?;
        }
        let is_graphics = |path: &PathBuf| {
            let name = path
                .file_name()
                .and_then(|it| it.to_str())
                .unwrap_or_default();
            GRAPHICS.iter().any(|prefix| name.starts_with(prefix))
        };
        for path in entries(directory).into_iter().filter(is_graphics) {
            allow_if_there(&path, FileRights::DEVICE, landlock)?;
        }
    }
    Ok(())
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// A path that somebody wrote down.
fn allow_listed(path: &Path, rights: FileRights, landlock: &mut Landlock) -> Result<(), Failure> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(invalid(format!("{shown} must be an absolute path")));
    }
    let file = open(path).map_err(|error| {
        invalid(format!(
            "{shown} cannot be allowed: {error}; make it, or correct the path"
        ))
    })?;
    add(file, rights, landlock).map_err(|error| invalid(format!("{shown}: {error}")))
}

/// One of the system's own, which differs from machine to machine.
fn allow_if_there(path: &Path, rights: FileRights, landlock: &mut Landlock) -> Result<(), Failure> {
    match open(path) {
        Ok(file) => add(file, rights, landlock)
            .map_err(|error| invalid(format!("{}: {error}", path.display()))),
        // Not there, or not for the keeper, and so not for the child.
        Err(_) => Ok(()),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC);
    options.open(path)
}

fn add(file: File, rights: FileRights, landlock: &mut Landlock) -> io::Result<()> {
    let is_directory = file.metadata()?.is_dir();
    landlock.allow_path(file.into(), rights, is_directory);
    Ok(())
}
