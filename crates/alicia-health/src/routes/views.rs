//! What is known, to look at.

use std::sync::atomic::Ordering::Relaxed;

use alicia_contract::fleet::Condition;
use alicia_contract::health::{Alert, HealthState, HeldBack};
use alicia_contract::id::ServiceName;
use alicia_contract::unit::UnixSeconds;
use alicia_module::ApiError;
use alicia_module::api::{Answer, Params, PathParams};
use alicia_store::Error as StoreError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::figures::{InstanceFigures, instances};
use super::past::unread;
use super::{Module, ServiceHealth, State, limit, no_service};
use crate::core::report::service_health;
use crate::core::{Monitor, Turn};
use crate::history::rows;
use crate::history::uptime::{self, Uptime};

/// The changes of state that one service is shown with.
const HISTORY_MAX: u32 = 50;

/// The monitor itself.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct MonitorHealth {
    /// `ok`, or `degraded` when it misses something.
    status: &'static str,
    /// What it misses, in words.
    missing: Vec<String>,
    /// Services that are watched.
    services: usize,
    /// Checks that run, times instances.
    checks: u64,
    /// Alerts that fire.
    alerts_firing: usize,
    /// Alerts that would fire if something else were not their cause.
    alerts_held_back: usize,
    /// Alerts that wait for the bus.
    alerts_waiting: u64,
    /// Times the monitor itself was held up, since its start.
    times_held_up: u64,
    /// Heartbeats of services that nobody knows.
    stray_heartbeats: u64,
}

/// What to list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ServicesQuery {
    /// Begins after this name: `next` of the page before.
    cursor: Option<ServiceName>,
    /// Most entries of the answer. 1 to 1000; default 100.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// Services, by name.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ServicesPage {
    /// The services.
    services: Vec<ServiceHealth>,
    /// Where the next page begins: the next `cursor`; none: this is the last.
    next: Option<ServiceName>,
}

/// One service in full.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ServiceView {
    /// Its health.
    #[serde(flatten)]
    health: ServiceHealth,
    /// Its alerts that fire.
    alerts: Vec<Alert>,
    /// Its alerts that would fire if something else were not their cause.
    held_back: Vec<HeldBack>,
    /// What was wrong with the last heartbeat that could not be used.
    bad_heartbeat_last: Option<String>,
    /// How much of the time it worked.
    uptime: Vec<Uptime>,
    /// Its last changes of state, newest first, at most 50.
    history: Vec<Changed>,
    /// Its instances and what they use.
    instances: Vec<InstanceFigures>,
}

/// A change of state.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Changed {
    /// When.
    at: UnixSeconds,
    /// The state from then on.
    state: HealthState,
    /// Why.
    reason: String,
}

/// The graph of dependencies.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Dependencies {
    /// Every service.
    services: Vec<Node>,
}

/// A service in the graph.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Node {
    /// The name.
    service: ServiceName,
    /// How it is.
    state: HealthState,
    /// What it needs.
    depends_on: Vec<Edge>,
    /// A service that it needs, directly or not, and that does not work.
    root: Option<ServiceName>,
}

/// What a service needs.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Edge {
    /// The service that is needed.
    service: ServiceName,
    /// In which condition.
    condition: Condition,
}

pub(super) async fn monitor(State(module): Module) -> Answer<MonitorHealth> {
    let missing = module.missing();
    let monitor = module.shared.read();
    Answer(MonitorHealth {
        status: if missing.is_empty() { "ok" } else { "degraded" },
        missing,
        services: monitor.watches().count(),
        checks: module.counts.targets.load(Relaxed),
        alerts_firing: monitor.book().firing().count(),
        alerts_held_back: monitor.book().held_back().count(),
        alerts_waiting: module.progress.waiting.load(Relaxed),
        times_held_up: monitor.times_held_up(),
        stray_heartbeats: monitor.stray_heartbeats(),
    })
}

pub(super) async fn services(
    State(module): Module,
    Params(query): Params<ServicesQuery>,
) -> Result<Answer<ServicesPage>, ApiError> {
    let limit = limit(query.limit)? as usize;
    let monitor = module.shared.read();
    let after = |name: &ServiceName| query.cursor.as_ref().is_none_or(|cursor| name > cursor);
    let mut watches = monitor.watches().filter(|watch| after(&watch.service));
    let services: Vec<ServiceHealth> = watches.by_ref().take(limit).map(service_health).collect();
    let more = watches.next().is_some();
    let next = services
        .last()
        .filter(|_| more)
        .map(|last| last.service.clone());
    Ok(Answer(ServicesPage { services, next }))
}

pub(super) async fn service(
    State(module): Module,
    PathParams(name): PathParams<ServiceName>,
) -> Result<Answer<ServiceView>, ApiError> {
    let (of, now) = (name.clone(), module.clock.unix());
    let read = module.store.read(move |connection| {
        let uptime = uptime::all(connection, now)?.remove(&of);
        Ok::<_, StoreError>((uptime, rows::changes(connection, &of, HISTORY_MAX)?))
    });
    let (uptime, turns) = read.await.map_err(unread)?;
    let changed = |turn: Turn| Changed {
        at: turn.at,
        state: turn.state,
        reason: turn.reason,
    };
    let monitor = module.shared.read();
    let watch = monitor
        .watch(name.as_str())
        .ok_or_else(|| no_service(name.as_str()))?;
    let alerts = monitor
        .book()
        .firing()
        .filter(|alert| alert.service == name)
        .cloned()
        .collect();
    Ok(Answer(ServiceView {
        health: service_health(watch),
        alerts,
        held_back: held_back(&monitor, &name),
        bad_heartbeat_last: watch.bad_heartbeat_last.clone(),
        uptime: uptime.unwrap_or_else(uptime::nothing),
        history: turns.into_iter().map(changed).collect(),
        instances: instances(watch),
    }))
}

fn held_back(monitor: &Monitor, name: &ServiceName) -> Vec<HeldBack> {
    let held_back = monitor.book().held_back();
    held_back
        .filter(|held| held.service == *name)
        .cloned()
        .collect()
}

pub(super) async fn dependencies(State(module): Module) -> Answer<Dependencies> {
    let now = module.shared.now();
    let monitor = module.shared.read();
    let nodes = monitor.watches().map(|watch| Node {
        service: watch.service.clone(),
        state: watch.judged.state,
        depends_on: watch.spec.iter().flat_map(|spec| edges(spec)).collect(),
        root: monitor
            .root_of(&watch.service, now)
            .map(|root| root.service),
    });
    Answer(Dependencies {
        services: nodes.collect(),
    })
}

fn edges(spec: &alicia_contract::fleet::ServiceSpec) -> impl Iterator<Item = Edge> {
    let needs = spec.depends_on.0.iter();
    needs.map(|(service, condition)| Edge {
        service: service.clone(),
        condition: *condition,
    })
}
