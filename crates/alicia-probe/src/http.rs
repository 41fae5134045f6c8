//! Ask for one page over HTTP/1.1: one connection per try, no redirects, and a limit on what is read.

mod body;

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use alicia_contract::ByteSize;
use alicia_contract::fleet::HttpCheck;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

pub(crate) use body::read;
use body::{Wanted, search};

use crate::attempt::{Deadline, Seen};
use crate::connect::{Connected, Place};
use crate::target::{Context, TargetError, limit};

/// How much of a body is read, in bytes. A page of health is small; one that is not must not fill the memory.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// The largest head of an answer, in bytes: what nginx and Apache allow, and some more.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The statuses that are good when none are named: success and redirects.
const STATUS_GOOD: std::ops::RangeInclusive<u16> = 200..=399;

/// A page and what is expected of it.
#[derive(Debug, Clone)]
pub struct HttpTarget {
    place: Place,
    path: PathAndQuery,
    headers: HeaderMap,
    /// The statuses that are good; empty: 200 to 399.
    status: Vec<u16>,
    answer_headers: Vec<(HeaderName, String)>,
    body: Wanted,
    pub(crate) latency_max: Option<Duration>,
}

// === impl HttpTarget ===

impl HttpTarget {
    pub(crate) fn new(check: &HttpCheck, context: &Context<'_>) -> Result<Self, TargetError> {
        let answer_headers = check.answer_headers.iter();
        let answer_headers = answer_headers.map(|(name, text)| {
            let header = HeaderName::try_from(name.as_str());
            let header = header.map_err(|_| TargetError::Header(name.clone()))?;
            Ok((header, text.clone()))
        });
        Ok(Self {
            place: context.place(&check.host, check.port, check.tls.as_ref())?,
            path: path(&check.path)?,
            headers: headers(&check.headers)?,
            status: check.status.clone(),
            answer_headers: answer_headers.collect::<Result<_, _>>()?,
            body: Wanted::new(check)?,
            latency_max: limit(check.latency_max),
        })
    }

    pub(crate) async fn attempt(&self, deadline: &Deadline) -> Seen {
        let connected = self.place.connect(&[], deadline).await?;
        let mut request = Request::new(String::new());
        *request.uri_mut() = self.path.clone().into();
        *request.headers_mut() = self.headers.clone();
        let note = connected.note.clone();
        let judge = async |answer| self.judge(answer, deadline).await;
        let seen = exchange(connected, &self.place, request, deadline, judge).await?;
        Ok(format!("{seen}{note}"))
    }

    async fn judge(&self, answer: Response<Incoming>, deadline: &Deadline) -> Seen {
        judge_status(answer.status(), &self.status)?;
        for (name, text) in &self.answer_headers {
            judge_header(answer.headers(), name, text)?;
        }
        let status = answer.status().as_u16();
        let head = format!("HTTP {status}");
        if let Some(text) = self.body.only_text() {
            let missing = format!("{head}, but no {text:?} in the body");
            let found = search(answer.into_body(), text);
            deadline.within(&missing, found).await??;
            return Ok(format!("{head}, the body contains {text:?}"));
        }
        if self.body.is_nothing() {
            return Ok(head);
        }
        let missing = format!("{head}, but no whole body");
        let bytes = deadline
            .within(&missing, read(answer.into_body()))
            .await??;
        let seen = self.body.judge(&bytes)?;
        Ok(format!("{head}, {seen}"))
    }
}

/// Sends a request and has its answer judged. The connection is driven by this future, so that nothing outlives the
/// try.
pub(crate) async fn exchange(
    connected: Connected,
    place: &Place,
    mut request: Request<String>,
    deadline: &Deadline,
    judge: impl AsyncFnOnce(Response<Incoming>) -> Seen,
) -> Seen {
    let authority = place.authority();
    let host =
        HeaderValue::from_str(&authority).map_err(|_| format!("{authority:?} is no host"))?;
    let headers = request.headers_mut();
    headers.entry(HOST).or_insert(host);
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!(
            "alicia-probe/",
            env!("CARGO_PKG_VERSION")
        )));
    headers
        .entry(ACCEPT)
        .or_insert(HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake::<_, String>(TokioIo::new(connected.stream))
        .await
        .map_err(|error| said(&error))?;
    let exchange = async {
        let answer = deadline
            .within("no answer", sender.send_request(request))
            .await?;
        judge(answer.map_err(|error| said(&error))?).await
    };
    // When the connection has ended, what it has read is still waiting in the exchange.
    let (mut exchange, connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        biased;
        seen = &mut exchange => seen,
        _ = connection => exchange.await,
    }
}

/// A path, with a query if there is one.
pub(crate) fn path(text: &str) -> Result<PathAndQuery, TargetError> {
    let path = PathAndQuery::try_from(text);
    let path = path.ok().filter(|_| text.starts_with('/'));
    path.ok_or_else(|| TargetError::Path(text.to_owned()))
}

/// Headers to send.
pub(crate) fn headers(written: &BTreeMap<String, String>) -> Result<HeaderMap, TargetError> {
    let mut headers = HeaderMap::new();
    for (name, value) in written {
        let header = HeaderName::try_from(name.as_str()).ok();
        let value = HeaderValue::try_from(value.as_str()).ok();
        let (Some(header), Some(value)) = (header, value) else {
            return Err(TargetError::Header(name.clone()));
        };
        headers.insert(header, value);
    }
    Ok(headers)
}

fn judge_status(status: StatusCode, good: &[u16]) -> Result<(), String> {
    let status = status.as_u16();
    let expected = match good {
        [] if STATUS_GOOD.contains(&status) => return Ok(()),
        good if good.contains(&status) => return Ok(()),
        [] => format!("{} to {}", STATUS_GOOD.start(), STATUS_GOOD.end()),
        good => good
            .iter()
            .map(u16::to_string)
            .collect::<Vec<_>>()
            .join(" or "),
    };
    Err(format!("HTTP {status}, expected {expected}"))
}

fn judge_header(headers: &HeaderMap, name: &HeaderName, text: &str) -> Result<(), String> {
    let found: Vec<String> = headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    match found.first() {
        None => Err(format!("the answer has no header {name}")),
        Some(_) if found.iter().any(|value| value.contains(text)) => Ok(()),
        Some(first) => Err(format!("{name} is {first:?}, expected {text:?} in it")),
    }
}

/// An error of the connection in words.
pub(crate) fn said(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        let limit = ByteSize(HEAD_BYTES_MAX as u64);
        return format!("the head of the answer is larger than {limit}");
    }
    if error.is_parse() {
        return "the answer is not HTTP".to_owned();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return "the connection was closed before the answer was complete".to_owned();
    }
    let source = std::error::Error::source(error);
    let cause = source.map_or_else(|| error.to_string(), ToString::to_string);
    format!("the answer broke off: {cause}")
}
