//! How quick starts, restarts and stops are, with a real keeper: `cargo bench -p alicia-orchestrator`.
//!
//! A restart is measured from the kill to the keeper's word that the new program is executed, as a second
//! client of the keeper hears it. The program is `sleep`, so that its own start hardly counts.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

#[path = "../tests/real/support.rs"]
#[expect(
    dead_code,
    clippy::panic,
    reason = "made for the tests; not all of it is used here"
)]
mod support;

use std::time::{Duration, Instant};

use alicia_keeper::Client;
use alicia_keeper::protocol::Event;
use alicia_orchestrator::Config;
use rustix::process::Signal;
use serde_json::json;
use support::{Home, House, send};

/// Single kills that are measured.
const KILLS: usize = 200;
/// Instances of the fleet that is started, killed and stopped at once.
const INSTANCES: usize = 50;
/// Starts of that fleet.
const ROUNDS: usize = 5;

#[tokio::main(worker_threads = 2)]
async fn main() {
    restarts().await;
    fleets().await;
}

fn service() -> serde_json::Value {
    json!({ "command": "sleep 1000", "instances": 1, "start_limit": { "starts": 0 },
            "back_off": { "reset_after": "0s" } })
}

async fn restarts() {
    let house = House::new(json!({ "api": service() })).await;
    let mut pid = house.pid("api", 1).await;
    let session = Client::connect(&house.paths.keeper())
        .await
        .expect("connects");
    let (client, mut events) = (session.client, session.events);
    tokio::spawn(session.connection.run());
    let mut times = Vec::with_capacity(KILLS);
    for _ in 0..KILLS {
        let start = Instant::now();
        send(pid, Signal::KILL);
        pid = next_start(&mut events).await;
        times.push(start.elapsed());
    }
    report("SIGKILL to new process", &mut times);
    drop(client);
    house.finish().await;
}

async fn next_start(events: &mut alicia_keeper::Events) -> u32 {
    loop {
        if let Some(Event::Started(info)) = events.next().await {
            return info.pid;
        }
    }
}

async fn fleets() {
    let services: serde_json::Map<_, _> = (0..INSTANCES)
        .map(|n| (format!("s{n}"), service()))
        .collect();
    let (mut cold, mut killed, mut stopped) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let home = Home::new();
        let start = Instant::now();
        let house = House::open(home, services.clone().into(), Config::default()).await;
        until_all_run(&house).await;
        cold.push(start.elapsed());
        let session = Client::connect(&house.paths.keeper())
            .await
            .expect("connects");
        let (client, mut events) = (session.client, session.events);
        tokio::spawn(session.connection.run());
        let start = Instant::now();
        for info in client.list().await.expect("lists").instances {
            send(info.pid, Signal::KILL);
        }
        for _ in 0..INSTANCES {
            next_start(&mut events).await;
        }
        killed.push(start.elapsed());
        until_all_run(&house).await;
        let start = Instant::now();
        house.post("/stop?wait=30s", json!({})).await;
        stopped.push(start.elapsed());
        drop(client);
        house.finish().await;
    }
    report(
        &format!("start {INSTANCES} with keeper, store and module"),
        &mut cold,
    );
    report(
        &format!("{INSTANCES} killed at once, all back"),
        &mut killed,
    );
    report(&format!("stop {INSTANCES}"), &mut stopped);
}

async fn until_all_run(house: &House) {
    loop {
        let status = house.status().await;
        let pids = status
            .services
            .iter()
            .flat_map(|s| &s.instances)
            .filter(|i| i.pid.is_some());
        if pids.count() == INSTANCES {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
    println!(
        "{what}: min {:.2} ms, p50 {:.2} ms, p99 {:.2} ms",
        at(0),
        at(50),
        at(99)
    );
}
