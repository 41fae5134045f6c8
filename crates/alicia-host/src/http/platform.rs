//! The platform's own routes: liveness, metrics, documents, keys, reload and stop.

use std::collections::BTreeMap;
use std::sync::Arc;

use alicia_contract::platform::{CreatedKey, HostHealth, KeyInfo, NewKey, Scope};
use alicia_identity::Identity;
use alicia_module::api::{Access, Answer, Api, Body, Caller, PathParams};
use alicia_module::{Addresses, ApiError, Clock, Operation};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::{Extension, Router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::docs;
use crate::house::House;

/// The content type of the exposition format.
const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The operation that ends the host.
pub(super) const END: &str = "/api/host/stop";

/// What the platform's routes work with.
#[derive(Clone)]
pub(crate) struct Platform {
    pub(crate) house: House,
    pub(crate) identity: alicia_identity::Authority,
    pub(crate) clock: Clock,
    pub(crate) addresses: Addresses,
    pub(crate) openapi: Arc<Value>,
    pub(crate) error_pages: &'static [(&'static str, &'static str)],
    pub(crate) open_metrics: bool,
    pub(crate) is_alone: bool,
    /// Where the token files of instances lie.
    pub(crate) credentials: std::path::PathBuf,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) audit: super::AuditDesk,
    pub(crate) vault: alicia_secrets::Vault,
}

/// What the host is asked to do.
pub(crate) enum Order {
    /// Read the file again. The answer: what each module did, or the faults of the file.
    Reload(oneshot::Sender<Result<BTreeMap<String, String>, Vec<String>>>),
    /// End.
    Stop(Stop),
}

/// How the host shall end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stop {
    /// Leave the services running; the next `alicia up` takes them over.
    #[serde(default)]
    pub(crate) leave_running: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Done {
    /// In words.
    detail: String,
    /// What was not as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// What a reload did, by module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Reloaded {
    /// `applied`, `restarted`, or `refused: …`; modules for which nothing changed are absent.
    modules: BTreeMap<String, String>,
}

/// Who the caller is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Me {
    /// As in the `source` of an envelope: `key/admin`, or the name of a service.
    identity: String,
    /// The user name on the bus.
    user_name: String,
    /// The address of the bus, when there is one.
    bus: Option<String>,
}

/// A link that signs a browser in, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Link {
    /// The path and query; good once and for ten minutes.
    path: String,
}

fn api() -> Api<Platform> {
    let api = super::identity::with(own_api());
    super::secrets::with(super::audit::with(api))
}

fn own_api() -> Api<Platform> {
    Api::new()
        .with(
            Operation::get("/health", "Whether the host and its modules work.")
                .access(Access::Open)
                .answers::<HostHealth>(200, "It works, perhaps with less than it should have.")
                .answers::<HostHealth>(503, "A module has failed."),
            health,
        )
        .with(
            Operation::get("/metrics", "Metrics in the text format of Prometheus.")
                .access(Access::Open)
                .answers_text(200, METRICS_CONTENT_TYPE, "The metrics.")
                .refuses(401, "A key is needed, unless `http.open_metrics` is set."),
            metrics,
        )
        .with(
            Operation::get("/openapi.json", "This document.")
                .access(Access::Open)
                .answers::<Value>(200, "The OpenAPI document."),
            openapi,
        )
        .with(
            Operation::get("/docs", "This document, to read.")
                .access(Access::Open)
                .answers_text(200, "text/html", "The page."),
            docs_page,
        )
        .with(
            Operation::get(
                "/docs/errors/{code}",
                "What an error code means and what to do.",
            )
            .access(Access::Open)
            .path_is_text()
            .answers_text(200, "text/html", "The page.")
            .refuses(404, "There is no such code."),
            error_page,
        )
        .with(
            Operation::get("/api/keys", "Every API key, without its secret.")
                .access(Access::Scope(Scope::Admin))
                .answers::<Vec<KeyInfo>>(200, "The keys."),
            list_keys,
        )
        .with(
            Operation::post("/api/keys", "Makes an API key.")
                .access(Access::Scope(Scope::Admin))
                .body::<NewKey>()
                .answers::<CreatedKey>(201, "The key; it is not shown again.")
                .refuses(409, "There is a key of this name."),
            create_key,
        )
        .with(
            Operation::get("/api/keys/me", "Who the caller is, and where the bus is.")
                .access(Access::Authenticated)
                .answers::<Me>(200, "The caller."),
            me,
        )
        .with(
            Operation::delete("/api/keys/{name}", "Revokes an API key.")
                .access(Access::Scope(Scope::Admin))
                .answers::<KeyInfo>(200, "The key that was revoked.")
                .refuses(404, "There is no such key.")
                .refuses(409, "It is the last admin key."),
            revoke_key,
        )
        .with(
            Operation::post(
                "/api/keys/link",
                "Makes a link that signs a browser in, once.",
            )
            .access(Access::Scope(Scope::Read))
            .answers::<Link>(200, "The link; it stands for the key that asked."),
            create_link,
        )
        .with(
            Operation::post("/api/host/reload", "Reads the file again.")
                .access(Access::Scope(Scope::Admin))
                .answers::<Reloaded>(200, "What each module did.")
                .refuses(422, "The file has faults; nothing changed."),
            reload,
        )
        .with(
            Operation::post(END, "Ends the host.")
                .access(Access::Scope(Scope::Admin))
                .body::<Stop>()
                .answers::<Done>(
                    202,
                    "It ends, also when that cannot be written to the audit log.",
                ),
            stop,
        )
}

/// The operations, for the OpenAPI document.
pub(crate) fn operations() -> Vec<Operation> {
    api().operations().to_vec()
}

pub(crate) fn router(platform: Platform) -> Router {
    api().into_router(platform)
}

async fn health(State(platform): State<Platform>) -> Response {
    let health = platform.house.health();
    let status = if health.status == "failed" {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    (status, Json(health)).into_response()
}

async fn metrics(
    State(platform): State<Platform>,
    caller: Option<axum::Extension<Identity>>,
) -> Result<Response, ApiError> {
    let may_read = caller.is_some_and(|caller| caller.0.has_scope(Scope::Read));
    if !platform.open_metrics && !may_read {
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "host.unauthenticated",
            "No valid key",
            "send a key with the scope read as `Authorization: Bearer alk_…`, or set `http.open_metrics: true`",
        ));
    }
    Ok((
        [(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)],
        platform.house.metrics() + &platform.audit.metrics(),
    )
        .into_response())
}

async fn openapi(State(platform): State<Platform>) -> Json<Value> {
    Json(Value::clone(&platform.openapi))
}

async fn docs_page(State(platform): State<Platform>) -> Html<String> {
    Html(docs::page(&platform.openapi))
}

async fn error_page(
    State(platform): State<Platform>,
    PathParams(code): PathParams<String>,
) -> Result<Html<String>, ApiError> {
    let page = platform.error_pages.iter().find(|(name, _)| *name == code);
    let (name, text) = page
        .ok_or_else(|| ApiError::not_found("host", format!("there is no error code {code:?}")))?;
    Ok(Html(docs::error_page(name, text)))
}

async fn list_keys(State(platform): State<Platform>) -> Answer<Vec<KeyInfo>> {
    Answer(platform.identity.keys())
}

async fn me(State(platform): State<Platform>, Caller(caller): Caller) -> Answer<Me> {
    let bus = platform
        .addresses
        .bus()
        .borrow()
        .as_ref()
        .map(ToString::to_string);
    Answer(Me {
        identity: caller.to_string(),
        user_name: caller.user_name(),
        bus,
    })
}

async fn create_key(
    State(platform): State<Platform>,
    Caller(caller): Caller,
    Body(new): Body<NewKey>,
) -> Result<(StatusCode, Json<CreatedKey>), ApiError> {
    if !new
        .expires_days
        .is_none_or(|days| (1..=3_650).contains(&days))
    {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "host.invalid_input",
            "Invalid input",
            "expires_days is from 1 to 3650",
        ));
    }
    let now = platform.clock.unix();
    let identity = platform.identity.clone();
    let name = new.name.clone();
    let (key, info) = blocking(move || identity.create_key(&new, now)).await?;
    tracing::info!(%caller, key = %name, scope = ?info.scope, "key created");
    let created = CreatedKey {
        info,
        key: key.reveal().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

async fn revoke_key(
    State(platform): State<Platform>,
    Caller(caller): Caller,
    PathParams(name): PathParams<String>,
) -> Result<Answer<KeyInfo>, ApiError> {
    let now = platform.clock.unix();
    let identity = platform.identity.clone();
    let revoked = name.clone();
    let info = blocking(move || identity.revoke_key(&revoked, now)).await?;
    tracing::info!(%caller, key = %name, "key revoked");
    Ok(Answer(info))
}

/// Writing the file of keys waits for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, alicia_identity::Error> + Send + 'static,
) -> Result<T, ApiError> {
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome
        .expect("work on keys does not panic and is not cancelled")
        .map_err(key_error)
}

pub(super) fn key_error(error: alicia_identity::Error) -> ApiError {
    use alicia_identity::Error as E;
    let (status, code, title) = match &error {
        E::KeyExists(_) => (StatusCode::CONFLICT, "host.key_exists", "The key exists"),
        E::LastAdmin(_) => (
            StatusCode::CONFLICT,
            "host.last_admin_key",
            "The last admin key",
        ),
        E::TooManyKeys(_) => (StatusCode::CONFLICT, "host.too_many_keys", "Too many keys"),
        E::NoSuchKey(_) => (StatusCode::NOT_FOUND, "host.no_such_key", "No such key"),
        E::Scopes(_) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "host.invalid_input",
            "Invalid input",
        ),
        E::TooManyRoots(_) | E::TooManyAgents(_) => {
            (StatusCode::CONFLICT, "host.too_many_keys", "Too many keys")
        }
        E::NameTaken(_) => (StatusCode::CONFLICT, "host.name_taken", "The name is taken"),
        E::NoSuchAgent(_) => (
            StatusCode::NOT_FOUND,
            "host.no_such_agent",
            "No such agent or join token",
        ),
        E::BadJoinToken | E::BadProof | E::MayNotAct(_) => {
            (StatusCode::FORBIDDEN, "host.not_admitted", "Not admitted")
        }
        E::Read { .. } | E::Write { .. } | E::Corrupt { .. } | E::Random(_) => {
            return ApiError::internal("host", &error);
        }
    };
    ApiError::new(status, code, title, format!("failed to {error}"))
}

async fn create_link(
    State(platform): State<Platform>,
    Caller(caller): Caller,
) -> Result<Answer<Link>, ApiError> {
    let (Identity::Key { name, .. } | Identity::Limited { name, .. }) = &caller else {
        return Err(ApiError::not_found(
            "host",
            "only the holder of a key signs in to the page",
        ));
    };
    let code = platform
        .identity
        .create_link(name, platform.clock.unix())
        .map_err(key_error)?;
    Ok(Answer(Link {
        path: format!("/sign-in?code={code}"),
    }))
}

async fn reload(State(platform): State<Platform>) -> Result<Answer<Reloaded>, ApiError> {
    let (answer, told) = oneshot::channel();
    platform.order(Order::Reload(answer))?;
    match told.await {
        Ok(Ok(modules)) => Ok(Answer(Reloaded { modules })),
        Ok(Err(faults)) => {
            let faults = faults
                .into_iter()
                .map(|message| alicia_contract::problem::InputFault {
                    pointer: String::new(),
                    message,
                });
            Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "host.faulty_file",
                "The file has faults",
                "nothing changed; mend the faults and reload again",
            )
            .with_faults(faults.collect()))
        }
        Err(_) => Err(ApiError::unavailable("host", "the host is ending")),
    }
}

async fn stop(
    State(platform): State<Platform>,
    Caller(caller): Caller,
    unwritten: Option<Extension<super::audit::Unwritten>>,
    Body(stop): Body<Stop>,
) -> Result<(StatusCode, Json<Done>), ApiError> {
    tracing::info!(%caller, leave_running = stop.leave_running, "asked to end");
    let warning = unwritten.map(|_| {
        tracing::warn!(%caller, "the host ends without a row in the audit log, which cannot be written");
        "that the host was ended is not in the audit log, which cannot be written; it is tried again when the services \
         have ended; see whether the disk is full, and host.log"
            .to_owned()
    });
    platform.order(Order::Stop(stop))?;
    let detail = if stop.leave_running {
        "the host ends and leaves the services running"
    } else {
        "the services end, then the host"
    };
    Ok((
        StatusCode::ACCEPTED,
        Json(Done {
            detail: detail.to_owned(),
            warning,
        }),
    ))
}

impl Platform {
    fn order(&self, order: Order) -> Result<(), ApiError> {
        self.orders.try_send(order).map_err(|_| {
            ApiError::unavailable("host", "the host is busy with other orders or ending")
        })
    }
}
