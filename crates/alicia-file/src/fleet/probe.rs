//! Probes: exactly one kind, often enough but not too often, and something to connect to.

use alicia_contract::fleet::{HttpCheck, PROBE_INTERVAL_MIN, Probe, ProbeKind, ServiceSpec};

use super::{Service, command, default_port};
use crate::nearest::one_of;

/// A fault: the part of the probe, the message, the hint.
type Found = (&'static str, String, String);

pub(super) fn check(service: &mut Service<'_, '_>) {
    let spec = service.spec;
    let readiness = spec
        .readiness
        .iter()
        .map(|probe| ("readiness".to_owned(), probe));
    let liveness = spec
        .liveness
        .iter()
        .map(|probe| ("liveness".to_owned(), probe));
    let checks = spec
        .checks
        .iter()
        .map(|(name, probe)| (format!("checks/{name}"), probe));
    for (part, probe) in readiness.chain(liveness).chain(checks) {
        let mut found = Vec::new();
        check_kinds(&part, probe, &mut found);
        check_times(&part, probe, spec, &mut found);
        if let Some(kind) = probe.kind() {
            check_kind(kind, spec, &mut found);
        }
        for (inner, message, hint) in found {
            let at = if inner.is_empty() {
                part.clone()
            } else {
                format!("{part}/{inner}")
            };
            service.fault(&at, message, hint);
        }
    }
}

fn check_kinds(part: &str, probe: &Probe, found: &mut Vec<Found>) {
    let kinds = [
        ("http", probe.http.is_some()),
        ("tcp", probe.tcp.is_some()),
        ("exec", probe.exec.is_some()),
        ("log_line", probe.log_line.is_some()),
    ];
    let given: Vec<&str> = kinds
        .iter()
        .filter(|(_, given)| *given)
        .map(|(name, _)| *name)
        .collect();
    match &given[..] {
        [] => found.push((
            "",
            "the probe does not say what to look at".to_owned(),
            format!("add {}", one_of(kinds.map(|(name, _)| name))),
        )),
        ["log_line"] if part != "readiness" => found.push((
            "log_line",
            "`log_line` tells that something became ready, not that it still is".to_owned(),
            "use `http`, `tcp` or `exec`".to_owned(),
        )),
        [_] => {}
        several => found.push((
            "",
            format!("the probe has {} kinds, expected one", several.len()),
            format!("keep one of {}", one_of(several.iter().copied())),
        )),
    }
}

fn check_times(part: &str, probe: &Probe, spec: &ServiceSpec, found: &mut Vec<Found>) {
    if probe.interval < PROBE_INTERVAL_MIN {
        let message = format!(
            "`interval` is {}, at least {PROBE_INTERVAL_MIN}",
            probe.interval
        );
        found.push((
            "interval",
            message,
            format!("write `{PROBE_INTERVAL_MIN}` or more"),
        ));
    }
    if probe.timeout.duration().is_zero() {
        let message = "`timeout` is 0s, so that each try fails".to_owned();
        found.push(("timeout", message, "write for example `2s`".to_owned()));
    }
    if part == "readiness" && probe.delay >= spec.start_timeout {
        let message = format!(
            "`delay` is {}, but it must be ready within `start_timeout`, which is {}",
            probe.delay, spec.start_timeout
        );
        found.push((
            "delay",
            message,
            "make it shorter, or `start_timeout` longer".to_owned(),
        ));
    }
}

fn check_kind(kind: ProbeKind<'_>, spec: &ServiceSpec, found: &mut Vec<Found>) {
    match kind {
        ProbeKind::Http(check) => {
            check_http(check, found);
            check_port("http", check.port, spec, found);
        }
        ProbeKind::Tcp(check) => check_port("tcp", check.port, spec, found),
        ProbeKind::Exec(check) => {
            if let Some((message, hint)) = command::fault_of(&check.command) {
                found.push(("exec/command", message, hint));
            }
        }
        ProbeKind::LogLine(_) => {}
    }
}

fn check_http(check: &HttpCheck, found: &mut Vec<Found>) {
    if !check.path.starts_with('/') {
        let message = format!(
            "the path is `{}`, expected one that starts with `/`",
            check.path
        );
        let hint = match check.path.contains("://") {
            true => "write `host`, `port` and `path` apart".to_owned(),
            false => format!("write `/{}`", check.path),
        };
        found.push(("http/path", message, hint));
    }
    if check
        .path
        .contains(|c: char| c.is_whitespace() || c.is_control())
    {
        let message = "the path has a space in it".to_owned();
        found.push(("http/path", message, "write `%20`".to_owned()));
    }
    if let Some(status) = check
        .status
        .iter()
        .find(|status| !(100..=599).contains(*status))
    {
        let message = format!("{status} is no HTTP status");
        found.push(("http/status", message, "use 100 to 599".to_owned()));
    }
}

fn check_port(part: &'static str, port: Option<u16>, spec: &ServiceSpec, found: &mut Vec<Found>) {
    if port.is_some() || default_port(spec).is_some() {
        return;
    }
    let fault = match spec.ports.is_empty() {
        true => (
            "the service has no port to look at".to_owned(),
            "write `ports: {http: auto}` in the service, or `port:` here".to_owned(),
        ),
        false => (
            "the service has several ports, and none of them is named `http`".to_owned(),
            "name one `http`, or write `port:` here".to_owned(),
        ),
    };
    found.push((part, fault.0, fault.1));
}
