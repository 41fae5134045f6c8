//! An orchestrator that says what the test wants, and somebody who listens to the monitor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use alicia_bus::Bus;
use alicia_contract::fleet::{Fleet, RestartPolicy, ServiceSpec};
use alicia_contract::health::{
    ALERTS, Alert, AlertState, FleetHealth, HealthState, STATUS as HEALTH,
};
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::orchestrator::{
    Exit, FleetStatus, InstanceState, InstanceStatus, STATUS, ServiceStatus, TRANSITIONS,
    Transition,
};
use alicia_testkit::{Bench, PATIENCE, until};

pub(crate) fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("an id")
}

/// The instance of the run with this epoch.
pub(crate) fn instance_of(epoch: Epoch) -> InstanceId {
    InstanceId::from_parts(epoch.0, 0)
}

/// Says what the orchestrator says.
pub(crate) struct World {
    pub(crate) bus: Bus,
    pub(crate) ports: BTreeMap<ServiceName, u16>,
    /// What a run says before it ends.
    pub(crate) last_line: String,
    status: FleetStatus,
    /// Rises with each thing that happens, in seconds.
    at: f64,
}

impl World {
    pub(crate) async fn new(bench: &Bench, services: &[&str]) -> Self {
        let spec = ServiceSpec::new(vec!["program".to_owned()]);
        Self::of(
            bench,
            services.iter().map(|service| (*service, spec.clone())),
        )
        .await
    }

    pub(crate) async fn of<'s>(
        bench: &Bench,
        services: impl IntoIterator<Item = (&'s str, ServiceSpec)>,
    ) -> Self {
        let services: BTreeMap<ServiceName, Arc<ServiceSpec>> = services
            .into_iter()
            .map(|(service, spec)| (name(service), spec.into()))
            .collect();
        let told = services.keys().map(|service| ServiceStatus {
            service: service.clone(),
            description: None,
            wanted: 1,
            depends_on: BTreeMap::new(),
            restart: RestartPolicy::Always,
            groups: Vec::new(),
            instances: vec![waiting()],
        });
        let status = FleetStatus {
            services: told.collect(),
            ..FleetStatus::default()
        };
        bench.set_fleet(Fleet {
            name: "home".to_owned(),
            services,
            ..Fleet::default()
        });
        let bus = bench.client("system/orchestrator").await;
        Self {
            bus,
            ports: BTreeMap::new(),
            last_line: "the last line".to_owned(),
            status,
            at: 1e9,
        }
    }

    pub(crate) async fn connected(&self) {
        self.bus.connected(PATIENCE).await.expect("is back");
    }

    pub(crate) async fn start(&mut self, service: &str) {
        self.enter(service, InstanceState::Starting).await;
        self.enter(service, InstanceState::Running).await;
    }

    /// A new state, told as a transition and in the picture.
    pub(crate) async fn enter(&mut self, service: &str, state: InstanceState) {
        self.at += 1.0;
        let change = self.change(service, state);
        self.bus
            .publish(TRANSITIONS, &[], &change)
            .await
            .expect("sent");
        self.show().await;
    }

    pub(crate) async fn show(&mut self) {
        self.at += 1.0;
        self.status.revision += 1;
        self.status.at = self.at;
        self.bus.set(STATUS, &[], &self.status).await.expect("set");
    }

    fn change(&mut self, service: &str, state: InstanceState) -> Transition {
        let mut services = self.status.services.iter_mut();
        let of = services
            .find(|of| of.service.as_str() == service)
            .expect("a service");
        let held = &mut of.instances[0];
        let from = std::mem::replace(&mut held.state, state);
        held.since = self.at;
        held.ports = self.ports.clone();
        let ended = matches!(state, InstanceState::Backoff | InstanceState::Failed);
        if ended {
            held.restarts += 1;
            held.exit = Some(Exit {
                code: None,
                signal: Some("SIGKILL".to_owned()),
                cause: "killed by SIGKILL".to_owned(),
                at: self.at,
                ..Exit::default()
            });
        }
        if state == InstanceState::Starting {
            held.epoch = held.epoch.next();
            held.instance = Some(instance_of(held.epoch));
        }
        Transition {
            service: of.service.clone(),
            slot: 1,
            instance: held.instance.clone(),
            epoch: held.epoch,
            from,
            to: state,
            reason: "said the test".to_owned(),
            exit: held.exit.clone().filter(|_| ended),
            last_lines: if ended {
                vec![self.last_line.clone()]
            } else {
                Vec::new()
            },
            cause: Default::default(),
            next_start: None,
            pid: None,
            restarts: held.restarts,
            at: self.at,
        }
    }
}

fn waiting() -> InstanceStatus {
    InstanceStatus {
        slot: 1,
        instance: None,
        epoch: Epoch(0),
        state: InstanceState::Waiting,
        since: 0.0,
        pid: None,
        restarts: 0,
        exit: None,
        reason: String::new(),
        next_start: None,
        ports: BTreeMap::new(),
        cpu: None,
        memory_bytes: None,
        containment: None,
        ..InstanceStatus::default()
    }
}

/// Hears the monitor as anybody may.
pub(crate) struct Listener {
    alerts: Arc<Mutex<Vec<Alert>>>,
    picture: Arc<Mutex<FleetHealth>>,
}

impl Listener {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no context to spawn in"
    )]
    pub(crate) async fn of(bench: &Bench) -> Self {
        let bus = bench.client("listener").await;
        let (alerts, picture) = (Arc::default(), Arc::default());
        let kept: Arc<Mutex<Vec<Alert>>> = Arc::clone(&alerts);
        let mut heard = bus.events(ALERTS).await.expect("subscribes");
        tokio::spawn(async move {
            while let Some(message) = heard.message().await {
                kept.lock().expect("not poisoned").push(message.payload);
            }
        });
        let shown: Arc<Mutex<FleetHealth>> = Arc::clone(&picture);
        let mut heard = bus.states(HEALTH).await.expect("subscribes");
        tokio::spawn(async move {
            while let Some(message) = heard.message().await {
                *shown.lock().expect("not poisoned") = message.payload;
            }
        });
        Self { alerts, picture }
    }

    /// Every alert that was heard so far.
    pub(crate) fn alerts(&self) -> Vec<Alert> {
        self.alerts.lock().expect("not poisoned").clone()
    }

    /// Waits for an alert of this rule.
    pub(crate) async fn alert(&self, rule: &str, state: AlertState) {
        let heard = || {
            self.alerts()
                .iter()
                .any(|a| a.rule == rule && a.state == state)
        };
        until(&format!("{rule} is {state:?}"), async || heard()).await;
    }

    /// Waits until the picture says this of a service.
    pub(crate) async fn service(&self, service: &str, state: HealthState) {
        until(&format!("{service} is {state:?}"), async || {
            let picture = self.picture.lock().expect("not poisoned");
            picture
                .services
                .iter()
                .any(|of| of.service.as_str() == service && of.state == state)
        })
        .await;
    }
}
