//! The search: sorts the offers into those that fit and those that do not, merges the members of those that fit
//! in the order of preference, and lists candidates as far as was asked for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use alicia_contract::discovery::{
    Candidate, Choice, Preference, Resolution, Standing, Verdict, Wanted,
};
use alicia_contract::id::InstanceId;
use alicia_contract::problem::InputFault;
use semver::Version;

use super::reasons;
use super::{Admission, Query};
use crate::core::{Entry, Offer, Place, Registry};

/// Members that are looked at before the search for one that is admitted ends.
const EXAMINED_MAX: usize = 2_000;

pub(super) struct Search<'r> {
    registry: &'r Registry,
    query: &'r Query,
    admission: &'r dyn Admission,
    tried: &'r BTreeSet<InstanceId>,
    offers: Vec<Judged<'r>>,
    /// Of the service that was named, or all; the newest first.
    versions: Vec<Version>,
    verdicts: BTreeMap<Verdict, u32>,
    listed: Vec<Candidate>,
    omitted: u32,
}

/// An offer and what came of it.
struct Judged<'r> {
    offer: &'r Offer,
    /// None: it fits.
    refusal: Option<(Verdict, String, Vec<InputFault>)>,
}

/// What one member is compared by; the least is chosen first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'r> {
    standing: Standing,
    preferences: [u64; 4],
    turn: u64,
    instance: &'r InstanceId,
    offer: usize,
}

impl<'r> Search<'r> {
    pub(super) fn new(
        registry: &'r Registry,
        query: &'r Query,
        admission: &'r dyn Admission,
        tried: &'r BTreeSet<InstanceId>,
    ) -> Self {
        let mut search = Self {
            registry,
            query,
            admission,
            tried,
            offers: Vec::new(),
            versions: Vec::new(),
            verdicts: BTreeMap::new(),
            listed: Vec::new(),
            omitted: 0,
        };
        let mut versions = BTreeSet::new();
        for offer in registry.offers(&search.wanted().capability) {
            let refusal = search.refusal(offer);
            if !matches!(refusal, Some((Verdict::Service, ..))) {
                versions.insert(&offer.version);
            }
            search.offers.push(Judged { offer, refusal });
        }
        search.versions = versions.into_iter().rev().cloned().collect();
        search
    }

    fn wanted(&self) -> &'r Wanted {
        &self.query.wanted
    }

    /// Why no member of an offer fits.
    fn refusal(&self, offer: &Offer) -> Option<(Verdict, String, Vec<InputFault>)> {
        let wanted = self.wanted();
        let plain = |verdict, reason| Some((verdict, reason, Vec::new()));
        if let Some(service) = wanted
            .service
            .as_ref()
            .filter(|name| **name != offer.service)
        {
            let reason = format!("belongs to {}, not to {service}", offer.service);
            return plain(Verdict::Service, reason);
        }
        if let Some(range) = self
            .query
            .range
            .as_ref()
            .filter(|range| !range.matches(&offer.version))
        {
            let reason = format!("version {} is outside of {range}", offer.version);
            return plain(Verdict::Version, reason);
        }
        let has = &offer.capability.tags;
        if let Some(tag) = wanted.tags.iter().find(|tag| !has.contains(tag)) {
            return plain(Verdict::Tag, format!("has no tag {tag:?}"));
        }
        if let (Some(input), Some(schema)) = (&wanted.input, offer.input()) {
            let faults = schema.faults(input, "/input");
            if let Some(first) = faults.first() {
                let reason = format!(
                    "the input does not fit: {}: {}",
                    first.pointer, first.message
                );
                return Some((Verdict::Input, reason, faults));
            }
        }
        if let Some(narrow) = &wanted.input_schema {
            let faults = alicia_schema::compare(narrow, &offer.capability.input_schema);
            if let Some(first) = faults.first() {
                let reason = format!(
                    "the schemas do not fit: {}: {}",
                    first.pointer, first.message
                );
                return Some((Verdict::InputSchema, reason, faults));
            }
        }
        let (verdict, reason) = self.admission.refuses_offer(offer)?;
        plain(verdict, reason)
    }

    pub(super) fn resolution(mut self) -> Resolution {
        let instances = self.choose();
        self.list_unusable();
        self.list_unfit();
        let detail = self.detail(&instances);
        let nearest = if self.offers.is_empty() {
            reasons::nearest(
                self.wanted().capability.as_str(),
                self.registry.capabilities(),
            )
        } else {
            None
        };
        Resolution {
            capability: self.wanted().capability.clone(),
            instances,
            detail,
            versions: self.versions.iter().map(Version::to_string).collect(),
            nearest,
            verdicts: self.verdicts,
            candidates: self.listed,
            omitted: self.omitted,
            degraded: reasons::degraded(self.registry),
        }
    }

    /// Merges the members of all offers that fit, best first.
    fn choose(&mut self) -> Vec<Choice> {
        let usable = |(place, _): &&(Place, InstanceId)| place.standing.is_usable();
        let fitting = || {
            let offers = self.offers.iter().enumerate();
            offers.filter(|(_, judged)| judged.refusal.is_none())
        };
        let mut members: BTreeMap<usize, _> = fitting()
            .map(|(at, judged)| (at, judged.offer.members.iter().take_while(usable)))
            .collect();
        let total: u32 = fitting()
            .flat_map(|(_, judged)| usable_standings().map(|standing| judged.offer.count(standing)))
            .sum();
        let mut heads = BinaryHeap::new();
        for (at, members) in &mut members {
            if let Some((place, instance)) = members.next() {
                heads.push(Reverse(self.key(*at, place, instance)));
            }
        }
        let (mut chosen, mut examined) = (Vec::new(), 0);
        let mut seen = Vec::new();
        while let Some(Reverse(key)) = heads.pop() {
            let wants_more = chosen.len() < self.query.limit || seen.len() < self.query.explain;
            if !wants_more || examined >= EXAMINED_MAX {
                break;
            }
            examined += 1;
            if let Some((place, instance)) = members.get_mut(&key.offer).and_then(Iterator::next) {
                heads.push(Reverse(self.key(key.offer, place, instance)));
            }
            let Some(entry) = self.registry.get(key.instance) else {
                continue;
            };
            let offer = self.offers[key.offer].offer;
            let refused = self.refuses(entry);
            let (verdict, reason) = match refused {
                Some(refused) => refused,
                None if chosen.len() < self.query.limit => {
                    chosen.push(self.choice(offer, entry, key.standing));
                    (Verdict::Chosen, self.merits(offer, entry, key.standing))
                }
                None => (Verdict::Spare, self.merits(offer, entry, key.standing)),
            };
            seen.push((offer, entry, verdict, reason));
        }
        let mut others = total;
        for (offer, entry, verdict, reason) in seen {
            others = others.saturating_sub(1);
            self.list(offer, entry, verdict, reason, &[]);
        }
        self.count(Verdict::Spare, others);
        chosen
    }

    fn refuses(&self, entry: &Entry) -> Option<(Verdict, String)> {
        if self.tried.contains(&entry.registration.instance) {
            return Some((Verdict::Spare, "was tried just now".to_owned()));
        }
        self.admission.refuses(entry)
    }

    fn key(&self, offer: usize, place: &Place, instance: &'r InstanceId) -> Key<'r> {
        let judged = self.offers[offer].offer;
        let hint = |hint: Option<f64>| hint.map_or(u64::MAX, |hint| hint.max(0.0).to_bits());
        let of = |preference: &Preference| match preference {
            Preference::Load => u64::from(place.load_tenths),
            // Bits of floats that are not negative stand in the order of the floats.
            Preference::Cost => hint(judged.capability.cost_usd),
            Preference::Latency => hint(judged.capability.latency_ms),
            Preference::Version => {
                let newer = self.versions.iter().position(|one| *one == judged.version);
                newer.unwrap_or(usize::MAX) as u64
            }
        };
        let mut preferences = [0; 4];
        for (value, preference) in preferences.iter_mut().zip(&self.query.prefer) {
            *value = of(preference);
        }
        Key {
            standing: place.standing,
            preferences,
            turn: place.turn,
            instance,
            offer,
        }
    }

    fn choice(&self, offer: &Offer, entry: &Entry, standing: Standing) -> Choice {
        let registration = &entry.registration;
        Choice {
            service: registration.service.clone(),
            instance: registration.instance.clone(),
            epoch: registration.epoch,
            kind: registration.kind,
            version: offer.capability.version.clone(),
            endpoints: registration.endpoints.clone(),
            standing,
            load: self.load(entry),
            cost_usd: offer.capability.cost_usd,
            latency_ms: offer.capability.latency_ms,
        }
    }

    fn load(&self, entry: &Entry) -> f64 {
        let place = self.registry.place(&entry.registration.instance);
        f64::from(place.map_or(0, |place| place.load_tenths)) / 10.0
    }

    fn merits(&self, offer: &Offer, entry: &Entry, standing: Standing) -> String {
        let why = self.registry.why(entry, standing);
        let load = self.load(entry);
        let mut merits = format!("{}, load {load}", standing.as_str());
        if standing != Standing::Healthy {
            merits.push_str(&format!(" ({why})"));
        }
        if let Some(cost) = offer.capability.cost_usd {
            merits.push_str(&format!(", {cost} USD"));
        }
        if let Some(latency) = offer.capability.latency_ms {
            merits.push_str(&format!(", {latency} ms"));
        }
        merits
    }

    /// Members of offers that fit, which are not well enough.
    fn list_unusable(&mut self) {
        let standings = || {
            Standing::ALL
                .into_iter()
                .filter(|standing| !standing.is_usable())
        };
        for at in 0..self.offers.len() {
            let Judged { offer, refusal } = &self.offers[at];
            let offer = *offer;
            if refusal.is_some() {
                continue;
            }
            let room = self.query.explain.saturating_sub(self.listed.len());
            let shown: Vec<(Standing, &Entry)> = offer
                .members
                .iter()
                .rev()
                .take_while(|(place, _)| !place.standing.is_usable())
                .take(room)
                .filter_map(|(place, id)| Some((place.standing, self.registry.get(id)?)))
                .collect();
            let mut left: BTreeMap<Standing, u32> = standings()
                .map(|standing| (standing, offer.count(standing)))
                .collect();
            for (standing, entry) in shown {
                if let Some(left) = left.get_mut(&standing) {
                    *left = left.saturating_sub(1);
                }
                let reason = self.registry.why(entry, standing);
                self.list(offer, entry, reasons::verdict(standing), reason, &[]);
            }
            for (standing, left) in left {
                self.count(reasons::verdict(standing), left);
            }
        }
    }

    /// Members of offers that do not fit.
    fn list_unfit(&mut self) {
        for at in 0..self.offers.len() {
            let Some((verdict, reason, faults)) = self.offers[at].refusal.clone() else {
                continue;
            };
            let offer = self.offers[at].offer;
            let room = self.query.explain.saturating_sub(self.listed.len());
            let shown: Vec<&Entry> = offer
                .members
                .iter()
                .take(room)
                .filter_map(|(_, id)| self.registry.get(id))
                .collect();
            let left = offer.members.len() - shown.len();
            for entry in shown {
                self.list(offer, entry, verdict, reason.clone(), &faults);
            }
            self.count(verdict, u32::try_from(left).unwrap_or(u32::MAX));
        }
    }

    fn list(
        &mut self,
        offer: &Offer,
        entry: &Entry,
        verdict: Verdict,
        reason: String,
        faults: &[InputFault],
    ) {
        *self.verdicts.entry(verdict).or_default() += 1;
        if self.listed.len() >= self.query.explain {
            self.omitted = self.omitted.saturating_add(1);
            return;
        }
        self.listed.push(Candidate {
            service: entry.registration.service.clone(),
            instance: entry.registration.instance.clone(),
            version: offer.capability.version.clone(),
            presence: entry.presence,
            verdict,
            reason,
            faults: faults.to_vec(),
        });
    }

    /// Counts candidates that are not listed.
    fn count(&mut self, verdict: Verdict, count: u32) {
        if count > 0 {
            *self.verdicts.entry(verdict).or_default() += count;
            self.omitted = self.omitted.saturating_add(count);
        }
    }

    fn detail(&self, chosen: &[Choice]) -> String {
        let name = &self.wanted().capability;
        if let Some(best) = chosen.first() {
            let (service, instance) = (&best.service, &best.instance);
            return format!(
                "{service} {instance} is the best of {} candidates for {name}",
                self.verdicts.values().sum::<u32>()
            );
        }
        reasons::none(self.registry, self.query, &self.versions, &self.verdicts)
    }
}

fn usable_standings() -> impl Iterator<Item = Standing> {
    Standing::ALL
        .into_iter()
        .filter(|standing| standing.is_usable())
}
