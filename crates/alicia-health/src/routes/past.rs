//! What was, and what follows from it: objectives, reports, advice.

use std::time::Duration;

use alicia_contract::health::{Alert, Severity};
use alicia_contract::id::ServiceName;
use alicia_contract::problem::InputFault;
use alicia_contract::unit::{Period, UnixSeconds};
use alicia_module::api::{Answer, Params};
use alicia_module::{Api, ApiError, Operation};
use alicia_store::Error as StoreError;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Module, State, no_service};
use crate::core::{Monitor, Now};
use crate::history::ledger::minute_of;
use crate::history::{rows, uptime};
use crate::module::HealthModule;
use crate::reports::{self, Material, Report};
use crate::slo::{self, Objective};
use crate::suggest::{self, Advice, Evidence};

/// The shortest time of a report: rows are minutes.
const PERIOD_MIN: Period = Period::from_secs(60);

/// The longest: what is kept unless the file says otherwise.
const PERIOD_MAX: Period = Period::from_secs(3_650 * 86_400);

/// Every objective.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Objectives {
    /// The objectives, by service.
    objectives: Vec<Objective>,
}

/// What to report.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReportQuery {
    /// How far back. 1m to 3650d; default 24h.
    period: Option<Period>,
    /// `json`, `markdown` or `html`. Default: what the `Accept` header asks for, else JSON.
    format: Option<Format>,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// For programs.
    Json,
    /// For a mail or a ticket.
    Markdown,
    /// For a browser.
    Html,
}

/// What to advise on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SuggestionsQuery {
    /// Only this service.
    service: Option<ServiceName>,
}

/// What to do about what is wrong.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Suggestions {
    /// The worst first; of the same, the newest first.
    suggestions: Vec<Suggestion>,
}

/// What to do about one alert.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Suggestion {
    /// The service.
    service: ServiceName,
    /// The instance, when it is about one.
    instance: Option<String>,
    /// The alert that fires.
    alert: String,
    /// Its rule.
    alert_rule: String,
    /// How bad.
    severity: Severity,
    /// What is wrong, in one line.
    summary: String,
    /// Since when.
    since: UnixSeconds,
    /// What to do, the most telling first.
    advice: Vec<Advice>,
}

pub(super) fn add(api: Api<std::sync::Arc<HealthModule>>) -> Api<std::sync::Arc<HealthModule>> {
    api.with(
        Operation::get(
            "/slos",
            "What services promise, what is left of the error budget, and how quickly it is burnt.",
        )
        .answers::<Objectives>(200, "The objectives."),
        objectives,
    )
    .with(
        Operation::get(
            "/reports",
            "Availability, incidents, time to mend, the slowest checks, flapping.",
        )
        .params::<ReportQuery>()
        .answers::<Report>(200, "The report.")
        .answers_text(200, "text/markdown", "The report as Markdown.")
        .answers_text(200, "text/html", "The report as a page.")
        .refuses(422, "The period cannot be used."),
        report,
    )
    .with(
        Operation::get(
            "/suggestions",
            "What to do about what is wrong, with the evidence and the command to run.",
        )
        .params::<SuggestionsQuery>()
        .answers::<Suggestions>(200, "The advice.")
        .refuses(404, "There is no such service."),
        suggestions,
    )
}

async fn objectives(State(module): Module) -> Result<Answer<Objectives>, ApiError> {
    let fleet = module.fleet.borrow().clone();
    let now = module.clock.unix();
    let read = module
        .store
        .read(move |connection| slo::objectives(connection, &fleet, now));
    let objectives = read.await.map_err(unread)?;
    Ok(Answer(Objectives { objectives }))
}

async fn report(
    State(module): Module,
    Params(query): Params<ReportQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let length = length_of(query.period)?;
    let to = module.clock.unix();
    let from = to - length.as_secs_f64();
    let fleet = module.fleet.borrow().name.clone();
    let read = module.store.read(move |connection| {
        let (grain, since) = (uptime::grain(length), minute_of(from));
        Ok::<_, StoreError>(Material {
            fleet,
            from,
            to,
            spans: rows::spans(connection, grain, since)?,
            results: rows::results(connection, grain, since)?,
            turns: rows::changes_since(connection, from)?,
        })
    });
    let report = reports::report(read.await.map_err(unread)?);
    Ok(match query.format.unwrap_or_else(|| accepted(&headers)) {
        Format::Json => Answer(report).into_response(),
        Format::Markdown => {
            let kind = [(header::CONTENT_TYPE, "text/markdown; charset=utf-8")];
            (kind, reports::markdown(&report)).into_response()
        }
        Format::Html => super::page::page(reports::html(&report)),
    })
}

fn length_of(period: Option<Period>) -> Result<Duration, ApiError> {
    let period = period.unwrap_or(Period::from_secs(86_400));
    if (PERIOD_MIN..=PERIOD_MAX).contains(&period) {
        return Ok(period.duration());
    }
    let message = format!("found {period}, expected {PERIOD_MIN} to {PERIOD_MAX}");
    let fault = InputFault {
        pointer: "period".to_owned(),
        message,
    };
    let detail = format!("`period` cannot be used: {}", fault.message);
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Err(
        ApiError::new(status, "health.invalid_query", "Invalid query", detail)
            .with_faults(vec![fault]),
    )
}

/// What is named first among the forms that there are.
fn accepted(headers: &HeaderMap) -> Format {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let forms = accept.unwrap_or_default().split(',').filter_map(|range| {
        let kind = range.split(';').next().unwrap_or_default().trim();
        match kind {
            "application/json" => Some(Format::Json),
            "text/markdown" => Some(Format::Markdown),
            "text/html" => Some(Format::Html),
            _ => None,
        }
    });
    forms.into_iter().next().unwrap_or(Format::Json)
}

async fn suggestions(
    State(module): Module,
    Params(query): Params<SuggestionsQuery>,
) -> Result<Answer<Suggestions>, ApiError> {
    let now = module.shared.now();
    let monitor = module.shared.read();
    let is_known = |name: &ServiceName| {
        let mut firing = monitor.book().firing();
        monitor.watch(name.as_str()).is_some() || firing.any(|alert| alert.service == *name)
    };
    if let Some(name) = query.service.as_ref().filter(|name| !is_known(name)) {
        return Err(no_service(name.as_str()));
    }
    let wanted = |alert: &&Alert| {
        query
            .service
            .as_ref()
            .is_none_or(|wanted| alert.service == *wanted)
    };
    let firing = monitor.book().firing().filter(wanted);
    let mut suggestions: Vec<Suggestion> = firing
        .map(|alert| suggestion(&monitor, alert, now))
        .collect();
    suggestions.sort_by(|a, b| {
        let by_severity = b.severity.cmp(&a.severity);
        by_severity.then(b.since.total_cmp(&a.since))
    });
    Ok(Answer(Suggestions { suggestions }))
}

fn suggestion(monitor: &Monitor, alert: &Alert, now: Now) -> Suggestion {
    let watch = monitor.watch(alert.service.as_str());
    let slot = watch.and_then(|watch| {
        let named = |number: u32| alert.instance.as_deref() == Some(watch.label(number).as_str());
        let mut slots = watch.slots.iter();
        slots
            .find(|(number, _)| named(**number))
            .map(|(_, slot)| slot)
    });
    let root = monitor
        .root_of(&alert.service, now)
        .map(|root| root.service);
    // Only an end says how it ended; what a check saw is in its detail.
    let ended = ["crash_loop", "restarted"].contains(&alert.rule.as_str());
    let exit = slot.and_then(|slot| slot.exit.as_ref()).filter(|_| ended);
    let advice = suggest::all(&Evidence {
        service: &alert.service,
        class: exit.map(|exit| exit.class).unwrap_or_default(),
        cause: &alert.detail,
        last_lines: &alert.last_lines,
        root: root.as_ref(),
        after_change: watch.is_some_and(|watch| watch.changed_lately(now)),
    });
    Suggestion {
        service: alert.service.clone(),
        instance: alert.instance.clone(),
        alert: alert.id.clone(),
        alert_rule: alert.rule.clone(),
        severity: alert.severity,
        summary: alert.summary.clone(),
        since: alert.started,
        advice,
    }
}

/// The history cannot be read now.
pub(super) fn unread(error: StoreError) -> ApiError {
    tracing::error!(%error, "the history of services cannot be read");
    let detail = format!("the history of services cannot be read: {error}; see the host's log");
    let status = StatusCode::SERVICE_UNAVAILABLE;
    ApiError::new(
        status,
        "health.history_unreadable",
        "History unreadable",
        detail,
    )
}
