//! The one task that changes the monitor: takes what happened, in order, and hands on what is to be done.
//! It waits for nothing but events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use alicia_contract::id::ServiceName;
use alicia_module::Clock;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::core::alerts::Change;
use crate::core::{Action, Event, Monitor, Now, Turn};

/// Events that may wait: a tick of a large fleet's probes, several times over.
pub(crate) const EVENTS_MAX: usize = 8_192;

/// Changes of alerts that may wait to be written.
pub(crate) const CHANGES_MAX: usize = 8_192;

/// Alerts of which a change waits for room in that queue, while a disk hangs.
const OVERFLOW_MAX: usize = 100_000;

/// Something for the actor, and who wants to know when it is taken.
pub(crate) struct Command {
    pub(crate) event: Event,
    /// Hears whether an alert changed by it.
    pub(crate) answer: Option<oneshot::Sender<Option<Change>>>,
}

/// The way to the actor.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) mpsc::Sender<Command>);

/// What the actor and those who read share.
pub(crate) struct Shared {
    monitor: RwLock<Monitor>,
    clock: Clock,
    started: Instant,
    /// Changes of alerts that found no room in the queue.
    pub(crate) changes_lost: AtomicU64,
    /// Changes of state that found no room in the queue of the history.
    pub(crate) turns_lost: AtomicU64,
}

/// What the actor wakes.
#[derive(Default)]
pub(crate) struct Signals {
    /// The picture changed.
    pub(crate) picture: Notify,
    /// Other instances are to be probed.
    pub(crate) targets: Notify,
    /// Services to be asked for a heartbeat.
    pub(crate) ask: Mutex<BTreeSet<ServiceName>>,
    /// Services to be restarted, and why.
    pub(crate) restarts: Mutex<BTreeMap<ServiceName, String>>,
    /// There are such.
    pub(crate) restart: Notify,
}

/// The task.
pub(crate) struct Actor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) changes: Changes,
    pub(crate) turns: mpsc::Sender<Turn>,
}

/// The way of changes of alerts to the disk. One that finds no room waits, the last of each alert: that an alert is over
/// must not be lost, or it would fire for ever on disk and at the desk.
pub(crate) struct Changes {
    queue: mpsc::Sender<Change>,
    overflow: BTreeMap<String, Change>,
}

// === impl Changes ===

impl Changes {
    pub(crate) fn new(queue: mpsc::Sender<Change>) -> Self {
        let overflow = BTreeMap::new();
        Self { queue, overflow }
    }

    /// Takes a change; `false`: it is lost.
    fn push(&mut self, change: Change) -> bool {
        self.flush();
        let is_known = self.overflow.contains_key(&change.alert.id);
        if !self.overflow.is_empty() {
            return (is_known || self.overflow.len() < OVERFLOW_MAX) && self.put_off(change);
        }
        match self.queue.try_send(change) {
            Err(TrySendError::Full(change)) => self.put_off(change),
            // The monitor closes.
            Ok(()) | Err(TrySendError::Closed(_)) => true,
        }
    }

    fn put_off(&mut self, change: Change) -> bool {
        let known = self.overflow.remove(&change.alert.id);
        let news = change.news || known.is_some_and(|known| known.news);
        let id = change.alert.id.clone();
        self.overflow.insert(id, Change { news, ..change });
        true
    }

    /// Passes on what waits, as far as there is room.
    fn flush(&mut self) {
        while let Some((id, change)) = self.overflow.pop_first() {
            if let Err(TrySendError::Full(change)) = self.queue.try_send(change) {
                self.overflow.insert(id, change);
                return;
            }
        }
    }
}

// === impl Handle ===

impl Handle {
    /// Has something taken. Waits while the queue is full.
    pub(crate) async fn say(&self, event: Event) {
        // Only a monitor that is closing does not listen.
        drop(
            self.0
                .send(Command {
                    event,
                    answer: None,
                })
                .await,
        );
    }

    /// Has something taken, and gives the alert that changed by it.
    pub(crate) async fn ask(&self, event: Event) -> Option<Change> {
        let (answer, taken) = oneshot::channel();
        drop(
            self.0
                .send(Command {
                    event,
                    answer: Some(answer),
                })
                .await,
        );
        taken.await.ok().flatten()
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(monitor: Monitor, clock: Clock) -> Self {
        let started = clock.now();
        let changes_lost = AtomicU64::new(0);
        Self {
            monitor: RwLock::new(monitor),
            clock,
            started,
            changes_lost,
            turns_lost: AtomicU64::new(0),
        }
    }

    /// The state, to read. Never held across an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Monitor> {
        // The one writer leaves the state whole even when it panics: the core changes it step by step.
        self.monitor.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Now {
        let mono = self.clock.now().saturating_duration_since(self.started);
        Now {
            unix: self.clock.unix(),
            mono,
        }
    }
}

// === impl Signals ===

impl Signals {
    /// The services to be asked, which are then forgotten.
    pub(crate) fn take_asked(&self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut *self.ask.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Signals {
    /// The services to be restarted, which are then forgotten.
    pub(crate) fn take_restarts(&self) -> BTreeMap<ServiceName, String> {
        let mut restarts = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *restarts)
    }
}

// === impl Actor ===

impl Actor {
    /// Ends when the last handle is gone.
    pub(crate) async fn run(mut self) {
        while let Some(Command { event, answer }) = self.commands.recv().await {
            let now = self.shared.now();
            let actions = {
                let mut monitor = self
                    .shared
                    .monitor
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                monitor.apply(event, now)
            };
            self.changes.flush();
            let changed = self.carry_out(actions);
            if let Some(answer) = answer {
                // Who asked may have gone away meanwhile.
                drop(answer.send(changed));
            }
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) -> Option<Change> {
        let mut changed = None;
        for action in actions {
            match action {
                Action::Alert(change) => {
                    changed = Some((*change).clone());
                    self.signals.picture.notify_one();
                    if !self.changes.push(*change) {
                        self.shared.changes_lost.fetch_add(1, Relaxed);
                        tracing::error!("a change of an alert found no room to be written");
                    }
                }
                Action::Changed => self.signals.picture.notify_one(),
                Action::Turned(turn) => {
                    // A turn that finds no room is a gap in the history, no false judgement.
                    if self.turns.try_send(turn).is_err() {
                        self.shared.turns_lost.fetch_add(1, Relaxed);
                    }
                }
                Action::Targets => self.signals.targets.notify_one(),
                Action::Restart(service, why) => {
                    let restarts = self.signals.restarts.lock();
                    let mut restarts = restarts.unwrap_or_else(PoisonError::into_inner);
                    restarts.insert(service, why);
                    self.signals.restart.notify_one();
                }
                Action::Ask(service) => {
                    self.signals
                        .ask
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(service);
                }
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use alicia_contract::health::{Alert, AlertState};
    use serde_json::json;

    use super::*;

    fn change(id: &str, state: AlertState, news: bool) -> Change {
        let alert: Alert = serde_json::from_value(json!({
            "id": id, "rule": "check_failed", "severity": "warning", "state": "firing", "service": "api",
            "instance": null, "summary": "", "detail": "", "started": 0.0, "ended": null, "count": 1,
        }))
        .expect("an alert");
        Change {
            alert: Alert { state, ..alert },
            news,
        }
    }

    /// The disk hangs: the queue is full, and alerts begin and end.
    #[test]
    fn no_end_of_an_alert_is_lost_while_the_disk_hangs() {
        use AlertState::{Firing, Resolved};
        let (queue, mut written) = mpsc::channel(2);
        let mut changes = Changes::new(queue);
        for (id, state, news) in [
            ("1", Firing, true),
            ("2", Firing, true),
            ("3", Firing, true),
            ("1", Resolved, true),
            ("3", Firing, false),
            ("2", Resolved, true),
        ] {
            assert!(changes.push(change(id, state, news)));
        }
        let mut told = Vec::new();
        while let Ok(one) = written.try_recv() {
            told.push((one.alert.id, one.alert.state, one.news));
            changes.flush();
        }
        let told: Vec<_> = told
            .iter()
            .map(|(id, state, news)| (id.as_str(), *state, *news))
            .collect();
        let expected = [
            ("1", Firing, true),
            ("2", Firing, true),
            ("1", Resolved, true),
            ("2", Resolved, true),
            ("3", Firing, true),
        ];
        assert_eq!(told, expected);
    }
}
