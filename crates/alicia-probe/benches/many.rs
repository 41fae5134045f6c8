//! Ten thousand HTTP probes a second: how late they are, and what they cost.
//!
//! ```text
//! cargo bench -p alicia-probe --bench many -- [PROBES [SECONDS]]
//! ```
//!
//! The server is another process (this program once more), so that the cost told is that of the prober alone. Every probe is
//! due once a second in a phase of its own, on two threads.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alicia_contract::fleet::Probe;
use alicia_probe::{Context, First, Target, Ticker, attempt};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// The argument that makes this program the server.
const SERVE: &str = "serve";

const INTERVAL: Duration = Duration::from_secs(1);

/// How many threads try: the machine of the figure has two cores.
const THREADS: usize = 2;

fn main() {
    // `cargo bench` adds `--bench`.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|text| text != "--bench")
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .expect("a runtime");
    match arguments.first().map(String::as_str) {
        Some(SERVE) => runtime.block_on(serve()),
        first => {
            let number = |text: Option<&str>, default: u64| match text {
                None => default,
                Some(text) => text.parse().expect("a number"),
            };
            let probes = number(first, 10_000);
            let seconds = number(arguments.get(1).map(String::as_str), 20);
            runtime.block_on(measure(probes, Duration::from_secs(seconds)));
        }
    }
}

/// Answers everything with 200, and says its port.
async fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    println!("{}", listener.local_addr().expect("bound").port());
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(async move {
            let mut head = [0; 1_024];
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
            if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                stream.write_all(answer).await.ok();
            }
        });
    }
}

async fn measure(probes: u64, length: Duration) {
    let program = std::env::current_exe().expect("this program");
    let mut server = Command::new(program)
        .arg(SERVE)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut line = String::new();
    let output = server.stdout.take().expect("piped");
    BufReader::new(output)
        .read_line(&mut line)
        .expect("its port");
    let port: u16 = line.trim().parse().expect("a port");
    let probe: Probe =
        serde_json::from_value(json!({ "http": { "port": port } })).expect("a probe");
    let context = Context {
        port: None,
        pid: None,
        directory: Path::new("/"),
        environment: &[],
    };
    let target = Target::resolve(&probe, &context).expect("it can be tried");
    let (failed, late) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(Mutex::new(Vec::new())),
    );
    let end = Instant::now() + length;
    let before = cpu();
    let mut tasks = Vec::new();
    for seed in 0..probes {
        let (target, failed, late) = (target.clone(), Arc::clone(&failed), Arc::clone(&late));
        tasks.push(tokio::spawn(async move {
            let mut ticker = Ticker::new(INTERVAL, Duration::ZERO, First::InPhase, seed);
            let mut own = Vec::new();
            while ticker.next() < end {
                let due = ticker.next();
                ticker.tick().await;
                let lateness = Instant::now().saturating_duration_since(due);
                let outcome = attempt(&target, Duration::from_secs(2)).await;
                if !outcome.ok {
                    failed.fetch_add(1, Relaxed);
                }
                own.push((lateness, outcome.latency));
            }
            late.lock().expect("not poisoned").extend(own);
        }));
    }
    for task in tasks {
        task.await.expect("it ends");
    }
    let used = cpu() - before;
    server.kill().expect("it runs");
    server.wait().expect("it ended");
    let mut tries = late.lock().expect("not poisoned").clone();
    let count = tries.len();
    println!(
        "{probes} HTTP probes at 1 s for {} s, {} build: {count} tries, {} failed",
        length.as_secs(),
        if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
        failed.load(Relaxed)
    );
    println!(
        "CPU of the prober: {:.2} cores, memory {} MiB",
        used / length.as_secs_f64(),
        memory_mib()
    );
    tries.sort();
    println!("late: {}", percentiles(tries.iter().map(|(late, _)| *late)));
    tries.sort_by_key(|(_, latency)| *latency);
    println!(
        "took: {}",
        percentiles(tries.iter().map(|(_, latency)| *latency))
    );
    let expected = usize::try_from(probes * length.as_secs()).unwrap_or(usize::MAX);
    if count < expected * 99 / 100 {
        eprintln!(
            "{} tries were skipped: the machine is too slow for so many",
            expected - count
        );
    }
}

fn percentiles(sorted: impl Iterator<Item = Duration>) -> String {
    let sorted: Vec<Duration> = sorted.collect();
    let at = |permille: usize| sorted[(sorted.len() - 1) * permille / 1_000].as_secs_f64() * 1e3;
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        at(500),
        at(990),
        at(1_000)
    )
}

/// The CPU that this process used so far, in seconds.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("proc");
    let (_, fields) = text.rsplit_once(") ").expect("a name");
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks: f64 = [fields[11], fields[12]]
        .iter()
        .map(|text| text.parse::<f64>().expect("a number"))
        .sum();
    ticks / 100.0
}

fn memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = text
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("a line");
    let kib: u64 = line
        .split_ascii_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("a number");
    kib >> 10
}
