//! Hosts and keepers come and go; instances stay.

use std::time::Duration;

use crate::support::{Home, House, eventually, keeper_pids, lives, send, shell};
use alicia_contract::orchestrator::InstanceState::{Completed, Failed, Running, Stopped, Waiting};
use alicia_module::Module;
use alicia_module::module::{Ending, Health};
use alicia_orchestrator::Config;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Lives of the host in one test.
const HOSTS: usize = 20;

fn services() -> Value {
    json!({
        "db": { "command": shell("echo up; exec sleep 1000"),
                "readiness": { "log_line": { "contains": "up" } } },
        "api": { "command": shell("i=0; while :; do i=$((i+1)); echo line $i; sleep 0.002; done"),
                 "depends_on": ["db"], "instances": 2, "ports": { "http": "auto" } },
        "migrate": { "command": "true", "restart": "on-failure" },
    })
}

async fn pids(house: &House) -> Vec<u32> {
    let mut pids = Vec::new();
    for (service, slot) in [("db", 1), ("api", 1), ("api", 2)] {
        pids.push(house.pid(service, slot).await);
    }
    pids
}

#[tokio::test]
async fn a_host_that_crashes_leaves_everything_running() {
    let mut home = Home::new();
    let mut before: Option<(Vec<u32>, Value)> = None;
    for _ in 0..HOSTS {
        let house = House::open(home, services(), Config::default()).await;
        let pids = pids(&house).await;
        house
            .until("migrate", 1, |instance| instance.state == Completed)
            .await;
        let api = house.instance("api", 1).await.expect("it is there");
        let same = json!([api.ports, api.restarts, api.epoch, api.instance]);
        if let Some(before) = &before {
            assert_eq!(before, &(pids.clone(), same.clone()));
        }
        before = Some((pids, same));
        home = house.crash().await;
    }
    let house = House::open(home.clone(), services(), Config::default()).await;
    pids(&house).await;
    let mut numbers: Vec<u64> = Vec::new();
    eventually("a hundred lines", async || {
        let logs = house.text("/services/api/logs?slot=1&tail=10000").await;
        let number = |line: &str| line.rsplit_once(' ')?.1.parse().ok();
        numbers = logs.lines().filter_map(number).collect();
        numbers.len() > 100
    })
    .await;
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "a line is missing or doubled"
    );
    house.finish().await;
    assert!(!lives(before.expect("there was one").0[0]));
}

#[tokio::test]
async fn a_new_host_hears_of_what_ended_meanwhile() {
    let services = json!({ "api": { "command": "sleep 1000", "restart": "on-failure" } });
    let house = House::open(Home::new(), services.clone(), Config::default()).await;
    let old = house.pid("api", 1).await;
    let home = house.crash().await;
    send(old, Signal::SEGV);
    eventually("it is gone", async || !lives(old)).await;
    let house = House::open(home, services, Config::default()).await;
    let new = house.until_running("api", 1).await;
    assert_ne!(new.pid, Some(old));
    assert!(
        new.exit
            .expect("it ended")
            .cause
            .starts_with("killed by SIGSEGV")
    );
    assert_eq!((new.restarts, new.epoch.0), (1, 2));
    house.finish().await;
}

#[tokio::test]
async fn what_was_asked_for_by_hand_survives_a_crash_and_not_a_close() {
    let services = json!({
        "api": { "command": "sleep 1000" },
        "web": { "command": "sleep 1000" },
    });
    let house = House::open(Home::new(), services.clone(), Config::default()).await;
    house.until_running("api", 1).await;
    house.post("/services/api/stop", json!({})).await;
    house.post("/scale/web", json!({ "instances": 2 })).await;
    // Acknowledged is enough: nothing of it need have happened yet.
    let home = house.crash().await;
    let house = House::open(home, services.clone(), Config::default()).await;
    house
        .until("api", 1, |instance| instance.state == Stopped)
        .await;
    house.until_running("web", 2).await;
    let home = house.home();
    house.finish().await;
    drop(house);
    let house = House::open(home, services, Config::default()).await;
    house.until_running("api", 1).await;
    assert_eq!(house.instance("web", 2).await, None);
    let epoch = house.instance("api", 1).await.expect("it runs").epoch;
    assert!(epoch.0 >= 2, "epochs go on: {epoch}");
    house.finish().await;
}

#[tokio::test]
async fn a_module_that_is_replaced_leaves_everything_running() {
    let services = json!({ "api": { "command": "sleep 1000" } });
    let house = House::open(Home::new(), services.clone(), Config::default()).await;
    let pid = house.pid("api", 1).await;
    house.module.stop(Ending::Leave).await;
    let home = house.crash().await;
    let house = House::open(home, services, Config::default()).await;
    assert_eq!(house.pid("api", 1).await, pid);
    house.finish().await;
}

#[tokio::test]
async fn a_service_that_left_the_file_while_no_host_was_there_is_stopped() {
    let house = House::new(json!({ "old": { "command": "sleep 1000" } })).await;
    let pid = house.pid("old", 1).await;
    let home = house.crash().await;
    let house = House::open(
        home,
        json!({ "new": { "command": "sleep 1000" } }),
        Config::default(),
    )
    .await;
    house.until_running("new", 1).await;
    eventually("the old one is gone", async || !lives(pid)).await;
    house.finish().await;
}

#[tokio::test]
async fn when_the_keeper_is_killed_everything_starts_again_under_a_new_one() {
    let house = House::new(services()).await;
    let before = pids(&house).await;
    let [keeper] = keeper_pids(house.home().path())[..] else {
        panic!("one keeper");
    };
    send(keeper.try_into().expect("a pid"), Signal::KILL);
    for (service, slot, old) in [
        ("db", 1, before[0]),
        ("api", 1, before[1]),
        ("api", 2, before[2]),
    ] {
        let new = house
            .until(service, slot, |i| {
                i.state == Running && i.pid.is_some_and(|pid| pid != old)
            })
            .await;
        assert!(
            new.epoch.0 > 1,
            "{service}: an epoch that is used never comes again"
        );
        assert!(!lives(old), "{service} is doubled");
    }
    eventually("health is good again", async || {
        house.module.health() == Health::Ok
    })
    .await;
    house.finish().await;
}

#[tokio::test]
async fn a_failed_one_stays_failed_over_a_crash_until_its_settings_change() {
    let broken = json!({ "api": { "command": "no-such-program" } });
    let house = House::open(Home::new(), broken.clone(), Config::default()).await;
    house
        .until("api", 1, |instance| instance.state == Failed)
        .await;
    house.module.stop(Ending::Leave).await;
    let home = house.crash().await;
    let house = House::open(home, broken, Config::default()).await;
    let failed = house
        .until("api", 1, |instance| instance.state == Failed)
        .await;
    assert!(failed.reason.contains("no-such-program"));
    house.change(json!({ "api": { "command": "sleep 1000" } }));
    house.until_running("api", 1).await;
    house.finish().await;
}

#[tokio::test]
async fn without_a_keeper_health_says_so_and_services_wait() {
    let home = Home::new();
    let services = json!({ "api": { "command": "sleep 1000" } });
    let program = home.path().join("no-such-program");
    let house = House::open_with(home, services, Config::default(), program).await;
    let waiting = house.until("api", 1, |i| i.reason.contains("keeper")).await;
    assert_eq!(waiting.state, Waiting);
    eventually("health has the reason", async || {
        matches!(house.module.health(), Health::Degraded(why) if why.contains("no-such-program"))
    })
    .await;
    tokio::time::timeout(Duration::from_secs(20), house.finish())
        .await
        .expect("it closes");
}

#[tokio::test]
async fn without_a_database_restarts_go_on_and_commands_are_refused() {
    let house = House::new(json!({ "api": { "command": "sleep 1000" } })).await;
    let old = house.pid("api", 1).await;
    house.lose_database().await;
    send(old, Signal::KILL);
    house
        .until("api", 1, |i| {
            i.state == Running && i.pid.is_some_and(|pid| pid != old)
        })
        .await;
    let (status, problem) = house.post("/services/api/stop", json!({})).await;
    assert_eq!(
        (status.as_u16(), &problem["code"]),
        (500, &json!("orchestrator.internal"))
    );
    assert_eq!(
        house.state("api", 1).await,
        Some(Running),
        "what cannot be audited is not done"
    );
    house.finish().await;
}
