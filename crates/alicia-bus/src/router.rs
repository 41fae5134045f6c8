//! Who hears what: the filters that are wanted, what the broker knows of them, and the queues behind them.
//!
//! Pure apart from the queues. The session asks for the [`Change`]s that bring the broker up to what is
//! wanted; each entry goes through
//!
//! ```text
//!   wanted ──SUBSCRIBE──▶ asked ──SUBACK──▶ made        (a break of the connection: back to wanted)
//!                           └──refusal──▶ refused
//! ```

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use alicia_contract::topic::filter_matches;
use tokio::sync::oneshot;

use crate::delivery::Delivery;
use crate::error::Error;
use crate::queue::Queue;

/// Subscriptions of one client: far more than any part needs, and a limit on what a bug can open.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 1_024;

/// Tells who waits whether the broker took the subscription.
pub(crate) type Waiter = oneshot::Sender<Result<(), Error>>;

/// One subscription as its owner knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SinkId(u64);

/// What must be said to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Subscribe(String),
    Unsubscribe(String),
}

#[derive(Debug, Default)]
pub(crate) struct Router {
    entries: BTreeMap<String, Entry>,
    unsubscribe: Vec<String>,
    refused: HashSet<String>,
    last_id: u64,
    sinks: usize,
    is_connected: bool,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Entry {
    sinks: Vec<Sink>,
    stage: Stage,
    waiters: Vec<Waiter>,
    /// A filter without a queue: the reply topic.
    is_pinned: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Wanted,
    Asked,
    Made,
    Refused,
}

#[derive(Debug)]
struct Sink {
    id: SinkId,
    queue: Arc<Queue>,
    /// Topics that the filter matches and that belong to others.
    except: Vec<String>,
    /// Whether it already knows that something may have been missed before it was made.
    is_made: bool,
}

impl Router {
    /// Adds a queue behind a filter. With a connection the waiter hears what the broker says; without one
    /// it is told at once that all is well, since the subscription is made when there is one.
    pub(crate) fn add(
        &mut self,
        filter: &str,
        queue: Arc<Queue>,
        except: Vec<String>,
        waiter: Waiter,
    ) -> Result<SinkId, Error> {
        if self.is_closed {
            return Err(Error::Closed);
        }
        if self.sinks >= SUBSCRIPTIONS_MAX {
            return Err(Error::TooManySubscriptions {
                filter: filter.to_owned(),
                subscriptions_max: SUBSCRIPTIONS_MAX,
            });
        }
        self.sinks += 1;
        self.last_id += 1;
        let id = SinkId(self.last_id);
        let is_connected = self.is_connected;
        let entry = self.entries.entry(filter.to_owned()).or_default();
        entry.sinks.push(Sink {
            id,
            queue,
            except,
            is_made: is_connected,
        });
        self.want(filter, waiter);
        Ok(id)
    }

    /// Keeps a filter subscribed that has no queue.
    pub(crate) fn pin(&mut self, filter: &str, waiter: Waiter) {
        let entry = self.entries.entry(filter.to_owned()).or_default();
        entry.is_pinned = true;
        if entry.stage == Stage::Made {
            answer(waiter, Ok(()));
        } else {
            self.want(filter, waiter);
        }
    }

    /// Asks the broker (again) for a filter: a second SUBSCRIBE brings the retained messages once more.
    pub(crate) fn want(&mut self, filter: &str, waiter: Waiter) {
        let is_connected = self.is_connected;
        let Some(entry) = self.entries.get_mut(filter) else {
            return answer(waiter, Err(Error::Closed));
        };
        entry.stage = Stage::Wanted;
        if is_connected {
            entry.waiters.push(waiter);
        } else {
            answer(waiter, Ok(()));
        }
    }

    /// Takes a queue away, and with the last one the filter.
    pub(crate) fn remove(&mut self, filter: &str, id: SinkId) {
        let Some(entry) = self.entries.get_mut(filter) else {
            return;
        };
        let before = entry.sinks.len();
        entry.sinks.retain(|sink| sink.id != id);
        self.sinks -= before - entry.sinks.len();
        if entry.sinks.is_empty() && !entry.is_pinned {
            self.entries.remove(filter);
            self.refused.remove(filter);
            if self.is_connected {
                self.unsubscribe.push(filter.to_owned());
            }
        }
    }

    /// Gives a message to everyone whose filter matches, and the number of messages lost for it.
    pub(crate) fn deliver(&self, delivery: &Arc<Delivery>) -> u64 {
        let topic = delivery.raw.topic.as_str();
        self.entries
            .iter()
            .filter(|(filter, _)| filter_matches(plain(filter), topic))
            .flat_map(|(_, entry)| &entry.sinks)
            .filter(|sink| !sink.except.iter().any(|other| other == topic))
            .map(|sink| sink.queue.push(Arc::clone(delivery)))
            .sum()
    }

    /// What is to be said to the broker now. Whoever takes a change says it.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        // A filter may have been given up and wanted again in the meantime.
        let entries = &mut self.entries;
        let mut changes: Vec<Change> = self
            .unsubscribe
            .drain(..)
            .filter(|filter| !entries.contains_key(filter))
            .map(Change::Unsubscribe)
            .collect();
        for (filter, entry) in entries {
            if entry.stage == Stage::Wanted {
                entry.stage = Stage::Asked;
                changes.push(Change::Subscribe(filter.clone()));
            }
        }
        changes
    }

    /// The broker's answer to a SUBSCRIBE.
    pub(crate) fn answered(&mut self, filter: &str, result: Result<(), Refusal>) {
        let Some(entry) = self.entries.get_mut(filter) else {
            return;
        };
        // A newer wish is under way; its answer counts.
        if entry.stage == Stage::Asked {
            entry.stage = if result.is_ok() {
                Stage::Made
            } else {
                Stage::Refused
            };
        }
        match &result {
            Ok(()) => {
                self.refused.remove(filter);
                for sink in entry.sinks.iter_mut().filter(|sink| !sink.is_made) {
                    sink.is_made = true;
                    sink.queue.reconnected();
                }
            }
            Err(_) => {
                self.refused.insert(filter.to_owned());
            }
        }
        for waiter in entry.waiters.drain(..) {
            let result = match &result {
                Ok(()) => Ok(()),
                Err(refusal) => Err(refusal.error(filter)),
            };
            answer(waiter, result);
        }
    }

    /// A connection is there, and the broker knows nothing (clean start).
    pub(crate) fn connected(&mut self) {
        self.is_connected = true;
        self.unsubscribe.clear();
    }

    /// The connection broke: everything is to be subscribed anew.
    pub(crate) fn disconnected(&mut self) {
        self.is_connected = false;
        for entry in self.entries.values_mut() {
            entry.stage = Stage::Wanted;
            entry.sinks.iter_mut().for_each(|sink| sink.is_made = false);
            for waiter in entry.waiters.drain(..) {
                answer(waiter, Ok(()));
            }
        }
    }

    /// No message comes any more.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        for sink in self.entries.values().flat_map(|entry| &entry.sinks) {
            sink.queue.close();
        }
        for entry in self.entries.values_mut() {
            for waiter in entry.waiters.drain(..) {
                answer(waiter, Err(Error::Closed));
            }
        }
    }

    /// Filters that the broker refused.
    pub(crate) fn refused(&self) -> Vec<String> {
        let mut refused: Vec<String> = self.refused.iter().cloned().collect();
        refused.sort_unstable();
        refused
    }
}

/// Why the broker refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotAllowed,
    Other(String),
}

impl Refusal {
    pub(crate) fn error(&self, topic: &str) -> Error {
        let topic = topic.to_owned();
        match self {
            Self::NotAllowed => Error::NotAllowed { topic },
            Self::Other(reason) => Error::Refused {
                topic,
                reason: reason.clone(),
            },
        }
    }
}

/// The filter of a shared subscription without `$share/<group>/`.
fn plain(filter: &str) -> &str {
    filter
        .strip_prefix("$share/")
        .and_then(|rest| rest.split_once('/'))
        .map_or(filter, |(_, filter)| filter)
}

/// Who does not wait any more needs no answer.
fn answer(waiter: Waiter, result: Result<(), Error>) {
    drop(waiter.send(result));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Taken;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::Publish;

    struct Subscriber {
        id: SinkId,
        queue: Arc<Queue>,
        made: oneshot::Receiver<Result<(), Error>>,
    }

    fn subscribe(router: &mut Router, filter: &str, except: &[&str]) -> Subscriber {
        let queue = Arc::new(Queue::default());
        let (waiter, made) = oneshot::channel();
        let except = except.iter().map(|topic| (*topic).to_owned()).collect();
        let id = router.add(filter, Arc::clone(&queue), except, waiter);
        let id = id.expect("there is room");
        Subscriber { id, queue, made }
    }

    fn deliver(router: &Router, topic: &str) {
        let publish = Publish::new(topic, QoS::AtLeastOnce, "", None);
        let delivery = Delivery::new(publish, 0.0).expect("the topic is UTF-8");
        router.deliver(&Arc::new(delivery));
    }

    /// What waits in a closed queue, in words.
    async fn heard(subscriber: &Subscriber) -> Vec<String> {
        subscriber.queue.close();
        let mut heard = Vec::new();
        while let Some(taken) = subscriber.queue.next().await {
            heard.push(match taken {
                Taken::Delivery(delivery) => delivery.raw.topic.clone(),
                Taken::Lagged(lost) => format!("lagged {lost}"),
                Taken::Reconnected => "reconnected".to_owned(),
            });
        }
        heard
    }

    fn subscribes(filter: &str) -> Vec<Change> {
        vec![Change::Subscribe(filter.to_owned())]
    }

    #[tokio::test]
    async fn messages_go_to_those_whose_filter_fits_and_who_mean_them() {
        let mut router = Router::default();
        let states = subscribe(&mut router, "p/+", &["p/register"]);
        let all = subscribe(&mut router, "p/#", &[]);
        let shared = subscribe(&mut router, "$share/group/p/a", &[]);
        for topic in ["p/a", "p/register", "p/a/b", "q"] {
            deliver(&router, topic);
        }
        assert_eq!(heard(&states).await, ["p/a"]);
        assert_eq!(heard(&all).await, ["p/a", "p/register", "p/a/b"]);
        assert_eq!(heard(&shared).await, ["p/a"]);
    }

    #[tokio::test]
    async fn one_who_waited_is_answered_and_is_not_told_of_a_reconnection() {
        let mut router = Router::default();
        router.connected();
        let mut subscriber = subscribe(&mut router, "a", &[]);
        assert_eq!(router.changes(), subscribes("a"));
        assert!(router.changes().is_empty(), "it is asked for twice");
        assert!(subscriber.made.try_recv().is_err(), "answered too early");
        router.answered("a", Ok(()));
        assert!(matches!(subscriber.made.try_recv(), Ok(Ok(()))));
        assert!(heard(&subscriber).await.is_empty());
    }

    #[tokio::test]
    async fn after_a_break_all_is_asked_for_again_and_told() {
        let mut router = Router::default();
        let mut early = subscribe(&mut router, "a", &[]);
        assert!(
            matches!(early.made.try_recv(), Ok(Ok(()))),
            "it waits for nothing"
        );
        router.connected();
        assert_eq!(router.changes(), subscribes("a"));
        router.answered("a", Ok(()));
        router.disconnected();
        assert_eq!(heard(&early).await, ["reconnected"]);
        router.connected();
        assert_eq!(router.changes(), subscribes("a"));
        router.answered("a", Ok(()));
        assert_eq!(heard(&early).await, ["reconnected"]);
    }

    #[tokio::test]
    async fn a_refusal_reaches_who_waits_and_is_remembered_until_the_filter_is_given_up() {
        let mut router = Router::default();
        router.connected();
        let mut subscriber = subscribe(&mut router, "a", &[]);
        router.changes();
        router.answered("a", Err(Refusal::NotAllowed));
        let answer = subscriber.made.try_recv();
        assert!(matches!(answer, Ok(Err(Error::NotAllowed { .. }))));
        assert_eq!(router.refused(), ["a"]);
        router.remove("a", subscriber.id);
        assert!(router.refused().is_empty());
    }

    #[test]
    fn a_filter_is_unsubscribed_with_its_last_subscription_unless_it_is_wanted_again() {
        let mut router = Router::default();
        router.connected();
        let one = subscribe(&mut router, "a", &[]);
        let two = subscribe(&mut router, "a", &[]);
        assert_eq!(router.changes(), subscribes("a"));
        router.remove("a", one.id);
        assert!(router.changes().is_empty());
        router.remove("a", two.id);
        assert_eq!(router.changes(), [Change::Unsubscribe("a".to_owned())]);
        let three = subscribe(&mut router, "a", &[]);
        router.remove("a", three.id);
        let _four = subscribe(&mut router, "a", &[]);
        assert_eq!(router.changes(), subscribes("a"));
    }

    #[test]
    fn the_number_of_subscriptions_is_bounded_and_a_closed_router_takes_none() {
        let mut router = Router::default();
        let first = subscribe(&mut router, "0", &[]);
        for n in 1..SUBSCRIPTIONS_MAX {
            subscribe(&mut router, &n.to_string(), &[]);
        }
        let one_more = |router: &mut Router| {
            let (waiter, _made) = oneshot::channel();
            router.add("x", Arc::default(), Vec::new(), waiter)
        };
        let refused = one_more(&mut router);
        assert!(matches!(refused, Err(Error::TooManySubscriptions { .. })));
        router.remove("0", first.id);
        assert!(one_more(&mut router).is_ok());
        router.close();
        assert!(matches!(one_more(&mut router), Err(Error::Closed)));
    }
}
