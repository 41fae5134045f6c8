//! Landlock, filters of system calls and capabilities: the few calls that enforce a sandbox.
#![expect(
    unsafe_code,
    reason = "system calls that have no wrapper in a safe crate"
)]

use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::{c_int, c_ulong};

use super::Stage;
use crate::sandbox::Prepared;

/// `landlock_create_ruleset`: ask for the version instead of making one.
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: c_int = 1;
const RULE_NET_PORT: c_int = 2;
const ACCESS_NET_BIND_TCP: u64 = 1;
const ACCESS_NET_CONNECT_TCP: u64 = 1 << 1;
/// Abstract Unix sockets and signals.
const SCOPE_ALL: u64 = 0b11;

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_BLOCK: u64 = 1 << 11;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Interface 3 knows the bits up to truncation, interface 5 the control of devices too.
const FILES_ABI_3: u64 = (1 << 15) - 1;
const ABI_IOCTL_DEV: u32 = 5;
/// What a rule about a file, rather than a directory, may allow.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

/// `capset`, version 3.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// The bounding set is walked up to here; the kernel says where it ends.
const CAPABILITIES_MAX: u32 = 64;

#[repr(C)]
#[derive(Default)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: c_int,
}

#[repr(C)]
struct NetPort {
    allowed_access: u64,
    port: u64,
}

/// What may be done below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileRights(u64);

impl FileRights {
    /// List directories.
    pub(crate) const LIST: Self = Self(READ_DIR);
    /// Read and execute.
    pub(crate) const READ: Self = Self(EXECUTE | READ_FILE | READ_DIR);
    /// Read and write devices that are there.
    pub(crate) const DEVICE: Self = Self(READ_FILE | WRITE_FILE | TRUNCATE | READ_DIR | IOCTL_DEV);
    /// Everything but to make devices.
    pub(crate) const WRITE: Self = Self((FILES_ABI_3 | IOCTL_DEV) & !(MAKE_CHAR | MAKE_BLOCK));
}

/// Rules of Landlock, to be made.
#[derive(Debug, Default)]
pub(crate) struct Landlock {
    handled_files: u64,
    handled_network: u64,
    scoped: u64,
    paths: Vec<(OwnedFd, u64)>,
    ports: Vec<(u16, u64)>,
}

impl Landlock {
    /// From now on files need a rule.
    pub(crate) fn handle_files(&mut self) {
        self.handled_files = FILES_ABI_3;
        if landlock_abi() >= ABI_IOCTL_DEV {
            self.handled_files |= IOCTL_DEV;
        }
    }

    pub(crate) fn allow_path(&mut self, path: OwnedFd, rights: FileRights, is_directory: bool) {
        let possible = if is_directory { u64::MAX } else { OF_FILES };
        self.paths
            .push((path, rights.0 & self.handled_files & possible));
    }

    /// TCP needs a rule; these are the rules.
    pub(crate) fn allow_ports(&mut self, bind: &[u16], connect: &[u16]) {
        self.handled_network = ACCESS_NET_BIND_TCP | ACCESS_NET_CONNECT_TCP;
        let bind = bind.iter().map(|port| (*port, ACCESS_NET_BIND_TCP));
        let connect = connect.iter().map(|port| (*port, ACCESS_NET_CONNECT_TCP));
        self.ports.extend(bind.chain(connect));
    }

    /// No signals and abstract sockets to outside.
    pub(crate) fn scope(&mut self) {
        self.scoped = SCOPE_ALL;
    }

    /// Makes the rules; `None` when nothing is handled.
    pub(crate) fn make(self) -> io::Result<Option<OwnedFd>> {
        if self.handled_files | self.handled_network | self.scoped == 0 {
            return Ok(None);
        }
        let attributes = RulesetAttributes {
            handled_access_fs: self.handled_files,
            handled_access_net: self.handled_network,
            scoped: self.scoped,
        };
        // SAFETY: `attributes` is valid for its size; on success the descriptor is new and ours.
        let ruleset = unsafe {
            let fd = libc::syscall(
                libc::SYS_landlock_create_ruleset,
                ptr::from_ref(&attributes),
                size_of_val(&attributes),
                0,
            );
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd as c_int)
        };
        for (path, allowed_access) in &self.paths {
            let rule = PathBeneath {
                allowed_access: *allowed_access,
                parent_fd: path.as_raw_fd(),
            };
            add_rule(&ruleset, RULE_PATH_BENEATH, ptr::from_ref(&rule).cast())?;
        }
        for (port, allowed_access) in &self.ports {
            let rule = NetPort {
                allowed_access: *allowed_access,
                port: u64::from(*port),
            };
            add_rule(&ruleset, RULE_NET_PORT, ptr::from_ref(&rule).cast())?;
        }
        Ok(Some(ruleset))
    }
}

fn add_rule(ruleset: &OwnedFd, kind: c_int, rule: *const u8) -> io::Result<()> {
    // SAFETY: `rule` leads to a live structure of that kind.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            kind,
            rule,
            0,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Version of Landlock's interface; 0 where there is none.
pub(crate) fn landlock_abi() -> u32 {
    // SAFETY: with this flag the call only answers.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<u8>(),
            0,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// Whether filters of system calls can be installed.
pub(crate) fn has_seccomp() -> bool {
    // SAFETY: a filter at address 0 cannot be installed; EFAULT says that others could.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            c_ulong::from(libc::SECCOMP_MODE_FILTER),
            0 as c_ulong,
            0 as c_ulong,
            0 as c_ulong,
        )
    };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// Before the user is changed: what can be given up only with privileges.
///
/// # Safety
/// Only in the child.
pub(super) unsafe fn give_up(sandbox: &Prepared) -> Result<(), Stage> {
    // SAFETY: plain system calls.
    unsafe {
        for capability in 0..CAPABILITIES_MAX {
            let is_kept = sandbox.capabilities & (1 << capability) != 0;
            if !is_kept
                && libc::prctl(libc::PR_CAPBSET_DROP, c_ulong::from(capability), 0, 0, 0) < 0
            {
                // EINVAL: the last one was before. EPERM: there are no capabilities to give up.
                break;
            }
        }
        if sandbox.capabilities != 0 && libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 {
            return Err(Stage::Capabilities);
        }
    }
    Ok(())
}

/// After the user is changed, and last before the program: from here on the rules hold.
///
/// # Safety
/// Only in the child; `ruleset` is the number of the rules here.
pub(super) unsafe fn enter(sandbox: &Prepared, ruleset: c_int) -> Result<(), Stage> {
    // SAFETY: system calls on structures of this stack and of the plan.
    unsafe {
        set_capabilities(sandbox.capabilities)?;
        if sandbox.no_new_privileges && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 {
            return Err(Stage::Prepare);
        }
        if sandbox.ruleset.is_some()
            && libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) < 0
        {
            return Err(Stage::Landlock);
        }
        if !sandbox.filter.is_empty() {
            let program = libc::sock_fprog {
                len: sandbox.filter.len() as u16,
                filter: sandbox.filter.as_ptr().cast_mut(),
            };
            let mode = c_ulong::from(libc::SECCOMP_MODE_FILTER);
            if libc::prctl(libc::PR_SET_SECCOMP, mode, ptr::from_ref(&program), 0, 0) < 0 {
                return Err(Stage::Seccomp);
            }
        }
    }
    Ok(())
}

/// # Safety
/// Only in the child.
unsafe fn set_capabilities(kept: u64) -> Result<(), Stage> {
    let header = [CAPABILITY_VERSION, 0];
    let halves = [kept as u32, (kept >> 32) as u32];
    // Effective, permitted, inheritable; the lower 32, then the higher.
    let data: [[u32; 3]; 2] = halves.map(|half| [half; 3]);
    // SAFETY: both are valid for the call in the form of version 3.
    unsafe {
        if libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) < 0 {
            return Err(Stage::Capabilities);
        }
        for capability in (0..CAPABILITIES_MAX).filter(|it| kept & (1 << it) != 0) {
            let raise = libc::PR_CAP_AMBIENT_RAISE as c_ulong;
            if libc::prctl(libc::PR_CAP_AMBIENT, raise, c_ulong::from(capability), 0, 0) < 0 {
                return Err(Stage::Capabilities);
            }
        }
    }
    Ok(())
}

const _: () = assert!(size_of::<PathBeneath>() == 12);
