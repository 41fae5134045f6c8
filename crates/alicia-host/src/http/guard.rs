//! What every request passes first: it gets an id, its Host and Origin are checked, and who calls is found out.
//!
//! A web page of somebody else that is open in a browser on this machine can send requests here. It cannot
//! send them with our `Host` through a name that it controls (DNS rebinding), nor with our `Origin`; and the
//! session cookie is `SameSite=Strict`. "It comes from this machine" counts for nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use alicia_identity::{Authority, Identity};
use alicia_module::{ApiError, Clock};
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::rate::Rates;

/// The name of the session cookie.
pub(crate) const SESSION_COOKIE: &str = "alicia_session";

/// The header that carries the id of a request, in and out.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A longer request id of the caller is replaced by our own.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// A problem document is far smaller than this.
const PROBLEM_BYTES_MAX: usize = 64 << 10;

/// Checks requests.
#[derive(Clone)]
pub(crate) struct Guard {
    identity: Authority,
    clock: Clock,
    hosts: Arc<Vec<String>>,
    rates: Rates,
}

impl Guard {
    /// A guard that takes requests for this machine and for these further names.
    pub(crate) fn new(identity: Authority, clock: Clock, hosts: Vec<String>) -> Self {
        Self {
            identity,
            clock,
            hosts: Arc::new(hosts),
            rates: Rates::default(),
        }
    }

    pub(crate) async fn pass(&self, mut request: Request, next: Next) -> Response {
        let id = request_id(request.headers());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = match self.check(&mut request) {
            Ok(()) => next.run(request).await,
            Err(refusal) => refusal.into_response(),
        };
        let status = response.status().as_u16();
        tracing::debug!(request_id = %id, %method, path, status, "request");
        finish(response, &id).await
    }

    fn check(&self, request: &mut Request) -> Result<(), ApiError> {
        let headers = request.headers();
        let host = only_host(request)?.to_owned();
        if !self.is_ours(&host) {
            return Err(misdirected(&host));
        }
        let is_safe = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS
        );
        let origin = origin(headers);
        if !is_safe && origin.is_some_and(|origin| origin != Origin::Of(&host)) {
            return Err(foreign_origin());
        }
        let from_own_page = is_safe || origin.is_some();
        if let Some(identity) = self.caller(headers, from_own_page)? {
            let rate = self.identity.settings().requests;
            let taken = self
                .rates
                .take(&identity.to_string(), rate, self.clock.now());
            taken.map_err(|wait| too_many(&identity, wait))?;
            request.extensions_mut().insert(identity);
        }
        Ok(())
    }

    /// A credential in `Authorization` that is not good is refused, even where none is needed: silence
    /// would hide the mistake. A bad cookie is no cookie.
    fn caller(
        &self,
        headers: &HeaderMap,
        from_own_page: bool,
    ) -> Result<Option<Identity>, ApiError> {
        let now = self.clock.unix();
        if let Some(value) = headers.get(AUTHORIZATION) {
            let credential = value
                .to_str()
                .ok()
                .and_then(bearer)
                .ok_or_else(bad_credential)?;
            return match self.identity.authenticate(credential, now) {
                Ok(identity) => Ok(Some(identity)),
                Err(refusal) => {
                    tracing::debug!(%refusal, "credential refused");
                    Err(bad_credential())
                }
            };
        }
        let session = cookie(headers).filter(|_| from_own_page);
        Ok(session.and_then(|session| self.identity.session(session, now)))
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = host_name(host);
        let is_loopback = name
            .parse::<IpAddr>()
            .map_or(name.eq_ignore_ascii_case("localhost"), |ip| {
                ip.is_loopback()
            });
        is_loopback
            || self
                .hosts
                .iter()
                .any(|ours| ours.eq_ignore_ascii_case(name))
    }
}

/// The host that the request is for: an address with a host overrides `Host`, and there is one `Host` at most (RFC 9112
/// section 3.2). Two that differ are how a request passes one check and reaches another host.
fn only_host(request: &Request) -> Result<&str, ApiError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(several_hosts());
    }
    let named = request
        .uri()
        .authority()
        .map(|authority| authority.as_str())
        .or_else(|| first.and_then(|host| host.to_str().ok()));
    named.ok_or_else(|| misdirected("(none)"))
}

/// `name` of `name:port`, `address` of `[address]:port`; nothing of a bracket that stays open.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').map_or("", |(address, _)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin<'h> {
    Of(&'h str),
    Foreign,
}

fn origin(headers: &HeaderMap) -> Option<Origin<'_>> {
    let value = headers.get(ORIGIN)?.to_str().unwrap_or_default();
    let host = value
        .strip_prefix("http://")
        .or_else(|| value.strip_prefix("https://"));
    Some(host.map_or(Origin::Foreign, Origin::Of))
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, credential) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| credential.trim())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = values
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(name, value)| (name == SESSION_COOKIE).then_some(value))
}

/// The caller's own id when it is harmless, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let is_harmless = |id: &&str| {
        !id.is_empty()
            && id.len() <= REQUEST_ID_BYTES_MAX
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    given
        .filter(is_harmless)
        .map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}

/// Writes the id into the answer, and into the problem document when it is one.
async fn finish(response: Response, id: &str) -> Response {
    let is_problem = response.status().is_client_error() || response.status().is_server_error();
    let mut response = if is_problem {
        as_problem(response, id).await
    } else {
        response
    };
    let headers = response.headers_mut();
    let value = HeaderValue::from_str(id).expect("an id has only harmless characters");
    headers.insert(REQUEST_ID, value);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Every error is a problem document, also those that the framework makes in plain text. An error that is a text in
/// JSON is that of somebody else's wire format (Alertmanager's), and stays as its clients read it.
async fn as_problem(response: Response, id: &str) -> Response {
    let content_type = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    if content_type.is_some_and(|kind| kind.starts_with("text/html")) {
        return response;
    }
    let is_json = content_type == Some("application/json");
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, PROBLEM_BYTES_MAX).await.unwrap_or_default();
    if is_json && serde_json::from_slice::<String>(&bytes).is_ok() {
        return Response::from_parts(parts, Body::from(bytes));
    }
    let mut problem: Value = match serde_json::from_slice::<Value>(&bytes) {
        Ok(problem) if problem.get("code").is_some() => problem,
        _ => plain(parts.status, &String::from_utf8_lossy(&bytes)),
    };
    problem["request_id"] = Value::from(id);
    let mut response = Response::from_parts(parts, Body::from(problem.to_string()));
    let headers = response.headers_mut();
    headers.remove(axum::http::header::CONTENT_LENGTH);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(alicia_contract::problem::PROBLEM_CONTENT_TYPE),
    );
    response
}

fn plain(status: StatusCode, text: &str) -> Value {
    let (code, title) = match status {
        StatusCode::METHOD_NOT_ALLOWED => ("host.method_not_allowed", "Method not allowed"),
        StatusCode::PAYLOAD_TOO_LARGE => ("host.body_too_large", "Body too large"),
        status if status.is_server_error() => ("host.internal", "Internal error"),
        _ => ("host.bad_request", "Bad request"),
    };
    let detail = if text.is_empty() {
        "this path takes other methods; /docs lists them".to_owned()
    } else {
        text.to_owned()
    };
    let problem = ApiError::new(status, code, title, detail).problem();
    serde_json::to_value(problem).expect("a problem is plain text and numbers")
}

fn too_many(caller: &Identity, wait: Duration) -> ApiError {
    let wait_s = wait.as_secs_f64().ceil().max(1.0);
    let detail = format!(
        "{caller} makes more requests than it may; try again in {wait_s} s, or raise \
         `identity.requests` in the file"
    );
    ApiError::new(
        StatusCode::TOO_MANY_REQUESTS,
        "host.too_many_requests",
        "Too many requests",
        detail,
    )
    .retry_after(wait)
}

fn misdirected(host: &str) -> ApiError {
    let detail = format!(
        "the request is for the host {host:?}, which is not this one; \
         a name under which the page shall be reached goes into `http.hosts`"
    );
    ApiError::new(
        StatusCode::MISDIRECTED_REQUEST,
        "host.other_host",
        "Another host",
        detail,
    )
}

fn several_hosts() -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        "host.bad_request",
        "Bad request",
        "the request has several `Host` headers",
    )
}

fn foreign_origin() -> ApiError {
    let detail = "the request comes from a web page of another site";
    ApiError::new(
        StatusCode::FORBIDDEN,
        "host.foreign_origin",
        "Another site",
        detail,
    )
}

fn bad_credential() -> ApiError {
    let detail = "the key or token in `Authorization` is unknown, revoked or expired; \
                  send `Authorization: Bearer alk_…`";
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "host.unauthenticated",
        "No valid key",
        detail,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_taken_out() {
        let check = |host: &str, name: &str| assert_eq!(host_name(host), name);
        check("localhost", "localhost");
        check("localhost:4000", "localhost");
        check("127.0.0.1:4000", "127.0.0.1");
        check("[::1]:4000", "::1");
        check("[::1", "");
        check("evil.example:4000", "evil.example");
    }

    #[test]
    fn a_request_is_for_one_host() {
        let check = |address: &str, hosts: &[&str], expect: Result<&str, u16>| {
            let builder = hosts.iter().fold(Request::get(address), |builder, host| {
                builder.header(HOST, *host)
            });
            let request = builder.body(Body::empty()).expect("a request");
            let found = only_host(&request).map_err(|refusal| refusal.status().as_u16());
            assert_eq!(found, expect, "{address} {hosts:?}");
        };
        check("/", &["localhost:4000"], Ok("localhost:4000"));
        check("http://evil.example/", &["localhost"], Ok("evil.example"));
        check("http://localhost/", &[], Ok("localhost"));
        check("/", &["localhost", "evil.example"], Err(400));
        check("/", &[], Err(421));
    }

    #[test]
    fn a_hostile_request_id_is_replaced() {
        let id_of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_static(value));
            request_id(&headers)
        };
        assert_eq!(id_of("a-1_b.c"), "a-1_b.c");
        for bad in ["", "a b", "<script>", "\"", "x\u{7f}"] {
            if HeaderValue::from_str(bad).is_ok() {
                assert_ne!(id_of(bad), bad);
            }
        }
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(
            COOKIE,
            HeaderValue::from_static("a=b; alicia_session=als_x.y; c=d"),
        );
        assert_eq!(cookie(&headers), Some("als_x.y"));
    }
}
