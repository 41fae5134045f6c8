//! A model of the keeper and of the machine around the core: what runs, and what was asked of it.

mod rules;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::fleet::{Fleet, Probe};
use alicia_contract::orchestrator::{Exit, InstanceState, InstanceStatus, Transition, Verb};
use alicia_contract::{Epoch, InstanceId, ServiceName};
use serde_json::{Value, json};

use crate::core::Core;
use crate::core::cause::Said;
use crate::core::digest::Digest;
use crate::core::event::{
    Action, Event, Found, FoundState, Memory, Now, Process, Record, Remembered, Role, SlotId,
    Spawn, SpawnFault, UpdateEnd, Verdict,
};
use crate::core::plan::{Plan, PlanRequest, Selection};

/// A run in the model keeper.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) slot: SlotId,
    epoch: Epoch,
    digest: Digest,
    started: Duration,
    exit: Option<Exit>,
    pub(super) command: String,
    pub(super) children: bool,
    /// What it said on its notify socket.
    pub(super) said: BTreeMap<String, String>,
    asked_to_end: bool,
    /// It is held still.
    frozen: bool,
    /// Its readiness probe was good while it was asked.
    was_good: bool,
}

/// Holds a process still.
const SIGSTOP: i32 = 19;

impl Held {
    pub(super) fn lives(&self) -> bool {
        self.exit.is_none()
    }

    fn is_empty(&self) -> bool {
        self.exit.is_some() && !self.children
    }
}

/// The core, the model keeper, the clock.
#[derive(Debug)]
pub(super) struct World {
    pub(super) core: Core,
    pub(super) fleet: Fleet,
    pub(super) now: Duration,
    /// By how many seconds the wall clock was set, in all.
    pub(super) set_s: f64,
    pub(super) held: BTreeMap<InstanceId, Held>,
    /// Asked for, and not yet answered.
    pub(super) spawns: VecDeque<Spawn>,
    pub(super) watched: BTreeMap<InstanceId, BTreeSet<Role>>,
    /// With what each was asked last.
    pub(super) probes: BTreeMap<(InstanceId, Role), Probe>,
    pub(super) transitions: Vec<Transition>,
    /// What the store would hold.
    memory: Memory,
    pub(super) answers: u64,
    /// What the last lines of the next one to end say.
    pub(super) output: Option<Said>,
    /// Signals that were sent.
    pub(super) signals: Vec<(InstanceId, i32)>,
    /// How often somebody was asked to save its work.
    pub(super) checkpoints: u32,
    /// The ends of updates, by service.
    pub(super) updated: Vec<(String, UpdateEnd)>,
    /// Every spawn with its time; cleared per service by what gives it a clean slate.
    pub(super) starts: BTreeMap<SlotId, Vec<Duration>>,
    epochs: BTreeMap<SlotId, Epoch>,
    keeper: bool,
    /// Counts the hosts: each has its own randomness.
    lives: u64,
    /// Whether each event and what follows is printed.
    pub(super) is_told: bool,
}

pub(super) fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("a name")
}

pub(super) fn slot(service: &str, number: u32) -> SlotId {
    SlotId {
        service: name(service),
        slot: number,
    }
}

pub(super) fn fleet(services: Value) -> Fleet {
    serde_json::from_value(json!({ "name": "test", "services": services })).expect("a fleet")
}

fn exit_of(code: Option<i32>, at: Duration) -> Exit {
    let cause = code.map_or("killed by SIGKILL".into(), |code| {
        format!("exit code {code}")
    });
    let signal = code.is_none().then(|| "SIGKILL".to_owned());
    Exit {
        code,
        signal,
        cause,
        at: at.as_secs_f64(),
        ..Exit::default()
    }
}

impl World {
    /// A fleet of one service, `agent`, whose starts succeed.
    pub(super) fn agent(mut settings: Value) -> Self {
        settings["command"] = json!("agent");
        let mut world = Self::new(json!({ "agent": settings }));
        world.answer_spawns();
        world
    }

    /// A fleet, and a keeper that holds nothing.
    pub(super) fn new(services: Value) -> Self {
        let mut world = Self {
            core: Core::new(Memory::default(), 7),
            fleet: fleet(services),
            now: Duration::from_secs(1_000),
            set_s: 0.0,
            held: BTreeMap::new(),
            spawns: VecDeque::new(),
            watched: BTreeMap::new(),
            probes: BTreeMap::new(),
            transitions: Vec::new(),
            memory: Memory::default(),
            answers: 0,
            output: None,
            signals: Vec::new(),
            checkpoints: 0,
            updated: Vec::new(),
            starts: BTreeMap::new(),
            epochs: BTreeMap::new(),
            keeper: true,
            lives: 100,
            is_told: false,
        };
        world.desired();
        world.sync();
        world
    }

    pub(super) fn desired(&mut self) {
        for (id, starts) in &mut self.starts {
            if self.core.fleet().services.get(&id.service) != self.fleet.services.get(&id.service) {
                starts.clear();
            }
        }
        self.tell(Event::Desired(
            Arc::new(self.fleet.clone()),
            Selection::default(),
        ));
    }

    pub(super) fn sync(&mut self) {
        self.keeper = true;
        let now = self.now;
        let found = self
            .held
            .iter()
            .map(|(instance, held)| found(instance, held, now))
            .collect();
        self.tell(Event::KeeperSynced(found));
    }

    /// The wall clock.
    pub(super) fn unix(&self) -> f64 {
        self.now.as_secs_f64() + self.set_s
    }

    pub(super) fn tell(&mut self, event: Event) {
        let now = Now {
            monotonic: self.now,
            unix: self.unix(),
        };
        let told = self.is_told.then(|| format!("{event:?}"));
        let actions = self.core.handle(event, now);
        if let Some(event) = told {
            println!("{:>8.3} {event}\n         {actions:?}", now.unix);
        }
        for action in actions {
            self.take(action);
        }
        self.note_good();
        self.check();
    }

    fn take(&mut self, action: Action) {
        match action {
            Action::Spawn(spawn) => self.take_spawn(*spawn),
            Action::Stop { instance, .. } => {
                if let Some(held) = self.held.get_mut(&instance)
                    && self.keeper
                {
                    held.asked_to_end = true;
                }
            }
            Action::Forget(instance) => {
                let held = self.held.get(&instance);
                assert!(held.is_none_or(Held::is_empty), "a living run is forgotten");
                self.held.remove(&instance);
            }
            Action::Watch {
                instance,
                role,
                probe,
                ..
            } => {
                self.probes.insert((instance.clone(), role), *probe);
                self.watched.entry(instance).or_default().insert(role);
            }
            Action::Unwatch(instance) => drop(self.watched.remove(&instance)),
            Action::Record(record) => {
                self.remember(&record);
                self.transitions.push(record.transition);
            }
            Action::Signal { instance, signal } => {
                if let Some(held) = self.held.get_mut(&instance)
                    && self.keeper
                {
                    held.frozen = signal == SIGSTOP;
                }
                self.signals.push((instance, signal));
            }
            Action::Checkpoint(..) => self.checkpoints += 1,
            Action::Account(service, account) => {
                self.memory.accounts.insert(service, *account);
            }
            Action::Answer { .. } => self.answers += 1,
            Action::Updated { service, end, .. } => {
                // The house tells everybody what is in force.
                self.fleet = Fleet::clone(self.core.fleet());
                self.updated.push((service.to_string(), end));
            }
        }
    }

    fn take_spawn(&mut self, spawn: Spawn) {
        assert!(self.keeper, "a spawn without a keeper");
        if self.last_state(&spawn.slot) == Some(InstanceState::Backoff) {
            let starts = self.starts.entry(spawn.slot.clone()).or_default();
            starts.push(self.now);
            self.check_start_limit(&spawn);
        }
        self.check_dependencies(&spawn);
        self.spawns.push_back(spawn);
    }

    /// Where a slot was left by the last transition.
    fn last_state(&self, slot: &SlotId) -> Option<InstanceState> {
        let mut transitions = self.transitions.iter().rev();
        let last = transitions.find(|transition| slot_of(transition) == *slot)?;
        Some(last.to)
    }

    fn remember(&mut self, record: &Record) {
        let transition = &record.transition;
        let remembered = Remembered {
            epoch: transition.epoch,
            instance: transition.instance.clone(),
            state: transition.to,
            since: transition.at,
            restarts: transition.restarts,
            exit: record.exit.clone(),
            reason: transition.reason.clone(),
            next_start: transition.next_start,
            digest: record.digest.clone(),
        };
        self.memory.slots.insert(slot_of(transition), remembered);
    }

    // What may happen in the world.

    /// The keeper answers the first spawn.
    pub(super) fn answer_spawn(&mut self, fault: Option<SpawnFault>) {
        let Some(spawn) = self.spawns.pop_front() else {
            return;
        };
        if !self.keeper {
            return;
        }
        if let Some(fault) = fault {
            return self.tell(Event::SpawnFailed(spawn.instance, fault));
        }
        // One that never came to be (the host died with it) may be used again.
        let highest = self.epochs.insert(spawn.slot.clone(), spawn.epoch);
        assert!(
            highest.is_none_or(|old| old < spawn.epoch),
            "the epoch of {} fell",
            spawn.slot
        );
        let held = Held {
            slot: spawn.slot,
            epoch: spawn.epoch,
            digest: spawn.digest,
            started: self.now,
            exit: None,
            command: alicia_command(&spawn.spec.command),
            children: false,
            said: BTreeMap::new(),
            asked_to_end: false,
            frozen: false,
            was_good: false,
        };
        self.held.insert(spawn.instance.clone(), held);
        self.tell(Event::Spawned(spawn.instance, process()));
    }

    pub(super) fn answer_spawns(&mut self) {
        while !self.spawns.is_empty() {
            self.answer_spawn(None);
        }
    }

    /// A leader ends.
    pub(super) fn end(&mut self, instance: &InstanceId, code: Option<i32>) {
        let exit = exit_of(code, self.now);
        let Some(held) = self
            .held
            .get_mut(instance)
            .filter(|held| held.exit.is_none())
        else {
            return;
        };
        held.exit = Some(exit.clone());
        let empty = !held.children;
        if self.keeper {
            self.tell(Event::Exited {
                instance: instance.clone(),
                exit,
                empty,
                output: self.output,
            });
        }
    }

    /// A run is gone, and the message of it got lost.
    pub(super) fn end_unheard(&mut self, instance: &InstanceId) {
        let at = self.now;
        let held = self.held.get_mut(instance).expect("it is held");
        held.exit = Some(exit_of(Some(1), at));
        held.children = false;
    }

    /// What a leader left behind ends.
    pub(super) fn empty(&mut self, instance: &InstanceId) {
        let Some(held) = self
            .held
            .get_mut(instance)
            .filter(|held| held.exit.is_some())
        else {
            return;
        };
        held.children = false;
        if self.keeper {
            self.tell(Event::Emptied {
                instance: instance.clone(),
                killed: 1,
            });
        }
    }

    /// Everything that was asked to end does.
    pub(super) fn finish_stops(&mut self) {
        let asked = self.held.iter().filter(|(_, held)| held.asked_to_end);
        for instance in asked
            .map(|(instance, _)| instance.clone())
            .collect::<Vec<_>>()
        {
            self.end(&instance, Some(0));
            self.empty(&instance);
        }
    }

    /// The keeper forgets what it was asked for: only the core's own persistence ends these stops.
    pub(super) fn lose_stops(&mut self) {
        for held in self.held.values_mut() {
            held.asked_to_end = false;
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        while self.core.next_timer().is_some_and(|at| at <= self.now) {
            self.tell(Event::TimerFired);
        }
    }

    pub(super) fn judge(&mut self, instance: &InstanceId, role: Role, verdict: Verdict) {
        let asked = self
            .watched
            .get(instance)
            .is_some_and(|roles| roles.contains(&role));
        if let Some(held) = self.held.get_mut(instance) {
            held.was_good |= asked && role == Role::Readiness && verdict == Verdict::Good;
        }
        self.tell(Event::Probed(instance.clone(), role, verdict));
    }

    pub(super) fn command(&mut self, verb: Verb, names: &[&str], instances: Option<u32>) {
        let names: Vec<_> = names.iter().map(|text| name(text)).collect();
        let request = PlanRequest {
            names: &names,
            instances,
        };
        let Ok(plan) = Plan::new(&self.fleet, self.core.selection(), verb, &request) else {
            return;
        };
        if matches!(verb, Verb::Start | Verb::Restart | Verb::Resume) {
            let all = plan.services.iter().chain(&plan.needed).collect::<Vec<_>>();
            self.starts.retain(|id, _| !all.contains(&&id.service));
        }
        for (name, overrides) in plan.overrides(&self.fleet) {
            self.memory
                .overrides
                .entry(name)
                .or_default()
                .merge(overrides);
        }
        self.tell(Event::Command {
            request: self.answers,
            plan,
            reason: "by test".into(),
        });
    }

    /// The connection breaks; with `dead` the keeper and all it held are gone.
    pub(super) fn lose_keeper(&mut self, dead: bool) {
        self.keeper = false;
        for lost in std::mem::take(&mut self.spawns) {
            // It never came to be.
            self.starts.entry(lost.slot).or_default().pop();
        }
        self.lose_stops();
        if dead {
            self.held.clear();
            self.starts.clear();
        }
        self.tell(Event::KeeperLost);
    }

    /// The host is killed and started again.
    pub(super) fn crash_host(&mut self) {
        self.lives += 1;
        self.core = Core::new(self.memory.clone(), self.lives);
        self.watched.clear();
        self.spawns.clear();
        self.starts.clear();
        self.keeper = false;
        self.desired();
        self.sync();
    }

    /// The host is killed in the middle of an update and knows, from its store, what was good before.
    pub(super) fn crash_host_during(&mut self, base: &Fleet) {
        self.lives += 1;
        self.core = Core::new(self.memory.clone(), self.lives);
        self.watched.clear();
        self.spawns.clear();
        self.starts.clear();
        self.keeper = false;
        let wanted = std::mem::replace(&mut self.fleet, base.clone());
        self.desired();
        self.fleet = wanted;
        self.desired();
        self.sync();
    }

    // What one can see.

    pub(super) fn instances(&self, service: &str) -> Vec<InstanceStatus> {
        let status = self.core.status(0.0);
        let found = status
            .services
            .into_iter()
            .find(|s| s.service.as_str() == service);
        found.map(|service| service.instances).unwrap_or_default()
    }

    pub(super) fn states(&self, service: &str) -> Vec<InstanceState> {
        self.instances(service)
            .into_iter()
            .map(|instance| instance.state)
            .collect()
    }

    /// The living run of a slot.
    pub(super) fn run(&self, service: &str, number: u32) -> InstanceId {
        let id = slot(service, number);
        let found = self
            .held
            .iter()
            .find(|(_, held)| held.slot == id && !held.is_empty());
        found
            .map(|(instance, _)| instance.clone())
            .expect("it runs")
    }

    /// Whether the living run of a slot was asked to end.
    pub(super) fn is_asked_to_end(&self, service: &str, number: u32) -> bool {
        self.held[&self.run(service, number)].asked_to_end
    }

    pub(super) fn is_running(&self, service: &str, number: u32) -> bool {
        let id = slot(service, number);
        self.held
            .values()
            .any(|held| held.slot == id && !held.is_empty())
    }

    /// Each service and state that was entered since the last call.
    pub(super) fn story(&mut self) -> Vec<String> {
        let told = self.transitions.drain(..);
        told.map(|t| format!("{} {:?}", slot_of(&t), t.to).to_lowercase())
            .collect()
    }
}

fn alicia_command(command: &alicia_contract::fleet::Command) -> String {
    match command {
        alicia_contract::fleet::Command::Text(text) => text.clone(),
        alicia_contract::fleet::Command::List(words) => words.join(" "),
    }
}

fn slot_of(transition: &Transition) -> SlotId {
    SlotId {
        service: transition.service.clone(),
        slot: transition.slot,
    }
}

fn process() -> Process {
    Process {
        pid: 1,
        containment: "sweep".into(),
        limits: Vec::new(),
        ports: BTreeMap::new(),
    }
}

fn found(instance: &InstanceId, held: &Held, now: Duration) -> Found {
    let state = match &held.exit {
        Some(exit) => FoundState::Exited {
            exit: exit.clone(),
            requested: held.asked_to_end,
        },
        None if held.asked_to_end => FoundState::Stopping,
        None => FoundState::Running,
    };
    Found {
        instance: instance.clone(),
        slot: Some(held.slot.clone()),
        epoch: held.epoch,
        digest: held.digest.clone(),
        pid: 1,
        containment: "sweep".into(),
        limits: Vec::new(),
        ports: BTreeMap::new(),
        state,
        empty: held.is_empty(),
        age: now.saturating_sub(held.started),
        said: held.said.clone(),
    }
}
