//! Dependencies: they must exist, be reachable, and not go round in a circle.

use alicia_contract::ServiceName;
use alicia_contract::fleet::{Condition, Fleet, RestartPolicy};

use super::{Report, Service};
use crate::document::Document;
use crate::graph;
use crate::nearest::{nearest, one_of};
use crate::tree::pointer_to;

pub(super) fn check(service: &mut Service<'_, '_>) {
    for (needed, condition) in &service.spec.depends_on.0 {
        let Some((message, hint)) = fault_of(service, needed, *condition) else {
            continue;
        };
        let part = service.pointer("depends_on");
        at(service.report, &part, needed, (message, hint));
    }
}

fn fault_of(
    service: &Service<'_, '_>,
    needed: &ServiceName,
    condition: Condition,
) -> Option<(String, String)> {
    let services = &service.fleet.services;
    let Some(spec) = services.get(needed) else {
        let others = || {
            services
                .keys()
                .filter(|name| *name != service.name)
                .map(ServiceName::as_str)
        };
        let hint = match nearest(needed.as_str(), others()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("the other services are {}", one_of(others())),
        };
        return Some((format!("there is no service `{needed}`"), hint));
    };
    if spec.instances == 0 {
        let message = format!("`{needed}` has 0 instances, so that this waits for ever");
        return Some((
            message,
            format!("give `{needed}` an instance, or remove it here"),
        ));
    }
    if condition == Condition::Completed && spec.restart == RestartPolicy::Always {
        let message = format!("`{needed}` never completes, because it is always restarted");
        return Some((
            message,
            format!("write `restart: on-failure` in `{needed}`"),
        ));
    }
    None
}

pub(super) fn check_cycles(fleet: &Fleet, report: &mut Report<'_>) {
    for cycle in graph::cycles(fleet) {
        let part = format!(
            "{}/depends_on",
            pointer_to("/services", cycle.path[0].as_str())
        );
        let fault = match cycle.path.len() {
            2 => (
                format!("`{}` waits for itself", cycle.path[0]),
                "remove it here".to_owned(),
            ),
            _ => (
                format!("these services wait for each other: {cycle}"),
                "remove one of these dependencies".to_owned(),
            ),
        };
        at(report, &part, &cycle.path[1], fault);
    }
}

/// A fault at one dependency, which stands in a list or is a key of a map.
fn at(
    report: &mut Report<'_>,
    part: &str,
    needed: &ServiceName,
    (message, hint): (String, String),
) {
    let in_list = report
        .document
        .and_then(|document| index_in(document, part, needed));
    match in_list {
        Some(index) => report.value(&pointer_to(part, &index.to_string()), message, hint),
        None => report.key(&pointer_to(part, needed.as_str()), message, hint),
    }
}

fn index_in(document: &Document, part: &str, needed: &ServiceName) -> Option<usize> {
    let names: Vec<String> = match document.is_list(part) {
        true => document.get(part).ok()??,
        false => return None,
    };
    names.iter().position(|name| name == needed.as_str())
}
