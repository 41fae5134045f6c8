//! The one HTTP listener: page, REST, metrics, documents.
//!
//! A request passes `guard` (request id, Host and Origin, who calls), then goes to the platform's own routes,
//! to `/api/<module>/…`, or to the pages of the one module that has any.

mod audit;
mod deadline;
mod docs;
mod guard;
mod identity;
mod platform;
mod rate;
mod request;
mod secrets;
mod serve;

use std::convert::Infallible;

use alicia_module::ApiError;
use alicia_module::api::CalledModule;
use alicia_module::api::openapi::{Group, document};
use alicia_module::{Operation, Spec};
use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::Predicate;

use crate::house::House;

pub(crate) use audit::AuditDesk;
pub(crate) use guard::Guard;
pub(crate) use platform::{Order, Platform, Stop};
pub(crate) use serve::serve;

/// Smaller answers are not worth compressing.
const COMPRESS_BYTES_MIN: u64 = 1_024;

/// What answers a request.
pub(crate) type Site = BoxCloneSyncService<Request, Response, Infallible>;

/// The whole site.
pub(crate) fn site(platform: Platform, guard: Guard) -> Site {
    let (house, is_alone) = (platform.house.clone(), platform.is_alone);
    let recorder = platform.audit.recorder.clone();
    let (noting, tracing) = (recorder.clone(), recorder.clone());
    let site = platform::router(platform)
        // Of the platform's own operations only: modules write their rows with their changes.
        .route_layer(axum::middleware::from_fn(move |request, next| {
            audit::write_down(recorder.clone(), request, next)
        }))
        .fallback(move |request: Request| to_modules(house.clone(), is_alone, request))
        .layer(axum::middleware::from_fn(move |request, next| {
            request::note(noting.clone(), request, next)
        }))
        .layer(axum::middleware::from_fn(move |request, next| {
            let guard = guard.clone();
            async move { guard.pass(request, next).await }
        }))
        .layer(axum::middleware::from_fn(move |request, next| {
            request::trace(tracing.clone(), request, next)
        }))
        // Outside of the guard, which reads problem documents to write the request id into them.
        .layer(
            CompressionLayer::new()
                .gzip(true)
                .compress_when(WholeAnswers),
        );
    BoxCloneSyncService::new(site)
}

/// Compresses answers that are there as a whole; a stream must not wait for a compressor to fill up.
#[derive(Clone, Copy)]
struct WholeAnswers;

impl Predicate for WholeAnswers {
    fn should_compress<B: http_body::Body>(&self, response: &axum::http::Response<B>) -> bool {
        response
            .body()
            .size_hint()
            .exact()
            .is_some_and(|bytes| bytes >= COMPRESS_BYTES_MIN)
    }
}

/// `/api/<module>/…` goes to the module with its own part of the path, the rest to the pages, or to the first of the
/// modules that run alone.
async fn to_modules(house: House, is_alone: bool, mut request: Request) -> Response {
    let views = house.views();
    let path = request.uri().path();
    let Some(below_api) = path.strip_prefix("/api/") else {
        let root = views
            .first()
            .filter(|_| is_alone)
            .map(|view| view.router.clone());
        let pages = views.iter().find_map(|view| view.pages.clone()).or(root);
        return match pages {
            Some(pages) => call(pages, request).await,
            None => not_found(path).into_response(),
        };
    };
    let name = below_api.split('/').next().unwrap_or_default();
    let Some(view) = views.iter().find(|view| view.name == name) else {
        return not_found(path).into_response();
    };
    if view.running.is_none() {
        let detail = format!("the module {name} does not run; `alicia status` says why");
        return ApiError::unavailable("host", detail).into_response();
    }
    match below(request.uri(), &["/api/", name].concat()) {
        Some(uri) => *request.uri_mut() = uri,
        None => return not_found(path).into_response(),
    }
    request.extensions_mut().insert(CalledModule(view.name));
    let router = view
        .router
        .clone()
        .fallback(|| async { no_such_operation() });
    call(router, request).await
}

async fn call(router: Router, request: Request) -> Response {
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The same address without the start of its path.
fn below(uri: &Uri, start: &str) -> Option<Uri> {
    let path_and_query = uri.path_and_query()?.as_str().strip_prefix(start)?;
    let below = if path_and_query.starts_with('/') {
        path_and_query.to_owned()
    } else {
        format!("/{path_and_query}")
    };
    below.parse().ok()
}

fn not_found(path: &str) -> ApiError {
    let detail = format!("there is nothing at {path}; /docs lists what there is");
    ApiError::new(
        StatusCode::NOT_FOUND,
        "host.no_such_path",
        "Not found",
        detail,
    )
}

fn no_such_operation() -> ApiError {
    let detail = "the module has no such operation; /docs lists what there is";
    ApiError::new(
        StatusCode::NOT_FOUND,
        "host.no_such_path",
        "Not found",
        detail,
    )
}

/// The OpenAPI document of the platform and these modules.
#[must_use]
pub fn openapi(modules: &[Spec]) -> Value {
    let own = platform::operations();
    let of_modules: Vec<(&str, Vec<Operation>)> = modules
        .iter()
        .map(|module| (module.name, (module.operations)()))
        .collect();
    let platform = Group {
        tag: "host",
        path: String::new(),
        operations: &own,
    };
    let groups = of_modules.iter().map(|(name, operations)| Group {
        tag: name,
        path: format!("/api/{name}"),
        operations,
    });
    let groups: Vec<Group<'_>> = std::iter::once(platform).chain(groups).collect();
    document(env!("CARGO_PKG_VERSION"), &groups)
}
