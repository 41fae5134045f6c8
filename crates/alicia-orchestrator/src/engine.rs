//! The one task that owns the core: it hears, asks the core, and does what the core says.
//!
//! ```text
//!  keeper ──events──►┐                    ┌──► start, stop, forget ──► keeper     (at once)
//!  commands ────────►│  queue ──► core ───┤──► probes
//!  probes, timers ──►┘                    ├──► records ──► store, transitions     (follow behind)
//!                                         └──► status, at most every 50 ms
//! ```
//!
//! The way from the end of a process to its next start is: keeper's event, core, keeper's request. It
//! waits for neither the bus nor the database: these hear of it through bounded queues.

mod accounts;
mod act;
mod began;
mod confine;
mod container;
pub(crate) mod convert;
pub(crate) mod deployment;
pub(crate) mod environment;
mod hear;
pub(crate) mod launch;
mod link;
pub(crate) mod on_demand;
mod ports;
mod probes;
mod reach;
pub(crate) mod record;
pub(crate) mod scaling;
mod secrets;
mod session;
mod sockets;
pub(crate) mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::fleet::Fleet;
use alicia_contract::orchestrator::{FleetAnswer, FleetStatus, Spent};
use alicia_contract::{InstanceId, ServiceName};
use alicia_keeper::protocol;
use alicia_keeper::{Client, Events};
use alicia_module::Context;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::core::event::{Counters, Event, Memory, Now, Role, SlotId, SpawnFault, Verdict};
use crate::core::plan::{Plan, Selection};
use crate::deploy::{Known, Opening, Told};
use crate::metrics::Counts;
use began::Began;
use hear::Held;
use launch::Surroundings;
use link::Linked;
use ports::Ports;
use usage::{Subject, Usages};

/// What waits for the core: probes that change their mind, answers of the keeper, commands. A fleet of 1,000
/// whose probes all change at once fits.
const INPUTS_MAX: usize = 4_096;

/// Inputs that are taken between two looks at the keeper's events.
const INPUTS_PER_TURN: usize = 256;

/// How often the status is published at most: people do not see more, and 1,000 instances make a large one.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);

/// How often it is looked whether what somebody waits for has come to rest: often enough for people, and
/// not after each of the thousands of events of a large start.
const SETTLE_INTERVAL: Duration = Duration::from_millis(10);

/// A sleep without end, in practice.
const LONG: Duration = Duration::from_secs(3_600);

/// What the engine hears, beside the keeper's events.
#[derive(Debug)]
pub(crate) enum Input {
    /// The file, or what it selects, changed.
    Desired(Arc<Fleet>, Selection),
    /// There is a connection to the keeper.
    Linked(Box<Linked>),
    /// A process could not be started.
    SpawnFailed(InstanceId, SpawnFault),
    /// The keeper does not know this run (any more).
    Unknown(InstanceId),
    /// A probe changed its mind.
    Probed(InstanceId, Role, Verdict),
    /// A run told of its work over the bus.
    Counted(InstanceId, Counters),
    /// Somebody who meters told what was spent.
    Spent(Spent),
    /// A new version of the fleet, which is written down already.
    Deploy {
        number: u64,
        fleet: Arc<Fleet>,
        services: Vec<ServiceName>,
    },
    /// What is known of each service.
    Known(oneshot::Sender<Known>),
    /// Health says since then that an instance does not work.
    Ill(SlotId, f64, String),
    /// The services on demand that run.
    Awake(oneshot::Sender<Vec<on_demand::Awake>>),
    /// Nobody has been connected to a service on demand for its idle time.
    Idle(ServiceName),
    /// The sockets of a service on demand could not be watched.
    Unwatched(ServiceName),
    /// The services whose number of instances follows their load.
    Scalable(oneshot::Sender<Vec<scaling::Scaled>>),
    /// Scaling decided on a number of instances.
    Scaled(ServiceName, u32),
    /// A command, which is written down already.
    Command {
        plan: Plan,
        reason: String,
        reply: oneshot::Sender<FleetAnswer>,
    },
    /// Answer when these services have come to rest.
    Settle(Vec<ServiceName>, oneshot::Sender<Arc<FleetStatus>>),
    /// The status as of now.
    Status(oneshot::Sender<Arc<FleetStatus>>),
    /// What runs, for the sampler of resources.
    Subjects(oneshot::Sender<Vec<Subject>>),
    /// Stop everything; answer with what had to be killed by force.
    Shutdown(oneshot::Sender<Vec<Killed>>),
    /// The time for it is over.
    ShutdownOverdue,
}

/// An instance of which processes had to be killed by force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Killed {
    pub(crate) instance: String,
    pub(crate) processes: u32,
}

/// Speaks to the engine. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    inputs: mpsc::Sender<Input>,
    /// The last published status.
    pub(crate) published: watch::Receiver<Arc<FleetStatus>>,
    /// The client of the keeper, while there is one.
    pub(crate) keeper: watch::Receiver<Option<Client>>,
    /// Why there is no keeper.
    pub(crate) trouble: watch::Receiver<Option<String>>,
    /// To be set before the keeper is asked to end, so that it is not started again.
    pub(crate) closing: CancellationToken,
}

/// The engine has ended.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("reach the orchestrator: it has ended")]
pub(crate) struct Ended;

/// The task's state.
pub(crate) struct Engine {
    cx: Context,
    core: Core,
    /// What was remembered, and of which keeper, until the first connection.
    memory: Option<(Memory, Option<u64>)>,
    desired: (Arc<Fleet>, Selection),
    origin: Instant,
    revision_base: u64,
    inputs: mpsc::Receiver<Input>,
    inputs_in: mpsc::Sender<Input>,
    client: Option<Client>,
    events: Option<Events>,
    renew: Arc<Notify>,
    keeper: watch::Sender<Option<Client>>,
    surroundings: Arc<Surroundings>,
    held: BTreeMap<InstanceId, Held>,
    began: Began,
    ports: Ports,
    probes: BTreeMap<InstanceId, CancellationToken>,
    records: record::Sender,
    counts: Arc<Counts>,
    spawned_at: BTreeMap<InstanceId, Instant>,
    answers: BTreeMap<u64, oneshot::Sender<FleetAnswer>>,
    last_request: u64,
    settling: Vec<(Vec<ServiceName>, oneshot::Sender<Arc<FleetStatus>>)>,
    settle_looked: Option<Instant>,
    closing: Option<oneshot::Sender<Vec<Killed>>>,
    killed: Vec<Killed>,
    usages: watch::Receiver<Arc<Usages>>,
    published: watch::Sender<Arc<FleetStatus>>,
    published_revision: u64,
    publish_at: Option<Instant>,
    /// What was good before a deployment that the last host left under way.
    base: Option<Arc<Fleet>>,
    rollout: Option<deployment::Rollout>,
    told: mpsc::Sender<Told>,
    /// Sockets that the keeper may hold for us.
    sockets: BTreeSet<String>,
    /// Services on demand whose sockets are watched, with these.
    watched: BTreeMap<ServiceName, Vec<String>>,
    accounts: accounts::Sender,
    /// Which keeper it is, by the time of its start.
    keeper_started: Option<u64>,
}

/// What an engine is made of.
pub(crate) struct Parts {
    pub(crate) cx: Context,
    pub(crate) memory: (Memory, Option<u64>),
    pub(crate) opening: Opening,
    pub(crate) selection: Selection,
    /// Hears what becomes of deployments.
    pub(crate) told: mpsc::Sender<Told>,
    pub(crate) records: record::Sender,
    pub(crate) counts: Arc<Counts>,
}

// === impl Handle ===

impl Handle {
    pub(crate) async fn send(&self, input: Input) -> Result<(), Ended> {
        self.inputs.send(input).await.map_err(|_| Ended)
    }

    /// Sends an input and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        input: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(input(reply)).await?;
        answer.await.map_err(|_| Ended)
    }
}

// === impl Engine ===

impl Engine {
    /// Makes the engine and starts its tasks.
    pub(crate) fn start(parts: Parts) -> Handle {
        let Parts {
            cx,
            memory,
            opening,
            selection,
            told,
            records,
            counts,
        } = parts;
        let (inputs_in, inputs) = mpsc::channel(INPUTS_MAX);
        let (published, published_out) = watch::channel(Arc::default());
        let (keeper, keeper_out) = watch::channel(None);
        let trouble = watch::Sender::new(Some("the keeper is not connected yet".to_owned()));
        let renew = Arc::new(Notify::new());
        let handle = Handle {
            inputs: inputs_in.clone(),
            published: published_out,
            keeper: keeper_out,
            trouble: trouble.subscribe(),
            closing: CancellationToken::new(),
        };
        let link = link::Link {
            directory: cx.paths.keeper(),
            program: cx.program.clone(),
            inputs: inputs_in.clone(),
            renew: renew.clone(),
            trouble,
            closing: handle.closing.clone(),
            addresses: cx.addresses.clone(),
            clock: cx.clock.clone(),
        };
        cx.spawn("keeper", link.run());
        let usages = usage::start(&cx, handle.clone());
        let mut engine = Self {
            core: Core::new(Memory::default(), cx.seed),
            memory: Some(memory),
            desired: (opening.fleet, selection),
            origin: cx.clock.now(),
            revision_base: u64::try_from(cx.clock.unix_us()).unwrap_or_default(),
            inputs,
            inputs_in,
            client: None,
            events: None,
            renew,
            keeper,
            surroundings: Arc::new(Surroundings {
                clock: cx.clock.clone(),
                base: environment::base(&cx.program),
                program: cx.program.clone(),
                paths: cx.paths.clone(),
                identity: cx.identity.clone(),
                addresses: cx.addresses.clone(),
                external_bus: cx.external_bus.clone(),
            }),
            held: BTreeMap::new(),
            began: Began::default(),
            ports: Ports::default(),
            probes: BTreeMap::new(),
            records,
            counts,
            spawned_at: BTreeMap::new(),
            answers: BTreeMap::new(),
            last_request: 0,
            settling: Vec::new(),
            settle_looked: None,
            closing: None,
            killed: Vec::new(),
            usages,
            published,
            published_revision: 0,
            publish_at: None,
            base: opening.base,
            rollout: None,
            told,
            sockets: BTreeSet::new(),
            watched: BTreeMap::new(),
            accounts: accounts::start(&cx),
            keeper_started: None,
            cx: cx.clone(),
        };
        if let Some((number, services)) = opening.under_way {
            engine.begin_rollout(number, services);
        }
        cx.spawn("engine", engine.run());
        handle
    }

    async fn run(mut self) {
        let (fleet, selection) = self.desired.clone();
        self.tell(Event::Desired(fleet, selection));
        loop {
            self.fire_timers();
            self.after();
            let wake = self.wake();
            tokio::select! {
                biased;
                event = next_event(&mut self.events) => self.hear(event),
                input = self.inputs.recv() => match input {
                    Some(input) => self.take_inputs(input),
                    None => return,
                },
                // Timers, and what is to be published, are looked at in each turn.
                () = sleep_until(wake) => {}
                Ok(()) = self.usages.changed() => self.usage_changed(),
            }
        }
    }

    fn take_inputs(&mut self, first: Input) {
        self.take(first);
        for _ in 1..INPUTS_PER_TURN {
            match self.inputs.try_recv() {
                Ok(input) => self.take(input),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Desired(fleet, selection) => {
                self.desired = (fleet.clone(), selection.clone());
                self.tell(Event::Desired(fleet, selection));
            }
            Input::Linked(linked) => self.linked(*linked),
            Input::SpawnFailed(instance, fault) => {
                self.spawned_at.remove(&instance);
                self.counts.spawn_failed();
                self.tell(Event::SpawnFailed(instance, fault));
            }
            Input::Unknown(instance) => {
                self.held.remove(&instance);
                self.tell(Event::Emptied {
                    instance,
                    killed: 0,
                });
            }
            Input::Probed(instance, role, verdict) => {
                self.tell(Event::Probed(instance, role, verdict));
            }
            Input::Counted(instance, counters) => self.tell(Event::Counted(instance, counters)),
            Input::Spent(spent) => self.tell(Event::Spent(spent)),
            Input::Deploy {
                number,
                fleet,
                services,
            } => self.deploy(deployment::Deploying {
                number,
                fleet,
                services,
            }),
            Input::Known(reply) => drop(reply.send(self.known())),
            Input::Ill(slot, since, why) => self.tell(Event::Ill(slot, since, why)),
            Input::Awake(reply) => drop(reply.send(self.awake())),
            Input::Idle(service) => self.tell(Event::Idle(service)),
            Input::Unwatched(service) => {
                self.watched.remove(&service);
                self.tidy_sockets();
            }
            Input::Scalable(reply) => drop(reply.send(self.scaled())),
            Input::Scaled(service, instances) => self.tell(Event::Scaled(service, instances)),
            Input::Command {
                plan,
                reason,
                reply,
            } => self.take_command(plan, reason, reply),
            Input::Settle(services, reply) => self.settling.push((services, reply)),
            // Whoever asked may have gone away: then nobody wants the answer.
            Input::Status(reply) => drop(reply.send(self.status())),
            Input::Subjects(reply) => drop(reply.send(self.subjects())),
            Input::Shutdown(reply) => {
                self.closing = Some(reply);
                self.tell(Event::Shutdown);
            }
            Input::ShutdownOverdue => self.tell(Event::ShutdownOverdue),
        }
    }

    fn take_command(&mut self, plan: Plan, reason: String, reply: oneshot::Sender<FleetAnswer>) {
        if let Some((memory, _)) = &mut self.memory {
            for (service, set) in plan.overrides(&self.desired.0) {
                memory.overrides.entry(service).or_default().merge(set);
            }
        }
        self.last_request += 1;
        let request = self.last_request;
        self.answers.insert(request, reply);
        self.tell(Event::Command {
            request,
            plan,
            reason,
        });
    }

    /// A flood of events must not hold back what is due.
    fn fire_timers(&mut self) {
        let due = self.core.next_timer().map(|at| self.origin + at);
        if due.is_some_and(|at| at <= self.cx.clock.now()) {
            self.tell(Event::TimerFired);
        }
    }

    /// Asks the core, and does what it says.
    fn tell(&mut self, event: Event) {
        let now = Now {
            monotonic: self.cx.clock.now() - self.origin,
            unix: self.cx.clock.unix(),
        };
        for action in self.core.handle(event, now) {
            self.act(action);
        }
    }

    /// After each turn: who waits for rest, what is to be published.
    fn after(&mut self) {
        self.answer_settled();
        self.look_at_rollout();
        if self.closing.is_some() && self.core.is_quiet() {
            let killed = std::mem::take(&mut self.killed);
            if let Some(reply) = self.closing.take() {
                drop(reply.send(killed));
            }
        }
        let now = self.cx.clock.now();
        if self.core.revision() != self.published_revision && self.publish_at.is_none() {
            self.publish_at = Some(now + PUBLISH_INTERVAL);
        }
        if self.publish_at.is_some_and(|at| at <= now) {
            self.publish();
        }
    }

    fn answer_settled(&mut self) {
        if self.settling.is_empty() || self.memory.is_some() {
            return;
        }
        let now = self.cx.clock.now();
        if self
            .settle_looked
            .is_some_and(|last| now - last < SETTLE_INTERVAL)
        {
            return;
        }
        self.settle_looked = Some(now);
        let (core, now) = (&self.core, now - self.origin);
        let is_settled = |services: &[ServiceName]| core.is_settled(services, now);
        let (settled, waiting) = std::mem::take(&mut self.settling)
            .into_iter()
            .filter(|(_, reply)| !reply.is_closed())
            .partition::<Vec<_>, _>(|(services, _)| is_settled(services));
        self.settling = waiting;
        for (_, reply) in settled {
            drop(reply.send(self.status()));
        }
    }

    fn publish(&mut self) {
        self.publish_at = None;
        self.published_revision = self.core.revision();
        self.published.send_replace(self.status());
        let core = &self.core;
        self.ports.retain(|slot| core.has_slot(slot));
        self.began.retain(|slot| core.has_slot(slot));
        self.tidy_sockets();
    }

    fn usage_changed(&mut self) {
        self.publish_at.get_or_insert(self.cx.clock.now());
    }

    fn status(&self) -> Arc<FleetStatus> {
        let mut status = self.core.status(self.cx.clock.unix());
        status.revision += self.revision_base;
        self.usages.borrow().put_into(&mut status);
        Arc::new(status)
    }

    fn subjects(&self) -> Vec<Subject> {
        let subject = |(instance, held): (&InstanceId, &Held)| Subject {
            instance: instance.clone(),
            pid: held.pid,
            cgroup: held.cgroup.clone(),
        };
        self.held.iter().map(subject).collect()
    }

    fn wake(&self) -> Instant {
        let timer = self.core.next_timer().map(|at| self.origin + at);
        let look = (!self.settling.is_empty()).then(|| self.cx.clock.now() + SETTLE_INTERVAL);
        let rollout = self.next_look().filter(|_| self.client.is_some());
        let others = self.publish_at.into_iter().chain(look).chain(rollout);
        let next = timer.into_iter().chain(others).min();
        next.unwrap_or_else(|| self.cx.clock.now() + LONG)
    }
}

/// Without a connection nothing is heard.
async fn next_event(events: &mut Option<Events>) -> Option<protocol::Event> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}
