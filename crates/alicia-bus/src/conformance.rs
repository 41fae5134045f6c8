//! What any broker under Alicia must do for this client, as functions that panic when it does not.
//!
//! The tests of this crate run them on Mosquitto, those of the broker module on the embedded broker. A
//! [`Broker`] says how a client with a given source connects; all sources used are `system/…`, which may
//! use every topic under the prefix.

mod broken;
mod calls;
mod messages;
mod mosquitto;

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::{CallTopic, EventTopic, StateTopic};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{Bus, BusStatus, Incoming, Message, Options, Subscription};

pub use broken::{a_broken_connection_publishes_the_will, a_restart_loses_no_state};
pub use calls::{
    a_call_that_nobody_answers_times_out, calls_are_answered_and_refused,
    nobody_listens_is_told_at_once, requests_that_say_the_reply_once_are_answered,
};
pub use messages::{
    a_bare_payload_is_heard, a_burst_lags_explicitly, a_forbidden_publish_is_an_error,
    a_forbidden_subscription_is_an_error, a_slow_subscription_does_not_hold_up_others,
    events_reach_every_subscriber, states_are_retained_replaced_and_cleared,
    what_must_be_dropped_is_counted,
};
pub use mosquitto::Mosquitto;

/// How long anything may take before a check fails: far more than it needs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A broker that is checked.
pub trait Broker {
    /// How a client with this source connects. Each call is another client.
    fn options(&self, source: &str) -> Options;
}

impl<F: Fn(&str) -> Options> Broker for F {
    fn options(&self, source: &str) -> Options {
        self(source)
    }
}

/// Everything that needs no restart of the broker, one after the other.
pub async fn everything(broker: &impl Broker) {
    events_reach_every_subscriber(broker).await;
    states_are_retained_replaced_and_cleared(broker).await;
    a_bare_payload_is_heard(broker).await;
    what_must_be_dropped_is_counted(broker).await;
    a_burst_lags_explicitly(broker).await;
    a_slow_subscription_does_not_hold_up_others(broker).await;
    calls_are_answered_and_refused(broker).await;
    requests_that_say_the_reply_once_are_answered(broker).await;
    a_call_that_nobody_answers_times_out(broker).await;
    a_broken_connection_publishes_the_will(broker).await;
}

/// A message of the checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Reading {
    room: String,
    celsius: f64,
}

impl Reading {
    fn new(room: &str, celsius: f64) -> Self {
        Self {
            room: room.to_owned(),
            celsius,
        }
    }
}

const MEASURED: EventTopic<Reading> = EventTopic::new("system/conformance/measured/{room}");
const CLIMATE: StateTopic<Reading> = StateTopic::new("system/conformance/climate/{room}");
const ADD: CallTopic<BTreeMap<String, i64>, i64> = CallTopic::new("system/conformance/add/{who}");

/// A connected client whose task ends with it.
struct Client {
    bus: Bus,
    task: JoinSet<()>,
}

impl Client {
    async fn connect(options: Options) -> Self {
        let client = Self::start(options);
        client.bus.connected(PATIENCE).await.expect("connects");
        client
    }

    fn start(options: Options) -> Self {
        let (bus, connection) = Bus::start(options);
        let mut task = JoinSet::new();
        task.spawn(connection);
        Self { bus, task }
    }

    /// Breaks the connection without a goodbye.
    async fn break_off(mut self) {
        self.task.shutdown().await;
    }

    /// Waits until the status is as wanted.
    async fn status_becomes(&self, wanted: impl Fn(&BusStatus) -> bool) -> BusStatus {
        let becomes = async {
            loop {
                let status = self.bus.status();
                if wanted(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match timeout(PATIENCE, becomes).await {
            Ok(status) => status,
            Err(_) => fail(&format!("the status stays {:?}", self.bus.status())),
        }
    }
}

/// The next that is heard, within [`PATIENCE`].
async fn hear<T: serde::de::DeserializeOwned>(subscription: &mut Subscription<T>) -> Incoming<T> {
    match timeout(PATIENCE, subscription.next()).await {
        Ok(Some(incoming)) => incoming,
        Ok(None) => fail("the subscription ended"),
        Err(_) => fail("nothing was heard"),
    }
}

/// The next message that is heard, within [`PATIENCE`].
async fn hear_message<T: serde::de::DeserializeOwned>(
    subscription: &mut Subscription<T>,
) -> Message<T> {
    match timeout(PATIENCE, subscription.message()).await {
        Ok(Some(message)) => message,
        Ok(None) => fail("the subscription ended"),
        Err(_) => fail("no message was heard"),
    }
}

#[expect(
    clippy::panic,
    reason = "a check that fails must fail the test that calls it"
)]
fn fail(what: &str) -> ! {
    panic!("{what}")
}
