//! Limits of the kernel, memory, containment, and the programs that some services need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use alicia_keeper::Kernel;
use rustix::process::{Resource, getrlimit};

use super::{CONTAINMENT, Finding, LIMITS, first_line};
use crate::show;

/// Each instance takes some descriptors of the keeper, each client of the bus one of the host.
const OPEN_FILES_FAIL: u64 = 256;
const OPEN_FILES_WARN: u64 = 1_024;

/// Each instance is at least one process, most have threads.
const TASKS_WARN: u64 = 512;

/// Followers of logs take one each; editors and desktops take some dozens of the same user.
const INOTIFY_INSTANCES_WARN: u64 = 64;

/// With less, the kernel begins to kill.
const MEMORY_BYTES_WARN: u64 = 128 << 20;

pub(super) fn look() -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let mut findings = vec![open_files(getrlimit(Resource::Nofile).current)];
    findings.push(tasks(task_limits().into_iter().flatten().min()));
    let inotify = read("/proc/sys/fs/inotify/max_user_instances");
    findings.extend(inotify.and_then(|text| inotify_instances(text.trim().parse().ok()?)));
    findings.extend(read("/proc/meminfo").and_then(|text| memory(&text)));
    findings.push(sandbox(Kernel::ask()));
    findings.push(python());
    findings.push(gpu(read("/proc/driver/nvidia/version")));
    findings
}

fn open_files(limit: Option<u64>) -> Finding {
    let mend = "raise it: `ulimit -n 65536` before `alicia up`, or LimitNOFILE= in its unit";
    let found = limit.map_or_else(|| "no limit".to_owned(), |limit| format!("at most {limit}"));
    match limit.unwrap_or(u64::MAX) {
        0..OPEN_FILES_FAIL => Finding::fail("open files", found, mend),
        OPEN_FILES_FAIL..OPEN_FILES_WARN => Finding::warn("open files", found, mend),
        _ => Finding::ok("open files", found),
    }
}

/// Of the user, of the machine, and of the cgroup of this process.
fn task_limits() -> [Option<u64>; 3] {
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse().ok();
    let cgroup = own_cgroup().and_then(|path| number(path.join("pids.max")));
    // Root is not bound by the limit of a user (setrlimit(2)).
    let is_root = rustix::process::geteuid().is_root();
    let of_user = getrlimit(Resource::Nproc).current.filter(|_| !is_root);
    [of_user, number("/proc/sys/kernel/pid_max".into()), cgroup]
}

fn tasks(limit: Option<u64>) -> Finding {
    let found = limit.map_or_else(|| "no limit".to_owned(), |limit| format!("at most {limit}"));
    match limit {
        Some(..TASKS_WARN) => {
            let mend = "raise it: `ulimit -u 4096` before `alicia up`, or TasksMax= of its unit or container";
            Finding::warn("processes", found, mend)
        }
        _ => Finding::ok("processes", found),
    }
}

/// Told only when it is short.
fn inotify_instances(limit: u64) -> Option<Finding> {
    let mend = "`sysctl fs.inotify.max_user_instances=512`; without, logs are followed by looking now and then";
    let found = || format!("at most {limit} instances a user");
    (limit < INOTIFY_INSTANCES_WARN).then(|| Finding::warn("inotify", found(), mend))
}

fn memory(meminfo: &str) -> Option<Finding> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let bytes = kib.saturating_mul(1_024);
    let found = format!("{} available", show::bytes(bytes));
    Some(match bytes {
        ..MEMORY_BYTES_WARN => Finding::warn(
            "memory",
            found,
            "end what is not needed before the kernel does",
        ),
        _ => Finding::ok("memory", found),
    })
}

/// The directory of the cgroup (version 2) that this process is in.
fn own_cgroup() -> Option<PathBuf> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let is_cgroup2 = |line: &&str| line.split(' ').nth(2) == Some("cgroup2");
    let mount = mounts
        .lines()
        .find(is_cgroup2)?
        .split(' ')
        .nth(1)?
        .to_owned();
    Some(Path::new(&mount).join(own))
}

/// How an instance and all that it forks are held together: what the keeper would find if it started here.
pub(super) fn containment() -> Finding {
    let scan = |why: String| Finding::ok(CONTAINMENT, format!("scan of /proc, since {why}"));
    let Some(cgroup) = own_cgroup() else {
        return scan("there is no cgroup version 2 here".to_owned());
    };
    if let Err(error) = rustix::fs::access(&cgroup, rustix::fs::Access::WRITE_OK) {
        return scan(format!(
            "{} cannot be written ({error}); under systemd, Delegate=yes opens it",
            cgroup.display()
        ));
    }
    // The root of the hierarchy has no such file; then its children tell, which only the keeper makes.
    let is_root = !cgroup.join("cgroup.events").exists();
    if !is_root && !cgroup.join("cgroup.kill").exists() {
        return scan("the kernel has no cgroup.kill (Linux 5.14)".to_owned());
    }
    Finding::ok(
        CONTAINMENT,
        format!("cgroup version 2 below {}", cgroup.display()),
    )
}

/// Limits of a tree, by the name in the file, and the controllers that hold them.
const TREE_LIMITS: [(&str, &str); 3] =
    [("memory", "memory"), ("cpu", "cpu"), ("processes", "pids")];

/// What holds the limits of an instance, by these controllers of cgroup version 2 and of version 1.
pub(super) fn limits(version_2: &[String], version_1: &[String]) -> Finding {
    let mut is_weak = false;
    let held = TREE_LIMITS.map(|(limit, controller)| {
        let has = |controllers: &[String]| controllers.iter().any(|it| it == controller);
        let by = match (has(version_2), has(version_1), limit) {
            (true, _, _) => "cgroup2",
            (_, true, _) => "cgroup1",
            (_, _, "cpu") => "nothing",
            _ => "a look every 50 ms",
        };
        is_weak |= !by.starts_with("cgroup");
        format!("{limit} by {by}")
    });
    let found = format!("{}; open_files, file_size, core by rlimit", held.join(", "));
    if is_weak {
        let mend = "give Alicia a cgroup with controllers: Delegate=yes in its systemd unit, or run it as root";
        return Finding::warn(LIMITS, found, mend);
    }
    Finding::ok(LIMITS, found)
}

/// As a keeper would find it that started here.
pub(super) fn limits_here() -> Finding {
    let own = own_cgroup();
    let is_writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    let offered = own.filter(|path| is_writable(path)).map(|path| {
        let offered = fs::read_to_string(path.join("cgroup.controllers"));
        let offered = offered.unwrap_or_default();
        offered
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    limits(
        &offered.unwrap_or_default(),
        &alicia_keeper::controllers_of_version_1(),
    )
}

/// What the kernel can enforce of a sandbox, and what a service loses that asks for more.
fn sandbox(kernel: Kernel) -> Finding {
    let check = "sandbox";
    let seccomp = if kernel.has_seccomp {
        "seccomp"
    } else {
        "no seccomp"
    };
    let found = match kernel.landlock_abi {
        0 => format!("no Landlock, {seccomp}"),
        abi => format!("Landlock {abi}, {seccomp}"),
    };
    let lacks = kernel.lacks();
    if lacks.is_empty() {
        return Finding::ok(check, found);
    }
    let parts: Vec<&str> = lacks.iter().map(|(part, _)| *part).collect();
    let found = format!("{found}: cannot enforce {}", parts.join(", "));
    let mend = "a newer kernel (Linux 6.12 has all), with `lsm=landlock,…`; or `best_effort: true` in `sandbox`";
    Finding::warn(check, found, mend)
}

/// Services from `alicia new service --lang python` make a virtual environment.
fn python() -> Finding {
    let check = "python";
    let script = "import sys, venv, ensurepip; print('.'.join(map(str, sys.version_info[:3])))";
    let asked = Command::new("python3")
        .args(["-I", "-c", script])
        .stdin(Stdio::null())
        .output();
    let mend =
        "on Debian and Ubuntu: apt-get install python3-venv; only services in Python need it";
    match asked {
        Err(error) => Finding::warn(check, format!("python3 does not start: {error}"), mend),
        Ok(output) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout);
            Finding::ok(check, format!("{} with venv", version.trim()))
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said
                .trim()
                .lines()
                .last()
                .unwrap_or("it ended with an error")
                .to_owned();
            Finding::warn(check, format!("python3 has no venv: {last}"), mend)
        }
    }
}

/// The line of the driver; there may be none, which is well.
fn gpu(driver: Option<String>) -> Finding {
    Finding::ok(
        "gpu",
        driver.map_or_else(|| "none".to_owned(), |text| first_line(&text).to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::Level;

    #[test]
    fn limits_are_judged() {
        let check =
            |limit, expected: Level| assert_eq!(open_files(limit).level, expected, "{limit:?}");
        check(None, Level::Ok);
        check(Some(65_536), Level::Ok);
        check(Some(512), Level::Warn);
        check(Some(64), Level::Fail);
        assert_eq!(tasks(None).level, Level::Ok);
        assert_eq!(tasks(Some(100)).level, Level::Warn);
        assert_eq!(inotify_instances(128), None);
        assert_eq!(inotify_instances(8).expect("is short").level, Level::Warn);
    }

    #[test]
    fn what_holds_a_limit_is_told_for_each() {
        let list = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let finding = limits(&list(&["memory", "cpu", "pids"]), &[]);
        assert_eq!(finding.level, Level::Ok);
        let finding = limits(&[], &list(&["memory", "pids"]));
        assert_eq!(finding.level, Level::Warn);
        let expect = "memory by cgroup1, cpu by nothing, processes by cgroup1; open_files, file_size, core by rlimit";
        assert_eq!(finding.found, expect);
    }

    #[test]
    fn a_kernel_without_landlock_is_told() {
        let kernel = |landlock_abi, has_seccomp| Kernel {
            landlock_abi,
            has_seccomp,
        };
        assert_eq!(sandbox(kernel(7, true)).level, Level::Ok);
        let finding = sandbox(kernel(0, true));
        assert_eq!(finding.level, Level::Warn);
        assert!(finding.found.contains("sandbox.files"), "{finding:?}");
    }

    #[test]
    fn odd_files_of_the_kernel_are_no_finding() {
        assert_eq!(memory(""), None);
        assert_eq!(memory("MemAvailable: lots\n"), None);
        assert_eq!(
            memory("MemAvailable: 1024 kB\n").expect("reads").level,
            Level::Warn
        );
        assert_eq!(gpu(None).found, "none");
        assert_eq!(
            gpu(Some("NVRM version: 1\nGCC: 2\n".into())).found,
            "NVRM version: 1"
        );
    }

    #[test]
    fn this_machine_is_looked_at_without_a_fault() {
        let checks: Vec<String> = look().into_iter().map(|finding| finding.check).collect();
        for check in [
            "open files",
            "processes",
            "memory",
            "sandbox",
            "python",
            "gpu",
        ] {
            assert!(
                checks.iter().any(|found| found == check),
                "{check} in {checks:?}"
            );
        }
    }
}
