//! Becoming another program in place: state goes into a memory file, descriptors stay open over `execve`,
//! the pid stays the same, so every child stays a child.
//!
//! The new program must understand the state (`version`), or everything ends as after a crash: the host
//! should ask only for a program that it has seen running.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::event::epoll;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use super::clients::Connection;
use super::instance::{Asker, Instance, Starting, Stopping};
use super::limits::{Watched, group_name};
use super::listeners::Held;
use super::notify::{Notify, Watchdog};
use super::place::Place;
use super::schedule::Standing;
use super::storm::Forks;
use super::token::Token;
use super::{Keeper, note};
use crate::containment::{Cgroup, Container, Scan};
use crate::error::{Error, Result};
use crate::logs::Stream;
use crate::output::{Cutter, LogState, Pipe};
use crate::protocol::{Failure, FailureCode, HeldBy, Hello, InstanceInfo, ListenerInfo, Reply};
use crate::sys;

/// Raised when an older keeper's state can no longer be read.
const STATE_VERSION: u32 = 1;

/// Everything that goes over, with descriptors by number.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    directory: PathBuf,
    lock: RawFd,
    socket: RawFd,
    standing: Standing,
    started_unix_ms: u64,
    #[serde(default)]
    generation: u64,
    last_run: u64,
    is_shutting_down: bool,
    asker: Asker,
    instances: Vec<InstanceState>,
    listeners: Vec<(RawFd, ListenerInfo)>,
    clients: Vec<ClientState>,
    last_client: u64,
    closed_lines_dropped: u64,
    #[serde(default)]
    notifications_dropped: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct InstanceState {
    info: InstanceInfo,
    stop_signal: i32,
    stop_grace_ms: u64,
    pidfd: Option<RawFd>,
    container: Option<ContainerState>,
    pipes: Vec<PipeState>,
    log: Option<LogState>,
    starting: Option<(RawFd, Asker, String)>,
    stopping: Option<(u64, Vec<Asker>)>,
    #[serde(default)]
    notify: Option<NotifyState>,
    #[serde(default)]
    listeners: Vec<String>,
    #[serde(default)]
    watched: WatchedState,
    killed: BTreeSet<u32>,
    is_ending: bool,
    is_forgotten: bool,
    is_stillborn: bool,
    is_survivor: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct WatchedState {
    memory_bytes_max: Option<u64>,
    processes_max: Option<u32>,
    has_cgroup1: bool,
    hears_out_of_memory: bool,
    over: Option<String>,
    #[serde(default)]
    over_why: Option<String>,
    /// The limit of processes whose refused forks are counted, and what holds it.
    #[serde(default)]
    forks: Option<(u32, HeldBy)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct NotifyState {
    fd: RawFd,
    address: String,
    /// Interval, deadline once it has begun, whether it has fired.
    watchdog: Option<(u64, Option<u64>, bool)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PipeState {
    fd: RawFd,
    stream: Stream,
    rest: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
enum ContainerState {
    Cgroup(PathBuf),
    Scan {
        tag: String,
        leader: u32,
        start_ticks: u64,
        pipes: Vec<u64>,
        known: HashMap<u32, u64>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct ClientState {
    client: u64,
    fd: RawFd,
    input: Vec<u8>,
    output: Vec<u8>,
    is_greeted: bool,
    events_missed: u64,
}

// === The program before ===

impl Keeper {
    /// Returns only if the program cannot be executed; else the new program answers.
    pub(super) fn upgrade(
        &mut self,
        asker: Asker,
        program: &str,
        arguments: Vec<String>,
    ) -> std::result::Result<(), Failure> {
        self.do_chores();
        // Lines that a flood dropped are counted in memory only.
        self.write_markers();
        let failed = |text: String, error: &io::Error| Failure {
            code: FailureCode::UpgradeFailed,
            message: text,
            errno: error.raw_os_error(),
        };
        let state = self.state(asker);
        let file = write_state(&state)
            .map_err(|error| failed(format!("the state cannot be written: {error}"), &error))?;
        let resume = ["--resume".to_owned(), file.as_raw_fd().to_string()];
        let words = [program.to_owned()]
            .into_iter()
            .chain(arguments)
            .chain(resume);
        let words: std::result::Result<Vec<_>, _> = words.map(CString::new).collect();
        let words = words.map_err(|_| {
            Failure::new(
                FailureCode::InvalidRequest,
                "arguments: a zero byte is not allowed",
            )
        })?;
        let kept: Vec<BorrowedFd<'_>> = self.kept().chain([file.as_fd()]).collect();
        set_flags(&kept, FdFlags::empty());
        let error = sys::execute(&words);
        set_flags(&kept, FdFlags::CLOEXEC);
        Err(failed(
            format!("{program} cannot be executed: {error}"),
            &error,
        ))
    }

    /// Every descriptor that is named in the state.
    fn kept(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let instances = self.instances.values().flat_map(|instance| {
            let report = instance
                .starting
                .as_ref()
                .map(|starting| starting.report.as_fd());
            let pipes = instance.pipes.iter().flatten().map(|pipe| pipe.fd.as_fd());
            let notify = instance.notify.as_ref().map(|it| it.socket.as_fd());
            instance
                .pidfd
                .as_ref()
                .map(AsFd::as_fd)
                .into_iter()
                .chain(report)
                .chain(notify)
                .chain(pipes)
        });
        let listeners = self.listeners.iter().map(|held| held.socket.as_fd());
        let clients = self
            .clients
            .connections
            .values()
            .map(|it| it.socket.as_fd());
        [self.place.lock(), self.place.socket()]
            .into_iter()
            .chain(instances)
            .chain(listeners)
            .chain(clients)
    }

    fn state(&self, asker: Asker) -> State {
        let clients = self
            .clients
            .connections
            .iter()
            .map(|(client, it)| ClientState {
                client: *client,
                fd: it.socket.as_raw_fd(),
                input: it.input.clone(),
                output: it.output.clone(),
                is_greeted: it.is_greeted,
                events_missed: it.events_missed,
            });
        let instances = self
            .instances
            .iter()
            .map(|(run, it)| it.state(self.ending.contains(run)));
        State {
            version: STATE_VERSION,
            directory: self.place.directory().to_owned(),
            lock: self.place.lock().as_raw_fd(),
            socket: self.place.socket().as_raw_fd(),
            standing: self.standing.clone(),
            started_unix_ms: self.started_unix_ms,
            generation: self.place.generation(),
            last_run: self.last_run,
            is_shutting_down: self.is_shutting_down,
            asker,
            instances: instances.collect(),
            listeners: self
                .listeners
                .iter()
                .map(|held| (held.socket.as_raw_fd(), held.info.clone()))
                .collect(),
            clients: clients.collect(),
            last_client: self.clients.last,
            closed_lines_dropped: self.logs.closed_lines_dropped,
            notifications_dropped: self.notifications_dropped,
        }
    }
}

impl Instance {
    fn state(&self, is_ending: bool) -> InstanceState {
        let container = self.container.as_ref().map(|container| match container {
            Container::Cgroup(cgroup) => ContainerState::Cgroup(cgroup.path().to_owned()),
            Container::Scan(scan) => ContainerState::Scan {
                tag: scan.tag.clone(),
                leader: scan.leader,
                start_ticks: scan.start_ticks,
                pipes: scan.pipes.clone(),
                known: scan.known.clone(),
            },
        });
        let pipes = self.pipes.iter().flatten().map(|pipe| PipeState {
            fd: pipe.fd.as_raw_fd(),
            stream: pipe.stream,
            rest: pipe.cutter.rest.clone(),
        });
        InstanceState {
            info: self.info.clone(),
            stop_signal: self.stop_signal,
            stop_grace_ms: self.stop_grace_ms,
            pidfd: self.pidfd.as_ref().map(AsRawFd::as_raw_fd),
            container,
            pipes: pipes.collect(),
            log: self.log.as_ref().map(|log| log.borrow().state()),
            starting: self
                .starting
                .as_ref()
                .map(|it| (it.report.as_raw_fd(), it.asker, it.program.clone())),
            stopping: self
                .stopping
                .as_ref()
                .map(|it| (it.deadline_ms, it.askers.clone())),
            notify: self.notify.as_ref().map(|it| NotifyState {
                fd: it.socket.as_raw_fd(),
                address: it.address.clone(),
                watchdog: it
                    .watchdog
                    .map(|it| (it.interval_ms, it.deadline_ms, it.has_fired)),
            }),
            listeners: self.listeners.clone(),
            watched: WatchedState {
                memory_bytes_max: self.watched.memory_bytes_max,
                processes_max: self.watched.processes_max,
                has_cgroup1: self.watched.has_cgroup1,
                hears_out_of_memory: self.watched.out_of_memory.is_some(),
                over: self.watched.over.clone(),
                over_why: self.watched.over_why.clone(),
                forks: self.watched.forks.as_ref().map(Forks::state),
            },
            killed: self.killed.clone(),
            is_ending,
            is_forgotten: self.is_forgotten,
            is_stillborn: self.is_stillborn,
            is_survivor: self.is_survivor,
        }
    }
}

fn write_state(state: &State) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"alicia-keeper-state", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(state)?)?;
    file.rewind()?;
    Ok(file)
}

fn set_flags(descriptors: &[BorrowedFd<'_>], flags: FdFlags) {
    for descriptor in descriptors {
        if let Err(error) = fcntl_setfd(descriptor, flags) {
            note(&format!("cannot change the flags of a descriptor: {error}"));
        }
    }
}

// === The program after ===

impl State {
    /// Reads the state that the program before left.
    pub(super) fn read(fd: RawFd) -> Result<Self> {
        let lost = |text: String| Error::Resume(text);
        let fd = sys::inherited(fd).ok_or_else(|| lost(format!("descriptor {fd} is not open")))?;
        let mut bytes = Vec::new();
        File::from(fd)
            .read_to_end(&mut bytes)
            .map_err(|error| lost(error.to_string()))?;
        let state: Self =
            serde_json::from_slice(&bytes).map_err(|error| lost(error.to_string()))?;
        if state.version != STATE_VERSION {
            let version = state.version;
            return Err(lost(format!(
                "it has version {version}, not {STATE_VERSION}"
            )));
        }
        Ok(state)
    }

    pub(super) fn place(&self) -> Result<Place> {
        Ok(Place::resume(
            self.directory.clone(),
            (take(self.lock)?, take(self.socket)?),
            self.generation,
        ))
    }
}

impl Keeper {
    /// Goes on where the program before stopped, and says so to whoever asked for it.
    pub(super) fn restore(&mut self, state: State) -> Result<()> {
        self.standing = state.standing;
        self.started_unix_ms = state.started_unix_ms;
        self.last_run = state.last_run;
        self.is_shutting_down = state.is_shutting_down;
        self.logs.closed_lines_dropped = state.closed_lines_dropped;
        self.notifications_dropped = state.notifications_dropped;
        let mut listeners = Vec::new();
        for (fd, info) in state.listeners {
            listeners.push(info.name.clone());
            self.listeners
                .insert(Held::new(TcpListener::from(take(fd)?), info));
        }
        self.clients.last = state.last_client;
        for client in state.clients {
            self.restore_client(client)?;
        }
        for instance in state.instances {
            self.restore_instance(instance)?;
        }
        self.arm_listeners(&listeners);
        self.begin_polling();
        self.look_at_forks_often();
        self.clients
            .answer(state.asker, Ok(Reply::Upgraded(Hello::own())));
        // Children may have ended while the program changed.
        self.reap();
        let ending: Vec<u64> = self.ending.iter().copied().collect();
        for run in ending {
            self.settle(run);
        }
        Ok(())
    }

    fn restore_client(&mut self, state: ClientState) -> Result<()> {
        let mut connection = Connection::new(take(state.fd)?);
        connection.input = state.input;
        connection.output = state.output;
        connection.is_greeted = state.is_greeted;
        connection.events_missed = state.events_missed;
        let token = Token::Client(state.client).data();
        epoll::add(&self.poll, &connection.socket, token, epoll::EventFlags::IN)
            .map_err(|error| Error::system("watch a connection")(error.into()))?;
        self.clients.connections.insert(state.client, connection);
        Ok(())
    }

    fn restore_instance(&mut self, state: InstanceState) -> Result<()> {
        let run = state.info.run;
        let container = state.container.map(|container| match container {
            ContainerState::Cgroup(path) => Cgroup::open(path).map(Container::Cgroup),
            ContainerState::Scan {
                tag,
                leader,
                start_ticks,
                pipes,
                known,
            } => Ok(Container::Scan(Scan {
                tag,
                leader,
                start_ticks,
                pipes,
                known,
            })),
        });
        let mut pipes = [None, None];
        for (slot, pipe) in pipes.iter_mut().zip(state.pipes) {
            let cutter = Cutter { rest: pipe.rest };
            *slot = Some(Pipe {
                fd: take(pipe.fd)?,
                stream: pipe.stream,
                cutter,
            });
        }
        let log = state.log.map(|log| self.logs.restore(log)).transpose();
        let starting = state.starting.map(|(fd, asker, program)| {
            take(fd).map(|report| Starting {
                report,
                asker,
                program,
            })
        });
        let notify = state.notify.map(|it| {
            let watchdog = it.watchdog.map(Watchdog::resume);
            take(it.fd).map(|socket| Notify::resume(socket, it.address, watchdog))
        });
        let group = group_name(&state.info.instance, run);
        let mut instance = Instance {
            stop_signal: state.stop_signal,
            stop_grace_ms: state.stop_grace_ms,
            pidfd: state.pidfd.map(take).transpose()?,
            container: container
                .transpose()
                .map_err(Error::system("open a cgroup again"))?,
            pipes,
            log: log.map_err(Error::system("open a log again"))?,
            starting: starting.transpose()?,
            stopping: state
                .stopping
                .map(|(deadline_ms, askers)| Stopping::new(deadline_ms, askers)),
            notify: notify.transpose()?,
            listeners: state.listeners,
            watched: Watched {
                memory_bytes_max: state.watched.memory_bytes_max,
                processes_max: state.watched.processes_max,
                has_cgroup1: state.watched.has_cgroup1,
                // Asked for anew: what happened in between shows in the kernel's count at the end.
                out_of_memory: (state.watched.hears_out_of_memory)
                    .then(|| self.cgroup1.out_of_memory_event(&group))
                    .flatten(),
                over: state.watched.over,
                over_why: state.watched.over_why,
                forks: None,
            },
            killed: state.killed,
            looks: 0,
            settle_at_ms: None,
            is_forgotten: state.is_forgotten,
            is_stillborn: state.is_stillborn,
            is_survivor: state.is_survivor,
            info: state.info,
        };
        if !instance.info.empty && instance.watched.over.is_none() {
            let of = (group.as_str(), instance.container.as_ref());
            let about = state.watched.forks;
            // An older keeper did not count them.
            let about = about.or_else(|| self.processes_held(of, &instance.info));
            instance.watched.forks = about.and_then(|it| self.count_refused_forks(of, it));
        }
        self.watch_instance(run, &instance);
        if let (true, Some(pidfd)) = (instance.is_survivor, &instance.pidfd) {
            let token = Token::Survivor(run).data();
            epoll::add(&self.poll, pidfd, token, epoll::EventFlags::IN)
                .map_err(|error| Error::system("watch a survivor")(error.into()))?;
        } else if instance.is_alive() {
            self.pids.insert(instance.info.pid, run);
        }
        if state.is_ending {
            self.ending.insert(run);
        }
        if !instance.is_forgotten {
            self.names.insert(instance.info.instance.clone(), run);
        }
        self.instances.insert(run, instance);
        self.set_watchdog_timer(run);
        Ok(())
    }
}

fn take(fd: RawFd) -> Result<OwnedFd> {
    let fd =
        sys::inherited(fd).ok_or_else(|| Error::Resume(format!("descriptor {fd} is not open")))?;
    fcntl_setfd(&fd, FdFlags::CLOEXEC)
        .map_err(|error| Error::system("change the flags of a descriptor")(error.into()))?;
    Ok(fd)
}
