//! This machine as a test needs it: processes, ports, programs.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// A process that came from a house.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HouseProcess {
    /// Its id.
    pub pid: u32,
    /// The service that it belongs to; none for the host and the keeper.
    pub service: Option<String>,
}

/// Every live process whose environment names this directory. What a program does to itself, sessions and double forks
/// included, does not take it out of here.
pub(super) fn processes(place: &Path) -> Vec<HouseProcess> {
    let numbers = fs::read_dir("/proc").expect("there is /proc");
    numbers
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| process(place.as_os_str().as_encoded_bytes(), pid))
        .collect()
}

/// A zombie has no environment any more.
fn process(place: &[u8], pid: u32) -> Option<HouseProcess> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let is_from_here = environment.windows(place.len()).any(|part| part == place);
    let service = variables.find_map(|variable| variable.strip_prefix(b"ALICIA_SERVICE="));
    is_from_here.then(|| HouseProcess {
        pid,
        service: service.map(|name| String::from_utf8_lossy(name).into_owned()),
    })
}

/// The keeper of a house: the process that was called as one, for this directory.
pub(super) fn keeper(place: &Path) -> Option<u32> {
    let is_keeper = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.nth(1) == Some(b"keeper")
    };
    let processes = processes(place).into_iter().map(|process| process.pid);
    processes.into_iter().find(|pid| is_keeper(*pid))
}

/// Whether a process is there, a zombie included.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Sends a signal.
///
/// # Panics
/// When there is no such process.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), signal).expect("the process is there");
}

/// A port that was free a moment ago.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Whether a program is there, for tests that [need](has) it.
///
/// # Panics
/// When it is not there and must be.
#[must_use]
pub fn is_installed(program: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(program).is_file());
    has(
        is_there,
        &format!("{program} is not installed (Debian: {package})"),
    )
}

/// Whether this machine has what a test needs. Where not, the test says what is lacking and is skipped;
/// `ALICIA_REQUIRE_ALL=1` makes that a failure.
///
/// # Panics
/// When it is not there and must be.
#[must_use]
#[expect(clippy::print_stderr, reason = "it is for who runs the tests")]
pub fn has(is_there: bool, lack: &str) -> bool {
    let is_required = std::env::var_os("ALICIA_REQUIRE_ALL").is_some();
    assert!(is_there || !is_required, "{lack}");
    if !is_there {
        eprintln!("skipped: {lack}");
    }
    is_there
}
