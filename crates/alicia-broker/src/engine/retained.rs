//! Retained messages: the latest of each topic, for those who subscribe later.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::retain::RetainStorage;
use rmqtt::types::{Retain, TopicFilter, TopicName};

use tokio::sync::Mutex;

use super::core::Core;
use super::delivery::compact;
use super::packet;
use super::topic;

#[derive(Debug, Clone)]
struct Kept {
    retain: Retain,
    bytes: usize,
    expires_ms: Option<i64>,
}

#[derive(Debug, Default)]
struct Inner {
    by_topic: BTreeMap<String, Kept>,
    bytes: usize,
}

/// The retained messages, in memory.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    inner: RwLock<Inner>,
}

impl Retained {
    /// Keeps a message in place of the topic's former one.
    pub(crate) fn set(&self, topic: &str, mut retain: Retain, expires_ms: Option<i64>) {
        compact(&mut retain.publish);
        let bytes = packet::body_bytes(&retain.publish);
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.remove(topic);
        inner.bytes += bytes;
        inner.by_topic.insert(
            topic.to_owned(),
            Kept {
                retain,
                bytes,
                expires_ms,
            },
        );
    }

    /// Forgets the message of a topic.
    pub(crate) fn remove(&self, topic: &str) {
        self.inner
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(topic);
    }

    /// Whether one more message would stay within the limits. What has expired makes room.
    pub(crate) fn has_room(
        &self,
        topic: &str,
        bytes: usize,
        limits: &super::limits::Limits,
    ) -> bool {
        let fits = |inner: &Inner| {
            let old = inner.by_topic.get(topic).map(|kept| kept.bytes);
            let messages = inner.by_topic.len() + usize::from(old.is_none());
            messages <= limits.retained_messages_max
                && inner.bytes - old.unwrap_or(0) + bytes <= limits.retained_bytes_max
        };
        if fits(&self.inner.read().unwrap_or_else(PoisonError::into_inner)) {
            return true;
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.expire(rmqtt::utils::timestamp_millis());
        fits(&inner)
    }

    /// The messages whose topics match, with what is left of their lives.
    pub(crate) fn matching(&self, filter: &str, now_ms: i64) -> Vec<(TopicName, Retain)> {
        let prefix = topic::literal_prefix(filter);
        // "a/#" matches "a" too, which sorts before "a/".
        let from = prefix.strip_suffix('/').unwrap_or(prefix);
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner
            .by_topic
            .range::<str, _>((Bound::Included(from), Bound::Unbounded))
            .take_while(|(topic, _)| topic.starts_with(from))
            .filter(|(topic, kept)| topic::matches(filter, topic) && !kept.expired(now_ms))
            .map(|(topic, kept)| (TopicName::from(topic.as_str()), kept.alive(now_ms)))
            .collect()
    }

    /// Messages and bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        (inner.by_topic.len(), inner.bytes)
    }
}

impl Inner {
    fn remove(&mut self, topic: &str) {
        if let Some(kept) = self.by_topic.remove(topic) {
            self.bytes -= kept.bytes;
        }
    }

    fn expire(&mut self, now_ms: i64) {
        self.by_topic.retain(|_, kept| !kept.expired(now_ms));
        self.bytes = self.by_topic.values().map(|kept| kept.bytes).sum();
    }
}

impl Kept {
    fn expired(&self, now_ms: i64) -> bool {
        self.expires_ms
            .is_some_and(|expires_ms| expires_ms <= now_ms)
    }

    /// A copy whose expiry interval counts from now.
    fn alive(&self, now_ms: i64) -> Retain {
        let mut retain = self.retain.clone();
        if let (Some(expires_ms), Some(properties)) =
            (self.expires_ms, retain.publish.properties.as_mut())
        {
            let left_s = u32::try_from((expires_ms - now_ms + 999) / 1000).unwrap_or(u32::MAX);
            properties.message_expiry_interval = NonZeroU32::new(left_s);
        }
        retain
    }
}

/// The library's view of the retained messages.
pub(crate) struct Storage {
    core: Arc<Core>,
    turn: Mutex<()>,
}

impl Storage {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            turn: Mutex::default(),
        }
    }
}

#[async_trait]
impl RetainStorage for Storage {
    fn enable(&self) -> bool {
        true
    }

    async fn set(
        &self,
        topic: &TopicName,
        retain: Retain,
        expiry_interval: Option<Duration>,
    ) -> rmqtt::Result<()> {
        let retained = &self.core.retained;
        let expires_ms = expiry_interval
            .filter(|interval| !interval.is_zero())
            .map(|interval| {
                let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
                rmqtt::utils::timestamp_millis().saturating_add(interval_ms)
            });
        // In memory and on disk in the same order, whoever else sets the same topic.
        let turn = self.turn.lock().await;
        let queued = match self.core.vault.get() {
            Some(vault) => Some((vault, vault.retain(&retain, expires_ms).await)),
            None => None,
        };
        if retain.publish.payload.is_empty() {
            retained.remove(topic);
        } else {
            retained.set(topic, retain, expires_ms);
        }
        drop(turn);
        if let Some((vault, queued)) = queued {
            vault.finish(queued).await;
        }
        Ok(())
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        Ok(self
            .core
            .retained
            .matching(filter, rmqtt::utils::timestamp_millis()))
    }

    async fn count(&self) -> isize {
        isize::try_from(self.core.retained.size().0).unwrap_or(isize::MAX)
    }

    async fn max(&self) -> isize {
        isize::try_from(self.core.limits.retained_messages_max).unwrap_or(isize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use rmqtt::codec::types::{Publish, QoS};
    use rmqtt::types::{From as Sender, Id};

    use super::*;
    use crate::engine::limits::Limits;

    fn message(topic: &str, payload: &str) -> Retain {
        let publish = Publish {
            dup: false,
            retain: true,
            qos: QoS::AtMostOnce,
            topic: topic.into(),
            packet_id: None,
            payload: payload.to_owned().into(),
            properties: Some(rmqtt::codec::v5::PublishProperties::default()),
        };
        Retain {
            msg_id: None,
            from: Sender::from_custom(Id::from(1, "x".into())),
            publish: publish.into(),
        }
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        retained
            .matching(filter, 0)
            .into_iter()
            .map(|(topic, _)| topic.to_string())
            .collect()
    }

    #[test]
    fn filters_find_their_topics() {
        let retained = Retained::default();
        for topic in ["a", "a/b", "a/b/c", "ab", "b/c", "/x"] {
            retained.set(topic, message(topic, "1"), None);
        }
        assert_eq!(topics(&retained, "a/#"), ["a", "a/b", "a/b/c"]);
        assert_eq!(topics(&retained, "a/+"), ["a/b"]);
        assert_eq!(topics(&retained, "+/c"), ["b/c"]);
        assert_eq!(topics(&retained, "#").len(), 6);
        assert_eq!(topics(&retained, "/+"), ["/x"]);
        assert_eq!(topics(&retained, "ab"), ["ab"]);
        retained.remove("ab");
        assert!(topics(&retained, "ab").is_empty());
    }

    #[test]
    fn an_expired_message_is_not_given_out_and_a_living_one_tells_the_rest_of_its_life() {
        let retained = Retained::default();
        retained.set("a", message("a", "1"), Some(10_000));
        let (_, alive) = retained.matching("a", 4_000).pop().unwrap();
        let left = alive
            .publish
            .properties
            .as_ref()
            .unwrap()
            .message_expiry_interval;
        assert_eq!(left.map(NonZeroU32::get), Some(6));
        assert!(retained.matching("a", 10_000).is_empty());
    }

    #[test]
    fn limits_hold_and_replacing_is_always_allowed() {
        let retained = Retained::default();
        let limits = Limits {
            retained_messages_max: 1,
            retained_bytes_max: 100,
            ..Limits::default()
        };
        assert!(retained.has_room("a", 10, &limits));
        retained.set("a", message("a", "1"), None);
        assert!(!retained.has_room("b", 10, &limits));
        assert!(retained.has_room("a", 100, &limits));
        assert!(!retained.has_room("a", 101, &limits));
        retained.set("a", message("a", "1"), Some(1));
        assert!(
            retained.has_room("b", 10, &limits),
            "what has expired makes room"
        );
    }
}
