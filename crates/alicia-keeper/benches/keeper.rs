//! What the keeper costs: start, restart, mass death, stop, memory. Beside a bare spawn in the same run.
//!
//! `cargo bench -p alicia-keeper` (add `-- --scan` for containment without cgroups). Times end when the
//! client knows that the new program is executed, so they are upper bounds of "a new process exists".

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people who measure"
)]

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use alicia_keeper::protocol::{
    Event, FileAccess, InstanceInfo, LogSpec, NetworkAccess, Sandbox, StartSpec, StopSpec, Target,
};
use alicia_keeper::{Client, Events, Session};
use rustix::process::{Pid, Signal, kill_process};

const INSTANCES: usize = 50;
const KILLS: usize = 500;
const CONFINED: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = directory.path().join("keeper");
    let mut arguments = vec!["--daemonise".to_owned(), "--directory".to_owned()];
    arguments.push(keeper.to_str().unwrap().to_owned());
    if std::env::args().any(|argument| argument == "--scan") {
        arguments.push("--scan".to_owned());
    }
    bare_spawn();
    let begun = Instant::now();
    let program = Path::new(env!("CARGO_BIN_EXE_alicia-keeper"));
    let Session {
        client,
        mut events,
        connection,
    } = Client::connect_or_start(&keeper, program, &arguments)
        .await
        .unwrap();
    tokio::spawn(connection.run());
    println!(
        "keeper itself, to connected          {:>9.2} ms",
        ms(begun.elapsed())
    );
    let spec = |number: usize| {
        let name = format!("a-{number}");
        let log = LogSpec::new(directory.path().join("logs"), &name);
        let mut spec = StartSpec::new(name, "/bin/sleep", "/", log);
        spec.arguments = vec!["100000".into()];
        spec
    };
    let specs: Vec<StartSpec> = (0..INSTANCES).map(spec).collect();
    let mut fleet = start_all(&client, &specs).await;
    memory(&client, "at 50 instances").await;
    restarts(&client, &mut events, &specs, &mut fleet).await;
    mass_death(&client, &mut events, &specs, &mut fleet).await;
    let begun = Instant::now();
    client.list().await.unwrap();
    println!(
        "list of 50                           {:>9.2} ms",
        ms(begun.elapsed())
    );
    stop_all(&client, &specs).await;
    confined(&client, &specs[0]).await;
    memory(&client, "at the end").await;
    client.shutdown(Duration::from_secs(1)).await.unwrap();
}

/// The floor: what the system needs for a process.
fn bare_spawn() {
    let mut children = Vec::new();
    let mut times: Vec<Duration> = (0..INSTANCES)
        .map(|_| {
            let begun = Instant::now();
            let mut command = Command::new("/bin/sleep");
            children.push(command.arg("100000").stdout(Stdio::null()).spawn().unwrap());
            begun.elapsed()
        })
        .collect();
    report("bare spawn (floor)", &mut times);
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

async fn start_all(client: &Client, specs: &[StartSpec]) -> HashMap<String, InstanceInfo> {
    let begun = Instant::now();
    let starts = specs.iter().cloned().map(|spec| {
        let client = client.clone();
        tokio::spawn(async move { client.start(spec).await.unwrap() })
    });
    let mut fleet = HashMap::new();
    for start in starts.collect::<Vec<_>>() {
        let info = start.await.unwrap();
        fleet.insert(info.instance.clone(), info);
    }
    println!(
        "start of 50                          {:>9.2} ms",
        ms(begun.elapsed())
    );
    fleet
}

async fn restarts(
    client: &Client,
    events: &mut Events,
    specs: &[StartSpec],
    fleet: &mut HashMap<String, InstanceInfo>,
) {
    let mut noticed = Vec::new();
    let mut restarted = Vec::new();
    for kill in 0..KILLS {
        let mut spec = specs[kill % specs.len()].clone();
        let begun = Instant::now();
        kill_leader(&fleet[&spec.instance]);
        spec.replaces = Some(exited(events).await.1);
        noticed.push(begun.elapsed());
        let info = client.start(spec).await.unwrap();
        restarted.push(begun.elapsed());
        fleet.insert(info.instance.clone(), info);
    }
    report("kill to exit known to the client", &mut noticed);
    report("kill to new process", &mut restarted);
}

/// What limits and a sandbox add to a start, taken in turn.
async fn confined(client: &Client, plain: &StartSpec) {
    let mut limited = plain.clone();
    limited.limits.memory_bytes_max = Some(64 << 20);
    limited.limits.processes_max = Some(10);
    let mut default = plain.clone();
    default.sandbox = Some(Sandbox::default());
    let mut full = plain.clone();
    full.sandbox = Some(Sandbox {
        files: Some(FileAccess {
            read_only: Some(Vec::new()),
            writable: vec!["/tmp".into()],
            with_system: true,
        }),
        network: Some(NetworkAccess {
            connect: vec![443],
            ..NetworkAccess::default()
        }),
        ..Sandbox::default()
    });
    let mut told = plain.clone();
    told.notify = true;
    let kinds = [
        ("plain start", plain.clone()),
        ("with a notify socket", told),
        ("with limits", limited),
        ("with the default sandbox", default),
        ("with files and ports", full),
    ];
    let mut times = kinds.each_ref().map(|_| Vec::new());
    for turn in 0..CONFINED {
        for (kind, (_, spec)) in kinds.iter().enumerate() {
            let mut spec = spec.clone();
            spec.instance = format!("c-{turn}-{kind}");
            let begun = Instant::now();
            let info = client.start(spec).await.unwrap();
            times[kind].push(begun.elapsed());
            let stop = StopSpec {
                instance: info.instance.clone(),
                signal: None,
                grace_ms: Some(0),
                target: Target::Tree,
            };
            client.stop(stop).await.unwrap();
            client.forget(&info.instance, info.run).await.unwrap();
        }
    }
    for ((name, _), times) in kinds.iter().zip(&mut times) {
        report(name, times);
    }
}

async fn mass_death(
    client: &Client,
    events: &mut Events,
    specs: &[StartSpec],
    fleet: &mut HashMap<String, InstanceInfo>,
) {
    let begun = Instant::now();
    for info in fleet.values() {
        kill_leader(info);
    }
    let mut starts = Vec::new();
    for _ in specs {
        let (instance, run) = exited(events).await;
        let mut spec = specs
            .iter()
            .find(|spec| spec.instance == instance)
            .unwrap()
            .clone();
        spec.replaces = Some(run);
        let client = client.clone();
        starts.push(tokio::spawn(
            async move { client.start(spec).await.unwrap() },
        ));
    }
    for start in starts {
        let info = start.await.unwrap();
        fleet.insert(info.instance.clone(), info);
    }
    println!(
        "50 killed at once, all back          {:>9.2} ms",
        ms(begun.elapsed())
    );
}

async fn stop_all(client: &Client, specs: &[StartSpec]) {
    let begun = Instant::now();
    let stops = specs.iter().map(|spec| {
        let (client, instance) = (client.clone(), spec.instance.clone());
        let stop = StopSpec {
            instance,
            signal: None,
            grace_ms: None,
            target: Target::Tree,
        };
        tokio::spawn(async move { client.stop(stop).await.unwrap() })
    });
    for stop in stops.collect::<Vec<_>>() {
        stop.await.unwrap();
    }
    println!(
        "stop of 50                           {:>9.2} ms",
        ms(begun.elapsed())
    );
}

async fn memory(client: &Client, when: &str) {
    let stats = client.stats().await.unwrap();
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", stats.pid)).unwrap();
    let value = |name: &str| {
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    println!(
        "keeper {when}: rss {} kB, pss {} kB, anonymous {} kB ({:?}, nice {})",
        value("Rss:"),
        value("Pss:"),
        value("Anonymous:"),
        stats.containment,
        stats.nice,
    );
}

async fn exited(events: &mut Events) -> (String, u64) {
    loop {
        if let Event::Exited { instance, run, .. } = events.next().await.unwrap() {
            return (instance, run);
        }
    }
}

fn kill_leader(info: &InstanceInfo) {
    let pid = Pid::from_raw(i32::try_from(info.pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| ms(times[((times.len() - 1) as f64 * share) as usize]);
    println!(
        "{what:36} {:>9.2} ms p50 {:>8.2} p99 {:>8.2} max",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
