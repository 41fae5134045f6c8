//! `/health` and `/metrics` over HTTP/1, on 127.0.0.1.
//!
//! Two pages for probes need no web server, which would be most of a small service's binary: one request
//! per connection, at most [`CONNECTIONS_MAX`] of them, each with a deadline.

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use alicia_contract::health::HeartbeatStatus;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::context::Context;
use crate::error::Error;
use crate::presence;

/// Connections at the same time. Probes come one by one; when there are more, the oldest is closed, so
/// that those who hold connections open do not keep a probe out.
const CONNECTIONS_MAX: usize = 16;
/// The time for one request and its answer.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// The pause after a failed accept, which means that the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; version=0.0.4";

/// Takes the port, so that a fault is told at the start.
pub(crate) async fn listen(port: u16) -> Result<TcpListener, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|source| Error::Listen { port, source })
}

/// Serves until it is dropped.
pub(crate) async fn serve(cx: Context, listener: TcpListener) {
    let mut connections = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to /health");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(connections.spawn(answer_in_time(cx.clone(), stream)));
    }
}

async fn answer_in_time(cx: Context, stream: TcpStream) {
    match timeout(REQUEST_DEADLINE, answer(&cx, stream)).await {
        Ok(Ok(())) => {}
        // A probe that hangs up or sends nothing is nobody's fault.
        Ok(Err(error)) => tracing::debug!(%error, "a request for /health was not finished"),
        Err(_) => tracing::debug!("a request for /health took too long"),
    }
}

async fn answer(cx: &Context, mut stream: TcpStream) -> std::io::Result<()> {
    let head = read_head(&mut stream).await?;
    let request = Request::read(&head);
    let page = match request {
        Some(request) => page(cx, request),
        None => Page::fault(400, "this is not HTTP"),
    };
    let is_head = request.is_some_and(|request| request.method == "HEAD");
    let mut bytes = page.head().into_bytes();
    if !is_head {
        bytes.extend_from_slice(page.body.as_bytes());
    }
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

/// Reads up to the empty line, or as much as is read at most.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while head.len() < HEAD_BYTES_MAX && !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}

/// The first line of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Request<'h> {
    method: &'h str,
    path: &'h str,
}

impl<'h> Request<'h> {
    fn read(head: &'h [u8]) -> Option<Self> {
        let end = head.windows(2).position(|bytes| bytes == b"\r\n")?;
        let mut words = std::str::from_utf8(&head[..end]).ok()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || !version.starts_with("HTTP/1.") {
            return None;
        }
        let path = target.split('?').next()?;
        Some(Self { method, path })
    }
}

/// An answer.
#[derive(Debug)]
struct Page {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Page {
    fn fault(status: u16, detail: &str) -> Self {
        Self {
            status,
            content_type: JSON,
            body: json!({ "status": status, "detail": detail }).to_string(),
        }
    }

    fn head(&self) -> String {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            _ => "Service Unavailable",
        };
        format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\n",
            self.status,
            self.content_type,
            self.body.len(),
        )
    }
}

fn page(cx: &Context, request: Request<'_>) -> Page {
    match (request.method, request.path) {
        ("GET" | "HEAD", "/health") => health(cx),
        ("GET" | "HEAD", "/metrics") => metrics(cx),
        (_, "/health" | "/metrics") => Page::fault(405, "GET or HEAD"),
        _ => Page::fault(404, "there are /health and /metrics"),
    }
}

/// 200 when it works, with less than it should have or not; 503 when it does not.
fn health(cx: &Context) -> Page {
    let heartbeat = presence::heartbeat(cx);
    let status = match heartbeat.status {
        HeartbeatStatus::Healthy | HeartbeatStatus::Degraded => 200,
        HeartbeatStatus::Starting
        | HeartbeatStatus::Unhealthy
        | HeartbeatStatus::Stopping
        | HeartbeatStatus::Offline => 503,
    };
    let body = json!({
        "status": heartbeat.status,
        "detail": heartbeat.detail,
        "service": heartbeat.service,
        "instance": heartbeat.instance,
        "uptime_s": heartbeat.uptime_s,
        "connected": cx.bus().status().connected,
    });
    Page {
        status,
        content_type: JSON,
        body: body.to_string(),
    }
}

/// The counters and resources of the heartbeat, in the text format of Prometheus.
fn metrics(cx: &Context) -> Page {
    let heartbeat = presence::heartbeat(cx);
    let mut text = String::new();
    family(
        &mut text,
        "alicia_service_uptime_seconds",
        "gauge",
        "Seconds since the start.",
    );
    sample(
        &mut text,
        "alicia_service_uptime_seconds",
        None,
        heartbeat.uptime_s,
    );
    family(
        &mut text,
        "alicia_service_events_total",
        "counter",
        "What the service counts, by name.",
    );
    for (name, value) in &heartbeat.counters {
        sample(&mut text, "alicia_service_events_total", Some(name), *value);
    }
    family(
        &mut text,
        "alicia_service_resource",
        "gauge",
        "What the process uses: cpu in cores, memory in bytes.",
    );
    for (name, value) in &heartbeat.resources {
        sample(&mut text, "alicia_service_resource", Some(name), *value);
    }
    Page {
        status: 200,
        content_type: TEXT,
        body: text,
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    line(text, format_args!("# HELP {name} {help}"));
    line(text, format_args!("# TYPE {name} {kind}"));
}

fn sample(text: &mut String, name: &str, label: Option<&str>, value: f64) {
    match label {
        Some(label) => {
            let label = label
                .replace('\\', r"\\")
                .replace('"', "\\\"")
                .replace('\n', r"\n");
            line(text, format_args!("{name}{{name=\"{label}\"}} {value}"));
        }
        None => line(text, format_args!("{name} {value}")),
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_line_of_http_1_is_a_request() {
        let check = |head: &str, expected: Option<(&str, &str)>| {
            let found = Request::read(head.as_bytes());
            assert_eq!(
                found.map(|found| (found.method, found.path)),
                expected,
                "{head:?}"
            );
        };
        check(
            "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
            Some(("GET", "/health")),
        );
        check(
            "HEAD /health?x=1 HTTP/1.0\r\n\r\n",
            Some(("HEAD", "/health")),
        );
        check("GET /health HTTP/2\r\n\r\n", None);
        check("GET /health\r\n\r\n", None);
        check("GET /a b HTTP/1.1\r\n\r\n", None);
        check("GET /health HTTP/1.1", None);
        check("", None);
        assert_eq!(Request::read(b"\xff \xff HTTP/1.1\r\n"), None);
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = String::new();
        sample(&mut text, "x", Some("a\"b\\c\nd"), 1.5);
        assert_eq!(text, "x{name=\"a\\\"b\\\\c\\nd\"} 1.5\n");
    }
}
