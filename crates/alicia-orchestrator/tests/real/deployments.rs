//! What is told of deployments: the newest one on a real broker, and the last lines of what did not work.

use alicia_contract::deployment::{DEPLOYMENTS, Deployment, DeploymentState, NEWEST};
use alicia_orchestrator::Config;
use serde_json::{Value, json};

use crate::bus::{Broker, next};
use crate::support::{DEADLINE, Home, House, eventually, shell};

/// Waits until deployment `number` has come to an end, and gives it as REST tells it.
async fn ended(house: &House, number: u64) -> Deployment {
    let mut found = None;
    eventually("the deployment comes to an end", async || {
        let (_, told) = house.get(&format!("/deployments/{number}")).await;
        found = serde_json::from_value::<Deployment>(told).ok();
        found
            .as_ref()
            .is_some_and(|found| found.state != DeploymentState::UnderWay)
    })
    .await;
    found.expect("it was found")
}

#[tokio::test]
async fn a_version_that_is_taken_back_is_told_with_its_own_last_lines() {
    let spec = |script: &str| -> Value {
        let update = json!({ "strategy": "recreate", "min_healthy": "100ms" });
        json!({ "api": { "command": shell(script), "update": update } })
    };
    let good = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo step $i; done; exec sleep 1000";
    let house = House::new(spec(good)).await;
    house.until_running("api", 1).await;
    ended(&house, 1).await;
    house.change(spec("echo a slip; exit 3"));
    let told = ended(&house, 2).await;
    assert_eq!(told.state, DeploymentState::Reverted, "{told:?}");
    let api = told.services.values().next().expect("it was touched");
    assert_eq!(api.last_lines, ["a slip"]);
    house.until_running("api", 1).await;
    house.finish().await;
}

#[tokio::test]
async fn the_newest_deployment_is_there_for_who_comes_late_and_after_a_restart_of_broker_or_host() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(broker) = Broker::start(directory.path()).await else {
        return;
    };
    let done = |number| {
        move |newest: &Deployment| newest.number == number && newest.state == DeploymentState::Done
    };
    let sleeps = |seconds: u32| json!({ "api": { "command": format!("sleep {seconds}") } });
    let home = Home::with_bus(Some(broker.address()));
    let house = House::open(home, sleeps(1000), Config::default()).await;
    ended(&house, 1).await;
    let late = broker.client("key/late");
    let mut newest = late.states(NEWEST).await.expect("subscribes");
    next(&mut newest, done(1)).await;
    let mut steps = late.events(DEPLOYMENTS).await.expect("subscribes");
    house.change(sleeps(2000));
    let last = next(&mut newest, done(2)).await;
    assert_eq!(last.reason.as_deref(), Some("the file was read again"));
    next(&mut steps, done(2)).await;
    // A broker that has lost its memory hears it from the same host,
    let port = broker.port();
    drop(broker);
    let broker = Broker::start_on(directory.path(), port)
        .await
        .expect("it is installed");
    let client = broker.client("key/second");
    let mut newest = client.states(NEWEST).await.expect("subscribes");
    assert_eq!(next(&mut newest, done(2)).await, last);
    // and another one from a host that has just started, though nothing of it happens any more.
    let home = house.crash().await;
    drop(broker);
    let broker = Broker::start_on(directory.path(), port)
        .await
        .expect("it is installed");
    let house = House::open(home, sleeps(2000), Config::default()).await;
    let client = broker.client("key/third");
    let mut newest = client.states(NEWEST).await.expect("subscribes");
    assert_eq!(next(&mut newest, done(2)).await, last);
    house.finish().await;
}

#[tokio::test]
async fn what_is_accepted_while_there_is_no_keeper_is_the_newest_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(broker) = Broker::start(directory.path()).await else {
        return;
    };
    let client = broker.client("key/test");
    client.connected(DEADLINE).await.expect("connects");
    let mut newest = client.states(NEWEST).await.expect("subscribes");
    let mut steps = client.events(DEPLOYMENTS).await.expect("subscribes");
    let home = Home::with_bus(Some(broker.address()));
    let nobody = home.path().join("no-such-keeper");
    let spec = |name: &str| json!({ name: { "command": "sleep 1000" } });
    let house = House::open_with(home, spec("api"), Config::default(), nobody).await;
    let is = |number| move |newest: &Deployment| newest.number == number;
    next(&mut newest, is(1)).await;
    house.change(spec("web"));
    let told = next(&mut newest, is(2)).await;
    assert_eq!(told.state, DeploymentState::UnderWay);
    let touched: Vec<&str> = told.services.keys().map(AsRef::as_ref).collect();
    assert_eq!(touched, ["api", "web"]);
    assert_eq!(next(&mut steps, is(2)).await, told);
    house.crash().await;
}

#[tokio::test]
async fn a_deployment_that_no_message_holds_is_told_without_its_last_lines() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(broker) = Broker::start(directory.path()).await else {
        return;
    };
    // Each keeps ten lines of 16,000 characters: eight of them are more than a message of 1 MiB.
    let script = "for i in 0 1 2 3 4 5 6 7 8 9; do printf '%016000d\\n' $i; done; exit 3";
    let services: Value = (1..=8)
        .map(|n| {
            let spec = json!({ "command": shell(script), "restart": "never" });
            (format!("api{n}"), spec)
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    let client = broker.client("key/test");
    client.connected(DEADLINE).await.expect("connects");
    let mut steps = client.events(DEPLOYMENTS).await.expect("subscribes");
    let home = Home::with_bus(Some(broker.address()));
    let house = House::open(home, services, Config::default()).await;
    let whole = ended(&house, 1).await;
    assert_eq!(whole.state, DeploymentState::Failed, "{}", whole.detail);
    let lines = whole.services.values().map(|api| api.last_lines.len());
    assert_eq!(lines.collect::<Vec<_>>(), [10; 8]);
    let mut short = whole;
    for api in short.services.values_mut() {
        api.last_lines.clear();
    }
    let failed = |newest: &Deployment| newest.state == DeploymentState::Failed;
    assert_eq!(next(&mut steps, failed).await, short);
    let late = broker.client("key/late");
    let mut newest = late.states(NEWEST).await.expect("subscribes");
    assert_eq!(next(&mut newest, failed).await, short);
    house.finish().await;
}
