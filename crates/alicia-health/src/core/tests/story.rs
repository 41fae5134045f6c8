//! A monitor, a clock and a world for it to watch.

use alicia_contract::fleet::{ExecCheck, Probe, RestartPolicy, ServiceSpec};
use alicia_contract::health::HeartbeatStatus;
use alicia_contract::id::Epoch;
use alicia_contract::orchestrator::{Exit, InstanceStatus, ServiceStatus};

use super::super::*;

pub(in crate::core) const TICK_MS: u64 = 250;

/// A monitor, its clock, the world that it watches, and every alert that was news.
pub(in crate::core) struct Story {
    pub(in crate::core) monitor: Monitor,
    pub(in crate::core) ms: u64,
    /// By how much the clock on the wall was set back, in seconds.
    pub(in crate::core) back_s: f64,
    pub(in crate::core) fleet: FleetStatus,
    pub(in crate::core) news: Vec<Alert>,
    pub(in crate::core) actions: Vec<Action>,
}

impl Story {
    pub(in crate::core) fn new(services: &[&str]) -> Self {
        let fleet = Fleet {
            name: "home".to_owned(),
            services: services
                .iter()
                .map(|name| (name_of(name), spec().into()))
                .collect(),
            ..Fleet::default()
        };
        Self::of_fleet(fleet)
    }

    pub(in crate::core) fn of_fleet(fleet: Fleet) -> Self {
        let mut story = Self {
            monitor: Monitor::new(Settings::default(), 1),
            ms: 1_000,
            back_s: 0.0,
            fleet: FleetStatus::default(),
            news: Vec::new(),
            actions: Vec::new(),
        };
        for name in fleet.services.keys() {
            let slot = slot(1, 1, InstanceState::Waiting, 0.5);
            story.fleet.services.push(service_status(name, vec![slot]));
        }
        story.tell(Event::Fleet(Arc::new(fleet)));
        story.tell(Event::Tick);
        story
    }

    pub(in crate::core) fn now(&self) -> Now {
        Now {
            unix: 5_000.0 + self.s() - self.back_s,
            mono: Duration::from_millis(self.ms),
        }
    }

    pub(in crate::core) fn s(&self) -> f64 {
        Duration::from_millis(self.ms).as_secs_f64()
    }

    pub(in crate::core) fn tell(&mut self, event: Event) {
        self.actions = self.monitor.apply(event, self.now());
        for action in &self.actions {
            if let Action::Alert(change) = action
                && change.news
            {
                self.news.push(change.alert.clone());
            }
        }
    }

    /// Lets time pass, with ticks, as the shell does.
    pub(in crate::core) fn wait(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.ms += TICK_MS;
            self.tell(Event::Tick);
        }
    }

    /// The instance of `service` in slot 1 enters a state; told as a transition, then as a picture.
    pub(in crate::core) fn enter(&mut self, service: &str, state: InstanceState) {
        self.change(service, state);
        self.show();
    }

    pub(in crate::core) fn change(&mut self, service: &str, state: InstanceState) {
        self.ms += 1;
        let at = self.now().unix;
        let of = self
            .fleet
            .services
            .iter_mut()
            .find(|of| of.service.as_str() == service);
        let held = &mut of.expect("a service of the story").instances[0];
        let from = held.state;
        if from.has_process() && !state.has_process() {
            held.exit = Some(exit(at));
            held.restarts += u32::from(state == InstanceState::Backoff);
        }
        if state == InstanceState::Starting && !from.has_process() {
            held.epoch = held.epoch.next();
            held.instance = Some(InstanceId::from_parts(held.epoch.0, 0));
        }
        held.state = state;
        held.since = at;
        held.reason = format!("{state:?}").to_lowercase();
        let ended = matches!(state, InstanceState::Backoff | InstanceState::Failed);
        let last_lines = if ended {
            vec!["the last line".to_owned()]
        } else {
            Vec::new()
        };
        let change = Transition {
            service: name_of(service),
            slot: 1,
            instance: held.instance.clone(),
            epoch: held.epoch,
            from,
            to: state,
            reason: held.reason.clone(),
            exit: held.exit.clone().filter(|_| ended),
            last_lines,
            cause: Default::default(),
            next_start: None,
            pid: None,
            restarts: held.restarts,
            at,
        };
        self.tell(Event::Transition(Box::new(change)));
    }

    pub(in crate::core) fn show(&mut self) {
        self.fleet.revision += 1;
        self.fleet.at = self.now().unix;
        self.tell(Event::Status(Box::new(self.fleet.clone())));
    }

    pub(in crate::core) fn start(&mut self, service: &str) {
        self.enter(service, InstanceState::Starting);
        self.enter(service, InstanceState::Running);
    }

    pub(in crate::core) fn state(&self, service: &str) -> HealthState {
        self.monitor.watch(service).expect("watched").judged.state
    }

    pub(in crate::core) fn beat(&mut self, service: &str, status: HeartbeatStatus) {
        let heartbeat = Heartbeat {
            service: name_of(service),
            instance: None,
            status,
            detail: None,
            uptime_s: 1.0,
            interval_s: Some(5.0),
            counters: BTreeMap::new(),
            resources: BTreeMap::new(),
        };
        self.tell(Event::Heartbeat(Box::new(heartbeat)));
    }

    pub(in crate::core) fn probe(&mut self, service: &str, good: bool) {
        let target = self
            .monitor
            .targets()
            .into_iter()
            .find(|t| t.service.as_str() == service);
        let Some(target) = target else { return };
        let result = Try {
            good,
            detail: "status 503".to_owned(),
            latency_ms: 1.0,
            begun: self.now().mono,
        };
        let Target {
            service,
            slot,
            instance,
            check,
            ..
        } = target;
        self.tell(Event::Tried(Box::new(Tried {
            service,
            slot,
            instance,
            check,
            result,
        })));
    }

    /// What was told, as `rule state count`.
    pub(in crate::core) fn told(&self) -> Vec<String> {
        self.news
            .iter()
            .map(|alert| format!("{} {:?}", alert.rule, alert.state))
            .collect()
    }

    pub(in crate::core) fn firing(&self) -> Vec<String> {
        self.monitor
            .book()
            .firing()
            .map(|alert| alert.rule.clone())
            .collect()
    }
}

pub(in crate::core) fn name_of(name: &str) -> ServiceName {
    ServiceName::new(name).expect("an id")
}

/// A service with one check.
pub(in crate::core) fn spec() -> ServiceSpec {
    let mut spec = ServiceSpec::new(vec!["program".to_owned()]);
    let command = alicia_contract::fleet::Command::Text("true".to_owned());
    let mut probe: Probe = serde_json::from_value(serde_json::json!({})).expect("defaults");
    probe.exec = Some(ExecCheck { command });
    spec.checks.insert(name_of("web"), probe);
    spec
}

pub(in crate::core) fn exit(at: f64) -> Exit {
    Exit {
        code: None,
        signal: Some("SIGKILL".to_owned()),
        cause: "killed by SIGKILL".to_owned(),
        at,
        ..Exit::default()
    }
}

pub(in crate::core) fn slot(
    number: u32,
    epoch: u64,
    state: InstanceState,
    since: f64,
) -> InstanceStatus {
    InstanceStatus {
        slot: number,
        instance: None,
        epoch: Epoch(epoch),
        state,
        since,
        pid: None,
        restarts: 0,
        exit: None,
        reason: "waits".to_owned(),
        next_start: None,
        ports: BTreeMap::new(),
        cpu: None,
        memory_bytes: None,
        containment: None,
        ..InstanceStatus::default()
    }
}

pub(in crate::core) fn service_status(
    name: &ServiceName,
    instances: Vec<InstanceStatus>,
) -> ServiceStatus {
    ServiceStatus {
        service: name.clone(),
        description: None,
        wanted: 1,
        depends_on: BTreeMap::new(),
        restart: RestartPolicy::Always,
        groups: Vec::new(),
        instances,
    }
}
