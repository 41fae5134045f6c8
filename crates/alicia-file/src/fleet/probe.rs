//! Probes: exactly one kind, often enough but not too often, and something to connect to.

mod kinds;

use alicia_contract::fleet::{PROBE_INTERVAL_MIN, Probe, ProbeKind, ServiceSpec};

use super::Service;
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
        if probe.is_told() {
            check_told(&part, probe, &mut found);
        } else {
            check_kinds(&part, probe, &mut found);
        }
        check_times(&part, probe, spec, &mut found);
        if let Some(kind) = probe.kind() {
            kinds::check(kind, probe, spec, &mut found);
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
    let given: Vec<&str> = probe.kinds().map(|kind| kind.name()).collect();
    match &given[..] {
        [] => found.push((
            "",
            "the probe does not say what to look at".to_owned(),
            format!("add {}", one_of(ProbeKind::NAMES)),
        )),
        ["log_line"] if part != "readiness" => found.push((
            "log_line",
            "`log_line` tells that something became ready, not that it still is".to_owned(),
            format!("use {}", one_of(still_there())),
        )),
        [_] => {}
        several => found.push((
            "",
            format!("the probe has {} kinds, expected one", several.len()),
            format!("keep one of {}", one_of(several.iter().copied())),
        )),
    }
}

/// A probe that the program itself answers, by `sd_notify(3)`.
fn check_told(part: &str, probe: &Probe, found: &mut Vec<Found>) {
    let others = probe.kinds().map(|kind| kind.name()).collect::<Vec<_>>();
    if let [other, ..] = others.as_slice() {
        let told = if probe.notify { "notify" } else { "watchdog" };
        let message = format!("the probe has `{told}` and `{other}`, expected one");
        found.push(("", message, "keep one of them".to_owned()));
    }
    if probe.notify && part != "readiness" {
        let message = "`notify` tells that something became ready, not that it still is".to_owned();
        found.push(("notify", message, "write `watchdog: 10s`".to_owned()));
    }
    if probe.watchdog.is_some() && part != "liveness" {
        let message =
            "`watchdog` tells that something still lives, not that it is ready".to_owned();
        found.push(("watchdog", message, "move it to `liveness`".to_owned()));
    }
    if probe
        .watchdog
        .is_some_and(|watchdog| watchdog < PROBE_INTERVAL_MIN)
    {
        let message = format!("`watchdog` is too short, at least {PROBE_INTERVAL_MIN}");
        found.push(("watchdog", message, "write for example `10s`".to_owned()));
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

/// The kinds that tell that something still is.
fn still_there() -> impl Iterator<Item = &'static str> {
    ProbeKind::NAMES
        .into_iter()
        .filter(|name| *name != "log_line")
}
