//! The newest deployment on the bus: each step as it happens, and the last one kept for who was not there.
//!
//! It is a task of its own: a deployment goes on, and is written down, also while there is no bus.

use std::sync::Arc;

use alicia_bus::Error;
use alicia_contract::deployment::{DEPLOYMENTS, Deployment, NEWEST};
use alicia_module::Context;
use tokio::sync::watch;

/// What is said of the whole of a deployment that is too large with its services, in characters.
const DETAIL_CHARS_MAX: usize = 1_000;

/// Leaves something out of a deployment.
type Cut = fn(&mut Deployment);

/// What a deployment that is too large for a message is said without, step by step. REST has all of it.
const CUTS: [(&str, Cut); 2] = [
    ("the last lines of its services", without_lines),
    ("its services", without_services),
];

/// Says each step of the newest deployment, from the present one on.
pub(crate) async fn announce(cx: Context, mut newest: watch::Receiver<Arc<Deployment>>) {
    newest.mark_changed();
    // One that is too large stays so with each step.
    let mut warned = None;
    while newest.changed().await.is_ok() {
        let latest = Deployment::clone(&newest.borrow_and_update());
        say(&cx, latest, &mut warned).await;
    }
}

async fn say(cx: &Context, mut newest: Deployment, warned: &mut Option<u64>) {
    let mut cuts = CUTS.iter();
    // The bus remembers it at once and says it again on each new connection.
    let set = loop {
        let set = cx.bus.set(NEWEST, &[], &newest).await;
        let (Err(error @ Error::TooLarge { .. }), Some((left_out, cut))) = (&set, cuts.next())
        else {
            break set;
        };
        if *warned != Some(newest.number) {
            *warned = Some(newest.number);
            let number = newest.number;
            tracing::warn!(
                %error,
                "a deployment is told on the bus without {left_out}: `alicia deployments {number}` has all of it"
            );
        }
        cut(&mut newest);
    };
    if let Err(error) = set {
        tracing::debug!(%error, "the newest deployment was not published yet");
    }
    if let Err(error) = cx.bus.publish(DEPLOYMENTS, &[], &newest).await {
        tracing::debug!(%error, "a step of a deployment was not published");
    }
}

fn without_lines(deployment: &mut Deployment) {
    for outcome in deployment.services.values_mut() {
        outcome.last_lines.clear();
    }
}

/// The summary names those that failed, and goes with them.
fn without_services(deployment: &mut Deployment) {
    deployment.services.clear();
    if let Some((end, _)) = deployment.detail.char_indices().nth(DETAIL_CHARS_MAX) {
        deployment.detail.truncate(end);
        deployment.detail.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_lines_go_first_and_then_the_services_and_a_short_summary_stays_whole() {
        let deployment = |detail: &str| -> Deployment {
            let api =
                json!({ "state": "failed", "detail": "exit code 1", "last_lines": ["a slip"] });
            let deployment = json!({
                "number": 7, "at": 1.0, "actor": "key/ann", "digest": "d", "state": "failed",
                "detail": detail, "services": { "api": api },
            });
            serde_json::from_value(deployment).expect("a deployment")
        };
        let mut cut = deployment("api: exit code 1");
        without_lines(&mut cut);
        let api = cut.services.values().next().expect("it stays");
        assert_eq!(
            (api.detail.as_str(), api.last_lines.len()),
            ("exit code 1", 0)
        );
        without_services(&mut cut);
        assert!(cut.services.is_empty());
        assert_eq!((cut.number, cut.detail.as_str()), (7, "api: exit code 1"));
        let mut long = deployment(&"ä".repeat(DETAIL_CHARS_MAX + 1));
        without_services(&mut long);
        assert_eq!(long.detail.chars().count(), DETAIL_CHARS_MAX + 1);
        assert!(long.detail.ends_with("ä…"));
    }
}
