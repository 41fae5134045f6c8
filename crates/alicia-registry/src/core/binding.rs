//! The orchestrator's word: an instance that it started lives as long as its process.
//!
//! The picture adds instances that are ready and did not register themselves, so that plain programs are
//! found too; a transition to an end takes effect at once. Both may repeat, come late, or be missed: the
//! next picture mends what a missed transition left behind.

use std::collections::BTreeSet;

use alicia_contract::discovery::{
    Endpoints, Kind, LEASE_DEFAULT, PROTOCOL_MAJOR, Presence, Registration,
};
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::orchestrator::{
    FleetStatus, InstanceState, InstanceStatus, ServiceStatus, Transition,
};

use super::entry::{Ending, Entry};
use super::lease::see;
use super::standing::slot_name;
use super::{Action, Now, Registry, move_to, tell};

/// The owner of an entry that the registry derived by itself.
pub(crate) const DERIVED_OWNER: &str = "system/orchestrator";

/// The version of a program that did not say its own.
pub(super) const VERSION_UNKNOWN: &str = "0.0.0";

impl Registry {
    pub(super) fn transition(
        &mut self,
        transition: &Transition,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(instance) = &transition.instance else {
            return;
        };
        let name = slot_name(&transition.service, transition.slot);
        self.slot_is(instance, transition.to, (name, transition.at), now);
        let of_service = |entry: &&Entry| entry.registration.service == transition.service;
        if self.entries.get(instance).filter(of_service).is_none() {
            return;
        }
        if serves(transition.to) {
            self.vouch(instance, transition.epoch, now, actions);
        } else if transition.to == InstanceState::Paused {
            self.hold(instance, now, actions);
        } else {
            let reason = ending_words(transition);
            self.end(instance, Ending::Final, &reason, now, actions);
        }
    }

    /// Reconciles with the whole picture.
    pub(super) fn status(&mut self, status: &FleetStatus, now: Now, actions: &mut Vec<Action>) {
        // Both lower: an older picture that came late. A restarted orchestrator may count anew.
        if self
            .picture
            .is_some_and(|(at, revision)| status.at < at && status.revision <= revision)
        {
            return;
        }
        self.picture = Some((status.at, status.revision));
        self.take_slots(status, now);
        self.epochs.clear();
        for service in &status.services {
            if let Some(oldest) = service.instances.iter().map(|slot| slot.epoch).min() {
                self.epochs.insert(service.service.clone(), oldest);
            }
            for slot in &service.instances {
                self.slot(service, slot, now, actions);
            }
            self.end_unlisted(service, status.at, now, actions);
        }
        self.end_of_unlisted_services(status, now, actions);
    }

    fn slot(
        &mut self,
        service: &ServiceStatus,
        slot: &InstanceStatus,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(instance) = &slot.instance else {
            return;
        };
        if slot.state == InstanceState::Paused {
            self.hold(instance, now, actions);
        } else if !serves(slot.state) {
            let reason = slot
                .exit
                .as_ref()
                .map_or(slot.reason.as_str(), |exit| &exit.cause);
            self.end(instance, Ending::Final, reason, now, actions);
        } else if self.entries.contains_key(instance) {
            self.vouch(instance, slot.epoch, now, actions);
        } else if slot.state == InstanceState::Running
            && self.make_room(&service.service, actions).is_ok()
        {
            self.derive(service, slot, instance, now, actions);
        }
    }

    /// Its processes are held still: it is there, and nobody should be sent to it until it goes on.
    fn hold(&mut self, instance: &InstanceId, now: Now, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(instance) else {
            return;
        };
        if entry.ending == Some(Ending::Final) {
            return;
        }
        entry.ending = None;
        entry.supervised = true;
        entry.deadline = None;
        if entry.presence != Presence::Suspect {
            let reason = "is paused: its processes are held still";
            move_to(entry, Presence::Suspect, reason, now, actions);
        }
    }

    /// Binds an entry to its process.
    fn vouch(&mut self, instance: &InstanceId, epoch: Epoch, now: Now, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(instance) else {
            return;
        };
        if entry.ending == Some(Ending::Final) {
            return;
        }
        let newly_bound = !entry.supervised || entry.registration.epoch != epoch;
        entry.ending = None;
        entry.supervised = true;
        entry.registration.epoch = epoch;
        see(entry, now, actions);
        if newly_bound {
            actions.push(Action::Save(Box::new(entry.clone())));
            actions.push(Action::Announce(entry.registration.service.clone()));
        }
    }

    /// An entry for an instance that serves and has not said anything of itself.
    fn derive(
        &mut self,
        service: &ServiceStatus,
        slot: &InstanceStatus,
        instance: &InstanceId,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let entry = Entry {
            registration: self.derived_registration(service, slot, instance),
            presence: Presence::Present,
            since: now.unix,
            seen: now.unix,
            supervised: true,
            owner: DERIVED_OWNER.to_owned(),
            reason: "started by the orchestrator".to_owned(),
            ending: None,
            deadline: None,
        };
        actions.push(tell(&entry, None, now));
        actions.push(Action::Save(Box::new(entry.clone())));
        actions.push(Action::Announce(service.service.clone()));
        self.insert(entry);
    }

    fn derived_registration(
        &self,
        service: &ServiceStatus,
        slot: &InstanceStatus,
        instance: &InstanceId,
    ) -> Registration {
        let spec = self.fleet.services.get(&service.service);
        let mut registration = Registration {
            service: service.service.clone(),
            instance: instance.clone(),
            epoch: slot.epoch,
            kind: Kind::Service,
            version: VERSION_UNKNOWN.to_owned(),
            protocols: vec![format!("{PROTOCOL_MAJOR}.0.0")],
            capabilities: Vec::new(),
            endpoints: Endpoints {
                http: http_endpoint(slot),
                ..Endpoints::default()
            },
            metadata: serde_json::Map::new(),
            labels: spec.map(|spec| spec.labels.clone()).unwrap_or_default(),
            lease_s: LEASE_DEFAULT.duration().as_secs_f64(),
        };
        self.complete(&mut registration);
        registration
    }

    /// Ends supervised instances of a service that no slot holds any more. An entry that is younger than
    /// the picture may be missing from it rightly.
    fn end_unlisted(
        &mut self,
        service: &ServiceStatus,
        taken_at: f64,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let held = |id: &InstanceId| {
            service
                .instances
                .iter()
                .any(|slot| slot.instance.as_ref() == Some(id))
        };
        let gone: Vec<InstanceId> = self
            .live(&service.service)
            .filter(|entry| entry.supervised && entry.is_older(taken_at, now))
            .map(|entry| entry.registration.instance.clone())
            .filter(|id| !held(id))
            .collect();
        for instance in gone {
            self.end(
                &instance,
                Ending::Final,
                "its process is gone",
                now,
                actions,
            );
        }
    }

    fn end_of_unlisted_services(
        &mut self,
        status: &FleetStatus,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let names: BTreeSet<&ServiceName> = status.services.iter().map(|s| &s.service).collect();
        let gone: Vec<InstanceId> = self
            .entries
            .values()
            .filter(|entry| entry.supervised && entry.is_live() && entry.is_older(status.at, now))
            .filter(|entry| !names.contains(&entry.registration.service))
            .map(|entry| entry.registration.instance.clone())
            .collect();
        for instance in gone {
            self.end(
                &instance,
                Ending::Final,
                "its service left the fleet",
                now,
                actions,
            );
        }
    }
}

/// Whether an instance in this state is to be found. One that was asked to end is not: who drains must not
/// be sent new work.
const fn serves(state: InstanceState) -> bool {
    matches!(state, InstanceState::Starting | InstanceState::Running)
}

fn ending_words(transition: &Transition) -> String {
    match (&transition.exit, transition.to) {
        (_, InstanceState::Stopping) => "was asked to stop".to_owned(),
        (Some(exit), _) => exit.cause.clone(),
        (None, _) => transition.reason.clone(),
    }
}

/// The port named `http`, or the only one.
fn http_endpoint(slot: &InstanceStatus) -> Option<String> {
    let only = || {
        (slot.ports.len() == 1)
            .then(|| slot.ports.values().next().copied())
            .flatten()
    };
    let port = slot.ports.get("http").copied().or_else(only)?;
    Some(format!("http://127.0.0.1:{port}"))
}
