//! The output of a service over REST: what there is, and what follows.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use alicia_contract::{Period, ServiceName, UnixSeconds};
use alicia_keeper::logs::{Facts, Filter, Follow, From, Level, Line, read_last};
use alicia_module::ApiError;
use alicia_module::api::{Params, PathParams};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::commands::{invalid, possible_slot};
use super::{NAME, current_slots, unknown_service};
use crate::engine::launch::log_path;
use crate::module::Orchestrator;

/// How many may follow at once. Each holds a watch of the kernel per slot, of which it gives 128 by default.
pub(crate) const FOLLOWERS_MAX: usize = 32;

/// The most lines of one answer, per slot: some megabytes.
const LINES_MAX: usize = 10_000;

/// Lines per slot unless asked otherwise: a few screens.
const LINES_DEFAULT: usize = 200;

/// Chunks that wait for a reader who is slow; then the follower waits, and the files keep the rest.
const CHUNKS_MAX: usize = 16;

/// The longest text to look for.
const GREP_CHARS_MAX: usize = 500;

/// The name under which the log of the host itself is found.
const HOST: &str = "system";

/// Which lines.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogsParams {
    /// Go on with what comes.
    follow: Option<bool>,
    /// Not older than this: `10m`.
    since: Option<Period>,
    /// Not newer than this: `5m`.
    until: Option<Period>,
    /// Only lines with this text. At most 500 characters.
    grep: Option<String>,
    /// Only lines that are at least so grave: `debug`, `info`, `warn`, `error` or `fatal`. A line that says no level
    /// counts as `info`.
    level: Option<String>,
    /// Only lines with this id in them, as a word of its own: of a trace, a request, anything. At most 500 characters.
    trace: Option<String>,
    /// So many last lines of each instance. Default: 200; at most 10,000.
    #[schemars(range(min = 0, max = 10_000))]
    tail: Option<usize>,
    /// Only this slot.
    #[schemars(range(min = 1, max = 1000))]
    slot: Option<u32>,
}

/// A line as a JSON object.
#[derive(Debug, Serialize)]
struct JsonLine<'l> {
    instance: &'l str,
    at: UnixSeconds,
    stream: &'l str,
    text: &'l str,
    /// What it says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// One log: the instance and its file.
#[derive(Debug, Clone)]
struct Source {
    instance: String,
    path: PathBuf,
}

pub(crate) async fn logs(
    State(module): State<Arc<Orchestrator>>,
    PathParams(name): PathParams<ServiceName>,
    Params(params): Params<LogsParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if name.as_str() == HOST {
        let host = Source {
            instance: HOST.to_owned(),
            path: module.cx.paths.host_log(),
        };
        return answer(&module, vec![host], &params, &headers).await;
    }
    let slots = current_slots(&module, &name)
        .await?
        .ok_or_else(|| unknown_service(&module, &name))?;
    let sources = sources(&module, &name, slots);
    answer(&module, sources, &params, &headers).await
}

/// Of every service.
pub(crate) async fn all_logs(
    State(module): State<Arc<Orchestrator>>,
    Params(params): Params<LogsParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let status = super::views::current(&module).await?;
    let sources = status.services.iter().flat_map(|service| {
        let slots = service.instances.iter().map(|instance| instance.slot);
        sources(&module, &service.service, slots.collect())
    });
    answer(&module, sources.collect(), &params, &headers).await
}

fn sources(module: &Orchestrator, name: &ServiceName, slots: Vec<u32>) -> Vec<Source> {
    let source = |slot: u32| Source {
        instance: format!("{name}-{slot}"),
        path: log_path(&module.cx.paths, name, slot),
    };
    slots.into_iter().map(source).collect()
}

async fn answer(
    module: &Orchestrator,
    mut sources: Vec<Source>,
    params: &LogsParams,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let (filter, tail) = wanted(params, module.cx.clock.unix_us())?;
    if let Some(slot) = possible_slot(params.slot)? {
        sources.retain(|source| source.instance.ends_with(&format!("-{slot}")));
    }
    let form = form(headers);
    let body = if params.follow.unwrap_or_default() {
        follow(module, sources, (filter, tail), form)?
    } else {
        Body::from(past(sources, filter, tail, form).await?)
    };
    let content_type = HeaderValue::from_static(match form {
        Form::Text => "text/plain; charset=utf-8",
        Form::Json => "application/x-ndjson",
    });
    Ok(([(header::CONTENT_TYPE, content_type)], body).into_response())
}

fn wanted(params: &LogsParams, now_unix_us: i64) -> Result<(Filter, usize), ApiError> {
    let tail = params.tail.unwrap_or(LINES_DEFAULT);
    if tail > LINES_MAX {
        return Err(invalid(
            "tail",
            format!("found {tail}, at most {LINES_MAX}"),
        ));
    }
    for (name, text) in [("grep", &params.grep), ("trace", &params.trace)] {
        let chars = text.as_ref().map_or(0, |text| text.chars().count());
        if chars > GREP_CHARS_MAX {
            let message = format!("found {chars} characters, at most {GREP_CHARS_MAX}");
            return Err(invalid(name, message));
        }
    }
    let level = params.level.as_deref().map(|word| {
        let unknown = || {
            let message = format!("found {word:?}, expected debug, info, warn, error or fatal");
            invalid("level", message)
        };
        Level::from_word(word).ok_or_else(unknown)
    });
    let ago = |period: Period| {
        let now = u64::try_from(now_unix_us).unwrap_or_default();
        let ago = u64::try_from(period.duration().as_micros()).unwrap_or(u64::MAX);
        now.saturating_sub(ago)
    };
    let filter = Filter {
        since_unix_us: params.since.map(ago),
        until_unix_us: params.until.map(ago),
        contains: params.grep.clone(),
        stream: None,
        level: level.transpose()?,
        trace: params.trace.clone().filter(|id| !id.is_empty()),
    };
    Ok((filter, tail))
}

fn form(headers: &HeaderMap) -> Form {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let accept = accept.unwrap_or_default();
    if accept.contains("application/x-ndjson") || accept.contains("application/json") {
        Form::Json
    } else {
        Form::Text
    }
}

/// The lines that are there, of all slots, in the order of time.
async fn past(
    sources: Vec<Source>,
    filter: Filter,
    tail: usize,
    form: Form,
) -> Result<Vec<u8>, ApiError> {
    let read = move || {
        let mut lines: Vec<(Line, String)> = Vec::new();
        for source in sources {
            let of_slot = read_last(&source.path, tail, &filter)?;
            lines.extend(
                of_slot
                    .into_iter()
                    .map(|line| (line, source.instance.clone())),
            );
        }
        lines.sort_by_key(|(line, _)| line.unix_us);
        let mut text = Vec::new();
        for (line, instance) in &lines {
            write_line(&mut text, instance, line, form);
        }
        Ok::<_, std::io::Error>(text)
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(ApiError::internal(NAME, &error)),
        Err(_) => Err(ApiError::unavailable(NAME, "the house is closing")),
    }
}

/// The last lines of each slot and then what comes, until the reader goes away.
fn follow(
    module: &Orchestrator,
    sources: Vec<Source>,
    (filter, tail): (Filter, usize),
    form: Form,
) -> Result<Body, ApiError> {
    let permit = module.followers.clone().try_acquire_owned().map_err(|_| {
        let detail = format!("{FOLLOWERS_MAX} follow logs already; try again when one has ended");
        ApiError::unavailable(NAME, detail)
    })?;
    let permit = Arc::new(permit);
    let (chunks, received) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    for source in sources {
        let opened = Follow::open(&source.path, From::Last(tail), filter.clone());
        let mut lines = opened.map_err(|error| ApiError::internal(NAME, &error))?;
        let (chunks, permit) = (chunks.clone(), permit.clone());
        module.cx.spawn("follow a log", async move {
            loop {
                let next = tokio::select! {
                    next = lines.next() => next,
                    () = chunks.closed() => break,
                };
                let Ok(next) = next else { break };
                let mut text = Vec::new();
                for line in &next {
                    write_line(&mut text, &source.instance, line, form);
                }
                if chunks.send(text.into()).await.is_err() {
                    break;
                }
            }
            drop(permit);
        });
    }
    let body = stream::unfold(received, |mut received| async move {
        let chunk = received.recv().await?;
        Some((Ok::<_, Infallible>(chunk), received))
    });
    Ok(Body::from_stream(body))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 microseconds are 285 years"
)]
fn write_line(text: &mut Vec<u8>, instance: &str, line: &Line, form: Form) {
    let stream = line.stream.as_str();
    match form {
        Form::Text => {
            let us = i64::try_from(line.unix_us).unwrap_or_default();
            let at = jiff::Timestamp::from_microsecond(us).unwrap_or_default();
            text.extend_from_slice(format!("{at:.6} {instance} {}\n", line.text).as_bytes());
        }
        Form::Json => {
            let facts = Facts::of(line);
            let line = JsonLine {
                instance,
                at: line.unix_us as f64 / 1e6,
                stream,
                text: &line.text,
                level: facts.level.map(Level::as_str),
                message: facts.message,
                trace: facts.trace,
            };
            serde_json::to_writer(&mut *text, &line).expect("text and a number are JSON");
            text.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_keeper::logs::{LineKind, Stream};

    #[test]
    fn a_line_is_written_as_text_or_json() {
        let line = Line {
            unix_us: 1_700_000_000_123_456,
            stream: Stream::Stderr,
            text: "it \"works\"".into(),
            kind: LineKind::Full,
        };
        let check = |form, expected: &str| {
            let mut text = Vec::new();
            write_line(&mut text, "api-1", &line, form);
            assert_eq!(String::from_utf8(text).expect("is UTF-8"), expected);
        };
        check(
            Form::Text,
            "2023-11-14T22:13:20.123456Z api-1 it \"works\"\n",
        );
        check(
            Form::Json,
            "{\"instance\":\"api-1\",\"at\":1700000000.123456,\"stream\":\"stderr\",\"text\":\"it \\\"works\\\"\"}\n",
        );
    }
}
