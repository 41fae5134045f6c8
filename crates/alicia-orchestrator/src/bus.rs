//! The module on the bus: the retained status, requests by message, and what health says of the fleet.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use alicia_bus::{Incoming, Request};
use alicia_contract::health::{self, FleetHealth, HEARTBEAT, Heartbeat, ServiceHealth};
use alicia_contract::orchestrator::{
    EXPLAIN, ExplainRequest, FleetAnswer, FleetRequest, FleetStatus, PLAN, PlanRequest,
    REQUEST_VERBS, REQUESTS, SPENT, STATUS, Verb,
};
use alicia_contract::{CallTopic, InstanceId, ServiceName};
use alicia_module::{ApiError, Context, trace};
use axum::http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

use crate::api::commands::{invalid, possible_slot};
use crate::command::{Asked, AskedSignal, Commander};
use crate::core::event::Counters;
use crate::deploy::{self, Deployer};
use crate::engine::{Handle, Input};
use crate::explain::Explainer;

/// Requests that are worked on at once; more wait in the queue of the bus.
const REQUESTS_MAX: usize = 64;

/// The verb that needs a running process, and so is no change of what is wanted.
const SIGNAL: &str = "signal";

/// After a subscription that the broker refused.
const RETRY: Duration = Duration::from_secs(5);

/// Above this a counter is no count: sums of what is larger would end in infinity, which JSON cannot write.
const COUNTER_MAX: f64 = 1e15;

/// The health of each service, as last heard; empty without the health module.
pub(crate) type Healths = BTreeMap<ServiceName, ServiceHealth>;

/// What changes so shortly after another change is in the same picture of the fleet, as are most steps of a restart.
/// Transitions are told at once.
const PICTURE_SETTLES: Duration = Duration::from_millis(20);

/// Publishes the newest status when it has changed.
pub(crate) async fn publish_status(cx: Context, mut status: watch::Receiver<Arc<FleetStatus>>) {
    while status.changed().await.is_ok() {
        sleep(PICTURE_SETTLES).await;
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
        _ if request.values == [SIGNAL] => signalled(commander, &request).await,
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
        actor: actor(request),
        reason: query.reason,
        allow_empty: query.allow_empty,
        // A message that is delivered twice asks once.
        key: request
            .envelope
            .as_ref()
            .map(|envelope| envelope.message_id.clone()),
    })
}

/// A signal goes to one service, as over REST: a list that is empty by mistake must not mean the whole fleet.
async fn signalled(
    commander: &Commander,
    request: &Request<FleetRequest, FleetAnswer>,
) -> Result<FleetAnswer, ApiError> {
    let FleetRequest {
        services,
        signal,
        slot,
        ..
    } = request.query.clone();
    let [service] = services.as_slice() else {
        let found = format!("found {} names, expected one service", services.len());
        return Err(invalid("services", found));
    };
    let Some(signal) = signal else {
        return Err(invalid("signal", "it is missing".to_owned()));
    };
    let sent = commander.signal(AskedSignal {
        service: service.clone(),
        slot: possible_slot(slot)?,
        signal,
        actor: actor(request),
    });
    let instances = sent.await?;
    Ok(FleetAnswer {
        accepted: true,
        services,
        detail: format!("sent to {}", instances.join(", ")),
    })
}

fn actor<Q, A>(request: &Request<Q, A>) -> String {
    let source = request.source.clone();
    source.unwrap_or_else(|| "unknown".to_owned())
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
                format!("`{word}` is none of {}", REQUEST_VERBS.join(", ")),
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
        actor: actor(request),
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
        (0.0..=COUNTER_MAX).contains(&value).then_some(value)
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
                    let is_amount = (0.0..=COUNTER_MAX).contains(&message.payload.cost_usd);
                    if is_amount && handle.send(Input::Spent(message.payload)).await.is_err() {
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
    let answer = move |asked: ExplainRequest| {
        let explainer = explainer.clone();
        async move { explainer.explain(&asked).await }
    };
    serve_questions(cx, EXPLAIN, answer).await;
}

/// Answers what a version of the file would change.
pub(crate) async fn serve_plan(cx: Context, deployer: Deployer) {
    let answer = move |asked: PlanRequest| {
        let deployer = deployer.clone();
        async move {
            let what = deploy::What::File(asked.file);
            deployer.plan(&what).await.map_err(ApiError::from)
        }
    };
    serve_questions(cx, PLAN, answer).await;
}

/// Answers the questions on a topic, many at the same time.
async fn serve_questions<Q, A, F>(
    cx: Context,
    topic: CallTopic<Q, A>,
    answer: impl Fn(Q) -> F + Clone + Send + 'static,
) where
    Q: DeserializeOwned + Clone + Send + Sync + 'static,
    A: Serialize + Send + 'static,
    F: Future<Output = Result<A, ApiError>> + Send,
{
    let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
    loop {
        let mut requests = match cx.bus.serve(topic).await {
            Ok(requests) => requests,
            Err(error) => {
                tracing::warn!(%error, topic = topic.template(), "questions are not heard");
                sleep(RETRY).await;
                continue;
            }
        };
        while let Some(request) = requests.next().await {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            let answer = answer.clone();
            cx.spawn("question", async move {
                let answer = answer(request.query.clone()).await;
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
