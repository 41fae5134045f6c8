//! Sessions: kept, taken up, taken over, and never given to somebody else.

use std::time::Duration;

use alicia_broker::Reason;
use rmqtt::codec::types::QoS;
use rmqtt::codec::v5::{ConnectAckReason, Disconnect, Packet};

use crate::house::{House, until};
use crate::wire::{hello, message, text};

#[tokio::test]
async fn a_session_keeps_subscriptions_and_messages_while_its_client_is_away() {
    let house = House::open().await;
    let (mut client, present) = hello("x").lasting().connect(&house).await;
    assert!(!present);
    client.subscribe("open/a", QoS::ExactlyOnce).await;
    client.disconnect().await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    for (payload, qos) in [
        ("1", QoS::AtLeastOnce),
        ("2", QoS::ExactlyOnce),
        ("3", QoS::AtLeastOnce),
    ] {
        publisher.publish(message("open/a", payload, qos)).await;
    }
    let (mut client, present) = hello("x").lasting().connect(&house).await;
    assert!(present);
    assert_eq!(client.receive_texts(3).await, ["1", "2", "3"]);
    publisher
        .publish(message("open/a", "4", QoS::AtLeastOnce))
        .await;
    assert_eq!(text(&client.receive().await), "4", "still subscribed");
}

#[tokio::test]
async fn a_clean_start_discards_the_session() {
    let house = House::open().await;
    let (mut client, _) = hello("x").lasting().connect(&house).await;
    client.subscribe("open/a", QoS::AtLeastOnce).await;
    client.disconnect().await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    publisher
        .publish(message("open/a", "1", QoS::AtLeastOnce))
        .await;
    let (mut client, present) = hello("x").connect(&house).await;
    assert!(!present);
    publisher
        .publish(message("open/a", "2", QoS::AtLeastOnce))
        .await;
    client.receives_nothing().await;
}

#[tokio::test]
async fn a_session_ends_when_its_time_is_over() {
    let house = House::open().await;
    let brief = hello("x")
        .lasting()
        .with(|connect| connect.session_expiry_interval_secs = 1);
    let (client, _) = brief.connect(&house).await;
    client.disconnect().await;
    until("the session is gone", async || {
        house.engine.stats().await.sessions == 0
    })
    .await;
    let (_, present) = hello("x").lasting().connect(&house).await;
    assert!(!present);
}

#[tokio::test]
async fn the_last_goodbye_may_end_the_session() {
    let house = House::open().await;
    let (mut client, _) = hello("x").lasting().connect(&house).await;
    let goodbye = Disconnect {
        session_expiry_interval_secs: Some(0),
        ..Disconnect::default()
    };
    client.send(Packet::Disconnect(goodbye)).await;
    until("the session is gone", async || {
        house.engine.stats().await.sessions == 0
    })
    .await;
    let (_, present) = hello("x").lasting().connect(&house).await;
    assert!(!present);
}

#[tokio::test]
async fn unacknowledged_messages_are_sent_again_in_order_and_marked() {
    let house = House::open().await;
    let (mut client, _) = hello("x").lasting().connect(&house).await;
    client.subscribe("open/a", QoS::AtLeastOnce).await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    for number in 0..3 {
        publisher
            .publish(message("open/a", &number.to_string(), QoS::AtLeastOnce))
            .await;
        client.receive_unacknowledged().await;
    }
    drop(client);
    let (mut client, _) = hello("x").lasting().connect(&house).await;
    for number in 0..3 {
        let again = client.receive().await;
        assert_eq!(
            (text(&again), again.dup),
            (number.to_string().as_str(), true)
        );
    }
    client.receives_nothing().await;
}

#[tokio::test]
async fn who_takes_over_ends_the_older_connection_with_a_word() {
    let house = House::open().await;
    let (mut old, _) = hello("x").lasting().connect(&house).await;
    old.subscribe("open/a", QoS::AtLeastOnce).await;
    let (mut new, present) = hello("x").lasting().connect(&house).await;
    assert!(present);
    assert_eq!(old.ending().await, Some(0x8E), "session taken over");
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    publisher
        .publish(message("open/a", "1", QoS::AtLeastOnce))
        .await;
    assert_eq!(text(&new.receive().await), "1");
}

#[tokio::test]
async fn nobody_takes_over_the_client_id_of_another() {
    let house = House::open().await;
    let (mut ann, _) = hello("x").lasting().connect(&house).await;
    ann.subscribe("ann/private", QoS::AtLeastOnce).await;

    let thief = hello("x").named("bob").lasting();
    let (_, ack) = thief.clone().try_connect(house.address()).await;
    assert_eq!(
        ack.reason_code,
        ConnectAckReason::NotAuthorized,
        "while ann is connected"
    );
    ann.send(Packet::PingRequest).await;
    assert!(
        matches!(ann.next().await, Some(Packet::PingResponse)),
        "ann has noticed nothing"
    );

    ann.disconnect().await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    publisher
        .publish(message("ann/private", "secret", QoS::AtLeastOnce))
        .await;
    for hello in [
        thief.clone(),
        thief.with(|connect| connect.clean_start = true),
    ] {
        let (_, ack) = hello.try_connect(house.address()).await;
        assert_eq!(
            ack.reason_code,
            ConnectAckReason::NotAuthorized,
            "while ann's session lives"
        );
    }
    assert_eq!(house.refused(Reason::ClientIdTaken).await, 3);

    let (mut ann, present) = hello("x").lasting().connect(&house).await;
    assert!(present);
    assert_eq!(
        text(&ann.receive().await),
        "secret",
        "nothing leaked, nothing was lost"
    );
}

#[tokio::test]
async fn a_client_id_is_free_again_when_its_session_is_gone() {
    let house = House::open().await;
    let (ann, _) = hello("x").connect(&house).await;
    ann.disconnect().await;
    until("the client id is free", async || {
        house.engine.stats().await.sessions == 0
    })
    .await;
    let (_, present) = hello("x").named("bob").connect(&house).await;
    assert!(!present);
}

#[tokio::test]
async fn an_administrator_can_end_connections_and_the_session_stays() {
    let house = House::open().await;
    let (mut first, _) = hello("first").lasting().connect(&house).await;
    let (mut second, _) = hello("second").named("bob").connect(&house).await;
    assert_eq!(house.engine.disconnect_client("first"), 1);
    assert_eq!(first.ending().await, Some(0x98), "administrative action");
    assert_eq!(house.engine.disconnect_identity("bob"), 1);
    assert_eq!(second.ending().await, Some(0x98));
    assert_eq!(house.engine.disconnect_identity("nobody"), 0);
    let (_, present) = hello("first").lasting().connect(&house).await;
    assert!(present);
}

#[tokio::test]
async fn clients_are_listed_with_what_they_do() {
    let house = House::open().await;
    let (mut client, _) = hello("x").lasting().connect(&house).await;
    client.subscribe("open/a", QoS::AtLeastOnce).await;
    client
        .publish(message("open/b", "1", QoS::AtLeastOnce))
        .await;
    let listed = house.engine.clients().await;
    assert_eq!(listed.len(), 1);
    let info = &listed[0];
    assert_eq!(
        (
            info.client_id.as_str(),
            &*info.identity,
            info.protocol_level
        ),
        ("x", "ann", 5)
    );
    assert_eq!(info.subscriptions, ["open/a"]);
    assert!(info.peer.is_some());
    client.disconnect().await;
    until("the client is away", async || {
        house.engine.clients().await[0].peer.is_none()
    })
    .await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    publisher
        .publish(message("open/a", "1", QoS::AtLeastOnce))
        .await;
    until("a message waits", async || {
        let listed = house.engine.clients().await;
        listed
            .iter()
            .any(|info| info.client_id == "x" && info.queued_messages == 1)
    })
    .await;
}

#[tokio::test]
async fn clients_are_told_when_the_broker_stops() {
    let house = House::open().await;
    let (mut client, _) = hello("x").connect(&house).await;
    let address = house.address();
    house.stop().await;
    assert_eq!(client.ending().await, Some(0x8B), "server shutting down");
    let again = tokio::time::timeout(
        Duration::from_secs(1),
        tokio::net::TcpStream::connect(address),
    );
    assert!(
        again.await.is_ok_and(|connected| connected.is_err()),
        "the port is free"
    );
}
