//! One slot of a service: where the process in it is in its life, and how often it ended unexpectedly.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::orchestrator::{Exit, InstanceState, InstanceStatus, Transition};
use alicia_contract::unit::UnixSeconds;

use super::Now;
use super::evidence::Check;

/// How far the clock of the orchestrator may be ahead of ours, in seconds, when it runs on another machine.
const CLOCKS_DIFFER_S: f64 = 5.0;

/// One slot of a service and the process in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// The run.
    pub instance: Option<InstanceId>,
    /// Its epoch.
    pub epoch: Epoch,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Since when.
    pub since: UnixSeconds,
    /// Why.
    pub reason: String,
    /// The number of its process.
    pub pid: Option<u32>,
    /// The processor that it uses, in cores.
    pub cpu: Option<f64>,
    /// The memory that it uses.
    pub memory_bytes: Option<u64>,
    /// The ports by name.
    pub ports: BTreeMap<ServiceName, u16>,
    /// What a person should look at.
    pub attention: Option<String>,
    /// How often it failed since somebody stopped it.
    pub crash_loops: u32,
    /// How the last run ended.
    pub exit: Option<Exit>,
    /// Its last lines.
    pub last_lines: Vec<String>,
    /// Unexpected ends that were seen; tells occurrences apart.
    pub exits: u32,
    /// Whether it ended unexpectedly and does not run again yet.
    pub recovering: bool,
    /// Results of the checks of this run, by name.
    pub checks: BTreeMap<ServiceName, Check>,
    /// Since when the run is ready, for waits.
    pub running_since: Option<Duration>,
    /// Whether what is known of the process is not older than the last time the monitor was held up.
    pub fresh: bool,
    restarts: u32,
}

// === impl Slot ===

/// What a slot is told of its process.
struct Entering<'a> {
    instance: Option<&'a InstanceId>,
    epoch: Epoch,
    state: InstanceState,
    since: UnixSeconds,
    reason: &'a str,
    exit: Option<&'a Exit>,
    last_lines: &'a [String],
    /// Whether the orchestrator counted a restart since it was last heard.
    restarted: bool,
}

impl Slot {
    /// A slot seen for the first time: ends from before do not count.
    pub(super) fn new(seen: &InstanceStatus) -> Self {
        let down = matches!(seen.state, InstanceState::Backoff | InstanceState::Failed);
        Self {
            instance: None,
            epoch: seen.epoch,
            state: InstanceState::Waiting,
            since: 0.0,
            reason: String::new(),
            pid: None,
            cpu: None,
            memory_bytes: None,
            ports: BTreeMap::new(),
            attention: None,
            crash_loops: 0,
            exit: seen.exit.clone().filter(|_| !down),
            last_lines: Vec::new(),
            exits: 0,
            recovering: false,
            checks: BTreeMap::new(),
            running_since: None,
            fresh: true,
            restarts: seen.restarts,
        }
    }

    /// A slot of which only a change is known.
    pub(super) fn before(change: &Transition) -> Self {
        Self {
            instance: None,
            epoch: change.epoch,
            state: change.from,
            since: 0.0,
            reason: String::new(),
            pid: None,
            cpu: None,
            memory_bytes: None,
            ports: BTreeMap::new(),
            attention: None,
            crash_loops: 0,
            exit: None,
            last_lines: Vec::new(),
            exits: 0,
            recovering: false,
            checks: BTreeMap::new(),
            running_since: None,
            fresh: true,
            restarts: change.restarts,
        }
    }

    /// Takes what the orchestrator's picture says of it.
    pub(super) fn see(&mut self, seen: &InstanceStatus, now: Now) {
        self.ports.clone_from(&seen.ports);
        self.attention.clone_from(&seen.attention);
        self.pid = seen.pid;
        self.cpu = seen.cpu;
        self.memory_bytes = seen.memory_bytes;
        let restarted = seen.restarts > self.restarts;
        self.restarts = seen.restarts;
        self.enter(
            &Entering {
                instance: seen.instance.as_ref(),
                epoch: seen.epoch,
                state: seen.state,
                since: seen.since,
                reason: &seen.reason,
                exit: seen.exit.as_ref(),
                last_lines: &[],
                restarted,
            },
            now,
        );
    }

    /// Takes one change.
    pub(super) fn take(&mut self, change: &Transition, now: Now) {
        self.restarts = self.restarts.max(change.restarts);
        self.pid = change.pid;
        self.enter(
            &Entering {
                instance: change.instance.as_ref(),
                epoch: change.epoch,
                state: change.to,
                since: change.at,
                reason: &change.reason,
                exit: change.exit.as_ref(),
                last_lines: &change.last_lines,
                restarted: false,
            },
            now,
        );
    }

    fn enter(&mut self, to: &Entering<'_>, now: Now) {
        let at_rest = [
            InstanceState::Stopped,
            InstanceState::Completed,
            InstanceState::Failed,
            InstanceState::Parked,
        ];
        if at_rest.contains(&self.state) && !at_rest.contains(&to.state) {
            // Started by a person: a clean slate.
            self.exits = 0;
            self.recovering = false;
        }
        if to.state == InstanceState::Failed && self.state != InstanceState::Failed {
            self.crash_loops = self.crash_loops.saturating_add(1);
        } else if matches!(to.state, InstanceState::Stopped | InstanceState::Completed) {
            self.crash_loops = 0;
        }
        self.note_exit(to, now);
        if self.instance.as_ref() != to.instance {
            self.checks.clear();
            self.running_since = None;
        }
        self.instance = to.instance.cloned();
        self.epoch = to.epoch;
        self.state = to.state;
        self.since = to.since;
        self.reason.clear();
        self.reason.push_str(to.reason);
        self.fresh = true;
        match to.state {
            InstanceState::Running => {
                self.running_since.get_or_insert(now.mono);
                self.recovering = false;
            }
            InstanceState::Stopping
            | InstanceState::Stopped
            | InstanceState::Completed
            | InstanceState::Parked
            | InstanceState::Paused => {
                self.recovering = false;
                self.running_since = None;
            }
            InstanceState::Waiting
            | InstanceState::Starting
            | InstanceState::Backoff
            | InstanceState::Failed => self.running_since = None,
        }
    }

    /// Whether what is known of it is younger than a moment.
    pub(super) fn is_younger(&self, than: UnixSeconds, now: Now) -> bool {
        self.since > than && !is_of_the_future(self.since, now)
    }

    /// Counts an end once, however often and by whichever message it is told.
    fn note_exit(&mut self, to: &Entering<'_>, now: Now) {
        let Some(exit) = to.exit else { return };
        if !to.last_lines.is_empty() {
            self.last_lines = to.last_lines.to_vec();
        }
        let is_known = |known: &Exit| exit.at == known.at;
        let is_older = |known: &Exit| exit.at < known.at && !is_of_the_future(known.at, now);
        if let Some(known) = &self.exit
            && (is_known(known) || is_older(known))
        {
            return;
        }
        self.exit = Some(exit.clone());
        let unexpected =
            matches!(to.state, InstanceState::Backoff | InstanceState::Failed) || to.restarted;
        if unexpected {
            self.exits += 1;
            self.recovering = true;
        }
        if to.last_lines.is_empty() {
            self.last_lines.clear();
        }
    }
}

/// Whether a moment is of a clock that was set back since. The orchestrator's clock is ours, or nearly.
fn is_of_the_future(at: UnixSeconds, now: Now) -> bool {
    at > now.unix + CLOCKS_DIFFER_S
}
