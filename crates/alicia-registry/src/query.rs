//! Finding instances: filters, and pages that stay stable while entries come and go.

use alicia_contract::discovery::{Presence, RegisteredInstance};
use alicia_contract::id::InstanceId;
use semver::{Version, VersionReq};

use crate::core::{Entry, Registry};

/// What to find. Everything that is given must fit.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Has this capability.
    pub capability: Option<String>,
    /// The version of that capability, or without one of the program.
    pub version: Option<VersionReq>,
    /// Is in this state; none: is not gone.
    pub presence: Option<Presence>,
    /// Has this label, with this value if one is given.
    pub label: Option<(String, Option<String>)>,
}

/// Some of the instances found, by id.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The instances.
    pub instances: Vec<RegisteredInstance>,
    /// Where the next page begins; none: this is the last.
    pub next: Option<InstanceId>,
}

/// A page of at most `limit` instances that fit, with ids above `after`.
#[must_use]
pub fn find(
    registry: &Registry,
    filter: &Filter,
    after: Option<&InstanceId>,
    limit: usize,
) -> Page {
    let mut found = registry
        .entries()
        .filter(|(id, _)| after.is_none_or(|after| *id > after))
        .filter(|(_, entry)| fits(filter, entry));
    let instances: Vec<RegisteredInstance> = found
        .by_ref()
        .take(limit)
        .map(|(_, entry)| entry.public())
        .collect();
    let next = found
        .next()
        .and_then(|_| instances.last())
        .map(|last| last.registration.instance.clone());
    Page { instances, next }
}

fn fits(filter: &Filter, entry: &Entry) -> bool {
    let presence = filter
        .presence
        .map_or(entry.is_live(), |wanted| entry.presence == wanted);
    presence && fits_label(filter, entry) && fits_capability(filter, entry)
}

fn fits_label(filter: &Filter, entry: &Entry) -> bool {
    let Some((name, value)) = &filter.label else {
        return true;
    };
    let found = entry.registration.labels.get(name);
    found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
}

fn fits_capability(filter: &Filter, entry: &Entry) -> bool {
    let version_fits = |text: &str| match &filter.version {
        None => true,
        Some(wanted) => Version::parse(text).is_ok_and(|version| wanted.matches(&version)),
    };
    match &filter.capability {
        None => version_fits(&entry.registration.version),
        Some(name) => entry
            .registration
            .capabilities
            .iter()
            .any(|has| has.name.as_str() == name && version_fits(&has.version)),
    }
}
