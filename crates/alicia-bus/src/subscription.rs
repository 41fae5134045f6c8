//! Subscriptions: from the queue to the reader.

use std::marker::PhantomData;
use std::sync::Arc;

use alicia_contract::envelope::{DropReason, Received};
use alicia_contract::object;
use alicia_contract::topic::TOPIC_BYTES_MAX;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::bus::{Bus, timed_out};
use crate::delivery::Delivery;
use crate::error::Error;
use crate::message::{Incoming, Message, RawIncoming};
use crate::queue::{Queue, Taken};
use crate::router::SinkId;
use crate::shared::Shared;
use crate::status::lock;

/// What a subscription is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Event,
    State,
    Call,
    Raw,
}

/// The reading end of one subscription. Dropping it gives the subscription up.
pub(crate) struct Feed {
    bus: Bus,
    filter: String,
    kind: Kind,
    id: SinkId,
    queue: Arc<Queue>,
    #[cfg(feature = "hostile")]
    trouble: Option<crate::hostile::Trouble>,
}

impl Feed {
    /// Subscribes; `except` are topics that the filter matches and that are not meant.
    pub(crate) async fn open(
        bus: Bus,
        filter: &str,
        kind: Kind,
        except: Vec<String>,
    ) -> Result<Self, Error> {
        if !is_filter(filter) {
            return Err(Error::Topic(filter.to_owned()));
        }
        let queue = Arc::new(Queue::default());
        let (waiter, made) = oneshot::channel();
        let id = lock(&bus.shared().router).add(filter, Arc::clone(&queue), except, waiter)?;
        // From here on dropping the feed undoes the subscription.
        let feed = Self {
            filter: filter.to_owned(),
            kind,
            id,
            queue,
            #[cfg(feature = "hostile")]
            trouble: crate::hostile::Trouble::new(&bus.shared().options, filter, kind),
            bus,
        };
        feed.made(made).await?;
        Ok(feed)
    }

    async fn made(&self, made: oneshot::Receiver<Result<(), Error>>) -> Result<(), Error> {
        let shared = self.shared();
        shared.changed.notify_one();
        let deadline = shared.options.deadline;
        match timeout(deadline, made).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(timed_out(&self.filter, deadline)),
        }
    }

    /// Subscribes once more, so that the broker delivers what it retains again.
    async fn refresh(&self) -> Result<(), Error> {
        let (waiter, made) = oneshot::channel();
        lock(&self.shared().router).want(&self.filter, waiter);
        self.made(made).await
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.bus.shared()
    }

    pub(crate) fn filter(&self) -> &str {
        &self.filter
    }

    #[cfg(not(feature = "hostile"))]
    pub(crate) async fn next(&mut self) -> Option<Taken> {
        self.queue.next().await
    }

    #[cfg(feature = "hostile")]
    pub(crate) async fn next(&mut self) -> Option<Taken> {
        match &mut self.trouble {
            Some(trouble) => trouble.next(&self.queue).await,
            None => self.queue.next().await,
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let shared = self.bus.shared();
        lock(&shared.router).remove(&self.filter, self.id);
        shared.changed.notify_one();
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("filter", &self.filter)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Hears messages of one type. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription<T> {
    feed: Feed,
    types: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Subscription<T> {
    pub(crate) fn new(feed: Feed) -> Self {
        Self {
            feed,
            types: PhantomData,
        }
    }

    /// The next that is heard; `None` when the bus is closed. Messages that cannot be read are counted
    /// and skipped. The future may be dropped at any time without loss, as `select!` does.
    pub async fn next(&mut self) -> Option<Incoming<T>> {
        loop {
            match self.feed.next().await? {
                Taken::Lagged(lost) => return Some(Incoming::Lagged(lost)),
                Taken::Reconnected => return Some(Incoming::Reconnected),
                Taken::Delivery(delivery) => match self.incoming(&delivery) {
                    Ok(incoming) => return Some(incoming),
                    Err(Some(reason)) => self.feed.shared().dropped(&delivery, reason),
                    Err(None) => {}
                },
            }
        }
    }

    /// The next message, when lag, reconnection and clearing make no difference.
    pub async fn message(&mut self) -> Option<Message<T>> {
        loop {
            if let Incoming::Message(message) = self.next().await? {
                return Some(message);
            }
        }
    }

    /// Has the broker deliver what it retains once more, for who has to start from the full picture.
    ///
    /// # Errors
    /// As for [`Bus::states`].
    pub async fn refresh(&self) -> Result<(), Error> {
        self.feed.refresh().await
    }

    fn incoming(&self, delivery: &Delivery) -> Result<Incoming<T>, Option<DropReason>> {
        let topic = delivery.raw.topic.clone();
        let values = values(self.feed.filter(), &topic);
        if self.feed.kind == Kind::State && delivery.raw.payload.is_empty() {
            return Ok(Incoming::Cleared { topic, values });
        }
        let received = received(delivery)?;
        let envelope = received.envelope.clone().map(Box::new);
        Ok(Incoming::Message(Message {
            payload: payload(received)?,
            source: delivery.source().map(str::to_owned),
            topic,
            values,
            envelope,
            retained: delivery.raw.retained,
        }))
    }
}

/// Hears bytes as they are. Dropping it unsubscribes.
#[derive(Debug)]
pub struct RawSubscription {
    feed: Feed,
}

impl RawSubscription {
    pub(crate) fn new(feed: Feed) -> Self {
        Self { feed }
    }

    /// The next that is heard; `None` when the bus is closed. May be dropped at any time without loss.
    pub async fn next(&mut self) -> Option<RawIncoming> {
        Some(match self.feed.next().await? {
            Taken::Lagged(lost) => RawIncoming::Lagged(lost),
            Taken::Reconnected => RawIncoming::Reconnected,
            Taken::Delivery(delivery) => RawIncoming::Message(delivery.raw.clone()),
        })
    }
}

/// What the bytes say; `None` as the error of a later reading of the same bytes, which counts no more.
pub(crate) fn received(delivery: &Delivery) -> Result<&Received, Option<DropReason>> {
    let (received, is_first) = delivery.read();
    received.map_err(|reason| is_first.then_some(reason))
}

pub(crate) fn payload<T: DeserializeOwned>(received: &Received) -> Result<T, DropReason> {
    object::read(&received.payload).map_err(|_| DropReason::WrongPayload)
}

/// What stands in the place of each wildcard of the filter, in order; for `#` the rest of the topic.
pub(crate) fn values(filter: &str, topic: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut rest = topic;
    for level in filter.split('/') {
        if level == "#" {
            values.push(rest.to_owned());
            break;
        }
        let (value, after) = rest.split_once('/').unwrap_or((rest, ""));
        if level == "+" {
            values.push(value.to_owned());
        }
        rest = after;
    }
    values
}

/// Whether a text is an MQTT filter (MQTT 5 section 4.7).
fn is_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > TOPIC_BYTES_MAX || filter.contains('\0') {
        return false;
    }
    let levels: Vec<&str> = filter.split('/').collect();
    levels.iter().enumerate().all(|(at, level)| match *level {
        "#" => at + 1 == levels.len(),
        "+" => true,
        level => !level.contains(['#', '+']),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_give_the_values() {
        let check = |filter: &str, topic: &str, expected: &[&str]| {
            assert_eq!(values(filter, topic), expected, "{filter} on {topic}");
        };
        check("a/system/health/+", "a/system/health/api", &["api"]);
        check("+/x/+", "a/x/b", &["a", "b"]);
        check("a/#", "a/b/c", &["b/c"]);
        check("a/b", "a/b", &[]);
    }

    #[test]
    fn only_filters_are_filters() {
        for good in ["a", "+", "#", "a/+/b", "a/#", "/", "$SYS/#"] {
            assert!(is_filter(good), "{good:?} was refused");
        }
        for bad in ["", "a#", "a/#/b", "a+/b", "\0"] {
            assert!(!is_filter(bad), "{bad:?} was accepted");
        }
    }
}
