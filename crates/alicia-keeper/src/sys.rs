//! The system calls that no safe crate offers. With its parts in `sys/` the only unsafe code of the workspace.
//!
//! The heart is [`spawn`]: the child runs on a copy of the keeper's memory between `clone3` and `execve`,
//! so everything it needs lies ready in [`ChildPlan`], and it calls nothing but system calls: no
//! allocation, no lock, no panic.
#![expect(
    unsafe_code,
    reason = "clone3, wait4, signalfd and taking over descriptors by number"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_char, c_int, c_long};

mod datagram;
mod sandbox;

pub(crate) use datagram::receive;
pub(crate) use sandbox::{FileRights, Landlock, has_seccomp, landlock_abi};

use crate::protocol::{ExitStatus, Usage};
use crate::sandbox::Prepared;

/// `clone3`: put the child into a cgroup at birth (Linux 5.7). libc has it in an `int`, which is too small.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Number of the last signal (`SIGRTMAX` of the kernel).
const SIGNAL_MAX: c_int = 64;
/// First descriptor of inherited sockets, by the `LISTEN_FDS` protocol (`sd_listen_fds(3)`).
pub(crate) const LISTEN_FD_FIRST: c_int = crate::protocol::PASSED_FIRST as c_int;
/// Room for the digits of a pid.
const PID_DIGITS: usize = 10;
/// Exit code of a child that could not execute the program; the reason goes through the pipe.
const EXIT_NOT_EXECUTED: c_int = 127;

/// Everything that the child needs.
#[derive(Debug)]
pub(crate) struct ChildPlan<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) arguments: &'a [CString],
    /// `NAME=value`.
    pub(crate) environment: &'a [CString],
    pub(crate) directory: &'a CStr,
    pub(crate) identity: Option<&'a Identity>,
    pub(crate) umask: libc::mode_t,
    pub(crate) resource_limits: &'a [(c_int, libc::rlimit)],
    /// Files `cgroup.procs` of groups that the child is to be in.
    pub(crate) join: Vec<BorrowedFd<'a>>,
    pub(crate) no_new_privileges: bool,
    pub(crate) sandbox: Option<&'a Prepared>,
    pub(crate) die_with_keeper: bool,
    /// What to write to `/proc/self/oom_score_adj`, where the keeper changed its own.
    pub(crate) oom_score_adj: Option<&'a CStr>,
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
    /// Tells what failed; closed by a successful `execve`.
    pub(crate) error: BorrowedFd<'a>,
    /// From descriptor 3 on: listening sockets, then passed directories and files.
    pub(crate) inherited: Vec<BorrowedFd<'a>>,
    /// `LISTEN_PID=`, `WATCHDOG_PID=`: variables whose value is the child's own pid.
    pub(crate) pid_variables: &'a [&'a str],
    /// Directory of the cgroup to be born in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// User and groups of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) groups: Vec<u32>,
}

/// A child that was made.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
}

/// What the child was doing when it failed, as it says through the error pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Prepare = 1,
    Limit = 2,
    Identity = 3,
    Directory = 4,
    Execute = 5,
    Join = 6,
    Capabilities = 7,
    Landlock = 8,
    Seccomp = 9,
}

/// Length of a report in the error pipe: stage, then the error number.
pub(crate) const REPORT_BYTES: usize = 5;

/// Reads what a child reported.
pub(crate) fn parse_report(report: [u8; REPORT_BYTES]) -> (Stage, i32) {
    let [stage, errno @ ..] = report;
    let stage = match stage {
        2 => Stage::Limit,
        3 => Stage::Identity,
        4 => Stage::Directory,
        5 => Stage::Execute,
        6 => Stage::Join,
        7 => Stage::Capabilities,
        8 => Stage::Landlock,
        9 => Stage::Seccomp,
        _ => Stage::Prepare,
    };
    (stage, i32::from_ne_bytes(errno))
}

/// An ended child.
#[derive(Debug)]
pub(crate) struct Reaped {
    pub(crate) pid: u32,
    pub(crate) status: ExitStatus,
    pub(crate) usage: Usage,
}

/// The kernel's `struct clone_args` (version 2, with the cgroup).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Pointers into a plan, made before the child is.
struct Image<'a> {
    plan: &'a ChildPlan<'a>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// `LISTEN_PID=` and room: variables that only the child can fill in.
    pid_variables: Vec<Vec<u8>>,
    /// Numbers of what is inherited, first in the keeper, then moved out of the way.
    inherited: Vec<c_int>,
    /// Number of the sandbox's rules, first in the keeper, then moved out of the way.
    ruleset: c_int,
    keeper: c_int,
}

/// Makes a child that becomes `plan.program`. Returns when the child exists; whether it could execute
/// the program is told by the error pipe.
pub(crate) fn spawn(plan: &ChildPlan<'_>) -> io::Result<Child> {
    let mut image = Image::new(plan);
    let mut pidfd: c_int = -1;
    let mut args = CloneArgs {
        flags: libc::CLONE_PIDFD as u64,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = plan.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid `clone_args` of the given size and outlives the call. Without CLONE_VM
    // the child has its own copy of memory and stack, as after fork; it goes into `run`, which never
    // returns and makes system calls only.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            ptr::from_mut(&mut args),
            size_of::<CloneArgs>(),
        )
    };
    match pid {
        0 => image.run(),
        -1 => {
            let error = io::Error::last_os_error();
            let blocked = matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM));
            if blocked && plan.cgroup.is_none() {
                spawn_by_fork(&mut image)
            } else {
                Err(error)
            }
        }
        pid => {
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so `pidfd` is a new descriptor that is ours.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child {
                pid: pid as u32,
                pidfd,
            })
        }
    }
}

/// For kernels and sandboxes without clone3. The child cannot be reaped in between, so its pid is safe.
fn spawn_by_fork(image: &mut Image<'_>) -> io::Result<Child> {
    // SAFETY: the child goes into `run`, which never returns and makes system calls only.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => image.run(),
        pid => {
            // SAFETY: plain system call; on success the descriptor is new and ours.
            let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, c_long::from(pid), 0) };
            if pidfd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: see above.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as RawFd) };
            Ok(Child {
                pid: pid as u32,
                pidfd,
            })
        }
    }
}

impl<'a> Image<'a> {
    fn new(plan: &'a ChildPlan<'a>) -> Self {
        let with_room = |name: &&str| {
            let mut variable = name.as_bytes().to_vec();
            variable.resize(name.len() + PID_DIGITS + 1, 0);
            variable
        };
        let pid_variables: Vec<Vec<u8>> = plan.pid_variables.iter().map(with_room).collect();
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
            pointers.push(ptr::null());
            pointers
        };
        let mut envp = pointers(plan.environment);
        let end = envp.len() - 1;
        envp.splice(end..end, pid_variables.iter().map(|it| it.as_ptr().cast()));
        Self {
            plan,
            argv: pointers(plan.arguments),
            envp,
            pid_variables,
            inherited: plan.inherited.iter().map(AsRawFd::as_raw_fd).collect(),
            ruleset: plan
                .sandbox
                .and_then(|sandbox| sandbox.ruleset.as_ref())
                .map_or(-1, AsRawFd::as_raw_fd),
            keeper: std::process::id() as c_int,
        }
    }

    /// The child, to the end.
    fn run(&mut self) -> ! {
        let mut error = self.plan.error.as_raw_fd();
        let stage = self.execute(&mut error);
        // SAFETY: system calls on a buffer of this stack; `_exit` runs nothing of the keeper.
        unsafe {
            let errno = (*libc::__errno_location()).to_ne_bytes();
            let report = [stage as u8, errno[0], errno[1], errno[2], errno[3]];
            libc::write(error, report.as_ptr().cast(), report.len());
            libc::_exit(EXIT_NOT_EXECUTED)
        }
    }

    /// Returns only on failure, with `errno` set.
    fn execute(&mut self, error: &mut c_int) -> Stage {
        let plan = self.plan;
        // SAFETY: all of these are system calls (or thin wrappers that are async-signal-safe) with
        // valid arguments; pointers lead into `plan` and `self`, which were built before the clone.
        unsafe {
            // First, so that all that follows counts.
            for group in &plan.join {
                if libc::write(group.as_raw_fd(), c"0".as_ptr().cast(), 1) < 0 {
                    return Stage::Join;
                }
            }
            reset_signals();
            if libc::setsid() < 0 || !self.place_descriptors(error) {
                return Stage::Prepare;
            }
            libc::umask(plan.umask);
            if let Some(value) = plan.oom_score_adj {
                write_file(c"/proc/self/oom_score_adj".as_ptr(), value);
            }
            for (resource, limit) in plan.resource_limits {
                if libc::syscall(libc::SYS_prlimit64, 0, *resource, ptr::from_ref(limit), 0) < 0 {
                    return Stage::Limit;
                }
            }
            if let Some(sandbox) = plan.sandbox
                && let Err(stage) = sandbox::give_up(sandbox)
            {
                return stage;
            }
            if plan
                .identity
                .is_some_and(|identity| !take_identity(identity))
            {
                return Stage::Identity;
            }
            if plan.no_new_privileges && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 {
                return Stage::Prepare;
            }
            if plan.die_with_keeper {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // The keeper may have died before the line above.
                if libc::syscall(libc::SYS_getppid) as c_int != self.keeper {
                    libc::_exit(EXIT_NOT_EXECUTED);
                }
            }
            if libc::chdir(plan.directory.as_ptr()) < 0 {
                return Stage::Directory;
            }
            self.fill_in_pid();
            // The keeper may have raised its own, and back to 0 is always permitted. Last, because on a
            // busy box the child waits for its turn from here on.
            libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, 0);
            if let Some(sandbox) = plan.sandbox
                && let Err(stage) = sandbox::enter(sandbox, self.ruleset)
            {
                return stage;
            }
            libc::execve(
                plan.program.as_ptr(),
                self.argv.as_ptr(),
                self.envp.as_ptr(),
            );
        }
        Stage::Execute
    }

    /// 0, 1, 2 and what is inherited; whatever else is open is closed by execve.
    ///
    /// # Safety
    /// Only in the child.
    unsafe fn place_descriptors(&mut self, error: &mut c_int) -> bool {
        let plan = self.plan;
        let first_free = LISTEN_FD_FIRST + self.inherited.len() as c_int;
        // SAFETY: system calls on descriptors that the plan borrows.
        unsafe {
            let moved = libc::fcntl(*error, libc::F_DUPFD_CLOEXEC, first_free);
            if moved < 0 {
                return false;
            }
            *error = moved;
            if self.ruleset >= 0 {
                self.ruleset = libc::fcntl(self.ruleset, libc::F_DUPFD_CLOEXEC, first_free);
                if self.ruleset < 0 {
                    return false;
                }
            }
            for source in &mut self.inherited {
                *source = libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, first_free);
                if *source < 0 {
                    return false;
                }
            }
            let standard = [plan.stdin, plan.stdout, plan.stderr];
            for (target, source) in standard.iter().enumerate() {
                if libc::dup2(source.as_raw_fd(), target as c_int) < 0 {
                    return false;
                }
            }
            for (offset, source) in self.inherited.iter().enumerate() {
                if libc::dup2(*source, LISTEN_FD_FIRST + offset as c_int) < 0 {
                    return false;
                }
            }
            // All descriptors of the keeper close on exec already; this is for those of a library.
            // Linux before 5.9 does not know it.
            let flags = libc::CLOSE_RANGE_CLOEXEC;
            libc::syscall(libc::SYS_close_range, first_free, libc::c_uint::MAX, flags);
        }
        true
    }

    /// Writes the child's pid behind the names of the variables.
    fn fill_in_pid(&mut self) {
        // SAFETY: plain system call; glibc's own getpid would do as well.
        let own = unsafe { libc::syscall(libc::SYS_getpid) } as u32;
        for (variable, name) in self.pid_variables.iter_mut().zip(self.plan.pid_variables) {
            let Some(digits) = variable.get_mut(name.len()..) else {
                continue;
            };
            let mut length = 1;
            let mut rest = own / 10;
            while rest > 0 {
                length += 1;
                rest /= 10;
            }
            let mut pid = own;
            for position in (0..length).rev() {
                if let Some(digit) = digits.get_mut(position) {
                    *digit = b'0' + (pid % 10) as u8;
                }
                pid /= 10;
            }
        }
    }
}

/// Default action and no mask: the keeper ignores some signals, and execve would keep that.
///
/// # Safety
/// Only in the child.
unsafe fn reset_signals() {
    // SAFETY: zeroed `sigaction` and `sigset_t` are valid: SIG_DFL, no flags, nothing blocked.
    unsafe {
        let action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        for signal in 1..=SIGNAL_MAX {
            libc::sigaction(signal, &action, ptr::null_mut());
        }
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// By raw calls: those of libc would tell threads that this child does not have.
///
/// # Safety
/// Only in the child.
unsafe fn take_identity(identity: &Identity) -> bool {
    let Identity {
        user,
        group,
        groups,
    } = identity;
    // SAFETY: system calls; `groups` is valid for its length.
    unsafe {
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, *group, *group, *group) == 0
            && libc::syscall(libc::SYS_setresuid, *user, *user, *user) == 0
    }
}

/// Best effort.
///
/// # Safety
/// Only in the child; `path` ends with zero.
unsafe fn write_file(path: *const c_char, value: &CStr) {
    // SAFETY: system calls; the buffer is valid for its length.
    unsafe {
        let file = libc::open(path, libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, value.as_ptr().cast(), value.to_bytes().len());
            libc::close(file);
        }
    }
}

/// Takes the status of one ended child, if there is one. Orphans that fell to the keeper are children.
pub(crate) fn reap() -> Option<Reaped> {
    let mut status: c_int = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are valid for the call; a zeroed `rusage` is valid should it stay so.
    let (pid, usage) = unsafe {
        let pid = libc::wait4(-1, &mut status, libc::WNOHANG, usage.as_mut_ptr());
        (pid, usage.assume_init())
    };
    if pid <= 0 {
        return None;
    }
    let status = if libc::WIFSIGNALED(status) {
        ExitStatus::Signal {
            signal: libc::WTERMSIG(status),
            core: libc::WCOREDUMP(status),
        }
    } else {
        ExitStatus::Code(libc::WEXITSTATUS(status))
    };
    let microseconds = |time: libc::timeval| {
        u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or_default()
    };
    let usage = Usage {
        user_us: microseconds(usage.ru_utime),
        system_us: microseconds(usage.ru_stime),
        rss_bytes_max: u64::try_from(usage.ru_maxrss).unwrap_or_default() * 1024,
    };
    Some(Reaped {
        pid: pid as u32,
        status,
        usage,
    })
}

/// Blocks signals and gives a descriptor that reads them.
pub(crate) fn signal_descriptor(signals: &[c_int]) -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `set` is initialised by sigemptyset before its other uses; the descriptor is new and ours.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// The number of the signal in a record that was read from a signal descriptor.
pub(crate) fn signal_number(record: &[u8; SIGNAL_RECORD_BYTES]) -> c_int {
    let [a, b, c, d, ..] = *record;
    c_int::from_ne_bytes([a, b, c, d])
}

/// Size of a record of a signal descriptor.
pub(crate) const SIGNAL_RECORD_BYTES: usize = size_of::<libc::signalfd_siginfo>();

/// Ignores a signal: the call that caused it returns an error instead.
pub(crate) fn ignore_signal(signal: c_int) {
    // SAFETY: SIG_IGN installs no code.
    unsafe {
        libc::signal(signal, libc::SIG_IGN);
    }
}

/// Sends a signal to exactly that process. Realtime signals too, which rustix does not offer.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    let no_info = ptr::null::<libc::siginfo_t>();
    // SAFETY: plain system call; a null siginfo is allowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            no_info,
            0,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Which of the two a process is after [`fork`].
#[derive(Debug)]
pub(crate) enum Fork {
    Parent,
    Child,
}

/// Duplicates this process. Only to detach the keeper, before it has state or threads.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: called while the process has a single thread, so the child may go on as the parent would.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        _ => Ok(Fork::Parent),
    }
}

/// Replaces this program. Mask, pid and descriptors without close-on-exec stay. Returns only on failure.
pub(crate) fn execute(words: &[CString]) -> io::Error {
    let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(ptr::null());
    let Some(program) = words.first() else {
        return io::ErrorKind::InvalidInput.into();
    };
    // SAFETY: `argv` is an array of pointers to strings that live until the call, ended by null.
    unsafe {
        libc::execv(program.as_ptr(), argv.as_ptr());
    }
    io::Error::last_os_error()
}

/// Takes over a descriptor that the program before the upgrade left open; `None` if it is not open.
pub(crate) fn inherited(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD only asks. The number comes from the state that this very process wrote before
    // execve, each once, so nothing else in this program owns it.
    unsafe {
        if fd < 0 || libc::fcntl(fd, libc::F_GETFD) < 0 {
            return None;
        }
        Some(OwnedFd::from_raw_fd(fd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let errno = libc::ENOENT.to_ne_bytes();
        let report = [Stage::Execute as u8, errno[0], errno[1], errno[2], errno[3]];
        assert_eq!(parse_report(report), (Stage::Execute, libc::ENOENT));
    }
}
