//! Broken connections: the will, and a broker that is restarted.

use serde_json::json;

use super::{Broker, CLIMATE, Client, MEASURED, Reading, fail, hear, hear_message};
use crate::{Incoming, Will};

/// The will is published when the connection breaks, and not after a goodbye.
pub async fn a_broken_connection_publishes_the_will(broker: &impl Broker) {
    let hearer = Client::connect(broker.options("system/heir")).await;
    let mut events = hearer.bus.events(MEASURED).await.expect("subscribes");
    let with_will = |room: &str| {
        let mut options = broker.options("system/testator");
        options.will = Some(Will {
            topic: MEASURED.at(&options.prefix, &[room]),
            payload: json!({ "room": room, "celsius": 0.0 }),
        });
        options
    };
    Client::connect(with_will("goodbye"))
        .await
        .bus
        .close()
        .await;
    Client::connect(with_will("broken")).await.break_off().await;
    let message = hear_message(&mut events).await;
    assert_eq!(
        message.values,
        ["broken"],
        "the will of a goodbye was published"
    );
    assert_eq!(message.source.as_deref(), Some("system/testator"));
}

/// The broker is killed, has forgotten everything, and comes back: subscriptions hear again and are told
/// so, and states are there again.
///
/// `kill` returns when the broker is gone, `start` when it listens again on the same address.
pub async fn a_restart_loses_no_state(
    broker: &impl Broker,
    kill: impl AsyncFnOnce(),
    start: impl AsyncFnOnce(),
) {
    let owner = Client::connect(broker.options("system/owner")).await;
    let hearer = Client::connect(broker.options("system/hearer")).await;
    let mut events = hearer.bus.events(MEASURED).await.expect("subscribes");
    let cool = Reading::new("hall", 18.0);
    owner
        .bus
        .set(CLIMATE, &["hall"], &cool)
        .await
        .expect("sets");

    kill().await;
    owner.status_becomes(|status| !status.connected).await;
    hearer.status_becomes(|status| !status.connected).await;
    // Published while there is no broker: it waits, and arrives.
    let reading = Reading::new("hall", 19.0);
    let waiting = owner.bus.publish(MEASURED, &["hall"], &reading);
    let restarted = async {
        start().await;
        hearer
            .status_becomes(|status| status.connected && status.connections == 2)
            .await;
    };
    let (published, ()) = tokio::join!(waiting, restarted);
    published.expect("is published after the restart");

    match hear(&mut events).await {
        Incoming::Reconnected => {}
        other => fail(&format!("expected the reconnection, heard {other:?}")),
    }
    let late = Client::connect(broker.options("system/late")).await;
    let mut states = late.bus.states(CLIMATE).await.expect("subscribes");
    assert_eq!(hear_message(&mut states).await.payload, cool);
    // Events may be missed while a subscriber is away, so it is one from now on that must be heard.
    let published = owner.bus.publish(MEASURED, &["after"], &reading).await;
    published.expect("publishes");
    while hear_message(&mut events).await.values != ["after"] {}
}
