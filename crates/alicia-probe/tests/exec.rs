//! Programs as probes, most of them badly behaved; nothing of them may be left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alicia_contract::fleet::Probe;
use alicia_probe::{Context, Outcome, Target, attempt};
use serde_json::json;
use tempfile::TempDir;

/// Long enough for a loaded machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A deadline that is meant to pass, and leaves a shell the time to start its children.
const SHORT: Duration = Duration::from_secs(1);

struct Bench {
    directory: TempDir,
    environment: Vec<(String, String)>,
}

impl Bench {
    fn new() -> Self {
        let path = ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            environment: vec![path, ("COLOUR".to_owned(), "green".to_owned())],
        }
    }

    fn target(&self, words: &[&str]) -> Target {
        let probe = json!({"exec": {"command": words}});
        let probe: Probe = serde_json::from_value(probe).expect("a probe");
        let context = Context {
            port: None,
            pid: None,
            directory: self.directory.path(),
            environment: &self.environment,
        };
        Target::resolve(&probe, &context).expect("it can be tried")
    }

    async fn shell(&self, script: &str, timeout: Duration) -> Outcome {
        attempt(&self.target(&["sh", "-c", script]), timeout).await
    }

    /// The pids that a script has written to a file, one per line, once there are so many.
    async fn pids(&self, count: usize) -> Vec<u32> {
        let file = self.directory.path().join("pids");
        let mut pids = Vec::new();
        until("the script has started its children", || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            pids = text.lines().filter_map(|line| line.parse().ok()).collect();
            pids.len() >= count
        })
        .await;
        pids
    }
}

/// Waits for a condition.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect(what);
}

/// Whether a process runs; one that only waits to be reaped does not.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| {
        !stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('Z'))
    })
}

async fn all_gone(pids: &[u32]) {
    for pid in pids {
        until("the process is gone", || !runs(*pid)).await;
    }
}

fn check(outcome: &Outcome, ok: bool, detail: &str) {
    assert_eq!((outcome.ok, outcome.detail.as_str()), (ok, detail));
    assert!(outcome.latency < PATIENCE, "it waited for its deadline");
}

#[tokio::test]
async fn an_exit_code_is_judged_and_the_last_line_shown() {
    let bench = Bench::new();
    check(&bench.shell("exit 0", PATIENCE).await, true, "exit code 0");
    check(
        &bench.shell("echo fine", PATIENCE).await,
        true,
        "exit code 0: fine",
    );
    let failing = "echo one; echo two >&2; sleep 0.1; echo; echo three; exit 3";
    check(
        &bench.shell(failing, PATIENCE).await,
        false,
        "exit code 3: three",
    );
    let killed = bench.shell("echo oh >&2; kill -TERM $$", PATIENCE).await;
    check(&killed, false, "ended by signal 15: oh");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let bench = Bench::new();
    let outcome = attempt(&bench.target(&["no-such-program"]), PATIENCE).await;
    let expected = "failed to start \"no-such-program\": No such file or directory (os error 2)";
    check(&outcome, false, expected);
}

#[tokio::test]
async fn directory_and_environment_are_those_of_the_service() {
    let bench = Bench::new();
    let outcome = bench.shell("echo $COLOUR $HOME; pwd", PATIENCE).await;
    let directory = bench.directory.path().canonicalize().expect("it is there");
    check(
        &outcome,
        true,
        &format!("exit code 0: {}", directory.display()),
    );
    let outcome = bench.shell("echo \"$COLOUR-$HOME-$CARGO\"", PATIENCE).await;
    check(&outcome, true, "exit code 0: green--");
}

#[tokio::test]
async fn endless_output_is_read_in_bounded_memory_and_cut_off() {
    let bench = Bench::new();
    let outcome = bench.shell("exec yes moon", SHORT).await;
    // It is cut off wherever it stands, perhaps within a word.
    let last_line = outcome.detail.strip_prefix("no answer within 1s: ");
    assert!(
        last_line.is_some_and(|line| "moon".starts_with(line)),
        "{outcome:?}"
    );
    assert!(!outcome.ok);
}

#[tokio::test]
async fn a_child_that_ignores_sigterm_is_gone_with_its_grandchild() {
    let bench = Bench::new();
    let script = "trap '' TERM HUP INT; echo $$ >> pids; \
        sh -c \"trap '' TERM HUP INT; echo \\$\\$ >> pids; while :; do sleep 1000; done\" & \
        echo working; while :; do sleep 1000; done";
    let outcome = bench.shell(script, SHORT).await;
    check(&outcome, false, "no answer within 1s: working");
    let pids = bench.pids(2).await;
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_grandchild_that_left_the_group_is_gone_too() {
    let bench = Bench::new();
    let script = "setsid sh -c 'setsid sh -c \"echo \\$\\$ >> pids; exec sleep 1000\" & exit' & wait; sleep 1000";
    let outcome = bench.shell(script, SHORT).await;
    check(&outcome, false, "no answer within 1s");
    all_gone(&bench.pids(1).await).await;
}

#[tokio::test]
async fn what_a_finished_program_leaves_behind_is_gone() {
    let bench = Bench::new();
    let outcome = bench
        .shell("sleep 1000 & echo $! >> pids; echo done", PATIENCE)
        .await;
    check(&outcome, true, "exit code 0: done");
    all_gone(&bench.pids(1).await).await;
    // This one has left the group, and holds the pipe.
    let script = "setsid sh -c 'echo $$ >> pids; exec sleep 1000' & \
        until [ $(wc -l < pids) = 2 ]; do :; done; echo done";
    let outcome = bench.shell(script, PATIENCE).await;
    check(&outcome, true, "exit code 0: done");
    all_gone(&bench.pids(2).await).await;
}

#[tokio::test]
async fn dropping_a_try_kills_its_program() {
    let bench = Bench::new();
    let target = bench.target(&[
        "sh",
        "-c",
        "echo $$ >> pids; sleep 1000 & echo $! >> pids; wait",
    ]);
    let pids = {
        let mut trying = std::pin::pin!(attempt(&target, PATIENCE));
        tokio::select! {
            outcome = &mut trying => panic!("it cannot end: {outcome:?}"),
            pids = bench.pids(2) => pids,
        }
    };
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_hundred_tries_leave_no_process() {
    let bench = Bench::new();
    for _ in 0..100 {
        check(&bench.shell("exit 0", PATIENCE).await, true, "exit code 0");
    }
    // Other tests of this process have children too: those of this one work in its directory, and what is not reaped
    // stays, while that of others goes.
    until("no process works in the directory", || {
        !works_in(bench.directory.path())
    })
    .await;
    until("no child waits to be reaped", || zombies() == 0).await;
}

fn processes() -> impl Iterator<Item = PathBuf> {
    fs::read_dir("/proc")
        .expect("proc is there")
        .flatten()
        .map(|process| process.path())
}

fn works_in(directory: &Path) -> bool {
    processes().any(|process| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == directory))
}

/// Children of this process that have ended and were not waited for.
fn zombies() -> usize {
    let own = std::process::id().to_string();
    let is_zombie = |process: PathBuf| {
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        fields.next() == Some("Z") && fields.next() == Some(own.as_str())
    };
    processes()
        .filter(|process| is_zombie(process.clone()))
        .count()
}
