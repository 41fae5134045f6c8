//! The one task that changes the monitor: takes what happened, in order, and hands on what is to be done.
//! It waits for nothing but events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use alicia_contract::id::ServiceName;
use alicia_module::Clock;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::core::alerts::Change;
use crate::core::{Action, Event, Monitor, Now, Turn};

/// Events that may wait: a tick of a large fleet's probes, several times over.
pub(crate) const EVENTS_MAX: usize = 8_192;

/// Changes of alerts that may wait to be written.
pub(crate) const CHANGES_MAX: usize = 8_192;

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
    pub(crate) changes: mpsc::Sender<Change>,
    pub(crate) turns: mpsc::Sender<Turn>,
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
            let changed = self.carry_out(actions);
            if let Some(answer) = answer {
                // Who asked may have gone away meanwhile.
                drop(answer.send(changed));
            }
        }
    }

    fn carry_out(&self, actions: Vec<Action>) -> Option<Change> {
        let mut changed = None;
        for action in actions {
            match action {
                Action::Alert(change) => {
                    changed = Some((*change).clone());
                    self.signals.picture.notify_one();
                    if self.changes.try_send(*change).is_err() {
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
