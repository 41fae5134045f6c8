//! Alerts: what fires and what did, and what a person can do about it.

use std::time::Duration;

use alicia_bus::CallError;
use alicia_contract::health::{Acknowledgement, Severity};
use alicia_contract::id::ServiceName;
use alicia_contract::orchestrator::{FleetRequest, REQUESTS, Verb};
use alicia_module::ApiError;
use alicia_module::api::{Answer, Body, Caller, Params, PathParams};
use alicia_store::audit;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Alert, FleetAnswer, Module, State, limit, no_service};
use crate::core::Event;
use crate::module::HealthModule;
use crate::store::{self, Listing};

/// How long the orchestrator may take to accept a request.
const RESTART_DEADLINE: Duration = Duration::from_secs(5);

/// Longest note, in characters.
const NOTE_CHARS_MAX: usize = 1_000;

/// What to list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertsQuery {
    /// `true`: only those that fire; `false`: only those that are over.
    active: Option<bool>,
    /// Only this severity.
    severity: Option<Severity>,
    /// Begins below this id: `next` of the page before.
    cursor: Option<String>,
    /// Most entries of the answer. 1 to 1000; default 100.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// Alerts, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct AlertsPage {
    /// The alerts.
    alerts: Vec<Alert>,
    /// Where the next page begins: the next `cursor`; none: this is the last.
    next: Option<String>,
}

/// Who takes note may say something.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AckBody {
    /// A note, at most 1000 characters.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    note: Option<String>,
}

pub(super) async fn list(
    State(module): Module,
    Params(query): Params<AlertsQuery>,
) -> Result<Answer<AlertsPage>, ApiError> {
    let limit = limit(query.limit)?;
    let listing = Listing {
        active: query.active,
        severity: query.severity,
        before: query.cursor,
        // One more tells whether there is a next page.
        limit: limit + 1,
    };
    let read = module
        .store
        .read(move |connection| store::list(connection, &listing))
        .await;
    let mut alerts = read.map_err(|error| ApiError::internal("health", &error))?;
    let more = alerts.len() > limit as usize;
    alerts.truncate(limit as usize);
    let next = alerts.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Answer(AlertsPage { alerts, next }))
}

pub(super) async fn acknowledge(
    State(module): Module,
    Caller(identity): Caller,
    PathParams(id): PathParams<String>,
    Body(body): Body<AckBody>,
) -> Result<Answer<Alert>, ApiError> {
    if body
        .note
        .as_ref()
        .is_some_and(|note| note.chars().count() > NOTE_CHARS_MAX)
    {
        let detail = format!("the note has more than {NOTE_CHARS_MAX} characters");
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(ApiError::new(
            status,
            "health.note_too_long",
            "Note too long",
            detail,
        ));
    }
    let by = Acknowledgement {
        by: identity.to_string(),
        note: body.note,
        at: module.clock.unix(),
    };
    let change = module.handle.ask(Event::Acknowledge(id.clone(), by)).await;
    let change = change
        .filter(|change| change.alert.id == id)
        .ok_or_else(|| ApiError::not_found("health", format!("no alert with the id {id} fires")))?;
    note(
        &module,
        &identity.to_string(),
        "acknowledge",
        format!("alert:{id}"),
    )
    .await?;
    Ok(Answer(change.alert))
}

pub(super) async fn restart(
    State(module): Module,
    Caller(identity): Caller,
    PathParams(service): PathParams<ServiceName>,
) -> Result<Answer<FleetAnswer>, ApiError> {
    if module.shared.read().watch(service.as_str()).is_none() {
        return Err(no_service(service.as_str()));
    }
    note(
        &module,
        &identity.to_string(),
        "restart",
        format!("service:{service}"),
    )
    .await?;
    let request = FleetRequest {
        services: vec![service],
        instances: None,
        reason: Some(format!("asked by {identity} through health")),
    };
    let verb = [Verb::Restart.as_str()];
    let answer = module
        .bus
        .call(REQUESTS, &verb, &request, RESTART_DEADLINE)
        .await;
    answer.map(Answer).map_err(|error| refused(&error))
}

/// Writes the audit row; what cannot be written is not done.
async fn note(
    module: &HealthModule,
    actor: &str,
    verb: &'static str,
    target: String,
) -> Result<(), ApiError> {
    let (actor, time_unix_us) = (actor.to_owned(), module.clock.unix_us());
    let written = module
        .store
        .write(move |tx| {
            let entry = audit::Entry {
                time_unix_us,
                actor: &actor,
                action: &format!("health.{verb}"),
                target: &target,
                outcome: audit::Outcome::Done,
                detail: &json!({}),
            };
            audit::append(tx, &entry).map(drop)
        })
        .await;
    written.map_err(|error| ApiError::internal("health", &error))
}

fn refused(error: &CallError) -> ApiError {
    match error {
        CallError::Refused { problem, .. } => {
            let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_GATEWAY);
            let detail = problem.detail.clone();
            ApiError::new(
                status,
                problem.code.clone(),
                "The orchestrator refused",
                detail,
            )
        }
        other => ApiError::unavailable("health", format!("failed to {other}")),
    }
}
