//! Objectives and limits of agents: windows that can be kept, and something to look at.

use std::time::Duration;

use alicia_contract::Period;

use super::Service;

const DAY: u64 = 86_400;

pub(super) fn check(service: &mut Service<'_, '_>) {
    check_objectives(service);
    check_agent(service);
}

fn check_objectives(service: &mut Service<'_, '_>) {
    let spec = service.spec;
    let Some(slo) = &spec.slo else { return };
    if slo.availability.is_none() && slo.latency.is_none() {
        let message = "the objectives promise nothing".to_owned();
        let hint = "add `availability: 99.9`, or `latency: {target: 99, max: 200ms}`".to_owned();
        service.fault("slo", message, hint);
    }
    let (low, high) = (Period::from_secs(DAY), Period::from_secs(90 * DAY));
    if !(low..=high).contains(&slo.window) {
        let message = format!("`window` is {}, expected {low} to {high}", slo.window);
        service.fault("slo/window", message, "write for example `30d`".to_owned());
    }
    let Some(latency) = &slo.latency else { return };
    if latency.max.duration() == Duration::ZERO {
        let message = "`max` is 0s, which nothing can keep".to_owned();
        service.fault(
            "slo/latency/max",
            message,
            "write for example `200ms`".to_owned(),
        );
    }
    match &latency.check {
        Some(check) if !spec.checks.contains_key(check) => {
            let message = format!("the service has no check named `{check}`");
            let hint = match spec.checks.keys().next() {
                Some(known) => format!("write for example `{known}`"),
                None => "add it under `checks:`".to_owned(),
            };
            service.fault("slo/latency/check", message, hint);
        }
        None if spec.checks.is_empty() => {
            let message = "the service has no check whose latency could count".to_owned();
            let hint = "add one under `checks:`".to_owned();
            service.fault("slo/latency", message, hint);
        }
        _ => {}
    }
}

fn check_agent(service: &mut Service<'_, '_>) {
    let spec = service.spec;
    let Some(agent) = &spec.agent else { return };
    let spans = [
        ("progress_within", agent.progress_within, 1, 7 * DAY),
        ("within", agent.within, 60, DAY),
        ("first_token_max", agent.first_token_max, 0, 3_600),
        ("queue_age_max", agent.queue_age_max, 0, 7 * DAY),
    ];
    for (field, found, low_s, high_s) in spans {
        let (low, high) = (Period::from_secs(low_s), Period::from_secs(high_s));
        if let Some(found) = found.filter(|found| !(low..=high).contains(found)) {
            let message = format!("`{field}` is {found}, expected {low} to {high}");
            let hint = format!("write a period from {low} to {high}");
            service.fault(&format!("agent/{field}"), message, hint);
        }
    }
}
