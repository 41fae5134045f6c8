//! The signs of life: registration, heartbeats, answers to health checks, goodbye.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use alicia_bus::{Subscription, Will};
use alicia_contract::discovery::{
    Endpoints, INSTANCE_COMMAND, REGISTER, Registration, UNREGISTER, Unregistration,
};
use alicia_contract::health::{CheckRequest, HEARTBEAT, Heartbeat, HeartbeatStatus};
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior};

use crate::context::Context;
use crate::environment::Environment;

/// Renewals within one lease: two may be lost.
const RENEWALS_PER_LEASE: f64 = 3.0;

/// How often it gives signs of life.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    pub(crate) registration: Registration,
    pub(crate) heartbeat_every: Duration,
}

/// What the broker says for a service whose connection broke.
pub(crate) fn will(environment: &Environment) -> Will {
    Will {
        topic: HEARTBEAT.at(&environment.prefix, &[environment.service.as_str()]),
        payload: json!({
            "service": environment.service,
            "instance": environment.instance,
            "status": HeartbeatStatus::Offline,
            "detail": "the connection to the bus broke",
        }),
    }
}

/// Where it can be reached.
pub(crate) fn endpoints(environment: &Environment) -> Endpoints {
    let own = [environment.service.as_str(), environment.instance.as_str()];
    Endpoints {
        http: environment
            .port
            .map(|port| format!("http://127.0.0.1:{port}")),
        mqtt: Some(INSTANCE_COMMAND.at(&environment.prefix, &own)),
        ..Endpoints::default()
    }
}

/// The heartbeat of this moment.
pub(crate) fn heartbeat(cx: &Context) -> Heartbeat {
    let inner = cx.inner();
    let (status, detail) = health(cx);
    let mut counters = inner.vitals.counters();
    let bus = inner.bus.status();
    for (reason, dropped) in bus.dropped {
        counters.insert(
            format!("dropped_{}", reason.replace('-', "_")),
            dropped as f64,
        );
    }
    counters.insert(
        "reconnects".to_owned(),
        bus.connections.saturating_sub(1) as f64,
    );
    let mut resources = inner.vitals.resources();
    resources.insert("in_flight".to_owned(), inner.in_flight.load(Relaxed) as f64);
    Heartbeat {
        service: cx.service().clone(),
        instance: Some(cx.instance().clone()),
        status,
        detail,
        uptime_s: inner.vitals.uptime().as_secs_f64(),
        interval_s: None,
        counters,
        resources,
    }
}

/// How it is, the bus included: without it a service is degraded and no worse, since restarting the
/// service would not bring the bus back.
pub(crate) fn health(cx: &Context) -> (HeartbeatStatus, Option<String>) {
    let (status, detail) = cx.inner().vitals.status();
    let bus = cx.bus().status();
    if status == HeartbeatStatus::Healthy && !bus.connected {
        let why = bus.last_error.unwrap_or_default();
        return (
            HeartbeatStatus::Degraded,
            Some(format!("not connected to the bus: {why}")),
        );
    }
    if status == HeartbeatStatus::Healthy && !bus.refused.is_empty() {
        let filters = bus.refused.join(", ");
        return (
            HeartbeatStatus::Degraded,
            Some(format!("may not subscribe to {filters}")),
        );
    }
    (status, detail)
}

/// Gives signs of life until the service stops.
pub(crate) async fn keep(
    cx: Context,
    presence: Presence,
    mut checks: Option<Subscription<CheckRequest>>,
) {
    let mut connections = cx.bus().connections();
    let mut heartbeats = interval(presence.heartbeat_every);
    let lease = Duration::from_secs_f64(presence.registration.lease_s);
    let mut renewals = interval(lease.div_f64(RENEWALS_PER_LEASE));
    loop {
        tokio::select! {
            () = cx.stopping() => return,
            Some(_) = connections.next() => {
                register(&cx, &presence).await;
                beat(&cx, &presence).await;
                heartbeats.reset();
                renewals.reset();
            }
            _ = heartbeats.tick() => beat(&cx, &presence).await,
            _ = renewals.tick() => register(&cx, &presence).await,
            () = cx.inner().vitals.changed.notified() => beat(&cx, &presence).await,
            asked = asked(&mut checks) => if asked.is_for(&cx) {
                beat(&cx, &presence).await;
            },
        }
    }
}

/// Says goodbye: a last heartbeat.
pub(crate) async fn stopping(cx: &Context, presence: &Presence) {
    cx.inner().vitals.set(HeartbeatStatus::Stopping, None);
    beat(cx, presence).await;
}

/// Leaves the registry.
pub(crate) async fn unregister(cx: &Context) {
    let leaving = Unregistration {
        service: cx.service().clone(),
        instance: cx.instance().clone(),
    };
    if cx.bus().status().connected {
        note(cx.bus().publish(UNREGISTER, &[], &leaving).await);
    }
}

fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval.reset();
    interval
}

async fn register(cx: &Context, presence: &Presence) {
    // Without a connection there is nobody to tell, and the next connection registers by itself.
    if cx.bus().status().connected {
        note(
            cx.bus()
                .publish(REGISTER, &[], &presence.registration)
                .await,
        );
    }
}

async fn beat(cx: &Context, presence: &Presence) {
    if !cx.bus().status().connected {
        return;
    }
    let mut heartbeat = heartbeat(cx);
    heartbeat.interval_s = Some(presence.heartbeat_every.as_secs_f64());
    let service = cx.service().as_str();
    note(cx.bus().publish(HEARTBEAT, &[service], &heartbeat).await);
}

fn note(published: Result<(), alicia_bus::Error>) {
    if let Err(error) = published {
        tracing::warn!(%error, "a sign of life did not get through");
    }
}

/// Whom a check is for.
struct Asked(CheckRequest);

impl Asked {
    fn is_for(&self, cx: &Context) -> bool {
        self.0.services.is_empty() || self.0.services.contains(cx.service())
    }
}

/// The next check; never one when the broker does not let it hear them.
async fn asked(checks: &mut Option<Subscription<CheckRequest>>) -> Asked {
    if let Some(subscription) = checks {
        if let Some(message) = subscription.message().await {
            return Asked(message.payload);
        }
        *checks = None;
    }
    std::future::pending().await
}
