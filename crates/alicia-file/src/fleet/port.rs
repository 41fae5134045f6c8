//! Ports: two programs cannot listen on one.

use std::collections::BTreeMap;

use alicia_contract::ServiceName;
use alicia_contract::fleet::{Fleet, Port, ServiceSpec};

use super::{Report, Service};
use crate::tree::pointer_to;

pub(super) fn check(service: &mut Service<'_, '_>) {
    if service.spec.instances < 2 {
        return;
    }
    for (name, port) in &service.spec.ports {
        if let Port::Fixed(number) = port {
            let instances = service.spec.instances;
            let message = format!("{instances} instances cannot share the port {number}");
            let hint = format!("write `auto`, or `{{number: {number}, held: true}}`");
            service.fault(&format!("ports/{name}"), message, hint);
        }
    }
}

/// Where a fixed port was seen first.
struct Owner<'f> {
    service: &'f ServiceName,
    port: &'f ServiceName,
    spec: &'f ServiceSpec,
}

pub(super) fn check_shared(fleet: &Fleet, report: &mut Report<'_>) {
    let mut owners: BTreeMap<u16, Vec<Owner<'_>>> = BTreeMap::new();
    for (service, spec) in &fleet.services {
        for (port, number) in &spec.ports {
            let (Port::Fixed(number) | Port::Held(Some(number))) = number else {
                continue;
            };
            let others = owners.entry(*number).or_default();
            if let Some(other) = others.iter().find(|other| run_together(other.spec, spec)) {
                let pointer = pointer_to("/services", service.as_str());
                let message = format!(
                    "the port {number} is that of `{}` of `{}` too",
                    other.port, other.service
                );
                let hint = "choose another one, or write `auto`";
                report.value(&format!("{pointer}/ports/{port}"), message, hint);
            }
            others.push(Owner {
                service,
                port,
                spec,
            });
        }
    }
}

/// Two services of different profiles need not run together: `db` of `dev` and `db` of `prod` may have one port.
fn run_together(a: &ServiceSpec, b: &ServiceSpec) -> bool {
    a.profiles.is_empty()
        || b.profiles.is_empty()
        || a.profiles
            .iter()
            .any(|profile| b.profiles.contains(profile))
}
