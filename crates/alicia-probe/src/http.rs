//! GET one page over HTTP/1.1: one connection per try, no redirects, and a limit on what is read.

use std::future::poll_fn;
use std::pin::{Pin, pin};

use alicia_contract::ByteSize;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::attempt::{Deadline, Seen};
use crate::connect;
use crate::target::HttpTarget;

/// How much of a body is searched, in bytes. A page of health is small; one that is not must not fill the memory.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// The largest head of an answer, in bytes: what nginx and Apache allow, and some more.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The statuses that are good when none are named: success and redirects.
const STATUS_GOOD: std::ops::RangeInclusive<u16> = 200..=399;

pub(crate) async fn attempt(target: &HttpTarget, deadline: &Deadline) -> Seen {
    let stream = connect::connect(&target.host, target.port, deadline).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake::<_, String>(TokioIo::new(stream))
        .await
        .map_err(|error| said(&error))?;
    let exchange = async {
        let answer = deadline
            .within("no answer", sender.send_request(request(target)?))
            .await?;
        judge(answer.map_err(|error| said(&error))?, target, deadline).await
    };
    // The connection is driven by this future, so that nothing outlives the try. When it has ended, what it has
    // read is still waiting in the exchange.
    let (mut exchange, connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        biased;
        seen = &mut exchange => seen,
        _ = connection => exchange.await,
    }
}

fn request(target: &HttpTarget) -> Result<Request<String>, String> {
    let host = match target.port {
        80 => connect::shown(&target.host, 80)
            .trim_end_matches(":80")
            .to_owned(),
        port => connect::shown(&target.host, port),
    };
    let mut request = Request::new(String::new());
    *request.uri_mut() = target.path.clone().into();
    let headers = request.headers_mut();
    let host = HeaderValue::from_str(&host).map_err(|_| format!("{host:?} is no host"))?;
    headers.insert(HOST, host);
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("alicia-probe/", env!("CARGO_PKG_VERSION"))),
    );
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

async fn judge(answer: Response<Incoming>, target: &HttpTarget, deadline: &Deadline) -> Seen {
    let status = answer.status();
    judge_status(status, &target.status)?;
    match &target.body_contains {
        None => Ok(format!("HTTP {}", status.as_u16())),
        Some(text) => {
            let missing = format!("HTTP {}, but no {text:?} in the body", status.as_u16());
            deadline
                .within(&missing, search(answer.into_body(), text))
                .await??;
            Ok(format!(
                "HTTP {}, the body contains {text:?}",
                status.as_u16()
            ))
        }
    }
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

/// Reads until the text is found, the body ends, or [`BODY_BYTES_MAX`] are read.
async fn search(mut body: Incoming, text: &str) -> Result<(), String> {
    let needle = text.as_bytes();
    let mut read: Vec<u8> = Vec::new();
    while !needle.is_empty() {
        let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else {
            return Err(format!("the body does not contain {text:?}"));
        };
        let frame = frame.map_err(|error| said(&error))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        // The text may begin at the end of what was read before.
        let from = read.len().saturating_sub(needle.len() - 1);
        let room = BODY_BYTES_MAX - read.len();
        read.extend_from_slice(&data[..data.len().min(room)]);
        if read[from..]
            .windows(needle.len())
            .any(|window| window == needle)
        {
            return Ok(());
        }
        if read.len() >= BODY_BYTES_MAX {
            let limit = ByteSize(BODY_BYTES_MAX as u64);
            return Err(format!(
                "the first {limit} of the body do not contain {text:?}"
            ));
        }
    }
    Ok(())
}

/// An error of the connection in words.
fn said(error: &hyper::Error) -> String {
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
