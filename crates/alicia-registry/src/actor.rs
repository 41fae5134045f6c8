//! The one task that changes the registry: takes what happened, in order, decides, writes, answers, tells.
//!
//! What waits is taken together: one transaction holds the rows of a whole batch. The answer to a
//! registration comes after its row is on disk; others see it as soon as it is decided. The writer is a task of
//! its own, so that a slow disk delays answers and not what is seen.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use alicia_contract::discovery::{Presence, RegisteredInstance};
use alicia_contract::id::InstanceId;
use alicia_failpoint::failpoint;
use alicia_module::Clock;
use alicia_store::{Error as StoreError, Store, audit};
use serde_json::json;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;

use crate::core::{Action, Caller, Entry, Event, Now, Registry};
use crate::error::Refusal;
use crate::store;
use crate::tell::Teller;

/// Commands that may wait: as many as one batch takes, several times over.
pub(crate) const COMMANDS_MAX: usize = 1_024;

/// Commands that are decided and written together.
const BATCH_MAX: usize = 256;

/// Batches that may wait for the writer; beyond that, deciding waits too.
pub(crate) const BATCHES_MAX: usize = 16;

/// Rows that are kept while the store cannot be written: every entry, and audit rows of hours.
const OWED_MAX: usize = 50_000;

/// Ends of instances that a call may not have looked at yet.
const ENDED_MAX: usize = 1_024;

/// Audit rows of refusals per minute. Each is security-relevant; a flood of them says nothing more.
const DENIALS_PER_MINUTE_MAX: u32 = 60;

/// What a request came to.
pub(crate) type Outcome = Result<RegisteredInstance, Failure>;

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It may not.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It may, but could not be written.
    #[error("write the change: {0}")]
    Store(Arc<StoreError>),
    /// The registry is closing.
    #[error("reach the registry: it is closing")]
    Closing,
}

/// Something for the actor.
pub(crate) struct Command {
    pub(crate) event: Event,
    /// From where it comes, for the audit log.
    pub(crate) origin: audit::Origin,
    /// Who wants to know the outcome.
    pub(crate) answer: Option<oneshot::Sender<Outcome>>,
}

/// What the actor and those who read share.
pub(crate) struct Shared {
    registry: RwLock<Registry>,
    clock: Clock,
    started: Instant,
    /// Registrations taken, refusals, and whether the last write failed.
    pub(crate) registrations: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) unwritten: AtomicBool,
    /// Instances whose process ended or whose lease ran out, for those who wait for their answers.
    pub(crate) ended: broadcast::Sender<InstanceId>,
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(registry: Registry, clock: Clock) -> Self {
        let started = clock.now();
        Self {
            registry: RwLock::new(registry),
            clock,
            started,
            registrations: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            unwritten: AtomicBool::new(false),
            ended: broadcast::Sender::new(ENDED_MAX),
        }
    }

    /// Counts calls as load; nothing that is saved. All else is changed by the actor.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Registry)) {
        change(&mut self.write());
    }

    /// Takes what was saved before a restart.
    pub(crate) fn restore(&self, saved: Vec<Entry>) {
        let now = self.now();
        let mut registry = self.write();
        saved
            .into_iter()
            .for_each(|entry| registry.restore(entry, now));
    }

    /// The state, to change. Only the actor does, once it runs.
    fn write(&self) -> RwLockWriteGuard<'_, Registry> {
        self.registry
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, to read. Never held across an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Registry> {
        // The one writer leaves the state whole even when it panics: the core changes it step by step.
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            unix: self.clock.unix(),
            mono: self.clock.now().saturating_duration_since(self.started),
        }
    }
}

/// The way to the actor.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) mpsc::Sender<Command>);

// === impl Handle ===

impl Handle {
    /// Has something decided and waits until it is written.
    pub(crate) async fn ask(&self, event: Event) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        let command = Command {
            event,
            origin: audit::Origin::current(),
            answer: Some(answer),
        };
        self.0.send(command).await.map_err(|_| Failure::Closing)?;
        outcome.await.unwrap_or(Err(Failure::Closing))
    }

    /// Has something decided. Waits while the queue is full.
    pub(crate) async fn say(&self, event: Event) {
        // Only a registry that is closing does not listen.
        drop(
            self.0
                .send(Command {
                    event,
                    origin: audit::Origin::current(),
                    answer: None,
                })
                .await,
        );
    }
}

/// The task.
pub(crate) struct Actor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) teller: Teller,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) batches: mpsc::Sender<Batch>,
    pub(crate) denials: Denials,
}

/// The rows of a batch and those who wait for them.
#[derive(Default)]
pub(crate) struct Batch {
    rows: Vec<Row>,
    answers: Vec<(oneshot::Sender<Outcome>, RegisteredInstance)>,
}

enum Row {
    Save(Box<Entry>),
    Forget(InstanceId),
    Audit(Denial),
}

/// A departure or a refusal for the audit log.
#[derive(Clone)]
struct Denial {
    at_us: i64,
    origin: audit::Origin,
    actor: String,
    action: &'static str,
    target: String,
    outcome: audit::Outcome,
    detail: String,
}

// === impl Actor ===

impl Actor {
    /// Ends when the last handle is gone.
    pub(crate) async fn run(mut self) {
        let mut commands = Vec::with_capacity(BATCH_MAX);
        while self.commands.recv_many(&mut commands, BATCH_MAX).await > 0 {
            let mut batch = Batch::default();
            for command in commands.drain(..) {
                self.decide(command, &mut batch);
            }
            if batch.is_empty() {
                continue;
            }
            // The writer ends after this task does.
            if self.batches.send(batch).await.is_err() {
                return;
            }
        }
    }

    fn decide(&mut self, command: Command, batch: &mut Batch) {
        let subject = Subject::of(&command.event, &command.origin);
        let now = self.shared.now();
        let is_tick = matches!(command.event, Event::Tick);
        if let Event::Transition(transition) = &command.event
            && !transition.to.has_process()
            && let Some(instance) = &transition.instance
        {
            self.ended(instance);
        }
        let (outcome, entry) = {
            let mut registry = self.shared.write();
            let outcome = registry.apply(command.event, now);
            let wanted = subject.as_ref().filter(|_| command.answer.is_some());
            let entry = wanted
                .and_then(|s| registry.get(&s.instance))
                .map(Entry::public);
            (outcome, entry)
        };
        match outcome {
            Ok(actions) => {
                if is_tick {
                    self.note_expired(&actions);
                }
                self.carry_out(actions, batch);
                if let Some(subject) = &subject {
                    self.note(subject, batch);
                }
                if let (Some(answer), Some(entry)) = (command.answer, entry) {
                    batch.answers.push((answer, entry));
                }
            }
            Err(refusal) => {
                self.shared.refusals.fetch_add(1, Relaxed);
                tracing::info!(%refusal, "a request was refused");
                if let Some(subject) = subject {
                    self.note_denial(subject, &refusal, batch);
                }
                if let Some(answer) = command.answer {
                    // Who asked may have gone away meanwhile.
                    drop(answer.send(Err(refusal.into())));
                }
            }
        }
    }

    /// Those who wait for an answer of it need not wait for their deadline.
    fn ended(&self, instance: &InstanceId) {
        // Nobody may be waiting.
        drop(self.shared.ended.send(instance.clone()));
    }

    fn note_expired(&self, actions: &[Action]) {
        for action in actions {
            if let Action::Tell(change) = action
                && change.to == Presence::Gone
            {
                self.ended(&change.instance);
            }
        }
    }

    fn carry_out(&self, actions: Vec<Action>, batch: &mut Batch) {
        for action in actions {
            match action {
                Action::Save(entry) => batch.rows.push(Row::Save(entry)),
                Action::Forget(id) => batch.rows.push(Row::Forget(id)),
                Action::Announce(service) => self.teller.announce(service),
                Action::Tell(change) => self.teller.tell(*change),
            }
        }
    }

    /// Departures go into the audit log; registrations are counted.
    fn note(&self, subject: &Subject, batch: &mut Batch) {
        if subject.action == REGISTER {
            self.shared.registrations.fetch_add(1, Relaxed);
            return;
        }
        batch.rows.push(Row::Audit(Denial {
            at_us: self.shared.clock.unix_us(),
            origin: subject.origin.clone(),
            actor: subject.caller.name.clone(),
            action: subject.action,
            target: subject.target(),
            outcome: audit::Outcome::Done,
            detail: String::new(),
        }));
    }

    fn note_denial(&mut self, subject: Subject, refusal: &Refusal, batch: &mut Batch) {
        let at_us = self.shared.clock.unix_us();
        if !matches!(refusal, Refusal::NotYours { .. } | Refusal::Fenced { .. })
            || !self.denials.may_note(at_us)
        {
            return;
        }
        batch.rows.push(Row::Audit(Denial {
            at_us,
            target: subject.target(),
            origin: subject.origin,
            actor: subject.caller.name,
            action: subject.action,
            outcome: audit::Outcome::Denied,
            detail: refusal.to_string(),
        }));
    }
}

// === impl Batch ===

impl Batch {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.answers.is_empty()
    }
}

/// Writes batches in their order, as many as wait in one transaction, and then answers. Rows that could not be
/// written go first the next time: what was decided is not decided anew.
pub(crate) async fn write(store: Store, shared: Arc<Shared>, mut batches: mpsc::Receiver<Batch>) {
    let mut waiting = Vec::with_capacity(BATCHES_MAX);
    let mut owed = Vec::new();
    while batches.recv_many(&mut waiting, BATCHES_MAX).await > 0 {
        let mut batch = Batch {
            rows: owed,
            answers: Vec::new(),
        };
        for mut one in waiting.drain(..) {
            batch.rows.append(&mut one.rows);
            batch.answers.append(&mut one.answers);
        }
        owed = write_and_answer(&store, &shared, batch).await;
    }
}

/// Gives back the rows that are owed to the store.
async fn write_and_answer(store: &Store, shared: &Shared, batch: Batch) -> Vec<Row> {
    let Batch { rows, answers } = batch;
    let rows = Arc::new(rows);
    let written = if rows.is_empty() {
        Ok(())
    } else {
        let rows = Arc::clone(&rows);
        store
            .write(move |tx| rows.iter().try_for_each(|row| row.write(tx)))
            .await
    };
    failpoint("registry/recorded");
    let owed = match &written {
        Ok(()) => Vec::new(),
        Err(error) => {
            tracing::error!(%error, "changes of the registry were not written; they are tried again");
            owed(&rows, &shared.read())
        }
    };
    shared.unwritten.store(written.is_err(), Relaxed);
    let failed = written.err().map(Arc::new);
    for (answer, entry) in answers {
        let outcome = failed
            .clone()
            .map_or(Ok(entry), |error| Err(Failure::Store(error)));
        // Who asked may have gone away meanwhile.
        drop(answer.send(outcome));
    }
    owed
}

/// What is still to be written of rows that could not be: each entry once, as it is now.
fn owed(rows: &[Row], registry: &Registry) -> Vec<Row> {
    let mut seen = BTreeSet::new();
    let mut owed = Vec::new();
    for row in rows {
        let instance = match row {
            Row::Save(entry) => &entry.registration.instance,
            Row::Forget(instance) => instance,
            Row::Audit(denial) => {
                owed.push(Row::Audit(denial.clone()));
                continue;
            }
        };
        if seen.insert(instance) {
            owed.push(match registry.get(instance) {
                Some(entry) => Row::Save(Box::new(entry.clone())),
                None => Row::Forget(instance.clone()),
            });
        }
    }
    // Entries are bounded by the registry's limits; what is for the audit log is not.
    let most = OWED_MAX.max(seen.len());
    owed.truncate(most);
    owed
}

// === impl Row ===

impl Row {
    fn write(&self, tx: &alicia_store::Transaction<'_>) -> Result<(), StoreError> {
        match self {
            Self::Save(entry) => store::save(tx, entry),
            Self::Forget(id) => store::forget(tx, id.as_str()),
            Self::Audit(denial) => audit::append_from(
                tx,
                &audit::Entry {
                    time_unix_us: denial.at_us,
                    actor: &denial.actor,
                    action: &format!("registry.{}", denial.action),
                    target: &denial.target,
                    outcome: denial.outcome,
                    detail: &json!({ "reason": denial.detail }),
                },
                &denial.origin,
            )
            .map(drop),
        }
    }
}

const REGISTER: &str = "register";
const LEAVE: &str = "leave";

/// Whom a request is about, and who asks.
struct Subject {
    action: &'static str,
    instance: InstanceId,
    service: String,
    caller: Caller,
    origin: audit::Origin,
}

// === impl Subject ===

impl Subject {
    fn of(event: &Event, origin: &audit::Origin) -> Option<Self> {
        let (action, instance, service, caller) = match event {
            Event::Register(said, caller) => (REGISTER, &said.instance, &said.service, caller),
            Event::Leave(said, caller) => (LEAVE, &said.instance, &said.service, caller),
            _ => return None,
        };
        Some(Self {
            action,
            instance: instance.clone(),
            service: service.to_string(),
            caller: caller.clone(),
            origin: origin.clone(),
        })
    }

    fn target(&self) -> String {
        format!("instance:{}/{}", self.service, self.instance)
    }
}

/// How many refusals were noted in this minute.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    minute: i64,
    noted: u32,
}

// === impl Denials ===

impl Denials {
    fn may_note(&mut self, now_us: i64) -> bool {
        let minute = now_us / 60_000_000;
        if minute != self.minute {
            *self = Self { minute, noted: 0 };
        }
        self.noted += 1;
        self.noted <= DENIALS_PER_MINUTE_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::Limits;

    /// A disk that was full for a while: what is written later is what is so then, each entry once.
    #[test]
    fn what_is_owed_to_the_store_is_written_as_it_is_now() {
        let mut registry = Registry::new(Limits::default());
        let now = |s: u64| Now {
            unix: 0.0,
            mono: Duration::from_secs(s),
        };
        let id = InstanceId::from_parts(1, 0);
        let said = serde_json::from_value(json!({ "service": "api", "instance": id }));
        let caller = Caller {
            name: "api".to_owned(),
            rank: crate::core::Rank::Service,
        };
        let register = Event::Register(Box::new(said.expect("a registration")), caller);
        let saved = |actions: Vec<Action>| {
            actions.into_iter().find_map(|action| match action {
                Action::Save(entry) => Some(Row::Save(entry)),
                _ => None,
            })
        };
        let first = saved(registry.apply(register, now(0)).expect("accepted"));
        (1..40).for_each(|s| drop(registry.apply(Event::Tick, now(s)).expect("time")));
        let other = InstanceId::from_parts(2, 0);
        let rows = [
            first.expect("a row"),
            Row::Forget(other.clone()),
            Row::Forget(id.clone()),
        ];
        let owed = owed(&rows, &registry);
        let [Row::Save(entry), Row::Forget(gone)] = &owed[..] else {
            unreachable!("one row for each entry");
        };
        assert_eq!((entry.presence, gone), (Presence::Suspect, &other));
    }
}
