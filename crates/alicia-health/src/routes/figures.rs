//! The performance of services as numbers: JSON, or the text of Prometheus.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::health::HealthState;
use alicia_contract::id::ServiceName;
use alicia_contract::unit::UnixSeconds;
use alicia_module::api::Answer;
use alicia_module::{Api, ApiError, Exposition, Operation};
use alicia_store::Error as StoreError;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::past::unread;
use super::{Module, State};
use crate::core::watch::Watch;
use crate::history::ledger::{Results, minute_of, number};
use crate::history::rows::{self, Grain};
use crate::history::uptime::{self, Uptime, round};
use crate::module::HealthModule;

/// Over which time checks are summed up.
const WITHIN: Duration = Duration::from_secs(3_600);

/// What Prometheus says that it takes (exposition formats, version 0.0.4).
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The numbers of every service.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Figures {
    /// When.
    at: UnixSeconds,
    /// The services, by name.
    services: Vec<ServiceFigures>,
}

/// The numbers of one service.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ServiceFigures {
    /// The service.
    service: ServiceName,
    /// How it is.
    state: HealthState,
    /// How much of the time it worked.
    uptime: Vec<Uptime>,
    /// Its checks over the last hour, all instances together.
    checks: Vec<CheckFigures>,
    /// Its instances.
    pub(super) instances: Vec<InstanceFigures>,
}

/// The numbers of one check, over the last hour. Latencies are in milliseconds, of tries that succeeded; percentiles are right
/// to a factor of two.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CheckFigures {
    /// The check.
    check: ServiceName,
    /// The tries.
    tries: u64,
    /// Those that failed.
    failures: u64,
    /// The mean.
    latency_ms_mean: Option<f64>,
    /// Half of the tries took no longer.
    latency_ms_p50: Option<f64>,
    /// 95 of 100 took no longer.
    latency_ms_p95: Option<f64>,
    /// 99 of 100 took no longer.
    latency_ms_p99: Option<f64>,
    /// The longest.
    latency_ms_max: f64,
}

/// The numbers of one instance.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InstanceFigures {
    /// The name, `api-1`; none: it is not run by the orchestrator.
    instance: Option<String>,
    /// The processor, in cores, as the orchestrator measured it.
    cpu: Option<f64>,
    /// The memory, as the orchestrator measured it.
    memory_bytes: Option<u64>,
    /// What its last heartbeat told.
    heartbeat: BTreeMap<String, f64>,
}

pub(super) fn add(api: Api<Arc<HealthModule>>) -> Api<Arc<HealthModule>> {
    api.with(
        Operation::get(
            "/metrics",
            "The performance of services: state, uptime, latencies, resources; the text of Prometheus by `Accept: text/plain`.",
        )
        .answers::<Figures>(200, "The numbers.")
        .answers_text(200, "text/plain", "The numbers for Prometheus."),
        figures,
    )
}

async fn figures(State(module): Module, headers: HeaderMap) -> Result<Response, ApiError> {
    let now = module.clock.unix();
    let read = module.store.read(move |connection| {
        let uptime = uptime::all(connection, now)?;
        let since = minute_of(now - WITHIN.as_secs_f64());
        let results = rows::results(connection, Grain::Minute, since)?;
        Ok::<_, StoreError>((uptime, results))
    });
    let (mut uptime, results) = read.await.map_err(unread)?;
    let monitor = module.shared.read();
    let services = monitor.watches().map(|watch| ServiceFigures {
        service: watch.service.clone(),
        state: watch.judged.state,
        uptime: uptime
            .remove(&watch.service)
            .unwrap_or_else(uptime::nothing),
        checks: checks(&watch.service, &results),
        instances: instances(watch),
    });
    let figures = Figures {
        at: now,
        services: services.collect(),
    };
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    Ok(match accept.is_some_and(wants_text) {
        true => ([(header::CONTENT_TYPE, PROMETHEUS)], text(&figures)).into_response(),
        false => Answer(figures).into_response(),
    })
}

/// Prometheus asks for OpenMetrics or plain text, and takes anything else last.
fn wants_text(accept: &str) -> bool {
    let first = accept.split(',').next().unwrap_or_default().trim();
    first.starts_with("text/plain") || first.starts_with("application/openmetrics-text")
}

fn checks(
    service: &ServiceName,
    results: &BTreeMap<(ServiceName, ServiceName), Results>,
) -> Vec<CheckFigures> {
    let own = results.iter().filter(|((of, _), _)| of == service);
    own.map(|((_, check), results)| CheckFigures {
        check: check.clone(),
        tries: results.tries,
        failures: results.failures,
        latency_ms_mean: results.latency_ms_mean().map(round),
        latency_ms_p50: results.latency_ms_at(0.5).map(round),
        latency_ms_p95: results.latency_ms_at(0.95).map(round),
        latency_ms_p99: results.latency_ms_at(0.99).map(round),
        latency_ms_max: round(results.latency_ms_max),
    })
    .collect()
}

pub(super) fn instances(watch: &Watch) -> Vec<InstanceFigures> {
    if watch.slots.is_empty() {
        let beats = watch.beats.values().filter(|beat| beat.came);
        return beats
            .map(|beat| InstanceFigures {
                instance: None,
                cpu: None,
                memory_bytes: None,
                heartbeat: beat.numbers.clone(),
            })
            .collect();
    }
    let slots = watch.slots.iter();
    slots
        .map(|(number, slot)| InstanceFigures {
            instance: Some(watch.label(*number)),
            cpu: slot.cpu,
            memory_bytes: slot.memory_bytes,
            heartbeat: watch
                .beat_of(slot)
                .map(|beat| beat.numbers.clone())
                .unwrap_or_default(),
        })
        .collect()
}

fn text(figures: &Figures) -> String {
    let mut out = Exposition::default();
    out.begin("health");
    for of in &figures.services {
        let service = of.service.as_str();
        let works = matches!(of.state, HealthState::Healthy | HealthState::Degraded);
        let up = f64::from(u8::from(works));
        out.gauge(
            "service_up",
            "Whether a service works.",
            &[("service", service)],
            up,
        );
        for uptime in &of.uptime {
            if let Some(percent) = uptime.percent {
                let labels = [("service", service), ("window", uptime.window.as_str())];
                let help = "The share of the known time in which a service worked.";
                out.gauge("service_uptime_ratio", help, &labels, percent / 100.0);
            }
        }
        for check in &of.checks {
            let labels = [("service", service), ("check", check.check.as_str())];
            let help = "Tries of a check in the last hour.";
            out.gauge("check_tries", help, &labels, number(check.tries));
            let help = "Tries of a check in the last hour that failed.";
            out.gauge("check_failures", help, &labels, number(check.failures));
            for (quantile, value) in [
                ("0.5", check.latency_ms_p50),
                ("0.95", check.latency_ms_p95),
                ("0.99", check.latency_ms_p99),
            ] {
                let labels = [labels[0], labels[1], ("quantile", quantile)];
                let help = "The latency of a check in the last hour, right to a factor of two.";
                if let Some(ms) = value {
                    out.gauge("check_latency_seconds", help, &labels, ms / 1e3);
                }
            }
        }
        for instance in &of.instances {
            let name = instance.instance.as_deref().unwrap_or(service);
            let labels = [("service", service), ("instance", name)];
            if let Some(cpu) = instance.cpu {
                out.gauge(
                    "instance_cpu_cores",
                    "The processor of an instance.",
                    &labels,
                    cpu,
                );
            }
            if let Some(bytes) = instance.memory_bytes {
                let help = "The memory of an instance.";
                out.gauge("instance_memory_bytes", help, &labels, number(bytes));
            }
        }
    }
    out.text()
}
