//! What one can look at over REST.

use std::num::NonZeroU32;
use std::sync::Arc;

use alicia_contract::health::{HealthState, ServiceHealth};
use alicia_contract::orchestrator::{
    ExplainRequest, Explanation, FleetStatus, InstanceStatus, ProcessRow, ServiceStatus, Transition,
};
use alicia_contract::{ServiceName, UnixSeconds};
use alicia_module::ApiError;
use alicia_module::api::{Answer, Params, PathParams};
use alicia_store::audit::{self, Cursor};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{NAME, unknown_service};
use crate::engine::Input;
use crate::graph::{Dependencies, Format};
use crate::module::Orchestrator;
use crate::store;

/// Transitions that are shown with a service.
const TRANSITIONS_SHOWN: u32 = 50;

/// Rows of a page of the audit log unless asked otherwise.
const AUDIT_ROWS: u32 = 100;

/// One service with its last transitions.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ServiceView {
    #[serde(flatten)]
    status: ServiceStatus,
    /// What happened last, newest first, at most 50.
    transitions: Vec<Transition>,
}

/// The form of the graph.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DependenciesParams {
    /// `json`, `dot` or `mermaid`. Default: `json`.
    format: Option<Format>,
}

/// Which instance is explained.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainParams {
    /// This slot only. Default: all.
    #[schemars(range(min = 1, max = 1000))]
    slot: Option<u32>,
}

/// A page of the audit log.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditParams {
    /// The most rows. Default: 100.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u16>,
    /// Only rows before this id: the last one of the page before.
    before: Option<NonZeroU32>,
}

/// A row of the audit log.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct AuditRow {
    /// Rises with every row.
    id: i64,
    /// When.
    at: UnixSeconds,
    /// Who.
    actor: String,
    /// What: `orchestrator.stop`.
    action: String,
    /// On what: `service:api`, `fleet`.
    target: String,
    /// `done`, `failed` or `denied`.
    outcome: String,
    /// The rest.
    detail: Value,
}

type Module = State<Arc<Orchestrator>>;

/// The status as of now.
pub(super) async fn current(module: &Orchestrator) -> Result<Arc<FleetStatus>, ApiError> {
    let status = module.handle.ask(Input::Status).await;
    status.map_err(|error| ApiError::unavailable(NAME, format!("failed to {error}")))
}

pub(crate) async fn status(State(module): Module) -> Result<Answer<FleetStatus>, ApiError> {
    let status = current(&module).await?;
    Ok(Answer(Arc::unwrap_or_clone(status)))
}

pub(crate) async fn instances(State(module): Module) -> Result<Answer<Vec<ProcessRow>>, ApiError> {
    let status = current(&module).await?;
    let healths = module.healths.borrow();
    let rows = status.services.iter().flat_map(|service| {
        let health = healths.get(&service.service);
        service
            .instances
            .iter()
            .map(move |instance| row(service, instance, health))
    });
    Ok(Answer(rows.collect()))
}

fn row(
    service: &ServiceStatus,
    instance: &InstanceStatus,
    health: Option<&ServiceHealth>,
) -> ProcessRow {
    let name = format!("{}-{}", service.service, instance.slot);
    ProcessRow {
        service: service.service.clone(),
        health: health.map(|health| health_of(&name, service.instances.len(), health)),
        instance: name,
        state: instance.state,
        pid: instance.pid,
        restarts: instance.restarts,
        since: instance.since,
        exit: instance.exit.clone(),
        cpu: instance.cpu,
        memory_bytes: instance.memory_bytes,
        limits: instance.limits.clone(),
        reason: instance.reason.clone(),
        next_start: instance.next_start,
        says: instance.says.clone(),
        attention: instance.attention.clone(),
    }
}

/// What health says of one instance: the worst of its own checks, or of the service where it has none.
fn health_of(instance: &str, instances: usize, health: &ServiceHealth) -> HealthState {
    let own = health
        .checks
        .iter()
        .filter(|check| check.instance.as_deref() == Some(instance));
    match own.map(|check| check.state).max() {
        Some(worst) if instances > 1 => worst,
        _ => health.state,
    }
}

pub(crate) async fn service(
    State(module): Module,
    PathParams(name): PathParams<ServiceName>,
) -> Result<Answer<ServiceView>, ApiError> {
    let status = current(&module).await?;
    let found = status
        .services
        .iter()
        .find(|service| service.service == name);
    let status = found
        .cloned()
        .ok_or_else(|| unknown_service(&module, &name))?;
    let transitions = store::transitions(&module.cx.store, Some(name), TRANSITIONS_SHOWN).await;
    Ok(Answer(ServiceView {
        status,
        transitions: transitions.map_err(|error| ApiError::internal(NAME, &error))?,
    }))
}

pub(crate) async fn explain(
    State(module): Module,
    PathParams(name): PathParams<ServiceName>,
    Params(params): Params<ExplainParams>,
) -> Result<Answer<Explanation>, ApiError> {
    let asked = ExplainRequest {
        service: name,
        slot: super::commands::possible_slot(params.slot)?,
    };
    Ok(Answer(module.explainer.explain(&asked).await?))
}

pub(crate) async fn dependencies(
    State(module): Module,
    Params(params): Params<DependenciesParams>,
) -> Response {
    let graph = Dependencies::of(&module.cx.fleet.borrow());
    let text = |content_type: &'static str, text: String| {
        ([(header::CONTENT_TYPE, content_type)], text).into_response()
    };
    match params.format.unwrap_or_default() {
        Format::Json => Answer(graph).into_response(),
        Format::Dot => text("text/vnd.graphviz; charset=utf-8", graph.dot()),
        Format::Mermaid => text("text/plain; charset=utf-8", graph.mermaid()),
    }
}

pub(crate) async fn audit(
    State(module): Module,
    Params(params): Params<AuditParams>,
) -> Result<Answer<Vec<AuditRow>>, ApiError> {
    let limit = params.limit.map_or(AUDIT_ROWS, u32::from);
    if !(1..=audit::LIST_ROWS_MAX).contains(&limit) {
        let message = format!("found {limit}, expected 1 to {}", audit::LIST_ROWS_MAX);
        return Err(super::commands::invalid("limit", message));
    }
    let cursor = params
        .before
        .map_or(Cursor::NEWEST, |id| Cursor::Before(id.get().into()));
    let read = module
        .cx
        .store
        .read(move |connection| audit::list(connection, cursor, limit));
    let rows = read
        .await
        .map_err(|error: alicia_store::Error| ApiError::internal(NAME, &error))?;
    Ok(Answer(rows.into_iter().map(audit_row).collect()))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 microseconds are 285 years"
)]
fn audit_row(record: audit::Record) -> AuditRow {
    AuditRow {
        id: record.id,
        at: record.time_unix_us as f64 / 1e6,
        actor: record.actor,
        action: record.action,
        target: record.target,
        outcome: record.outcome.as_str().to_owned(),
        detail: record.detail,
    }
}
