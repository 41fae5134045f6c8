//! What is to be said of one instance beside its state: why, until when, what it says of itself, what it used.

use alicia_contract::orchestrator::{
    Exit, ExitCause, InstanceState, InstanceStatus, ServiceStatus,
};
use maud::{Markup, html};

use super::{ago, plain, span, words};

/// What a reason ends with where a next start is planned.
const NEXT_TRY: &str = "; the next try is in";

/// A service that has no instances now: it waits for a first connection, or has none by its number.
pub(super) fn none(service: &ServiceStatus) -> Markup {
    html! {
        tr {
            th scope="row" { a href={ "/services/" (service.service) } { (service.service) } }
            td.state { span.mark.off { "no instances" } @if service.wanted == 0 { " " span.quiet { "none is wanted now" } } }
            td colspan="6" {}
        }
    }
}

/// Beside the state of an instance: why it is there, when it goes on, what a person should look at.
pub(super) fn remarks(instance: &InstanceStatus, now: f64) -> Markup {
    html! {
        @if let Some(why) = why(instance) { " " span.quiet { (words(&why)) } }
        @if let Some(at) = instance.next_start { " " span.quiet { "· next start in " (span(at - now)) } }
        @if let Some(attention) = &instance.attention { " " span.mark.warn { "look" } " " (attention) }
        @if let Some(says) = &instance.says { " " span.quiet { "says: " (plain(says)) } }
    }
}

/// Why an instance is where it is, where the state does not say it; and how it ended last.
fn why(instance: &InstanceStatus) -> Option<String> {
    match instance.state {
        InstanceState::Running | InstanceState::Stopped => instance
            .exit
            .as_ref()
            .filter(|_| instance.restarts > 0)
            .map(|exit| format!("after {}", end(exit))),
        // The time of the next start is told as it runs down.
        _ => Some(match instance.next_start {
            Some(_) => instance.reason.split(NEXT_TRY).next().unwrap_or_default(),
            None => &instance.reason,
        })
        .filter(|reason| !reason.is_empty())
        .map(str::to_owned),
    }
}

/// How a run ended: in words, and as the cause that decides what follows where the words do not say it.
pub(super) fn end(exit: &Exit) -> String {
    let is_said = matches!(
        exit.class,
        ExitCause::Unknown | ExitCause::Crash | ExitCause::Success
    );
    if is_said || exit.cause.contains(": ") {
        return exit.cause.clone();
    }
    format!("{} ({})", exit.cause, exit.class.as_str())
}

/// What the table of a service has no room for: work, ports, limits.
pub(super) fn particulars(service: &ServiceStatus, now: f64) -> Markup {
    let told: Vec<(&InstanceStatus, Vec<String>)> = service
        .instances
        .iter()
        .map(|instance| (instance, particulars_of(instance, now)))
        .filter(|(_, parts)| !parts.is_empty())
        .collect();
    html! {
        @if !told.is_empty() {
            section aria-labelledby="particulars-title" {
                h2 id="particulars-title" { "Particulars" }
                ul.checks {
                    @for (instance, parts) in told {
                        li { strong { (service.service) "-" (instance.slot) } " " (parts.join(" · ")) }
                    }
                }
            }
        }
    }
}

fn particulars_of(instance: &InstanceStatus, now: f64) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(work) = &instance.work {
        let mut told = format!(
            "{} steps, {} tokens, {:.2} US dollars, last {}",
            work.steps,
            work.tokens,
            work.cost_usd,
            ago(now - work.at)
        );
        if let Some(action) = &work.action {
            told = format!("{}; {told}", plain(action));
        }
        parts.push(told);
    }
    parts.extend(
        instance
            .ports
            .iter()
            .map(|(name, port)| format!("port {name} {port}")),
    );
    parts.extend(instance.limits.iter().map(|limit| {
        let held = match limit.held_by.as_str() {
            "none" => "held by nothing".to_owned(),
            by => format!("held by {by}"),
        };
        match &limit.why {
            Some(why) => format!("{} {held} ({why})", limit.limit),
            None => format!("{} {held}", limit.limit),
        }
    }));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_instance_says_why_and_until_when() {
        let instance = InstanceStatus {
            state: InstanceState::Parked,
            reason: "the provider wants fewer requests; the next try is in 5m".to_owned(),
            next_start: Some(160.0),
            ..InstanceStatus::default()
        };
        let html = remarks(&instance, 100.0).into_string();
        assert!(
            html.contains("fewer requests")
                && html.contains("next start in 1 min 0 s")
                && !html.contains("5m"),
            "{html}"
        );
    }

    #[test]
    fn the_cause_is_named_where_the_words_do_not() {
        let check = |cause: &str, class, said: &str| {
            let exit = Exit {
                cause: cause.to_owned(),
                class,
                ..Exit::default()
            };
            assert_eq!(end(&exit), said);
        };
        check(
            "exit code 78",
            ExitCause::Configuration,
            "exit code 78 (configuration)",
        );
        check("exit code 1", ExitCause::Crash, "exit code 1");
        check(
            "liveness failed: HTTP 500",
            ExitCause::Liveness,
            "liveness failed: HTTP 500",
        );
    }

    #[test]
    fn what_holds_nothing_is_said() {
        let mut instance = InstanceStatus::default();
        instance
            .limits
            .push(alicia_contract::orchestrator::LimitHeld {
                limit: "cpu".to_owned(),
                held_by: "none".to_owned(),
                why: Some("no controller".to_owned()),
            });
        assert_eq!(
            particulars_of(&instance, 0.0),
            ["cpu held by nothing (no controller)"]
        );
    }
}
