//! The root cause in the graph of dependencies: which service is to blame for what is wrong with another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use alicia_contract::fleet::Fleet;
use alicia_contract::id::ServiceName;

/// A service that is the cause of what is wrong with those that depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The service.
    pub service: ServiceName,
    /// Since when it is bad, for waits.
    pub since: Duration,
}

impl Root {
    /// The reason, as it is shown beside what is held back.
    #[must_use]
    pub fn why(&self) -> String {
        format!("{}, which it depends on, is the cause", self.service)
    }
}

/// Finds the root of what is wrong with a service: of those that it depends on, directly or not, and that are
/// bad, the nearest that depends on no bad one itself. `bad_since` says of a service since when it is bad.
///
/// The work is that of the services and edges above this one.
#[must_use]
pub fn root_of(
    fleet: &Fleet,
    service: &ServiceName,
    bad_since: impl Fn(&ServiceName) -> Option<Duration>,
) -> Option<Root> {
    let above = ancestors(fleet, service);
    let bad: Vec<Root> = above
        .iter()
        .filter_map(|service| {
            let since = bad_since(service)?;
            let service = (*service).clone();
            Some(Root { service, since })
        })
        .collect();
    if bad.len() <= 1 {
        return bad.into_iter().next();
    }
    let caused = caused(fleet, service, &above, &bad);
    // In a circle, which the file's check refuses, everybody is above everybody: then the nearest is blamed.
    let first = bad.iter().position(|root| !caused.contains(&root.service));
    bad.into_iter().nth(first.unwrap_or(0))
}

/// Those that a service depends on, the nearest first, without itself.
fn ancestors<'f>(fleet: &'f Fleet, service: &ServiceName) -> Vec<&'f ServiceName> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let mut ahead: VecDeque<&ServiceName> = needs(fleet, service).collect();
    while let Some(next) = ahead.pop_front() {
        if next == service || !seen.insert(next) {
            continue;
        }
        found.push(next);
        ahead.extend(needs(fleet, next));
    }
    found
}

/// Of a service and those above it: all that depend on a bad one, directly or not.
fn caused<'a>(
    fleet: &'a Fleet,
    service: &'a ServiceName,
    above: &[&'a ServiceName],
    bad: &'a [Root],
) -> BTreeSet<&'a ServiceName> {
    let mut dependents: BTreeMap<&ServiceName, Vec<&ServiceName>> = BTreeMap::new();
    for one in above.iter().copied().chain([service]) {
        for needed in needs(fleet, one) {
            dependents.entry(needed).or_default().push(one);
        }
    }
    let mut caused = BTreeSet::new();
    let mut ahead: Vec<&ServiceName> = bad.iter().map(|root| &root.service).collect();
    while let Some(next) = ahead.pop() {
        let of = dependents.get(next).into_iter().flatten();
        ahead.extend(of.filter(|dependent| caused.insert(**dependent)));
    }
    caused
}

fn needs<'f>(fleet: &'f Fleet, name: &ServiceName) -> impl Iterator<Item = &'f ServiceName> {
    let spec = fleet.services.get(name);
    spec.into_iter().flat_map(|spec| spec.depends_on.0.keys())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_contract::fleet::{Condition, ServiceSpec};
    use proptest::prelude::*;

    fn name(n: usize) -> ServiceName {
        ServiceName::new(format!("s{n}")).expect("an id")
    }

    fn fleet(edges: &[(usize, usize)], services: usize) -> Fleet {
        let mut fleet = Fleet::default();
        for n in 0..services {
            let mut spec = ServiceSpec::new(vec!["program".to_owned()]);
            for (_, needed) in edges.iter().filter(|(from, _)| *from == n) {
                spec.depends_on.0.insert(name(*needed), Condition::Healthy);
            }
            fleet.services.insert(name(n), spec.into());
        }
        fleet
    }

    fn root(fleet: &Fleet, service: usize, bad: &[usize]) -> Option<String> {
        let is_bad = |service: &ServiceName| {
            let bad = bad.iter().any(|n| name(*n) == *service);
            bad.then_some(Duration::from_secs(1))
        };
        root_of(fleet, &name(service), is_bad).map(|root| root.service.to_string())
    }

    #[test]
    fn the_first_of_a_chain_is_blamed_also_through_services_that_are_well() {
        let fleet = fleet(&[(1, 0), (2, 1), (3, 2)], 4);
        let check = |service, bad: &[usize], expected: Option<&str>| {
            assert_eq!(root(&fleet, service, bad).as_deref(), expected);
        };
        check(3, &[], None);
        check(3, &[3], None);
        check(3, &[2], Some("s2"));
        check(3, &[0, 1, 2], Some("s0"));
        check(3, &[0], Some("s0"));
        check(3, &[0, 2], Some("s0"));
        check(0, &[0, 1, 2, 3], None);
    }

    #[test]
    fn in_a_circle_somebody_else_is_blamed_and_it_ends() {
        let fleet = fleet(&[(0, 1), (1, 2), (2, 0)], 3);
        assert_eq!(root(&fleet, 0, &[0, 1, 2]).as_deref(), Some("s1"));
        assert_eq!(root(&fleet, 0, &[0]), None);
    }

    /// The whole of a large fleet fails, in which each service depends on the one before, and some on many.
    #[test]
    fn a_deep_graph_of_which_everything_is_bad_has_one_root() {
        let edges = (1..1_000).flat_map(|n| [(n, n - 1), (n, n / 2)]);
        let edges: Vec<(usize, usize)> = edges.collect();
        let fleet = fleet(&edges, 1_000);
        let all = |_: &ServiceName| Some(Duration::from_secs(1));
        for service in (1..1_000).step_by(9) {
            let root = root_of(&fleet, &name(service), all).map(|root| root.service);
            assert_eq!(root, Some(name(0)), "{service}");
        }
        assert_eq!(root_of(&fleet, &name(0), all), None);
    }

    proptest! {
        /// In a graph without circles: the root is bad, is above the service, has nothing bad above itself;
        /// and there is one exactly when something above is bad.
        #[test]
        fn the_root_has_no_cause_itself(
            edges in prop::collection::vec((0..12_usize, 0..12_usize), 0..40),
            bad in prop::collection::btree_set(0..12_usize, 0..8),
            service in 0..12_usize,
        ) {
            let edges: Vec<_> = edges.into_iter().filter(|(from, to)| to < from).collect();
            let fleet = fleet(&edges, 12);
            let bad: Vec<usize> = bad.into_iter().collect();
            let is_bad = |of: &ServiceName| bad.iter().any(|n| name(*n) == *of);
            let above = |of: &ServiceName| -> Vec<ServiceName> {
                ancestors(&fleet, of).into_iter().cloned().collect()
            };
            let any = above(&name(service)).iter().any(is_bad);
            match root(&fleet, service, &bad) {
                None => prop_assert!(!any),
                Some(root) => {
                    let root = ServiceName::new(root).expect("an id");
                    prop_assert!(any && is_bad(&root));
                    prop_assert!(above(&name(service)).contains(&root));
                    prop_assert!(!above(&root).iter().any(is_bad));
                }
            }
        }
    }
}
