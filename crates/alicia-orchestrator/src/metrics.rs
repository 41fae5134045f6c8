//! What the module counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use alicia_contract::ServiceName;
use alicia_contract::deployment::DeploymentState;
use alicia_contract::orchestrator::{FleetStatus, InstanceState, Transition};
use alicia_module::Exposition;

use crate::core::event::Role;

/// Every state, for a gauge that is there also when it is zero.
const STATES: [(InstanceState, &str); 10] = [
    (InstanceState::Waiting, "waiting"),
    (InstanceState::Starting, "starting"),
    (InstanceState::Running, "running"),
    (InstanceState::Backoff, "backoff"),
    (InstanceState::Stopping, "stopping"),
    (InstanceState::Stopped, "stopped"),
    (InstanceState::Completed, "completed"),
    (InstanceState::Failed, "failed"),
    (InstanceState::Parked, "parked"),
    (InstanceState::Paused, "paused"),
];

/// Counters that are raised from everywhere.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    restarts: Mutex<BTreeMap<ServiceName, u64>>,
    spawns: AtomicU64,
    spawns_failed: AtomicU64,
    spawn_us_total: AtomicU64,
    killed: AtomicU64,
    probes_readiness: AtomicU64,
    probes_liveness: AtomicU64,
    records_dropped: AtomicU64,
    updates_done: AtomicU64,
    updates_reverted: AtomicU64,
    updates_failed: AtomicU64,
}

fn raise(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

#[expect(clippy::cast_precision_loss, reason = "a counter of 2^53 is far away")]
fn read(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

// === impl Counts ===

impl Counts {
    pub(crate) fn transition(&self, transition: &Transition) {
        if transition.to == InstanceState::Backoff {
            let mut restarts = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
            *restarts.entry(transition.service.clone()).or_default() += 1;
        }
    }

    pub(crate) fn spawned(&self, took: Duration) {
        raise(&self.spawns, 1);
        raise(
            &self.spawn_us_total,
            u64::try_from(took.as_micros()).unwrap_or_default(),
        );
    }

    pub(crate) fn spawn_failed(&self) {
        raise(&self.spawns_failed, 1);
    }

    pub(crate) fn killed(&self, processes: u32) {
        raise(&self.killed, processes.into());
    }

    /// An update of a service came to an end.
    pub(crate) fn updated(&self, end: DeploymentState) {
        match end {
            DeploymentState::Done => raise(&self.updates_done, 1),
            DeploymentState::Reverted => raise(&self.updates_reverted, 1),
            DeploymentState::Failed => raise(&self.updates_failed, 1),
            DeploymentState::UnderWay | DeploymentState::Superseded => {}
        }
    }

    pub(crate) fn probed(&self, role: Role) {
        match role {
            Role::Readiness => raise(&self.probes_readiness, 1),
            Role::Liveness => raise(&self.probes_liveness, 1),
        }
    }

    pub(crate) fn record_dropped(&self) {
        raise(&self.records_dropped, 1);
    }

    /// Writes everything, and the instances of the last status by state.
    pub(crate) fn write(&self, status: &FleetStatus, out: &mut Exposition) {
        let instances = || {
            status
                .services
                .iter()
                .flat_map(|service| &service.instances)
        };
        for (state, name) in STATES {
            let count = instances()
                .filter(|instance| instance.state == state)
                .count();
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            out.gauge(
                "instances",
                "Instances by state.",
                &[("state", name)],
                count.into(),
            );
        }
        let restarts = self
            .restarts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for service in &status.services {
            let count = restarts.get(&service.service).copied().unwrap_or_default();
            out.counter(
                "restarts_total",
                "Instances that were started again because they ended by themselves.",
                &[("service", service.service.as_str())],
                read(&AtomicU64::new(count)),
            );
        }
        let plain = |out: &mut Exposition, name, help, counter| {
            out.counter(name, help, &[], read(counter));
        };
        let updates = [
            ("done", &self.updates_done),
            ("failed", &self.updates_failed),
            ("reverted", &self.updates_reverted),
        ];
        for (end, counter) in updates {
            let help = "Updates of services, by how they ended.";
            out.counter("updates_total", help, &[("end", end)], read(counter));
        }
        plain(out, "spawns_total", "Processes started.", &self.spawns);
        plain(
            out,
            "spawn_failures_total",
            "Starts that failed.",
            &self.spawns_failed,
        );
        out.counter(
            "spawn_seconds_total",
            "Time from the decision to start until the program was executed, over all starts.",
            &[],
            read(&self.spawn_us_total) / 1e6,
        );
        plain(
            out,
            "killed_processes_total",
            "Processes killed by force.",
            &self.killed,
        );
        for (role, counter) in [
            ("readiness", &self.probes_readiness),
            ("liveness", &self.probes_liveness),
        ] {
            out.counter(
                "probes_total",
                "Tries of probes.",
                &[("role", role)],
                read(counter),
            );
        }
        plain(
            out,
            "records_dropped_total",
            "Transitions that are not in the history or were not published.",
            &self.records_dropped,
        );
    }
}
