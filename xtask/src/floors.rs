//! The floors: a crate imports lower floors only, crates of floors 1 and 3 do not import each other.

use std::collections::BTreeMap;

use serde_json::Value;

/// Where a crate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A floor of the house, 0 to 5.
    Floor(u8),
    /// For services: imports floors 0 and 1 only.
    Sdk,
    /// For tests: may import anything below floor 5, and only tests import it.
    Testkit,
    /// Chores: imports nothing of the house.
    Xtask,
}

/// The plan. A crate that is not here has no place in the house.
const PLAN: &[(&str, Place)] = &[
    ("alicia-contract", Place::Floor(0)),
    ("alicia-failpoint", Place::Floor(0)),
    ("alicia-signature", Place::Floor(0)),
    ("alicia-bus", Place::Floor(1)),
    ("alicia-container", Place::Floor(1)),
    ("alicia-file", Place::Floor(1)),
    ("alicia-identity", Place::Floor(1)),
    ("alicia-keeper", Place::Floor(1)),
    ("alicia-probe", Place::Floor(1)),
    ("alicia-secrets", Place::Floor(1)),
    ("alicia-schema", Place::Floor(1)),
    ("alicia-store", Place::Floor(1)),
    ("alicia-import", Place::Floor(2)),
    ("alicia-module", Place::Floor(2)),
    ("alicia-broker", Place::Floor(3)),
    ("alicia-dashboard", Place::Floor(3)),
    ("alicia-health", Place::Floor(3)),
    ("alicia-orchestrator", Place::Floor(3)),
    ("alicia-registry", Place::Floor(3)),
    ("alicia-host", Place::Floor(4)),
    ("alicia", Place::Floor(5)),
    ("alicia-sdk", Place::Sdk),
    ("alicia-testkit", Place::Testkit),
    ("xtask", Place::Xtask),
];

/// A dependency of one of our crates on another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) is_for_tests: bool,
}

/// The edges between our crates, out of `cargo metadata`.
pub(crate) fn edges(metadata: &Value) -> Vec<Edge> {
    let plan: BTreeMap<&str, Place> = PLAN.iter().copied().collect();
    let mut edges = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let from = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            if dependency["path"].is_string() || plan.contains_key(to) {
                edges.push(Edge {
                    from: from.to_owned(),
                    to: to.to_owned(),
                    is_for_tests: dependency["kind"] == "dev",
                });
            }
        }
    }
    edges
}

/// What is wrong with an edge; `None` when nothing is.
pub(crate) fn fault(edge: &Edge) -> Option<String> {
    let Edge {
        from,
        to,
        is_for_tests,
    } = edge;
    let (Some(from_place), Some(to_place)) = (place(from), place(to)) else {
        return Some(format!(
            "{from} → {to}: one of them has no place in xtask/src/floors.rs"
        ));
    };
    if *is_for_tests || is_allowed(from_place, to_place) {
        return None;
    }
    Some(format!(
        "{from} ({from_place:?}) must not import {to} ({to_place:?})"
    ))
}

/// The place of a crate.
pub(crate) fn place(name: &str) -> Option<Place> {
    PLAN.iter()
        .find(|(known, _)| *known == name)
        .map(|(_, place)| *place)
}

fn is_allowed(from: Place, to: Place) -> bool {
    match (from, to) {
        (Place::Floor(from), Place::Floor(to)) => to < from,
        (Place::Floor(5), Place::Sdk) => true,
        (Place::Sdk, Place::Floor(to)) => to <= 1,
        (Place::Testkit, Place::Floor(to)) => to < 5,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_go_down_only() {
        let check = |from: &str, to: &str, allowed: bool| {
            let edge = Edge {
                from: from.into(),
                to: to.into(),
                is_for_tests: false,
            };
            assert_eq!(fault(&edge).is_none(), allowed, "{from} → {to}");
        };
        check("alicia-health", "alicia-module", true);
        check("alicia-health", "alicia-registry", false);
        check("alicia-bus", "alicia-store", false);
        check("alicia-bus", "alicia-contract", true);
        check("alicia-host", "alicia-health", true);
        check("alicia-module", "alicia-host", false);
        check("alicia-sdk", "alicia-bus", true);
        check("alicia-sdk", "alicia-module", false);
        check("alicia-host", "alicia-testkit", false);
        check("alicia-host", "alicia-unheard-of", false);
    }
}
