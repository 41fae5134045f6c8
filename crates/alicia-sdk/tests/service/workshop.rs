//! The example service as a process, and what the tests look at it with.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use alicia_bus::conformance::{Mosquitto, PATIENCE};
use alicia_bus::{Bus, Message, Subscription};
use alicia_contract::health::{HEARTBEAT, HeartbeatStatus};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A broker, and a client that looks on.
pub(crate) struct House {
    pub(crate) broker: Mosquitto,
    pub(crate) bus: Bus,
    _task: JoinSet<()>,
}

impl House {
    pub(crate) async fn on(broker: Mosquitto) -> Self {
        let (bus, connection) = Bus::start(broker.options("system/test"));
        let mut task = JoinSet::new();
        task.spawn(connection);
        bus.connected(PATIENCE).await.expect("connects");
        Self {
            broker,
            bus,
            _task: task,
        }
    }
}

/// The service. Dropped, it is killed.
pub(crate) struct Workshop {
    child: Child,
    pub(crate) port: u16,
}

impl Drop for Workshop {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Workshop {
    pub(crate) fn start(house: &House, variables: &[(&str, &str)]) -> Self {
        Self::start_with(house, variables, &[])
    }

    /// One whose heartbeats are ten minutes apart.
    pub(crate) fn start_slow(house: &House) -> Self {
        Self::start_with(house, &[("ALICIA_SERVICE", "slow-workshop")], &["600"])
    }

    fn start_with(house: &House, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let port = free_port();
        let child = program()
            .args(arguments)
            .env_clear()
            .env("ALICIA_MQTT_URL", house.broker.address().to_string())
            .env("PORT", port.to_string())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .spawn()
            .expect("the example runs");
        Self { child, port }
    }

    /// Starts one and waits for its first healthy heartbeat, after which it serves.
    pub(crate) async fn ready(house: &House) -> Self {
        let mut heartbeats = house.bus.events(HEARTBEAT).await.expect("subscribes");
        let workshop = Self::start(house, &[]);
        hear_where(&mut heartbeats, |beat| {
            beat.status == HeartbeatStatus::Healthy
        })
        .await;
        workshop
    }

    /// A connection to its page.
    pub(crate) fn connect(&self) -> TcpStream {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        TcpStream::connect(address).expect("connects")
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("can be killed");
        self.child.wait().expect("ends");
    }

    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        becomes(|| match self.child.try_wait().expect("can be waited for") {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        })
        .await;
        code
    }
}

/// The example, which cargo builds beside the tests.
pub(crate) fn program() -> Command {
    let test = std::env::current_exe().expect("has a path");
    let target = test.ancestors().nth(2).expect("is in target/debug/deps");
    Command::new(target.join("examples/workshop"))
}

pub(crate) async fn hear<T: DeserializeOwned>(subscription: &mut Subscription<T>) -> Message<T> {
    let heard = timeout(PATIENCE, subscription.message()).await;
    heard.expect("is heard in time").expect("is open")
}

pub(crate) async fn hear_where<T: DeserializeOwned>(
    subscription: &mut Subscription<T>,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let hearing = async {
        loop {
            let message = subscription.message().await.expect("is open");
            if wanted(&message.payload) {
                return message.payload;
            }
        }
    };
    timeout(PATIENCE, hearing).await.expect("is heard in time")
}

/// Waits until something is so.
pub(crate) async fn becomes(mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .expect("becomes so in time");
}

/// The status and body of a page; `None` when nobody answers.
pub(crate) fn get(port: u16, path: &str) -> Option<(u16, String)> {
    say(port, &format!("GET {path} HTTP/1.0\r\n\r\n"))
}

/// The status and body of the answer to a text; `None` when there is none.
pub(crate) fn say(port: u16, request: &str) -> Option<(u16, String)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("is bound").port()
}
