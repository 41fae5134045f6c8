//! Alerts: what fires and what did, and what a person can do about it.

use alicia_bus::CallError;
use alicia_contract::health::{HeldBack, Severity};
use alicia_contract::id::ServiceName;
use alicia_contract::unit::Period;
use alicia_module::ApiError;
use alicia_module::api::{Answer, Body, Caller, Params, PathParams};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Alert, FleetAnswer, Module, State, limit, no_service};
use crate::office::Ack;
use crate::restart;
use crate::store::{self, Listing};

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
    /// On the first page: what would fire if a service that it depends on were not the cause, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held_back: Vec<HeldBack>,
}

/// Who takes note may say something.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AckBody {
    /// A note, at most 1000 characters.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    note: Option<String>,
    /// How long it holds; then people are notified again. Default: as long as the alert.
    #[serde(default)]
    duration: Option<Period>,
}

pub(super) async fn list(
    State(module): Module,
    Params(query): Params<AlertsQuery>,
) -> Result<Answer<AlertsPage>, ApiError> {
    let limit = limit(query.limit)?;
    let mut held_back = Vec::new();
    if query.cursor.is_none() && query.active != Some(false) {
        let monitor = module.shared.read();
        let wanted = |held: &&HeldBack| query.severity.is_none_or(|of| of == held.severity);
        held_back = monitor.book().held_back().filter(wanted).cloned().collect();
    }
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
    let notifier = &module.office.notifier;
    Ok(Answer(AlertsPage {
        alerts: alerts
            .into_iter()
            .map(|alert| notifier.shown(alert))
            .collect(),
        next,
        held_back,
    }))
}

pub(super) async fn one(
    State(module): Module,
    PathParams(id): PathParams<String>,
) -> Result<Answer<Alert>, ApiError> {
    let wanted = id.clone();
    let read = module
        .store
        .read(move |connection| store::get(connection, &wanted))
        .await;
    let alert = read.map_err(|error| ApiError::internal("health", &error))?;
    let none = || {
        ApiError::not_found(
            "health",
            format!(
                "there is no alert with the id {id}; `alicia alerts --all` lists those that are kept"
            ),
        )
    };
    Ok(Answer(
        module.office.notifier.shown(alert.ok_or_else(none)?),
    ))
}

pub(super) async fn acknowledge(
    State(module): Module,
    Caller(identity): Caller,
    PathParams(id): PathParams<String>,
    Body(body): Body<AckBody>,
) -> Result<Answer<Alert>, ApiError> {
    let ack = Ack {
        note: body.note,
        duration: body.duration,
    };
    let alert = module
        .office
        .acknowledge(&identity.to_string(), &id, ack)
        .await?;
    Ok(Answer(alert))
}

pub(super) async fn take_back(
    State(module): Module,
    Caller(identity): Caller,
    PathParams(id): PathParams<String>,
) -> Result<Answer<Alert>, ApiError> {
    let actor = identity.to_string();
    Ok(Answer(module.office.take_back(&actor, &id).await?))
}

pub(super) async fn restart(
    State(module): Module,
    Caller(identity): Caller,
    PathParams(service): PathParams<ServiceName>,
) -> Result<Answer<FleetAnswer>, ApiError> {
    if module.shared.read().watch(service.as_str()).is_none() {
        return Err(no_service(service.as_str()));
    }
    let actor = identity.to_string();
    let target = format!("service:{service}");
    let noted = module.office.note(&actor, "restart", target).await;
    noted.map_err(|error| ApiError::internal("health", &error))?;
    let reason = format!("asked by {identity} through health");
    let answer = restart::call(&module.bus, service, reason).await;
    answer.map(Answer).map_err(|error| refused(&error))
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
