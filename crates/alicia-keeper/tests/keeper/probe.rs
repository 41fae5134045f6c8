//! The program of these tests: this very binary, as a supervised process that does one thing.

use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use alicia_keeper::protocol::StartSpec;

use crate::fleet::{Fleet, text};

/// What it is to do.
const VARIABLE: &str = "PROBE";

/// A supervised process that does `what`; further variables tell it more.
pub(crate) fn spec(fleet: &Fleet, instance: &str, what: &str) -> StartSpec {
    let mut spec = fleet.shell(instance, "");
    spec.program = text(&std::env::current_exe().unwrap());
    spec.arguments = ["--exact", "probe::a_process", "--ignored", "--nocapture"]
        .map(str::to_owned)
        .into();
    spec.arguments.push("--test-threads=1".into());
    spec.environment.insert(VARIABLE.into(), what.into());
    spec
}

/// What the tests start.
#[test]
#[ignore = "runs as a process of other tests"]
#[expect(
    clippy::disallowed_methods,
    reason = "it is a process that is told what to do"
)]
fn a_process() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    match variable(VARIABLE).as_str() {
        "say" => say(),
        "say-from-a-child" => {
            let status = Command::new(std::env::current_exe().unwrap())
                .args(std::env::args().skip(1))
                .env(VARIABLE, "say")
                .status();
            assert!(status.unwrap().success());
            std::thread::sleep(Duration::from_secs(100));
        }
        "flood" => loop {
            notify("STATUS=flood");
        },
        "ask for time" => {
            let began = std::time::Instant::now();
            while began.elapsed() < Duration::from_secs(3) {
                notify("EXTEND_TIMEOUT_USEC=60000000");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        "feed" => loop {
            notify("WATCHDOG=1");
            std::thread::sleep(Duration::from_millis(20));
        },
        "ask the keeper" => ask_the_keeper(&variable("KEEPER_DIRECTORY")),
        "attempt" => crate::escape::make(&variable("ATTEMPT")),
        "eat" => eat(),
        "fork" => fork(),
        "eat-in-a-child" => {
            let status = Command::new(std::env::current_exe().unwrap())
                .args(std::env::args().skip(1))
                .env(VARIABLE, "eat")
                .status();
            // Only a limit of single processes ends the child alone.
            assert!(status.unwrap().success());
            std::thread::sleep(Duration::from_secs(100));
        }
        other => panic!("nothing to do: {other:?}"),
    }
}

/// Every message of `SAY` (separated by `;`, with `|` for a line feed), then waits, or ends if `END` is set.
#[expect(
    clippy::disallowed_methods,
    reason = "it is a process that is told what to do"
)]
fn say() {
    let variables: BTreeMap<String, String> = std::env::vars().collect();
    for message in variables["SAY"].split(';') {
        notify(
            &message
                .replace('|', "\n")
                .replace("$PID", &std::process::id().to_string()),
        );
    }
    if !variables.contains_key("END") {
        std::thread::sleep(Duration::from_secs(100));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "that is where the protocol has it"
)]
fn notify(message: &str) {
    let path = std::env::var("NOTIFY_SOCKET").unwrap();
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).unwrap(),
        None => SocketAddr::from_pathname(path).unwrap(),
    };
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to_addr(message.as_bytes(), &address).unwrap();
}

/// Uses `EAT` MiB of memory, a MiB at a time, and ends well.
#[expect(
    clippy::disallowed_methods,
    reason = "it is a process that is told what to do"
)]
fn eat() {
    const MIB: usize = 1 << 20;
    let wanted: usize = std::env::var("EAT").unwrap().parse().unwrap();
    let mut eaten = Vec::new();
    while eaten.len() < wanted {
        eaten.push(std::hint::black_box(vec![1_u8; MIB]));
    }
    println!("ate {}", eaten.len());
}

/// Makes processes until `REFUSED` were refused, says so with the file `refused`, and waits for the file `go`.
/// Then, when one of its processes has ended, another can be made.
#[expect(
    clippy::disallowed_methods,
    reason = "it is a process that is told what to do"
)]
fn fork() {
    /// If nothing holds it: a mistake of a test must not take the machine.
    const MADE_MAX: usize = 200;
    let wanted: u64 = std::env::var("REFUSED").unwrap().parse().unwrap();
    let make = || Command::new("sleep").arg("100").spawn();
    let (mut made, mut refused) = (Vec::new(), 0);
    while refused < wanted {
        match make() {
            Ok(child) => made.push(child),
            Err(_) => refused += 1,
        }
        assert!(made.len() < MADE_MAX, "nothing was refused");
    }
    std::fs::write("refused", refused.to_string()).unwrap();
    while !std::path::Path::new("go").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut last = made.pop().unwrap();
    last.kill().unwrap();
    last.wait().unwrap();
    made.push(make().unwrap());
}

/// Ends well if the keeper answers, with 1 if it hangs up.
fn ask_the_keeper(directory: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let connected = runtime.block_on(alicia_keeper::Client::connect(directory.as_ref()));
    println!("{}", connected.map_or("hung up", |_| "answered"));
}
