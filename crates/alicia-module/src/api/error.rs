//! What an operation answers when it does not do what was asked: a problem document (RFC 9457).

use std::time::Duration;

use alicia_contract::platform::Scope;
use alicia_contract::problem::{InputFault, PROBLEM_CONTENT_TYPE, Problem};
use alicia_identity::Identity;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// An error as the caller sees it. Public text only: the chain of causes goes to the log.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: String,
    title: &'static str,
    detail: String,
    faults: Vec<InputFault>,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// An error with a stable code `<module>.<what>`, a title that is the same for every occurrence, and what
    /// happened this time and what to do.
    #[must_use]
    pub fn new(
        status: StatusCode,
        code: impl Into<String>,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            title,
            detail: detail.into(),
            faults: Vec::new(),
            retry_after: None,
        }
    }

    /// Says when to try again, in the header `Retry-After`, in whole seconds.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Names each single fault of the input.
    #[must_use]
    pub fn with_faults(mut self, faults: Vec<InputFault>) -> Self {
        self.faults = faults;
        self
    }

    /// 404 with the code `<module>.not_found`.
    #[must_use]
    pub fn not_found(module: &str, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("{module}.not_found"),
            "Not found",
            detail,
        )
    }

    /// 500 for a fault of ours: the cause is logged with its chain, the caller gets the request id.
    #[must_use]
    pub fn internal(module: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(module, error = chain(error), "operation failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{module}.internal"),
            "Internal error",
            "something failed that should not; the log has the cause under this request id",
        )
    }

    /// 503 when a part that is needed is away for now.
    #[must_use]
    pub fn unavailable(module: &str, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{module}.unavailable"),
            "Not available now",
            detail,
        )
    }

    pub(crate) fn input(detail: impl Into<String>, faults: Vec<InputFault>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "host.invalid_input",
            "Invalid input",
            detail,
        )
        .with_faults(faults)
    }

    pub(crate) fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "host.unauthenticated",
            "No valid key",
            "send a key as `Authorization: Bearer alk_…`; the first one lies in admin.key in the data \
             directory, `alicia key create` makes more",
        )
    }

    pub(crate) fn forbidden(identity: &Identity, needed: Scope) -> Self {
        let detail =
            format!("{identity} may not do this; it needs a key with the scope {needed:?}");
        Self::new(
            StatusCode::FORBIDDEN,
            "host.forbidden",
            "Not allowed",
            detail.to_lowercase(),
        )
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The problem document, as it is also sent over the bus.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem {
            kind: format!("/docs/errors/{}", self.code),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            code: self.code.clone(),
            request_id: None,
            faults: self.faults.clone(),
        }
    }
}

/// The code of the problem document that an answer is, in the extensions of the answer.
#[derive(Debug, Clone)]
pub struct ProblemCode(pub String);

/// An error with all its causes in one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body =
            serde_json::to_vec(&self.problem()).expect("a problem is plain text and numbers");
        let content_type = HeaderValue::from_static(PROBLEM_CONTENT_TYPE);
        let mut response =
            (self.status, [(header::CONTENT_TYPE, content_type)], body).into_response();
        if let Some(wait) = self.retry_after {
            let wait_s = wait.as_secs_f64().ceil().max(1.0);
            let value = HeaderValue::from_str(&wait_s.to_string()).expect("digits");
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        response.extensions_mut().insert(ProblemCode(self.code));
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
