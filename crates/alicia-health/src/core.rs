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

pub mod alerts;
pub mod conditions;
pub mod evidence;
pub mod flap;
pub mod judge;
pub mod report;
pub mod slot;
mod stall;
mod take;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::discovery::ServiceInstances;
use alicia_contract::fleet::Fleet;
use alicia_contract::health::{Acknowledgement, Alert, HealthState, Heartbeat};
use alicia_contract::id::{InstanceId, ServiceName};
use alicia_contract::orchestrator::{FleetStatus, InstanceState, Transition};
use alicia_contract::unit::UnixSeconds;

use alerts::{Book, Change, Gate};
use conditions::conditions;
use evidence::Try;
use flap::FlapLimits;
use judge::{is_bad, judge};
use slot::Slot;
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
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            down_after: Duration::from_secs(10),
            stable_after: Duration::from_secs(10),
            heartbeat_intervals: 3,
            offline_after: Duration::from_secs(2),
            flap: FlapLimits::default(),
            stall: Duration::from_millis(1_500),
            settle: Duration::from_secs(5),
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
    /// Somebody took note of an alert.
    Acknowledge(String, Acknowledgement),
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
    /// Ask this service for a heartbeat: something is wrong with it.
    Ask(ServiceName),
    /// Other instances or checks are to be probed: see [`Monitor::targets`].
    Targets,
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
}

/// The monitor's state.
#[derive(Debug)]
pub struct Monitor {
    settings: Settings,
    watches: BTreeMap<ServiceName, Watch>,
    fleet: Arc<Fleet>,
    book: Book,
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
            book: Book::new(settings.stable_after, seed),
            picture: None,
            link: Link::Up,
            ticked: None,
            punctual_since: None,
            held_up: 0,
            stray_heartbeats: 0,
        }
    }

    /// Takes an alert that fired before a restart.
    pub fn restore(&mut self, alert: Alert) {
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
            Event::BadHeartbeat(service, fault) => self.count_bad(&service, fault),
            Event::Tried(tried) => self.take_try(*tried, now, &mut actions),
            Event::Link(link) => self.take_link(link, now),
            Event::Acknowledge(id, by) => {
                actions.extend(self.book.acknowledge(&id, by).map(alert));
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
        let changed = rejudge(watch, settings.flap, now);
        if is_bad(watch.judged.state) {
            watch.bad_last = Some(now.mono);
        }
        if changed {
            actions.push(Action::Changed);
            if is_bad(watch.judged.state) && !watch.beats.is_empty() {
                actions.push(Action::Ask(service.clone()));
            }
        }
        self.reconcile(service, now, actions);
    }

    fn reconcile(&mut self, service: &ServiceName, now: Now, actions: &mut Vec<Action>) {
        let root = self.root_of(service, now);
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
        let gate = Gate {
            root,
            flapping,
            wanted: wanted_slots(watch).next().is_some() || !watch.beats.is_empty(),
            instances: wanted_slots(watch)
                .map(|number| watch.label(number))
                .collect(),
        };
        let changes = self.book.reconcile(service, found, &gate, now);
        actions.extend(changes.into_iter().map(alert));
    }

    /// The nearest service that this one depends on, directly or not, that does not work, or did not a
    /// moment ago: those that depend on it need as long as any alert to settle.
    pub(crate) fn root_of(&self, service: &ServiceName, now: Now) -> Option<ServiceName> {
        let lately = |bad: Duration| now.mono.saturating_sub(bad) < self.settings.stable_after;
        let is_root = |watch: &Watch| watch.bad_last.is_some_and(lately);
        let mut seen = vec![service];
        let mut at = 0;
        while let Some(name) = seen.get(at).copied() {
            at += 1;
            let spec = self.fleet.services.get(name);
            for needed in spec.into_iter().flat_map(|spec| spec.depends_on.0.keys()) {
                if seen.contains(&needed) {
                    continue;
                }
                if self.watches.get(needed).is_some_and(is_root) {
                    return Some(needed.clone());
                }
                seen.push(needed);
            }
        }
        None
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
