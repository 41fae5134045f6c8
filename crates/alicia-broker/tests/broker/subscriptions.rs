//! Who gets what: filters, shared groups, options and identifiers.

use rmqtt::codec::types::QoS;
use rmqtt::codec::v5::SubscribeAckReason;

use crate::house::House;
use crate::wire::{hello, message, options, text};

#[tokio::test]
async fn wildcards_match_whole_levels_only() {
    let house = House::open().await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    let cases = [
        ("open/+", vec!["open/a", "open/"]),
        ("open/+/c", vec!["open/b/c", "open//c"]),
        (
            "open/#",
            vec![
                "open",
                "open/a",
                "open/",
                "open/b/c",
                "open//c",
                "open/a/b/c",
            ],
        ),
        ("open/a", vec!["open/a"]),
        ("open//c", vec!["open//c"]),
    ];
    let topics = [
        "open",
        "open/a",
        "open/",
        "open/b/c",
        "open//c",
        "open/a/b/c",
    ];
    for (filter, expected) in cases {
        let (mut subscriber, _) = hello("subscriber").connect(&house).await;
        subscriber.subscribe(filter, QoS::AtLeastOnce).await;
        for topic in topics {
            publisher
                .publish(message(topic, topic, QoS::AtLeastOnce))
                .await;
        }
        assert_eq!(
            subscriber.receive_texts(expected.len()).await,
            expected,
            "{filter}"
        );
        subscriber.receives_nothing().await;
    }
}

#[tokio::test]
async fn malformed_filters_are_refused_each_by_itself() {
    let house = House::open().await;
    let (mut client, _) = hello("x").connect(&house).await;
    for filter in ["open/a#", "open/#/a", "open/a+", &"open/".repeat(40)] {
        let answer = client.subscribe(filter, QoS::AtMostOnce).await;
        assert_eq!(answer, SubscribeAckReason::TopicFilterInvalid, "{filter}");
    }
    assert_eq!(
        client.subscribe("open/+/#", QoS::AtMostOnce).await,
        SubscribeAckReason::GrantedQos0
    );
}

#[tokio::test]
async fn a_shared_group_gets_each_message_once() {
    let house = House::open().await;
    let (mut first, _) = hello("first").connect(&house).await;
    let (mut second, _) = hello("second").connect(&house).await;
    let (mut alone, _) = hello("alone").connect(&house).await;
    first
        .subscribe("$share/group/open/work", QoS::AtLeastOnce)
        .await;
    second
        .subscribe("$share/group/open/work", QoS::AtLeastOnce)
        .await;
    alone.subscribe("open/work", QoS::AtLeastOnce).await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    let sent: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for number in &sent {
        publisher
            .publish(message("open/work", number, QoS::AtLeastOnce))
            .await;
    }
    assert_eq!(
        alone.receive_texts(20).await,
        sent,
        "who is not in the group gets all"
    );
    let mut shared = first.receive_texts(10).await;
    shared.extend(second.receive_texts(10).await);
    shared.sort_by_key(|number| number.parse::<u32>().unwrap());
    assert_eq!(shared, sent);
    first.receives_nothing().await;
    second.receives_nothing().await;
}

#[tokio::test]
async fn a_shared_group_goes_on_when_a_member_leaves() {
    let house = House::open().await;
    let (mut first, _) = hello("first").lasting().connect(&house).await;
    let (mut second, _) = hello("second").connect(&house).await;
    first
        .subscribe("$share/group/open/work", QoS::AtLeastOnce)
        .await;
    second
        .subscribe("$share/group/open/work", QoS::AtLeastOnce)
        .await;
    first.disconnect().await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    for number in 0..6 {
        publisher
            .publish(message("open/work", &number.to_string(), QoS::AtLeastOnce))
            .await;
    }
    assert_eq!(
        second.receive_texts(6).await,
        ["0", "1", "2", "3", "4", "5"]
    );
}

#[tokio::test]
async fn a_shared_subscription_gets_no_retained_messages() {
    let house = House::open().await;
    let (mut client, _) = hello("x").connect(&house).await;
    let mut retained = message("open/state", "1", QoS::AtMostOnce);
    retained.retain = true;
    client.publish(retained).await;
    client
        .subscribe("$share/group/open/state", QoS::AtMostOnce)
        .await;
    client.receives_nothing().await;
}

#[tokio::test]
async fn no_local_keeps_own_messages_away_from_their_sender_only() {
    let house = House::open().await;
    let (mut client, _) = hello("x").connect(&house).await;
    let (mut other, _) = hello("y").connect(&house).await;
    let mut no_local = options(QoS::AtLeastOnce);
    no_local.no_local = true;
    client.subscribe_with("open/a", no_local, None).await;
    client
        .publish(message("open/a", "own", QoS::AtLeastOnce))
        .await;
    client.receives_nothing().await;
    other
        .publish(message("open/a", "other", QoS::AtLeastOnce))
        .await;
    assert_eq!(text(&client.receive().await), "other");
}

#[tokio::test]
async fn subscription_identifiers_name_all_matching_subscriptions() {
    let house = House::open().await;
    let (mut client, _) = hello("x").connect(&house).await;
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    client
        .subscribe_with("open/a", options(QoS::AtMostOnce), Some(1))
        .await;
    client
        .subscribe_with("open/+", options(QoS::AtMostOnce), Some(200))
        .await;
    publisher
        .publish(message("open/a", "x", QoS::AtLeastOnce))
        .await;
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let received = client.receive().await.properties.unwrap();
        ids.extend(received.subscription_ids.iter().map(|id| id.get()));
    }
    ids.sort_unstable();
    assert_eq!(ids, [1, 200]);
    client.receives_nothing().await;
}

#[tokio::test]
async fn a_retained_message_names_the_subscription_that_asked_for_it() {
    let house = House::open().await;
    let (mut client, _) = hello("x").connect(&house).await;
    let mut retained = message("open/state", "1", QoS::AtMostOnce);
    retained.retain = true;
    client.publish(retained).await;
    client
        .subscribe_with("open/+", options(QoS::AtMostOnce), Some(7))
        .await;
    let received = client.receive().await.properties.unwrap();
    assert_eq!(
        received
            .subscription_ids
            .iter()
            .map(|id| id.get())
            .collect::<Vec<_>>(),
        [7]
    );
}

#[tokio::test]
async fn a_subscription_made_again_replaces_the_old_one() {
    let house = House::open().await;
    let (mut client, _) = hello("x").connect(&house).await;
    client.subscribe("open/a", QoS::ExactlyOnce).await;
    assert_eq!(
        client.subscribe("open/a", QoS::AtMostOnce).await,
        SubscribeAckReason::GrantedQos0
    );
    let (mut publisher, _) = hello("publisher").connect(&house).await;
    publisher
        .publish(message("open/a", "x", QoS::ExactlyOnce))
        .await;
    assert_eq!(client.receive().await.qos, QoS::AtMostOnce);
    client.receives_nothing().await;
    client.unsubscribe("open/a").await;
    publisher
        .publish(message("open/a", "x", QoS::ExactlyOnce))
        .await;
    client.receives_nothing().await;
}
