//! Who offers what: the index by capability that `resolve` reads.
//!
//! Instances that say the same of a capability share one *offer*: version, tags and schemas are looked at once
//! for all of them. Within an offer its members are kept in the order in which they are to be chosen, so that
//! the best few of ten thousand are found without looking at the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use alicia_contract::discovery::{Capability, Registration, Standing};
use alicia_contract::id::{InstanceId, ServiceName};
use alicia_schema::Checked;
use semver::Version;

/// How an instance stands among those that offer the same. The least is chosen first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// How well it is.
    pub standing: Standing,
    /// Calls under way and cores in use, in tenths: smaller differences say nothing.
    pub load_tenths: u32,
    /// When it was last chosen, counted: who waited longest is next.
    pub turn: u64,
}

/// A capability as some instances of one service offer it.
#[derive(Debug)]
pub struct Offer {
    /// The service.
    pub service: ServiceName,
    /// What they say of it.
    pub capability: Capability,
    /// Its version, read.
    pub version: Version,
    /// Who offers it, in the order in which they are to be chosen.
    pub members: BTreeSet<(Place, InstanceId)>,
    /// How many of them there are of each standing.
    standings: [u32; Standing::ALL.len()],
    input: OnceLock<Option<Arc<Checked>>>,
    output: OnceLock<Option<Arc<Checked>>>,
    key: String,
}

// === impl Offer ===

impl Offer {
    /// What an input is checked against; `None` when nothing is said of it.
    pub fn input(&self) -> Option<&Arc<Checked>> {
        // The schema was compiled when it was registered; one that a later version refuses checks nothing.
        let schema = &self.capability.input_schema;
        self.input
            .get_or_init(|| Checked::new(schema).ok().map(Arc::new))
            .as_ref()
    }

    /// What an output is checked against; `None` when nothing is said of it.
    pub fn output(&self) -> Option<&Arc<Checked>> {
        let schema = &self.capability.output_schema;
        self.output
            .get_or_init(|| Checked::new(schema).ok().map(Arc::new))
            .as_ref()
    }

    /// How many members stand so.
    #[must_use]
    pub fn count(&self, standing: Standing) -> u32 {
        self.standings[standing as usize]
    }
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Offers {
    offers: HashMap<u64, Offer>,
    by_key: HashMap<String, u64>,
    by_name: BTreeMap<ServiceName, BTreeSet<u64>>,
    held: HashMap<InstanceId, Held>,
    last_offer: u64,
    last_turn: u64,
}

/// What is known of one instance.
#[derive(Debug, Default)]
struct Held {
    offers: Vec<u64>,
    standing: Option<Standing>,
    /// As its heartbeat says: calls under way there, and tenths of cores.
    reported_calls: u32,
    cpu_tenths: u32,
    /// Calls that the registry has under way with it.
    calls: u32,
    turn: u64,
}

// === impl Held ===

impl Held {
    fn place(&self) -> Option<Place> {
        let calls = self.calls.max(self.reported_calls);
        Some(Place {
            standing: self.standing?,
            load_tenths: calls.saturating_mul(10).saturating_add(self.cpu_tenths),
            turn: self.turn,
        })
    }
}

// === impl Offers ===

impl Offers {
    /// Takes what an instance offers now.
    pub(super) fn put(&mut self, registration: &Registration, standing: Standing) {
        self.take(&registration.instance);
        let ids: Vec<u64> = registration
            .capabilities
            .iter()
            .filter_map(|capability| self.offer_of(&registration.service, capability))
            .collect();
        let held = self.held.entry(registration.instance.clone()).or_default();
        held.offers = ids;
        held.standing = Some(standing);
        self.enter(&registration.instance);
    }

    /// An instance is as well as this now. Of one that offers nothing, nothing is kept.
    pub(super) fn stands(&mut self, instance: &InstanceId, standing: Standing) {
        self.change(instance, |held| held.standing = Some(standing));
    }

    /// What its heartbeat says of its load.
    pub(super) fn reports(&mut self, instance: &InstanceId, calls: u32, cpu_tenths: u32) {
        self.change(instance, |held| {
            (held.reported_calls, held.cpu_tenths) = (calls, cpu_tenths);
        });
    }

    /// A call to it begins; it is the last in turn now.
    pub(super) fn begins(&mut self, instance: &InstanceId) {
        self.last_turn += 1;
        let turn = self.last_turn;
        self.change(instance, |held| {
            held.calls = held.calls.saturating_add(1);
            held.turn = turn;
        });
    }

    /// A call to it came to its end.
    pub(super) fn ends(&mut self, instance: &InstanceId) {
        self.change(instance, |held| held.calls = held.calls.saturating_sub(1));
    }

    /// It offers nothing any more. Calls that are under way are still counted if it comes back.
    pub(super) fn withdraw(&mut self, instance: &InstanceId) {
        self.take(instance);
        let is_idle = self.held.get(instance).is_some_and(|held| held.calls == 0);
        if is_idle {
            self.held.remove(instance);
        }
    }

    pub(super) fn place(&self, instance: &InstanceId) -> Option<Place> {
        self.held.get(instance)?.place()
    }

    /// The offers of a capability.
    pub(super) fn of(&self, name: &ServiceName) -> impl Iterator<Item = &Offer> {
        let ids = self.by_name.get(name).into_iter().flatten();
        ids.filter_map(|id| self.offers.get(id))
    }

    /// The names of all capabilities.
    pub(super) fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.by_name.keys()
    }

    fn change(&mut self, instance: &InstanceId, change: impl FnOnce(&mut Held)) {
        let Some(held) = self.held.get_mut(instance) else {
            return;
        };
        let before = held.place();
        change(held);
        let after = held.place();
        let offers = std::mem::take(&mut held.offers);
        if before != after {
            for offer in &offers {
                let Some(offer) = self.offers.get_mut(offer) else {
                    continue;
                };
                leave(offer, before, instance);
                join(offer, after, instance);
            }
        }
        if let Some(held) = self.held.get_mut(instance) {
            held.offers = offers;
        }
    }

    fn enter(&mut self, instance: &InstanceId) {
        let Some(held) = self.held.get(instance) else {
            return;
        };
        let place = held.place();
        for offer in &held.offers {
            if let Some(offer) = self.offers.get_mut(offer) {
                join(offer, place, instance);
            }
        }
    }

    /// Takes an instance out of the offers that it was in.
    fn take(&mut self, instance: &InstanceId) {
        let Some(held) = self.held.get_mut(instance) else {
            return;
        };
        let place = held.place();
        held.standing = None;
        for id in std::mem::take(&mut held.offers) {
            let Some(offer) = self.offers.get_mut(&id) else {
                continue;
            };
            leave(offer, place, instance);
            if offer.members.is_empty() {
                self.drop_offer(id);
            }
        }
    }

    fn drop_offer(&mut self, id: u64) {
        let Some(offer) = self.offers.remove(&id) else {
            return;
        };
        self.by_key.remove(&offer.key);
        let name = &offer.capability.name;
        if let Some(ids) = self.by_name.get_mut(name) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    /// The offer of this capability by this service, a new one if need be. `None` when its version, saved by
    /// another version of this program, cannot be read.
    fn offer_of(&mut self, service: &ServiceName, capability: &Capability) -> Option<u64> {
        let key = key_of(service, capability);
        if let Some(id) = self.by_key.get(&key) {
            return Some(*id);
        }
        let version = Version::parse(&capability.version).ok()?;
        self.last_offer += 1;
        let id = self.last_offer;
        self.by_key.insert(key.clone(), id);
        self.by_name
            .entry(capability.name.clone())
            .or_default()
            .insert(id);
        let offer = Offer {
            service: service.clone(),
            capability: capability.clone(),
            version,
            members: BTreeSet::new(),
            standings: Default::default(),
            input: OnceLock::new(),
            output: OnceLock::new(),
            key,
        };
        self.offers.insert(id, offer);
        Some(id)
    }
}

/// What makes two offers the same.
fn key_of(service: &ServiceName, capability: &Capability) -> String {
    // Writing a value of this type cannot fail: its keys are texts.
    let said = serde_json::to_string(capability).unwrap_or_default();
    format!("{service}/{said}")
}

fn join(offer: &mut Offer, place: Option<Place>, instance: &InstanceId) {
    let Some(place) = place else {
        return;
    };
    if offer.members.insert((place, instance.clone())) {
        offer.standings[place.standing as usize] += 1;
    }
}

fn leave(offer: &mut Offer, place: Option<Place>, instance: &InstanceId) {
    let Some(place) = place else {
        return;
    };
    if offer.members.remove(&(place, instance.clone())) {
        offer.standings[place.standing as usize] -= 1;
    }
}
