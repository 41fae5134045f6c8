//! The public status page and its badges.

use std::sync::Arc;

use alicia_contract::id::ServiceName;
use alicia_contract::unit::UnixSeconds;
use alicia_module::api::{Params, PathParams};
use alicia_module::{Access, Api, ApiError, Operation};
use alicia_store::Error as StoreError;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::past::unread;
use super::{Module, State};
use crate::history::ledger::minute_of;
use crate::history::rows::{self, Grain};
use crate::history::uptime;
use crate::module::HealthModule;
use crate::status_page::{self, DAYS, Line};

/// What a page may load: nothing but its own style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What a badge shows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BadgeQuery {
    /// `24h`, `7d`, `30d` or `90d`: the uptime. Default: the state.
    uptime: Option<String>,
}

pub(super) fn add(api: Api<Arc<HealthModule>>) -> Api<Arc<HealthModule>> {
    api.with(
        Operation::get("/status", "The public status page, if there is one.")
            .access(Access::Open)
            .answers_text(200, "text/html", "The page.")
            .refuses(404, "There is none."),
        show,
    )
    .with(
        Operation::get(
            "/badges/{service}",
            "A badge of a service on the public status page: an image in SVG.",
        )
        .access(Access::Open)
        .params::<BadgeQuery>()
        .answers_text(200, "image/svg+xml", "The badge.")
        .refuses(404, "There is no status page, or the service is not on it."),
        badge,
    )
}

async fn show(State(module): Module) -> Result<Response, ApiError> {
    let shown = shown(&module)?;
    let now = module.clock.unix();
    let lines = lines(&module, shown, now).await?;
    Ok(page(status_page::page(&module.status_page, &lines, now)))
}

async fn badge(
    State(module): Module,
    PathParams(service): PathParams<ServiceName>,
    Params(query): Params<BadgeQuery>,
) -> Result<Response, ApiError> {
    if !shown(&module)?.contains(&service) {
        return Err(none());
    }
    let now = module.clock.unix();
    let lines = lines(&module, vec![service], now).await?;
    let line = lines.first().ok_or_else(none)?;
    let text = match &query.uptime {
        None => status_page::word(line.state).to_owned(),
        Some(window) => {
            let of = line.uptime.iter().find(|of| of.window == *window);
            let percent = of.ok_or_else(none)?.percent;
            percent.map_or_else(|| "unknown".to_owned(), |percent| format!("{percent} %"))
        }
    };
    let image = status_page::badge(line.service.as_str(), &text, line.state);
    let head = [
        (header::CONTENT_TYPE, "image/svg+xml"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    Ok((head, image).into_response())
}

/// The services that anybody may see.
fn shown(module: &HealthModule) -> Result<Vec<ServiceName>, ApiError> {
    let config = &module.status_page;
    if !config.enabled {
        return Err(none());
    }
    let fleet = module.fleet.borrow();
    Ok(match config.services.is_empty() {
        true => fleet.services.keys().cloned().collect(),
        false => config.services.clone(),
    })
}

async fn lines(
    module: &HealthModule,
    shown: Vec<ServiceName>,
    now: UnixSeconds,
) -> Result<Vec<Line>, ApiError> {
    let names = shown.clone();
    let days = i64::try_from(DAYS).unwrap_or(90);
    let read = module.store.read(move |connection| {
        let mut uptimes = uptime::all(connection, now)?;
        let since = minute_of(now) - days * 1_440;
        let told = names.into_iter().map(|service| {
            let hours = rows::course(connection, &service, Grain::Hour, since)?;
            let uptime = uptimes.remove(&service).unwrap_or_else(uptime::nothing);
            Ok::<_, StoreError>((uptime, status_page::days(&hours, now)))
        });
        told.collect::<Result<Vec<_>, _>>()
    });
    let past = read.await.map_err(unread)?;
    let monitor = module.shared.read();
    let lines = shown
        .into_iter()
        .zip(past)
        .map(|(service, (uptime, days))| {
            let judged = monitor.watch(service.as_str()).map(|watch| &watch.judged);
            Line {
                state: judged.map(|judged| judged.state).unwrap_or_default(),
                since: judged.map_or(now, |judged| judged.since),
                service,
                uptime,
                days,
            }
        });
    Ok(lines.collect())
}

/// A page that a browser may show, and that loads nothing.
pub(super) fn page(text: String) -> Response {
    let head = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (head, text).into_response()
}

fn none() -> ApiError {
    let detail = "there is no such status page; `health.status_page` of the file switches it on";
    let status = StatusCode::NOT_FOUND;
    ApiError::new(status, "health.no_status_page", "No status page", detail)
}
