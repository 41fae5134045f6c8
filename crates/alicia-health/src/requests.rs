//! What people do about alerts, by message: `system/health/request/{verb}`. Whether the sender may ask has been
//! checked by the broker.

use std::time::Duration;

use alicia_bus::Request;
use alicia_contract::health::{ALERT_REQUESTS, AlertAnswer, AlertRequest, AlertVerb};
use alicia_module::{ApiError, Context};
use axum::http::StatusCode;

use crate::core::matcher;
use crate::office::{Ack, Office, SilenceWanted, WindowWanted, unusable};

/// After a subscription that the broker refused.
const RETRY: Duration = Duration::from_secs(5);

/// Answers requests, one after the other: each is quick, and their order counts.
pub(crate) async fn serve(cx: Context, office: Office) {
    loop {
        let mut requests = match cx.bus.serve(ALERT_REQUESTS).await {
            Ok(requests) => requests,
            Err(alicia_bus::Error::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "requests about alerts are not heard");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        while let Some(request) = requests.next().await {
            let answer = act(&office, &request).await;
            let answer = answer.map_err(|refusal| refusal.problem());
            if let Err(error) = request.respond(answer).await {
                tracing::debug!(%error, "an answer was not delivered");
            }
        }
        // The bus is closed.
        return;
    }
}

async fn act(
    office: &Office,
    request: &Request<AlertRequest, AlertAnswer>,
) -> Result<AlertAnswer, ApiError> {
    let word = request.values.first().map_or("", String::as_str);
    let verb = AlertVerb::ALL
        .into_iter()
        .find(|verb| verb.as_str() == word)
        .ok_or_else(|| unknown(word))?;
    let actor = request.source.as_deref().unwrap_or("unknown");
    carry_out(office, actor, verb, request.query.clone()).await
}

/// Does what is asked for.
pub(crate) async fn carry_out(
    office: &Office,
    actor: &str,
    verb: AlertVerb,
    request: AlertRequest,
) -> Result<AlertAnswer, ApiError> {
    let AlertRequest {
        id,
        note,
        duration,
        starts,
        matchers,
        services,
    } = request;
    let needed = |what: &str| unusable("request", format!("`{what}` is missing"));
    let named = || id.clone().ok_or_else(|| needed("id"));
    let mut answer = AlertAnswer::default();
    match verb {
        AlertVerb::Ack => {
            let ack = Ack { note, duration };
            answer.alert = Some(office.acknowledge(actor, &named()?, ack).await?);
        }
        AlertVerb::Unack => answer.alert = Some(office.take_back(actor, &named()?).await?),
        AlertVerb::Silence => {
            let duration = duration.ok_or_else(|| needed("duration"))?;
            let parsed: Result<Vec<_>, _> =
                matchers.iter().map(|text| matcher::parse(text)).collect();
            let from = starts.unwrap_or_else(|| office.unix());
            let wanted = SilenceWanted {
                id,
                matchers: parsed.map_err(|why| unusable("silence", why))?,
                starts,
                ends: from + duration.duration().as_secs_f64(),
                comment: note.unwrap_or_default(),
            };
            answer.silence = Some(office.silence(actor, wanted).await?);
        }
        AlertVerb::Unsilence => {
            answer.silence = Some(office.unsilence(actor, &named()?).await?);
        }
        AlertVerb::Maintenance => {
            let wanted = WindowWanted {
                services,
                starts,
                duration: duration.ok_or_else(|| needed("duration"))?,
                comment: note.unwrap_or_default(),
            };
            answer.maintenance = Some(office.maintain(actor, wanted).await?);
        }
        AlertVerb::EndMaintenance => {
            answer.maintenance = Some(office.end_maintenance(actor, &named()?).await?);
        }
        AlertVerb::TestChannel => {
            answer.notification = Some(office.test_channel(actor, &named()?).await?);
        }
    }
    Ok(answer)
}

fn unknown(word: &str) -> ApiError {
    let verbs = AlertVerb::ALL.map(AlertVerb::as_str).join(", ");
    ApiError::new(
        StatusCode::NOT_FOUND,
        "health.unknown_verb",
        "No such request",
        format!("`{word}` is none of {verbs}"),
    )
}
