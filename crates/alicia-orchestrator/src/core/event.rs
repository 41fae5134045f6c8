//! What the core hears and what it wants done. Data only.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::fleet::{Fleet, Probe, ServiceSpec};
use alicia_contract::orchestrator::{
    Exit, FleetAnswer, InstanceState, LimitHeld, Spent, Transition,
};
use alicia_contract::{Epoch, InstanceId, ServiceName, UnixSeconds};

use super::budget::Account;
use super::cause::Said;
use super::digest::Digest;
use super::plan::{Overrides, Plan, Selection};

/// One slot of a service, numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId {
    /// The service.
    pub service: ServiceName,
    /// The number.
    pub slot: u32,
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.service, self.slot)
    }
}

/// The time of an event, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Now {
    /// Since any fixed moment; never goes back. Decides.
    pub monotonic: Duration,
    /// The wall clock: shown, and compared with moments that others name (the end of a provider's limit, of a day).
    /// It may be set to any other time.
    pub unix: UnixSeconds,
}

/// What the core remembers from an earlier life, read from the store.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// What is known of each slot.
    pub slots: BTreeMap<SlotId, Remembered>,
    /// What people asked for beside the file.
    pub overrides: BTreeMap<ServiceName, Overrides>,
    /// What was used up today, of services with a budget.
    pub accounts: BTreeMap<ServiceName, Account>,
}

/// What is remembered of one slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Remembered {
    /// The highest epoch that was used.
    pub epoch: Epoch,
    /// The run that the rest is about.
    pub instance: Option<InstanceId>,
    /// Where it was.
    pub state: InstanceState,
    /// Since when.
    pub since: UnixSeconds,
    /// Restarts so far.
    pub restarts: u32,
    /// How the last run ended.
    pub exit: Option<Exit>,
    /// Why it was there.
    pub reason: String,
    /// When it was to be started next.
    pub next_start: Option<UnixSeconds>,
    /// The digest of the settings that the run was started with.
    pub digest: Digest,
}

/// A run as the keeper lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The run.
    pub instance: InstanceId,
    /// Its slot; none when its labels cannot be read.
    pub slot: Option<SlotId>,
    /// Its epoch.
    pub epoch: Epoch,
    /// The digest of the settings that it was started with.
    pub digest: Digest,
    /// The process id of the leader.
    pub pid: u32,
    /// How its process tree is held.
    pub containment: String,
    /// Its ports.
    pub ports: BTreeMap<ServiceName, u16>,
    /// Where it is.
    pub state: FoundState,
    /// Whether no process of it is left.
    pub empty: bool,
    /// How long ago it was started.
    pub age: Duration,
    /// What holds its limits.
    pub limits: Vec<LimitHeld>,
    /// What it last said on its notify socket, by name.
    pub said: BTreeMap<String, String>,
}

/// Where a listed run is.
#[derive(Debug, Clone, PartialEq)]
pub enum FoundState {
    /// The leader lives.
    Running,
    /// The leader was asked to end and lives.
    Stopping,
    /// The leader has ended.
    Exited {
        /// How.
        exit: Exit,
        /// Whether it was asked to.
        requested: bool,
    },
}

/// A process that runs now.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// The process id of the leader.
    pub pid: u32,
    /// How its process tree is held.
    pub containment: String,
    /// What holds its limits.
    pub limits: Vec<LimitHeld>,
    /// Its ports.
    pub ports: BTreeMap<ServiceName, u16>,
}

/// Why a process could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpawnFault {
    /// It will fail the same way again until a person changes something: a program that is not there.
    Lasting(String),
    /// It may go away by itself: a port that is taken, no memory.
    Passing(String),
}

/// Which of the two probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Turns `starting` into `running`. Ends when it is good.
    Readiness,
    /// Ends an instance when it is bad. Begins when the instance is ready.
    Liveness,
}

/// What a probe says, after its thresholds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Good.
    Good,
    /// Bad, and why.
    Bad(String),
}

/// What a run tells of its work: counters that only rise, since its start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counters {
    /// Steps.
    pub steps: Option<f64>,
    /// Tokens.
    pub tokens: Option<f64>,
    /// US dollars.
    pub cost_usd: Option<f64>,
    /// What it does now.
    pub action: Option<String>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The file, or what it selects, changed.
    Desired(Arc<Fleet>, Selection),
    /// The keeper is there, and these are all its runs.
    KeeperSynced(Vec<Found>),
    /// The connection to the keeper is gone. [`Event::KeeperSynced`] follows when it is back.
    KeeperLost,
    /// A process runs. Also for runs that nobody asked for.
    Spawned(InstanceId, Process),
    /// A process could not be started.
    SpawnFailed(InstanceId, SpawnFault),
    /// A leader ended.
    Exited {
        /// Whose.
        instance: InstanceId,
        /// How.
        exit: Exit,
        /// Whether no process of the tree is left; else [`Event::Emptied`] follows.
        empty: bool,
        /// What its last lines say of the cause, where they were read.
        output: Option<Said>,
    },
    /// A run said something on its notify socket; see [`super::notice`].
    Notified(InstanceId, BTreeMap<String, String>),
    /// A run told of its work over the bus.
    Counted(InstanceId, Counters),
    /// Somebody who meters told what was spent.
    Spent(Spent),
    /// No process of a run is left.
    Emptied {
        /// Whose.
        instance: InstanceId,
        /// How many had to be killed by force.
        killed: u32,
    },
    /// A probe changed its mind.
    Probed(InstanceId, Role, Verdict),
    /// Health says since then that an instance does not work, and why.
    Ill(SlotId, UnixSeconds, String),
    /// Somebody connects to a service that runs on demand.
    Called(ServiceName),
    /// Nobody has been connected to a service on demand for its idle time.
    Idle(ServiceName),
    /// Scaling decided on a number of instances.
    Scaled(ServiceName, u32),
    /// [`super::Core::next_timer`] is due.
    TimerFired,
    /// A person or program asks for something.
    Command {
        /// Comes back in [`Action::Answer`].
        request: u64,
        /// What, resolved against the fleet.
        plan: Plan,
        /// Who, and why: shown as the reason of what follows.
        reason: String,
    },
    /// Stop everything, in reverse order, for good.
    Shutdown,
    /// The time for [`Event::Shutdown`] is over: kill what is left.
    ShutdownOverdue,
}

/// A process to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Spawn {
    /// Where.
    pub slot: SlotId,
    /// The new run.
    pub instance: InstanceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The settings.
    pub spec: Arc<ServiceSpec>,
    /// Their digest.
    pub digest: Digest,
    /// Whether it follows a run that did not end with success.
    pub resume: bool,
}

/// What is to be done. The order matters only among the actions of one instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start a process; answered by [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn(Box<Spawn>),
    /// Ask a run to end, and kill what is left after `grace`; answered by [`Event::Emptied`]. A second
    /// one may shorten the first.
    Stop {
        /// Which.
        instance: InstanceId,
        /// The signal that asks.
        signal: i32,
        /// How long it may take.
        grace: Duration,
    },
    /// Nothing of this run is left: let its record, its credentials and its ports go.
    Forget(InstanceId),
    /// Run a probe on an instance.
    Watch {
        /// Which.
        instance: InstanceId,
        /// Where.
        slot: SlotId,
        /// What for.
        role: Role,
        /// The probe.
        probe: Box<Probe>,
        /// How long the process has run already.
        age: Duration,
    },
    /// End all probes of an instance.
    Unwatch(InstanceId),
    /// Send a signal to the whole tree of a run.
    Signal {
        /// Which.
        instance: InstanceId,
        /// The signal.
        signal: i32,
    },
    /// Ask a service on the bus to save its work.
    Checkpoint(SlotId, InstanceId),
    /// Write down what a service has used up.
    Account(ServiceName, Box<Account>),
    /// Write down and publish.
    Record(Box<Record>),
    /// An update of a service is over, or turns back.
    Updated {
        /// Which.
        service: ServiceName,
        /// How.
        end: UpdateEnd,
        /// The slot that did not work, and the run in it.
        failed: Option<(u32, Option<InstanceId>)>,
    },
    /// Answer a command.
    Answer {
        /// The request of the command.
        request: u64,
        /// The answer.
        answer: FleetAnswer,
    },
}

/// How an update ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateEnd {
    /// Everything has the new settings.
    Done,
    /// It does not work, and the old settings come back; why.
    Reverting(String),
    /// The old settings are back; why.
    Reverted(String),
    /// It does not work, and is left as it is; why.
    Failed(String),
    /// The service was stopped on the way: its next start has the new settings.
    Stopped,
}

/// A transition, and what the store needs beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What is published.
    pub transition: Transition,
    /// The digest of the settings of the run.
    pub digest: Digest,
    /// How the last run of the slot ended, also when that is not what is published.
    pub exit: Option<Exit>,
    /// When the run began, in microseconds since 1970: what is older in its log was said by others. The shell knows it;
    /// none: it never had a process.
    pub began_unix_us: Option<u64>,
}
