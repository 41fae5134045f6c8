//! A keeper of its own for each test, with real processes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use alicia_keeper::logs::{self, Filter, Line, Stream};
use alicia_keeper::protocol::{
    Event, Exit, ExitStatus, InstanceInfo, LogSpec, StartSpec, StopSpec,
};
use alicia_keeper::{Client, Events, Session};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Nothing in these tests takes this long; it is for a box under heavy load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A keeper and its directory. Both end with the test.
pub(crate) struct Fleet {
    pub(crate) directory: TempDir,
    pub(crate) client: Client,
    pub(crate) events: Events,
    pub(crate) keeper: u32,
    connection: JoinHandle<alicia_keeper::Result<()>>,
    arguments: Vec<String>,
    cgroup_root: OnceLock<PathBuf>,
}

/// How the keeper is to hold processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Best,
    Scan,
}

impl Fleet {
    pub(crate) async fn new(mode: Mode) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("logs")).unwrap();
        let mut arguments = vec![
            "--directory".to_owned(),
            text(&directory.path().join("keeper")),
        ];
        arguments.push("--daemonise".to_owned());
        if mode == Mode::Scan {
            arguments.push("--scan".to_owned());
        }
        let (client, events, connection) = connect(directory.path(), &arguments).await;
        let keeper = client.keeper().pid;
        Self {
            directory,
            client,
            events,
            keeper,
            connection,
            arguments,
            cgroup_root: OnceLock::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn keeper_directory(&self) -> PathBuf {
        self.path().join("keeper")
    }

    /// A host that dies and one that comes: the connection is closed and made anew.
    pub(crate) async fn reconnect(&mut self) {
        self.disconnect().await;
        (self.client, self.events, self.connection) =
            connect(self.directory.path(), &self.arguments).await;
        self.keeper = self.client.keeper().pid;
    }

    /// As the death of the host: its socket is closed.
    pub(crate) async fn disconnect(&self) {
        self.connection.abort();
        while !self.connection.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn shell(&self, instance: &str, script: &str) -> StartSpec {
        let log = LogSpec::new(self.path().join("logs"), instance);
        let mut spec = StartSpec::new(instance, "/bin/sh", self.path(), log);
        spec.arguments = vec!["-c".into(), script.into()];
        spec.environment
            .insert("PATH".into(), "/usr/bin:/bin".into());
        // Found again by `processes`.
        spec.environment.insert("FLEET".into(), text(self.path()));
        spec.stop_grace_ms = 2_000;
        spec
    }

    pub(crate) async fn start(&self, spec: StartSpec) -> InstanceInfo {
        let info = self.client.start(spec).await.unwrap();
        if let Some(cgroup) = &info.cgroup {
            self.cgroup_root
                .get_or_init(|| cgroup.parent().unwrap().to_owned());
        }
        info
    }

    /// The next event of that kind.
    pub(crate) async fn event<T>(&mut self, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        let wait = async {
            loop {
                let event = self.events.next().await.expect("the keeper is connected");
                if let Some(picked) = pick(&event) {
                    return picked;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the event comes")
    }

    /// Prints 0, 1, 2, … until it is told to end, or `count` lines.
    pub(crate) fn counter(&self, instance: &str, count: u64) -> StartSpec {
        let script = format!(
            "trap 'echo end; exit' TERM; i=0; while [ $i -lt {count} ]; do \
             echo $i; i=$((i+1)); [ $((i % 50)) = 0 ] && sleep 0.005; done; echo end"
        );
        let mut spec = self.shell(instance, &script);
        spec.log.bytes_max = 20_000;
        spec.log.files_max = 100_000;
        spec
    }

    /// Asserts that the output of a counter that ended has every line once, in order.
    pub(crate) fn check_counter(&self, instance: &str) -> u64 {
        let lines = self.lines(instance);
        let texts: Vec<_> = lines
            .iter()
            .filter(|it| it.stream == Stream::Stdout)
            .map(|it| it.text.as_str())
            .collect();
        let (last, numbers) = texts.split_last().unwrap();
        assert_eq!(*last, "end", "{instance}");
        for (expect, number) in numbers.iter().enumerate() {
            assert_eq!(*number, expect.to_string(), "{instance}");
        }
        numbers.len() as u64
    }

    pub(crate) async fn exited(&mut self, wanted: &str) -> Exit {
        self.event(|event| match event {
            Event::Exited { instance, exit, .. } if instance == wanted => Some(exit.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) fn lines(&self, instance: &str) -> Vec<Line> {
        let path = self.path().join("logs").join(format!("{instance}.log"));
        let mut lines = Vec::new();
        logs::read_all(&path, &Filter::default(), |line| {
            lines.push(line);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        lines
    }

    pub(crate) fn texts(&self, instance: &str) -> Vec<String> {
        self.lines(instance)
            .into_iter()
            .map(|line| line.text)
            .collect()
    }

    pub(crate) fn kill_keeper(&self) {
        kill("-KILL", self.keeper);
    }

    /// Every process that carries the tag of this keeper's directory or its path in its arguments.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let marker = text(self.path());
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let holds = |file: &str| {
                let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                String::from_utf8_lossy(&bytes).contains(&marker)
            };
            *pid != self.keeper && is_alive(*pid) && (holds("cmdline") || holds("environ"))
        })
        .collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        kill("-TERM", self.keeper);
        let deadline = Instant::now() + PATIENCE;
        while is_alive(self.keeper) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let left = self.processes();
        for pid in &left {
            kill("-KILL", *pid);
        }
        if !std::thread::panicking() {
            let log = std::fs::read_to_string(self.keeper_directory().join("keeper.log"));
            let log = log.unwrap_or_default();
            assert!(
                !is_alive(self.keeper),
                "the keeper does not end; its log: {log}"
            );
            assert!(
                !log.contains("panicked") && !log.contains("cannot"),
                "{log}"
            );
            assert!(left.is_empty(), "processes are left: {left:?}");
            if let Some(root) = self.cgroup_root.get() {
                assert!(!root.exists(), "{} is left", root.display());
            }
        }
    }
}

async fn connect(
    directory: &Path,
    arguments: &[String],
) -> (Client, Events, JoinHandle<alicia_keeper::Result<()>>) {
    let program = Path::new(env!("CARGO_BIN_EXE_alicia-keeper"));
    let keeper = directory.join("keeper");
    let Session {
        client,
        events,
        connection,
    } = Client::connect_or_start(&keeper, program, arguments)
        .await
        .unwrap();
    (client, events, tokio::spawn(connection.run()))
}

pub(crate) fn stop(instance: &str) -> StopSpec {
    StopSpec {
        instance: instance.into(),
        signal: None,
        grace_ms: None,
        target: Default::default(),
    }
}

pub(crate) fn stop_within(instance: &str, grace_ms: u64) -> StopSpec {
    StopSpec {
        grace_ms: Some(grace_ms),
        ..stop(instance)
    }
}

pub(crate) fn signal(signal: i32) -> ExitStatus {
    ExitStatus::Signal {
        signal,
        core: false,
    }
}

/// Waits for a condition, which is the only way to wait in these tests.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

pub(crate) fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill")
        .args([signal, &pid.to_string()])
        .output();
    drop(status);
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
