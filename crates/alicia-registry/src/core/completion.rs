//! What the file says of a service and its program does not say itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use alicia_contract::discovery::{Capability, Kind, Registration};
use alicia_contract::fleet::{CapabilitySpec, Fleet};
use alicia_contract::id::InstanceId;

use super::binding::{DERIVED_OWNER, VERSION_UNKNOWN};
use super::{Action, Registry};

impl Registry {
    /// Adds what the file says to what an instance said of itself. The instance's own words win.
    pub(super) fn complete(&self, registration: &mut Registration) {
        let Some(spec) = self.fleet.services.get(&registration.service) else {
            return;
        };
        if let Some(kind) = spec.kind.filter(|_| registration.kind == Kind::Service) {
            registration.kind = kind;
        }
        if let Some(version) = &spec.version
            && registration.version == VERSION_UNKNOWN
        {
            registration.version.clone_from(version);
        }
        let said: BTreeSet<&str> = registration
            .capabilities
            .iter()
            .map(|capability| capability.name.as_str())
            .collect();
        let more: Vec<Capability> = spec
            .capabilities
            .iter()
            .filter(|of_file: &&CapabilitySpec| !said.contains(of_file.name.as_str()))
            .map(Capability::from)
            .collect();
        registration.capabilities.extend(more);
    }

    /// Another file: entries that the registry made by itself follow it. Instances that register themselves do
    /// so with their next renewal.
    pub(super) fn take_fleet(&mut self, fleet: Arc<Fleet>, actions: &mut Vec<Action>) {
        self.fleet = fleet;
        let derived: Vec<InstanceId> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.owner == DERIVED_OWNER && entry.is_live())
            .map(|(instance, _)| instance.clone())
            .collect();
        for instance in derived {
            self.derive_again(&instance, actions);
        }
    }

    fn derive_again(&mut self, instance: &InstanceId, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get(instance) else {
            return;
        };
        let Some(spec) = self.fleet.services.get(&entry.registration.service) else {
            return;
        };
        let mut registration = Registration {
            kind: Kind::Service,
            version: VERSION_UNKNOWN.to_owned(),
            capabilities: Vec::new(),
            labels: spec.labels.clone(),
            ..entry.registration.clone()
        };
        self.complete(&mut registration);
        let Some(entry) = self.entries.get_mut(instance) else {
            return;
        };
        if entry.registration != registration {
            entry.registration = registration;
            actions.push(Action::Save(Box::new(entry.clone())));
            actions.push(Action::Announce(entry.registration.service.clone()));
        }
    }
}
