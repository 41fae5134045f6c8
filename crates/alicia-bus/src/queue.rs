//! The queue of one subscription. It never blocks who fills it: when it is full, the oldest message goes,
//! and the reader is told how many went.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::delivery::Delivery;
use crate::status::lock;

/// Messages that wait in one queue: a burst of some seconds, read at leisure.
pub(crate) const QUEUE_MESSAGES_MAX: usize = 1_024;
/// Bytes that wait in one queue: sixteen of the largest messages.
pub(crate) const QUEUE_BYTES_MAX: usize = 16 << 20;

/// What a reader takes out.
#[derive(Debug)]
pub(crate) enum Taken {
    Delivery(Arc<Delivery>),
    Lagged(u64),
    Reconnected,
}

/// Filled by the connection task, emptied by one reader.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Delivery>>,
    bytes: usize,
    lagged: u64,
    is_reconnected: bool,
    is_closed: bool,
}

impl State {
    fn is_over(&self) -> bool {
        self.waiting.len() > QUEUE_MESSAGES_MAX || self.bytes > QUEUE_BYTES_MAX
    }

    /// Lag and reconnection come before the messages: they say that those are not all.
    fn take(&mut self) -> Option<Taken> {
        if self.lagged > 0 {
            return Some(Taken::Lagged(std::mem::take(&mut self.lagged)));
        }
        if std::mem::take(&mut self.is_reconnected) {
            return Some(Taken::Reconnected);
        }
        let delivery = self.waiting.pop_front()?;
        self.bytes -= delivery.bytes();
        Some(Taken::Delivery(delivery))
    }
}

impl Queue {
    /// Adds a message and gives the number of those that had to go for it.
    pub(crate) fn push(&self, delivery: Arc<Delivery>) -> u64 {
        let mut state = lock(&self.state);
        state.bytes += delivery.bytes();
        state.waiting.push_back(delivery);
        let mut lost = 0;
        while state.is_over() {
            let Some(oldest) = state.waiting.pop_front() else {
                break;
            };
            state.bytes -= oldest.bytes();
            lost += 1;
        }
        state.lagged += lost;
        drop(state);
        self.filled.notify_one();
        lost
    }

    /// The subscription was made anew.
    pub(crate) fn reconnected(&self) {
        lock(&self.state).is_reconnected = true;
        self.filled.notify_one();
    }

    /// Nothing comes any more; what waits can still be taken.
    pub(crate) fn close(&self) {
        lock(&self.state).is_closed = true;
        self.filled.notify_one();
    }

    /// The next, or `None` when the queue is closed and empty. May be dropped at any await without loss.
    pub(crate) async fn next(&self) -> Option<Taken> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = lock(&self.state);
                if let Some(taken) = state.take() {
                    return Some(taken);
                }
                if state.is_closed {
                    return None;
                }
            }
            filled.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::Publish;

    fn delivery(payload: Vec<u8>) -> Arc<Delivery> {
        let publish = Publish::new("t", QoS::AtLeastOnce, payload, None);
        Arc::new(Delivery::new(publish, 0.0).expect("the topic is UTF-8"))
    }

    #[tokio::test]
    async fn a_full_queue_loses_the_oldest_and_says_so() {
        let queue = Queue::default();
        for n in 0..QUEUE_MESSAGES_MAX + 3 {
            queue.push(delivery(n.to_string().into_bytes()));
        }
        assert!(matches!(queue.next().await, Some(Taken::Lagged(3))));
        let Some(Taken::Delivery(first)) = queue.next().await else {
            panic!("expected a message");
        };
        assert_eq!(&first.raw.payload[..], b"3");
    }

    #[tokio::test]
    async fn large_messages_are_limited_by_bytes() {
        let queue = Queue::default();
        let lost: u64 = (0..20)
            .map(|_| queue.push(delivery(vec![0; 1 << 20])))
            .sum();
        assert_eq!(lost, 5);
    }

    #[tokio::test]
    async fn a_closed_queue_gives_what_it_has_and_then_ends() {
        let queue = Queue::default();
        queue.reconnected();
        queue.push(delivery(Vec::new()));
        queue.close();
        assert!(matches!(queue.next().await, Some(Taken::Reconnected)));
        assert!(matches!(queue.next().await, Some(Taken::Delivery(_))));
        assert!(queue.next().await.is_none());
    }
}
