//! REST under `/api/health`.

mod alertmanager;
mod alerts;
mod figures;
mod notifications;
mod page;
mod past;
mod silences;
mod views;

use std::sync::Arc;

use alicia_contract::health::{Alert, ServiceHealth};
use alicia_contract::orchestrator::FleetAnswer;
use alicia_contract::problem::InputFault;
use alicia_module::{Api, ApiError, Operation};
use axum::extract::State;
use axum::http::StatusCode;

use crate::module::HealthModule;
use alerts::{AckBody, AlertsPage, AlertsQuery};
use views::{Dependencies, MonitorHealth, ServiceView, ServicesPage, ServicesQuery};

/// Entries on a page unless asked otherwise.
const PAGE_DEFAULT: u32 = 100;

/// Most entries on a page.
const PAGE_MAX: u32 = 1_000;

type Module = State<Arc<HealthModule>>;

/// The operations.
pub(crate) fn api() -> Api<Arc<HealthModule>> {
    let api = silences::add(Api::new());
    let api = notifications::add(api);
    let api = alertmanager::add(api);
    let api = figures::add(page::add(past::add(api)));
    api.with(
        Operation::get("/health", "The monitor itself and what it hears.")
            .answers::<MonitorHealth>(200, "How it is."),
        views::monitor,
    )
    .with(
        Operation::get("/services", "Every service that is watched, by name.")
            .params::<ServicesQuery>()
            .answers::<ServicesPage>(200, "Their health."),
        views::services,
    )
    .with(
        Operation::get(
            "/services/{name}",
            "One service: health, alerts, what is held back.",
        )
        .answers::<ServiceView>(200, "Its health.")
        .refuses(404, "There is no such service."),
        views::service,
    )
    .with(
        Operation::get("/dependencies", "Who depends on whom, with health on it.")
            .answers::<Dependencies>(200, "The graph."),
        views::dependencies,
    )
    .with(
        Operation::get("/alerts", "Alerts, newest first.")
            .params::<AlertsQuery>()
            .answers::<AlertsPage>(200, "Those that fit."),
        alerts::list,
    )
    .with(
        Operation::get("/alerts/{id}", "One alert, with what mutes it.")
            .answers::<Alert>(200, "The alert.")
            .refuses(404, "There is no such alert."),
        alerts::one,
    )
    .with(
        Operation::post("/alerts/{id}/ack", "Takes note of an alert that fires.")
            .body::<AckBody>()
            .answers::<Alert>(200, "The alert.")
            .refuses(404, "No such alert fires."),
        alerts::acknowledge,
    )
    .with(
        Operation::delete("/alerts/{id}/ack", "Takes an acknowledgement back.")
            .answers::<Alert>(200, "The alert.")
            .refuses(404, "No such alert fires."),
        alerts::take_back,
    )
    .with(
        Operation::post(
            "/restart/{service}",
            "Asks the orchestrator to restart a service.",
        )
        .answers::<FleetAnswer>(200, "It is under way.")
        .refuses(404, "There is no such service.")
        .refuses(503, "The orchestrator does not answer."),
        alerts::restart,
    )
}

fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    let limit = asked.unwrap_or(PAGE_DEFAULT);
    if (1..=PAGE_MAX).contains(&limit) {
        return Ok(limit);
    }
    let message = format!("found {limit}, expected 1 to {PAGE_MAX}");
    let detail = format!("`limit` cannot be used: {message}");
    let faults = vec![InputFault {
        pointer: "limit".to_owned(),
        message,
    }];
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Err(ApiError::new(status, "health.invalid_query", "Invalid query", detail).with_faults(faults))
}

fn no_service(name: &str) -> ApiError {
    ApiError::not_found(
        "health",
        format!("no service named {name} is watched; `alicia health` lists those that are"),
    )
}
