//! What the monitor says beside alerts: the retained picture of the fleet's health, and requests for
//! heartbeats.

use std::sync::Arc;
use std::time::Duration;

use alicia_bus::{Bus, Error};
use alicia_contract::health::{CHECK, CheckRequest, FleetHealth, STATUS};

use crate::actor::Signals;
use crate::core::report::fit;
use crate::notify::Notifier;

/// The shortest time between two pictures. Most of a storm of changes is one message, and nobody looks faster.
const GAP: Duration = Duration::from_millis(200);

/// A picture is sent this often even when no judgement changed, for the latencies in it.
const REFRESH: Duration = Duration::from_secs(5);

/// How often services in doubt are asked for a heartbeat.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Keeps the retained picture true.
pub(crate) async fn pictures(bus: Bus, notifier: Arc<Notifier>, signals: Arc<Signals>) {
    loop {
        let health = fit(picture(&notifier));
        match bus.set(STATUS, &[], &health).await {
            // The bus keeps it and sends it when it is connected.
            Ok(()) | Err(Error::TimedOut { .. }) => {}
            Err(Error::Closed) => return,
            Err(error) => tracing::warn!(%error, "the picture of the fleet's health was not sent"),
        }
        tokio::time::sleep(GAP).await;
        // Woken or not: the next picture is due.
        drop(tokio::time::timeout(REFRESH, signals.picture.notified()).await);
    }
}

/// The picture, with what mutes its alerts.
fn picture(notifier: &Notifier) -> FleetHealth {
    let now = notifier.now();
    let mut health = notifier.shared.read().report(now);
    for alert in &mut health.alerts {
        alert.muted = notifier.mutes(alert);
    }
    health
}

/// Asks everybody at each connection, and services in doubt now and then.
pub(crate) async fn questions(bus: Bus, signals: Arc<Signals>) {
    let mut connections = bus.connections();
    let mut pause = tokio::time::interval(ASK_EVERY);
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let request = tokio::select! {
            connection = connections.next() => {
                if connection.is_none() {
                    return;
                }
                CheckRequest::default()
            }
            _ = pause.tick() => {
                let services: Vec<_> = signals.take_asked().into_iter().collect();
                if services.is_empty() {
                    continue;
                }
                CheckRequest { services }
            }
        };
        if let Err(error) = bus.publish(CHECK, &[], &request).await {
            tracing::debug!(%error, "services were not asked for heartbeats");
        }
    }
}
