//! The newest deployment: what was changed, by whom, and what became of it.

use alicia_contract::deployment::{Deployment, DeploymentState, ServiceOutcome};
use maud::{Markup, html};

use super::{ago, plain, words};

/// One that is done long ago is no news: the fleet itself is what matters then.
const NEWS_S: f64 = 24.0 * 3_600.0;

/// The section; nothing for what is done and no news any more.
pub(super) fn section(deployment: &Deployment, now: f64) -> Markup {
    let since = deployment.ended.unwrap_or(deployment.at);
    if deployment.state == DeploymentState::Done && now - since > NEWS_S {
        return html! {};
    }
    let touched = deployment
        .services
        .iter()
        .filter(|(_, outcome)| outcome.state != DeploymentState::Done)
        .collect::<Vec<_>>();
    html! {
        section aria-labelledby="deployment-title" {
            h2 id="deployment-title" { "Last change" }
            div.card {
                p {
                    (mark(deployment.state)) " Deployment " (deployment.number)
                    " by " (deployment.actor) ", " (ago(now - deployment.at))
                    @if let Some(number) = deployment.rollback_to { ", back to " (number) }
                    @if let Some(reason) = &deployment.reason { ": " (reason) }
                }
                @if touched.is_empty() && !deployment.detail.is_empty() { p.quiet { (deployment.detail) } }
                @for (service, outcome) in touched { (one(service.as_str(), outcome)) }
            }
        }
    }
}

fn one(service: &str, outcome: &ServiceOutcome) -> Markup {
    html! {
        p { a href={ "/services/" (service) } { (service) } " " (mark(outcome.state)) " " (words(&outcome.detail)) }
        @if !outcome.last_lines.is_empty() {
            div.lines { @for line in &outcome.last_lines { div { (plain(line)) } } }
        }
    }
}

fn mark(state: DeploymentState) -> Markup {
    let (class, text) = match state {
        DeploymentState::UnderWay => ("busy", "under way"),
        DeploymentState::Done => ("good", "done"),
        DeploymentState::Failed => ("bad", "failed"),
        DeploymentState::Reverted => ("warn", "reverted"),
        DeploymentState::Superseded => ("off", "superseded"),
    };
    html! { span.mark.(class) { (text) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(state: DeploymentState) -> Deployment {
        let outcome = ServiceOutcome {
            state,
            detail: "api-3 was not ready in 10s".to_owned(),
            last_lines: vec!["<b>no</b>".to_owned()],
        };
        let api = alicia_contract::ServiceName::new("api").expect("a name");
        Deployment {
            number: 7,
            at: 100.0,
            actor: "key/admin".to_owned(),
            reason: Some("the new login".to_owned()),
            digest: String::new(),
            rollback_to: None,
            state,
            detail: String::new(),
            ended: Some(110.0),
            services: std::collections::BTreeMap::from([(api, outcome)]),
        }
    }

    #[test]
    fn what_failed_is_told_with_its_last_lines_as_text() {
        let html = section(&deployment(DeploymentState::Reverted), 120.0).into_string();
        for said in [
            "Deployment 7",
            "key/admin",
            "the new login",
            "reverted",
            "not ready in 10s",
            "&lt;b&gt;no&lt;/b&gt;",
        ] {
            assert!(html.contains(said), "{said}: {html}");
        }
    }

    #[test]
    fn what_was_done_long_ago_is_no_news_and_what_failed_is() {
        let long_after = 110.0 + NEWS_S + 1.0;
        let check = |state, is_shown: bool| {
            let html = section(&deployment(state), long_after).into_string();
            assert_eq!(!html.is_empty(), is_shown, "{state:?}");
        };
        check(DeploymentState::Done, false);
        check(DeploymentState::Failed, true);
        check(DeploymentState::Reverted, true);
    }
}
