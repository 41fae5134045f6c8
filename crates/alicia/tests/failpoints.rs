//! The house is run once per failpoint: it dies right there, and what is promised must hold after the next start.
//!
//! - no slot has two live processes, and no process is left without a supervisor;
//! - no epoch is used twice, whoever died between the start and its record;
//! - what was acknowledged is so afterwards;
//! - everything wanted runs again.

#![expect(clippy::panic, reason = "a test fails with what it saw")]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use alicia_contract::InstanceId;
use alicia_contract::orchestrator::InstanceState;
use alicia_failpoint::{POINTS, VARIABLE};
use alicia_testkit::house::{House, is_alive, signal};
use rustix::process::Signal;
use serde_json::json;

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

/// Each run says its epoch, in a file that outlives it; nothing is written twice by one run.
const FILE: &str = "name: failpoints
services:
  worker:
    command: [sh, -c, 'echo $ALICIA_SLOT $ALICIA_EPOCH >> ../epochs; exec sleep 1000']
    directory: ./work
    instances: 2
    back_off: {initial: 10ms, max: 50ms}
    start_limit: {starts: 0}
  other:
    command: sleep 1000
    back_off: {initial: 10ms, max: 50ms}
    start_limit: {starts: 0}
";

/// The points are met at different moments of the same work: the first, second or third time that they are passed.
const COUNTS: usize = 3;

/// How often one looks: half a minute, on a machine without other work.
const ROUNDS_MAX: u32 = 1_000;

#[tokio::test]
async fn a_crash_at_any_edge_loses_nothing_that_was_promised() {
    for (index, point) in POINTS.into_iter().enumerate() {
        let armed = format!("{point}@{}", 1 + index % COUNTS);
        eprintln!("at {armed}");
        dies_and_comes_back(&armed).await;
    }
}

async fn dies_and_comes_back(armed: &str) {
    let mut house = House::new(ALICIA, FILE);
    fs::create_dir(house.path().join("work")).expect("a directory");
    house.spawn_host_with(&[], &[(VARIABLE, armed)]);
    let promised = work_until_it_dies(&mut house, armed).await;
    house.bury_host();
    // This host is not armed. A keeper that lives on may be, and die once more: the same must hold.
    house.start_host().await;
    for round in 0.. {
        let rows = house.rows().await;
        let found = ["worker", "other"].map(|service| house.processes_of(service));
        let found: BTreeSet<u32> = found.concat().into_iter().collect();
        let supervised: BTreeSet<u32> = rows.iter().filter_map(|row| row.pid).collect();
        let running = |service: &str| {
            let of_service = rows.iter().filter(|row| row.service.as_str() == service);
            of_service
                .filter(|row| row.state == InstanceState::Running)
                .count()
        };
        let is_right = promised.contains(&running("worker")) && running("other") == 1;
        // Just what is supervised runs, no more and no less.
        if is_right && found == supervised {
            break;
        }
        assert!(
            round < ROUNDS_MAX,
            "{armed}: {promised:?} workers promised, {found:?} run: {rows:#?}"
        );
        pause().await;
    }
    check_epochs(&house, armed);
    house.says(&["down"]).exits(0);
}

/// Kills, scales and starts until the host or its keeper dies. Gives the numbers of workers that there may be
/// afterwards: the one that was acknowledged last, and one that was asked for and not answered.
async fn work_until_it_dies(house: &mut House, armed: &str) -> Vec<usize> {
    let mut promised = vec![2];
    let mut keeper = None;
    for round in 0..ROUNDS_MAX {
        let is_over = match armed.starts_with("keeper/") {
            true => keeper.is_some_and(|pid| !is_alive(pid)),
            false => house.has_host_ended(),
        };
        if is_over {
            return promised;
        }
        keeper = keeper.or_else(|| house.keeper_pid());
        for service in ["worker", "other"] {
            if let Some(pid) = house.processes_of(service).first() {
                signal(*pid, Signal::KILL);
            }
        }
        if round % 3 == 1 {
            let wanted = if promised.contains(&3) { 2 } else { 3 };
            let body = json!({ "instances": wanted });
            match house
                .try_post("/api/orchestrator/scale/worker", &body)
                .await
            {
                Some(200..=299) => promised = vec![wanted],
                // Without an answer it may have been written down or not.
                _ => promised.push(wanted),
            }
        }
        register(house, round).await;
        pause().await;
    }
    panic!("{armed} was not passed: {}", house.host_log());
}

/// Somebody from outside registers; whether it is heard does not matter here.
async fn register(house: &House, round: u32) {
    let instance = InstanceId::from_parts(1_700_000_000_000, u128::from(round));
    let body = json!({ "service": "outsider", "instance": instance });
    let _heard_or_not = house.try_post("/api/registry/agents", &body).await;
}

/// Between two looks; nothing depends on how long it is.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(30)).await;
}

fn check_epochs(house: &House, armed: &str) {
    let text = fs::read_to_string(house.path().join("epochs")).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        assert!(
            seen.insert(line.to_owned()),
            "{armed}: the slot and epoch {line} were used twice:\n{text}"
        );
    }
}
