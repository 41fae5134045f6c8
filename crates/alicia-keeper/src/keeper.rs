//! The keeper's process: one thread, one loop, no waiting but in `epoll_wait`.
//!
//! ```text
//!  signals ─► reap ──► exited ──► settle ──► emptied
//!  socket  ─► clients ─► requests ─► start, stop, listen, …
//!  pipes   ─► output (a bounded number of reads a turn, so that a flood starves nobody)
//!  timers  ─► grace over, look again, log marker
//! ```
//!
//! At the end of a turn answers and events are written first; what can wait (records on disk, empty
//! cgroups) comes after them, most of it some milliseconds later.

mod chores;
mod clients;
mod instance;
mod limits;
mod listeners;
mod notify;
mod output;
mod passed;
mod place;
mod plan;
mod reap;
mod record;
mod recover;
mod requests;
mod scan;
mod schedule;
mod start;
mod stop;
mod storm;
mod timers;
mod token;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::Timespec;

use crate::clock;
use crate::containment::{Cgroup1Root, CgroupRoot, directory_key};
use crate::error::{Error, Result};
use crate::process_table;
use crate::protocol::Event;
use crate::sys;
use chores::Chore;
use clients::Clients;
use instance::Instance;
use listeners::Listeners;
use output::Logs;
use place::Place;
use scan::Scans;
use schedule::Standing;
use storm::Looks;
use timers::{Timer, Timers};
use token::Token;
use upgrade::State;

/// Exit code of a keeper that finds its directory locked by another one (`EX_TEMPFAIL`).
pub const EXIT_LOCKED: u8 = 75;
/// Events taken in one turn of the loop.
const EVENTS_PER_TURN: usize = 128;
/// Reads of pipes in one turn: at 64 KiB each, some milliseconds of work at most.
const PIPES_PER_TURN: usize = 32;
/// Signals that the loop hears.
const SIGNALS: [i32; 4] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// How to run a keeper.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the socket, the lock and the records are. Made if it is not there, mode 0700.
    pub directory: PathBuf,
    /// Detach: [`run`] returns at once in the calling process, when the keeper listens, and the keeper
    /// goes on in a session of its own with its output in `keeper.log`.
    pub daemonise: bool,
    /// Which containment to use.
    pub containing: Containing,
    /// After an upgrade: the descriptor with the state, as given by `--resume`.
    pub resume: Option<RawFd>,
}

/// Which containment to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Containing {
    /// A cgroup where possible, else the scan.
    #[default]
    Best,
    /// The scan of `/proc`, for tests and for machines whose cgroups others manage.
    Scan,
}

impl Options {
    /// A keeper of a directory, in the foreground.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            daemonise: false,
            containing: Containing::Best,
            resume: None,
        }
    }

    /// Reads `--directory DIR [--daemonise] [--scan] [--resume FD]`, which is how a keeper calls the
    /// program that it upgrades to.
    ///
    /// # Errors
    /// A sentence that reads after "failed to".
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> std::result::Result<Self, String> {
        let mut options = Self::new("");
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--directory") => {
                    options.directory = arguments.next().unwrap_or_default().into();
                }
                Some("--daemonise") => options.daemonise = true,
                Some("--scan") => options.containing = Containing::Scan,
                Some("--resume") => {
                    let number = arguments.next().and_then(|it| it.to_str()?.parse().ok());
                    options.resume = Some(number.ok_or("read --resume: a number must follow")?);
                }
                _ => return Err(format!("understand the argument {}", argument.display())),
            }
        }
        if options.directory.as_os_str().is_empty() {
            return Err("find the directory: --directory DIR is missing".to_owned());
        }
        Ok(options)
    }
}

/// Everything that the keeper holds.
#[derive(Debug)]
struct Keeper {
    place: Place,
    /// Distinguishes this directory's processes and cgroups from those of other keepers.
    key: String,
    poll: OwnedFd,
    /// Pipes have a poll of their own, so that a flood does not hide the rest.
    pipes_poll: OwnedFd,
    signals: OwnedFd,
    null: OwnedFd,
    standing: Standing,
    started_unix_ms: u64,
    /// Or why there is none.
    cgroups: std::result::Result<CgroupRoot, String>,
    cgroup1: Cgroup1Root,
    clients: Clients,
    instances: BTreeMap<u64, Instance>,
    /// The newest run of each name.
    names: HashMap<String, u64>,
    /// Leaders that are children of this process.
    pids: HashMap<u32, u64>,
    /// Runs that were asked to end, or whose leader ended, and that are not empty.
    ending: BTreeSet<u64>,
    scans: Scans,
    /// Kills for want of memory on this machine that were looked at.
    oom_kills_seen: u64,
    /// Names this boot in records.
    boot: String,
    last_run: u64,
    listeners: Listeners,
    logs: Logs,
    timers: Timers,
    chores: Vec<Chore>,
    /// A timer for those that can wait is set.
    are_chores_due: bool,
    is_shutting_down: bool,
    /// A look at limits is to come.
    is_polling: bool,
    fork_looks: Looks,
    /// Messages of instances that were not understood or came from strangers.
    notifications_dropped: u64,
}

/// Runs a keeper until it is shut down.
///
/// # Errors
/// [`Error::Locked`] when another keeper has the directory (exit with [`EXIT_LOCKED`]), and faults of the
/// system at the start. Once it runs, it ends by [`Request::Shutdown`](crate::protocol::Request) or by a
/// signal (SIGTERM, SIGINT) only.
pub fn run(options: &Options) -> Result<()> {
    if let Some(fd) = options.resume {
        let state = State::read(fd)?;
        let mut keeper = Keeper::new(state.place()?, options)?;
        keeper.restore(state)?;
        return keeper.serve();
    }
    let place = Place::open(&options.directory)?;
    if options.daemonise && place.detach()? == place::Detached::Starter {
        return Ok(());
    }
    let mut keeper = Keeper::new(place, options)?;
    keeper.recover();
    keeper.serve()
}

impl Keeper {
    fn new(place: Place, options: &Options) -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| Error::system("make an epoll descriptor")(error.into()))?;
        let pipes_poll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| Error::system("make an epoll descriptor")(error.into()))?;
        let signals =
            sys::signal_descriptor(&SIGNALS).map_err(Error::system("make a signal descriptor"))?;
        // A reader that goes away, a file at its size limit: errors of the call, not ends of the keeper.
        sys::ignore_signal(libc::SIGPIPE);
        sys::ignore_signal(libc::SIGXFSZ);
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| Error::system("become child subreaper")(error.into()))?;
        let null = rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(|error| Error::system("open /dev/null")(error.into()))?;
        let key = directory_key(place.directory());
        let cgroups = match options.containing {
            Containing::Best => CgroupRoot::discover(&key),
            Containing::Scan => Err("the scan was asked for".to_owned()),
        };
        let cgroup1 = match options.containing {
            Containing::Best => Cgroup1Root::discover(&key),
            Containing::Scan => Cgroup1Root::default(),
        };
        let keeper = Self {
            place,
            key,
            poll,
            pipes_poll,
            signals,
            null,
            standing: Standing::raise(),
            started_unix_ms: clock::unix_ms(),
            cgroups,
            cgroup1,
            clients: Clients::default(),
            instances: BTreeMap::new(),
            names: HashMap::new(),
            pids: HashMap::new(),
            ending: BTreeSet::new(),
            scans: Scans::default(),
            oom_kills_seen: process_table::out_of_memory_kills(),
            boot: process_table::boot_id(),
            last_run: 0,
            listeners: Listeners::default(),
            logs: Logs::default(),
            timers: Timers::default(),
            chores: Vec::new(),
            are_chores_due: false,
            is_shutting_down: false,
            is_polling: false,
            fork_looks: Looks::default(),
            notifications_dropped: 0,
        };
        keeper.watch_own()?;
        Ok(keeper)
    }

    fn watch_own(&self) -> Result<()> {
        for (fd, token) in [
            (self.signals.as_fd(), Token::Signals),
            (self.place.socket(), Token::Socket),
            (self.pipes_poll.as_fd(), Token::Pipes),
        ] {
            epoll::add(&self.poll, fd, token.data(), epoll::EventFlags::IN)
                .map_err(|error| Error::system("watch a descriptor")(error.into()))?;
        }
        Ok(())
    }

    fn serve(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        loop {
            // What is known is told before anything is looked for.
            self.flush_clients();
            self.settle_scans_if_due();
            self.flush_clients();
            self.do_urgent_chores();
            if self.is_shutting_down && self.ending.is_empty() && !self.has_living() {
                return self.end();
            }
            self.wait(&mut events)?;
            let mut tokens: Vec<Token> = events.drain(..).filter_map(Token::of).collect();
            // Ends of processes first: a restart waits for them.
            tokens.sort_unstable();
            for token in tokens {
                self.handle(token);
            }
            self.run_timers();
        }
    }

    fn wait(&self, events: &mut Vec<epoll::Event>) -> Result<()> {
        let timeout = self.timers.next_ms().map(|at_ms| {
            let wait_ms = at_ms.saturating_sub(clock::monotonic_ms());
            Timespec {
                tv_sec: (wait_ms / 1_000).min(i64::MAX as u64) as i64,
                tv_nsec: (wait_ms % 1_000 * 1_000_000) as i64,
            }
        });
        match epoll::wait(&self.poll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Error::system("wait for events")(error.into())),
        }
    }

    fn handle(&mut self, token: Token) {
        match token {
            Token::Signals => self.take_signals(),
            Token::Survivor(run) => self.survivor_ended(run),
            Token::Cgroup(run) => self.settle(run),
            Token::Executed(run) => self.executed(run),
            Token::Listener(number) => self.listener_ready(number),
            Token::OutOfMemory(run) => self.out_of_memory_in_group(run),
            Token::RefusedForks(run) => self.count_forks(run),
            Token::Notify(run) => self.take_notifications(run),
            Token::Socket => self.accept_clients(),
            Token::Client(client) => self.serve_client(client),
            Token::Pipes => self.take_output(),
            Token::Output(..) => {}
        }
    }

    fn take_signals(&mut self) {
        let mut record = [0; sys::SIGNAL_RECORD_BYTES];
        while matches!(rustix::io::read(&self.signals, &mut record), Ok(length) if length == record.len())
        {
            match sys::signal_number(&record) {
                libc::SIGTERM | libc::SIGINT => drop(self.shut_down(u64::MAX)),
                // A terminal that closes is no reason to end anything.
                _ => {}
            }
        }
        self.reap();
    }

    fn run_timers(&mut self) {
        let now_ms = clock::monotonic_ms();
        while let Some(timer) = self.timers.pop_due(now_ms) {
            match timer {
                Timer::Settle(run) => self.settle_timer(run, now_ms),
                Timer::LogMarker => self.write_markers(),
                Timer::Output => self.read_again(),
                Timer::Look => self.scans.is_timer_set = false,
                Timer::Accept => self.watch_socket(epoll::EventFlags::IN),
                Timer::Chores => self.do_chores(),
                Timer::Limits => self.poll_limits(),
                Timer::Forks => self.look_at_forks(),
                Timer::Notify(run) => self.hear_again(run),
                Timer::Watchdog(run) => self.watchdog_timer(run, now_ms),
            }
        }
    }

    fn has_living(&self) -> bool {
        self.instances.values().any(|instance| !instance.info.empty)
    }

    /// Everything has ended. Records of exits stay for the next keeper.
    fn end(&mut self) -> Result<()> {
        self.do_chores();
        if let Ok(cgroups) = &self.cgroups {
            cgroups.remove();
        }
        self.cgroup1.remove_root();
        self.place.close();
        Ok(())
    }

    fn broadcast(&mut self, event: &Event) {
        self.clients.broadcast(event);
    }
}

/// A line on standard error, which is `keeper.log` once detached. It is for people; if it cannot be
/// written there is nobody to tell.
fn note(text: &str) {
    let stamp = clock::stamp(clock::unix_us());
    let line = format!("{} {text}\n", String::from_utf8_lossy(&stamp));
    drop(io::Write::write_all(&mut io::stderr(), line.as_bytes()));
}
