//! Whoever dies: host, keeper, program version.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use alicia_keeper::Client;
use alicia_keeper::protocol::{ExitStatus, FailureCode, StopSpec, Target};

use crate::fleet::{Fleet, Mode, is_alive, kill, stop, text, until};

/// Where the host process below finds its keeper.
const KEEPER_VARIABLE: &str = "ALICIA_TEST_KEEPER";

fn pids(listing: &alicia_keeper::Listing) -> Vec<(String, u32)> {
    listing
        .instances
        .iter()
        .map(|it| (it.instance.clone(), it.pid))
        .collect()
}

#[tokio::test]
async fn a_host_that_is_killed_a_hundred_times_costs_nothing() {
    const KILLS: usize = 100;
    let fleet = Fleet::new(Mode::Best).await;
    let names: Vec<String> = (0..5).map(|number| format!("a-{number}")).collect();
    for name in &names {
        fleet.start(fleet.counter(name, u64::MAX / 2)).await;
    }
    let before = pids(&fleet.client.list().await.unwrap());
    for _ in 0..KILLS {
        let mut host = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "survival::a_host_process",
                "--ignored",
                "--nocapture",
            ])
            .env(KEEPER_VARIABLE, fleet.keeper_directory())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let client = &fleet.client;
        while client.stats().await.unwrap().clients < 2 {
            assert!(
                host.try_wait().unwrap().is_none(),
                "the host process ended by itself"
            );
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        host.kill().unwrap();
        host.wait().unwrap();
        while client.stats().await.unwrap().clients > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    assert_eq!(pids(&fleet.client.list().await.unwrap()), before);
    for name in &names {
        fleet.client.stop(stop(name)).await.unwrap();
        assert!(fleet.check_counter(name) > 100);
    }
}

/// The host that the test above kills: it asks and asks.
#[tokio::test]
#[ignore = "runs as a process of another test"]
#[expect(
    clippy::disallowed_methods,
    reason = "it is given its keeper as a process is"
)]
async fn a_host_process() {
    let keeper = std::env::var(KEEPER_VARIABLE).unwrap();
    let session = Client::connect(Path::new(&keeper)).await.unwrap();
    tokio::spawn(session.connection.run());
    while session.client.list().await.is_ok() {}
}

#[tokio::test]
async fn exits_while_no_host_is_there_are_kept() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let script = "until [ -e go ]; do sleep 0.01; done; echo done; exit 42";
    fleet.start(fleet.shell("a", script)).await;
    fleet.disconnect().await;
    std::fs::write(fleet.path().join("go"), "").unwrap();
    until("it is done", || fleet.texts("a") == ["done"]).await;
    fleet.reconnect().await;
    let exited = async {
        loop {
            let listing = fleet.client.list().await.unwrap();
            if let Some(exit) = listing.instances[0].exit.clone() {
                return exit;
            }
        }
    };
    assert_eq!(exited.await.status, ExitStatus::Code(42));
}

#[tokio::test]
async fn after_the_death_of_a_keeper_the_next_one_ends_what_is_left() {
    for mode in [Mode::Best, Mode::Scan] {
        let mut fleet = Fleet::new(mode).await;
        let polite =
            "trap '' PIPE; trap 'touch polite; exit' TERM; echo $$; while :; do sleep 0.01; done";
        fleet.start(fleet.shell("polite", polite)).await;
        let rude = "(setsid sh -c 'trap \"\" TERM; touch rude; while :; do sleep 0.1; done' &); \
                    trap '' TERM PIPE; while :; do sleep 0.1; done";
        fleet.start(fleet.shell("rude", rude)).await;
        let ended = fleet.start(fleet.shell("ended", "exit 7")).await;
        fleet.exited("ended").await;
        until("all are ready", || {
            fleet.path().join("rude").exists() && fleet.texts("polite").len() == 1
        })
        .await;
        // Records are written after the answers: a keeper that dies in between has none.
        let exit = format!("records/{}.exit", ended.run);
        until("the exit is written down", || {
            fleet.keeper_directory().join(&exit).exists()
        })
        .await;
        let old = fleet.keeper;
        let before = fleet.processes();
        assert!(before.len() >= 3);
        fleet.kill_keeper();
        until("the keeper is dead", || !is_alive(old)).await;
        assert!(
            before.iter().any(|pid| is_alive(*pid)),
            "services go on serving"
        );
        fleet.reconnect().await;
        assert_ne!(fleet.keeper, old);
        until("nothing is left", || fleet.processes().is_empty()).await;
        assert!(
            fleet.path().join("polite").exists(),
            "it was asked before it was killed"
        );
        let listing = loop {
            let listing = fleet.client.list().await.unwrap();
            if listing.instances.iter().all(|it| it.empty) {
                break listing;
            }
        };
        let mut statuses: Vec<_> = listing
            .instances
            .iter()
            .map(|it| (it.instance.as_str(), it.exit.as_ref().unwrap().status))
            .collect();
        statuses.sort_unstable_by_key(|(name, _)| *name);
        let expect = [
            ("ended", ExitStatus::Code(7)),
            ("polite", ExitStatus::Lost),
            ("rude", ExitStatus::Lost),
        ];
        assert_eq!(statuses, expect, "{mode:?}");
        let asked = listing
            .instances
            .iter()
            .filter(|it| it.exit.as_ref().unwrap().requested);
        assert_eq!(asked.count(), 0, "nobody asked for that end");
        fleet.client.forget("ended", ended.run).await.unwrap();
        // And the names can be used again.
        let mut again = fleet.shell("polite", "exit 0");
        again.replaces = listing
            .instances
            .iter()
            .find(|it| it.instance == "polite")
            .map(|it| it.run);
        fleet.start(again).await;
    }
}

#[tokio::test]
async fn an_upgrade_in_place_costs_nothing() {
    const UPGRADES: usize = 10;
    let program = env!("CARGO_BIN_EXE_alicia-keeper");
    for mode in [Mode::Best, Mode::Scan] {
        let mut fleet = Fleet::new(mode).await;
        let mut arguments = vec!["--directory".to_owned(), text(&fleet.keeper_directory())];
        if mode == Mode::Scan {
            arguments.push("--scan".to_owned());
        }
        let names: Vec<String> = (0..5).map(|number| format!("a-{number}")).collect();
        for name in &names {
            fleet.start(fleet.counter(name, u64::MAX / 2)).await;
        }
        let slow = "trap 'sleep 0.3; exit 11' TERM; echo ready; while :; do sleep 0.01; done";
        fleet.start(fleet.shell("slow", slow)).await;
        until("it is ready", || fleet.texts("slow") == ["ready"]).await;
        let web = fleet.client.listen("web", "127.0.0.1:0").await.unwrap();
        let before = pids(&fleet.client.list().await.unwrap());
        // A stop that is asked before and answered after.
        let client = fleet.client.clone();
        let stopped = tokio::spawn(async move { client.stop(stop("slow")).await });
        for _ in 0..UPGRADES {
            let hello = fleet
                .client
                .upgrade(Path::new(program), &arguments)
                .await
                .unwrap();
            assert_eq!(hello.pid, fleet.keeper);
        }
        assert_eq!(
            stopped.await.unwrap().unwrap().exit.status,
            ExitStatus::Code(11)
        );
        let listing = fleet.client.list().await.unwrap();
        assert_eq!(pids(&listing), before);
        assert_eq!(listing.listeners.as_slice(), [web]);
        let failed = fleet
            .client
            .upgrade(Path::new("/no/such"), &arguments)
            .await
            .unwrap_err();
        assert_eq!(failed.failure().unwrap().code, FailureCode::UpgradeFailed);
        kill("-KILL", listing.instances[0].pid);
        assert!(matches!(
            fleet.exited("a-0").await.status,
            ExitStatus::Signal { signal: 9, .. }
        ));
        for name in &names[1..] {
            let spec = StopSpec {
                target: Target::Leader,
                ..stop(name)
            };
            let stopped = fleet.client.stop(spec).await.unwrap();
            assert_eq!(stopped.exit.status, ExitStatus::Code(0));
            assert!(fleet.check_counter(name) > 0);
        }
    }
}
