//! Commands, resolved against the fleet before they are written down: what people ask for beside the file.

use std::collections::{BTreeMap, BTreeSet};

use alicia_contract::ServiceName;
use alicia_contract::fleet::{Fleet, INSTANCES_MAX, Port, ServiceSpec};
use alicia_contract::orchestrator::Verb;

/// Which services run when nobody has said anything about them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Services and groups; none: all.
    pub only: Vec<ServiceName>,
    /// The profiles that are asked for.
    pub profiles: Vec<ServiceName>,
}

/// What people asked for one service, beside the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Started or stopped.
    pub enabled: Option<bool>,
    /// Scaled.
    pub scale: Option<Scale>,
}

/// A number of instances that somebody asked for. It lapses when the number in the file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// What was asked for.
    pub instances: u32,
    /// What the file said then.
    pub file_instances: u32,
}

/// A command, resolved: valid, and all its services exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What to do.
    pub verb: Verb,
    /// The services that it acts on, in order of start.
    pub services: Vec<ServiceName>,
    /// For a start: what they need, which is started with them.
    pub needed: Vec<ServiceName>,
    /// Whether they were named; else it is about the whole fleet.
    pub named: bool,
    /// For a change of the number of instances.
    pub instances: u32,
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither a service nor a group.
    #[error("find the service or group `{name}`{}", offer(.nearest.as_ref()))]
    UnknownService {
        /// What was asked for.
        name: ServiceName,
        /// The most similar name that there is.
        nearest: Option<ServiceName>,
    },
    /// `scale` without a number of instances.
    #[error("scale: say how many `instances`, from 0 to {INSTANCES_MAX}")]
    InstancesMissing,
    /// Too many.
    #[error("scale to {0} instances: {INSTANCES_MAX} is the most")]
    TooManyInstances(u32),
    /// `scale` of no service or of several.
    #[error("scale: name exactly one service")]
    NotOneService,
    /// Several instances cannot share a port.
    #[error(
        "scale {service} to {instances} instances: port {port} can only be used by one; write `{name}: auto` in its ports"
    )]
    FixedPort {
        /// The service.
        service: ServiceName,
        /// How many were asked for.
        instances: u32,
        /// The name of the port.
        name: ServiceName,
        /// The port.
        port: u16,
    },
}

fn offer(name: Option<&ServiceName>) -> String {
    name.map(|name| format!(": there is `{name}`"))
        .unwrap_or_default()
}

impl Plan {
    /// Resolves a command: names may be services or groups, none means the whole fleet.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn new(
        fleet: &Fleet,
        selection: &Selection,
        verb: Verb,
        request: &PlanRequest<'_>,
    ) -> Result<Self, Refusal> {
        let named = !request.names.is_empty();
        let services = if named {
            named_services(fleet, request.names)?
        } else {
            everything(fleet, selection, verb)
        };
        let mut needed = match verb {
            Verb::Start | Verb::Restart => closure(fleet, &services),
            Verb::Stop | Verb::Scale | Verb::Pause | Verb::Resume => BTreeSet::new(),
        };
        needed.retain(|name| !services.contains(name));
        let plan = Self {
            verb,
            services: in_start_order(fleet, &services),
            needed: in_start_order(fleet, &needed),
            named,
            instances: request.instances.unwrap_or_default(),
        };
        if verb == Verb::Scale {
            plan.check_scale(fleet, request.instances)?;
        }
        Ok(plan)
    }

    fn check_scale(&self, fleet: &Fleet, instances: Option<u32>) -> Result<(), Refusal> {
        let instances = instances.ok_or(Refusal::InstancesMissing)?;
        if instances > INSTANCES_MAX {
            return Err(Refusal::TooManyInstances(instances));
        }
        let ([service], true) = (self.services.as_slice(), self.named) else {
            return Err(Refusal::NotOneService);
        };
        match fleet
            .services
            .get(service)
            .and_then(|spec| fixed_port(spec))
        {
            Some((name, port)) if instances > 1 => Err(Refusal::FixedPort {
                service: service.clone(),
                instances,
                name: name.clone(),
                port,
            }),
            _ => Ok(()),
        }
    }

    /// What is to be remembered, by service: what the plan sets, and nothing else.
    #[must_use]
    pub fn overrides(&self, fleet: &Fleet) -> BTreeMap<ServiceName, Overrides> {
        let set = |enabled| Overrides {
            enabled: Some(enabled),
            scale: None,
        };
        let all = self.services.iter().chain(&self.needed);
        match self.verb {
            Verb::Start | Verb::Restart => all.map(|name| (name.clone(), set(true))).collect(),
            Verb::Stop => all.map(|name| (name.clone(), set(false))).collect(),
            Verb::Pause | Verb::Resume => BTreeMap::new(),
            Verb::Scale => all
                .filter_map(|name| {
                    let file_instances = fleet.services.get(name)?.instances;
                    let scale = Some(Scale {
                        instances: self.instances,
                        file_instances,
                    });
                    Some((
                        name.clone(),
                        Overrides {
                            enabled: None,
                            scale,
                        },
                    ))
                })
                .collect(),
        }
    }
}

/// What a [`Plan`] is made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlanRequest<'r> {
    /// Services and groups.
    pub names: &'r [ServiceName],
    /// For `scale`.
    pub instances: Option<u32>,
}

// === impl Overrides ===

impl Overrides {
    /// Takes over what `newer` sets.
    pub fn merge(&mut self, newer: Self) {
        self.enabled = newer.enabled.or(self.enabled);
        self.scale = newer.scale.or(self.scale);
    }

    /// How many instances are wanted, when the file says `file_instances`; `otherwise`, where nobody asked for a
    /// number beside that of the file.
    #[must_use]
    pub fn wanted_or(&self, file_instances: u32, otherwise: u32) -> u32 {
        self.scale
            .filter(|scale| scale.file_instances == file_instances)
            .map_or(otherwise, |scale| scale.instances)
            .min(INSTANCES_MAX)
    }
}

// === impl Selection ===

impl Selection {
    /// The services that run by themselves: those selected, and what they need.
    #[must_use]
    pub fn services(&self, fleet: &Fleet) -> BTreeSet<ServiceName> {
        let chosen = fleet
            .services
            .iter()
            .filter(|(name, spec)| self.selects(name, spec))
            .map(|(name, _)| name.clone())
            .collect();
        closure(fleet, &chosen)
    }

    fn selects(&self, name: &ServiceName, spec: &ServiceSpec) -> bool {
        if self.only.is_empty() {
            spec.profiles.is_empty() || spec.profiles.iter().any(|p| self.profiles.contains(p))
        } else {
            self.only.contains(name) || spec.groups.iter().any(|group| self.only.contains(group))
        }
    }
}

/// The first port that only one instance can use.
fn fixed_port(spec: &ServiceSpec) -> Option<(&ServiceName, u16)> {
    spec.ports.iter().find_map(|(name, port)| match port {
        Port::Fixed(number) => Some((name, *number)),
        Port::Auto | Port::Held(_) => None,
    })
}

/// The whole fleet: a start means what runs by itself, everything else means everything.
fn everything(fleet: &Fleet, selection: &Selection, verb: Verb) -> BTreeSet<ServiceName> {
    match verb {
        Verb::Start | Verb::Restart => selection.services(fleet),
        Verb::Stop | Verb::Scale | Verb::Pause | Verb::Resume => {
            fleet.services.keys().cloned().collect()
        }
    }
}

fn named_services(fleet: &Fleet, names: &[ServiceName]) -> Result<BTreeSet<ServiceName>, Refusal> {
    let mut found = BTreeSet::new();
    for name in names {
        let before = found.len();
        let members = fleet
            .services
            .iter()
            .filter(|(_, spec)| spec.groups.contains(name));
        found.extend(members.map(|(member, _)| member.clone()));
        if fleet.services.contains_key(name) {
            found.insert(name.clone());
        } else if found.len() == before && !is_group(fleet, name) {
            return Err(unknown(fleet, name));
        }
    }
    Ok(found)
}

fn is_group(fleet: &Fleet, name: &ServiceName) -> bool {
    fleet
        .services
        .values()
        .any(|spec| spec.groups.contains(name))
}

fn unknown(fleet: &Fleet, name: &ServiceName) -> Refusal {
    let groups = fleet.services.values().flat_map(|spec| &spec.groups);
    let known = fleet.services.keys().chain(groups).map(ServiceName::as_str);
    let nearest = alicia_file::nearest(name.as_str(), known);
    Refusal::UnknownService {
        name: name.clone(),
        nearest: nearest.and_then(|name| ServiceName::new(name).ok()),
    }
}

/// These services and everything that they need, directly or not.
#[must_use]
pub fn closure(fleet: &Fleet, services: &BTreeSet<ServiceName>) -> BTreeSet<ServiceName> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&ServiceName> = services.iter().collect();
    while let Some(name) = open.pop() {
        if let Some(spec) = fleet.services.get(name)
            && found.insert(name.clone())
        {
            open.extend(spec.depends_on.0.keys());
        }
    }
    found
}

/// The services in an order in which each comes after what it needs; by name where the graph leaves it
/// open. A cycle, which the file does not allow, ends up in the order of names.
#[must_use]
pub fn in_start_order(fleet: &Fleet, services: &BTreeSet<ServiceName>) -> Vec<ServiceName> {
    let mut order = Vec::with_capacity(services.len());
    let mut seen = BTreeSet::new();
    for name in services {
        // Depth first, with the stack in our own hands: a long chain is no recursion.
        let mut stack = vec![(name, false)];
        while let Some((name, needs_done)) = stack.pop() {
            if needs_done {
                if services.contains(name) {
                    order.push(name.clone());
                }
            } else if seen.insert(name) {
                stack.push((name, true));
                if let Some(spec) = fleet.services.get(name) {
                    stack.extend(spec.depends_on.0.keys().rev().map(|need| (need, false)));
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).expect("a name")
    }

    fn names(text: &str) -> Vec<ServiceName> {
        text.split_whitespace().map(name).collect()
    }

    fn fleet() -> Fleet {
        serde_json::from_value(json!({ "name": "home", "services": {
            "api": { "command": "api", "depends_on": ["db", "migrate"], "groups": ["web"] },
            "db": { "command": "db", "ports": {"sql": 5432} },
            "debugger": { "command": "d", "profiles": ["dev"], "depends_on": ["probe-tool"] },
            "migrate": { "command": "m", "depends_on": ["db"] },
            "probe-tool": { "command": "p", "profiles": ["dev"] },
            "worker": { "command": "w", "groups": ["web"], "depends_on": {"api": "started"} },
        }}))
        .expect("a fleet")
    }

    fn plan(verb: Verb, text: &str, instances: Option<u32>) -> Result<Plan, Refusal> {
        let names = names(text);
        let request = PlanRequest {
            names: &names,
            instances,
        };
        Plan::new(&fleet(), &Selection::default(), verb, &request)
    }

    #[test]
    fn names_and_groups_are_resolved_in_start_order_with_what_they_need() {
        let check = |verb, asked: &str, services: &str, needed: &str| {
            let plan = plan(verb, asked, None).expect(asked);
            assert_eq!(plan.services, names(services), "{asked}");
            assert_eq!(plan.needed, names(needed), "{asked}");
        };
        check(Verb::Start, "api", "api", "db migrate");
        check(Verb::Start, "web", "api worker", "db migrate");
        check(Verb::Start, "", "db migrate api worker", "");
        check(Verb::Start, "debugger", "debugger", "probe-tool");
        check(Verb::Stop, "db", "db", "");
        check(
            Verb::Stop,
            "",
            "db migrate api probe-tool debugger worker",
            "",
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_what_to_do() {
        let check = |verb, asked: &str, instances, said: &str| {
            let refusal = plan(verb, asked, instances).expect_err(asked);
            assert!(refusal.to_string().contains(said), "{refusal}");
        };
        check(Verb::Start, "ap", None, "there is `api`");
        check(Verb::Stop, "zzzz", None, "`zzzz`");
        check(Verb::Scale, "api", None, "`instances`");
        check(Verb::Scale, "api", Some(1_001), "1000");
        check(Verb::Scale, "", Some(2), "exactly one");
        check(Verb::Scale, "web", Some(2), "exactly one");
        check(Verb::Scale, "db", Some(2), "auto");
        assert!(plan(Verb::Scale, "db", Some(1)).is_ok());
        assert!(plan(Verb::Scale, "api", Some(0)).is_ok());
    }

    #[test]
    fn profiles_and_names_select_what_runs_by_itself() {
        let check = |only: &str, profiles: &str, expected: &str| {
            let selection = Selection {
                only: names(only),
                profiles: names(profiles),
            };
            let services = selection.services(&fleet());
            assert_eq!(
                services,
                names(expected).into_iter().collect(),
                "{only} {profiles}"
            );
        };
        check("", "", "api db migrate worker");
        check("", "dev", "api db debugger migrate probe-tool worker");
        check("web", "", "api db migrate worker");
        check("migrate", "", "db migrate");
        check("debugger", "", "debugger probe-tool");
    }

    #[test]
    fn a_scale_lapses_when_the_file_says_another_number() {
        let scale = Scale {
            instances: 5,
            file_instances: 2,
        };
        let overrides = Overrides {
            enabled: None,
            scale: Some(scale),
        };
        assert_eq!(overrides.wanted_or(2, 2), 5);
        assert_eq!(overrides.wanted_or(3, 3), 3);
    }
}
