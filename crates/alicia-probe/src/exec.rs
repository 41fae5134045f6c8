//! Run a program, and let nothing of it live longer than the try.
//!
//! The program leads a process group of its own, which is killed whole when it ends, runs late or is cancelled. A
//! descendant that has left the group (`setsid`) is found by a mark in its environment, when the try runs late.
//! The group is killed before its leader is reaped: until then its number cannot mean another group.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, Interest};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::attempt::{Deadline, Seen};
use tail::Tail;

mod sweep;
mod tail;

/// How long output is waited for when the group is dead: only a descendant that left the group still holds the pipe.
const DRAIN: Duration = Duration::from_millis(50);

/// How long a program that was killed may take to be gone. One that waits in the kernel, for a disk that does not answer,
/// cannot be killed; the runtime reaps it when it ends.
const REAP: Duration = Duration::from_secs(1);

/// The most that is read at once, in bytes.
const CHUNK_BYTES: usize = 8 << 10;

/// What is run.
#[derive(Debug, Clone)]
pub struct ExecTarget {
    /// The program and its arguments; at least one.
    pub(crate) words: Vec<String>,
    /// The working directory.
    pub(crate) directory: PathBuf,
    /// The whole environment.
    pub(crate) environment: Vec<(String, String)>,
}

// === impl ExecTarget ===

impl ExecTarget {
    pub(crate) async fn attempt(&self, deadline: &Deadline) -> Seen {
        let mark = sweep::Mark::new();
        let mut tail = Tail::default();
        let name = self.words.first().map_or("", String::as_str);
        let mut running = Running::start(self, &mark)
            .map_err(|error| deadline.own(error))
            .map_err(|error| format!("failed to start {name:?}: {error}"))?;
        let ended = deadline
            .within("no answer", running.until_exit(&mut tail))
            .await;
        running.group.kill();
        // What the program wrote last may still be in the pipes.
        let drained = timeout(DRAIN, running.read(&mut tail)).await;
        let late = ended.is_err() || drained.is_err();
        if late {
            mark.sweep().await;
        }
        let stuck = || io::Error::other("it does not end, and cannot be killed");
        let status = timeout(REAP, running.child.wait()).await;
        let status = status.unwrap_or_else(|_| Err(stuck()));
        match (ended, status) {
            (Err(missing), _) => Err(tail.after(missing)),
            (Ok(Err(error)), _) | (_, Err(error)) => {
                Err(format!("failed to wait for {name:?}: {error}"))
            }
            (Ok(Ok(())), Ok(status)) => judge(status, &tail),
        }
    }
}

fn judge(status: ExitStatus, tail: &Tail) -> Seen {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(tail.after("exit code 0".to_owned())),
        (Some(code), _) => Err(tail.after(format!("exit code {code}"))),
        (None, Some(signal)) => Err(tail.after(format!("ended by signal {signal}"))),
        (None, None) => Err(tail.after(status.to_string())),
    }
}

/// A program that runs. Dropping it kills the group; the runtime reaps the leader.
struct Running {
    // Before the child: a group may be killed only while its leader is not reaped.
    group: Group,
    exit: AsyncFd<OwnedFd>,
    child: Child,
}

/// The process group of a program.
struct Group(Option<Pid>);

// === impl Running ===

impl Running {
    fn start(program: &ExecTarget, mark: &sweep::Mark) -> io::Result<Self> {
        let (name, arguments) = program
            .words
            .split_first()
            .ok_or(io::ErrorKind::InvalidInput)?;
        let environment = program
            .environment
            .iter()
            .map(|(name, value)| (name, value));
        let child = Command::new(name)
            .args(arguments)
            .current_dir(&program.directory)
            .env_clear()
            .envs(environment)
            .env(sweep::VARIABLE, mark.text())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let group = Group(pid);
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "sound for an OwnedFd, which is the same descriptor until it is dropped; the successor is unsafe"
        )]
        let exit = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        Ok(Self { group, exit, child })
    }

    /// Waits until the program has ended, and reads what it writes. It is not reaped yet.
    async fn until_exit(&mut self, tail: &mut Tail) -> io::Result<()> {
        let Self { exit, child, .. } = self;
        let mut exited = std::pin::pin!(exit.readable());
        tokio::select! {
            ready = &mut exited => return ready.map(|_| ()),
            () = read(child, tail) => {}
        }
        exited.await.map(|_| ())
    }

    async fn read(&mut self, tail: &mut Tail) {
        read(&mut self.child, tail).await;
    }
}

/// Reads both outputs to their ends.
async fn read(child: &mut Child, tail: &mut Tail) {
    let (mut out, mut error) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    while child.stdout.is_some() || child.stderr.is_some() {
        tokio::select! {
            length = chunk(&mut child.stdout, &mut out) => match length {
                0 => child.stdout = None,
                length => tail.push(&out[..length]),
            },
            length = chunk(&mut child.stderr, &mut error) => match length {
                0 => child.stderr = None,
                length => tail.push(&error[..length]),
            },
        }
    }
}

/// Reads a piece; 0 at the end. A pipe that was closed before never ends again.
async fn chunk(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    match pipe {
        // A pipe that fails says no more than one that ends.
        Some(pipe) => pipe.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

// === impl Group ===

impl Group {
    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // That nobody is left in the group is as good as having killed them.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
