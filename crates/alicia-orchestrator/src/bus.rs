//! The module on the bus: the retained status, requests by message, and what health says of the fleet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alicia_bus::{Incoming, Request};
use alicia_contract::ServiceName;
use alicia_contract::health::{self, FleetHealth, ServiceHealth};
use alicia_contract::orchestrator::{
    FleetAnswer, FleetRequest, FleetStatus, REQUESTS, STATUS, Verb,
};
use alicia_module::{ApiError, Context};
use axum::http::StatusCode;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

use crate::command::{Asked, Commander};

/// Requests that are worked on at once; more wait in the queue of the bus.
const REQUESTS_MAX: usize = 64;

/// After a subscription that the broker refused.
const RETRY: Duration = Duration::from_secs(5);

/// The health of each service, as last heard; empty without the health module.
pub(crate) type Healths = BTreeMap<ServiceName, ServiceHealth>;

/// Publishes each new status, the latest only.
pub(crate) async fn publish_status(cx: Context, mut status: watch::Receiver<Arc<FleetStatus>>) {
    while status.changed().await.is_ok() {
        let latest = status.borrow_and_update().clone();
        // The bus remembers it and says it again on each new connection.
        if let Err(error) = cx.bus.set(STATUS, &[], &latest).await {
            tracing::debug!(%error, "the status was not published yet");
        }
    }
}

/// Answers requests by message. Whether the sender may ask has been checked by the broker.
pub(crate) async fn serve(cx: Context, commander: Commander) {
    let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
    loop {
        let mut requests = match cx.bus.serve(REQUESTS).await {
            Ok(requests) => requests,
            Err(error) => {
                tracing::warn!(%error, "requests by message are not heard");
                sleep(RETRY).await;
                continue;
            }
        };
        while let Some(request) = requests.next().await {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            let commander = commander.clone();
            cx.spawn("request", async move {
                answer(&commander, request).await;
                drop(permit);
            });
        }
        // The bus is closed.
        return;
    }
}

async fn answer(commander: &Commander, request: Request<FleetRequest, FleetAnswer>) {
    let answer = match asked(&request) {
        Ok(asked) => commander.submit(asked).await.map_err(ApiError::from),
        Err(refusal) => Err(refusal),
    };
    let answer = answer.map_err(|refusal| refusal.problem());
    if let Err(error) = request.respond(answer).await {
        tracing::debug!(%error, "an answer was not delivered");
    }
}

fn asked(request: &Request<FleetRequest, FleetAnswer>) -> Result<Asked, ApiError> {
    let word = request
        .values
        .first()
        .map(String::as_str)
        .unwrap_or_default();
    let verbs = [Verb::Start, Verb::Stop, Verb::Restart, Verb::Scale];
    let verb = verbs
        .into_iter()
        .find(|verb| verb.as_str() == word)
        .ok_or_else(|| {
            ApiError::new(
                StatusCode::NOT_FOUND,
                "orchestrator.unknown_verb",
                "No such request",
                format!("`{word}` is none of start, stop, restart, scale"),
            )
        })?;
    let FleetRequest {
        services,
        instances,
        reason,
    } = request.query.clone();
    Ok(Asked {
        verb,
        names: services,
        instances,
        reason,
        actor: request
            .source
            .clone()
            .unwrap_or_else(|| "unknown".to_owned()),
    })
}

/// Keeps the health of the fleet, for listings.
pub(crate) async fn follow_health(cx: Context, healths: watch::Sender<Healths>) {
    loop {
        let mut states = match cx.bus.states(health::STATUS).await {
            Ok(states) => states,
            Err(error) => {
                tracing::warn!(%error, "the health of services is not heard");
                sleep(RETRY).await;
                continue;
            }
        };
        while let Some(incoming) = states.next().await {
            match incoming {
                Incoming::Message(message) => {
                    drop(healths.send_replace(by_service(message.payload)))
                }
                Incoming::Cleared { .. } => drop(healths.send_replace(Healths::new())),
                // The retained state is delivered again.
                Incoming::Lagged(_) | Incoming::Reconnected => {}
            }
        }
        return;
    }
}

fn by_service(health: FleetHealth) -> Healths {
    health
        .services
        .into_iter()
        .map(|health| (health.service.clone(), health))
        .collect()
}
