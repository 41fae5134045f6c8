//! What the monitor hears on the bus. Each listener ends with the bus; a subscription that cannot be made is
//! tried again, and health says meanwhile what is missing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use alicia_bus::{Bus, Error, Incoming, RawIncoming, RawMessage};
use alicia_contract::discovery::{INSTANCES, RESERVED_NAMES};
use alicia_contract::envelope::Received;
use alicia_contract::fleet::Fleet;
use alicia_contract::health::HEARTBEAT;
use alicia_contract::id::ServiceName;
use alicia_contract::orchestrator::{STATUS, TRANSITIONS};
use alicia_module::Clock;
use tokio::sync::watch;

use crate::actor::Handle;
use crate::config::TICK;
use crate::core::{Event, Link};
use crate::heartbeat;

/// The wait before a refused subscription is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Opens a subscription, again and again until it is there; `None` when the bus is closed.
async fn open<T, F>(subscribe: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match subscribe().await {
            Ok(subscription) => return Some(subscription),
            Err(Error::Closed) => return None,
            Err(error) => tracing::warn!(%error, "a subscription was refused; it is tried again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

pub(crate) async fn pictures(bus: Bus, monitor: Handle) {
    let Some(mut heard) = open(|| bus.states(STATUS)).await else {
        return;
    };
    while let Some(message) = heard.message().await {
        monitor.say(Event::Status(Box::new(message.payload))).await;
    }
}

pub(crate) async fn transitions(bus: Bus, monitor: Handle) {
    let Some(mut heard) = open(|| bus.events(TRANSITIONS)).await else {
        return;
    };
    // What was missed is in the next picture.
    while let Some(message) = heard.message().await {
        monitor
            .say(Event::Transition(Box::new(message.payload)))
            .await;
    }
}

pub(crate) async fn registrations(bus: Bus, monitor: Handle) {
    let Some(mut heard) = open(|| bus.states(INSTANCES)).await else {
        return;
    };
    while let Some(incoming) = heard.next().await {
        let event = match incoming {
            Incoming::Message(message) => Event::Registered(Box::new(message.payload)),
            Incoming::Cleared { values, .. } => {
                let Some(Ok(name)) = values.first().map(ServiceName::new) else {
                    continue;
                };
                Event::Unregistered(name)
            }
            Incoming::Lagged(_) | Incoming::Reconnected => continue,
        };
        monitor.say(event).await;
    }
}

/// Heartbeats are taken as bytes, so that one that is not even JSON is counted for its service.
pub(crate) async fn heartbeats(bus: Bus, clock: Clock, monitor: Handle) {
    let filter = HEARTBEAT.filter(bus.prefix());
    let Some(mut heard) = open(|| bus.raw_subscribe(&filter)).await else {
        return;
    };
    while let Some(incoming) = heard.next().await {
        let RawIncoming::Message(message) = incoming else {
            continue;
        };
        if let Some(event) = heartbeat_event(&bus, &clock, &message) {
            monitor.say(event).await;
        }
    }
}

fn heartbeat_event(bus: &Bus, clock: &Clock, message: &RawMessage) -> Option<Event> {
    let values = HEARTBEAT.values(bus.prefix(), &message.topic)?;
    let topic = *values.first()?;
    // Requests for heartbeats are on a topic beside those of the services.
    if RESERVED_NAMES.contains(&topic) {
        return None;
    }
    let service = ServiceName::new(topic).ok()?;
    let now = clock.unix();
    let read = Received::read(&message.payload, now).map_err(|reason| reason.to_string());
    let read = read.and_then(|received| {
        heartbeat::read(topic, received.payload, received.envelope.as_ref(), now)
    });
    Some(match read {
        Ok(heartbeat) => Event::Heartbeat(Box::new(heartbeat)),
        Err(fault) => Event::BadHeartbeat(service, fault),
    })
}

pub(crate) async fn fleet(mut fleet: watch::Receiver<Arc<Fleet>>, monitor: Handle) {
    loop {
        let now = fleet.borrow_and_update().clone();
        monitor.say(Event::Fleet(now)).await;
        if fleet.changed().await.is_err() {
            return;
        }
    }
}

/// Time, and with it whether the bus is there.
pub(crate) async fn ticks(bus: Bus, monitor: Handle) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let link = if bus.status().connected {
            Link::Up
        } else {
            Link::Down
        };
        monitor.say(Event::Link(link)).await;
        monitor.say(Event::Tick).await;
    }
}
