//! Containment by cgroup version 2. A hierarchy without controllers is enough; limits need controllers.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::TreeLimit;

/// Controllers that hold limits.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// Period of `cpu.max`, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// `cgroup.events` has two short lines.
const EVENTS_BYTES: usize = 128;

/// The keeper's place in the hierarchy; instances are directories in it.
#[derive(Debug)]
pub(crate) struct CgroupRoot {
    path: PathBuf,
    controllers: Vec<String>,
}

/// The cgroup of one instance.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    directory: File,
    events: File,
}

// === impl CgroupRoot ===

impl CgroupRoot {
    /// Makes the keeper's directory below its own cgroup, or says why that does not work.
    pub(crate) fn discover(key: &str) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|it| it.to_string())?;
        let membership = fs::read_to_string("/proc/self/cgroup").map_err(|it| it.to_string())?;
        let own = own_directory(&mounts, &membership)
            .ok_or("no cgroup version 2 hierarchy is mounted that this process is in")?;
        let path = own.join(format!("alicia-{key}"));
        let explain = |error: io::Error| format!("{}: {error}", path.display());
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(explain(error));
            }
            _ => {}
        }
        if !path.join("cgroup.kill").exists() {
            drop(fs::remove_dir(&path));
            return Err("the kernel has no cgroup.kill (it came with Linux 5.14)".to_owned());
        }
        let controllers = enable_controllers(&own, &path);
        Ok(Self { path, controllers })
    }

    pub(crate) fn controllers(&self) -> &[String] {
        &self.controllers
    }

    pub(crate) fn create(&self, name: &str) -> io::Result<Cgroup> {
        let path = self.path.join(name);
        fs::create_dir(&path)?;
        Cgroup::open(path)
    }

    /// Instances that a dead keeper left.
    pub(crate) fn leftovers(&self) -> Vec<Cgroup> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories
            .filter_map(|entry| Cgroup::open(entry.path()).ok())
            .collect()
    }

    /// When the keeper ends with nothing left in it.
    pub(crate) fn remove(&self) {
        // Not empty: then it stays, and the next keeper finds it.
        drop(fs::remove_dir(&self.path));
    }
}

// === impl Cgroup ===

impl Cgroup {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let directory = File::open(&path)?;
        let events = File::open(path.join("cgroup.events"))?;
        Ok(Self {
            path,
            directory,
            events,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Says `EPOLLPRI` when the cgroup becomes empty.
    pub(crate) fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Whether a process is in it or below it. Zombies do not count.
    pub(crate) fn is_populated(&self) -> bool {
        let mut text = [0; EVENTS_BYTES];
        match self.events.read_at(&mut text, 0) {
            Ok(length) => text[..length]
                .split(|byte| *byte == b'\n')
                .any(|line| line == b"populated 1"),
            // The directory is gone.
            Err(_) => false,
        }
    }

    /// Every process in it and below it.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        collect_pids(&self.path, &mut pids);
        pids
    }

    /// Whether a process is in it or below it, now.
    pub(crate) fn holds(&self, pid: u32) -> bool {
        let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let own = membership
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap_or_default();
        // The last two parts name the keeper's directory and the run, wherever the hierarchy is mounted.
        let mut parts = self.path.iter().rev().map(|it| it.to_string_lossy());
        let (Some(run), Some(root)) = (parts.next(), parts.next()) else {
            return false;
        };
        own.split_once(&format!("/{root}/{run}"))
            .is_some_and(|(_, below)| below.is_empty() || below.starts_with('/'))
    }

    /// Kills every process in it and below it; one that is just being forked does not escape.
    pub(crate) fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }

    /// Removes it and what a service may have made in it. False: not empty yet.
    pub(crate) fn remove(&self) -> bool {
        remove_tree(&self.path)
    }

    /// Sets a limit, or says why that does not work.
    pub(crate) fn hold(&self, limit: TreeLimit) -> Result<(), String> {
        let (file, value) = setting(limit);
        fs::write(self.path.join(file), &value).map_err(|error| match error.kind() {
            // The kernel says so too of a file that cannot be made.
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                format!("cgroup version 2 has no {file} here")
            }
            _ => format!("{file} = {value}: {error}"),
        })?;
        if let TreeLimit::Memory(_) = limit {
            // The instance ends as a whole, and at its limit instead of becoming slow. Older kernels, and
            // those without swap, lack these.
            drop(fs::write(self.path.join("memory.oom.group"), "1"));
            drop(fs::write(self.path.join("memory.swap.max"), "0"));
        }
        Ok(())
    }

    /// The most memory that it used, in bytes; `None` without the controller (or before Linux 5.19).
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        let peak = fs::read_to_string(self.path.join("memory.peak")).ok()?;
        peak.trim().parse().ok()
    }

    /// How many of its processes the kernel killed for want of memory; `None` without the controller.
    pub(crate) fn out_of_memory_kills(&self) -> Option<u64> {
        let events = fs::read_to_string(self.path.join("memory.events")).ok()?;
        events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
    }
}

/// The file of a limit, and what to write.
fn setting(limit: TreeLimit) -> (&'static str, String) {
    match limit {
        TreeLimit::Memory(bytes) => ("memory.max", bytes.to_string()),
        TreeLimit::Cpu(percent) => {
            let quota_us = u64::from(percent) * CPU_PERIOD_US / 100;
            ("cpu.max", format!("{quota_us} {CPU_PERIOD_US}"))
        }
        TreeLimit::Processes(count) => ("pids.max", count.to_string()),
    }
}

/// Turns on the controllers that are there. This fails where processes live beside us (the rule of "no
/// internal processes"); then limits are reported as not enforced.
fn enable_controllers(own: &Path, path: &Path) -> Vec<String> {
    for directory in [own, path] {
        for controller in CONTROLLERS {
            // What is in force is read below.
            drop(fs::write(
                directory.join("cgroup.subtree_control"),
                format!("+{controller}"),
            ));
        }
    }
    let enabled = fs::read_to_string(path.join("cgroup.subtree_control")).unwrap_or_default();
    enabled.split_whitespace().map(str::to_owned).collect()
}

/// The directory of the cgroup that this process is in.
fn own_directory(mounts: &str, membership: &str) -> Option<PathBuf> {
    let own = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        if after.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = before.split(' ').skip(3);
        let root = fields.next()?;
        let mount_point = fields.next()?;
        // A mount may show a part of the hierarchy only.
        let below = Path::new(own).strip_prefix(root).ok()?;
        Some(Path::new(mount_point).join(below))
    })
}

fn collect_pids(directory: &Path, pids: &mut Vec<u32>) {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for child in children(directory) {
        collect_pids(&child, pids);
    }
}

fn remove_tree(directory: &Path) -> bool {
    for child in children(directory) {
        remove_tree(&child);
    }
    match fs::remove_dir(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_directory_is_found_in_every_layout() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let part = "30 23 0:26 /a/b /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        for (mounts, membership, expect) in [
            (hybrid, "9:pids:/x\n0::/\n", Some("/sys/fs/cgroup/unified/")),
            (
                unified,
                "0::/user.slice/a.scope\n",
                Some("/sys/fs/cgroup/user.slice/a.scope"),
            ),
            (part, "0::/a/b/c\n", Some("/sys/fs/cgroup/c")),
            (part, "0::/elsewhere\n", None),
            ("", "0::/\n", None),
            (unified, "9:pids:/x\n", None),
        ] {
            assert_eq!(own_directory(mounts, membership), expect.map(PathBuf::from));
        }
    }

    #[test]
    fn limits_are_written_in_the_kernels_units() {
        let check = |limit, file, value: &str| {
            assert_eq!(setting(limit), (file, value.to_owned()));
        };
        check(TreeLimit::Memory(1_048_576), "memory.max", "1048576");
        check(TreeLimit::Cpu(150), "cpu.max", "150000 100000");
        check(TreeLimit::Processes(5), "pids.max", "5");
    }
}
