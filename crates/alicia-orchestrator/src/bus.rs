//! The module on the bus: the retained status, requests by message, and what health says of the fleet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alicia_bus::{Incoming, Request};
use alicia_contract::health::{self, FleetHealth, HEARTBEAT, Heartbeat, ServiceHealth};
use alicia_contract::orchestrator::{
    EXPLAIN, FleetAnswer, FleetRequest, FleetStatus, REQUESTS, SPENT, STATUS, Verb,
};
use alicia_contract::{InstanceId, ServiceName};
use alicia_module::{ApiError, Context, trace};
use axum::http::StatusCode;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

use crate::command::{Asked, Commander};
use crate::core::event::Counters;
use crate::deploy::{self, Deployer};
use crate::engine::{Handle, Input};
use crate::explain::Explainer;

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
pub(crate) async fn serve(cx: Context, commander: Commander, deployer: Deployer) {
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
            let (commander, deployer) = (commander.clone(), deployer.clone());
            cx.spawn("request", async move {
                let traceparent = traceparent_of(&request);
                let answering = answer(&commander, &deployer, request);
                trace::scope_of_message(traceparent.as_deref(), answering).await;
                drop(permit);
            });
        }
        // The bus is closed.
        return;
    }
}

/// The request that a message belongs to, as its sender says.
fn traceparent_of<Q, A>(request: &Request<Q, A>) -> Option<String> {
    request.envelope.as_ref()?.traceparent.clone()
}

async fn answer(
    commander: &Commander,
    deployer: &Deployer,
    request: Request<FleetRequest, FleetAnswer>,
) {
    let answer = match (version_asked(&request), asked(&request)) {
        (Some(asked), _) => deployed(deployer, asked).await,
        (None, Ok(asked)) => commander.submit(asked).await.map_err(ApiError::from),
        (None, Err(refusal)) => Err(refusal),
    };
    let answer = answer.map_err(|refusal| refusal.problem());
    if let Err(error) = request.respond(answer).await {
        tracing::debug!(%error, "an answer was not delivered");
    }
}

/// A request for another version of the fleet. The deployment itself is told on its own topic.
fn version_asked(request: &Request<FleetRequest, FleetAnswer>) -> Option<deploy::Asked> {
    let query = request.query.clone();
    let what = match request.values.first()?.as_str() {
        "deploy" => deploy::What::File(query.file),
        "rollback" => deploy::What::Rollback(query.deployment),
        "update" => deploy::What::Services(query.services),
        _ => return None,
    };
    Some(deploy::Asked {
        what,
        actor: request
            .source
            .clone()
            .unwrap_or_else(|| "unknown".to_owned()),
        reason: query.reason,
        // A message that is delivered twice asks once.
        key: request
            .envelope
            .as_ref()
            .map(|envelope| envelope.message_id.clone()),
    })
}

async fn deployed(deployer: &Deployer, asked: deploy::Asked) -> Result<FleetAnswer, ApiError> {
    let accepted = deployer.deploy(asked).await?;
    let number = accepted.deployment.number;
    Ok(FleetAnswer {
        accepted: true,
        services: accepted.deployment.services.keys().cloned().collect(),
        detail: match accepted.unchanged {
            true => format!("nothing to do: that is what runs (deployment {number})"),
            false => format!("deployment {number}"),
        },
    })
}

fn asked(request: &Request<FleetRequest, FleetAnswer>) -> Result<Asked, ApiError> {
    let word = request
        .values
        .first()
        .map(String::as_str)
        .unwrap_or_default();
    let verb = Verb::ALL
        .into_iter()
        .find(|verb| verb.as_str() == word)
        .ok_or_else(|| {
            ApiError::new(
                StatusCode::NOT_FOUND,
                "orchestrator.unknown_verb",
                "No such request",
                format!("`{word}` is none of start, stop, restart, scale, pause, resume, deploy, rollback, update"),
            )
        })?;
    let FleetRequest {
        services,
        instances,
        reason,
        ..
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

/// Passes on what agents tell of their work in heartbeats, where somebody watches it.
pub(crate) async fn follow_work(cx: Context, handle: Handle) {
    loop {
        let mut heartbeats = match cx.bus.events(HEARTBEAT).await {
            Ok(heartbeats) => heartbeats,
            Err(error) => {
                tracing::warn!(%error, "the work of agents is not heard");
                sleep(RETRY).await;
                continue;
            }
        };
        while let Some(incoming) = heartbeats.next().await {
            let Incoming::Message(message) = incoming else {
                // Counters only rise: the next heartbeat says it all.
                continue;
            };
            // Whose topic it is has been checked by the broker, what it says of itself has not.
            let is_its_own = message.values.first().map(String::as_str)
                == Some(message.payload.service.as_str());
            let counted = counted(&message.payload).filter(|_| is_its_own);
            if let Some((instance, counters)) = counted
                && handle
                    .send(Input::Counted(instance, counters))
                    .await
                    .is_err()
            {
                return;
            }
        }
        return;
    }
}

/// The counters that tell of work; none, when there are none or it names no instance.
fn counted(heartbeat: &Heartbeat) -> Option<(InstanceId, Counters)> {
    let counter = |name: &str| {
        let value = heartbeat.counters.get(name).copied()?;
        (value.is_finite() && value >= 0.0).then_some(value)
    };
    let counters = Counters {
        steps: counter("steps"),
        tokens: counter("tokens"),
        cost_usd: counter("cost_usd"),
        action: None,
    };
    let instance = heartbeat.instance.clone()?;
    (counters != Counters::default()).then_some((instance, counters))
}

/// Passes on what those tell who meter.
pub(crate) async fn follow_spent(cx: Context, handle: Handle) {
    loop {
        let mut spent = match cx.bus.events(SPENT).await {
            Ok(spent) => spent,
            Err(error) => {
                tracing::warn!(%error, "what is spent is not heard");
                sleep(RETRY).await;
                continue;
            }
        };
        while let Some(incoming) = spent.next().await {
            match incoming {
                Incoming::Message(message) => {
                    if handle.send(Input::Spent(message.payload)).await.is_err() {
                        return;
                    }
                }
                Incoming::Lagged(missed) => {
                    tracing::warn!(missed, "some of what was spent was not heard");
                }
                Incoming::Cleared { .. } | Incoming::Reconnected => {}
            }
        }
        return;
    }
}

/// Answers why something is where it is.
pub(crate) async fn serve_explain(cx: Context, explainer: Explainer) {
    let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
    loop {
        let mut requests = match cx.bus.serve(EXPLAIN).await {
            Ok(requests) => requests,
            Err(error) => {
                tracing::warn!(%error, "requests to explain are not heard");
                sleep(RETRY).await;
                continue;
            }
        };
        while let Some(request) = requests.next().await {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            let explainer = explainer.clone();
            cx.spawn("explain", async move {
                let answer = explainer.explain(&request.query).await;
                let answer = answer.map_err(|refusal| refusal.problem());
                if let Err(error) = request.respond(answer).await {
                    tracing::debug!(%error, "an answer was not delivered");
                }
                drop(permit);
            });
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
