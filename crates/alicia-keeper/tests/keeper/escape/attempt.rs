//! What a process tries in order to get out. Each attempt is a real call; where the real thing would harm the
//! machine in the control run, it is made with arguments that the kernel refuses only after it has let the
//! caller in, so that the error number tells.
#![expect(unsafe_code, reason = "it tries what no safe wrapper offers")]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;

use libc::{c_int, c_long};

/// Through, or the number of the error.
type Outcome = Result<(), i32>;
type Attempt = fn() -> Outcome;

/// Exit codes of an attempt.
pub(crate) const THROUGH: i32 = 7;
pub(crate) const REFUSED: i32 = 8;

/// All attempts by name.
pub(crate) const ATTEMPTS: &[(&str, Attempt)] = &[
    // Files.
    ("read outside", || is(fs::read(outside("secret")))),
    ("list outside", || is(fs::read_dir(outside("")))),
    ("write outside", || {
        is(OpenOptions::new().append(true).open(outside("secret")))
    }),
    ("create outside", || is(File::create(outside("new")))),
    ("make a directory outside", || {
        is(fs::create_dir(outside("new-directory")))
    }),
    ("make a fifo outside", || {
        looked(call(
            libc::SYS_mknodat,
            &[-100, path(&outside("fifo")), 0o10_600, 0],
        ))
    }),
    ("remove outside", || is(fs::remove_file(outside("remove")))),
    ("move in from outside", || {
        is(fs::rename(outside("move"), work("moved")))
    }),
    ("move out", || is(fs::rename(work("mine"), outside("mine")))),
    ("truncate outside", || {
        looked(call(libc::SYS_truncate, &[path(&outside("truncate")), 0]))
    }),
    ("symlink to outside", || {
        is(symlink(outside("secret"), work("symlink")).and_then(|()| fs::read(work("symlink"))))
    }),
    ("hard link to outside", || {
        is(fs::hard_link(outside("secret"), work("hard")).and_then(|()| fs::read(work("hard"))))
    }),
    ("execute outside", || {
        is(Command::new(outside("tool")).status())
    }),
    ("root of another process", || {
        is(fs::read(
            of_victim("root").join(outside("secret").strip_prefix("/").unwrap()),
        ))
    }),
    ("directory of another process", || {
        is(fs::read(of_victim("cwd").join("outside/secret")))
    }),
    ("environment of another process", || {
        is(fs::read(of_victim("environ")))
    }),
    ("memory of another process", || {
        is(File::open(of_victim("mem")))
    }),
    ("core_pattern", || writable("/proc/sys/kernel/core_pattern")),
    ("sysrq", || writable("/proc/sysrq-trigger")),
    ("sysctl", || writable("/proc/sys/vm/overcommit_memory")),
    ("own oom score", || writable("/proc/self/oom_score_adj")),
    ("another cgroup", || writable(&variable("CGROUP"))),
    ("kernel log", || writable("/dev/kmsg")),
    ("/dev/mem", || is(File::open("/dev/mem"))),
    ("disk", || is(File::open(variable("DISK")))),
    ("make a device", || {
        looked(call(
            libc::SYS_mknodat,
            &[-100, path(&work("device")), 0o20_600, 0x103],
        ))
    }),
    ("open by handle", || {
        looked(call(libc::SYS_open_by_handle_at, &[-1, 0, 0]))
    }),
    ("set-user-id by chmod", || {
        is(fs::set_permissions(
            work("mine"),
            fs::Permissions::from_mode(0o4755),
        ))
    }),
    ("set-user-id at birth", || {
        is(OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o4755)
            .open(work("born")))
    }),
    ("set-user-id by openat2", set_id_by_openat2),
    ("chown", || {
        is(std::os::unix::fs::chown(work("mine"), Some(4_321), None))
    }),
    ("file of another user", || is(fs::read(work("of-another")))),
    // Other processes.
    ("signal", || {
        looked(call(
            libc::SYS_kill,
            &[victim(), c_long::from(libc::SIGCONT)],
        ))
    }),
    ("signal by pidfd", signal_by_pidfd),
    ("signal to the keeper", || {
        looked(call(
            libc::SYS_kill,
            &[number("KEEPER"), c_long::from(libc::SIGCONT)],
        ))
    }),
    ("ptrace", || {
        looked(call(
            libc::SYS_ptrace,
            &[c_long::from(libc::PTRACE_SEIZE), victim(), 0, 0],
        ))
    }),
    ("read the memory of another", read_memory),
    ("descriptor of another", pidfd_getfd),
    ("compare with another", || {
        looked(call(libc::SYS_kcmp, &[victim(), victim(), 1, 0, 0]))
    }),
    ("limits of another", limits_of_another),
    ("abstract socket", abstract_socket),
    ("change the user", || {
        looked(call(libc::SYS_setresuid, &[4_321, 4_321, 4_321]))
    }),
    ("raise the priority", || {
        looked(call(libc::SYS_setpriority, &[0, 0, -10]))
    }),
    ("take capabilities back", take_capabilities),
    ("raise a limit", raise_limit),
    // Namespaces and file systems.
    ("unshare the user", || {
        looked(call(
            libc::SYS_unshare,
            &[c_long::from(libc::CLONE_NEWUSER)],
        ))
    }),
    ("unshare mounts", || {
        looked(call(libc::SYS_unshare, &[c_long::from(libc::CLONE_NEWNS)]))
    }),
    ("unshare time", || looked(call(libc::SYS_unshare, &[0x80]))),
    ("clone into a namespace", || {
        clone(&[
            c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD),
            0,
            0,
            0,
            0,
        ])
    }),
    ("clone3 into a namespace", clone3),
    ("enter a namespace", || {
        looked(call(libc::SYS_setns, &[-1, 0]))
    }),
    ("chroot", || {
        looked(call(libc::SYS_chroot, &[path(&work(""))]))
    }),
    ("mount", || {
        looked(call(libc::SYS_mount, &[0, path(&work("nowhere")), 0, 0, 0]))
    }),
    ("unmount", || {
        looked(call(libc::SYS_umount2, &[path(&work("nowhere")), 0]))
    }),
    ("pivot root", || {
        looked(call(
            libc::SYS_pivot_root,
            &[path(&work("nowhere")), path(&work("nowhere"))],
        ))
    }),
    ("new mount by descriptor", || {
        looked(call(libc::SYS_fsopen, &[path(Path::new("tmpfs")), 0]))
    }),
    ("copy of a mount", || {
        looked(call(libc::SYS_open_tree, &[-100, path(Path::new("/")), 1]))
    }),
    // The kernel and the machine.
    ("io_uring", io_uring),
    ("bpf", bpf),
    ("perf", perf),
    ("userfaultfd", || looked(call(libc::SYS_userfaultfd, &[0]))),
    ("keyring", || looked(call(libc::SYS_keyctl, &[0, -3, 1]))),
    ("add a key", || {
        looked(call(
            libc::SYS_add_key,
            &[
                path(Path::new("user")),
                path(Path::new("alicia-test")),
                0,
                0,
                -1,
            ],
        ))
    }),
    ("load a module", || {
        looked(call(libc::SYS_finit_module, &[-1, 0, 0]))
    }),
    ("kexec", || {
        looked(call(libc::SYS_kexec_load, &[0, 1_000, 0, 0]))
    }),
    ("reboot", || looked(call(libc::SYS_reboot, &[1, 2, 3]))),
    ("swap", || {
        looked(call(libc::SYS_swapon, &[path(&work("nowhere")), 0]))
    }),
    ("set the clock", || {
        looked(call(libc::SYS_clock_settime, &[0, 0]))
    }),
    ("host name", || looked(call(libc::SYS_sethostname, &[0, 1]))),
    ("read the kernel log", || {
        looked(call(libc::SYS_syslog, &[10, 0, 0]))
    }),
    ("account", || {
        looked(call(libc::SYS_acct, &[path(&work("nowhere"))]))
    }),
    ("terminal input", || {
        looked(call(libc::SYS_ioctl, &[0, 0x5412, 0]))
    }),
    ("personality", || {
        looked(call(libc::SYS_personality, &[0x004_0000]))
    }),
    #[cfg(target_arch = "x86_64")]
    ("ports of the processor", || {
        looked(call(libc::SYS_iopl, &[0]))
    }),
    #[cfg(target_arch = "x86_64")]
    ("local descriptors", || {
        looked(call(libc::SYS_modify_ldt, &[0, 0, 0]))
    }),
    // The network.
    ("listen elsewhere", || {
        is(TcpListener::bind(("127.0.0.1", port("FREE_PORT"))))
    }),
    ("connect elsewhere", || {
        is(TcpStream::connect(("127.0.0.1", port("FORBIDDEN_PORT"))))
    }),
    ("connect elsewhere by version 6", || {
        is(TcpStream::connect((
            "::ffff:127.0.0.1",
            port("FORBIDDEN_PORT"),
        )))
    }),
    ("udp", || {
        is(UdpSocket::bind("127.0.0.1:0").and_then(|it| it.send_to(b"x", ("127.0.0.1", 9))))
    }),
    ("multipath tcp", || {
        connect(libc::SOCK_STREAM, libc::IPPROTO_MPTCP)
    }),
    ("fast open", fast_open),
    ("raw socket", || socket(libc::AF_INET, libc::SOCK_RAW, 1)),
    ("packet socket", || {
        socket(libc::AF_PACKET, libc::SOCK_RAW, 0)
    }),
    ("virtual socket", || {
        socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)
    }),
    ("cryptography socket", || {
        socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)
    }),
    ("audit socket", || {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT)
    }),
    // Numbers of other architectures.
    #[cfg(target_arch = "x86_64")]
    ("32-bit call", call_of_32_bit),
    #[cfg(target_arch = "x86_64")]
    ("x32 call", || {
        looked(call(0x4000_0000 | libc::SYS_getpid, &[]))
    }),
    // More than the limits allow.
    ("too many files", too_many_files),
    ("too large a file", too_large_a_file),
    ("too many processes", too_many_processes),
    ("too much memory", too_much_memory),
];

/// Makes one attempt and ends.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "a process of its own"
)]
pub(crate) fn make(name: &str) {
    let (_, attempt) = ATTEMPTS.iter().find(|(it, _)| *it == name).unwrap();
    let code = match attempt() {
        Ok(()) => THROUGH,
        Err(error) => {
            println!("refused: {}", io::Error::from_raw_os_error(error));
            REFUSED
        }
    };
    std::process::exit(code);
}

fn is<T>(result: io::Result<T>) -> Outcome {
    result
        .map(drop)
        .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// An error of arguments says that the caller was let in.
fn looked(result: Result<c_long, i32>) -> Outcome {
    match result {
        Err(error @ (libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EXDEV)) => Err(error),
        _ => Ok(()),
    }
}

fn call(number: c_long, arguments: &[c_long]) -> Result<c_long, i32> {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let [a, b, c, d, e, f] = all;
    // SAFETY: pointers among the arguments lead to strings or structures that are never freed here.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    match result {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap()),
        result => Ok(result),
    }
}

#[expect(clippy::disallowed_methods, reason = "a process is told what to do")]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap()
}

fn number(name: &str) -> c_long {
    variable(name).parse().unwrap()
}

fn port(name: &str) -> u16 {
    variable(name).parse().unwrap()
}

fn outside(name: &str) -> PathBuf {
    PathBuf::from(variable("OUTSIDE")).join(name)
}

fn work(name: &str) -> PathBuf {
    PathBuf::from(variable("WORK")).join(name)
}

fn victim() -> c_long {
    number("VICTIM")
}

fn of_victim(name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", victim()))
}

/// A string for the kernel, for the rest of this short life.
fn path(path: &Path) -> c_long {
    CString::new(path.to_str().unwrap()).unwrap().into_raw() as c_long
}

fn address<T>(value: T) -> c_long {
    ptr::from_mut(Box::leak(Box::new(value))) as c_long
}

fn writable(path: &str) -> Outcome {
    is(OpenOptions::new().write(true).open(path))
}

fn set_id_by_openat2() -> Outcome {
    let how = [(libc::O_CREAT | libc::O_WRONLY) as u64, 0o4755, 0];
    looked(call(
        libc::SYS_openat2,
        &[-100, path(&work("by-openat2")), address(how), 24],
    ))
}

fn pidfd() -> Result<c_long, i32> {
    call(libc::SYS_pidfd_open, &[victim(), 0])
}

fn signal_by_pidfd() -> Outcome {
    looked(call(
        libc::SYS_pidfd_send_signal,
        &[pidfd()?, c_long::from(libc::SIGCONT), 0, 0],
    ))
}

fn pidfd_getfd() -> Outcome {
    looked(call(libc::SYS_pidfd_getfd, &[pidfd()?, 1, 0]))
}

fn read_memory() -> Outcome {
    let into = address([0_u8; 8]);
    let local = address([into, 8]);
    let remote = address([0x1000, 8 as c_long]);
    looked(call(
        libc::SYS_process_vm_readv,
        &[victim(), local, 1, remote, 1, 0],
    ))
}

fn limits_of_another() -> Outcome {
    let limit = address([1_000_u64, 1_000]);
    looked(call(
        libc::SYS_prlimit64,
        &[victim(), c_long::from(libc::RLIMIT_NOFILE), limit, 0],
    ))
}

fn raise_limit() -> Outcome {
    let old = Box::leak(Box::new([0_u64; 2]));
    let resource = c_long::from(libc::RLIMIT_NOFILE);
    call(
        libc::SYS_prlimit64,
        &[0, resource, 0, ptr::from_mut(old) as c_long],
    )?;
    let new = address([old[1] + 1; 2]);
    looked(call(libc::SYS_prlimit64, &[0, resource, new, 0]))
}

fn abstract_socket() -> Outcome {
    let address = UnixAddress::from_abstract_name(variable("ABSTRACT")).unwrap();
    is(UnixStream::connect_addr(&address))
}

fn take_capabilities() -> Outcome {
    let header = address([0x2008_0522_u32, 0]);
    // To change the network is enough of an example.
    let data = address([[1_u32 << 12; 3], [0; 3]]);
    looked(call(libc::SYS_capset, &[header, data]))
}

/// The child ends at once.
fn clone(arguments: &[c_long]) -> Outcome {
    reap(call(libc::SYS_clone, arguments)?)
}

fn reap(pid: c_long) -> Outcome {
    if pid == 0 {
        // SAFETY: ends the child without running anything of the parent.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: waits for that child; no status is asked for.
    unsafe { libc::waitpid(pid as c_int, ptr::null_mut(), 0) };
    Ok(())
}

fn clone3() -> Outcome {
    let mut arguments = [0_u64; 11];
    arguments[0] = libc::CLONE_NEWUSER as u64;
    arguments[4] = libc::SIGCHLD as u64;
    reap(call(libc::SYS_clone3, &[address(arguments), 88])?)
}

fn io_uring() -> Outcome {
    looked(call(libc::SYS_io_uring_setup, &[8, address([0_u8; 120])]))
}

fn bpf() -> Outcome {
    // An array of one number.
    let mut attributes = [0_u32; 32];
    attributes[..4].copy_from_slice(&[2, 4, 4, 1]);
    looked(call(libc::SYS_bpf, &[0, address(attributes), 128]))
}

fn perf() -> Outcome {
    // Context switches of this process.
    let mut attributes = [0_u32; 28];
    (attributes[0], attributes[1], attributes[2]) = (1, 112, 3);
    looked(call(
        libc::SYS_perf_event_open,
        &[address(attributes), 0, -1, -1, 0],
    ))
}

fn socket(family: c_int, kind: c_int, protocol: c_int) -> Outcome {
    let arguments = [family, kind, protocol].map(c_long::from);
    match call(libc::SYS_socket, &arguments) {
        // The kernel has no such family: then it is refused as well.
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

fn forbidden_address() -> (c_long, c_long) {
    let mut address_of = [0_u8; 16];
    address_of[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    address_of[2..4].copy_from_slice(&port("FORBIDDEN_PORT").to_be_bytes());
    address_of[4..8].copy_from_slice(&[127, 0, 0, 1]);
    (address(address_of), 16)
}

fn connect(kind: c_int, protocol: c_int) -> Outcome {
    let arguments = [libc::AF_INET, kind, protocol].map(c_long::from);
    let socket = call(libc::SYS_socket, &arguments)?;
    let (address, length) = forbidden_address();
    call(libc::SYS_connect, &[socket, address, length]).map(drop)
}

fn fast_open() -> Outcome {
    let arguments = [libc::AF_INET, libc::SOCK_STREAM, 0].map(c_long::from);
    let socket = call(libc::SYS_socket, &arguments)?;
    let (address, length) = forbidden_address();
    let data = path(Path::new("x"));
    call(
        libc::SYS_sendto,
        &[socket, data, 1, 0x2000_0000, address, length],
    )
    .map(drop)
}

#[cfg(target_arch = "x86_64")]
fn call_of_32_bit() -> Outcome {
    let mut result: i32 = 20; // getpid
    // SAFETY: getpid takes no arguments and touches no memory.
    unsafe {
        std::arch::asm!("int 0x80", inout("eax") result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    if result > 0 { Ok(()) } else { Err(-result) }
}

fn too_many_files() -> Outcome {
    let files: io::Result<Vec<File>> = (0..200).map(|_| File::open("/dev/null")).collect();
    is(files.map(|files| assert!(files[0].as_raw_fd() > 0)))
}

fn too_large_a_file() -> Outcome {
    // SAFETY: the signal would end the process before it could tell.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    is(fs::write(work("large"), vec![0; 2 << 20]))
}

fn too_many_processes() -> Outcome {
    let children: Vec<_> = (0..40)
        .map(|_| Command::new("/bin/sleep").arg("1000").spawn())
        .collect();
    let failed = children
        .iter()
        .find_map(|it| it.as_ref().err())
        .map(|error| error.raw_os_error());
    // Where nothing but a look holds the limit, the look ends all of them.
    if failed.is_none() && variable("LOOK") == "1" {
        std::thread::sleep(std::time::Duration::from_secs(100));
    }
    for mut child in children.into_iter().flatten() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    failed.map_or(Ok(()), |error| Err(error.unwrap_or(libc::EIO)))
}

fn too_much_memory() -> Outcome {
    const MIB: usize = 1 << 20;
    let eaten: Vec<Vec<u8>> = (0..300)
        .map(|_| std::hint::black_box(vec![1; MIB]))
        .collect();
    assert_eq!(eaten.len(), 300);
    Ok(())
}
