//! The handle: what a part of Alicia says on the bus.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::envelope::MESSAGE_BYTES_MAX;
use alicia_contract::topic::TOPIC_BYTES_MAX;
use alicia_contract::{CallTopic, EventTopic, MessageType, Prefix, StateTopic, catalogue};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::call::Requests;
use crate::connection::{self, EndGuard};
use crate::error::{CallError, Error};
use crate::message::Qos;
use crate::options::Options;
use crate::shared::{Body, Outgoing, Publication, Published, Shared};
use crate::status::{BusStatus, Link, lock};
use crate::subscription::{Feed, Kind, RawSubscription, Subscription};

/// Publications that wait for the connection task; beyond it, callers wait.
const COMMANDS_MAX: usize = 256;

/// A client of the bus. A clone is another handle of the same connection, which ends when the last handle
/// and the last subscription are dropped.
#[derive(Clone)]
pub struct Bus {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Publication>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bus").field(&self.shared().options).finish()
    }
}

// === impl Bus: life ===

impl Bus {
    /// A client, and the task that keeps it connected, which the caller spawns. Nothing happens before
    /// the task runs; when it is dropped, the bus is closed.
    pub fn start(options: Options) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::new(Shared::new(options));
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let task = connection::run(EndGuard(Arc::clone(&shared)), receiver);
        let handle = Arc::new(Handle { shared, commands });
        (Self { handle }, task)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// The first level of all topics.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        &self.shared().options.prefix
    }

    /// Who this client is.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.shared().options.source
    }

    /// How the connection is doing.
    #[must_use]
    pub fn status(&self) -> BusStatus {
        self.shared().status()
    }

    /// Waits until there is a connection.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when there is none within the deadline.
    pub async fn connected(&self, deadline: Duration) -> Result<(), Error> {
        let mut link = self.shared().link.subscribe();
        let connected = async {
            tokio::select! {
                connected = link.wait_for(|link| link.connected) => {
                    connected.map(drop).map_err(|_| Error::Closed)
                }
                () = self.shared().ended.cancelled() => Err(Error::Closed),
            }
        };
        timeout(deadline, connected)
            .await
            .unwrap_or_else(|_| Err(timed_out("a connection", deadline)))
    }

    /// Tells of each connection that is made, for who has something to say at its start.
    #[must_use]
    pub fn connections(&self) -> Connections {
        Connections {
            link: self.shared().link.subscribe(),
            ended: self.shared().ended.clone(),
            number: 0,
        }
    }

    /// Says goodbye to the broker, which then publishes no will, and waits until that is done. What was
    /// not acknowledged by then is given up.
    pub async fn close(&self) {
        self.shared().closing.cancel();
        self.shared().ended.cancelled().await;
    }
}

/// Hears of connections made; see [`Bus::connections`].
#[derive(Debug)]
pub struct Connections {
    link: watch::Receiver<Link>,
    ended: CancellationToken,
    number: u64,
}

impl Connections {
    /// Waits for a connection that was not told of yet, the present one included, and gives its number,
    /// from 1; `None` when the bus is closed. May be dropped at any time without loss.
    pub async fn next(&mut self) -> Option<u64> {
        let told = self.number;
        let is_new = |link: &Link| link.connected && link.connections > told;
        let number = tokio::select! {
            link = self.link.wait_for(is_new) => link.ok()?.connections,
            () = self.ended.cancelled() => return None,
        };
        self.number = number;
        Some(number)
    }
}

// === impl Bus: events and states ===

impl Bus {
    /// Publishes an event and waits until the broker has it.
    ///
    /// Without a connection it waits for one, up to the deadline of the options; an event whose deadline
    /// has passed is not sent later.
    ///
    /// # Errors
    /// When the broker refuses it or does not have it in time.
    ///
    /// # Panics
    /// When the number of values is not the number of varying levels of the topic.
    pub async fn publish<T: Serialize>(
        &self,
        topic: EventTopic<T>,
        values: &[&str],
        payload: &T,
    ) -> Result<(), Error> {
        self.publish_at(&topic.at(self.prefix(), values), payload)
            .await
    }

    /// As [`Self::publish`], on any topic, written in full.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn publish_at<T: Serialize>(&self, topic: &str, payload: &T) -> Result<(), Error> {
        let payload = self.encode(MessageType::Event, topic, payload)?;
        let message = Outgoing {
            topic: topic.to_owned(),
            payload,
            ..Outgoing::default()
        };
        self.send_message(message).await.map(drop)
    }

    /// Sets a state, which the broker retains for late comers, and waits until it has it.
    ///
    /// The value is remembered and published again on each new connection, so an error of time means
    /// "not yet", not "never".
    ///
    /// # Errors
    /// When the broker refuses it or does not have it in time, or when too many are remembered.
    ///
    /// # Panics
    /// When the number of values is not the number of varying levels of the topic.
    pub async fn set<T: Serialize>(
        &self,
        topic: StateTopic<T>,
        values: &[&str],
        payload: &T,
    ) -> Result<(), Error> {
        self.set_at(&topic.at(self.prefix(), values), payload).await
    }

    /// As [`Self::set`], on any topic, written in full.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub async fn set_at<T: Serialize>(&self, topic: &str, payload: &T) -> Result<(), Error> {
        let payload = self.encode(MessageType::Event, topic, payload)?;
        self.send_state(topic, payload).await
    }

    /// Clears a state: the broker forgets it, and subscribers hear [`crate::Incoming::Cleared`].
    ///
    /// # Errors
    /// As [`Self::set`].
    ///
    /// # Panics
    /// When the number of values is not the number of varying levels of the topic.
    pub async fn clear<T>(&self, topic: StateTopic<T>, values: &[&str]) -> Result<(), Error> {
        self.clear_at(&topic.at(self.prefix(), values)).await
    }

    /// As [`Self::clear`], on any topic, written in full.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub async fn clear_at(&self, topic: &str) -> Result<(), Error> {
        self.send_state(topic, Bytes::new()).await
    }

    /// Hears the events of a topic, of all values of its varying levels.
    ///
    /// With a connection it waits for the broker's word. Without one it returns at once: the
    /// subscription is made when there is a connection, and then says [`crate::Incoming::Reconnected`].
    ///
    /// # Errors
    /// When the broker refuses it or does not answer in time, or when there are too many.
    pub async fn events<T: DeserializeOwned>(
        &self,
        topic: EventTopic<T>,
    ) -> Result<Subscription<T>, Error> {
        let filter = topic.filter(self.prefix());
        let feed = self.feed(&filter, Kind::Event, topic.template()).await?;
        Ok(Subscription::new(feed))
    }

    /// Hears the states of a topic: those that are there, and each change. As [`Self::events`].
    ///
    /// # Errors
    /// As [`Self::events`].
    pub async fn states<T: DeserializeOwned>(
        &self,
        topic: StateTopic<T>,
    ) -> Result<Subscription<T>, Error> {
        let filter = topic.filter(self.prefix());
        let feed = self.feed(&filter, Kind::State, topic.template()).await?;
        Ok(Subscription::new(feed))
    }

    /// Hears whatever of this type comes on any filter, written in full. An empty message is "cleared".
    ///
    /// # Errors
    /// As [`Self::events`].
    pub async fn events_at<T: DeserializeOwned>(
        &self,
        filter: &str,
    ) -> Result<Subscription<T>, Error> {
        let feed = Feed::open(self.clone(), filter, Kind::State, Vec::new()).await?;
        Ok(Subscription::new(feed))
    }

    async fn feed(&self, filter: &str, kind: Kind, template: &str) -> Result<Feed, Error> {
        let except = catalogue::within(template)
            .map(|other| format!("{}/{other}", self.prefix()))
            .collect();
        Feed::open(self.clone(), filter, kind, except).await
    }
}

// === impl Bus: calls ===

impl Bus {
    /// Asks and waits for the one answer.
    ///
    /// # Errors
    /// See [`CallError`]. After a timeout the request may still be acted on.
    ///
    /// # Panics
    /// When the number of values is not the number of varying levels of the topic.
    pub async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        topic: CallTopic<Q, A>,
        values: &[&str],
        query: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let topic = topic.at(self.prefix(), values);
        self.call_at(&topic, query, deadline).await
    }

    /// As [`Self::call`], on any topic, written in full.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_at<Q: Serialize, A: DeserializeOwned>(
        &self,
        topic: &str,
        query: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        crate::call::call(self, topic, query, deadline).await
    }

    /// Answers the calls of a topic, of all values of its varying levels. As [`Self::events`].
    ///
    /// # Errors
    /// As [`Self::events`].
    pub async fn serve<Q: DeserializeOwned, A: Serialize>(
        &self,
        topic: CallTopic<Q, A>,
    ) -> Result<Requests<Q, A>, Error> {
        let filter = topic.filter(self.prefix());
        let feed = self.feed(&filter, Kind::Call, topic.template()).await?;
        Ok(Requests::new(feed))
    }

    /// Answers the calls on any filter, written in full.
    ///
    /// # Errors
    /// As [`Self::events`].
    pub async fn serve_at<Q: DeserializeOwned, A: Serialize>(
        &self,
        filter: &str,
    ) -> Result<Requests<Q, A>, Error> {
        let feed = Feed::open(self.clone(), filter, Kind::Call, Vec::new()).await?;
        Ok(Requests::new(feed))
    }
}

// === impl Bus: raw ===

impl Bus {
    /// Publishes bytes as they are; with QoS 1 it waits until the broker has them.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn raw_publish(
        &self,
        topic: &str,
        payload: impl Into<Bytes>,
        qos: Qos,
        retain: Retain,
    ) -> Result<(), Error> {
        let message = Outgoing {
            topic: topic.to_owned(),
            payload: payload.into(),
            retain: retain == Retain::Yes,
            qos,
            ..Outgoing::default()
        };
        self.send_message(message).await.map(drop)
    }

    /// Hears bytes as they are, on any filter.
    ///
    /// # Errors
    /// As [`Self::events`].
    pub async fn raw_subscribe(&self, filter: &str) -> Result<RawSubscription, Error> {
        let feed = Feed::open(self.clone(), filter, Kind::Raw, Vec::new()).await?;
        Ok(RawSubscription::new(feed))
    }
}

/// Whether the broker keeps a raw message for late comers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Retain {
    /// Only who subscribes now hears it.
    #[default]
    No,
    /// Kept until the next; an empty one clears.
    Yes,
}

// === impl Bus: private parts ===

impl Bus {
    fn encode<T: Serialize>(
        &self,
        message_type: MessageType,
        topic: &str,
        payload: &T,
    ) -> Result<Bytes, Error> {
        let envelope = self.shared().envelope(message_type, topic, payload)?;
        encode(topic, &envelope)
    }

    async fn send_state(&self, topic: &str, payload: Bytes) -> Result<(), Error> {
        check_topic(topic)?;
        lock(&self.shared().states).set(topic, payload)?;
        let deadline = self.shared().options.deadline;
        timeout(deadline, self.send(Body::State(topic.to_owned())))
            .await
            .unwrap_or_else(|_| Err(timed_out(topic, deadline)))
            .map(drop)
    }

    /// Publishes within the deadline of the options.
    pub(crate) async fn send_message(&self, message: Outgoing) -> Result<Published, Error> {
        let deadline = self.shared().options.deadline;
        let topic = message.topic.clone();
        timeout(deadline, self.send_unbounded(message))
            .await
            .unwrap_or_else(|_| Err(timed_out(&topic, deadline)))
    }

    /// Publishes for as long as the caller waits.
    pub(crate) async fn send_unbounded(&self, message: Outgoing) -> Result<Published, Error> {
        check_topic(&message.topic)?;
        if message.payload.len() > MESSAGE_BYTES_MAX {
            return Err(Error::too_large(&message.topic, message.payload.len()));
        }
        self.send(Body::Message(Box::new(message))).await
    }

    async fn send(&self, body: Body) -> Result<Published, Error> {
        let (done, acknowledged) = oneshot::channel();
        let publication = Publication {
            body,
            done: Some(done),
        };
        let sent = self.handle.commands.send(publication).await;
        sent.map_err(|_| Error::Closed)?;
        acknowledged.await.map_err(|_| Error::Closed)?
    }

    /// Publishes without waiting for anything; what does not fit into the queue is given up.
    pub(crate) fn post(&self, message: Outgoing) {
        let publication = Publication {
            body: Body::Message(Box::new(message)),
            done: None,
        };
        if let Err(error) = self.handle.commands.try_send(publication) {
            tracing::debug!(%error, "an answer was not sent");
        }
    }
}

pub(crate) fn encode<T: Serialize>(topic: &str, message: &T) -> Result<Bytes, Error> {
    let bytes = serde_json::to_vec(message).map_err(|source| Error::Encode {
        topic: topic.to_owned(),
        source,
    })?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Error::too_large(topic, bytes.len()));
    }
    Ok(bytes.into())
}

pub(crate) fn timed_out(topic: &str, after: Duration) -> Error {
    Error::TimedOut {
        topic: topic.to_owned(),
        after,
    }
}

fn check_topic(topic: &str) -> Result<(), Error> {
    let is_wrong = topic.is_empty()
        || topic.len() > TOPIC_BYTES_MAX
        || topic.contains(['+', '#', '\0'])
        || topic.starts_with('$');
    if is_wrong {
        return Err(Error::Topic(topic.to_owned()));
    }
    Ok(())
}
