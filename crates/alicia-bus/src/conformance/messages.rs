//! Events, states and what must be dropped.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Broker, CLIMATE, Client, MEASURED, Reading, fail, hear, hear_message};
use crate::{Error, Incoming, Options, Qos, Retain};

/// Messages of the burst.
const BURST: usize = 20_000;
/// Publishes that the burst has under way at once.
const BURST_WIDTH: usize = 200;

/// An event of one client reaches the others with all that belongs to it.
pub async fn events_reach_every_subscriber(broker: &impl Broker) {
    let sender = Client::connect(broker.options("system/sender")).await;
    let hearer = Client::connect(broker.options("system/hearer")).await;
    let mut here = sender.bus.events(MEASURED).await.expect("subscribes");
    let mut there = hearer.bus.events(MEASURED).await.expect("subscribes");
    let reading = Reading::new("hall", 20.5);
    sender
        .bus
        .publish(MEASURED, &["hall"], &reading)
        .await
        .expect("publishes");
    for subscription in [&mut here, &mut there] {
        let message = hear_message(subscription).await;
        assert_eq!(message.payload, reading);
        assert_eq!(message.values, ["hall"]);
        assert_eq!(message.source.as_deref(), Some("system/sender"));
        assert!(!message.retained, "an event was retained");
        let envelope = message.envelope.expect("has an envelope");
        assert_eq!(envelope.message_id.len(), 36, "not a UUID");
    }
}

/// A state is there for late comers, the last value wins, and clearing is heard.
pub async fn states_are_retained_replaced_and_cleared(broker: &impl Broker) {
    let owner = Client::connect(broker.options("system/owner")).await;
    let late = Client::connect(broker.options("system/late")).await;
    for celsius in [1.0, 2.0] {
        let reading = Reading::new("attic", celsius);
        let set = owner.bus.set(CLIMATE, &["attic"], &reading).await;
        set.expect("sets");
    }
    let mut states = late.bus.states(CLIMATE).await.expect("subscribes");
    let message = hear_message(&mut states).await;
    assert_eq!(message.payload, Reading::new("attic", 2.0));
    assert!(message.retained, "a late comer must see that it is old");

    states.refresh().await.expect("subscribes again");
    let again = hear_message(&mut states).await;
    assert_eq!(again.payload, message.payload);

    owner.bus.clear(CLIMATE, &["attic"]).await.expect("clears");
    match hear(&mut states).await {
        Incoming::Cleared { values, .. } => assert_eq!(values, ["attic"]),
        other => fail(&format!("expected a cleared state, heard {other:?}")),
    }
    let mut later = late.bus.states(CLIMATE).await.expect("subscribes");
    let next = Reading::new("attic", 3.0);
    owner
        .bus
        .set(CLIMATE, &["attic"], &next)
        .await
        .expect("sets");
    assert_eq!(
        hear_message(&mut later).await.payload,
        next,
        "the cleared one was kept"
    );
    owner.bus.clear(CLIMATE, &["attic"]).await.expect("clears");
}

/// A payload without an envelope is taken.
pub async fn a_bare_payload_is_heard(broker: &impl Broker) {
    let client = Client::connect(broker.options("system/bare")).await;
    let mut events = client.bus.events(MEASURED).await.expect("subscribes");
    let topic = MEASURED.at(client.bus.prefix(), &["cellar"]);
    let reading = Reading::new("cellar", 12.0);
    let bytes = serde_json::to_vec(&reading).expect("is JSON");
    let published = client
        .bus
        .raw_publish(&topic, bytes, Qos::AtMostOnce, Retain::No);
    published.await.expect("publishes");
    let message = hear_message(&mut events).await;
    assert_eq!(message.payload, reading);
    assert!(message.envelope.is_none());
}

/// What cannot be taken is skipped and counted by its reason, once, and the next good one is heard.
pub async fn what_must_be_dropped_is_counted(broker: &impl Broker) {
    let client = Client::connect(broker.options("system/strict")).await;
    let mut events = client.bus.events(MEASURED).await.expect("subscribes");
    let topic = MEASURED.at(client.bus.prefix(), &["roof"]);
    let envelope = |field: &str, value: Value| {
        let mut envelope = json!({
            "message_id": "m", "timestamp": 1_000.0, "source": "system/strict",
            "message_type": "event", "payload": Reading::new("roof", 0.0),
        });
        envelope[field] = value;
        envelope.to_string()
    };
    let wrong = [
        ("not-an-envelope", "{".to_owned()),
        ("not-an-envelope", envelope("timestamp", json!("now"))),
        ("wrong-payload", json!({"room": 7}).to_string()),
        ("expired", envelope("ttl", json!(1))),
        (
            "too-many-hops",
            envelope("routing", json!({"hops": 3, "max_hops": 2})),
        ),
    ];
    for (_, message) in &wrong {
        let published =
            client
                .bus
                .raw_publish(&topic, message.clone(), Qos::AtLeastOnce, Retain::No);
        published.await.expect("publishes");
    }
    let reading = Reading::new("roof", 1.0);
    let published = client.bus.publish(MEASURED, &["roof"], &reading).await;
    published.expect("publishes");
    assert_eq!(hear_message(&mut events).await.payload, reading);
    let dropped = client.bus.status().dropped;
    let expected = [
        ("expired", 1),
        ("not-an-envelope", 2),
        ("too-many-hops", 1),
        ("wrong-payload", 1),
    ];
    assert_eq!(dropped, expected.into());
}

/// A subscriber that does not read hears how many it lost, and goes on hearing.
pub async fn a_burst_lags_explicitly(broker: &impl Broker) {
    let client = Client::connect(broker.options("system/burst")).await;
    let mut events = client.bus.events(MEASURED).await.expect("subscribes");
    burst(&client).await;
    let last = Reading::new("last", 0.0);
    let published = client.bus.publish(MEASURED, &["last"], &last).await;
    published.expect("publishes");
    client.status_becomes(|status| status.lagged > 0).await;
    let Incoming::Lagged(lost) = hear(&mut events).await else {
        fail("the lag was not told");
    };
    assert!(lost > 0);
    let mut heard: u64 = 0;
    loop {
        match hear(&mut events).await {
            Incoming::Message(message) if message.payload == last => break,
            Incoming::Message(_) => heard += 1,
            Incoming::Lagged(_) => {}
            other => fail(&format!("expected messages, heard {other:?}")),
        }
    }
    assert!(heard > 0, "nothing of the burst was kept");
}

async fn burst(client: &Client) {
    let reading = Reading::new("burst", 0.0);
    for _ in 0..BURST / BURST_WIDTH {
        let publishes =
            (0..BURST_WIDTH).map(|_| client.bus.publish(MEASURED, &["burst"], &reading));
        for published in join_all(publishes).await {
            published.expect("publishes");
        }
    }
}

/// One subscription that is not read costs the others of the same client nothing.
pub async fn a_slow_subscription_does_not_hold_up_others(broker: &impl Broker) {
    let client = Client::connect(broker.options("system/slow")).await;
    let _slow = client.bus.events(MEASURED).await.expect("subscribes");
    let mut quick = client.bus.events(MEASURED).await.expect("subscribes");
    for n in 0..3_000 {
        let reading = Reading::new("n", f64::from(n));
        let published = client.bus.publish(MEASURED, &["n"], &reading).await;
        published.expect("publishes");
        assert_eq!(hear_message(&mut quick).await.payload, reading);
    }
    assert!(client.bus.status().lagged > 0, "the slow one lost nothing");
}

/// Publishing where this client may not is an error, and costs it nothing else.
pub async fn a_forbidden_publish_is_an_error(options: Options, topic: &str) {
    let client = Client::connect(options).await;
    match client.bus.publish_at(topic, &1).await {
        Err(Error::NotAllowed { .. }) => {}
        other => fail(&format!("expected a refusal, got {other:?}")),
    }
    assert_eq!(client.bus.status().connections, 1, "the connection broke");
}

/// Subscribing where this client may not is an error, and costs it nothing else.
pub async fn a_forbidden_subscription_is_an_error(options: Options, filter: &str) {
    let client = Client::connect(options).await;
    match client.bus.raw_subscribe(filter).await {
        Err(Error::NotAllowed { .. }) => {}
        other => fail(&format!("expected a refusal, got {other:?}")),
    }
    assert_eq!(client.bus.status().connections, 1, "the connection broke");
}
