//! A filter of system calls (seccomp), as a program for the kernel's small machine.
//!
//! It lets pass what it does not name: a list of what is allowed would break programs with every new
//! library. What it names falls into groups: the control of other processes, of the machine and of the
//! kernel; new namespaces and file systems; calls that go around the other rules (io_uring, MPTCP, fast
//! open); programs that gain the rights of another user by a mode bit. Calls by the numbers of another
//! architecture end the process.

use libc::{c_long, sock_filter};

use crate::protocol::NetworkAccess;

/// `AUDIT_ARCH_*` of this machine (`linux/audit.h`).
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: u32 = 0;
/// Whether the numbers below are known for this machine.
pub(super) const IS_KNOWN_MACHINE: bool = ARCHITECTURE != 0;
/// Numbers of the x32 form of x86-64 have this bit.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`.
const AT_NUMBER: u32 = 0;
const AT_ARCHITECTURE: u32 = 4;
const AT_ARGUMENTS: u32 = 16;

/// Codes of the machine (`linux/bpf_common.h`).
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
#[cfg(target_arch = "x86_64")]
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const REFUSE: u32 = ERRNO | libc::EPERM as u32;
/// Programs take this for an older kernel and use another call, whose arguments can be seen.
const NOT_THERE: u32 = ERRNO | libc::ENOSYS as u32;

/// New namespaces: mount, cgroup, UTS, IPC, user, pid, network.
const CLONE_NEW: u32 = 0x7E02_0000;
/// A time namespace; in `clone` these bits are the signal.
const CLONE_NEWTIME: u32 = 0x80;
/// `ioctl`: put characters into a terminal's input; select and paste on a console.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;
const MODE_SET_ID: u32 = 0o6000;
const MODE_KIND: u32 = 0o170_000;
const MAKES_FILE: u32 = libc::O_CREAT as u32 | O_TMPFILE_BIT;
const O_TMPFILE_BIT: u32 = 0x40_0000;
/// Send data with the first packet: connects without `connect`.
const MSG_FASTOPEN: u32 = 0x2000_0000;
/// The kind of socket without its flags.
const SOCKET_KIND: u32 = 0xf;
/// `personality`: only ask.
const PERSONALITY_ASK: u32 = 0xffff_ffff;

/// Calls that nobody has a use for here.
const REFUSED: &[c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Around the rules.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_open_by_handle_at,
    libc::SYS_setns,
    // File systems.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_fanotify_init,
    // The kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_syslog,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
];

/// The program. `is_default`: all of the above; with `network`, sockets as well.
pub(super) fn filter(is_default: bool, network: Option<&NetworkAccess>) -> Vec<sock_filter> {
    let mut program = Program::begin();
    if is_default {
        for call in REFUSED {
            program.of(*call, |block| block.end(REFUSE));
        }
        namespaces(&mut program);
        modes(&mut program);
        others(&mut program);
    }
    sockets(&mut program, network);
    program.finish()
}

fn namespaces(program: &mut Program) {
    program.of(libc::SYS_clone3, |block| block.end(NOT_THERE));
    program.of(libc::SYS_clone, |block| block.refuse_bits(0, CLONE_NEW));
    program.of(libc::SYS_unshare, |block| {
        block.refuse_bits(0, CLONE_NEW | CLONE_NEWTIME);
    });
}

/// Mode bits that give the rights of a file's owner to whoever executes it, and device files.
fn modes(program: &mut Program) {
    #[cfg(target_arch = "x86_64")]
    {
        program.of(libc::SYS_chmod, |block| block.refuse_bits(1, MODE_SET_ID));
        program.of(libc::SYS_creat, |block| block.refuse_bits(1, MODE_SET_ID));
        program.of(libc::SYS_open, |block| {
            block.refuse_new_file(1, 2);
        });
        program.of(libc::SYS_mknod, |block| block.refuse_node(1));
    }
    program.of(libc::SYS_fchmod, |block| block.refuse_bits(1, MODE_SET_ID));
    program.of(libc::SYS_fchmodat, |block| {
        block.refuse_bits(2, MODE_SET_ID)
    });
    program.of(libc::SYS_fchmodat2, |block| {
        block.refuse_bits(2, MODE_SET_ID)
    });
    program.of(libc::SYS_openat, |block| {
        block.refuse_new_file(2, 3);
    });
    // Its mode lies in memory, where a filter cannot look.
    program.of(libc::SYS_openat2, |block| block.end(NOT_THERE));
    program.of(libc::SYS_mknodat, |block| block.refuse_node(2));
}

fn others(program: &mut Program) {
    program.of(libc::SYS_ioctl, |block| {
        block.load(1);
        block.refuse_if_equal(TIOCSTI);
        block.refuse_if_equal(TIOCLINUX);
        block.end(ALLOW);
    });
    // Limits of another process; one's own are changed by 0.
    program.of(libc::SYS_prlimit64, |block| {
        block.load(0);
        block.allow_if_equal(0);
        block.load(2);
        block.allow_if_equal(0);
        block.end(REFUSE);
    });
    program.of(libc::SYS_personality, |block| {
        block.load(0);
        block.allow_if_equal(0);
        block.allow_if_equal(PERSONALITY_ASK);
        block.end(REFUSE);
    });
}

/// Families that are no way around (packets, virtual machines, the kernel's cryptography, …), and with port
/// rules nothing but TCP: Landlock sees no other protocol, and no connection by fast open.
fn sockets(program: &mut Program, network: Option<&NetworkAccess>) {
    let has_internet = network.is_none_or(|network| !network.is_none());
    program.of(libc::SYS_socket, |block| {
        block.load(0);
        block.allow_if_equal(libc::AF_UNIX as u32);
        match network {
            None => {
                block.allow_if_equal(libc::AF_INET as u32);
                block.allow_if_equal(libc::AF_INET6 as u32);
                block.allow_if_equal(libc::AF_NETLINK as u32);
            }
            Some(network) => {
                // The kernel's addresses and routes, which the resolver asks for.
                block.in_family(libc::AF_NETLINK as u32, |block| {
                    block.load(2);
                    block.allow_if_equal(libc::NETLINK_ROUTE as u32);
                    block.end(REFUSE);
                });
                if has_internet {
                    for family in [libc::AF_INET, libc::AF_INET6] {
                        block.in_family(family as u32, |block| transport(block, network.udp));
                    }
                }
            }
        }
        block.end(REFUSE);
    });
    program.of(libc::SYS_socketpair, |block| {
        block.load(0);
        block.allow_if_equal(libc::AF_UNIX as u32);
        block.end(REFUSE);
    });
    if network.is_some() {
        program.of(libc::SYS_sendto, |block| block.refuse_bits(3, MSG_FASTOPEN));
        program.of(libc::SYS_sendmsg, |block| {
            block.refuse_bits(2, MSG_FASTOPEN)
        });
        program.of(libc::SYS_sendmmsg, |block| {
            block.refuse_bits(3, MSG_FASTOPEN)
        });
    }
}

/// A stream of TCP, and a datagram of UDP where that is allowed: by the protocol's own number or by 0.
fn transport(block: &mut Block, udp: bool) {
    let mut kinds = vec![(libc::SOCK_STREAM, libc::IPPROTO_TCP)];
    if udp {
        kinds.push((libc::SOCK_DGRAM, libc::IPPROTO_UDP));
    }
    for (kind, protocol) in kinds {
        block.load(1);
        block.and(SOCKET_KIND);
        block.in_family(kind as u32, |block| {
            block.load(2);
            block.allow_if_equal(0);
            block.allow_if_equal(protocol as u32);
            block.end(REFUSE);
        });
    }
    block.end(REFUSE);
}

/// A program that is being written.
struct Program(Vec<sock_filter>);

/// What is done about one call; it ends in every case.
#[derive(Default)]
struct Block(Vec<sock_filter>);

// === impl Program ===

impl Program {
    fn begin() -> Self {
        let mut program = vec![
            step(LOAD, (0, 0), AT_ARCHITECTURE),
            step(JUMP_EQUAL, (1, 0), ARCHITECTURE),
            step(RETURN, (0, 0), KILL),
            step(LOAD, (0, 0), AT_NUMBER),
        ];
        #[cfg(target_arch = "x86_64")]
        program.extend([
            step(JUMP_AT_LEAST, (0, 1), X32_BIT),
            step(RETURN, (0, 0), KILL),
        ]);
        program.shrink_to_fit();
        Self(program)
    }

    /// The accumulator holds the number of the call here, before and after.
    fn of(&mut self, call: c_long, write: impl FnOnce(&mut Block)) {
        self.push_if_equal(call as u32, write);
    }

    fn push_if_equal(&mut self, value: u32, write: impl FnOnce(&mut Block)) {
        let mut block = Block::default();
        write(&mut block);
        self.0.push(block.skip_unless_equal(value));
        self.0.extend(block.0);
    }

    fn finish(mut self) -> Vec<sock_filter> {
        self.0.push(step(RETURN, (0, 0), ALLOW));
        self.0
    }
}

// === impl Block ===

impl Block {
    /// The lower half of an argument; the upper one is ignored by the kernel too for all that is asked here.
    fn load(&mut self, argument: u32) {
        self.0.push(step(LOAD, (0, 0), AT_ARGUMENTS + 8 * argument));
    }

    fn and(&mut self, mask: u32) {
        self.0.push(step(AND, (0, 0), mask));
    }

    fn end(&mut self, result: u32) {
        self.0.push(step(RETURN, (0, 0), result));
    }

    fn allow_if_equal(&mut self, value: u32) {
        self.0.push(step(JUMP_EQUAL, (0, 1), value));
        self.end(ALLOW);
    }

    fn refuse_if_equal(&mut self, value: u32) {
        self.0.push(step(JUMP_EQUAL, (0, 1), value));
        self.end(REFUSE);
    }

    fn refuse_if_any_bit(&mut self, bits: u32) {
        self.0.push(step(JUMP_ANY_BIT, (0, 1), bits));
        self.end(REFUSE);
    }

    /// Refuses an argument with one of these bits, and allows every other.
    fn refuse_bits(&mut self, argument: u32, bits: u32) {
        self.load(argument);
        self.refuse_if_any_bit(bits);
        self.end(ALLOW);
    }

    /// The mode counts only where a file is made.
    fn refuse_new_file(&mut self, flags: u32, mode: u32) {
        self.load(flags);
        self.0.push(step(JUMP_ANY_BIT, (1, 0), MAKES_FILE));
        self.end(ALLOW);
        self.refuse_bits(mode, MODE_SET_ID);
    }

    fn refuse_node(&mut self, mode: u32) {
        self.load(mode);
        self.refuse_if_any_bit(MODE_SET_ID);
        self.and(MODE_KIND);
        self.refuse_if_equal(libc::S_IFCHR);
        self.refuse_if_equal(libc::S_IFBLK);
        self.end(ALLOW);
    }

    /// If the accumulator has that value: what is written, which ends in every case.
    fn in_family(&mut self, value: u32, write: impl FnOnce(&mut Self)) {
        let mut block = Self::default();
        write(&mut block);
        self.0.push(block.skip_unless_equal(value));
        self.0.extend(block.0);
    }

    fn skip_unless_equal(&self, value: u32) -> sock_filter {
        let length = u8::try_from(self.0.len()).expect("a block has a few steps");
        step(JUMP_EQUAL, (0, length), value)
    }
}

fn step(code: u16, (jt, jf): (u8, u8), k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do, as far as the program uses its machine.
    fn run(
        program: &[sock_filter],
        (number, architecture): (u32, u32),
        arguments: [u64; 6],
    ) -> u32 {
        let mut accumulator = 0_u32;
        let mut at = 0;
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let mut jump = |is_true: bool| at += usize::from(if is_true { jt } else { jf });
            match code {
                LOAD if k == AT_NUMBER => accumulator = number,
                LOAD if k == AT_ARCHITECTURE => accumulator = architecture,
                LOAD => accumulator = arguments[((k - AT_ARGUMENTS) / 8) as usize] as u32,
                AND => accumulator &= k,
                JUMP_EQUAL => jump(accumulator == k),
                #[cfg(target_arch = "x86_64")]
                JUMP_AT_LEAST => jump(accumulator >= k),
                JUMP_ANY_BIT => jump(accumulator & k != 0),
                RETURN => return k,
                _ => panic!("no such code: {code}"),
            }
        }
    }

    fn check(network: Option<&NetworkAccess>, call: c_long, arguments: &[u64], expect: u32) {
        let program = filter(true, network);
        // The kernel's own limit (BPF_MAXINSNS).
        assert!(program.len() < 4_096);
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        let got = run(&program, (call as u32, ARCHITECTURE), all);
        assert_eq!(got, expect, "call {call} {arguments:?} {network:?}");
    }

    #[test]
    fn harmful_calls_are_refused_and_others_pass() {
        for call in REFUSED {
            check(None, *call, &[], REFUSE);
        }
        for call in [
            libc::SYS_read,
            libc::SYS_execve,
            libc::SYS_exit_group,
            libc::SYS_mmap,
        ] {
            check(None, call, &[], ALLOW);
        }
        check(None, libc::SYS_clone3, &[], NOT_THERE);
        check(None, libc::SYS_clone, &[17], ALLOW);
        check(None, libc::SYS_clone, &[0x1000_0011], REFUSE);
        check(None, libc::SYS_unshare, &[0x400], ALLOW);
        check(None, libc::SYS_unshare, &[0x80], REFUSE);
        check(None, libc::SYS_ioctl, &[0, 0x5401], ALLOW);
        check(
            None,
            libc::SYS_ioctl,
            &[0, u64::from(TIOCSTI) | 1 << 40],
            REFUSE,
        );
        check(None, libc::SYS_prlimit64, &[0, 7, 1], ALLOW);
        check(None, libc::SYS_prlimit64, &[9, 7, 0], ALLOW);
        check(None, libc::SYS_prlimit64, &[9, 7, 1], REFUSE);
        check(None, libc::SYS_personality, &[0], ALLOW);
        check(None, libc::SYS_personality, &[0x40_0000], REFUSE);
        check(None, libc::SYS_fchmodat, &[0, 0, 0o755], ALLOW);
        check(None, libc::SYS_fchmodat, &[0, 0, 0o4755], REFUSE);
        check(None, libc::SYS_openat, &[0, 0, 0, 0o4755], ALLOW);
        check(None, libc::SYS_openat, &[0, 0, 0x40, 0o644], ALLOW);
        check(None, libc::SYS_openat, &[0, 0, 0x40, 0o2755], REFUSE);
        check(None, libc::SYS_mknodat, &[0, 0, 0o10_644], ALLOW);
        check(None, libc::SYS_mknodat, &[0, 0, 0o20_644], REFUSE);
    }

    #[test]
    fn sockets_follow_the_network() {
        let socket =
            |family: i32, kind: i32, protocol: i32| [family as u64, kind as u64, protocol as u64];
        let tcp = socket(libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        let udp = socket(libc::AF_INET, libc::SOCK_DGRAM, 17);
        let multipath = socket(libc::AF_INET, libc::SOCK_STREAM, 262);
        let unix = socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0);
        let packet = socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
        let route = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE);
        let audit = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT);
        let ports = NetworkAccess {
            connect: vec![80],
            ..NetworkAccess::default()
        };
        let with_udp = NetworkAccess {
            udp: true,
            ..ports.clone()
        };
        let none = NetworkAccess::default();
        let table = [
            (&tcp, [ALLOW, ALLOW, ALLOW, REFUSE]),
            (&udp, [ALLOW, REFUSE, ALLOW, REFUSE]),
            (&multipath, [ALLOW, REFUSE, REFUSE, REFUSE]),
            (&unix, [ALLOW; 4]),
            (&packet, [REFUSE; 4]),
            (&route, [ALLOW; 4]),
            (&audit, [ALLOW, REFUSE, REFUSE, REFUSE]),
        ];
        for (arguments, expect) in table {
            let networks = [None, Some(&ports), Some(&with_udp), Some(&none)];
            for (network, expect) in networks.into_iter().zip(expect) {
                check(network, libc::SYS_socket, arguments, expect);
            }
        }
        check(
            Some(&ports),
            libc::SYS_sendto,
            &[3, 0, 0, 0x2000_0000],
            REFUSE,
        );
        check(None, libc::SYS_sendto, &[3, 0, 0, 0x2000_0000], ALLOW);
        check(None, libc::SYS_socketpair, &[1], ALLOW);
        check(None, libc::SYS_socketpair, &[30], REFUSE);
    }

    #[test]
    fn numbers_of_another_architecture_end_the_process() {
        let program = filter(true, None);
        assert_eq!(run(&program, (0, 0x4000_0003), [0; 6]), KILL);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(run(&program, (X32_BIT, ARCHITECTURE), [0; 6]), KILL);
        let only_sockets = filter(false, None);
        assert_eq!(
            run(
                &only_sockets,
                (libc::SYS_ptrace as u32, ARCHITECTURE),
                [0; 6]
            ),
            ALLOW
        );
    }
}
