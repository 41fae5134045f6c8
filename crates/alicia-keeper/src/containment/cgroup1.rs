//! Limits by controllers of cgroup version 1, where version 2 has none: on machines with both, and in
//! containers that pass version 1 on. Processes are held together by other means; these groups only limit.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};

/// Controllers that hold limits of a tree.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// Period of the processor's quota, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// The keeper's place in each hierarchy. Directories are made when the first instance needs one.
#[derive(Debug, Default)]
pub(crate) struct Cgroup1Root {
    /// Controller to `<own cgroup>/alicia-<key>`.
    directories: BTreeMap<&'static str, PathBuf>,
}

/// Controllers of cgroup version 1 that a keeper started here could use: `memory`, `cpu`, `pids`.
pub fn controllers_of_version_1() -> Vec<String> {
    Cgroup1Root::discover("").controllers()
}

/// A limit of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TreeLimit {
    /// In bytes.
    Memory(u64),
    /// In hundredths of one core.
    Cpu(u32),
    /// Processes and threads.
    Processes(u32),
}

// === impl TreeLimit ===

impl TreeLimit {
    /// As people write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Cpu(_) => "cpu",
            Self::Processes(_) => "processes",
        }
    }

    fn controller(self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Cpu(_) => "cpu",
            Self::Processes(_) => "pids",
        }
    }

    /// Files of version 1 and what to write, in this order.
    fn settings(self) -> Vec<(&'static str, String)> {
        match self {
            Self::Memory(bytes) => vec![("memory.limit_in_bytes", bytes.to_string())],
            Self::Cpu(percent) => vec![
                ("cpu.cfs_period_us", CPU_PERIOD_US.to_string()),
                (
                    "cpu.cfs_quota_us",
                    (u64::from(percent) * CPU_PERIOD_US / 100).to_string(),
                ),
            ],
            Self::Processes(count) => vec![("pids.max", count.to_string())],
        }
    }
}

// === impl Cgroup1Root ===

impl Cgroup1Root {
    /// Where limits may be set, as far as can be seen without making anything.
    pub(crate) fn discover(key: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let directories = CONTROLLERS.into_iter().filter_map(|controller| {
            let own = own_directory(&mounts, &membership, controller)?;
            rustix::fs::access(&own, rustix::fs::Access::WRITE_OK).ok()?;
            Some((controller, own.join(format!("alicia-{key}"))))
        });
        Self {
            directories: directories.collect(),
        }
    }

    pub(crate) fn controllers(&self) -> Vec<String> {
        self.directories.keys().map(|it| (*it).to_owned()).collect()
    }

    /// Makes the group of a run with this limit; who writes to the file that is returned is in it.
    pub(crate) fn hold(&self, name: &str, limit: TreeLimit) -> Result<File, String> {
        let controller = limit.controller();
        let root = self
            .directories
            .get(controller)
            .ok_or_else(|| format!("no writable controller \"{controller}\" of version 1"))?;
        let path = root.join(name);
        let explain = |error: io::Error| format!("{}: {error}", path.display());
        fs::create_dir_all(&path).map_err(explain)?;
        for (file, value) in limit.settings() {
            fs::write(path.join(file), &value)
                .map_err(|error| format!("{}: {error}", path.join(file).display()))?;
        }
        if let TreeLimit::Memory(bytes) = limit {
            // Without swap, so that what is over the limit ends instead of becoming slow. There may be no
            // account of swap.
            drop(fs::write(
                path.join("memory.memsw.limit_in_bytes"),
                bytes.to_string(),
            ));
        }
        let procs = path.join("cgroup.procs");
        OpenOptions::new().write(true).open(procs).map_err(explain)
    }

    /// Where the number of processes is held, one group for each run.
    pub(crate) fn processes(&self) -> Option<&Path> {
        self.directories.get("pids").map(PathBuf::as_path)
    }

    /// Readable when the kernel is out of memory for this run; `None` where that cannot be heard.
    pub(crate) fn out_of_memory_event(&self, name: &str) -> Option<OwnedFd> {
        let path = self.directories.get("memory")?.join(name);
        let control = File::open(path.join("memory.oom_control")).ok()?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        let numbers = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
        fs::write(path.join("cgroup.event_control"), numbers).ok()?;
        Some(event)
    }

    /// How many processes of the run the kernel killed for want of memory.
    pub(crate) fn out_of_memory_kills(&self, name: &str) -> Option<u64> {
        let path = self.directories.get("memory")?.join(name);
        let control = fs::read_to_string(path.join("memory.oom_control")).ok()?;
        control
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
    }

    /// The most memory that the run used, in bytes.
    pub(crate) fn memory_peak(&self, name: &str) -> Option<u64> {
        let path = self.directories.get("memory")?.join(name);
        let peak = fs::read_to_string(path.join("memory.max_usage_in_bytes")).ok()?;
        peak.trim().parse().ok()
    }

    /// Removes the groups of a run. False: one is not empty yet.
    pub(crate) fn remove(&self, name: &str) -> bool {
        let paths = self.directories.values().map(|root| root.join(name));
        paths
            .filter(|path| match fs::remove_dir(path) {
                Ok(()) => false,
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            })
            .count()
            == 0
    }

    /// Groups that a dead keeper left and that are empty, by name.
    pub(crate) fn sweep(&self) {
        for root in self.directories.values() {
            let entries = fs::read_dir(root).into_iter().flatten().flatten();
            for path in entries.map(|entry| entry.path()).filter(|it| it.is_dir()) {
                // One that is not empty goes with its run.
                drop(fs::remove_dir(path));
            }
        }
    }

    /// When the keeper ends with nothing left in it.
    pub(crate) fn remove_root(&self) {
        for root in self.directories.values() {
            drop(fs::remove_dir(root));
        }
    }
}

/// The directory of the cgroup of a controller that this process is in.
fn own_directory(mounts: &str, membership: &str, controller: &str) -> Option<PathBuf> {
    let has = |list: &str| list.split(',').any(|it| it == controller);
    let own = membership.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        has(fields.next()?).then(|| fields.next())?
    })?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        if after.next()? != "cgroup" || !has(after.nth(1)?) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_directory_of_a_controller_is_found() {
        let mounts = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      37 31 0:34 /docker/x /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let membership = "4:memory:/a/b\n3:cpuacct,cpu:/\n2:pids:/docker/x/y\n0::/z\n";
        let check = |controller: &str, expect: Option<&str>| {
            let got = own_directory(mounts, membership, controller);
            assert_eq!(got, expect.map(PathBuf::from), "{controller}");
        };
        check("memory", Some("/sys/fs/cgroup/memory/a/b"));
        check("cpu", Some("/sys/fs/cgroup/cpu,cpuacct/"));
        check("pids", Some("/sys/fs/cgroup/pids/y"));
        check("blkio", None);
    }

    #[test]
    fn limits_are_written_in_the_kernels_units() {
        let expect = [
            ("cpu.cfs_period_us", "100000".to_owned()),
            ("cpu.cfs_quota_us", "150000".to_owned()),
        ];
        assert_eq!(TreeLimit::Cpu(150).settings(), expect);
    }
}
