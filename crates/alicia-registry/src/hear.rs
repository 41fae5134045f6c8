//! What the registry hears on the bus. Each listener ends with the bus; a subscription that cannot be made
//! is tried again, and meanwhile REST works and health says so.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use alicia_bus::{Bus, Error, Incoming, Request};
use alicia_contract::discovery::{
    CALL, CapabilityAnswer, CapabilityCall, REGISTER, RESOLVE, RegisteredInstance, Resolution,
    UNREGISTER, Unregistration, Wanted,
};
use alicia_contract::fleet::Fleet;
use alicia_contract::health::{HEARTBEAT, STATUS as HEALTH};
use alicia_contract::object;
use alicia_contract::orchestrator::{STATUS, TRANSITIONS};
use alicia_contract::problem::{InputFault, Problem};
use alicia_contract::topic::CallTopic;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::sync::watch;

use crate::actor::{Failure, Handle, Shared};
use crate::config::TICK;
use crate::core::{Caller, Event, Rank};
use crate::error::{Refusal, problem as document};
use crate::resolve::{Query, resolve};
use crate::router::{Router, identity_of, invalid};
use crate::validate;

/// The wait before a refused subscription is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Registrations as calls: who gives a topic for the answer gets one. Read as any JSON, so that every fault
/// can be named.
const REGISTRATIONS: CallTopic<Value, RegisteredInstance> = CallTopic::new(REGISTER.template());

/// Questions and calls are read as any JSON too, so that what is wrong can be named.
const QUESTIONS: CallTopic<Value, Resolution> = CallTopic::new(RESOLVE.template());
const CALLS: CallTopic<Value, CapabilityAnswer> = CallTopic::new(CALL.template());

/// Answers that are under way at the same time; further requests wait in the queue of the bus.
const ANSWERS_MAX: usize = 512;

/// Departures, in the same way.
const DEPARTURES: CallTopic<Unregistration, RegisteredInstance> =
    CallTopic::new(UNREGISTER.template());

/// Opens a subscription, again and again until it is there; `None` when the bus is closed.
async fn open<T, F>(subscribe: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match subscribe().await {
            Ok(subscription) => return Some(subscription),
            Err(Error::Closed) => return None,
            Err(error) => tracing::warn!(%error, "a subscription was refused; it is tried again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

pub(crate) async fn registrations(bus: Bus, registry: Handle) {
    let Some(mut requests) = open(|| bus.serve(REGISTRATIONS)).await else {
        return;
    };
    let mut answers = FuturesUnordered::new();
    loop {
        let mut request = tokio::select! {
            // An answer waits for the disk; the next request does not.
            Some(()) = answers.next(), if !answers.is_empty() => continue,
            request = requests.next(), if answers.len() < ANSWERS_MAX => match request {
                Some(request) => request,
                None => break,
            },
        };
        let body = std::mem::take(&mut request.query);
        let read = validate::read(body).map_err(Refusal::Invalid);
        let event = read.and_then(|registration| {
            let caller = caller(request.source.as_deref(), &registration.service)?;
            Ok(Event::Register(Box::new(registration), caller))
        });
        match event {
            // In order with the next ones.
            Ok(event) if !request.wants_answer() => registry.say(event).await,
            event => {
                let registry = registry.clone();
                answers.push(async move { carry_out(&registry, event, request).await });
            }
        }
    }
}

/// Answers who is best for a capability.
pub(crate) async fn questions(bus: Bus, shared: Arc<Shared>) {
    let Some(mut requests) = open(|| bus.serve(QUESTIONS)).await else {
        return;
    };
    while let Some(mut request) = requests.next().await {
        let answer = read::<Wanted>(std::mem::take(&mut request.query))
            .and_then(|wanted| Query::new(wanted).map_err(|faults| Box::new(invalid(faults))))
            .map(|query| resolve(&shared.read(), &query));
        respond(request, answer.map_err(|problem| *problem)).await;
    }
}

/// Carries out calls by capability, many at the same time.
pub(crate) async fn calls(bus: Bus, router: Router) {
    let Some(mut requests) = open(|| bus.serve(CALLS)).await else {
        return;
    };
    let mut answers = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = answers.next(), if !answers.is_empty() => {}
            request = requests.next(), if answers.len() < ANSWERS_MAX => match request {
                Some(request) => {
                    let router = &router;
                    answers.push(async move { answer_call(router, request).await });
                }
                None => break,
            },
        }
    }
}

async fn answer_call(router: &Router, mut request: Request<Value, CapabilityAnswer>) {
    let body = std::mem::take(&mut request.query);
    let caller = request
        .source
        .as_deref()
        .and_then(|source| identity_of(source, &router.identity));
    let answer = match (caller, read::<CapabilityCall>(body)) {
        (None, _) => {
            let detail = "the sender of a call must have a name that the broker verified";
            let title = "May not be called";
            Err(document(
                403,
                "registry.call_not_allowed",
                title,
                detail.to_owned(),
            ))
        }
        (_, Err(problem)) => Err(*problem),
        (Some(caller), Ok(call)) => router.call(&caller, call).await,
    };
    respond(request, answer).await;
}

/// Reads a request, or says what is wrong with it.
fn read<T: serde::de::DeserializeOwned>(body: Value) -> Result<T, Box<Problem>> {
    object::read(&body).map_err(|error| {
        Box::new(invalid(vec![InputFault {
            pointer: String::new(),
            message: error.to_string(),
        }]))
    })
}

async fn respond<A: serde::Serialize>(request: Request<Value, A>, answer: Result<A, Problem>) {
    if let Err(error) = request.respond(answer).await {
        tracing::debug!(%error, "an answer was not delivered");
    }
}

pub(crate) async fn departures(bus: Bus, registry: Handle) {
    let Some(mut requests) = open(|| bus.serve(DEPARTURES)).await else {
        return;
    };
    while let Some(request) = requests.next().await {
        let said = request.query.clone();
        let event = caller(request.source.as_deref(), &said.service)
            .map(|caller| Event::Leave(said, caller));
        carry_out(&registry, event, request).await;
    }
}

async fn carry_out<Q>(
    registry: &Handle,
    event: Result<Event, Refusal>,
    request: Request<Q, RegisteredInstance>,
) {
    if !request.wants_answer() {
        match event {
            Ok(event) => registry.say(event).await,
            Err(refusal) => tracing::info!(%refusal, source = request.source, "refused on the bus"),
        }
        return;
    }
    let outcome = match event {
        Ok(event) => registry.ask(event).await,
        Err(refusal) => Err(refusal.into()),
    };
    if let Err(error) = request
        .respond(outcome.map_err(|failure| problem(&failure)))
        .await
    {
        tracing::debug!(%error, "an answer was not delivered");
    }
}

/// Who says it. On the bus a key may publish registrations only with the scope `admin`, which the broker
/// checks; here it still may not act for a service of the fleet.
fn caller(source: Option<&str>, service: &alicia_contract::ServiceName) -> Result<Caller, Refusal> {
    let Some(name) = source else {
        return Err(Refusal::NotYours {
            caller: "a sender without a name".to_owned(),
            service: service.clone(),
            reason: "the broker does not say who it is, and it sent no envelope with a `source`",
        });
    };
    let rank = match name.split_once('/') {
        Some(("system", _)) => Rank::Admin,
        Some(_) => Rank::Key,
        None => Rank::Service,
    };
    Ok(Caller {
        name: name.to_owned(),
        rank,
    })
}

/// A failure as a problem document.
pub(crate) fn problem(failure: &Failure) -> Problem {
    let (status, code, title) = match failure {
        Failure::Refused(refusal) => (refusal.status(), refusal.code(), refusal.title()),
        Failure::Store(_) | Failure::Closing => (503, "registry.unavailable", "Not available now"),
    };
    let faults: Vec<InputFault> = match failure {
        Failure::Refused(Refusal::Invalid(faults)) => faults.clone(),
        _ => Vec::new(),
    };
    Problem {
        faults,
        ..document(status, code, title, format!("failed to {failure}"))
    }
}

pub(crate) async fn heartbeats(bus: Bus, registry: Handle) {
    let Some(mut heard) = open(|| bus.events(HEARTBEAT)).await else {
        return;
    };
    while let Some(message) = heard.message().await {
        // Health counts those that are on the wrong topic; here they renew nothing.
        if message
            .values
            .first()
            .is_some_and(|topic| *topic == message.payload.service.as_str())
        {
            registry
                .say(Event::Heartbeat(message.payload, message.source))
                .await;
        }
    }
}

pub(crate) async fn pictures(bus: Bus, registry: Handle) {
    let Some(mut heard) = open(|| bus.states(STATUS)).await else {
        return;
    };
    while let Some(message) = heard.message().await {
        registry.say(Event::Status(Box::new(message.payload))).await;
    }
}

pub(crate) async fn health(bus: Bus, registry: Handle) {
    let Some(mut heard) = open(|| bus.states(HEALTH)).await else {
        return;
    };
    while let Some(message) = heard.message().await {
        registry.say(Event::Health(Box::new(message.payload))).await;
    }
}

pub(crate) async fn transitions(bus: Bus, registry: Handle) {
    let Some(mut heard) = open(|| bus.events(TRANSITIONS)).await else {
        return;
    };
    while let Some(incoming) = heard.next().await {
        // What was missed is in the next picture.
        if let Incoming::Message(message) = incoming {
            registry
                .say(Event::Transition(Box::new(message.payload)))
                .await;
        }
    }
}

pub(crate) async fn fleet(mut fleet: watch::Receiver<Arc<Fleet>>, registry: Handle) {
    loop {
        let now = fleet.borrow_and_update().clone();
        registry.say(Event::Fleet(now)).await;
        if fleet.changed().await.is_err() {
            return;
        }
    }
}

pub(crate) async fn ticks(registry: Handle) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        registry.say(Event::Tick).await;
    }
}
