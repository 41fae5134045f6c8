//! The picture of the fleet, and whether it has come to rest.

use std::collections::BTreeSet;
use std::time::Duration;

use alicia_contract::orchestrator::{FleetStatus, InstanceState, InstanceStatus, ServiceStatus};
use alicia_contract::{ServiceName, UnixSeconds};

use super::plan::{closure, in_start_order};
use super::service::{Service, Slot};
use super::{Core, notice};

/// How long one without a readiness probe must run to count as ready for those who wait. A program that
/// cannot work (no configuration, no port) mostly says so within this time.
const STEADY_AFTER: Duration = Duration::from_millis(300);

impl Core {
    /// Rises with every change of what [`Core::status`] says.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The whole fleet, without the use of resources, which the core does not know.
    #[must_use]
    pub fn status(&self, at: UnixSeconds) -> FleetStatus {
        let names = self.services.keys().cloned().collect();
        let mut order = in_start_order(&self.fleet, &names);
        // Services that are no longer in the file come last.
        order.extend(
            names
                .into_iter()
                .filter(|name| !self.fleet.services.contains_key(name)),
        );
        order.dedup();
        let services = order
            .iter()
            .filter_map(|name| Some(service_status(name, self.services.get(name)?)))
            .collect();
        FleetStatus {
            fleet: self.fleet.name.clone(),
            revision: self.revision,
            at,
            services,
        }
    }

    /// Whether nothing is left to happen by itself in these services: each wanted instance is ready, done,
    /// given up, or waits for such a one, and nothing runs that is not wanted. `now` is on the monotonic
    /// clock: one without a readiness probe must have run for a moment, or one that ends right after its
    /// start would count as ready.
    #[must_use]
    pub fn is_settled(&self, services: &[ServiceName], now: Duration) -> bool {
        let asked: BTreeSet<ServiceName> = services.iter().cloned().collect();
        let mut settled = BTreeSet::new();
        for name in in_start_order(&self.fleet, &closure(&self.fleet, &asked)) {
            let Some(service) = self.services.get(&name) else {
                continue;
            };
            let blocked = service.spec.depends_on.0.iter().any(|(need, condition)| {
                let needed = self.services.get(need);
                settled.contains(need) && needed.is_some_and(|s| s.unmet(*condition).is_some())
            });
            let is_updating = service
                .update
                .as_ref()
                .is_some_and(|update| !update.is_halted());
            if !is_updating
                && service
                    .slots
                    .iter()
                    .all(|(number, slot)| rests(service, (*number, slot), blocked, now))
            {
                settled.insert(name);
            }
        }
        let known = asked
            .iter()
            .filter(|name| self.fleet.services.contains_key(*name));
        known.into_iter().all(|name| settled.contains(name))
    }
}

fn rests(service: &Service, (number, slot): (u32, &Slot), blocked: bool, now: Duration) -> bool {
    if !service.wants(number) {
        return slot.run.is_none();
    }
    match slot.state {
        InstanceState::Running => {
            service.must_stop(number, slot).is_none() && is_steady(service, slot, now)
        }
        InstanceState::Completed | InstanceState::Failed | InstanceState::Parked => {
            slot.run.is_none()
        }
        InstanceState::Paused => service.must_stop(number, slot).is_none(),
        InstanceState::Waiting => slot.run.is_none() && blocked,
        _ => false,
    }
}

fn is_steady(service: &Service, slot: &Slot, now: Duration) -> bool {
    let started = slot.run.as_ref().map(|run| run.started);
    service.spec.readiness.is_some()
        || notice::says_ready(&service.spec)
        || started.is_some_and(|started| now.saturating_sub(started) >= STEADY_AFTER)
}

fn service_status(name: &ServiceName, service: &Service) -> ServiceStatus {
    let instances = service
        .slots
        .iter()
        .map(|(number, slot)| instance_status(*number, slot, service));
    ServiceStatus {
        service: name.clone(),
        description: service.spec.description.clone(),
        wanted: if service.present && service.enabled {
            service.wanted
        } else {
            0
        },
        depends_on: service.spec.depends_on.0.clone(),
        restart: service.spec.restart,
        groups: service.spec.groups.clone(),
        instances: instances.collect(),
    }
}

fn instance_status(number: u32, slot: &Slot, service: &Service) -> InstanceStatus {
    let run = slot.run.as_ref().filter(|run| !run.ended);
    let process = run.and_then(|run| run.process.as_ref());
    InstanceStatus {
        slot: number,
        instance: slot.instance.clone(),
        epoch: slot.epoch,
        state: slot.state,
        since: slot.since,
        pid: process.map(|process| process.pid),
        restarts: slot.restarts,
        exit: slot.exit.clone(),
        reason: slot.reason.clone(),
        next_start: slot.next_start,
        ports: process
            .map(|process| process.ports.clone())
            .unwrap_or_default(),
        cpu: None,
        memory_bytes: None,
        containment: process.map(|process| process.containment.clone()),
        limits: process
            .map(|process| process.limits.clone())
            .unwrap_or_default(),
        says: run.and_then(|run| run.words.status.clone()),
        attention: slot
            .attention
            .clone()
            .or_else(|| service.spent_soon.clone()),
        work: run.and_then(|run| run.gauge.work()),
    }
}
