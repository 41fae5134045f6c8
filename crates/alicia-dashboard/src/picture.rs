//! What is known of the fleet: the latest state of each kind, as the bus tells it.

use std::sync::Arc;
use std::time::Duration;

use alicia_bus::{Incoming, Subscription};
use alicia_contract::deployment::{self, Deployment};
use alicia_contract::health::{self, Alert, AlertState, FleetHealth, HeldBack};
use alicia_contract::orchestrator::{self, FleetStatus};
use alicia_module::Context;
use tokio::sync::watch;

/// How many alerts that are over are still shown.
const RESOLVED_MAX: usize = 20;

/// A subscription that cannot be made is tried again after this time.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How often it is looked whether the bus is still there.
const LOOK_AT_BUS: Duration = Duration::from_secs(1);

/// The latest of everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Picture {
    /// Whether the bus is there. Without it the rest is old.
    pub(crate) is_connected: bool,
    /// The fleet, once it was heard of.
    pub(crate) fleet: Option<FleetStatus>,
    /// Its health, once it was heard of.
    pub(crate) health: Option<FleetHealth>,
    /// The newest deployment, once it was heard of.
    pub(crate) deployment: Option<Deployment>,
    /// Alerts that were resolved while the page was watching, newest first.
    pub(crate) resolved: Vec<Alert>,
}

impl Picture {
    /// What is no alert because something else is its cause.
    pub(crate) fn held_back(&self) -> &[HeldBack] {
        let health = self.health.as_ref();
        health.map_or(&[], |health| &health.held_back)
    }

    /// Alerts that are on, newest first.
    pub(crate) fn firing(&self) -> &[Alert] {
        self.health.as_ref().map_or(&[], |health| &health.alerts)
    }
}

/// Keeps the picture fresh, for the life of the module.
pub(crate) async fn keep(cx: Context, picture: watch::Sender<Arc<Picture>>) {
    loop {
        let subscribed = async {
            let fleet = cx.bus.states(orchestrator::STATUS).await?;
            let health = cx.bus.states(health::STATUS).await?;
            let alerts = cx.bus.events(health::ALERTS).await?;
            let deployments = cx.bus.states(deployment::NEWEST).await?;
            Ok::<_, alicia_bus::Error>((fleet, health, alerts, deployments))
        };
        match subscribed.await {
            Ok(subscriptions) => listen(&cx, &picture, subscriptions).await,
            Err(error) => tracing::debug!(%error, "not subscribed yet"),
        }
        change(&picture, |picture| picture.is_connected = false);
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

type Subscriptions = (
    Subscription<FleetStatus>,
    Subscription<FleetHealth>,
    Subscription<Alert>,
    Subscription<Deployment>,
);

/// Takes what comes until a subscription ends.
async fn listen(
    cx: &Context,
    picture: &watch::Sender<Arc<Picture>>,
    (mut fleet, mut health, mut alerts, mut deployments): Subscriptions,
) {
    let mut look = tokio::time::interval(LOOK_AT_BUS);
    loop {
        tokio::select! {
            incoming = fleet.next() => match incoming {
                None => return,
                Some(Incoming::Message(message)) => {
                    change(picture, |picture| picture.fleet = Some(message.payload));
                }
                Some(_) => {}
            },
            incoming = health.next() => match incoming {
                None => return,
                Some(Incoming::Message(message)) => {
                    change(picture, |picture| picture.health = Some(message.payload));
                }
                Some(_) => {}
            },
            incoming = alerts.next() => match incoming {
                None => return,
                Some(Incoming::Message(message)) => {
                    change(picture, |picture| remember(&mut picture.resolved, message.payload));
                }
                Some(_) => {}
            },
            incoming = deployments.next() => match incoming {
                None => return,
                Some(Incoming::Message(message)) => {
                    change(picture, |picture| newest(&mut picture.deployment, message.payload));
                }
                Some(_) => {}
            },
            _ = look.tick() => {
                let is_connected = cx.bus.status().connected;
                change(picture, |picture| picture.is_connected = is_connected);
            }
        }
    }
}

/// Remembers alerts that are over, each episode once.
fn remember(resolved: &mut Vec<Alert>, alert: Alert) {
    resolved.retain(|known| known.id != alert.id);
    if alert.state == AlertState::Resolved {
        resolved.insert(0, alert);
        resolved.truncate(RESOLVED_MAX);
    }
}

/// The newest deployment as it was told last: a late message about an older one changes nothing.
fn newest(known: &mut Option<Deployment>, heard: Deployment) {
    if known
        .as_ref()
        .is_none_or(|known| known.number <= heard.number)
    {
        *known = Some(heard);
    }
}

/// Watchers are woken only when something really changed.
fn change(picture: &watch::Sender<Arc<Picture>>, change: impl FnOnce(&mut Picture)) {
    picture.send_if_modified(|current| {
        let mut next = Picture::clone(current);
        change(&mut next);
        let is_new = next != **current;
        if is_new {
            *current = Arc::new(next);
        }
        is_new
    });
}
