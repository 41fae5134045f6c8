//! The decisions of the monitor, pure: `(state, event, now) -> (state, actions)`.
//!
//! ```text
//!  orchestrator ─┐                                                            ┌─▶ alerts
//!  heartbeats ───┼─▶ what is known (watch) ─▶ judge ─▶ conditions ─▶ book ────┤
//!  probes ───────┘            ▲                                               └─▶ status
//!                      tick ──┘  time alone changes things too: overdue, settled, held up
//! ```
//!
//! Nothing here waits for a database or a network. When the monitor itself was held up (overload, suspend,
//! a jump of the clock), what it knew before counts no more: states are `unknown` until fresh evidence
//! comes, or until it was punctual for [`Settings::settle`] and heard nothing to the contrary.

pub mod agents;
pub mod alerts;
pub mod breaker;
pub mod conditions;
pub mod cron;
pub mod desk;
pub mod escalate;
pub mod evidence;
pub mod external;
pub mod flap;
pub mod group;
pub mod judge;
pub mod maintenance;
pub mod matcher;
pub mod phi;
pub mod report;
pub mod silence;
pub mod slot;
mod stall;
pub mod suppress;
mod take;
pub mod told;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::discovery::ServiceInstances;
use alicia_contract::fleet::{AgentLimits, Fleet};
use alicia_contract::health::{Acknowledgement, Alert, HealthState, Heartbeat};
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::orchestrator::{FleetStatus, InstanceState, Transition};
use alicia_contract::unit::UnixSeconds;

use alerts::{Book, Change, Gate};
use breaker::{Breakers, RestartLimits};
use conditions::{Condition, Key, conditions};
use evidence::Try;
use flap::FlapLimits;
use judge::{is_bad, judge};
use slot::Slot;
use suppress::Root;
use told::Told;
use watch::Watch;

/// A moment on both clocks: one for people and records, one for waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Now {
    /// Wall time.
    pub unix: UnixSeconds,
    /// Monotonic time since some fixed start.
    pub mono: Duration,
}

/// The spans and thresholds that the monitor works with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How long nothing of a service must work before `service_down` fires.
    pub down_after: Duration,
    /// How long a condition must be over before its alert is resolved.
    pub stable_after: Duration,
    /// How long after an alert a root that is found is still its cause.
    pub hold_back: Duration,
    /// When the monitor asks for restarts; none: never.
    pub auto_restart: Option<RestartLimits>,
    /// How many announced intervals without a heartbeat make it overdue.
    pub heartbeat_intervals: u32,
    /// How long a last will may stand before it counts.
    pub offline_after: Duration,
    /// When changes count as flapping.
    pub flap: FlapLimits,
    /// A tick that comes later than this shows that the monitor was held up.
    pub stall: Duration,
    /// How long it must be punctual again before old pictures count again.
    pub settle: Duration,
    /// The limits of the work of agents that have none of their own.
    pub agents: AgentLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            down_after: Duration::from_secs(10),
            stable_after: Duration::from_secs(10),
            hold_back: Duration::from_secs(20),
            auto_restart: None,
            heartbeat_intervals: 3,
            offline_after: Duration::from_secs(2),
            flap: FlapLimits::default(),
            stall: Duration::from_millis(1_500),
            settle: Duration::from_secs(5),
            agents: AgentLimits::default(),
        }
    }
}

/// All that can happen to the monitor.
#[derive(Debug, Clone)]
pub enum Event {
    /// What should run.
    Fleet(Arc<Fleet>),
    /// The orchestrator's whole picture.
    Status(Box<FleetStatus>),
    /// One change in it.
    Transition(Box<Transition>),
    /// What the registry lists of a service.
    Registered(Box<ServiceInstances>),
    /// The registry lists nothing of it any more.
    Unregistered(ServiceName),
    /// A heartbeat that was read without fault.
    Heartbeat(Box<Heartbeat>),
    /// One that was not, and why; on the topic of this service.
    BadHeartbeat(ServiceName, String),
    /// A check was tried.
    Tried(Box<Tried>),
    /// The connection to the bus came or went.
    Link(Link),
    /// Somebody took note of an alert, or takes it back.
    Acknowledge(String, Option<Acknowledgement>),
    /// Something is wrong that is told from elsewhere; with how long it holds unless it is told again.
    Tell(Box<Condition>, Option<Duration>),
    /// What was told from elsewhere is over.
    Untell(Key),
    /// Time passed.
    Tick,
}

/// The connection to the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// There.
    Up,
    /// Not there: nothing is heard.
    Down,
}

/// A check was tried on an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// The service.
    pub service: ServiceName,
    /// The slot.
    pub slot: u32,
    /// The run.
    pub instance: InstanceId,
    /// The check, as in the file.
    pub check: ServiceName,
    /// The result.
    pub result: Try,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Keep the alert, and tell it when it is news.
    Alert(Box<Change>),
    /// The judgement of some service changed: tell the picture.
    Changed,
    /// A service turned into another state: a line of its history.
    Turned(Turn),
    /// Ask this service for a heartbeat: something is wrong with it.
    Ask(ServiceName),
    /// Ask the orchestrator to restart this service, and why.
    Restart(ServiceName, String),
    /// Other instances or checks are to be probed: see [`Monitor::targets`].
    Targets,
}

/// A service turned into another state.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// The service.
    pub service: ServiceName,
    /// The state that it has now.
    pub state: HealthState,
    /// Since when.
    pub at: UnixSeconds,
    /// Why.
    pub reason: String,
}

/// A check that is to be run on an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The service.
    pub service: ServiceName,
    /// The slot.
    pub slot: u32,
    /// The run.
    pub instance: InstanceId,
    /// The check, as in the file.
    pub check: ServiceName,
    /// The port of the service that is meant when the check names none.
    pub port: Option<u16>,
    /// Every port, by name.
    pub ports: BTreeMap<ServiceName, u16>,
    /// The number of its process.
    pub pid: Option<u32>,
    /// The epoch of the run.
    pub epoch: Epoch,
}

/// The monitor's state.
#[derive(Debug)]
pub struct Monitor {
    settings: Settings,
    watches: BTreeMap<ServiceName, Watch>,
    fleet: Arc<Fleet>,
    book: Book,
    told: Told,
    breakers: Breakers,
    picture: Option<(UnixSeconds, u64)>,
    link: Link,
    ticked: Option<Now>,
    /// Since when it is punctual again, while old pictures do not count.
    punctual_since: Option<Duration>,
    held_up: u64,
    stray_heartbeats: u64,
}

impl Monitor {
    /// A monitor that knows nothing yet. `seed` makes the ids of alerts of two runs differ.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            watches: BTreeMap::new(),
            fleet: Arc::default(),
            book: Book::new(settings.stable_after, settings.hold_back, seed),
            told: Told::default(),
            breakers: Breakers::default(),
            picture: None,
            link: Link::Up,
            ticked: None,
            punctual_since: None,
            held_up: 0,
            stray_heartbeats: 0,
        }
    }

    /// Takes an alert that fired before a restart.
    pub fn restore(&mut self, alert: Alert, now: Now) {
        if let Some(limits) = self.settings.auto_restart {
            self.breakers.restore(&alert, limits, now);
        }
        self.told.restore(&alert, now);
        self.book.restore(alert);
    }

    /// Decides on one event.
    pub fn apply(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        self.check_punctual(now, &mut actions);
        match event {
            Event::Fleet(fleet) => self.take_fleet(fleet, now, &mut actions),
            Event::Status(status) => self.take_status(&status, now, &mut actions),
            Event::Transition(change) => self.take_transition(&change, now, &mut actions),
            Event::Registered(listed) => self.take_registered(&listed, now, &mut actions),
            Event::Unregistered(service) => self.take_unregistered(&service, now, &mut actions),
            Event::Heartbeat(heartbeat) => self.take_heartbeat(&heartbeat, now, &mut actions),
            Event::BadHeartbeat(service, fault) => {
                self.count_bad(&service, fault, now, &mut actions);
            }
            Event::Tried(tried) => self.take_try(*tried, now, &mut actions),
            Event::Link(link) => self.take_link(link, now),
            Event::Acknowledge(id, by) => {
                actions.extend(self.book.acknowledge(&id, by).map(alert));
            }
            Event::Tell(condition, holds) => self.take_told(*condition, holds, now, &mut actions),
            Event::Untell(key) => {
                self.told.untell(&key);
                let changes = self.book.end_told(&key, now);
                actions.extend(changes.into_iter().map(alert));
            }
            Event::Tick => self.tick(now, &mut actions),
        }
        actions
    }

    /// The checks that are to be run now: those of every instance that is ready.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        self.watches.values().flat_map(targets_of).collect()
    }

    /// What is known of a service.
    #[must_use]
    pub fn watch(&self, service: &str) -> Option<&Watch> {
        self.watches.get(service)
    }

    /// What is known of every service.
    pub fn watches(&self) -> impl Iterator<Item = &Watch> {
        self.watches.values()
    }

    /// The alerts.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// How often the monitor was held up.
    #[must_use]
    pub fn times_held_up(&self) -> u64 {
        self.held_up
    }

    /// Heartbeats on topics of services that nobody knows.
    #[must_use]
    pub fn stray_heartbeats(&self) -> u64 {
        self.stray_heartbeats
    }

    /// Whether the orchestrator was heard.
    #[must_use]
    pub fn is_pictured(&self) -> bool {
        self.picture.is_some()
    }

    /// Judges a service anew and brings its alerts in line.
    fn look(&mut self, service: &ServiceName, now: Now, actions: &mut Vec<Action>) {
        let settings = self.settings;
        let Some(watch) = self.watches.get_mut(service) else {
            return;
        };
        for beat in watch.beats.values_mut() {
            beat.look(settings.offline_after, now);
        }
        let before = watch.judged.state;
        let changed = rejudge(watch, settings.flap, now);
        if watch.judged.state != before {
            let judged = &watch.judged;
            actions.push(Action::Turned(Turn {
                service: service.clone(),
                state: judged.state,
                at: judged.since,
                reason: judged.reason.clone(),
            }));
        }
        watch.note_bad(settings.stable_after, now);
        if changed {
            actions.push(Action::Changed);
            if is_bad(watch.judged.state) && !watch.beats.is_empty() {
                actions.push(Action::Ask(service.clone()));
            }
        }
        self.reconcile(service, now, actions);
    }

    fn reconcile(&mut self, service: &ServiceName, now: Now, actions: &mut Vec<Action>) {
        let Some(watch) = self.watches.get_mut(service) else {
            return;
        };
        if !has_evidence(watch) {
            return;
        }
        let flapping = watch.flap.is_on(self.settings.flap, now.mono);
        let mut found = conditions(watch, self.settings.down_after, now);
        if flapping {
            found.push(conditions::flapping(watch));
        }
        // Of most services nothing is wrong, and nobody is to blame for it.
        let root = if found.is_empty() {
            None
        } else {
            self.root_of(service, now)
        };
        let Some(watch) = self.watches.get(service) else {
            return;
        };
        let gate = gate_of(watch, root, flapping);
        let changes = self.book.reconcile(service, found, &gate, now);
        actions.extend(changes.into_iter().map(alert));
    }

    /// The service that is the cause of what is wrong with this one: it does not work, or did not a moment
    /// ago: those that depend on it need as long as any alert to settle.
    pub(crate) fn root_of(&self, service: &ServiceName, now: Now) -> Option<Root> {
        let bad_since = |name: &ServiceName| {
            let watch = self.watches.get(name)?;
            watch.bad_lately(self.settings.stable_after, now)
        };
        suppress::root_of(&self.fleet, service, bad_since)
    }

    /// What is told from elsewhere by this rule, and holds.
    #[must_use]
    pub fn told_keys(&self, rule: conditions::Rule) -> Vec<Key> {
        let keys = self.told.conditions().map(|condition| &condition.key);
        keys.filter(|key| key.rule == rule).cloned().collect()
    }

    /// Takes what is told from elsewhere.
    fn take_told(
        &mut self,
        condition: Condition,
        holds: Option<Duration>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if self.told.tell(condition.clone(), holds, now) {
            let gate = self.gate_of_told(&condition, now);
            let changes = self.book.take_told(condition, &gate, now);
            actions.extend(changes.into_iter().map(alert));
        }
    }

    fn gate_of_told(&self, condition: &Condition, now: Now) -> Gate {
        let service = &condition.key.service;
        let Some(watch) = self.watches.get(service) else {
            return Gate::default();
        };
        gate_of(watch, self.root_of(service, now), watch.flap.was_on())
    }

    /// Brings the alerts in line with all that is told from elsewhere.
    fn look_at_told(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.told.expire(now);
        let told = self.told.conditions().cloned();
        let conditions = told.map(|condition| {
            let gate = self.gate_of_told(&condition, now);
            (condition, gate)
        });
        let conditions = conditions.collect();
        let changes = self.book.reconcile_told(conditions, now);
        actions.extend(changes.into_iter().map(alert));
    }

    /// Asks for restarts of what is unhealthy, within limits.
    fn consider_restarts(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.forget_breakers();
        let Some(limits) = self.settings.auto_restart else {
            return;
        };
        if self.punctual_since.is_some() {
            return;
        }
        let names: Vec<ServiceName> = self.watches.keys().cloned().collect();
        for name in names {
            let Some(watch) = self.watches.get(&name) else {
                continue;
            };
            let is_sick = watch.judged.state == HealthState::Unhealthy;
            let root = is_sick.then(|| self.root_of(&name, now)).flatten();
            let patient = breaker::Patient {
                service: &name,
                state: watch.judged.state,
                since: watch.judged.since_mono,
                reason: &watch.judged.reason,
                root: root.map(|root| root.service),
            };
            if let Some(why) = self.breakers.look(&patient, limits, now) {
                actions.push(Action::Restart(name.clone(), why));
            }
            match self.breakers.condition(&name, limits) {
                // There are no more of them than services.
                Some(condition) => {
                    let _there_is_room = self.told.tell(condition, None, now);
                }
                None => self.told.untell(&breaker::key(&name)),
            }
        }
    }

    /// Of a service that is gone, or when the file asks for no restarts any more, there is no breaker to tell of.
    /// Before the orchestrator was heard nobody knows which services there are.
    fn forget_breakers(&mut self) {
        if self.picture.is_none() {
            return;
        }
        let (watches, asks) = (&self.watches, self.settings.auto_restart.is_some());
        let is_watched = |service: &ServiceName| asks && watches.contains_key(service);
        self.breakers.keep(is_watched);
        let told = self.told.conditions().map(|condition| &condition.key);
        let over: Vec<Key> = told
            .filter(|key| key.rule == conditions::Rule::RestartBreaker && !is_watched(&key.service))
            .cloned()
            .collect();
        over.iter().for_each(|key| self.told.untell(key));
    }
}

fn gate_of(watch: &Watch, root: Option<Root>, flapping: bool) -> Gate {
    Gate {
        root,
        flapping,
        wanted: wanted_slots(watch).next().is_some() || !watch.beats.is_empty(),
        instances: wanted_slots(watch)
            .map(|number| watch.label(number))
            .collect(),
    }
}

fn alert(change: Change) -> Action {
    Action::Alert(Box::new(change))
}

/// Slots that should run and were not given up.
fn wanted_slots(watch: &Watch) -> impl Iterator<Item = u32> {
    let at_rest = [
        InstanceState::Stopping,
        InstanceState::Stopped,
        InstanceState::Completed,
        InstanceState::Failed,
        InstanceState::Parked,
        InstanceState::Paused,
    ];
    let slots = watch
        .slots
        .iter()
        .filter(move |(_, slot)| !at_rest.contains(&slot.state));
    slots.map(|(number, _)| *number)
}

/// Whether anything is known that an alert may begin or end by.
fn has_evidence(watch: &Watch) -> bool {
    let stopped = !watch.slots.is_empty() && wanted_slots(watch).next().is_none();
    stopped || watch.judged.state != HealthState::Unknown
}

/// Whether the judgement changed.
fn rejudge(watch: &mut Watch, limits: FlapLimits, now: Now) -> bool {
    let (state, reason) = judge(watch);
    let before = watch.judged.state;
    if state == before {
        let changed = watch.judged.reason != reason;
        watch.judged.reason = reason;
        return changed;
    }
    let turned = is_bad(before) != is_bad(state) && before != HealthState::Unknown;
    // The way up from down goes through `starting`: of a restart only the fall counts.
    let on_the_way = before == HealthState::Down && state == HealthState::Starting;
    if turned && state != HealthState::Unknown && !on_the_way {
        watch.flap.change(limits, now.mono);
    }
    watch.judged = watch::Judged {
        state,
        since: now.unix,
        since_mono: now.mono,
        reason,
    };
    true
}

fn targets_of(watch: &Watch) -> Vec<Target> {
    let Some(spec) = &watch.spec else {
        return Vec::new();
    };
    let ready = watch
        .slots
        .iter()
        .filter(|(_, slot)| slot.state == InstanceState::Running);
    let runs = ready.filter_map(|(number, slot)| Some((*number, slot, slot.instance.clone()?)));
    runs.flat_map(|(number, slot, instance)| {
        let port = usual_port(slot);
        spec.checks.keys().map(move |check| Target {
            service: watch.service.clone(),
            slot: number,
            instance: instance.clone(),
            check: check.clone(),
            port,
            ports: slot.ports.clone(),
            pid: slot.pid,
            epoch: slot.epoch,
        })
    })
    .collect()
}

/// The port named `http`, or the only one.
fn usual_port(slot: &Slot) -> Option<u16> {
    let only = || {
        (slot.ports.len() == 1)
            .then(|| slot.ports.values().next().copied())
            .flatten()
    };
    slot.ports.get("http").copied().or_else(only)
}

#[cfg(test)]
mod tests;
