//! Debian's Mosquitto as the broker of a test: on a loopback port of its own, in a directory of its own,
//! ended with the test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use alicia_contract::Prefix;
use tempfile::TempDir;

use super::fail;
use crate::status::lock;
use crate::{BusAddress, Options};

/// Where Debian puts the broker, which is not on the path of ordinary users.
const PROGRAMS: [&str; 2] = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
/// Tries to find a port that nobody takes in the meantime.
const STARTS_MAX: u32 = 5;
/// Looks whether it listens, and the pause between two.
const LOOKS_MAX: u32 = 1_000;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running Mosquitto. Dropped, it is killed.
#[derive(Debug)]
pub struct Mosquitto {
    port: u16,
    directory: TempDir,
    child: Mutex<Option<Child>>,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Mosquitto {
    /// Starts a broker with these lines in its configuration; without an `allow_anonymous` line everybody
    /// may connect. `None`, with a word on standard error, when it is not installed and
    /// `ALICIA_REQUIRE_ALL` is not `1`.
    ///
    /// # Panics
    /// When it is installed and does not start.
    pub async fn start(conf: &str) -> Option<Self> {
        let Some(program) = PROGRAMS.iter().find(|path| Path::new(path).exists()) else {
            not_installed();
            return None;
        };
        for _ in 0..STARTS_MAX {
            let broker = Self {
                port: free_port(),
                directory: tempfile::tempdir().expect("a temporary directory is made"),
                child: Mutex::new(None),
            };
            broker.configure(conf);
            if broker.run(program).await {
                return Some(broker);
            }
        }
        fail("mosquitto does not start");
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> BusAddress {
        BusAddress {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: self.port,
        }
    }

    /// How a client with this source connects.
    #[must_use]
    pub fn options(&self, source: &str) -> Options {
        Options::at(self.address(), source, Prefix::default())
    }

    /// Its directory, also for the files of the test.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Kills it at once. What it retained is gone.
    pub fn kill(&self) {
        if let Some(mut child) = lock(&self.child).take() {
            let ended = child.kill().and_then(|()| child.wait());
            if ended.is_err() {
                fail("mosquitto cannot be killed");
            }
        }
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart(&self) {
        self.kill();
        for program in PROGRAMS.iter().filter(|path| Path::new(path).exists()) {
            if self.run(program).await {
                return;
            }
        }
        fail("mosquitto does not start again");
    }

    fn configuration(&self) -> PathBuf {
        self.directory().join("mosquitto.conf")
    }

    fn configure(&self, conf: &str) {
        let anonymous = if conf.contains("allow_anonymous") {
            ""
        } else {
            "allow_anonymous true\n"
        };
        let port = self.port;
        // Its queue for a slow client is unbounded here, so that it is the client that loses messages.
        // Started by root it would become another user, who may not read the files of the test.
        let text = format!(
            "listener {port} 127.0.0.1\nuser root\npersistence false\nmax_queued_messages 0\n{anonymous}{conf}\n"
        );
        std::fs::write(self.configuration(), text).expect("the configuration is written");
    }

    /// Runs it and waits until it listens; `false` when it ends before.
    async fn run(&self, program: &str) -> bool {
        let child = Command::new(program)
            .arg("-c")
            .arg(self.configuration())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto can be run");
        *lock(&self.child) = Some(child);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        for _ in 0..LOOKS_MAX {
            if TcpStream::connect(address).is_ok() {
                return true;
            }
            let ended = lock(&self.child).as_mut().map(Child::try_wait);
            if !matches!(ended, Some(Ok(None))) {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        false
    }
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port is free");
    listener.local_addr().expect("it is bound").port()
}

#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "whether a missing program fails the test is a matter of the machine, and a person is told"
)]
fn not_installed() {
    if std::env::var("ALICIA_REQUIRE_ALL").is_ok_and(|value| value == "1") {
        fail("mosquitto is not installed, and ALICIA_REQUIRE_ALL=1");
    }
    eprintln!("skipped: mosquitto is not installed (apt install mosquitto mosquitto-clients)");
}
