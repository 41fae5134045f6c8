//! What each event changes in what is known. Judging follows from it, in [`Monitor::look`].

use std::collections::BTreeSet;
use std::sync::Arc;

use alicia_contract::discovery::ServiceInstances;
use alicia_contract::fleet::Fleet;
use alicia_contract::health::{HealthState, Heartbeat};
use alicia_contract::id::ServiceName;
use alicia_contract::orchestrator::{FleetStatus, Transition};

use super::agents::limits;
use super::alerts::Gate;
use super::evidence::Check;
use super::watch::Watch;
use super::{Action, Monitor, Now, Tried, Turn, alert, targets_of};

impl Monitor {
    pub(super) fn take_fleet(&mut self, fleet: Arc<Fleet>, now: Now, actions: &mut Vec<Action>) {
        let all = self.settings.agents;
        for (name, spec) in &fleet.services {
            let watch = self.watch_or_new(name, now);
            watch.specify(spec, now);
            watch.agent = limits(spec.agent.as_ref(), &all);
        }
        for (name, watch) in &mut self.watches {
            if !fleet.services.contains_key(name) {
                watch.spec = None;
                watch.agent = all;
            }
        }
        self.fleet = fleet;
        self.forget_unwatched(now, actions);
        actions.extend([Action::Targets, Action::Changed]);
    }

    pub(super) fn take_status(
        &mut self,
        status: &FleetStatus,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        // Both lower: an older picture that came late. A restarted orchestrator may count anew.
        if self
            .picture
            .is_some_and(|(at, revision)| status.at < at && status.revision <= revision)
        {
            return;
        }
        self.picture = Some((status.at, status.revision));
        let targets = self.targets();
        for of_service in &status.services {
            self.watch_or_new(&of_service.service, now)
                .picture(of_service, status.at, now);
        }
        let listed: BTreeSet<&ServiceName> = status.services.iter().map(|of| &of.service).collect();
        for (name, watch) in &mut self.watches {
            if !listed.contains(name) {
                watch
                    .slots
                    .retain(|_, slot| slot.is_younger(status.at, now));
                watch.pictured = !watch.slots.is_empty();
            }
        }
        self.forget_unwatched(now, actions);
        for of_service in &status.services {
            self.look(&of_service.service, now, actions);
        }
        if self.targets() != targets {
            actions.push(Action::Targets);
        }
    }

    pub(super) fn take_transition(
        &mut self,
        change: &Transition,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let watch = self.watch_or_new(&change.service, now);
        let targets = targets_of(watch);
        watch.transition(change, now);
        if targets_of(watch) != targets {
            actions.push(Action::Targets);
        }
        self.look(&change.service, now, actions);
    }

    pub(super) fn take_registered(
        &mut self,
        listed: &ServiceInstances,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let watch = self.watch_or_new(&listed.service, now);
        watch.registered = listed
            .instances
            .iter()
            .map(|entry| entry.registration.instance.clone())
            .collect();
        self.look(&listed.service, now, actions);
    }

    /// A service outside the fleet is forgotten when it left in good order. One that was lost before stays,
    /// and its alert with it.
    pub(super) fn take_unregistered(
        &mut self,
        service: &ServiceName,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(watch) = self.watches.get_mut(service) else {
            return;
        };
        watch.registered.clear();
        watch.beats.retain(|_, beat| beat.lost || watch.pictured);
        self.forget_unwatched(now, actions);
    }

    pub(super) fn take_heartbeat(
        &mut self,
        heartbeat: &Heartbeat,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let intervals = self.settings.heartbeat_intervals;
        let Some(watch) = self.watches.get_mut(&heartbeat.service) else {
            self.stray_heartbeats += 1;
            return;
        };
        if watch.beat(heartbeat, intervals, now) {
            self.look(&heartbeat.service, now, actions);
        }
    }

    /// Counts a heartbeat that cannot be used. It changes no state; a series of them is an alert.
    pub(super) fn count_bad(
        &mut self,
        service: &ServiceName,
        fault: String,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(watch) = self.watches.get_mut(service) else {
            self.stray_heartbeats += 1;
            return;
        };
        watch.bad_heartbeat(fault, now);
        self.look(service, now, actions);
    }

    pub(super) fn take_try(&mut self, tried: Tried, now: Now, actions: &mut Vec<Action>) {
        let began_before = self
            .punctual_since
            .is_some_and(|since| tried.result.begun < since);
        if began_before && !tried.result.good {
            // It may have failed because we were held up ourselves.
            return;
        }
        let Some(watch) = self.watches.get_mut(&tried.service) else {
            return;
        };
        let Some(probe) = watch
            .spec
            .as_ref()
            .and_then(|spec| spec.checks.get(&tried.check))
        else {
            return;
        };
        let (rise, fall) = (probe.rise, probe.fall);
        let slot = watch.slots.get_mut(&tried.slot);
        let Some(slot) = slot.filter(|slot| slot.instance.as_ref() == Some(&tried.instance)) else {
            return;
        };
        let checks = &mut slot.checks;
        let check = checks
            .entry(tried.check)
            .or_insert_with(|| Check::new(rise, fall, now));
        // What was good and is good again changes nothing: of ten thousand checks, nearly all.
        let is_news = !(check.fresh && check.good == Some(true) && tried.result.good);
        check.count(tried.result, now);
        if is_news {
            self.look(&tried.service, now, actions);
        }
    }

    fn watch_or_new(&mut self, service: &ServiceName, now: Now) -> &mut Watch {
        let spec = self.fleet.services.get(service);
        let agent = limits(
            spec.and_then(|spec| spec.agent.as_ref()),
            &self.settings.agents,
        );
        self.watches
            .entry(service.clone())
            .or_insert_with(|| Watch {
                spec: spec.cloned(),
                agent,
                ..Watch::new(service.clone(), now)
            })
    }

    /// Drops services that are neither in the fleet nor known to the orchestrator nor registered nor lost.
    pub(super) fn forget_unwatched(&mut self, now: Now, actions: &mut Vec<Action>) {
        let gone: Vec<ServiceName> = self
            .watches
            .values()
            .filter(|watch| watch.spec.is_none() && !watch.pictured)
            .filter(|watch| watch.registered.is_empty() && watch.beats.is_empty())
            .map(|watch| watch.service.clone())
            .collect();
        for service in gone {
            let watch = self.watches.remove(&service);
            // Its history ends here: from now on nobody knows.
            if watch.is_some_and(|watch| watch.judged.state != HealthState::Unknown) {
                actions.push(Action::Turned(Turn {
                    service: service.clone(),
                    state: HealthState::Unknown,
                    at: now.unix,
                    reason: "is not watched any more".to_owned(),
                }));
            }
            let changes = self
                .book
                .reconcile(&service, Vec::new(), &Gate::default(), now);
            actions.extend(changes.into_iter().map(alert));
            actions.push(Action::Changed);
        }
    }
}
