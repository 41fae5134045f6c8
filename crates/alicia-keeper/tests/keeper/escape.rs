//! Nothing gets out of a sandbox: every attempt is made by a real process, once without a sandbox, to show
//! that it would get through, and once within.

mod attempt;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use alicia_keeper::protocol::{
    Exit, ExitStatus, FailureCode, FileAccess, HeldBy, NetworkAccess, ResourceLimit, Sandbox,
    StartSpec,
};

use crate::fleet::{Fleet, Mode, text, until};
use crate::probe;

pub(crate) use attempt::make;

/// Attempts that not every machine lets through, whatever the rights: by the kernel's configuration, or for
/// want of a device.
const MAY_FAIL_ANYWAY: &[&str] = &[
    "/dev/mem",
    "disk",
    "another cgroup",
    "x32 call",
    "32-bit call",
    "multipath tcp",
    "virtual socket",
    "cryptography socket",
    "packet socket",
    "audit socket",
    "io_uring",
    "perf",
    "keyring",
    "add a key",
    "kexec",
    "load a module",
    "compare with another",
    "account",
    "swap",
    "kernel log",
    "sysrq",
    "open by handle",
    "unshare time",
    "local descriptors",
    "userfaultfd",
    "bpf",
    "unmount",
    "ports of the processor",
    // A container's root often lacks CAP_SYS_RESOURCE.
    "raise a limit",
];

/// Attempts that the default profile lets through, because files and network are restricted only as far as is
/// said, and limits are no part of it.
const DEFAULT_LETS: &[&str] = &[
    "read outside",
    "list outside",
    "write outside",
    "create outside",
    "make a directory outside",
    "make a fifo outside",
    "remove outside",
    "move in from outside",
    "move out",
    "truncate outside",
    "symlink to outside",
    "hard link to outside",
    "execute outside",
    "listen elsewhere",
    "connect elsewhere",
    "connect elsewhere by version 6",
    "udp",
    "multipath tcp",
    "fast open",
    "audit socket",
    "too many files",
    "too large a file",
    "too many processes",
    "too much memory",
];

/// What the attempts need, made anew for each.
struct Ground {
    outside: PathBuf,
    work: PathBuf,
    variables: BTreeMap<String, String>,
}

impl Ground {
    fn new(fleet: &Fleet, victim: u32, ports: &Ports) -> Self {
        let (outside, work) = (fleet.path().join("outside"), fleet.path().join("work"));
        let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
        let procs = own.map(|own| format!("/sys/fs/cgroup/unified{own}/cgroup.procs"));
        let procs = procs.filter(|path| Path::new(path).exists());
        let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let disk = disks
            .map(|entry| Path::new("/dev").join(entry.file_name()))
            .find(|path| path.exists());
        let variables = [
            ("OUTSIDE", text(&outside)),
            ("WORK", text(&work)),
            ("VICTIM", victim.to_string()),
            ("KEEPER", fleet.keeper.to_string()),
            (
                "CGROUP",
                procs.unwrap_or("/sys/fs/cgroup/cgroup.procs".into()),
            ),
            ("DISK", text(&disk.unwrap_or("/dev/none".into()))),
            ("ABSTRACT", ports.abstract_name.clone()),
            ("FREE_PORT", ports.free.to_string()),
            ("FORBIDDEN_PORT", ports.forbidden.to_string()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        Self {
            outside,
            work,
            variables: variables.into(),
        }
    }

    fn prepare(&self) {
        for directory in [&self.outside, &self.work] {
            if directory.exists() {
                fs::remove_dir_all(directory).unwrap();
            }
            fs::create_dir(directory).unwrap();
        }
        for name in ["secret", "remove", "move", "truncate"] {
            fs::write(self.outside.join(name), "secret").unwrap();
        }
        fs::copy("/bin/true", self.outside.join("tool")).unwrap();
        fs::write(self.work.join("mine"), "mine").unwrap();
        let of_another = self.work.join("of-another");
        fs::write(&of_another, "x").unwrap();
        fs::set_permissions(&of_another, fs::Permissions::from_mode(0o600)).unwrap();
        if is_root() {
            chown(&of_another, Some(4_321), None).unwrap();
        }
    }
}

/// Only root can make a file of another user, to be refused.
fn is_shown_here(name: &str) -> bool {
    is_root() || name != "file of another user"
}

/// Somebody listens at the forbidden places.
struct Ports {
    abstract_name: String,
    free: u16,
    forbidden: u16,
    _held: (UnixListener, TcpListener),
}

impl Ports {
    fn open(fleet: &Fleet) -> Self {
        let abstract_name = format!("alicia-test-{}", fleet.keeper);
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let socket = UnixListener::bind_addr(&address).unwrap();
        let forbidden = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            abstract_name,
            free: free.local_addr().unwrap().port(),
            forbidden: forbidden.local_addr().unwrap().port(),
            _held: (socket, forbidden),
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn sandbox(work: &Path) -> Sandbox {
    Sandbox {
        files: Some(FileAccess {
            read_only: Some(Vec::new()),
            writable: vec![work.to_owned()],
            with_system: true,
        }),
        network: Some(NetworkAccess {
            connect: vec![1],
            bind: vec![1],
            udp: false,
        }),
        ..Sandbox::default()
    }
}

fn attempt(fleet: &Fleet, ground: &Ground, instance: &str, name: &str) -> StartSpec {
    let mut spec = probe::spec(fleet, instance, "attempt");
    spec.environment.extend(ground.variables.clone());
    spec.environment.insert("ATTEMPT".into(), name.into());
    spec.environment.insert("LOOK".into(), "0".into());
    spec
}

/// The limits that the last attempts are about.
fn limit(spec: &mut StartSpec) {
    spec.limits.memory_bytes_max = Some(128 << 20);
    spec.limits.processes_max = Some(20);
    for (resource, value) in [("nofile", 64), ("fsize", 1 << 20)] {
        spec.resource_limits.push(limit_of(resource, value));
    }
}

fn limit_of(resource: &str, value: u64) -> ResourceLimit {
    ResourceLimit {
        resource: resource.into(),
        soft: Some(value),
        hard: Some(value),
    }
}

fn is_through(exit: &Exit) -> bool {
    exit.status == ExitStatus::Code(attempt::THROUGH)
}

/// It said that it was refused, or the kernel or the keeper ended it.
fn is_refused(exit: &Exit) -> bool {
    match exit.status {
        ExitStatus::Code(code) => code == attempt::REFUSED,
        ExitStatus::Signal { signal, .. } => {
            signal == libc::SIGSYS
                || (signal == libc::SIGKILL && (exit.oom_killed || exit.over_limit.is_some()))
        }
        ExitStatus::Lost => false,
    }
}

#[tokio::test]
async fn nothing_gets_out_of_a_sandbox() {
    let kernel = alicia_keeper::Kernel::ask();
    if !kernel.lacks().is_empty() {
        assert!(
            !requires_all(),
            "this kernel cannot enforce a sandbox: {:?}",
            kernel.lacks()
        );
        println!("skipped: {:?}", kernel.lacks());
        return;
    }
    let mut fleet = Fleet::new(Mode::Best).await;
    let victim = fleet.start(fleet.shell("victim", "exec sleep 1000")).await;
    let victims = fleet.processes().len();
    let ports = Ports::open(&fleet);
    let ground = Ground::new(&fleet, victim.pid, &ports);
    assert!(attempt::ATTEMPTS.len() >= 40);
    let (mut got_out, mut not_shown, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    for (number, (name, _)) in attempt::ATTEMPTS.iter().enumerate() {
        ground.prepare();
        let instance = format!("free-{number}");
        let mut spec = attempt(&fleet, &ground, &instance, name);
        if *name == "raise a limit" {
            // The machine's own limit is above anybody.
            spec.resource_limits.push(limit_of("nofile", 64));
        }
        fleet.start(spec).await;
        let exit = fleet.exited(&instance).await;
        if !is_through(&exit) {
            not_shown.push(*name);
        }
        ground.prepare();
        let instance = format!("shut-{number}");
        let mut spec = attempt(&fleet, &ground, &instance, name);
        spec.sandbox = Some(sandbox(&ground.work));
        limit(&mut spec);
        if !has_process_controller(&fleet).await {
            spec.environment.insert("LOOK".into(), "1".into());
        }
        fleet.start(spec).await;
        let exit = fleet.exited(&instance).await;
        if is_through(&exit) {
            got_out.push(*name);
        } else if !is_refused(&exit) {
            broken.push((*name, exit, fleet.texts(&instance)));
        }
    }
    println!(
        "{} attempts; without a sandbox refused too: {not_shown:?}",
        attempt::ATTEMPTS.len()
    );
    got_out.retain(|name| is_shown_here(name));
    assert_eq!(got_out, Vec::<&str>::new());
    assert!(broken.is_empty(), "{broken:#?}");
    if is_root() {
        not_shown.retain(|name| !MAY_FAIL_ANYWAY.contains(name));
        assert_eq!(not_shown, Vec::<&str>::new(), "these prove nothing");
    }
    until("only the victim is left", || {
        fleet.processes().len() == victims
    })
    .await;
}

#[tokio::test]
async fn the_default_sandbox_protects_the_machine_and_other_processes() {
    let kernel = alicia_keeper::Kernel::ask();
    if !kernel.lacks().is_empty() {
        assert!(
            !requires_all(),
            "this kernel cannot enforce a sandbox: {:?}",
            kernel.lacks()
        );
        println!("skipped: {:?}", kernel.lacks());
        return;
    }
    let mut fleet = Fleet::new(Mode::Best).await;
    let victim = fleet.start(fleet.shell("victim", "exec sleep 1000")).await;
    let ports = Ports::open(&fleet);
    let ground = Ground::new(&fleet, victim.pid, &ports);
    let mut got_out = Vec::new();
    for (number, (name, _)) in attempt::ATTEMPTS.iter().enumerate() {
        if *name == "too much memory" || *name == "too many processes" {
            continue;
        }
        ground.prepare();
        let instance = format!("shut-{number}");
        let mut spec = attempt(&fleet, &ground, &instance, name);
        spec.sandbox = Some(Sandbox::default());
        fleet.start(spec).await;
        if is_through(&fleet.exited(&instance).await) {
            got_out.push(*name);
        }
    }
    got_out.retain(|name| !DEFAULT_LETS.contains(name) && is_shown_here(name));
    assert_eq!(got_out, Vec::<&str>::new());
}

async fn has_process_controller(fleet: &Fleet) -> bool {
    let stats = fleet.client.stats().await.unwrap();
    let mut all = stats.controllers.iter().chain(&stats.controllers_1);
    all.any(|it| it == "pids")
}

fn requires_all() -> bool {
    std::env::var_os("ALICIA_REQUIRE_ALL").is_some_and(|it| it == "1")
}

#[tokio::test]
async fn a_sandbox_lets_sane_programs_work() {
    if !alicia_keeper::Kernel::ask().lacks().is_empty() {
        assert!(!requires_all());
        return;
    }
    let mut fleet = Fleet::new(Mode::Best).await;
    let work = fleet.path().join("work");
    fs::create_dir(&work).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = "set -e; cd work; mkdir d; echo x > d/a; mv d/a b; ln b c; cat b c | sort > e; rm -r d; \
                  (sleep 0.01 & wait); kill -0 $$; head -c 10 /dev/urandom > /dev/null; ls /etc > /dev/null; \
                  date > /dev/null; echo done";
    for (name, mut wanted) in [("shut", sandbox(&work)), ("plain", Sandbox::default())] {
        if let Some(network) = &mut wanted.network {
            network.connect.push(port);
        }
        let mut spec = fleet.shell(name, script);
        spec.sandbox = Some(wanted);
        let info = fleet.start(spec).await;
        let held = info
            .limits
            .iter()
            .filter(|it| it.limit.starts_with("sandbox."));
        assert!(
            held.clone().count() >= 3 && held.clone().all(|it| it.held_by != HeldBy::None),
            "{info:?}"
        );
        assert_eq!(
            fleet.exited(name).await.status,
            ExitStatus::Code(0),
            "{:?}",
            fleet.texts(name)
        );
        assert_eq!(fleet.texts(name), ["done"]);
        for file in fs::read_dir(&work).unwrap().flatten() {
            fs::remove_file(file.path()).unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_left_of_a_sandboxed_tree_ends_with_it() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let script = "(setsid env -i sh -c 'trap \"\" TERM HUP; sleep 1000' >/dev/null 2>&1 </dev/null & ) & wait; exit 3";
    let mut spec = fleet.shell("a", script);
    spec.sandbox = Some(Sandbox {
        best_effort: true,
        ..Sandbox::default()
    });
    fleet.start(spec).await;
    assert_eq!(fleet.exited("a").await.status, ExitStatus::Code(3));
    until("nothing is left", || fleet.processes().is_empty()).await;
}

#[tokio::test]
async fn a_program_with_the_rights_of_root_gives_none() {
    if !is_root() {
        assert!(!requires_all(), "this test needs root");
        println!("skipped: only root can make such a program");
        return;
    }
    let mut fleet = Fleet::new(Mode::Best).await;
    fs::set_permissions(fleet.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tool = fleet.path().join("tool");
    fs::copy("/usr/bin/id", &tool).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o4755)).unwrap();
    for (name, wanted, expect) in [
        ("free", None, "0"),
        (
            "shut",
            Some(Sandbox {
                best_effort: true,
                ..Sandbox::default()
            }),
            "65534",
        ),
    ] {
        let mut spec = fleet.shell(name, "exec ./tool -u");
        spec.user = Some("65534".into());
        spec.sandbox = wanted;
        fleet.start(spec).await;
        fleet.exited(name).await;
        assert_eq!(fleet.texts(name), [expect]);
    }
}

#[tokio::test]
async fn a_capability_that_is_kept_works_and_one_that_is_not_there_is_refused() {
    if !is_root() {
        assert!(!requires_all(), "this test needs root");
        return;
    }
    let mut fleet = Fleet::new(Mode::Best).await;
    for (name, kept, expect) in [
        ("none", vec![], "0000000000000000"),
        (
            "one",
            vec!["net_bind_service".to_owned()],
            "0000000000000400",
        ),
    ] {
        let mut spec = fleet.shell(name, "grep CapEff /proc/self/status | cut -f 2");
        spec.user = Some("65534".into());
        fs::set_permissions(fleet.path(), fs::Permissions::from_mode(0o755)).unwrap();
        spec.sandbox = Some(Sandbox {
            capabilities: kept,
            best_effort: true,
            ..Sandbox::default()
        });
        fleet.start(spec).await;
        fleet.exited(name).await;
        assert_eq!(fleet.texts(name), [expect]);
    }
    let mut spec = fleet.shell("wrong", "true");
    spec.sandbox = Some(Sandbox {
        capabilities: vec!["fly".into()],
        ..Sandbox::default()
    });
    let error = fleet.client.start(spec).await.unwrap_err();
    assert_eq!(error.failure().unwrap().code, FailureCode::InvalidRequest);
}

#[tokio::test]
async fn an_instance_cannot_ask_the_keeper_for_anything() {
    for mode in [Mode::Best, Mode::Scan] {
        let mut fleet = Fleet::new(mode).await;
        let binary = text(&std::env::current_exe().unwrap());
        // Once as it is, once as a daemon that wiped its marks.
        let ask = "PROBE='ask the keeper' KEEPER_DIRECTORY=$DIRECTORY $BINARY --exact probe::a_process \
                   --ignored --nocapture --test-threads=1";
        let script = format!("{ask} > first; (setsid sh -c \"{ask} > second; mv second third\" &)");
        let mut spec = fleet.shell(
            "a",
            &format!("{script}; until [ -e third ]; do sleep 0.01; done"),
        );
        spec.environment.insert("BINARY".into(), binary);
        let directory = text(&fleet.keeper_directory());
        spec.environment.insert("DIRECTORY".into(), directory);
        fleet.start(spec).await;
        fleet.exited("a").await;
        for name in ["first", "third"] {
            let said = fs::read_to_string(fleet.path().join(name)).unwrap();
            assert!(said.contains("hung up"), "{said}");
        }
        assert_eq!(fleet.client.stats().await.unwrap().clients, 1);
    }
}

#[tokio::test]
async fn what_is_hidden_is_not_found_by_any_way() {
    if !alicia_keeper::Kernel::ask().lacks().is_empty() {
        assert!(!requires_all());
        return;
    }
    let mut fleet = Fleet::new(Mode::Best).await;
    let work = fleet.path().join("work");
    fs::create_dir_all(work.join("hidden/deep")).unwrap();
    fs::create_dir_all(work.join("beside")).unwrap();
    fs::write(work.join("hidden/deep/secret"), "secret").unwrap();
    fs::write(work.join("key"), "secret").unwrap();
    std::os::unix::fs::symlink(work.join("hidden"), work.join("link")).unwrap();
    let script = "cd work; cat hidden/deep/secret key link/deep/secret 2>/dev/null; \
                  mv hidden beside/ 2>/dev/null; ln key beside/key 2>/dev/null; rm -rf hidden key 2>/dev/null; \
                  echo x > beside/new && cat beside/new";
    let mut with_list = sandbox(&work);
    with_list.hidden = vec![work.join("hidden"), work.join("link/../key")];
    let without = Sandbox {
        hidden: with_list.hidden.clone(),
        ..Sandbox::default()
    };
    for (name, wanted) in [("list", with_list), ("open", without)] {
        let mut spec = fleet.shell(name, script);
        spec.sandbox = Some(wanted);
        fleet.start(spec).await;
        fleet.exited(name).await;
        assert_eq!(fleet.texts(name), ["x"], "{name}");
        assert_eq!(
            fs::read_to_string(work.join("hidden/deep/secret")).unwrap(),
            "secret"
        );
        assert_eq!(fs::read_to_string(work.join("key")).unwrap(), "secret");
    }
    fleet.start(fleet.shell("free", script)).await;
    fleet.exited("free").await;
    assert!(
        fleet.texts("free").concat().contains("secretsecret"),
        "{:?}",
        fleet.texts("free")
    );
}
