//! What the host asks for when it starts and stops an instance.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Sandbox;

/// The longest name of an instance or a listener, as for DNS labels (RFC 1035, section 2.3.4).
const NAME_BYTES_MAX: usize = 63;
/// The number of the first descriptor that is passed: behind those of `stdin`, `stdout` and `stderr`, as for
/// `LISTEN_FDS` (`sd_listen_fds(3)`). Listeners come first, then directories, then files.
pub const PASSED_FIRST: usize = 3;
/// Time between the stop signal and the kill where the host names none.
const STOP_GRACE_MS: u64 = 10_000;
/// Size at which a log file is put aside where the host names none.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Files kept per log, the current one included, where the host names none.
const LOG_FILES_MAX: u32 = 8;

/// One process to start. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartSpec {
    /// Name of the instance, `[a-z0-9-]{1,63}`; unique among those that run.
    pub instance: String,
    /// The run whose exit the host has noticed: its record is forgotten in the same step, so that a
    /// restart needs one message. Without it, a name with an exit record is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u64>,
    /// Anything the host wants back in lists: service, generation, digest of the settings, …
    #[serde(default)]
    pub labels: Value,
    /// With a slash: a path (relative ones from `directory`). Without: searched in the `PATH` of
    /// `environment`.
    pub program: String,
    /// Without the program's name.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Working directory.
    pub directory: PathBuf,
    /// The complete environment. The keeper adds `ALICIA_INSTANCE` and `ALICIA_KEEPER`, and the
    /// `LISTEN_*` variables where sockets are passed.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Name or number; only a keeper that runs as root can change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name or number; else the user's own group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// File mode creation mask; else `0o022`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Per-process limits, applied in the child.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_limits: Vec<ResourceLimit>,
    /// Limits of the whole tree, where cgroup controllers are there.
    #[serde(default)]
    pub limits: Limits,
    /// What it may do; without, whatever its user may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// `PR_SET_NO_NEW_PRIVS`: set-uid programs gain nothing.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// Kill the leader at once when the keeper dies (`PR_SET_PDEATHSIG`). Off by default: then a
    /// service goes on serving until the next keeper, which ends it in good order.
    #[serde(default)]
    pub die_with_keeper: bool,
    /// Names of held sockets to inherit, in this order from descriptor 3 on (`LISTEN_FDS` protocol).
    ///
    /// Several instances may name the same listener. All of them inherit the one socket with its one
    /// queue, and the kernel gives each connection to whichever accepts first; no connection belongs to an
    /// instance before that, so one that ends loses only what it had accepted. Programs that wait with
    /// `epoll` should add the socket with `EPOLLEXCLUSIVE`, or a connection wakes all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<String>,
    /// Directories that its user could not come to by their paths, at the descriptors that `ALICIA_FD_<NAME>`
    /// names, after the listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<PassedDirectory>,
    /// Small files that only this instance gets: sealed memory, open for reading at the descriptors that
    /// `ALICIA_FD_<NAME>` names, after the directories. The keeper keeps no copy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<PassedFile>,
    /// Gives it a `NOTIFY_SOCKET` (`sd_notify(3)`); what comes is told as
    /// [`Event::Notified`](super::Event::Notified).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// It must say `WATCHDOG=1` at least this often, or its leader is ended by SIGABRT, and by SIGKILL after
    /// the grace period. Counts from its first message, or from `READY=1`. Only with `notify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog_ms: Option<u64>,
    /// Where output goes.
    pub log: LogSpec,
    /// Signal that asks for the end when the keeper stops the instance by its own decision (shutdown,
    /// survivor of a dead keeper). Default SIGTERM.
    #[serde(default = "sigterm")]
    pub stop_signal: i32,
    /// Time between that signal and SIGKILL. Default 10 s.
    #[serde(default = "stop_grace_ms")]
    pub stop_grace_ms: u64,
}

impl StartSpec {
    /// The least that a start needs; the other fields can be set afterwards.
    pub fn new(
        instance: impl Into<String>,
        program: impl Into<String>,
        directory: impl Into<PathBuf>,
        log: LogSpec,
    ) -> Self {
        Self {
            instance: instance.into(),
            replaces: None,
            labels: Value::Null,
            program: program.into(),
            arguments: Vec::new(),
            directory: directory.into(),
            environment: BTreeMap::new(),
            user: None,
            group: None,
            umask: None,
            resource_limits: Vec::new(),
            limits: Limits::default(),
            sandbox: None,
            no_new_privileges: false,
            die_with_keeper: false,
            listeners: Vec::new(),
            directories: Vec::new(),
            passed: Vec::new(),
            notify: false,
            watchdog_ms: None,
            log,
            stop_signal: sigterm(),
            stop_grace_ms: STOP_GRACE_MS,
        }
    }
}

/// A file in memory that a child inherits. Its content shows in no list, log or record.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedFile {
    /// `identity` is named by the variable `ALICIA_FD_IDENTITY`; `-` becomes `_`. As for instances,
    /// `[a-z0-9-]{1,63}`.
    pub name: String,
    /// Base64 (RFC 4648, section 4, with padding). At most 64 KiB once decoded.
    pub content: String,
}

impl std::fmt::Debug for PassedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PassedFile")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A directory that a child inherits as a place (`O_PATH`): `/proc/self/fd/<number>` leads into it without passing those
/// above it. What lies in it, and the way up, is guarded by its own modes as before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedDirectory {
    /// As of a [`PassedFile`]; no two that are passed have the same.
    pub name: String,
    /// An absolute path.
    pub path: PathBuf,
}

/// Log of an instance slot: lines go to `<directory>/<stem>.log`, files put aside are
/// `<stem>.log.1`, `.2`, … (a higher number is newer).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// Made if it is not there.
    pub directory: PathBuf,
    /// First part of the file names: no slash, not empty.
    pub stem: String,
    /// Size at which a file is put aside, in bytes. Default 16 MiB.
    #[serde(default = "log_bytes_max")]
    pub bytes_max: u64,
    /// Files kept, the current one included. Default 8.
    #[serde(default = "log_files_max")]
    pub files_max: u32,
    /// Lines older than this go, in whole files, in seconds. Default: no limit by age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s_max: Option<u64>,
    /// More lines in a second than this are dropped, counted and reported in the log. Default: no
    /// limit; the program is slowed down by its pipe instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines_per_s_max: Option<u32>,
}

impl LogSpec {
    /// A log with default limits.
    pub fn new(directory: impl Into<PathBuf>, stem: impl Into<String>) -> Self {
        Self {
            directory: directory.into(),
            stem: stem.into(),
            bytes_max: LOG_BYTES_MAX,
            files_max: LOG_FILES_MAX,
            age_s_max: None,
            lines_per_s_max: None,
        }
    }

    /// The file that is written now.
    pub fn path(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.stem))
    }
}

/// Limits of the whole process tree. What could not be enforced is named in
/// [`InstanceInfo::not_enforced`](super::InstanceInfo::not_enforced).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `memory.max`, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes_max: Option<u64>,
    /// `cpu.max`, in hundredths of one core (150 = one and a half).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent_max: Option<u32>,
    /// `pids.max`: processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes_max: Option<u32>,
}

/// One `setrlimit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// `as`, `core`, `cpu`, `data`, `fsize`, `memlock`, `nofile`, `nproc`, `stack`.
    pub resource: String,
    /// Soft limit; `None` is infinity.
    #[serde(default)]
    pub soft: Option<u64>,
    /// Hard limit; `None` is infinity.
    #[serde(default)]
    pub hard: Option<u64>,
}

/// How to stop an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSpec {
    /// Whom.
    pub instance: String,
    /// Else the signal of the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Time until every process that is left is killed; else that of the start. A second stop may
    /// shorten it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// Who gets the signal.
    #[serde(default)]
    pub target: Target,
}

/// Which processes of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Every process.
    #[default]
    Tree,
    /// The process that was started.
    Leader,
}

/// Names of instances and listeners: `[a-z0-9-]{1,63}`.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn sigterm() -> i32 {
    libc::SIGTERM
}

fn stop_grace_ms() -> u64 {
    STOP_GRACE_MS
}

fn log_bytes_max() -> u64 {
    LOG_BYTES_MAX
}

fn log_files_max() -> u32 {
    LOG_FILES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for (name, expect) in [
            ("web-1", true),
            ("", false),
            ("Web", false),
            ("a/b", false),
            (&"a".repeat(63), true),
            (&"a".repeat(64), false),
        ] {
            assert_eq!(is_name(name), expect, "{name}");
        }
    }

    #[test]
    fn a_start_of_an_older_and_of_a_newer_host_is_understood() {
        let old =
            r#"{"instance":"a","program":"x","directory":"/","log":{"directory":"/l","stem":"a"}}"#;
        let new = r#"{"instance":"a","program":"x","directory":"/","colour":"red",
                      "log":{"directory":"/l","stem":"a","format":"binary"}}"#;
        let expect = StartSpec::new("a", "x", "/", LogSpec::new("/l", "a"));
        for text in [old, new] {
            let spec: StartSpec = serde_json::from_str(text).unwrap();
            assert_eq!(spec, expect);
        }
    }
}
