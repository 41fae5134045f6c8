//! Group commit as callers see it: what is kept, what is undone, who is told what.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use alicia_store::rusqlite::ErrorCode;
use alicia_store::{
    BATCH_JOBS_MAX, Connection, Error, Migration, Options, QUEUE_JOBS_MAX, Store, Transaction,
};

const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "numbers",
    sql: "CREATE TABLE number (n INTEGER PRIMARY KEY) STRICT;
          CREATE TABLE pair (
              n INTEGER PRIMARY KEY REFERENCES number (n) DEFERRABLE INITIALLY DEFERRED
          ) STRICT;",
}];

fn open(directory: &tempfile::TempDir) -> Store {
    let options = Options::new(directory.path().join("m.db"), MIGRATIONS, Arc::new(|| 7));
    Store::open(options).expect("the store opens")
}

fn insert(tx: &Transaction<'_>, n: i64) -> Result<i64, Error> {
    tx.execute("INSERT INTO number (n) VALUES (?1)", [n])?;
    Ok(n)
}

fn numbers(connection: &Connection) -> Result<Vec<i64>, Error> {
    let mut statement = connection.prepare("SELECT n FROM number ORDER BY n")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Holds the writer inside a job, so that what comes next gathers into one batch.
struct Gate {
    entered: Receiver<()>,
    release: SyncSender<()>,
}

impl Gate {
    fn shut(store: &Store) -> Self {
        let (enter, entered) = sync_channel(1);
        let (release, released) = sync_channel::<()>(1);
        let pending = store.try_write(move |_| -> Result<(), Error> {
            enter.send(()).expect("the test waits");
            released.recv().expect("the test releases");
            Ok(())
        });
        drop(pending.expect("the queue has room"));
        Self { entered, release }
    }

    fn wait_until_held(&self) {
        self.entered.recv().expect("the job runs");
    }

    fn open(self) {
        self.release.send(()).expect("the job waits");
    }
}

#[tokio::test]
async fn queued_jobs_share_one_commit_and_a_failing_one_is_undone_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let gate = Gate::shut(&store);
    gate.wait_until_held();
    let good: Vec<_> = (1..=10)
        .map(|n| store.try_write(move |tx| insert(tx, n)).unwrap())
        .collect();
    let twice = store.try_write(|tx| {
        insert(tx, 100)?;
        insert(tx, 1)
    });
    let refused = store.try_write(|tx| {
        insert(tx, 200)?;
        Err::<(), _>(Error::TooLarge {
            what: "a test",
            bytes: 2,
            limit_bytes: 1,
        })
    });
    let panicking = store.try_write(|tx| -> Result<(), Error> {
        insert(tx, 300)?;
        panic!("on purpose {}", 300)
    });
    let last = store.try_write(|tx| insert(tx, 11)).unwrap();
    gate.open();

    for (n, pending) in (1..).zip(good) {
        assert_eq!(pending.await.unwrap(), n);
    }
    let constraint = twice.unwrap().await.unwrap_err();
    assert_eq!(
        constraint.sqlite_code(),
        Some(ErrorCode::ConstraintViolation),
        "{constraint}"
    );
    assert!(matches!(
        refused.unwrap().await,
        Err(Error::TooLarge { .. })
    ));
    let panicked = panicking.unwrap().await.unwrap_err().to_string();
    assert!(panicked.contains("on purpose 300"), "{panicked}");
    assert_eq!(last.await.unwrap(), 11);

    assert_eq!(
        store.read(numbers).await.unwrap(),
        (1..=11).collect::<Vec<_>>()
    );
    let stats = store.stats();
    assert_eq!(
        (stats.batches, stats.jobs),
        (2, 15),
        "the gate's batch and one for all the others"
    );
    assert_eq!(
        (stats.jobs_failed, stats.jobs_panicked, stats.batches_failed),
        (2, 1, 0)
    );
}

#[tokio::test]
async fn a_batch_that_cannot_commit_acknowledges_none_of_its_jobs() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let gate = Gate::shut(&store);
    gate.wait_until_held();
    let good = store.try_write(|tx| insert(tx, 1)).unwrap();
    // The key points to nothing, which SQLite notices at COMMIT only.
    let dangling = store
        .try_write(|tx| Ok::<_, Error>(tx.execute("INSERT INTO pair (n) VALUES (99)", [])?))
        .unwrap();
    gate.open();

    for error in [good.await.unwrap_err(), dangling.await.unwrap_err()] {
        assert!(matches!(error, Error::NotCommitted { .. }), "{error}");
        assert_eq!(error.sqlite_code(), Some(ErrorCode::ConstraintViolation));
    }
    assert_eq!(store.read(numbers).await.unwrap(), Vec::<i64>::new());
    assert_eq!(
        store.write(|tx| insert(tx, 1)).await.unwrap(),
        1,
        "the store goes on"
    );
}

#[tokio::test]
async fn a_job_cannot_end_the_transaction_of_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    for sql in ["COMMIT", "ROLLBACK", "BEGIN", "COMMIT; BEGIN"] {
        let gate = Gate::shut(&store);
        gate.wait_until_held();
        let good = store.try_write(|tx| Ok::<_, Error>(tx.execute("DELETE FROM number", [])?));
        let ending = store.try_write(move |tx| {
            insert(tx, 1)?;
            Ok::<_, Error>(tx.execute_batch(sql)?)
        });
        gate.open();
        good.unwrap().await.expect("its neighbour is kept");
        let error = ending.unwrap().await.expect_err(sql);
        assert_eq!(
            error.sqlite_code(),
            Some(ErrorCode::AuthorizationForStatementDenied),
            "{sql}"
        );
        assert_eq!(
            store.read(numbers).await.unwrap(),
            Vec::<i64>::new(),
            "{sql}"
        );
    }
    assert_eq!(store.stats().batches_failed, 0);
}

#[tokio::test]
async fn a_full_queue_refuses_try_write_and_holds_back_write() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let gate = Gate::shut(&store);
    gate.wait_until_held();
    let queued: Vec<_> = (0..QUEUE_JOBS_MAX as i64)
        .map(|n| store.try_write(move |tx| insert(tx, n)).unwrap())
        .collect();
    assert_eq!(store.stats().queue_depth, QUEUE_JOBS_MAX);
    let refused = store.try_write(|tx| insert(tx, -1)).map(drop);
    assert!(matches!(
        refused,
        Err(Error::QueueFull {
            limit: QUEUE_JOBS_MAX
        })
    ));

    let mut held_back = Box::pin(store.write(|tx| insert(tx, -2)));
    let waits = futures_poll(held_back.as_mut()).await;
    assert!(waits, "write waits while the queue is full");
    gate.open();
    assert_eq!(held_back.await.unwrap(), -2);
    for (n, pending) in (0..).zip(queued) {
        assert_eq!(pending.await.unwrap(), n);
    }
    let stats = store.stats();
    let full = (QUEUE_JOBS_MAX / BATCH_JOBS_MAX) as u64;
    assert!(
        (full + 1..=full + 3).contains(&stats.batches),
        "{} batches",
        stats.batches
    );
}

/// Polls once; `true` if it is not ready.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

#[tokio::test]
async fn a_dropped_future_does_not_undo_a_queued_write() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let gate = Gate::shut(&store);
    gate.wait_until_held();
    drop(store.try_write(|tx| insert(tx, 5)).unwrap());
    gate.open();
    // In order behind it: once this is acknowledged, the dropped one has run.
    store.write(|tx| insert(tx, 6)).await.unwrap();
    assert_eq!(store.read(numbers).await.unwrap(), [5, 6]);
}

#[tokio::test]
async fn reads_cannot_write_and_survive_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let written = store
        .read(|connection| Ok::<_, Error>(connection.execute("INSERT INTO number VALUES (1)", [])?))
        .await;
    assert_eq!(
        written.unwrap_err().sqlite_code(),
        Some(ErrorCode::ReadOnly)
    );
    for _ in 0..2 * alicia_store::READERS {
        let read = store
            .read(|_| -> Result<(), Error> { panic!("on purpose") })
            .await;
        assert!(matches!(read, Err(Error::Panicked { .. })));
    }
    assert_eq!(store.read(numbers).await.unwrap(), Vec::<i64>::new());
}

#[tokio::test]
async fn a_read_sees_one_state_while_writes_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    store.write(|tx| insert(tx, 1)).await.unwrap();
    let writer = store.clone();
    let (before, after) = store
        .read(move |connection| -> Result<_, Error> {
            let before = numbers(connection)?;
            writer.try_write(|tx| insert(tx, 2))?.wait()?;
            Ok((before, numbers(connection)?))
        })
        .await
        .unwrap();
    assert_eq!((before, after), (vec![1], vec![1]));
    assert_eq!(store.read(numbers).await.unwrap(), [1, 2]);
}

#[tokio::test]
async fn close_runs_what_is_queued_and_then_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let gate = Gate::shut(&store);
    gate.wait_until_held();
    let queued: Vec<_> = (0..600)
        .map(|n| store.try_write(move |tx| insert(tx, n)).unwrap())
        .collect();
    gate.open();
    store.close().await;
    store.close().await;
    for pending in queued {
        pending.await.expect("queued before the close");
    }
    assert!(matches!(
        store.write(|tx| insert(tx, -1)).await,
        Err(Error::Closed)
    ));
    assert!(matches!(store.read(numbers).await, Err(Error::Closed)));
    assert!(matches!(
        store.backup(directory.path().join("b")).await,
        Err(Error::Closed)
    ));
    assert!(
        !directory.path().join("m.db-wal").exists(),
        "the log was folded in"
    );

    let again = open(&directory);
    assert_eq!(again.read(numbers).await.unwrap().len(), 600);
}

#[test]
fn callers_without_a_runtime_write_and_the_last_drop_closes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    assert_eq!(store.write_blocking(|tx| insert(tx, 1)).unwrap(), 1);
    let inner = store.clone();
    let nested = store.write_blocking(move |_| inner.write_blocking(|tx| insert(tx, 2)));
    assert!(matches!(nested, Err(Error::WithinJob)));
    drop(store);
    drop(open(&directory));
}

#[test]
fn a_job_may_hold_the_last_clone_of_its_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let inner = store.clone();
    let gate = Gate::shut(&store);
    gate.wait_until_held();
    let pending = store
        .try_write(move |tx| {
            let n = insert(tx, inner.stats().queue_limit as i64)?;
            drop(inner);
            Ok::<_, Error>(n)
        })
        .unwrap();
    // Dropped elsewhere: dropping waits for the gate, which is opened here.
    let dropping = std::thread::spawn(move || drop(store));
    gate.open();
    assert_eq!(pending.wait().unwrap(), QUEUE_JOBS_MAX as i64);
    dropping.join().unwrap();
}
