//! What instances say of themselves: the receiving side of `sd_notify(3)`.
//!
//! Each instance that asked for it has a datagram socket of its own, so that a flood of one takes nothing
//! from another; beyond its rate a socket is not read, its queue in the kernel fills, and the sender waits.
//! The kernel says who sent a message; one of a stranger is counted and dropped.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::event::epoll;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with, sockopt,
};

use super::instance::Instance;
use super::place::Place;
use super::timers::Timer;
use super::token::Token;
use super::{Keeper, note};
use crate::containment::Container;
use crate::protocol::{Event, InstanceState};
use crate::sys::Identity;
use crate::{clock, process_table, socket, sys};

/// The longest message, as systemd's (`NOTIFY_BUFFER_MAX` is `PIPE_BUF`).
const MESSAGE_BYTES_MAX: usize = 4_096;
/// Taken from one instance in one turn of the loop.
const MESSAGES_PER_TURN: usize = 16;
/// An agent says some words a second. What says more waits.
const MESSAGES_PER_S: u64 = 100;
const MESSAGES_BURST: u64 = 200;
/// How long one that says too much is not heard.
const MUTE_MS: u64 = 50;
/// Taken at the end of a leader: more than the kernel queues (`net.unix.max_dgram_qlen`) even where
/// that was raised.
const DRAIN_MESSAGES_MAX: usize = 1_024;
/// Names that are kept for hosts that come later. The protocol has 11, the rest is for `X_ALICIA_*`.
const NAMES_KEPT_MAX: usize = 32;
/// Between SIGABRT and SIGKILL of a watchdog, at most: a core takes its time to write.
const ABORT_GRACE_MS_MAX: u64 = 10_000;
/// What is told, beside names that begin with [`OWN_PREFIX`].
const NAMES: [&str; 11] = [
    "BUSERROR",
    "ERRNO",
    "EXIT_STATUS",
    "EXTEND_TIMEOUT_USEC",
    "MAINPID",
    "MONOTONIC_USEC",
    "READY",
    "RELOADING",
    "STATUS",
    "STOPPING",
    "WATCHDOG",
];
const OWN_PREFIX: &str = "X_ALICIA_";
/// Said to one that names another main process.
const OTHER_MAIN: &str = "MAINPID: the process that was started stays the main one, and its end is the end of the run; \
                          let it run in the foreground";

/// The socket of one instance.
#[derive(Debug)]
pub(super) struct Notify {
    pub(super) socket: OwnedFd,
    /// What the child finds in `NOTIFY_SOCKET`.
    pub(super) address: String,
    pub(super) watchdog: Option<Watchdog>,
    /// Thousandths of messages that may still be taken.
    credit: u64,
    counted_ms: u64,
    is_muted: bool,
}

/// The words of one instance that must come in time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watchdog {
    pub(super) interval_ms: u64,
    /// Once it has begun.
    pub(super) deadline_ms: Option<u64>,
    /// The leader was told to end.
    pub(super) has_fired: bool,
    is_timer_set: bool,
}

// === impl Notify ===

impl Notify {
    /// Binds a socket for a run: a path where its user can come there, else an abstract name.
    pub(super) fn open(
        place: &Place,
        (key, run): (&str, u64),
        (user, watchdog_ms): (Option<&Identity>, Option<u64>),
    ) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_passcred(&socket, true)?;
        let path = place.notify_path(run);
        let is_reachable = user.is_none_or(|user| can_reach(user, &path));
        let fits = |it: &&str| it.len() <= socket::PATH_BYTES_MAX;
        let address = match path.to_str().filter(fits).filter(|_| is_reachable) {
            Some(text) => {
                bind(&socket, &SocketAddrUnix::new(text)?)?;
                // A service may run as another user. Who may say something is checked with each message.
                fs::set_permissions(&path, Permissions::from_mode(0o666))?;
                text.to_owned()
            }
            None => {
                let name = format!("alicia-{key}-{run}");
                bind(
                    &socket,
                    &SocketAddrUnix::new_abstract_name(name.as_bytes())?,
                )?;
                format!("@{name}")
            }
        };
        Ok(Self::resume(
            socket,
            address,
            watchdog_ms.map(Watchdog::new),
        ))
    }

    pub(super) fn resume(socket: OwnedFd, address: String, watchdog: Option<Watchdog>) -> Self {
        Self {
            socket,
            address,
            watchdog,
            credit: MESSAGES_BURST * 1_000,
            counted_ms: clock::monotonic_ms(),
            is_muted: false,
        }
    }

    /// Its name is no path: one who may use no abstract sockets outside cannot use it.
    pub(super) fn is_abstract(&self) -> bool {
        self.address.starts_with('@')
    }

    fn has_credit(&mut self, now_ms: u64) -> bool {
        let earned = now_ms
            .saturating_sub(self.counted_ms)
            .saturating_mul(MESSAGES_PER_S);
        self.counted_ms = now_ms;
        self.credit = self
            .credit
            .saturating_add(earned)
            .min(MESSAGES_BURST * 1_000);
        self.credit >= 1_000
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        if !self.is_abstract() {
            // Best effort: the directory is emptied by the next keeper.
            drop(fs::remove_file(PathBuf::from(&self.address)));
        }
    }
}

// === impl Watchdog ===

impl Watchdog {
    pub(super) fn new(interval_ms: u64) -> Self {
        Self {
            interval_ms,
            deadline_ms: None,
            has_fired: false,
            is_timer_set: false,
        }
    }

    /// From its interval, its deadline once it has begun, and whether it has fired.
    pub(super) fn resume((interval_ms, deadline_ms, has_fired): (u64, Option<u64>, bool)) -> Self {
        Self {
            deadline_ms,
            has_fired,
            ..Self::new(interval_ms)
        }
    }
}

/// The time that a message asks for (`EXTEND_TIMEOUT_USEC`), in milliseconds, rounded up.
fn extension_ms(fields: &BTreeMap<String, String>) -> Option<u64> {
    let us: u64 = fields.get("EXTEND_TIMEOUT_USEC")?.trim().parse().ok()?;
    Some(us.div_ceil(1_000))
}

// === impl Keeper ===

impl Keeper {
    /// A turn at the socket of an instance.
    pub(super) fn take_notifications(&mut self, run: u64) {
        let now_ms = clock::monotonic_ms();
        for _ in 0..MESSAGES_PER_TURN {
            let Some(notify) = self.notify_of(run) else {
                return;
            };
            if !notify.has_credit(now_ms) {
                notify.is_muted = true;
                self.timers.set(now_ms + MUTE_MS, Timer::Notify(run));
                return self.watch_notify(run, epoll::EventFlags::empty());
            }
            if !self.take_notification(run) {
                return;
            }
        }
    }

    pub(super) fn hear_again(&mut self, run: u64) {
        if let Some(notify) = self.notify_of(run)
            && std::mem::take(&mut notify.is_muted)
        {
            self.watch_notify(run, epoll::EventFlags::IN);
        }
    }

    /// What was said before the end of a leader is told before its end.
    pub(super) fn drain_notifications(&mut self, run: u64) {
        for _ in 0..DRAIN_MESSAGES_MAX {
            if !self.take_notification(run) {
                return;
            }
        }
    }

    fn notify_of(&mut self, run: u64) -> Option<&mut Notify> {
        self.instances.get_mut(&run)?.notify.as_mut()
    }

    fn watch_notify(&self, run: u64, flags: epoll::EventFlags) {
        let notify = self.instances.get(&run).and_then(|it| it.notify.as_ref());
        let Some(notify) = notify else {
            return;
        };
        let token = Token::Notify(run).data();
        if let Err(error) = epoll::modify(&self.poll, &notify.socket, token, flags) {
            note(&format!(
                "run {run}: cannot watch its notify socket: {error}"
            ));
        }
    }

    /// Takes one message. False: there is none.
    fn take_notification(&mut self, run: u64) -> bool {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let Some(notify) = self.notify_of(run) else {
            return false;
        };
        // Descriptors that came along close here: that is the answer to `BARRIER=1`.
        let datagram = match sys::receive(notify.socket.as_fd(), &mut buffer) {
            Ok(Some(datagram)) => datagram,
            Ok(None) | Err(_) => return false,
        };
        notify.credit = notify.credit.saturating_sub(1_000);
        let Some(instance) = self.instances.get(&run) else {
            return false;
        };
        let text = buffer.get(..datagram.length).unwrap_or_default();
        let message = datagram
            .pid
            .filter(|pid| !datagram.is_cut && owns(instance, *pid))
            .and_then(|pid| Some((pid, parse(text, |pid| owns(instance, pid))?)));
        match message {
            Some((pid, message)) => {
                if message.wants_store {
                    self.say(run, "FDSTORE: descriptors are not kept here");
                }
                self.notifications_dropped += u64::from(message.dropped);
                self.notified(run, pid, message.fields);
            }
            None => self.notifications_dropped += 1,
        }
        true
    }

    fn notified(&mut self, run: u64, pid: u32, fields: BTreeMap<String, String>) {
        self.feed_watchdog(run, &fields);
        if let Some(time_ms) = extension_ms(&fields) {
            self.extend_stop(run, time_ms);
        }
        let Some(instance) = self.instances.get_mut(&run) else {
            return;
        };
        if fields.is_empty() {
            return;
        }
        let main_pid = instance.info.pid.to_string();
        let kept = &mut instance.info.notified;
        let names_another = fields
            .get("MAINPID")
            .is_some_and(|named| *named != main_pid && kept.get("MAINPID") != Some(named));
        for (name, value) in &fields {
            let is_state = name != "WATCHDOG";
            if is_state && (kept.contains_key(name) || kept.len() < NAMES_KEPT_MAX) {
                kept.insert(name.clone(), value.clone());
            }
        }
        let instance = instance.info.instance.clone();
        if names_another {
            self.say(run, OTHER_MAIN);
        }
        self.broadcast(&Event::Notified {
            instance,
            run,
            pid,
            fields,
        });
    }

    fn feed_watchdog(&mut self, run: u64, fields: &BTreeMap<String, String>) {
        let Some(watchdog) = self.notify_of(run).and_then(|it| it.watchdog.as_mut()) else {
            return;
        };
        let now_ms = clock::monotonic_ms();
        let said = |name: &str| fields.get(name).map(String::as_str);
        watchdog.deadline_ms = match (said("WATCHDOG"), said("READY")) {
            (Some("trigger"), _) => Some(now_ms),
            (Some("1"), _) | (_, Some("1")) => Some(now_ms + watchdog.interval_ms),
            _ => return,
        };
        self.set_watchdog_timer(run);
    }

    /// One timer for each watchdog at a time, however often it is fed; one that triggers itself comes at once.
    pub(super) fn set_watchdog_timer(&mut self, run: u64) {
        let now_ms = clock::monotonic_ms();
        let Some(watchdog) = self.notify_of(run).and_then(|it| it.watchdog.as_mut()) else {
            return;
        };
        if let Some(deadline_ms) = watchdog.deadline_ms
            && (!watchdog.is_timer_set || deadline_ms <= now_ms)
        {
            watchdog.is_timer_set = true;
            self.timers.set(deadline_ms, Timer::Watchdog(run));
        }
    }

    pub(super) fn watchdog_timer(&mut self, run: u64, now_ms: u64) {
        let Some(instance) = self.instances.get_mut(&run) else {
            return;
        };
        let is_running = instance.info.state == InstanceState::Running;
        let grace_ms = instance.stop_grace_ms.min(ABORT_GRACE_MS_MAX);
        let pid = instance.info.pid;
        let Some(watchdog) = instance.notify.as_mut().and_then(|it| it.watchdog.as_mut()) else {
            return;
        };
        watchdog.is_timer_set = false;
        let is_over = watchdog.deadline_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if !is_running || !is_over {
            return self.set_watchdog_timer_if(run, is_running);
        }
        let Some(pidfd) = &instance.pidfd else {
            return;
        };
        let signal = if watchdog.has_fired {
            // Not a kill of the kernel.
            instance.killed.insert(pid);
            libc::SIGKILL
        } else {
            libc::SIGABRT
        };
        // It may have ended.
        drop(sys::send_signal(pidfd.as_fd(), signal));
        if !watchdog.has_fired {
            watchdog.has_fired = true;
            watchdog.deadline_ms = Some(now_ms + grace_ms);
            let text = format!(
                "no WATCHDOG=1 within {} ms: ended by SIGABRT",
                watchdog.interval_ms
            );
            self.set_watchdog_timer(run);
            self.say(run, &text);
        }
    }

    fn set_watchdog_timer_if(&mut self, run: u64, is_running: bool) {
        if is_running {
            self.set_watchdog_timer(run);
        }
    }
}

/// A message that was understood.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    fields: BTreeMap<String, String>,
    wants_store: bool,
    /// Fields that were false: a `MAINPID` that is not of the instance.
    dropped: u32,
}

/// Lines of `NAME=value`; `None` when there is none.
fn parse(text: &[u8], is_own: impl Fn(u32) -> bool) -> Option<Message> {
    let text = std::str::from_utf8(text).ok()?;
    let pairs: Vec<(&str, &str)> = text
        .trim_end_matches(['\n', '\0'])
        .split('\n')
        .filter_map(|line| line.split_once('='))
        .collect();
    if pairs.is_empty() {
        return None;
    }
    let mut message = Message {
        fields: BTreeMap::new(),
        wants_store: false,
        dropped: 0,
    };
    for (name, value) in pairs {
        match name {
            "FDSTORE" => message.wants_store = true,
            "MAINPID" if !value.parse().is_ok_and(&is_own) => message.dropped += 1,
            _ if NAMES.contains(&name) || name.starts_with(OWN_PREFIX) => {
                message.fields.insert(name.to_owned(), value.to_owned());
            }
            _ => {}
        }
    }
    Some(message)
}

/// Whether a user may pass through every directory on the way.
fn can_reach(user: &Identity, path: &Path) -> bool {
    path.ancestors().skip(1).all(|directory| {
        fs::metadata(directory).is_ok_and(|it| {
            let bit = if it.uid() == user.user {
                0o100
            } else if it.gid() == user.group || user.groups.contains(&it.gid()) {
                0o010
            } else {
                0o001
            };
            user.user == 0 || it.mode() & bit != 0
        })
    })
}

/// Whether a process is of an instance, now.
fn owns(instance: &Instance, pid: u32) -> bool {
    if pid == instance.info.pid {
        return true;
    }
    match &instance.container {
        Some(Container::Cgroup(cgroup)) => cgroup.holds(pid),
        Some(Container::Scan(scan)) => {
            let process = process_table::process(pid);
            process.is_some_and(|process| scan.owns(&process))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(pairs: &[(&str, &str)]) -> Message {
        let pairs = pairs.iter();
        Message {
            fields: pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            wants_store: false,
            dropped: 0,
        }
    }

    fn check(text: &str, expect: Option<Message>) {
        let got = parse(text.as_bytes(), |pid| pid == 7);
        assert_eq!(got, expect, "{text:?}");
    }

    #[test]
    fn known_fields_are_taken_and_false_ones_counted() {
        check("READY=1", Some(message(&[("READY", "1")])));
        let expect = message(&[("READY", "1"), ("STATUS", "last")]);
        check(
            "READY=1\nSTATUS=a=b\nSTATUS=last\nUNKNOWN=1\n",
            Some(expect),
        );
        let expect = message(&[("X_ALICIA_STEPS", "3")]);
        check("X_ALICIA_STEPS=3\nX_OTHER=1", Some(expect));
        check("MAINPID=7", Some(message(&[("MAINPID", "7")])));
        let two_lies = Message {
            dropped: 2,
            ..message(&[])
        };
        check("MAINPID=1\nMAINPID=-1", Some(two_lies));
        let store = Message {
            wants_store: true,
            ..message(&[])
        };
        check("FDSTORE=1\nFDNAME=x", Some(store));
        check("BARRIER=1", Some(message(&[])));
        check("", None);
        check("hello", None);
        assert_eq!(parse(b"READY=\xff", |_| true), None);
    }

    #[test]
    fn a_burst_is_heard_then_only_the_rate() {
        let (socket, _) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let mut notify = Notify::resume(socket.into(), "@none".into(), None);
        let begun_ms = notify.counted_ms;
        let mut take = |now_ms: u64| {
            let admitted = notify.has_credit(now_ms);
            notify.credit -= if admitted { 1_000 } else { 0 };
            admitted
        };
        let burst = (0..1_000).filter(|_| take(begun_ms)).count();
        assert_eq!(burst as u64, MESSAGES_BURST);
        let second = (1..=1_000).filter(|ms| take(begun_ms + ms)).count();
        assert_eq!(second as u64, MESSAGES_PER_S);
    }
}
