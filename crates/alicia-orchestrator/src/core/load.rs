//! How many instances the load of a service asks for, beside the file.

use std::collections::BTreeMap;
use std::sync::Arc;

use alicia_contract::ServiceName;
use alicia_contract::fleet::{INSTANCES_MAX, ServiceSpec};

use super::Core;
use super::plan::Overrides;

/// What the load of a service says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// The number that scaling decided on; none: that of the file.
    pub(super) scaled: Option<u32>,
    /// For a service that runs on demand: nobody wants it now.
    pub(super) asleep: bool,
}

impl Load {
    /// How many instances are wanted, when the file says `file_instances` and people asked for `overrides`: how many
    /// of those who are awake.
    pub(super) fn wanted(&self, file_instances: u32, overrides: Overrides) -> u32 {
        match self.asleep {
            true => 0,
            false => overrides.wanted_or(file_instances, self.scaled.unwrap_or(file_instances)),
        }
    }
}

impl Core {
    /// Somebody connects to a service that runs on demand. What it needs wakes up first, where that sleeps too.
    pub(super) fn called(&mut self, name: &ServiceName) {
        let mut open = vec![name.clone()];
        while let Some(name) = open.pop() {
            let Some(service) = self.services.get_mut(&name) else {
                continue;
            };
            if std::mem::take(&mut service.load.asleep) {
                open.extend(service.spec.depends_on.0.keys().cloned());
                self.count_wanted(&name);
            }
        }
    }

    /// Nobody has been connected to a service on demand for its idle time.
    pub(super) fn idle(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        if service.spec.on_demand.is_some() && service.update.is_none() {
            service.load.asleep = true;
            self.count_wanted(name);
        }
    }

    /// Scaling decided on a number of instances.
    pub(super) fn scaled(&mut self, name: &ServiceName, instances: u32) {
        if let Some(service) = self.services.get_mut(name)
            && service.spec.scaling.is_some()
        {
            service.load.scaled = Some(instances.min(INSTANCES_MAX));
            self.count_wanted(name);
        }
    }

    /// Services on demand that wait for their first client.
    pub fn sleepers(&self) -> impl Iterator<Item = (&ServiceName, &Arc<ServiceSpec>)> {
        let asleep = self.services.iter().filter(|(_, service)| {
            service.present
                && service.enabled
                && service.load.asleep
                && service.spec.on_demand.is_some()
        });
        asleep.map(|(name, service)| (name, &service.spec))
    }

    /// Services on demand that run.
    pub fn awake(&self) -> impl Iterator<Item = (&ServiceName, &Arc<ServiceSpec>)> {
        let awake = self.services.iter().filter(|(_, service)| {
            service.present
                && service.enabled
                && !service.load.asleep
                && service.spec.on_demand.is_some()
        });
        awake.map(|(name, service)| (name, &service.spec))
    }

    /// How many instances of a service are wanted now, and whether a person said so.
    #[must_use]
    pub fn wanted_of(&self, name: &ServiceName) -> Option<(u32, bool)> {
        let service = self.services.get(name).filter(|service| service.enabled)?;
        let overrides = self.overrides.get(name).copied().unwrap_or_default();
        let instances = service.spec.instances;
        let by_hand = overrides
            .scale
            .is_some_and(|scale| scale.file_instances == instances);
        Some((service.wanted, by_hand))
    }

    /// Of each service what people asked for, and whether any instance is there.
    #[must_use]
    pub fn known(&self) -> BTreeMap<ServiceName, (Overrides, bool)> {
        let services = self.services.iter();
        services
            .map(|(name, service)| {
                let overrides = self.overrides.get(name).copied().unwrap_or_default();
                let runs = service.slots.values().any(|slot| slot.run.is_some());
                (name.clone(), (overrides, runs))
            })
            .collect()
    }

    /// The settings of every service that is in the file or has a run: while it is updated, all its versions.
    pub fn all_specs(&self) -> impl Iterator<Item = (&ServiceName, &Arc<ServiceSpec>)> {
        self.services.iter().flat_map(|(name, service)| {
            let pinned = service
                .slots
                .values()
                .filter_map(|slot| slot.pinned.as_ref());
            let own = service.present.then_some(&service.spec);
            own.into_iter()
                .chain(pinned.map(|pinned| &pinned.spec))
                .map(move |spec| (name, spec))
        })
    }
}
