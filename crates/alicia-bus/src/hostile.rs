//! Disturbed deliveries, for the tests of modules: messages are repeated, delayed, and events also lost,
//! all of which a real bus may do. The order within a subscription is kept, as MQTT keeps it per topic.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Sleep;

use crate::delivery::Delivery;
use crate::options::Options;
use crate::queue::{Queue, Taken};
use crate::subscription::Kind;

/// How deliveries are disturbed. Chances are from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hostility {
    /// The same seed gives the same decisions for the same sequence of messages on a filter.
    pub seed: u64,
    /// The chance that a message is delivered twice in a row.
    pub repeat: f64,
    /// The chance that an event is lost; states and calls are not.
    pub lose: f64,
    /// The chance that a message, and what is behind it, is delayed.
    pub delay: f64,
    /// The longest delay.
    pub delay_max: Duration,
}

impl Hostility {
    /// A bad day: a fifth is repeated, a tenth of the events is lost, a fifth is up to 20 ms late.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            repeat: 0.2,
            lose: 0.1,
            delay: 0.2,
            delay_max: Duration::from_millis(20),
        }
    }
}

/// Stands between a queue and its reader.
#[derive(Debug)]
pub(crate) struct Trouble {
    plan: Hostility,
    kind: Kind,
    random: fastrand::Rng,
    held: VecDeque<Arc<Delivery>>,
    delay: Option<Pin<Box<Sleep>>>,
}

impl Trouble {
    pub(crate) fn new(options: &Options, filter: &str, kind: Kind) -> Option<Self> {
        let plan = options.hostility?;
        let mut hasher = DefaultHasher::new();
        (plan.seed, filter).hash(&mut hasher);
        Some(Self {
            plan,
            kind,
            random: fastrand::Rng::with_seed(hasher.finish()),
            held: VecDeque::new(),
            delay: None,
        })
    }

    /// The next of the queue after all trouble. May be dropped at any await without loss.
    pub(crate) async fn next(&mut self, queue: &Queue) -> Option<Taken> {
        loop {
            if let Some(delay) = &mut self.delay {
                delay.await;
                self.delay = None;
            }
            if let Some(delivery) = self.held.pop_front() {
                return Some(Taken::Delivery(delivery));
            }
            match queue.next().await? {
                Taken::Delivery(delivery) => self.disturb(delivery),
                other => return Some(other),
            }
        }
    }

    fn disturb(&mut self, delivery: Arc<Delivery>) {
        if self.kind == Kind::Event && self.random.f64() < self.plan.lose {
            return;
        }
        if self.random.f64() < self.plan.repeat {
            self.held.push_back(Arc::clone(&delivery));
        }
        self.held.push_back(delivery);
        if self.random.f64() < self.plan.delay {
            let delay = self.plan.delay_max.mul_f64(self.random.f64());
            self.delay = Some(Box::pin(tokio::time::sleep(delay)));
        }
    }
}
