//! What was acknowledged is still there after a stop, and after a kill.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rmqtt::codec::types::QoS;
use rmqtt::codec::v5::ConnectAckReason;

use crate::house::House;
use crate::wire::{Wire, hello, message, text};

const MESSAGES: usize = 200;

fn numbers() -> Vec<String> {
    (0..MESSAGES).map(|number| number.to_string()).collect()
}

/// Leaves behind a session with a queue, retained messages, and one unacknowledged message.
async fn leave_something(address: SocketAddr) {
    let (mut absent, _) = hello("absent").lasting().try_connect(address).await;
    absent.subscribe("open/queue", QoS::AtLeastOnce).await;
    absent.subscribe("open/first", QoS::AtLeastOnce).await;
    let (mut publisher, _) = hello("publisher").try_connect(address).await;
    publisher
        .publish(message("open/first", "unacknowledged", QoS::AtLeastOnce))
        .await;
    absent.receive_unacknowledged().await;
    absent.disconnect().await;
    for number in numbers() {
        let mut retained = message(&format!("open/state/{number}"), &number, QoS::AtLeastOnce);
        retained.retain = true;
        publisher.publish(retained).await;
        publisher
            .publish(message("open/queue", &number, QoS::AtLeastOnce))
            .await;
    }
}

async fn find_it_again(address: SocketAddr) {
    let (_, ack) = hello("absent")
        .named("bob")
        .lasting()
        .try_connect(address)
        .await;
    assert_eq!(
        ack.reason_code,
        ConnectAckReason::NotAuthorized,
        "the session is ann's"
    );

    let (mut back, ack) = hello("absent").lasting().try_connect(address).await;
    assert!(ack.session_present);
    let first = back.receive().await;
    assert_eq!((text(&first), first.dup), ("unacknowledged", true));
    assert_eq!(back.receive_texts(MESSAGES).await, numbers());
    let (mut publisher, _) = hello("publisher").try_connect(address).await;
    publisher
        .publish(message("open/queue", "new", QoS::AtLeastOnce))
        .await;
    assert_eq!(text(&back.receive().await), "new", "the subscription lives");

    publisher.subscribe("open/state/#", QoS::AtMostOnce).await;
    let mut retained = publisher.receive_texts(MESSAGES).await;
    retained.sort_by_key(|number| number.parse::<u32>().unwrap());
    assert_eq!(retained, numbers());
    back.receives_nothing().await;
}

#[tokio::test]
async fn everything_is_there_after_a_stop_and_only_once() {
    let directory = tempfile::tempdir().unwrap();
    let house = House::lasting(directory.path()).await;
    leave_something(house.address()).await;
    house.stop().await;
    let house = House::lasting(directory.path()).await;
    find_it_again(house.address()).await;
    house.stop().await;

    let house = House::lasting(directory.path()).await;
    let (mut back, ack) = hello("absent").lasting().try_connect(house.address()).await;
    assert!(ack.session_present);
    back.receives_nothing().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Broker::spawn(directory.path());
    leave_something(child.address).await;
    child.kill();
    let mut child = Broker::spawn(directory.path());
    find_it_again(child.address).await;
    child.kill();
}

#[tokio::test]
async fn messages_for_a_connected_session_are_there_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Broker::spawn(directory.path());
    let (mut present, _) = hello("present").lasting().try_connect(child.address).await;
    present.subscribe("open/a", QoS::AtLeastOnce).await;
    let (mut publisher, _) = hello("publisher").try_connect(child.address).await;
    for number in 0..20 {
        publisher
            .publish(message("open/a", &number.to_string(), QoS::AtLeastOnce))
            .await;
        present.receive_unacknowledged().await;
    }
    wait_for_writes(&mut publisher).await;
    child.kill();
    let mut child = Broker::spawn(directory.path());
    let (mut back, ack) = hello("present").lasting().try_connect(child.address).await;
    assert!(ack.session_present);
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(back.receive_texts(20).await, expected);
    child.kill();
}

/// Writes are in order: what was written before an awaited one is on disk after it.
async fn wait_for_writes(client: &mut Wire) {
    let mut retained = message("open/barrier", "x", QoS::AtLeastOnce);
    retained.retain = true;
    client.publish(retained).await;
}

#[tokio::test]
async fn a_retained_message_deleted_before_a_kill_stays_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Broker::spawn(directory.path());
    let (mut client, _) = hello("x").try_connect(child.address).await;
    for payload in ["1", ""] {
        let mut retained = message("open/state", payload, QoS::AtLeastOnce);
        retained.retain = true;
        client.publish(retained).await;
    }
    child.kill();
    let mut child = Broker::spawn(directory.path());
    let (mut client, _) = hello("x").try_connect(child.address).await;
    client.subscribe("open/#", QoS::AtMostOnce).await;
    client.receives_nothing().await;
    child.kill();
}

/// A broker in a process of its own, so that it can be killed.
struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    fn spawn(directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "restart::broker_in_a_process_of_its_own",
                "--nocapture",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{}", directory.display()).unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let announced = lines
            .filter_map(|line| line.split("listening on ").nth(1)?.parse().ok())
            .next();
        Self {
            child,
            address: announced.expect("the child announces its address"),
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child
            .kill()
            .and_then(|()| self.child.wait().map(drop))
            .unwrap_or_default();
    }
}

/// Reads a directory from its input, announces its address, and runs until it is killed.
#[tokio::test]
#[ignore = "run by the tests above"]
async fn broker_in_a_process_of_its_own() {
    let mut directory = String::new();
    std::io::stdin().read_line(&mut directory).unwrap();
    let house = House::lasting(Path::new(directory.trim())).await;
    println!("\nlistening on {}", house.address());
    std::future::pending::<()>().await;
}
