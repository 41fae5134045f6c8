//! What `/proc` says about processes.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

/// One process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) session: u32,
    /// Field 22: ticks since boot. With the pid it names a process for good.
    pub(crate) start_ticks: u64,
    /// Ended; its parent has not taken its status.
    pub(crate) is_zombie: bool,
}

/// Room for a `stat` line, so that one read is enough.
const STAT_BYTES: usize = 1024;
/// Room for all of `/proc/vmstat`.
const VMSTAT_BYTES: usize = 8 * 1024;
/// Room for most environments.
const ENVIRONMENT_BYTES: usize = 16 * 1024;

/// Reads a file of `/proc`, whose size is not known, without asking for it.
fn read(path: &str, capacity: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(capacity);
    fs::File::open(path)
        .ok()?
        .take(u64::MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// Every process that can be seen.
pub(crate) fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(process).collect()
}

/// One process, if it is there.
pub(crate) fn process(pid: u32) -> Option<Process> {
    parse(pid, &read(&format!("/proc/{pid}/stat"), STAT_BYTES)?)
}

/// `pid (name) state ppid pgrp session …`; the name may hold anything, so the last `)` counts.
fn parse(pid: u32, stat: &[u8]) -> Option<Process> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 2..)?).ok()?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let start_ticks = fields.nth(15)?.parse().ok()?;
    let is_zombie = matches!(state, "Z" | "X");
    Some(Process {
        pid,
        parent,
        session,
        start_ticks,
        is_zombie,
    })
}

/// The longest chain of parents that is followed; a longer one is made by somebody who hides.
const ANCESTORS_MAX: usize = 128;

/// Whether a process is a descendant of another, or cannot be shown not to be.
pub(crate) fn may_descend_from(pid: u32, ancestor: u32) -> bool {
    let mut pid = pid;
    for _ in 0..ANCESTORS_MAX {
        match process(pid) {
            Some(process) if process.parent == ancestor => return true,
            // The first process of this namespace, or one whose parent is outside of it.
            Some(process) if process.parent == 0 => return false,
            Some(process) => pid = process.parent,
            None => return true,
        }
    }
    true
}

/// The value of a variable in the environment that a process was started with.
pub(crate) fn environment(pid: u32, name: &str) -> Option<String> {
    let bytes = read(&format!("/proc/{pid}/environ"), ENVIRONMENT_BYTES)?;
    bytes.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        String::from_utf8(value.to_vec()).ok()
    })
}

/// Whether a process has one of these pipes open as standard output or error.
pub(crate) fn writes_to(pid: u32, pipes: &[u64]) -> bool {
    [1, 2].iter().any(|fd| {
        let Ok(target) = fs::read_link(format!("/proc/{pid}/fd/{fd}")) else {
            return false;
        };
        let name = target.as_os_str().as_bytes();
        let inode = name
            .strip_prefix(b"pipe:[")
            .and_then(|rest| rest.strip_suffix(b"]"));
        let inode = inode.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        inode.is_some_and(|inode: u64| pipes.contains(&inode))
    })
}

/// What a process uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Use {
    /// Resident memory that is no file's, shared memory included, in bytes.
    pub(crate) private_bytes: u64,
    pub(crate) threads: u32,
}

/// What a process uses, if it is there.
pub(crate) fn use_of(pid: u32) -> Option<Use> {
    let status = read(&format!("/proc/{pid}/status"), 2 * STAT_BYTES)?;
    let status = String::from_utf8_lossy(&status);
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    // A kernel thread, or one that has ended, has no memory.
    let kib = number("RssAnon:").unwrap_or_default() + number("RssShmem:").unwrap_or_default();
    Some(Use {
        private_bytes: kib * 1_024,
        threads: u32::try_from(number("Threads:")?).ok()?,
    })
}

/// Processes and threads of a user, as `RLIMIT_NPROC` counts them.
pub(crate) fn tasks_of_user(user: u32) -> u64 {
    let Ok(entries) = fs::read_dir("/proc") else {
        return 0;
    };
    let of_user = entries.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse::<u32>().ok()?;
        let owner = std::os::unix::fs::MetadataExt::uid(&entry.metadata().ok()?);
        (owner == user).then_some(pid)
    });
    let threads = of_user.filter_map(|pid| Some(u64::from(use_of(pid)?.threads)));
    threads.sum()
}

/// Resident set of this process, in bytes.
pub(crate) fn own_rss_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * rustix::param::page_size() as u64
}

/// How often the kernel has killed for want of memory, on this machine since boot.
pub(crate) fn out_of_memory_kills() -> u64 {
    let vmstat = read("/proc/vmstat", VMSTAT_BYTES).unwrap_or_default();
    let vmstat = String::from_utf8_lossy(&vmstat);
    let line = vmstat
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.parse().ok())
        .unwrap_or_default()
}

/// Names this boot: start ticks mean nothing in another one.
pub(crate) fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pretend_to_be_fields() {
        let stat = b"77 (a) R 1 2) S 5 77 70 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 9999 1 2";
        let expect = Process {
            pid: 77,
            parent: 5,
            session: 70,
            start_ticks: 9999,
            is_zombie: false,
        };
        assert_eq!(parse(77, stat), Some(expect));
    }

    #[test]
    fn this_process_is_there() {
        let own = process(std::process::id()).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id());
        assert!(all().contains(&own));
        assert!(own_rss_bytes() > 0);
        let used = use_of(std::process::id()).unwrap();
        assert!(used.threads >= 1 && used.private_bytes > 0);
        let (own, parent) = (std::process::id(), own.parent);
        assert!(may_descend_from(own, parent) && may_descend_from(1 << 23, own));
        assert!(!may_descend_from(own, 1 << 23) && !may_descend_from(parent, own));
        assert_eq!(use_of(1 << 23), None);
        assert!(tasks_of_user(rustix::process::geteuid().as_raw()) >= u64::from(used.threads));
    }
}
