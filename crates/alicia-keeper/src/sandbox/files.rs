//! Which files: rules of Landlock, each an open path and what may be done below it.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::invalid;
use crate::protocol::{Failure, Sandbox};
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

/// More entries beside hidden paths than anybody looks through, and some milliseconds of work.
const RULES_MAX: usize = 4_096;

/// The rules.
pub(super) fn rules(
    wanted: &Sandbox,
    program: &Path,
    landlock: &mut Landlock,
) -> Result<(), Failure> {
    landlock.handle_files();
    let hidden: Vec<PathBuf> = wanted
        .hidden
        .iter()
        .map(|path| canonical(path))
        .collect::<Result<_, _>>()?;
    let mut rules = Rules {
        landlock,
        hidden,
        count: 0,
    };
    rules.devices(wanted.files.is_none())?;
    for path in &wanted.own.read_only {
        rules.allow(&canonical(path)?, FileRights::READ)?;
    }
    for path in &wanted.own.writable {
        rules.allow(&canonical(path)?, FileRights::WRITE)?;
    }
    let Some(files) = &wanted.files else {
        return rules.everything();
    };
    for path in &files.writable {
        rules.allow_listed(path, FileRights::WRITE)?;
    }
    match &files.read_only {
        None => rules.allow_listed(Path::new("/"), FileRights::READ)?,
        Some(paths) => {
            for path in paths {
                rules.allow_listed(path, FileRights::READ)?;
            }
            if files.with_system {
                for path in SYSTEM {
                    rules.allow_if_there(Path::new(path), FileRights::READ)?;
                }
            }
            rules.allow_listed(program, FileRights::READ)?;
        }
    }
    Ok(())
}

/// Rules that are being written.
struct Rules<'l> {
    landlock: &'l mut Landlock,
    /// Without symbolic links on the way.
    hidden: Vec<PathBuf>,
    count: usize,
}

impl Rules<'_> {
    /// All but what is the kernel's own. Landlock can only allow, so every other directory is.
    fn everything(&mut self) -> Result<(), Failure> {
        let root = Path::new("/");
        self.allow(root, FileRights::LIST)?;
        for path in entries(root) {
            match name_of(&path) {
                "dev" => {}
                name if PROTECTED.contains(&name) => {
                    self.allow_if_there(&path, FileRights::READ)?;
                }
                _ => self.allow_if_there(&path, FileRights::WRITE)?,
            }
        }
        Ok(())
    }

    fn devices(&mut self, is_open: bool) -> Result<(), Failure> {
        let directory = Path::new("/dev");
        for name in DEVICES {
            self.allow_if_there(&directory.join(name), FileRights::DEVICE)?;
        }
        if is_open {
            for name in SHARED_MEMORY {
                self.allow_if_there(&directory.join(name), FileRights::WRITE)?;
            }
            let is_graphics = |path: &PathBuf| {
                GRAPHICS
                    .iter()
                    .any(|prefix| name_of(path).starts_with(prefix))
            };
            for path in entries(directory).into_iter().filter(is_graphics) {
                self.allow_if_there(&path, FileRights::DEVICE)?;
            }
        }
        Ok(())
    }

    /// A path that somebody wrote down.
    fn allow_listed(&mut self, path: &Path, rights: FileRights) -> Result<(), Failure> {
        self.allow_but_hidden(&canonical(path)?, rights)
    }

    /// One of the system's own, which differs from machine to machine.
    fn allow_if_there(&mut self, path: &Path, rights: FileRights) -> Result<(), Failure> {
        // Not there, or not for the keeper, and so not for the child.
        match path.canonicalize() {
            Ok(path) => self.allow_but_hidden(&path, rights),
            Err(_) => Ok(()),
        }
    }

    /// Everything beside hidden paths, one by one. A symbolic link has no rights: where it leads to has.
    fn allow_but_hidden(&mut self, path: &Path, rights: FileRights) -> Result<(), Failure> {
        if self.hidden.iter().any(|hidden| path.starts_with(hidden)) {
            return Ok(());
        }
        if !self.hidden.iter().any(|hidden| hidden.starts_with(path)) {
            return self.allow(path, rights);
        }
        self.allow(path, FileRights::LIST)?;
        for entry in entries(path).into_iter().filter(|it| !it.is_symlink()) {
            self.allow_but_hidden(&entry, rights)?;
        }
        Ok(())
    }

    fn allow(&mut self, path: &Path, rights: FileRights) -> Result<(), Failure> {
        self.count += 1;
        if self.count > RULES_MAX {
            return Err(invalid(format!(
                "there are more than {RULES_MAX} files beside those that are hidden, \
                 at {}: hide a directory that has fewer beside it",
                path.display()
            )));
        }
        let mut options = fs::OpenOptions::new();
        options
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_CLOEXEC);
        let opened = options.open(path);
        let opened = opened.and_then(|file| Ok((file.metadata()?.is_dir(), file)));
        match opened {
            Ok((is_directory, file)) => {
                self.landlock.allow_path(file.into(), rights, is_directory);
                Ok(())
            }
            // An entry that is gone since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(invalid(format!("{}: {error}", path.display()))),
        }
    }
}

fn canonical(path: &Path) -> Result<PathBuf, Failure> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(invalid(format!("{shown} must be an absolute path")));
    }
    path.canonicalize().map_err(|error| {
        invalid(format!(
            "{shown} cannot be allowed or hidden: {error}; make it, or correct the path"
        ))
    })
}

fn name_of(path: &Path) -> &str {
    path.file_name()
        .and_then(|it| it.to_str())
        .unwrap_or_default()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
