//! REST of the audit log: pages of rows, the whole of it verified, the last checkpoint; and the row before each operation of
//! the platform that changes something.

use std::path::PathBuf;

use alicia_contract::Period;
use alicia_contract::audit::{AuditCheckpoint, AuditPage, AuditVerdict};
use alicia_contract::platform::Scope;
use alicia_identity::Identity;
use alicia_module::api::{Access, Answer, Api, Params};
use alicia_module::{ApiError, Exposition, Operation};
use alicia_store::audit::Outcome;
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::platform::{END, Platform};
use crate::audit::read::{self, LIMIT_MAX, Places as Cursor, Query};
use crate::audit::record::{Act, Recorder};
use crate::audit::{keys, verify};

/// Rows of a page unless asked otherwise.
const LIMIT_DEFAULT: usize = 100;

/// The longest text to look for, in characters.
const TEXT_CHARS_MAX: usize = 500;

/// The audit log as the platform's routes use it.
#[derive(Clone)]
pub(crate) struct AuditDesk {
    pub(crate) recorder: Recorder,
    /// The directory of the databases.
    pub(crate) databases: PathBuf,
    /// The file of checkpoints.
    pub(crate) checkpoints: PathBuf,
    /// The directory of the keys.
    pub(crate) keys: PathBuf,
    pub(crate) last_checkpoint: watch::Receiver<Option<AuditCheckpoint>>,
}

impl AuditDesk {
    /// For `/metrics`.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(super) fn metrics(&self) -> String {
        let mut out = Exposition::default();
        out.begin("host");
        let help = "Refusals that are not in the audit log, because too many waited.";
        out.counter(
            "audit_refusals_lost_total",
            help,
            &[],
            self.recorder.lost() as f64,
        );
        let last = self.last_checkpoint.borrow();
        let (number, at) = last
            .as_ref()
            .map_or((0, 0.0), |last| (last.number, last.at));
        let help = "The number of the last signed checkpoint of the audit log.";
        out.gauge("audit_checkpoint_number", help, &[], number as f64);
        let help = "When it was made, in Unix seconds.";
        out.gauge("audit_checkpoint_timestamp_seconds", help, &[], at);
        out.text()
    }
}

/// Which rows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AuditParams {
    /// At most so many rows. Default: 100; at most 1,000.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
    /// To older rows: `before` of the last answer.
    before: Option<String>,
    /// To newer rows: `after` of an answer; oldest first.
    after: Option<String>,
    /// Not older than this: `24h`.
    since: Option<Period>,
    /// Only rows whose actor has this in it: `key/admin`.
    by: Option<String>,
    /// Only rows that have this somewhere.
    grep: Option<String>,
    /// Only rows of this module.
    module: Option<String>,
    /// Only rows of this outcome: `done`, `failed` or `denied`.
    outcome: Option<String>,
}

/// Adds the operations to those of the platform.
pub(super) fn with(api: Api<Platform>) -> Api<Platform> {
    let admin = Access::Scope(Scope::Admin);
    api.with(
        Operation::get("/api/audit", "Who did what, of all modules, newest first.")
            .access(admin)
            .params::<AuditParams>()
            .answers::<AuditPage>(200, "The rows."),
        rows,
    )
    .with(
        Operation::get(
            "/api/audit/verify",
            "Walks along the whole audit log and says what is wrong where.",
        )
        .access(admin)
        .answers::<AuditVerdict>(200, "What was found."),
        verify_all,
    )
    .with(
        Operation::get(
            "/api/audit/checkpoint",
            "The last signed checkpoint, to be kept elsewhere.",
        )
        .access(admin)
        .answers::<AuditCheckpoint>(200, "The checkpoint.")
        .refuses(404, "There is none yet."),
        checkpoint,
    )
}

async fn rows(
    State(platform): State<Platform>,
    Params(params): Params<AuditParams>,
) -> Result<Answer<AuditPage>, ApiError> {
    let query = query(params, platform.clock.unix_us())?;
    let databases = platform.audit.databases.clone();
    let page = blocking(move || read::page(&databases, &query)).await?;
    page.map(Answer)
        .map_err(|error| ApiError::internal("host", &error))
}

fn query(params: AuditParams, now_unix_us: i64) -> Result<Query, ApiError> {
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(invalid(
            "limit",
            format!("found {limit}, expected 1 to {LIMIT_MAX}"),
        ));
    }
    for (name, text) in [("by", &params.by), ("grep", &params.grep)] {
        let chars = text.as_ref().map_or(0, |text| text.chars().count());
        if chars > TEXT_CHARS_MAX {
            return Err(invalid(
                name,
                format!("found {chars} characters, at most {TEXT_CHARS_MAX}"),
            ));
        }
    }
    if let Some(outcome) = params.outcome.as_deref()
        && !["done", "failed", "denied"].contains(&outcome)
    {
        return Err(invalid(
            "outcome",
            format!("found {outcome:?}, expected done, failed or denied"),
        ));
    }
    let cursor = |name: &'static str, text: Option<String>| {
        let parse = |text: String| {
            let fault = || {
                invalid(
                    name,
                    "this is no cursor: take `before` or `after` of an answer".to_owned(),
                )
            };
            Cursor::parse(&text).ok_or_else(fault)
        };
        text.map(parse).transpose()
    };
    let ago = |since: Period| i64::try_from(since.duration().as_micros()).unwrap_or(i64::MAX);
    Ok(Query {
        before: cursor("before", params.before)?,
        after: cursor("after", params.after)?,
        since_unix_us: params
            .since
            .map(|since| now_unix_us.saturating_sub(ago(since))),
        by: params.by,
        grep: params.grep,
        module: params.module,
        outcome: params.outcome,
        limit,
    })
}

fn invalid(parameter: &str, message: String) -> ApiError {
    let fault = alicia_contract::problem::InputFault {
        pointer: parameter.to_owned(),
        message,
    };
    ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "host.invalid_input",
        "Invalid input",
        "a query parameter is not what the operation takes",
    )
    .with_faults(vec![fault])
}

async fn verify_all(State(platform): State<Platform>) -> Result<Answer<AuditVerdict>, ApiError> {
    let desk = platform.audit.clone();
    let verdict = blocking(move || {
        verify::verify(&verify::Places {
            databases: &desk.databases,
            checkpoints: &desk.checkpoints,
            key: keys::public_key(&desk.keys).ok(),
        })
    });
    verdict
        .await?
        .map(Answer)
        .map_err(|error| ApiError::internal("host", &error))
}

async fn checkpoint(State(platform): State<Platform>) -> Result<Answer<AuditCheckpoint>, ApiError> {
    let last = platform.audit.last_checkpoint.borrow().clone();
    let none = || ApiError::not_found("host", "there is no checkpoint yet; ask again in a moment");
    last.map(Answer).ok_or_else(none)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let ending = |_| ApiError::unavailable("host", "the house is closing");
    tokio::task::spawn_blocking(work).await.map_err(ending)
}

/// Set on the request to end the host when it could not be written down: it is the one that is carried out all the same,
/// because who can no longer end a fleet on a full disk has to kill it, which leaves no row either.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unwritten;

/// Before an operation that changes something, who asks for what is written down; what cannot be written down is not done,
/// but for [`END`]. Callers who are no admins cannot fill the log by attempts: theirs are written when they were let
/// through, and refusals are counted elsewhere.
pub(super) async fn write_down(recorder: Recorder, mut request: Request, next: Next) -> Response {
    let identity = request.extensions().get::<Identity>().cloned();
    let Some(identity) = identity.filter(|_| !request.method().is_safe()) else {
        return next.run(request).await;
    };
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str).to_owned();
    let act = Act {
        actor: identity.to_string(),
        action: format!("host.{}", request.method().as_str().to_ascii_lowercase()),
        target: request.uri().path().to_owned(),
        outcome: Outcome::Done,
        detail: json!({ "operation": &route }),
    };
    if identity.has_scope(Scope::Admin) {
        if route == END {
            if recorder.record_or_owe(act).await.is_err() {
                request.extensions_mut().insert(Unwritten);
            }
            return next.run(request).await;
        }
        return match recorder.record(act).await {
            Ok(()) => next.run(request).await,
            Err(refusal) => refusal.into_response(),
        };
    }
    let response = next.run(request).await;
    if response.status() < StatusCode::BAD_REQUEST
        && let Err(refusal) = recorder.record(act).await
    {
        return refusal.into_response();
    }
    response
}
