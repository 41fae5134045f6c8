//! A whole house, from the binary: its own directory, its own ports, its own keeper. Nothing of it is left when it is
//! dropped.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use alicia_contract::orchestrator::{InstanceState, ProcessRow};
use alicia_contract::platform::HostFile;
use alicia_keeper::Client;
use serde_json::Value;
use tempfile::TempDir;

pub use machine::{HouseProcess, free_port, has, is_alive, is_installed, signal};
pub use said::{Hearing, Said};

use crate::until;

mod machine;
mod said;

/// The keeper stops its instances by force after this time when the house is dropped.
const DROP_GRACE: Duration = Duration::from_secs(2);

/// Ports of its own, whatever the file of the test says.
const OWN_PORTS: [&str; 4] = [
    "--set",
    "http.listen=127.0.0.1:0",
    "--set",
    "broker.listen=127.0.0.1:0",
];

/// A fleet in a directory of its own, run by the real binary.
pub struct House {
    directory: TempDir,
    binary: PathBuf,
    host: Option<Child>,
    http: reqwest::Client,
}

impl House {
    /// A directory with this `alicia.yaml`; nothing runs yet.
    ///
    /// # Panics
    /// When the directory cannot be made.
    #[must_use]
    pub fn new(binary: &str, file: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("alicia.yaml"), file).expect("the file is written");
        let http = reqwest::Client::builder()
            .no_proxy()
            // The host closes a connection on which nothing was asked for ten seconds.
            .pool_idle_timeout(Duration::from_secs(5))
            .build()
            .expect("a client");
        Self {
            directory,
            binary: binary.into(),
            host: None,
            http,
        }
    }

    /// The same, and its host runs and answers.
    ///
    /// # Panics
    /// When the host does not start.
    pub async fn start(binary: &str, file: &str) -> Self {
        let mut house = Self::new(binary, file);
        house.start_host().await;
        house
    }

    /// The directory of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The command `alicia` with these arguments, in this house.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .current_dir(self.path())
            .env("HOME", self.path())
            .arg("--data")
            .arg(self.data());
        command.args(OWN_PORTS).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the command runs")
    }

    /// Runs a command to its end and gives what it said.
    ///
    /// # Panics
    /// When it cannot be run, or what it says is no text.
    #[must_use]
    pub fn says(&self, arguments: &[&str]) -> Said {
        Said::new(arguments.join(" "), self.run(arguments))
    }

    /// Listens on the bus as the holder of the admin key; returns when it hears.
    ///
    /// # Panics
    /// When it hears nothing.
    pub async fn listen(&self, filter: &str) -> Hearing {
        // The retained state of the fleet is heard at once: then the subscription stands.
        const RETAINED: &str = "alicia/system/orchestrator/status";
        let mut command = self.command(&["bus", "sub", "--json", filter, RETAINED]);
        command.stdin(Stdio::null());
        let hearing = Hearing::start(command, self.path().join("heard.jsonl"));
        let is_status = |line: &Value| line["topic"] == RETAINED;
        hearing.hears("the state of the fleet", is_status).await;
        hearing
    }

    /// Starts the host in the foreground, as a child of the test, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start_host(&mut self) {
        self.spawn_host(&[]);
        self.host_answers().await;
    }

    /// Waits until the host that was spawned answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn host_answers(&self) {
        let pid = self.host_pid();
        until("the host answers", || async {
            self.host_file().is_some_and(|host| Some(host.pid) == pid)
        })
        .await;
    }

    /// Starts the host as a child of the test, with these services or options of `up`, and does not wait.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_host(&mut self, arguments: &[&str]) {
        self.spawn_host_with(arguments, &[]);
    }

    /// The same, with further variables in its environment.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_host_with(&mut self, arguments: &[&str], variables: &[(&str, &str)]) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path().join("host.log"))
            .expect("a log");
        let mut command = self.command(&["up", "--no-table", "--background"]);
        command.args(arguments).envs(variables.iter().copied());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.host = Some(command.spawn().expect("the host starts"));
    }

    /// What the host wrote.
    #[must_use]
    pub fn host_log(&self) -> String {
        fs::read_to_string(self.path().join("host.log")).unwrap_or_default()
    }

    /// The process id of the host.
    #[must_use]
    pub fn host_pid(&self) -> Option<u32> {
        self.host.as_ref().map(Child::id)
    }

    /// Kills the host as a crash would; the keeper and the services go on.
    ///
    /// # Panics
    /// When there is no host.
    pub fn kill_host(&mut self) {
        let mut host = self.host.take().expect("a host runs");
        host.kill().expect("the host is ours to kill");
        let status = host.wait().expect("the host is our child");
        assert_eq!(
            status.signal(),
            Some(9),
            "the host had ended before: {}",
            self.host_log()
        );
    }

    /// Whether the host has ended by itself, or there is none.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn has_host_ended(&mut self) -> bool {
        let ended = self.host.as_mut().map(Child::try_wait);
        ended.is_none_or(|ended| ended.expect("the host is our child").is_some())
    }

    /// Sees to it that no host of this house runs, however it ended.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn bury_host(&mut self) {
        if let Some(mut host) = self.host.take() {
            // It may have ended meanwhile.
            host.kill().ok();
            host.wait().expect("the host is our child");
        }
    }

    /// The process id of the keeper, when one runs.
    #[must_use]
    pub fn keeper_pid(&self) -> Option<u32> {
        machine::keeper(self.path())
    }

    /// Waits until the host has ended by itself.
    ///
    /// # Panics
    /// When it does not.
    pub async fn host_ended(&mut self) -> ExitStatus {
        let host = std::cell::RefCell::new(self.host.take().expect("a host runs"));
        until("the host has ended", || async {
            let ended = host.borrow_mut().try_wait();
            ended.expect("the host is our child").is_some()
        })
        .await;
        let status = host.borrow_mut().wait();
        status.expect("the host is our child")
    }

    /// Every live process that came from this house: its keeper, its host, its services and all that they started.
    #[must_use]
    pub fn processes(&self) -> Vec<HouseProcess> {
        machine::processes(self.path())
    }

    /// The live processes of one service, the leader and all that it started.
    #[must_use]
    pub fn processes_of(&self, service: &str) -> Vec<u32> {
        let all = self.processes().into_iter();
        all.filter(|process| process.service.as_deref() == Some(service))
            .map(|process| process.pid)
            .collect()
    }

    /// Where the host is, as it wrote it down.
    #[must_use]
    pub fn host_file(&self) -> Option<HostFile> {
        serde_json::from_slice(&fs::read(self.data().join("host.json")).ok()?).ok()
    }

    /// The base URL of REST.
    ///
    /// # Panics
    /// When no host runs.
    #[must_use]
    pub fn api(&self) -> String {
        self.host_file().expect("a host runs").api
    }

    /// The admin key.
    ///
    /// # Panics
    /// When there is none yet.
    #[must_use]
    pub fn key(&self) -> String {
        let text = fs::read_to_string(self.data().join("admin.key")).expect("a key");
        text.trim().to_owned()
    }

    /// GET as an admin; the status and the body, which is null when it is no JSON.
    ///
    /// # Panics
    /// When the host does not answer.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let request = self.http.get(format!("{}{path}", self.api()));
        self.ask(request.bearer_auth(self.key())).await
    }

    /// POST as an admin to a host that may die meanwhile: the status, if there was an answer.
    pub async fn try_post(&self, path: &str, body: &Value) -> Option<u16> {
        let host = self.host_file()?;
        let request = self.http.post(format!("{}{path}", host.api));
        let answer = request.bearer_auth(self.key()).json(body).send().await;
        Some(answer.ok()?.status().as_u16())
    }

    /// POST as an admin.
    ///
    /// # Panics
    /// When the host does not answer.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.http.post(format!("{}{path}", self.api())).json(body);
        self.ask(request.bearer_auth(self.key())).await
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = request.send().await.expect("the host answers");
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.expect("the answer is whole");
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Every instance; none while the host is not there.
    pub async fn rows(&self) -> Vec<ProcessRow> {
        let Some(host) = self.host_file() else {
            return Vec::new();
        };
        let request = self
            .http
            .get(format!("{}/api/orchestrator/instances", host.api));
        match request.bearer_auth(self.key()).send().await {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// One instance, by its name: `api-1`.
    pub async fn row(&self, instance: &str) -> Option<ProcessRow> {
        self.rows()
            .await
            .into_iter()
            .find(|row| row.instance == instance)
    }

    /// Waits until an instance is in a state, and gives it.
    ///
    /// # Panics
    /// When it does not get there.
    pub async fn reaches(&self, instance: &str, state: InstanceState) -> ProcessRow {
        let found = std::cell::RefCell::new(None);
        until(&format!("{instance} is {state:?}"), || async {
            let row = self.row(instance).await.filter(|row| row.state == state);
            found.replace(row).is_some() || found.borrow().is_some()
        })
        .await;
        found.into_inner().expect("it was just there")
    }

    /// Waits until every instance is ready.
    ///
    /// # Panics
    /// When that does not happen.
    pub async fn all_running(&self) -> Vec<ProcessRow> {
        until("every instance is running", || async {
            let rows = self.rows().await;
            !rows.is_empty() && rows.iter().all(|row| row.state == InstanceState::Running)
        })
        .await;
        self.rows().await
    }
}

impl Drop for House {
    /// Ends the host, then the keeper with all that it holds.
    fn drop(&mut self) {
        if let Some(mut host) = self.host.take() {
            drop(host.kill());
            drop(host.wait());
        }
        // A host in the background is nobody's child: it is ended as `alicia down` does.
        if self.host_file().is_some_and(|host| is_alive(host.pid)) {
            drop(self.run(&["down"]));
        }
        let directory = self.data().join("keeper");
        let shut_down = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(end_keeper(&directory));
        });
        drop(shut_down.join());
    }
}

async fn end_keeper(directory: &Path) {
    let Ok(session) = Client::connect(directory).await else {
        return;
    };
    let client = session.client;
    let mut events = session.events;
    let end = async {
        drop(client.shutdown(DROP_GRACE).await);
        while events.next().await.is_some() {}
    };
    tokio::select! {
        () = end => {}
        _ = session.connection.run() => {}
    }
}
