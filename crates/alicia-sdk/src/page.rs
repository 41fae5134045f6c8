//! `/health` and `/metrics` over HTTP, on 127.0.0.1.

use std::fmt::Write;
use std::net::Ipv4Addr;

use alicia_contract::health::HeartbeatStatus;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use crate::context::Context;
use crate::error::Error;
use crate::presence;

/// Takes the port, so that a fault is told at the start.
pub(crate) async fn listen(port: u16) -> Result<TcpListener, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|source| Error::Listen { port, source })
}

/// Serves until it is dropped.
pub(crate) async fn serve(cx: Context, listener: TcpListener) {
    let routes = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .with_state(cx);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "/health is no longer served");
    }
}

/// 200 when it works, with less than it should have or not; 503 when it does not.
async fn health(State(cx): State<Context>) -> impl IntoResponse {
    let heartbeat = presence::heartbeat(&cx);
    let status = match heartbeat.status {
        HeartbeatStatus::Healthy | HeartbeatStatus::Degraded => StatusCode::OK,
        HeartbeatStatus::Starting
        | HeartbeatStatus::Unhealthy
        | HeartbeatStatus::Stopping
        | HeartbeatStatus::Offline => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "status": heartbeat.status,
        "detail": heartbeat.detail,
        "service": heartbeat.service,
        "instance": heartbeat.instance,
        "uptime_s": heartbeat.uptime_s,
        "connected": cx.bus().status().connected,
    });
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (status, headers, axum::Json(body))
}

/// The counters and resources of the heartbeat, in the text format of Prometheus.
async fn metrics(State(cx): State<Context>) -> impl IntoResponse {
    let heartbeat = presence::heartbeat(&cx);
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
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
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
    fn labels_are_escaped() {
        let mut text = String::new();
        sample(&mut text, "x", Some("a\"b\\c\nd"), 1.5);
        assert_eq!(text, "x{name=\"a\\\"b\\\\c\\nd\"} 1.5\n");
    }
}
