//! Updates, scaling, services on demand: what fits together and what does not.

use alicia_contract::fleet::{
    INSTANCES_MAX, Port, Probe, ProbeKind, ScalingSpec, ServiceSpec, UpdateSpec, UpdateStrategy,
};

use super::{Service, probe_port};

pub(super) fn check(service: &mut Service<'_, '_>) {
    let spec = service.spec;
    if let Some(update) = &spec.update {
        check_update(service, update);
    }
    if let Some(scaling) = &spec.scaling {
        check_scaling(service, scaling);
    }
    if let Some(on_demand) = &spec.on_demand {
        if on_demand.idle_after.duration().is_zero() {
            let message = "`idle_after` is 0s, so that it ends as soon as it starts";
            service.fault("on_demand/idle_after", message, "write for example `10m`");
        }
        if !spec
            .ports
            .values()
            .any(|port| matches!(port, Port::Held(_)))
        {
            let message = "nobody can connect to it: `on_demand` needs a port that Alicia holds";
            let hint = "write `ports: {http: {number: 8080, held: true}}`";
            service.fault("on_demand", message, hint);
        }
        if spec.scaling.is_some() {
            let message = "`on_demand` and `scaling` both decide how many instances run";
            service.fault("on_demand", message, "keep one of them");
        }
    }
}

fn check_update(service: &mut Service<'_, '_>, update: &UpdateSpec) {
    let spec = service.spec;
    let counts = [
        ("update/surge", update.surge),
        ("update/parallel", update.parallel),
        ("update/canary/instances", update.canary.instances),
    ];
    for (part, count) in counts {
        if !(1..=INSTANCES_MAX).contains(&count) {
            let message = format!("found {count}, expected 1 to {INSTANCES_MAX}");
            service.fault(part, message, "write for example `1`");
        }
    }
    if update.deadline.duration().is_zero() {
        let message = "`deadline` is 0s, so that every update fails";
        service.fault("update/deadline", message, "write for example `2m`");
    }
    if update.strategy == UpdateStrategy::Recreate {
        return;
    }
    let fixed = spec.ports.iter().find_map(|(name, port)| match port {
        Port::Fixed(number) => Some((name, number)),
        _ => None,
    });
    if let Some((name, number)) = fixed {
        let message = format!(
            "an old and a new instance cannot both listen on port {number}, as the strategy `{}` wants",
            update.strategy.as_str()
        );
        let hint = format!(
            "write `{{number: {number}, held: true}}` when the program takes sockets over (LISTEN_FDS), `auto` \
             when others find it by the registry, or the strategy `recreate`"
        );
        service.fault(&format!("ports/{name}"), message, hint);
    }
    if let Some(kind) = spec
        .readiness
        .as_ref()
        .and_then(|probe| asks_held(spec, probe))
    {
        let message = "readiness asks a held port, on which the old instances answer as well: it says nothing \
                       about the new one";
        let hint = "add a port of its own, `admin: auto`, which is then asked; or use `log_line` or `exec`";
        service.fault(&format!("readiness/{kind}"), message, hint);
    }
}

/// The kind of a probe that asks a port which all instances share.
fn asks_held(spec: &ServiceSpec, probe: &Probe) -> Option<&'static str> {
    let (kind, named) = match probe.kind() {
        Some(ProbeKind::Http(check)) => ("http", check.port),
        Some(ProbeKind::Tcp(check)) => ("tcp", check.port),
        _ => return None,
    };
    let port = match named {
        Some(number) => Some(Port::Held(Some(number))).filter(|port| held(spec, *port)),
        None => probe_port(spec).map(|(_, port)| port),
    };
    matches!(port, Some(Port::Held(_))).then_some(kind)
}

fn held(spec: &ServiceSpec, wanted: Port) -> bool {
    spec.ports.values().any(|port| *port == wanted)
}

fn check_scaling(service: &mut Service<'_, '_>, scaling: &ScalingSpec) {
    let counts = [("scaling/min", scaling.min), ("scaling/max", scaling.max)];
    for (part, count) in counts {
        if !(1..=INSTANCES_MAX).contains(&count) {
            let message = format!("found {count}, expected 1 to {INSTANCES_MAX}");
            service.fault(part, message, "write for example `1`");
        }
    }
    if scaling.min > scaling.max {
        let message = format!(
            "`min` is {}, which is more than `max` with {}",
            scaling.min, scaling.max
        );
        service.fault("scaling/min", message, "make it smaller, or `max` larger");
    }
    let instances = service.spec.instances;
    if !(scaling.min..=scaling.max).contains(&instances) && scaling.min <= scaling.max {
        let message = format!(
            "`instances` is {instances}, which is not from `min` {} to `max` {}",
            scaling.min, scaling.max
        );
        let hint = format!(
            "write `instances: {}`",
            instances.clamp(scaling.min, scaling.max)
        );
        service.fault("scaling", message, hint);
    }
    if scaling.cpu.is_none() && scaling.per_instance.is_empty() && scaling.average.is_empty() {
        let message = "nothing is measured";
        service.fault(
            "scaling",
            message,
            "add `cpu: 0.7`, `per_instance` or `average`",
        );
    }
    let fixed = service
        .spec
        .ports
        .iter()
        .find_map(|(name, port)| match port {
            Port::Fixed(number) => Some((name.clone(), *number)),
            _ => None,
        });
    if let Some((name, number)) = fixed.filter(|_| scaling.max > 1) {
        let message = format!("{} instances cannot share the port {number}", scaling.max);
        let hint = format!("write `auto`, or `{{number: {number}, held: true}}`");
        service.fault(&format!("ports/{name}"), message, hint);
    }
    let targets = scaling
        .per_instance
        .iter()
        .map(|target| ("per_instance", target));
    let targets = targets.chain(scaling.average.iter().map(|target| ("average", target)));
    let bad: Vec<String> = targets
        .filter(|(_, (_, target))| !(target.is_finite() && **target > 0.0))
        .map(|(part, (name, _))| format!("scaling/{part}/{name}"))
        .collect();
    for part in bad {
        service.fault(
            &part,
            "a target is more than 0",
            "write what one instance should have",
        );
    }
    if scaling
        .cpu
        .is_some_and(|cpu| !(cpu.is_finite() && cpu > 0.0))
    {
        service.fault(
            "scaling/cpu",
            "a target is more than 0",
            "write for example `0.7`",
        );
    }
}
