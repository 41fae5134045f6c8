//! Why nothing was found, in words; and what could not be taken into account.

use std::collections::BTreeMap;

use alicia_contract::discovery::{Standing, Verdict};
use alicia_contract::id::ServiceName;
use semver::Version;

use super::Query;
use crate::core::Registry;

/// Versions that are named in a sentence.
const VERSIONS_TOLD: usize = 8;

/// Names that are compared to find the nearest one.
const NAMES_COMPARED_MAX: usize = 10_000;

/// How like a name must be to be named: 1 is the same (Jaro-Winkler).
const LIKENESS_MIN: f64 = 0.75;

/// The verdict about an instance that is not well enough.
pub(super) const fn verdict(standing: Standing) -> Verdict {
    match standing {
        Standing::Healthy | Standing::Unknown | Standing::Degraded => Verdict::Spare,
        Standing::Starting => Verdict::Starting,
        Standing::Unverified => Verdict::Unverified,
        Standing::Silent => Verdict::Silent,
        Standing::Suspect => Verdict::Suspect,
        Standing::Unhealthy => Verdict::Unhealthy,
        Standing::Draining => Verdict::Draining,
    }
}

/// The name that is most like another one, when one is like it at all.
pub(crate) fn nearest<'n>(
    name: &str,
    names: impl Iterator<Item = &'n ServiceName>,
) -> Option<ServiceName> {
    names
        .take(NAMES_COMPARED_MAX)
        .map(|other| (strsim::jaro_winkler(name, other.as_str()), other))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, nearest)| nearest.clone())
}

/// What is missing in the picture.
pub(super) fn degraded(registry: &Registry) -> Vec<String> {
    let mut missing = Vec::new();
    if !registry.is_judged() {
        missing.push(
            "health has not been heard: how instances are is known from their heartbeats only"
                .to_owned(),
        );
    }
    if !registry.is_pictured() {
        missing.push(
            "the orchestrator has not been heard: what it starts and drains is not known"
                .to_owned(),
        );
    }
    missing
}

/// Why nothing was found.
pub(super) fn none(
    registry: &Registry,
    query: &Query,
    versions: &[Version],
    verdicts: &BTreeMap<Verdict, u32>,
) -> String {
    let wanted = query.wanted();
    let name = &wanted.capability;
    if verdicts.is_empty() {
        return match nearest(name.as_str(), registry.capabilities()) {
            Some(nearest) => format!("nobody offers {name}; did you mean {nearest}?"),
            None => format!("nobody offers {name}; `alicia agents` shows what is offered"),
        };
    }
    let is_all = |verdict: Verdict| verdicts.keys().all(|one| *one == verdict);
    if let Some(service) = wanted.service.as_ref().filter(|_| is_all(Verdict::Service)) {
        return format!("{service} does not offer {name}; others do");
    }
    let matters = || verdicts.keys().filter(|one| **one != Verdict::Service);
    if matters().all(|one| *one == Verdict::Version) {
        let told: Vec<String> = versions
            .iter()
            .take(VERSIONS_TOLD)
            .map(Version::to_string)
            .collect();
        let range = wanted.version.as_deref().unwrap_or("*");
        return format!(
            "no version of {name} fits {range}; there are {}",
            told.join(", ")
        );
    }
    let counts: Vec<String> = verdicts
        .iter()
        .filter(|(verdict, _)| **verdict != Verdict::Service)
        .map(|(verdict, count)| format!("{count} {}", words(*verdict)))
        .collect();
    format!(
        "nobody who offers {name} can be chosen: {}",
        counts.join(", ")
    )
}

const fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Chosen | Verdict::Spare => "tried or to spare",
        Verdict::Service => "of other services",
        Verdict::Version => "of another version",
        Verdict::Tag => "without a tag",
        Verdict::Input => "that the input does not fit",
        Verdict::InputSchema => "that the schema of the input does not fit",
        Verdict::Starting => "starting",
        Verdict::Unverified => "not seen since a restart",
        Verdict::Silent => "silent",
        Verdict::Suspect => "suspect",
        Verdict::Unhealthy => "unhealthy",
        Verdict::Draining => "draining",
        Verdict::NotAllowed => "that the caller may not command",
        Verdict::NotCallable => "that cannot be called alone",
    }
}
