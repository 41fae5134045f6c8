//! Around every request: it is a part of a trace, and what is refused is noted in the audit log.
//!
//! ```text
//!  trace ─► guard ─► note ─► operation
//!    │                └ refused by an operation: who, what, why; the caller is known
//!    └ refused by the guard: a stranger
//! ```

use alicia_identity::Identity;
use alicia_module::api::error::ProblemCode;
use alicia_module::trace::{self, Trace};
use alicia_store::audit::Origin;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;

use super::serve::Peer;
use crate::audit::record::{Kind, Recorder, Refused, STRANGER};

/// The header of W3C Trace Context, in and out.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The path of a refused request is cut to this in the audit log.
const TARGET_CHARS_MAX: usize = 200;

/// Whether a refusal has been noted, in the extensions of the answer.
#[derive(Debug, Clone, Copy)]
struct Noted;

/// What is said of a refused request.
struct Asked {
    method: Method,
    path: String,
}

// === impl Asked ===

impl Asked {
    fn of(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            path: request
                .uri()
                .path()
                .chars()
                .take(TARGET_CHARS_MAX)
                .collect(),
        }
    }

    fn refused(self, actor: String, response: &Response) -> Refused {
        let code = response.extensions().get::<ProblemCode>();
        Refused {
            kind: Kind {
                actor,
                action: format!("rest.{}", self.method.as_str().to_ascii_lowercase()),
                target: self.path,
                code: code.map(|code| code.0.clone()).unwrap_or_default(),
            },
            origin: Origin::current(),
            status: response.status().as_u16(),
        }
    }
}

/// The outermost: gives the request a trace, ours or the caller's, and notes what the guard refuses.
pub(super) async fn trace(recorder: Recorder, request: Request, next: Next) -> Response {
    let given = request.headers().get(TRACEPARENT);
    let given = given
        .and_then(|value| value.to_str().ok())
        .and_then(Trace::parse);
    let trace = given.map_or_else(Trace::new, Trace::child);
    let peer = request.extensions().get::<Peer>();
    let from = peer.map_or_else(|| "rest".to_owned(), |peer| format!("rest {}", peer.0));
    let work = async {
        let asked = Asked::of(&request);
        let response = next.run(request).await;
        let is_noted = response.extensions().get::<Noted>().is_some();
        if !is_noted && matches!(response.status().as_u16(), 401 | 403 | 421 | 429) {
            recorder.refused(asked.refused(STRANGER.to_owned(), &response));
        }
        response
    };
    let mut response = trace::scope(trace, &from, work).await;
    let value = HeaderValue::from_str(&trace.to_string());
    let value = value.expect("a trace has only harmless characters");
    response.headers_mut().insert(TRACEPARENT, value);
    response
}

/// Within the guard: notes what an operation refuses to somebody known, and whatever was not done of what changes
/// something.
pub(super) async fn note(recorder: Recorder, request: Request, next: Next) -> Response {
    let identity = request
        .extensions()
        .get::<Identity>()
        .map(ToString::to_string);
    let asked = Asked::of(&request);
    let mut response = next.run(request).await;
    let status = response.status();
    let is_refused = matches!(status.as_u16(), 401 | 403);
    let is_undone =
        !asked.method.is_safe() && (status.is_client_error() || status.is_server_error());
    if is_refused || is_undone {
        let actor = identity.unwrap_or_else(|| STRANGER.to_owned());
        recorder.refused(asked.refused(actor, &response));
        response.extensions_mut().insert(Noted);
    }
    response
}
