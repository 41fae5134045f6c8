//! Who is notified of alerts: the shell around [`crate::core::desk`].
//!
//! ```text
//!  alerts, once stored ─▶ desk ─▶ orders ─▶ one transaction: notification + what was said ─▶ sender per channel
//! ```
//!
//! A sender tries what waits until its receiver has it or it is given up, each try on the record.

pub(crate) mod address;
pub(crate) mod channel;
pub(crate) mod egress;
pub(crate) mod mail;
mod message;
pub(crate) mod outbox;
mod send;
mod webhook;

pub(crate) use message::{label_name, stamp};
pub(crate) use send::{key, send};

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alicia_contract::fleet::Fleet;
use alicia_contract::health::{Alert, Mute};
use alicia_file::{nearest, one_of};
use alicia_module::{ApiError, Clock};
use alicia_store::{Error, Store};
use tokio::sync::{mpsc, watch};

use crate::actor::Shared;
use crate::config::{Config, TICK};
use crate::core::Now;
use crate::core::desk::{Desk, Order};
use crate::core::maintenance::{KEPT_S, When, Window};
use crate::store;
use channel::Channel;

/// Most orders that wait for the store, while it cannot be written. Each is a notification; more than these
/// nobody reads, and what fires is in the book of alerts all the same.
const UNSTORED_MAX: usize = 10_000;

/// How often what is too old is deleted.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// All that notifying needs.
pub(crate) struct Notifier {
    desk: Mutex<Desk>,
    /// Held by who changes silences, from the copy that is tried to the row on disk.
    pub(crate) editing: tokio::sync::Mutex<()>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) store: Store,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Clock,
    /// Whether the last orders could not be stored.
    pub(crate) unstored: AtomicBool,
    /// Notifications that were lost because too many waited, for the store or for their channel.
    pub(crate) lost: AtomicU64,
}

// === impl Notifier ===

impl Notifier {
    /// Takes up what was stored. `firing`: the alerts that fire.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn open(
        config: &Config,
        (store, shared, clock): (Store, Arc<Shared>, Clock),
        (base, seed): (&Path, u64),
        firing: Vec<Alert>,
    ) -> Result<Self, Error> {
        let mut desk = Desk::new(config.rules(), seed);
        let now = shared.now();
        let stored = store.read(outbox::load).await?;
        for (key, said) in stored.said {
            desk.restore_said(key, said, now);
        }
        let mut gone = Vec::new();
        for (key, climb) in stored.climbs {
            if !desk.restore_climb(key.clone(), climb, now) {
                gone.push(Order::Climb(key.0, key.1, None));
            }
        }
        // Left for the next start when it cannot be written now.
        if !gone.is_empty()
            && let Err(error) = store.write(move |tx| outbox::carry_out(tx, &gone)).await
        {
            tracing::warn!(%error, "escalations of policies that are no more stay stored");
        }
        for silence in stored.silences {
            desk.silences.restore(silence);
        }
        let by_rest = stored.windows.into_iter().filter_map(|window| {
            Some(Window {
                when: When::Once(window.starts?, window.ends?),
                id: window.id,
                services: window.services,
                comment: window.comment,
                by: window.by,
            })
        });
        for window in by_rest.chain(config.windows()) {
            if let Err(error) = desk.windows.set(window, now.unix) {
                tracing::warn!(%error, "a maintenance window is left out");
            }
        }
        for alert in firing {
            desk.take(alert, now);
        }
        for id in desk.said_ids() {
            let ended = store
                .read(move |connection| store::get(connection, &id))
                .await?;
            if let Some(alert) = ended.filter(|alert| alert.ended.is_some()) {
                desk.take(alert, now);
            }
        }
        let channels = config.channels.iter();
        let channels = channels
            .filter_map(|(name, config)| Channel::new(name.to_string(), config, base))
            .collect();
        Ok(Self {
            desk: Mutex::new(desk),
            editing: tokio::sync::Mutex::new(()),
            channels,
            store,
            shared,
            clock,
            unstored: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        })
    }

    /// The desk. Never held across an await.
    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        // It changes step by step, and what a step leaves open the next tick finds.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Now {
        self.shared.now()
    }

    /// Why nobody is notified of an alert.
    pub(crate) fn mutes(&self, alert: &Alert) -> Vec<Mute> {
        self.desk().mutes(alert, self.now())
    }

    /// The alert with what mutes it.
    pub(crate) fn shown(&self, mut alert: Alert) -> Alert {
        alert.muted = self.mutes(&alert);
        alert
    }

    /// A channel by its name.
    pub(crate) fn channel(&self, name: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.name == name)
    }

    /// A name that no channel has, with those that there are.
    pub(crate) fn unknown_channel(&self, name: &str) -> ApiError {
        let names = || self.channels.iter().map(|channel| channel.name.as_str());
        let remedy = match (nearest(name, names()), self.channels.is_empty()) {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, true) => "it has none; `health.channels` is where they go".to_owned(),
            (None, false) => format!("it has {}", one_of(names())),
        };
        let detail = format!("the file has no channel `{name}`: {remedy}");
        ApiError::not_found("health", detail)
    }

    /// What is wrong with notifying, in words.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        if self.unstored.load(Relaxed) {
            troubles.push("notifications cannot be stored, so they are not sent yet".to_owned());
        }
        for channel in &self.channels {
            let trouble = channel
                .trouble
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(trouble) = trouble.as_ref() {
                let waiting = channel.counts.waiting.load(Relaxed);
                troubles.push(format!(
                    "channel {}: {trouble} ({waiting} wait)",
                    channel.name
                ));
            }
        }
        troubles
    }
}

/// Takes alerts as they change, and stores what the desk orders.
pub(crate) async fn attend(
    notifier: Arc<Notifier>,
    mut changes: mpsc::Receiver<Alert>,
    mut fleet: watch::Receiver<Arc<Fleet>>,
) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    notifier.desk().set_fleet(fleet.borrow_and_update().clone());
    let mut orders: Vec<Order> = Vec::new();
    loop {
        tokio::select! {
            // Alerts first: a tick decides on what is known.
            biased;
            change = changes.recv() => match change {
                Some(alert) => notifier.desk().take(alert, notifier.now()),
                None => return,
            },
            changed = fleet.changed() => {
                if changed.is_err() {
                    return;
                }
                notifier.desk().set_fleet(fleet.borrow_and_update().clone());
            }
            _ = ticks.tick() => {
                orders.extend(notifier.desk().tick(notifier.now()));
                if !orders.is_empty() {
                    orders = store_orders(&notifier, orders).await;
                }
            }
        }
    }
}

/// Stores orders and wakes the senders; gives back what could not be stored.
async fn store_orders(notifier: &Notifier, mut orders: Vec<Order>) -> Vec<Order> {
    if orders.len() > UNSTORED_MAX {
        let more = orders.len() - UNSTORED_MAX;
        orders.drain(..more);
        notifier.lost.fetch_add(more as u64, Relaxed);
    }
    let orders = Arc::new(orders);
    let written = Arc::clone(&orders);
    let outcome = notifier
        .store
        .write(move |tx| outbox::carry_out(tx, &written))
        .await;
    notifier.unstored.store(outcome.is_err(), Relaxed);
    match outcome {
        Ok(()) => {
            for order in orders.iter() {
                if let Order::Send(draft) = order {
                    let channel = notifier.channel(&draft.notification.channel);
                    channel
                        .into_iter()
                        .for_each(|channel| channel.wake.notify_one());
                }
            }
            Vec::new()
        }
        Err(error) => {
            tracing::error!(%error, "notifications cannot be stored; they wait");
            Arc::unwrap_or_clone(orders)
        }
    }
}

/// Deletes what is done and too much, now and then.
pub(crate) async fn prune(notifier: Arc<Notifier>, keep: u32) {
    let channels: Vec<String> = notifier.channels.iter().map(|of| of.name.clone()).collect();
    loop {
        let now = notifier.clock.unix();
        let channels = channels.clone();
        let outcome = notifier
            .store
            .write(move |tx| {
                let mut given_up = 0;
                for channel in &channels {
                    given_up += outbox::give_up(tx, channel, outbox::WAITING_MAX, now)?;
                }
                outbox::prune(tx, (now - KEPT_S, keep), &channels)?;
                Ok::<_, Error>(given_up)
            })
            .await;
        match outcome {
            Ok(0) => {}
            Ok(given_up) => {
                tracing::error!(given_up, "notifications were given up: too many waited");
                notifier.lost.fetch_add(given_up as u64, Relaxed);
            }
            Err(Error::Closed) => return,
            Err(error) => tracing::warn!(%error, "old notifications were not deleted"),
        }
        tokio::time::sleep(PRUNE_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::core::escalate::Climb;
    use crate::core::{Monitor, Settings};

    fn config(escalations: &Value) -> Config {
        let config = json!({
            "channels": { "phone": { "ntfy": { "url": "https://ntfy.sh", "topic": "ops" } } },
            "escalations": escalations,
        });
        serde_json::from_value(config).expect("a section")
    }

    #[tokio::test]
    async fn how_far_an_escalation_of_a_policy_that_is_gone_came_is_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Clock::system();
        let path = directory.path().join("health.db");
        let options = alicia_store::Options::new(path, store::MIGRATIONS, clock.for_store());
        let store = Store::open(options).expect("it opens");
        let policy = |after: &str| json!({ "steps": [{ "after": after, "channels": ["phone"] }] });
        let before = config(&json!([policy("5m"), policy("10m")]));
        let keys: Vec<String> = before
            .rules()
            .policies
            .into_iter()
            .map(|of| of.key)
            .collect();
        let climb = Climb {
            since: 1_000.0,
            done: 1,
        };
        let of = |key: &String| Order::Climb(key.clone(), "service=api".to_owned(), Some(climb));
        let orders: Vec<Order> = keys.iter().map(of).collect();
        let written = store.write(move |tx| outbox::carry_out(tx, &orders));
        written.await.expect("both came somewhere");

        // The first policy waits longer now, and the second is as it was.
        let after = config(&json!([policy("6m"), policy("10m")]));
        let monitor = Monitor::new(Settings::default(), 1);
        let shared = Arc::new(Shared::new(monitor, clock.clone()));
        let stand = (store.clone(), shared, clock);
        let opened = Notifier::open(&after, stand, (directory.path(), 1), Vec::new()).await;
        opened.expect("it opens");
        let stored = store.read(outbox::load).await.expect("it is read");
        let of_second = ((keys[1].clone(), "service=api".to_owned()), climb);
        assert_eq!(stored.climbs, [of_second]);
    }
}
