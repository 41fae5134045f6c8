//! Calls with an answer, with an error, without an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::Problem;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ADD, Broker, Client, PATIENCE, fail};
use crate::shared::Outgoing;
use crate::{CallError, RawIncoming, RawMessage, RawSubscription, Request};

/// Adds up, refuses to add nothing, and does not answer to a silent one.
async fn serve(client: &Client) -> JoinSet<()> {
    let mut requests = client.bus.serve(ADD).await.expect("subscribes");
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Some(request) = requests.next().await {
            answer(request).await;
        }
    });
    server
}

async fn answer(request: Request<BTreeMap<String, i64>, i64>) {
    if request.values == ["silent"] {
        return;
    }
    let sum = if request.query.is_empty() {
        Err(nothing_to_add())
    } else {
        Ok(request.query.values().sum())
    };
    request.respond(sum).await.expect("answers");
}

fn nothing_to_add() -> Problem {
    Problem {
        kind: "/docs/errors/conformance.nothing".to_owned(),
        title: "Nothing to add".to_owned(),
        status: 400,
        detail: "give at least one number".to_owned(),
        code: "conformance.nothing".to_owned(),
        request_id: None,
        faults: Vec::new(),
    }
}

/// The answer comes back to the one who asked, and an error as an error.
pub async fn calls_are_answered_and_refused(broker: &impl Broker) {
    let server = Client::connect(broker.options("system/server")).await;
    let _answers = serve(&server).await;
    let caller = Client::connect(broker.options("system/caller")).await;
    let other = Client::connect(broker.options("system/other")).await;
    for n in 0..50 {
        let query = BTreeMap::from([("a".to_owned(), n), ("b".to_owned(), 1)]);
        let one = caller.bus.call(ADD, &["one"], &query, PATIENCE);
        let two = other.bus.call(ADD, &["two"], &query, PATIENCE);
        let (one, two) = tokio::join!(one, two);
        assert_eq!(one.expect("is answered"), n + 1);
        assert_eq!(two.expect("is answered"), n + 1);
    }
    let nothing = BTreeMap::new();
    let refused = caller.bus.call(ADD, &["one"], &nothing, PATIENCE);
    match refused.await {
        Err(CallError::Refused { problem, .. }) => assert_eq!(*problem, nothing_to_add()),
        other => fail(&format!("expected a refusal, got {other:?}")),
    }
    let topic = ADD.at(caller.bus.prefix(), &["one"]);
    let unreadable = caller
        .bus
        .call_at::<_, i64>(&topic, &"no object", PATIENCE)
        .await;
    match unreadable {
        Err(CallError::Refused { problem, .. }) => assert_eq!(problem.status, 400),
        other => fail(&format!("expected a refusal, got {other:?}")),
    }
}

/// A deadline ends a call whose responder says nothing.
pub async fn a_call_that_nobody_answers_times_out(broker: &impl Broker) {
    let server = Client::connect(broker.options("system/server")).await;
    let _answers = serve(&server).await;
    let caller = Client::connect(broker.options("system/caller")).await;
    let deadline = Duration::from_millis(200);
    let query = BTreeMap::new();
    let call = caller.bus.call(ADD, &["silent"], &query, deadline);
    match timeout(PATIENCE, call).await {
        Ok(Err(CallError::TimedOut { after, .. })) => assert_eq!(after, deadline),
        other => fail(&format!("expected a timeout, got {other:?}")),
    }
}

/// A broker that says in its acknowledgement that nobody subscribes spares the caller the wait. MQTT 5
/// leaves that to the broker, so it is not part of [`super::everything`].
pub async fn nobody_listens_is_told_at_once(broker: &impl Broker) {
    let caller = Client::connect(broker.options("system/caller")).await;
    let query = BTreeMap::new();
    let call = caller.bus.call(ADD, &["nobody"], &query, PATIENCE * 10);
    match timeout(PATIENCE, call).await {
        Ok(Err(CallError::NobodyListens { .. })) => {}
        other => fail(&format!("expected nobody, got {other:?}")),
    }
}

/// Clients that know only the MQTT 5 properties, and those that know only the envelope, get answers.
pub async fn requests_that_say_the_reply_once_are_answered(broker: &impl Broker) {
    let server = Client::connect(broker.options("system/server")).await;
    let _answers = serve(&server).await;
    let caller = Client::connect(broker.options("system/caller")).await;
    let reply_topic = format!("{}/system/replies/caller/by-hand", caller.bus.prefix());
    let mut replies = caller
        .bus
        .raw_subscribe(&reply_topic)
        .await
        .expect("subscribes");
    let topic = ADD.at(caller.bus.prefix(), &["one"]);

    let by_properties = Outgoing {
        topic: topic.clone(),
        payload: Bytes::from_static(br#"{"a": 40, "b": 2}"#),
        response_topic: Some(reply_topic.clone()),
        correlation: Some(Bytes::from_static(b"c-1")),
        ..Outgoing::default()
    };
    caller.bus.send_message(by_properties).await.expect("sends");
    let (message, envelope) = reply(&mut replies).await;
    assert_eq!(envelope["payload"], 42);
    assert_eq!(message.correlation.as_deref(), Some(&b"c-1"[..]));
    assert_eq!(envelope["correlation_id"], "c-1");

    let request = json!({
        "message_id": "m-2", "timestamp": 0, "source": "system/caller", "message_type": "request",
        "payload": {"a": 1}, "reply_to": reply_topic, "correlation_id": "c-2",
    });
    let by_envelope = Outgoing {
        topic,
        payload: Bytes::from(request.to_string()),
        ..Outgoing::default()
    };
    // Sent twice, as a broker may deliver it: it is acted on once.
    for _ in 0..2 {
        let sent = caller.bus.send_message(by_envelope.clone()).await;
        sent.expect("sends");
    }
    let (message, envelope) = reply(&mut replies).await;
    assert_eq!(envelope["payload"], 1);
    assert_eq!(envelope["message_type"], "response");
    assert_eq!(envelope["correlation_id"], "c-2");
    assert_eq!(message.correlation.as_deref(), Some(&b"c-2"[..]));
}

async fn reply(replies: &mut RawSubscription) -> (RawMessage, Value) {
    match timeout(PATIENCE, replies.next()).await {
        Ok(Some(RawIncoming::Message(message))) => {
            let envelope = serde_json::from_slice(&message.payload).expect("is JSON");
            (message, envelope)
        }
        other => fail(&format!("expected an answer, heard {other:?}")),
    }
}
