//! The sender of one channel: tries what waits, at the pace of the channel, until it is delivered or given up.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use alicia_contract::health::{DeliveryState, Severity};
use alicia_contract::id::ServiceName;
use alicia_store::Error;

use super::Notifier;
use super::channel::Channel;
use super::egress::{Fault, Kind};
use super::outbox::{self, Waiting};
use crate::actor::Handle;
use crate::core::Event;
use crate::core::conditions::{Condition, Key, Rule};

/// The wait before the second try; it doubles with each.
const WAIT_FIRST: Duration = Duration::from_secs(1);

/// The longest wait between tries.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The longest wait that a receiver can ask for.
const WAIT_ASKED_MAX: Duration = Duration::from_secs(3_600);

/// The wait after the store could not be read or written.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// The service that alerts about our own doing are about.
const OURSELVES: &str = "alicia";

/// Sends what waits for the channel with this number, as long as the monitor runs.
pub(crate) async fn send(
    notifier: Arc<Notifier>,
    number: usize,
    (monitor, give_up_after): (Handle, Duration),
    mut random: fastrand::Rng,
) {
    let Some(channel) = notifier.channels.get(number) else {
        return;
    };
    loop {
        let waiting = match next(&notifier, channel).await {
            Ok(Some(waiting)) => waiting,
            Ok(None) => {
                channel.wake.notified().await;
                continue;
            }
            Err(Error::Closed) => return,
            Err(error) => {
                tracing::error!(%error, channel = channel.name, "the outbox cannot be read now");
                tokio::time::sleep(STORE_RETRY).await;
                continue;
            }
        };
        if let Some(pause) = pause(&notifier, channel, &waiting) {
            // Another one may come that is due sooner.
            drop(tokio::time::timeout(pause, channel.wake.notified()).await);
            continue;
        }
        let outcome = channel.deliver(&waiting, notifier.clock.unix()).await;
        let done = settle(waiting, outcome, (give_up_after, &notifier), &mut random);
        record(&notifier, channel, &monitor, done).await;
    }
}

async fn next(notifier: &Notifier, channel: &Channel) -> Result<Option<Waiting>, Error> {
    let name = channel.name.clone();
    let (next, waiting) = notifier
        .store
        .read(move |connection| {
            let next = outbox::next(connection, &name)?;
            Ok::<_, Error>((next, outbox::waiting(connection, &name)?))
        })
        .await?;
    channel.counts.waiting.store(waiting, Relaxed);
    Ok(next)
}

/// How long until this one may be tried; none: now.
fn pause(notifier: &Notifier, channel: &Channel, waiting: &Waiting) -> Option<Duration> {
    let next_try = waiting.notification.next_try.unwrap_or_default();
    let early_s = next_try - notifier.clock.unix();
    if early_s > 0.0 {
        // No wait that was stored is longer: then the clock was set.
        let early = Duration::try_from_secs_f64(early_s).unwrap_or(WAIT_ASKED_MAX);
        if early <= WAIT_ASKED_MAX {
            return Some(early);
        }
    }
    let mut pace = channel.pace.lock().unwrap_or_else(PoisonError::into_inner);
    pace.turn(notifier.clock.now())
}

/// The notification after a try.
fn settle(
    mut waiting: Waiting,
    outcome: Result<(), Fault>,
    (give_up_after, notifier): (Duration, &Notifier),
    random: &mut fastrand::Rng,
) -> Waiting {
    let now = notifier.clock.unix();
    let about = &mut waiting.notification;
    about.attempts = about.attempts.saturating_add(1);
    match outcome {
        Ok(()) => {
            about.delivery = DeliveryState::Delivered;
            about.error = None;
        }
        Err(fault) => {
            let old = now - about.created >= give_up_after.as_secs_f64();
            if fault.kind == Kind::Final || old {
                about.delivery = DeliveryState::Failed;
            }
            about.next_try = Some(now + wait(about.attempts, &fault, random).as_secs_f64());
            about.error = Some(fault.text);
        }
    }
    if about.delivery != DeliveryState::Waiting {
        about.done = Some(now);
        about.next_try = None;
    }
    waiting
}

/// The wait after so many tries: it doubles, and half of it is random, so that channels do not try in step; at
/// least as long as the receiver asks for.
fn wait(attempts: u32, fault: &Fault, random: &mut fastrand::Rng) -> Duration {
    let doubled = WAIT_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    let wait = doubled.min(WAIT_MAX).mul_f64(0.5 + random.f64() / 2.0);
    let asked = fault.retry_after.unwrap_or_default().min(WAIT_ASKED_MAX);
    wait.max(asked)
}

/// Writes down what became of a try; what cannot be written is tried until it is, for the try was made.
async fn record(notifier: &Notifier, channel: &Channel, monitor: &Handle, done: Waiting) {
    let about = done.notification;
    channel.counts.tries.fetch_add(1, Relaxed);
    *channel
        .trouble
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = about.error.clone();
    match about.delivery {
        DeliveryState::Delivered => {
            channel.counts.delivered.fetch_add(1, Relaxed);
            monitor.say(Event::Untell(key(&channel.name))).await;
        }
        DeliveryState::Failed => {
            channel.counts.failed.fetch_add(1, Relaxed);
            let condition = given_up(channel, &about);
            monitor.say(Event::Tell(Box::new(condition), None)).await;
        }
        DeliveryState::Waiting => {
            let error = about.error.as_deref().unwrap_or_default();
            tracing::warn!(
                channel = channel.name,
                error,
                "a notification was not delivered yet"
            );
        }
    }
    let forgotten = channel.speech.is_mirror() && outbox::is_repeat(&about);
    let forgotten = forgotten && about.delivery == DeliveryState::Delivered;
    loop {
        let row = about.clone();
        let outcome = notifier
            .store
            .write(move |tx| {
                if forgotten {
                    outbox::remove(tx, &row.id)
                } else {
                    outbox::save(tx, &row)
                }
            })
            .await;
        match outcome {
            Ok(()) | Err(Error::Closed) => return,
            Err(error) => {
                tracing::error!(%error, "what became of a notification cannot be written");
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
    }
}

/// What an alert that a channel does not deliver is about.
pub(crate) fn key(channel: &str) -> Key {
    Key {
        rule: Rule::DeliveryFailed,
        service: ServiceName::new(OURSELVES).expect("a constant that is an id"),
        instance: None,
        check: Some(channel.to_owned()),
    }
}

fn given_up(channel: &Channel, about: &alicia_contract::health::Notification) -> Condition {
    let error = about.error.as_deref().unwrap_or("no reason is known");
    Condition {
        key: key(&channel.name),
        active: true,
        occurrence: 0,
        severity: Severity::Critical,
        summary: format!(
            "notifications to the channel {} do not arrive",
            channel.name
        ),
        detail: format!(
            "given up after {} tries: {error}; what it said: {}",
            about.attempts, about.summary
        ),
        last_lines: Vec::new(),
        suggestion: Some(format!("alicia alerts test-channel {}", channel.name)),
        labels: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_honour_what_the_receiver_asks() {
        let mut random = fastrand::Rng::with_seed(1);
        let plain = Fault::passing("");
        for (attempts, most_s) in [
            (1, 1.0),
            (2, 2.0),
            (5, 16.0),
            (20, 300.0),
            (u32::MAX, 300.0),
        ] {
            let wait_s = wait(attempts, &plain, &mut random).as_secs_f64();
            assert!(
                wait_s >= most_s / 2.0 && wait_s <= most_s,
                "{attempts}: {wait_s}"
            );
        }
        let asking = |s: u64| Fault {
            retry_after: Some(Duration::from_secs(s)),
            ..Fault::passing("")
        };
        assert_eq!(wait(1, &asking(40), &mut random), Duration::from_secs(40));
        assert_eq!(wait(1, &asking(999_999), &mut random), WAIT_ASKED_MAX);
    }
}
