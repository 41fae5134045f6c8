//! The states that this client has set: what the broker must hold, so that one which lost its retained
//! messages gets them back. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::Error;

/// States of one client: one per service and per part, many times over.
pub(crate) const STATES_MAX: usize = 4_096;
/// Bytes of all states of one client.
const STATES_BYTES_MAX: usize = 64 << 20;

/// The last value of each topic; empty for one that was cleared and not yet acknowledged as such.
#[derive(Debug, Default)]
pub(crate) struct States {
    values: BTreeMap<String, Bytes>,
    bytes: usize,
}

impl States {
    /// Remembers a value; an empty one means cleared.
    pub(crate) fn set(&mut self, topic: &str, value: Bytes) -> Result<(), Error> {
        let before = self.values.get(topic).map_or(0, Bytes::len);
        let is_new = !self.values.contains_key(topic);
        let bytes = self.bytes - before + value.len();
        if bytes > STATES_BYTES_MAX || (is_new && self.values.len() >= STATES_MAX) {
            return Err(Error::TooManyStates {
                topic: topic.to_owned(),
                states_max: STATES_MAX,
            });
        }
        self.bytes = bytes;
        self.values.insert(topic.to_owned(), value);
        Ok(())
    }

    /// What the topic should hold; empty for nothing.
    pub(crate) fn value(&self, topic: &str) -> Bytes {
        self.values.get(topic).cloned().unwrap_or_default()
    }

    /// The broker has taken what the topic should hold; a cleared one need not be remembered further.
    pub(crate) fn acknowledged(&mut self, topic: &str) {
        if self.values.get(topic).is_some_and(Bytes::is_empty) {
            self.values.remove(topic);
        }
    }

    /// All topics that have a value or must be cleared.
    pub(crate) fn topics(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_state_is_remembered_until_the_broker_knows() {
        let mut states = States::default();
        states.set("a", Bytes::from_static(b"1")).expect("fits");
        states.set("a", Bytes::new()).expect("fits");
        assert_eq!(states.topics(), ["a"]);
        assert!(states.value("a").is_empty());
        states.acknowledged("a");
        assert!(states.topics().is_empty());
    }

    #[test]
    fn both_limits_hold_and_a_known_topic_may_still_change() {
        let mut states = States::default();
        for n in 0..STATES_MAX {
            let value = Bytes::from_static(b"x");
            states.set(&n.to_string(), value).expect("fits");
        }
        assert!(states.set("one more", Bytes::new()).is_err());
        states
            .set("7", Bytes::from_static(b"yy"))
            .expect("is known");
        assert!(states.set("7", vec![0; STATES_BYTES_MAX].into()).is_err());
        assert_eq!(states.value("7"), "yy");
    }
}
