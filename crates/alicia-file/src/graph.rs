//! The graph of `depends_on`: in which order services start, and what a selection needs. Pure.
//!
//! A dependency on a service that does not exist is no edge here; [`crate::fleet::check`] says it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use alicia_contract::ServiceName;
use alicia_contract::fleet::{Fleet, ServiceSpec};

use crate::nearest::nearest;

/// Services that wait for each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Cycle {
    /// Each needs the next one; the first is repeated at the end.
    pub path: Vec<ServiceName>,
}

/// A name that is neither a service nor a group, or a profile that no service has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("find {found:?} in the fleet{}", nearest.as_ref().map_or(String::new(), |name| format!(", did you mean `{name}`?")))]
pub struct UnknownName {
    /// What was asked for.
    pub found: String,
    /// The nearest name that is known.
    pub nearest: Option<String>,
}

/// What should start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Services and groups. Empty: every service without a profile.
    pub names: Vec<String>,
    /// Profiles; services that have one of them start too when no names are given.
    pub profiles: Vec<String>,
}

/// Every service, each after those that it needs; among equals by name.
///
/// # Errors
/// A cycle.
pub fn order(fleet: &Fleet) -> Result<Vec<ServiceName>, Cycle> {
    levels(fleet).map(|levels| levels.concat())
}

/// The services in levels: each needs only services of levels before its own, and at least one of the level just
/// before it. One level can start at once.
///
/// # Errors
/// A cycle.
pub fn levels(fleet: &Fleet) -> Result<Vec<Vec<ServiceName>>, Cycle> {
    let mut graph = Graph::new(fleet);
    let levels = graph.take_levels();
    match graph.cycle() {
        None => Ok(levels),
        Some(cycle) => Err(cycle),
    }
}

/// Every cycle that shares no service with one before it.
#[must_use]
pub fn cycles(fleet: &Fleet) -> Vec<Cycle> {
    let mut graph = Graph::new(fleet);
    let mut cycles = Vec::new();
    loop {
        graph.take_levels();
        let Some(cycle) = graph.cycle() else {
            return cycles;
        };
        for name in &cycle.path {
            graph.remove(name);
        }
        cycles.push(cycle);
    }
}

/// What must run for a selection: the services themselves and, through any number of steps, all that they need.
///
/// # Errors
/// A name or profile that is not in the fleet.
pub fn needed_by(
    fleet: &Fleet,
    selection: &Selection,
) -> Result<BTreeSet<ServiceName>, UnknownName> {
    let mut needed = BTreeSet::new();
    let mut open: Vec<&ServiceName> = selected(fleet, selection)?;
    while let Some(name) = open.pop() {
        let Some(spec) = fleet.services.get(name) else {
            continue;
        };
        if needed.insert(name.clone()) {
            open.extend(spec.depends_on.0.keys());
        }
    }
    Ok(needed)
}

fn selected<'f>(
    fleet: &'f Fleet,
    selection: &Selection,
) -> Result<Vec<&'f ServiceName>, UnknownName> {
    for profile in &selection.profiles {
        known(
            profile,
            fleet.services.values().flat_map(|spec| &spec.profiles),
        )?;
    }
    for name in &selection.names {
        let groups = fleet.services.values().flat_map(|spec| &spec.groups);
        known(name, fleet.services.keys().chain(groups))?;
    }
    let has = |names: &[ServiceName], asked: &[String]| {
        names
            .iter()
            .any(|name| asked.iter().any(|asked| asked == name.as_str()))
    };
    let starts = |name: &ServiceName, spec: &ServiceSpec| match selection.names.is_empty() {
        true => spec.profiles.is_empty() || has(&spec.profiles, &selection.profiles),
        false => {
            has(std::slice::from_ref(name), &selection.names) || has(&spec.groups, &selection.names)
        }
    };
    let chosen = fleet
        .services
        .iter()
        .filter(|(name, spec)| starts(name, spec));
    Ok(chosen.map(|(name, _)| name).collect())
}

fn known<'n>(
    found: &str,
    names: impl Iterator<Item = &'n ServiceName> + Clone,
) -> Result<(), UnknownName> {
    if names.clone().any(|name| name.as_str() == found) {
        return Ok(());
    }
    Err(UnknownName {
        found: found.to_owned(),
        nearest: nearest(found, names.map(ServiceName::as_str)).map(str::to_owned),
    })
}

/// What is left of the graph while levels are taken off it (Kahn 1962).
struct Graph<'f> {
    /// What each service still waits for.
    needs: BTreeMap<&'f ServiceName, BTreeSet<&'f ServiceName>>,
    /// Who waits for each service.
    needed_by: BTreeMap<&'f ServiceName, Vec<&'f ServiceName>>,
    /// Who waits for nothing.
    free: BTreeSet<&'f ServiceName>,
}

// === impl Graph ===

impl<'f> Graph<'f> {
    fn new(fleet: &'f Fleet) -> Self {
        let mut graph = Self {
            needs: BTreeMap::new(),
            needed_by: BTreeMap::new(),
            free: BTreeSet::new(),
        };
        for (name, spec) in &fleet.services {
            let known = |needed: &&ServiceName| fleet.services.contains_key(*needed);
            let needs: BTreeSet<_> = spec.depends_on.0.keys().filter(known).collect();
            for needed in &needs {
                graph.needed_by.entry(needed).or_default().push(name);
            }
            if needs.is_empty() {
                graph.free.insert(name);
            }
            graph.needs.insert(name, needs);
        }
        graph
    }

    fn take_levels(&mut self) -> Vec<Vec<ServiceName>> {
        let mut levels = Vec::new();
        while !self.free.is_empty() {
            let level = std::mem::take(&mut self.free);
            for name in &level {
                self.remove(name);
            }
            levels.push(level.into_iter().cloned().collect());
        }
        levels
    }

    /// Takes a service out, as if it ran.
    fn remove(&mut self, name: &ServiceName) {
        self.needs.remove(name);
        self.free.remove(name);
        for waiting in self.needed_by.remove(name).unwrap_or_default() {
            let Some(needs) = self.needs.get_mut(waiting) else {
                continue;
            };
            needs.remove(name);
            if needs.is_empty() {
                self.free.insert(waiting);
            }
        }
    }

    /// A cycle of what is left: whoever is left waits for someone who is left, so the walk must come back.
    fn cycle(&self) -> Option<Cycle> {
        let mut path: Vec<&ServiceName> = vec![self.needs.keys().next()?];
        let start = loop {
            let next = self.needs.get(path.last()?)?.first()?;
            match path.iter().position(|name| name == next) {
                Some(start) => break start,
                None => path.push(next),
            }
        };
        let mut path: Vec<ServiceName> = path[start..].iter().map(|name| (*name).clone()).collect();
        let least = (0..path.len()).min_by_key(|at| &path[*at])?;
        path.rotate_left(least);
        path.push(path[0].clone());
        Some(Cycle { path })
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.path.iter().map(ServiceName::as_str).collect();
        f.write_str(&names.join(" → "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// `a: b c, b: c` — who needs whom.
    fn fleet(edges: &str) -> Fleet {
        let services: serde_json::Map<_, _> = edges
            .split(", ")
            .map(|edge| {
                let (name, needs) = edge.split_once(':').unwrap_or((edge, ""));
                let needs: Vec<&str> = needs.split_whitespace().collect();
                (
                    name.to_owned(),
                    json!({ "command": "x", "depends_on": needs }),
                )
            })
            .collect();
        serde_json::from_value(json!({ "name": "test", "services": services })).expect("a fleet")
    }

    fn names(names: &[ServiceName]) -> String {
        names
            .iter()
            .map(ServiceName::as_str)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn what_is_needed_starts_first_and_equals_by_name() {
        let check = |edges: &str, expected: &str| {
            assert_eq!(names(&order(&fleet(edges)).expect(edges)), expected);
        };
        check("a", "a");
        check("c, b, a", "a b c");
        check("a: b, b: c, c", "c b a");
        check("api: db cache, cache, db, web: api", "cache db api web");
        check("a: gone", "a");
    }

    #[test]
    fn a_level_starts_at_once() {
        let levels = levels(&fleet("a: b c, b: d, c: d, d, e")).expect("no cycle");
        let levels: Vec<String> = levels.iter().map(|level| names(level)).collect();
        assert_eq!(levels, ["d e", "b c", "a"]);
    }

    #[test]
    fn a_cycle_is_named_whole() {
        let check = |edges: &str, expected: &str| {
            assert_eq!(order(&fleet(edges)).expect_err(edges).to_string(), expected);
        };
        check("a: a", "a → a");
        check("c: a, a: b, b: c", "a → b → c → a");
        check("x: c, c: a, a: c, z", "a → c → a");
        let all: Vec<String> = cycles(&fleet("a: b, b: a, c: d a, d: c"))
            .iter()
            .map(Cycle::to_string)
            .collect();
        assert_eq!(all, ["a → b → a", "c → d → c"]);
    }

    #[test]
    fn a_selection_brings_what_it_needs() {
        let fleet: Fleet = serde_json::from_value(json!({ "name": "test", "services": {
            "api": { "command": "x", "depends_on": ["db"], "groups": ["front"] },
            "web": { "command": "x", "depends_on": ["api"], "groups": ["front"] },
            "db": { "command": "x" },
            "seed": { "command": "x", "profiles": ["dev"], "depends_on": ["fixtures"] },
            "fixtures": { "command": "x", "profiles": ["never-asked"] },
        }}))
        .expect("a fleet");
        let check = |asked: &[&str], profiles: &[&str], expected: &str| {
            let selection = Selection {
                names: asked.iter().map(ToString::to_string).collect(),
                profiles: profiles.iter().map(ToString::to_string).collect(),
            };
            let found = needed_by(&fleet, &selection)
                .map(|set| names(&set.into_iter().collect::<Vec<_>>()));
            assert_eq!(found.unwrap_or_else(|error| error.to_string()), expected);
        };
        check(&[], &[], "api db web");
        check(&[], &["dev"], "api db fixtures seed web");
        check(&["api"], &[], "api db");
        check(&["front"], &[], "api db web");
        check(&["seed"], &[], "fixtures seed");
        check(
            &["apo"],
            &[],
            "find \"apo\" in the fleet, did you mean `api`?",
        );
        check(&[], &["prod"], "find \"prod\" in the fleet");
    }

    proptest! {
        #[test]
        fn an_order_respects_every_edge_or_the_cycle_is_real(
            edges in proptest::collection::vec((0_u8..12, 0_u8..12), 0..30),
        ) {
            let mut needs = vec![Vec::new(); 12];
            for (from, to) in edges {
                needs[from as usize].push(format!("s{to}"));
            }
            let services: serde_json::Map<_, _> = needs
                .iter()
                .enumerate()
                .map(|(n, needs)| (format!("s{n}"), json!({ "command": "x", "depends_on": needs })))
                .collect();
            let fleet: Fleet = serde_json::from_value(json!({ "name": "t", "services": services })).expect("a fleet");
            match order(&fleet) {
                Ok(order) => {
                    prop_assert_eq!(order.len(), 12);
                    for (at, name) in order.iter().enumerate() {
                        for needed in fleet.services[name].depends_on.0.keys() {
                            prop_assert!(order[..at].contains(needed));
                        }
                    }
                }
                Err(cycle) => {
                    for pair in cycle.path.windows(2) {
                        prop_assert!(fleet.services[&pair[0]].depends_on.0.contains_key(&pair[1]));
                    }
                    prop_assert_eq!(cycle.path.first(), cycle.path.last());
                }
            }
        }
    }
}
