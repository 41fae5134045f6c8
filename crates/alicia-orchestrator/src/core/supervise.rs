//! Supervision trees: who is restarted with one that ended, and what happens when it is too much.
//!
//! ```text
//!  an instance ends ─► its service's rules ─► its group's ─► the group above ─► …
//!                       too many restarts? ──────┘              │ none above
//!                       no: those of the strategy end and come back      ▼
//!                                                    all of it is `failed`, tried again slowly
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use alicia_contract::ServiceName;
use alicia_contract::fleet::{Strategy, Supervision};
use alicia_contract::orchestrator::InstanceState;

use super::event::SlotId;
use super::plan::in_start_order;
use super::service::BringBack;
use super::{Core, command};

/// Groups above each other: more is a mistake of the file, which `alicia check` finds.
const DEPTH_MAX: usize = 32;

/// Who may be restarted together.
#[derive(Debug)]
enum Circle {
    /// Nobody supervises.
    Nobody,
    /// The instances of one service.
    Service(ServiceName),
    /// All services in these groups.
    Groups(BTreeSet<ServiceName>),
}

/// When one who supervises had to restart somebody.
#[derive(Debug, Default)]
pub(super) struct Storms {
    at: VecDeque<Duration>,
}

impl Storms {
    /// Counts one. `true`: that was one too many, and the count begins anew.
    fn add(&mut self, now: Duration, rules: &Supervision) -> bool {
        if rules.restarts == 0 {
            return false;
        }
        let within = rules.within.duration();
        self.at.retain(|at| now.saturating_sub(*at) <= within);
        self.at.push_back(now);
        let too_many = self.at.len() > rules.restarts as usize;
        if too_many {
            self.at.clear();
        }
        too_many
    }
}

impl Core {
    /// A slot has to be restarted: those who are restarted with it are asked to end. `true`: it was too
    /// much, and the slot was dealt with.
    pub(super) fn supervise(&mut self, id: &SlotId, cause: &str) -> bool {
        let now = self.now.monotonic;
        let mut child: BTreeSet<SlotId> = BTreeSet::from([id.clone()]);
        let mut escalated = None;
        let own = self.spec_of(id).and_then(|spec| spec.supervision.clone());
        if let Some(rules) = own {
            let Some(service) = self.services.get_mut(&id.service) else {
                return false;
            };
            let all: BTreeSet<SlotId> = command::ids(&id.service, service).into_iter().collect();
            if !service.storms.add(now, &rules) {
                let others = match rules.strategy {
                    Strategy::OneForOne => BTreeSet::new(),
                    Strategy::OneForAll => all,
                    Strategy::RestForOne => all
                        .into_iter()
                        .filter(|other| other.slot > id.slot)
                        .collect(),
                };
                self.bring_down(
                    id,
                    &others,
                    &format!("{id} ended, and it is restarted with it"),
                );
                return false;
            }
            child = all;
            escalated = Some(format!("{} was restarted too often", id.service));
        }
        let mut group = self.group_of(&id.service);
        for _ in 0..DEPTH_MAX {
            let Some(name) = group else { break };
            let spec = self.fleet.groups.get(&name).cloned().unwrap_or_default();
            let rules = spec.supervision.unwrap_or_default();
            if !self
                .storms
                .entry(name.clone())
                .or_default()
                .add(now, &rules)
            {
                let others = self.affected(&name, rules.strategy, &child, escalated.is_some());
                let why = escalated.unwrap_or_else(|| format!("{id} ended"));
                let reason = format!("{why}, and it is restarted with it (group {name})");
                self.bring_down(id, &others, &reason);
                return false;
            }
            child = self.slots_of_group(&name);
            escalated = Some(format!("the group {name} was restarted too often"));
            group = spec.parent;
        }
        let Some(why) = escalated else { return false };
        self.fail_together(id, &child, &format!("{cause}; {why}"));
        true
    }

    /// The slots that are restarted with a child of a group.
    fn affected(
        &self,
        group: &ServiceName,
        strategy: Strategy,
        child: &BTreeSet<SlotId>,
        is_unit: bool,
    ) -> BTreeSet<SlotId> {
        match strategy {
            Strategy::OneForOne if is_unit => child.clone(),
            Strategy::OneForOne => BTreeSet::new(),
            Strategy::OneForAll => self.slots_of_group(group),
            Strategy::RestForOne => {
                let members = self.slots_of_group(group);
                let services: BTreeSet<ServiceName> =
                    members.iter().map(|id| id.service.clone()).collect();
                let order = in_start_order(&self.fleet, &services);
                let first = order
                    .iter()
                    .position(|name| child.iter().any(|id| id.service == *name));
                let rest: BTreeSet<&ServiceName> = order
                    .iter()
                    .skip(first.map_or(0, |first| first + 1))
                    .collect();
                let mut affected: BTreeSet<SlotId> = members
                    .iter()
                    .filter(|id| rest.contains(&id.service))
                    .cloned()
                    .collect();
                if is_unit {
                    affected.extend(child.iter().cloned());
                }
                affected
            }
        }
    }

    /// The group that supervises a service: the first of its groups that has rules.
    fn group_of(&self, service: &ServiceName) -> Option<ServiceName> {
        let groups = &self.services.get(service)?.spec.groups;
        groups
            .iter()
            .find(|name| {
                let spec = self.fleet.groups.get(*name);
                spec.is_some_and(|spec| spec.supervision.is_some())
            })
            .cloned()
    }

    /// All slots of the services of a group and of the groups below it.
    fn slots_of_group(&self, group: &ServiceName) -> BTreeSet<SlotId> {
        let groups = self.groups_below(group);
        self.services
            .iter()
            .filter(|(_, service)| service.spec.groups.iter().any(|name| groups.contains(name)))
            .flat_map(|(name, service)| command::ids(name, service))
            .collect()
    }

    /// A group and those below it.
    pub(super) fn groups_below(&self, group: &ServiceName) -> BTreeSet<ServiceName> {
        let mut found = BTreeSet::from([group.clone()]);
        for _ in 0..DEPTH_MAX {
            let below: Vec<ServiceName> = self
                .fleet
                .groups
                .iter()
                .filter(|(name, spec)| {
                    !found.contains(*name)
                        && spec
                            .parent
                            .as_ref()
                            .is_some_and(|parent| found.contains(parent))
                })
                .map(|(name, _)| name.clone())
                .collect();
            if below.is_empty() {
                break;
            }
            found.extend(below);
        }
        found
    }

    /// Those who may be restarted together with a service.
    fn circle(&self, service: &ServiceName) -> Circle {
        let own = self.services.get(service);
        let mut top = self.group_of(service);
        for _ in 0..DEPTH_MAX {
            let parent = top
                .as_ref()
                .and_then(|name| self.fleet.groups.get(name)?.parent.clone());
            match parent {
                Some(parent) => top = Some(parent),
                None => break,
            }
        }
        match (top, own) {
            (Some(group), _) => Circle::Groups(self.groups_below(&group)),
            (None, Some(own)) if own.spec.supervision.is_some() => Circle::Service(service.clone()),
            _ => Circle::Nobody,
        }
    }

    fn is_in(&self, circle: &Circle, service: &ServiceName) -> bool {
        match circle {
            Circle::Nobody => false,
            Circle::Service(name) => name == service,
            Circle::Groups(groups) => {
                let found = self.services.get(service);
                found.is_some_and(|found| found.spec.groups.iter().any(|it| groups.contains(it)))
            }
        }
    }

    /// Whether others have to end before this one may start.
    pub(super) fn is_being_brought_down(&self, id: &SlotId) -> bool {
        !self.falling.is_empty() && self.is_circle_falling(&id.service)
    }

    /// Whether one of those who are restarted together with a service has yet to end.
    pub(super) fn is_circle_falling(&self, service: &ServiceName) -> bool {
        if self.falling.is_empty() {
            return false;
        }
        let circle = self.circle(service);
        self.falling.iter().any(|id| {
            let is_down = self.slot(id).is_none_or(|slot| {
                slot.run.is_none() || slot.bring_back.as_ref().is_none_or(|back| back.slowly)
            });
            !is_down && self.is_in(&circle, &id.service)
        })
    }

    /// Has all who wait for the end of others looked at again.
    pub(super) fn touch_circle(&mut self, service: &ServiceName) {
        let circle = self.circle(service);
        let names: Vec<ServiceName> = self
            .services
            .keys()
            .filter(|name| self.is_in(&circle, name))
            .cloned()
            .collect();
        self.dirty.extend(names);
    }

    fn bring_down(&mut self, but: &SlotId, slots: &BTreeSet<SlotId>, reason: &str) {
        for id in slots.iter().filter(|id| *id != but) {
            let Some(slot) = self.slot_mut(id) else {
                continue;
            };
            if slot.run.as_ref().is_some_and(|run| !run.ended) && slot.bring_back.is_none() {
                slot.bring_back = Some(BringBack {
                    reason: reason.to_owned(),
                    slowly: false,
                });
                self.falling.insert(id.clone());
                self.touch(&id.service);
            }
        }
    }

    /// It was too much: all of them end, and are tried again slowly.
    fn fail_together(&mut self, id: &SlotId, slots: &BTreeSet<SlotId>, reason: &str) {
        for other in slots.iter().filter(|other| *other != id) {
            let Some(slot) = self.slot_mut(other) else {
                continue;
            };
            if slot.run.as_ref().is_some_and(|run| !run.ended) {
                slot.bring_back = Some(BringBack {
                    reason: reason.to_owned(),
                    slowly: true,
                });
                self.touch(&other.service);
            } else if slot.state == InstanceState::Backoff {
                self.fail_slowly(other, reason);
            }
        }
        self.fail_slowly(id, reason);
    }
}
