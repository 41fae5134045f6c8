//! The host's own rows: what is done to keys, secrets, the file and the host, and what is refused anywhere over REST.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alicia_module::{ApiError, Clock};
use alicia_store::audit::{self, Entry, Origin, Outcome};
use alicia_store::{Error, Store};
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Refusals that wait to be written.
const QUEUE_MAX: usize = 256;

/// Refusals of the same kind within this time are one row and its count.
const WINDOW: Duration = Duration::from_secs(60);

/// Kinds that are told apart at the same time; what comes on top is counted as one kind.
const KINDS_MAX: usize = 500;

/// The actor of an attempt by somebody unknown.
pub(crate) const STRANGER: &str = "stranger";

/// Something that was asked of the host.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) outcome: Outcome,
    pub(crate) detail: Value,
}

/// A refusal. Those with the same kind are counted together.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) kind: Kind,
    pub(crate) origin: Origin,
    pub(crate) status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) code: String,
}

/// Writes rows. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    store: Store,
    clock: Clock,
    refusals: mpsc::Sender<Refused>,
    lost: Arc<AtomicU64>,
    /// What was carried out without its row, and is to get it when the host ends.
    owed: Arc<Mutex<Option<(Act, Origin)>>>,
}

impl Recorder {
    /// A recorder, and the task that writes refusals.
    pub(crate) fn new(store: Store, clock: Clock) -> (Self, impl Future<Output = ()> + Send) {
        let (refusals, queue) = mpsc::channel(QUEUE_MAX);
        let recorder = Self {
            store: store.clone(),
            clock: clock.clone(),
            refusals,
            lost: Arc::default(),
            owed: Arc::default(),
        };
        let counter = Counter {
            store,
            clock,
            kinds: HashMap::new(),
        };
        (recorder, counter.run(queue))
    }

    /// Refusals that found no room in the queue.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes a row; on return it is on disk. What is to be done comes after, and not at all when this fails.
    pub(crate) async fn record(&self, act: Act) -> Result<(), ApiError> {
        let time_unix_us = self.clock.unix_us();
        let written: Result<i64, Error> = self
            .store
            .write(move |tx| append(tx, time_unix_us, &act))
            .await;
        written.map(drop).map_err(|error| {
            tracing::error!(error = alicia_module::api::error::chain(&error), "an audit row was not written");
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "host.audit_unavailable",
                "The audit log cannot be written",
                "nothing was done, because it could not be written down; see whether the disk is full, and host.log",
            )
        })
    }

    /// As [`Self::record`], for what is carried out in any case: tries twice, as a fault may pass. When that fails too,
    /// the row is owed: [`Self::settle`].
    pub(crate) async fn record_or_owe(&self, act: Act) -> Result<(), ApiError> {
        if self.record(act.clone()).await.is_ok() {
            return Ok(());
        }
        let tried = self.record(act.clone()).await;
        if tried.is_err() {
            let asked_unix_us = self.clock.unix_us();
            let mut owed = act;
            owed.detail["asked_unix_us"] = asked_unix_us.into();
            *self.owed() = Some((owed, Origin::current()));
        }
        tried
    }

    /// Writes the row that is owed, if it can be written by now: the services have ended, and left room.
    pub(crate) async fn settle(&self) {
        let Some((act, origin)) = self.owed().take() else {
            return;
        };
        if origin.scope(self.record(act)).await.is_ok() {
            tracing::info!("the row that was missing is in the audit log");
        }
    }

    fn owed(&self) -> MutexGuard<'_, Option<(Act, Origin)>> {
        // It is put there and taken as a whole.
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a refusal. Never waits.
    pub(crate) fn refused(&self, refused: Refused) {
        if self.refusals.try_send(refused).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn append(tx: &alicia_store::Transaction<'_>, time_unix_us: i64, act: &Act) -> Result<i64, Error> {
    let entry = Entry {
        time_unix_us,
        actor: &act.actor,
        action: &act.action,
        target: &act.target,
        outcome: act.outcome,
        detail: &act.detail,
    };
    audit::append(tx, &entry)
}

/// Counts refusals by kind: the first of a window is written at once, the rest as a number at its end.
struct Counter {
    store: Store,
    clock: Clock,
    kinds: HashMap<Kind, Window>,
}

struct Window {
    since: Instant,
    more: u64,
    last: Refused,
}

impl Counter {
    async fn run(mut self, mut queue: mpsc::Receiver<Refused>) {
        let mut tick = tokio::time::interval(WINDOW / 4);
        loop {
            tokio::select! {
                refused = queue.recv() => match refused {
                    Some(refused) => self.take(refused).await,
                    None => break,
                },
                _ = tick.tick() => self.end_windows(WINDOW).await,
            }
        }
        self.end_windows(Duration::ZERO).await;
    }

    async fn take(&mut self, mut refused: Refused) {
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&refused.kind) {
            refused.kind = Kind {
                actor: "many".to_owned(),
                action: "rest".to_owned(),
                target: "many".to_owned(),
                code: "many".to_owned(),
            };
        }
        match self.kinds.entry(refused.kind.clone()) {
            Place::Occupied(mut window) => {
                window.get_mut().more += 1;
                window.get_mut().last = refused;
            }
            Place::Vacant(place) => {
                let since = self.clock.now();
                place.insert(Window {
                    since,
                    more: 0,
                    last: refused.clone(),
                });
                self.write(refused, 0).await;
            }
        }
    }

    async fn end_windows(&mut self, age: Duration) {
        let now = self.clock.now();
        let over = self
            .kinds
            .extract_if(|_, window| now.saturating_duration_since(window.since) >= age);
        let over: Vec<Window> = over
            .map(|(_, window)| window)
            .filter(|window| window.more > 0)
            .collect();
        for Window { more, last, .. } in over {
            self.write(last, more).await;
        }
    }

    async fn write(&self, refused: Refused, repeated: u64) {
        let Refused {
            kind,
            origin,
            status,
        } = refused;
        let is_denied = matches!(status, 401 | 403 | 421);
        let mut detail = json!({ "code": kind.code, "status": status });
        if repeated > 0 {
            detail["repeated"] = repeated.into();
        }
        let act = Act {
            actor: kind.actor,
            action: kind.action,
            target: kind.target,
            outcome: if is_denied {
                Outcome::Denied
            } else {
                Outcome::Failed
            },
            detail,
        };
        let time_unix_us = self.clock.unix_us();
        let write = self.store.write(move |tx| append(tx, time_unix_us, &act));
        if let Err(error) = origin.scope(write).await {
            tracing::error!(%error, "a refusal is not in the audit log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_store::Options;
    use alicia_store::audit::{Cursor, list};

    fn refused(actor: &str) -> Refused {
        Refused {
            kind: Kind {
                actor: actor.to_owned(),
                action: "rest.post".to_owned(),
                target: "/api/keys".to_owned(),
                code: "host.forbidden".to_owned(),
            },
            origin: Origin::new("rest 127.0.0.1:1", "00ff"),
            status: 403,
        }
    }

    #[tokio::test]
    async fn refusals_are_counted_and_none_is_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Clock::system();
        let options = Options::new(directory.path().join("host.db"), &[], clock.for_store());
        let store = Store::open(options).expect("a store");
        let (recorder, counter) = Recorder::new(store.clone(), clock);
        for _ in 0..200 {
            recorder.refused(refused("key/a"));
        }
        for number in 0..50 {
            recorder.refused(refused(&format!("key/b{number}")));
        }
        for _ in 0..10 {
            recorder.refused(refused("key/c"));
        }
        // Four found no room.
        assert_eq!(recorder.lost(), 4);
        drop(recorder);
        counter.await;
        let rows = store
            .read(|connection| list(connection, Cursor::After(0), 1_000))
            .await
            .expect("rows");
        let count = |actor: &str| -> u64 {
            let rows = rows.iter().filter(|row| row.actor == actor);
            rows.map(|row| row.detail["repeated"].as_u64().unwrap_or(1))
                .sum()
        };
        assert_eq!(
            (count("key/a"), count("key/b7"), count("key/c")),
            (200, 1, 6)
        );
        assert_eq!(rows.len(), 2 + 50 + 2);
        assert!(
            rows.iter()
                .all(|row| row.outcome == Outcome::Denied && row.trace == "00ff")
        );
    }

    /// On a store of its own, in a directory that goes with the test.
    fn recorder() -> (tempfile::TempDir, Store, Recorder) {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Clock::system();
        let options = Options::new(directory.path().join("host.db"), &[], clock.for_store());
        let store = Store::open(options).expect("a store");
        let (recorder, _) = Recorder::new(store.clone(), clock);
        (directory, store, recorder)
    }

    #[tokio::test]
    async fn what_cannot_be_written_down_is_refused() {
        let (_directory, store, recorder) = recorder();
        let act = Act {
            actor: "key/admin".to_owned(),
            action: "secret.set".to_owned(),
            target: "secret:db".to_owned(),
            outcome: Outcome::Done,
            detail: json!({}),
        };
        recorder.record(act.clone()).await.expect("it is written");
        store.close().await;
        let refusal = recorder.record(act).await.expect_err("the store is closed");
        assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refusal.problem().code, "host.audit_unavailable");
    }

    fn act() -> Act {
        Act {
            actor: "key/admin".to_owned(),
            action: "rest.post".to_owned(),
            target: "/api/host/stop".to_owned(),
            outcome: Outcome::Done,
            detail: json!({ "operation": "/api/host/stop" }),
        }
    }

    async fn rename(store: &Store, sql: &'static str) {
        let renamed = store.write(move |tx| Ok::<_, Error>(tx.execute_batch(sql)?));
        renamed.await.expect("it is renamed");
    }

    const AWAY: &str = "ALTER TABLE audit RENAME TO away";
    const BACK: &str = "ALTER TABLE away RENAME TO audit";

    async fn details(store: &Store) -> Vec<Value> {
        let rows = store
            .read(|connection| list(connection, Cursor::After(0), 1_000))
            .await;
        let rows = rows.expect("rows").into_iter();
        rows.map(|row| {
            assert_eq!(
                (row.origin.as_str(), row.trace.as_str()),
                ("rest 127.0.0.1:1", "00ff")
            );
            row.detail
        })
        .collect()
    }

    #[tokio::test]
    async fn a_fault_that_passes_takes_no_row_away() {
        let (_directory, store, recorder) = recorder();
        rename(&store, AWAY).await;
        // The first try fails, and what follows it in the queue mends its cause before the second.
        let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
        let held = store.write(move |_| {
            released.recv().expect("the test releases");
            Ok::<_, Error>(())
        });
        let origin = Origin::new("rest 127.0.0.1:1", "00ff");
        let recording = origin.scope(recorder.record_or_owe(act()));
        let mending = rename(&store, BACK);
        let releasing = async { release.send(()).expect("the store waits") };
        let (held, recorded, (), ()) = tokio::join!(held, recording, mending, releasing);
        held.expect("it is released");
        recorded.expect("the second try succeeds");
        assert!(store.stats().jobs_failed > 0, "the first did not");
        recorder.settle().await;
        assert_eq!(details(&store).await, [act().detail], "once");
    }

    #[tokio::test]
    async fn the_row_that_is_owed_is_written_at_the_end() {
        let (_directory, store, recorder) = recorder();
        rename(&store, AWAY).await;
        let origin = Origin::new("rest 127.0.0.1:1", "00ff");
        let refusal = origin.scope(recorder.record_or_owe(act())).await;
        let refusal = refusal.expect_err("there is no table");
        assert_eq!(refusal.problem().code, "host.audit_unavailable");
        rename(&store, BACK).await;
        recorder.settle().await;
        recorder.settle().await;
        let details = details(&store).await;
        assert_eq!(details.len(), 1, "once: {details:?}");
        assert!(details[0]["asked_unix_us"].is_i64(), "{details:?}");
        assert_eq!(details[0]["operation"], "/api/host/stop");
    }
}
