//! What the handles and the connection task have in common. Each lock is held for a few lines, never
//! across an await.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use alicia_contract::envelope::DropReason;
use alicia_contract::{Envelope, MessageType, UnixSeconds};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::{NoContext, Timestamp, Uuid};

use crate::delivery::Delivery;
use crate::drops::Drops;
use crate::error::Error;
use crate::message::Qos;
use crate::options::Options;
use crate::reply::reply_topic;
use crate::router::Router;
use crate::states::States;
use crate::status::{BusStatus, Counters, Link, lock};

/// Calls that wait for their answers at the same time.
pub(crate) const CALLS_MAX: usize = 1_024;

/// Something to be published.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) body: Body,
    /// Who waits for the acknowledgement; a publication whose waiter is gone is not sent any more.
    pub(crate) done: Option<oneshot::Sender<Result<Published, Error>>>,
}

/// What is published.
#[derive(Debug)]
pub(crate) enum Body {
    Message(Box<Outgoing>),
    /// Whatever [`States`] says of this topic at the time of sending.
    State(String),
}

/// A message to be published.
#[derive(Debug, Default, Clone)]
pub(crate) struct Outgoing {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
    pub(crate) qos: Qos,
    pub(crate) response_topic: Option<String>,
    pub(crate) correlation: Option<Bytes>,
    /// The detached signature.
    pub(crate) signature: Option<String>,
}

/// The broker has taken it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    Taken,
    /// And says that nobody subscribes to the topic.
    Unheard,
}

impl Publication {
    /// Nobody waits for it any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.done.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    pub(crate) fn finish(self, result: Result<Published, Error>) {
        match (self.done, result) {
            // Who does not wait any more needs no answer.
            (Some(done), result) => drop(done.send(result)),
            (None, Ok(_)) => {}
            (None, Err(error)) => tracing::warn!(%error, "a message was not published"),
        }
    }
}

/// The common state of one client.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) reply_topic: String,
    pub(crate) router: Mutex<Router>,
    /// The router has something to say to the broker.
    pub(crate) changed: Notify,
    pub(crate) states: Mutex<States>,
    pub(crate) calls: Mutex<HashMap<String, oneshot::Sender<Arc<Delivery>>>>,
    pub(crate) drops: Mutex<Drops>,
    pub(crate) counters: Counters,
    pub(crate) link: watch::Sender<Link>,
    /// The connection task is to end.
    pub(crate) closing: CancellationToken,
    /// It has ended.
    pub(crate) ended: CancellationToken,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        let since = (options.clock)();
        let link = Link {
            since,
            ..Link::default()
        };
        Self {
            reply_topic: reply_topic(&options.prefix, &options.source, &options.client_id),
            options,
            router: Mutex::default(),
            changed: Notify::new(),
            states: Mutex::default(),
            calls: Mutex::default(),
            drops: Mutex::default(),
            counters: Counters::default(),
            link: watch::Sender::new(link),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
        }
    }

    pub(crate) fn now(&self) -> UnixSeconds {
        (self.options.clock)()
    }

    /// A new envelope of this client around a payload.
    pub(crate) fn envelope<T: Serialize>(
        &self,
        message_type: MessageType,
        topic: &str,
        payload: &T,
    ) -> Result<Envelope, Error> {
        let payload = serde_json::to_value(payload).map_err(|source| Error::Encode {
            topic: topic.to_owned(),
            source,
        })?;
        let now = self.now();
        let timestamp = Timestamp::from_unix(NoContext, now as u64, (now.fract() * 1e9) as u32);
        let id = Uuid::new_v7(timestamp).to_string();
        let source = &self.options.source;
        Ok(Envelope {
            traceparent: crate::trace::current(),
            ..Envelope::new(id, now, source, message_type, payload)
        })
    }

    /// Hands a message to those who want it.
    pub(crate) fn deliver(&self, delivery: Delivery) {
        Counters::raise(&self.counters.received, 1);
        let delivery = Arc::new(delivery);
        if delivery.raw.topic == self.reply_topic {
            self.answer(&delivery);
        }
        let lost = lock(&self.router).deliver(&delivery);
        if lost > 0 {
            Counters::raise(&self.counters.lagged, lost);
            let topic = &delivery.raw.topic;
            let line = lock(&self.drops).is_worth_a_line(topic, self.now());
            if line.is_some() {
                tracing::warn!(topic, "a slow subscription loses messages");
            }
        }
    }

    /// Wakes the call that this message answers; an answer that nobody waits for came too late.
    fn answer(&self, delivery: &Arc<Delivery>) {
        let Some(id) = correlation(delivery) else {
            return;
        };
        if let Some(waiter) = lock(&self.calls).remove(&id) {
            drop(waiter.send(Arc::clone(delivery)));
        }
    }

    /// Counts a message that was not taken and logs it now and then.
    pub(crate) fn dropped(&self, delivery: &Delivery, reason: DropReason) {
        let topic = &delivery.raw.topic;
        let sender = delivery.source().unwrap_or(topic);
        let line = lock(&self.drops).count(reason, sender, self.now());
        if let Some(sender) = line {
            tracing::warn!(%reason, sender, topic, "a message was dropped");
        }
    }

    pub(crate) fn status(&self) -> BusStatus {
        let link = self.link.borrow().clone();
        BusStatus {
            connected: link.connected,
            since: link.since,
            connections: link.connections,
            last_error: link.last_error,
            published: Counters::read(&self.counters.published),
            received: Counters::read(&self.counters.received),
            dropped: lock(&self.drops).counts(),
            lagged: Counters::read(&self.counters.lagged),
            refused: lock(&self.router).refused(),
        }
    }

    /// The connection task ends: nobody waits for what cannot come.
    pub(crate) fn end(&self) {
        lock(&self.router).close();
        lock(&self.calls).clear();
        let now = self.now();
        self.link.send_modify(|link| {
            link.connected = false;
            link.since = now;
        });
        self.ended.cancel();
    }
}

/// What an answer says it answers: the MQTT property, else the envelope.
fn correlation(delivery: &Delivery) -> Option<String> {
    if let Some(data) = &delivery.raw.correlation {
        return String::from_utf8(data.to_vec()).ok();
    }
    let (received, _) = delivery.read();
    received.ok()?.envelope.as_ref()?.correlation_id.clone()
}
