//! The write-ahead log stays short, and the connections have the settings that durability rests on.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it saw"
)]

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use alicia_store::{Connection, Error, Migration, Options, Store};

const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "blobs",
    sql: "CREATE TABLE blob (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT",
}];

/// As in writer.rs.
const TRUNCATE_WAL_BYTES: u64 = 16 * 1024 * 1024;

/// Enough for all that is due after a number of batches or of milliseconds.
const ATTEMPTS_MAX: u32 = 10_000;

fn options(directory: &tempfile::TempDir) -> Options {
    Options::new(directory.path().join("log.db"), MIGRATIONS, Arc::new(|| 0))
}

async fn put(store: &Store, bytes: i64) {
    let sql = "INSERT INTO blob (body) VALUES (randomblob(?1))";
    store
        .write(move |tx| Ok::<_, Error>(tx.execute(sql, [bytes])?))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_cut_once_no_reader_needs_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(options(&directory)).unwrap();
    let (begin, begun) = sync_channel(1);
    let (release, released) = sync_channel::<()>(1);
    put(&store, 1).await;
    let reader = store.clone();
    let reading = reader.read(move |connection| -> Result<i64, Error> {
        let count = |c: &Connection| c.query_row("SELECT count(*) FROM blob", [], |row| row.get(0));
        let before: i64 = count(connection)?;
        begin.send(()).expect("the test waits");
        released.recv().expect("the test releases");
        assert_eq!(before, count(connection)?);
        Ok(before)
    });
    let writing = async {
        tokio::task::block_in_place(|| begun.recv()).unwrap();
        while store.stats().wal_bytes < 2 * TRUNCATE_WAL_BYTES {
            put(&store, 1_000_000).await;
        }
        assert_eq!(
            store.stats().wal_truncations,
            0,
            "a reader still needs the log"
        );
        release.send(()).unwrap();
    };
    let (count, ()) = tokio::join!(reading, writing);
    assert_eq!(count.unwrap(), 1);
    let mut attempts = 0..ATTEMPTS_MAX;
    while store.stats().wal_truncations == 0 {
        attempts
            .next()
            .expect("the log is cut when the reader is gone");
        put(&store, 1).await;
    }
    assert!(
        store.stats().wal_bytes < TRUNCATE_WAL_BYTES,
        "{:?}",
        store.stats()
    );
}

#[tokio::test]
async fn the_checkpointer_folds_the_log_in_without_being_asked() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(options(&directory)).unwrap();
    assert_eq!(store.stats().checkpoints, 0, "an idle store does nothing");
    put(&store, 100_000).await;
    let mut attempts = 0..ATTEMPTS_MAX;
    while store.stats().checkpoints == 0 {
        attempts
            .next()
            .expect("a checkpoint runs soon after a write");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let main_bytes = std::fs::metadata(store.path()).unwrap().len();
    assert!(
        main_bytes > 100_000,
        "{main_bytes} bytes are in the database itself"
    );
}

#[tokio::test]
async fn every_connection_has_its_settings() {
    async fn check(options: Options, synchronous: i64) {
        let store = Store::open(options).unwrap();
        let common = [("foreign_keys", 1), ("trusted_schema", 0), ("mmap_size", 0)];
        let writer = [
            ("synchronous", synchronous),
            ("wal_autocheckpoint", 0),
            ("busy_timeout", 5000),
        ];
        for (name, expected) in common.into_iter().chain(writer) {
            let found = store.write(move |tx| setting(tx, name)).await.unwrap();
            assert_eq!(found, expected, "{name} of the writer");
        }
        for (name, expected) in common.into_iter().chain([("query_only", 1)]) {
            let found = store
                .read(move |connection| setting(connection, name))
                .await
                .unwrap();
            assert_eq!(found, expected, "{name} of a reader");
        }
        let mode = |c: &Connection| -> Result<String, Error> {
            Ok(c.pragma_query_value(None, "journal_mode", |row| row.get(0))?)
        };
        assert_eq!(store.read(mode).await.unwrap(), "wal");
    }
    const FULL: i64 = 2;
    const NORMAL: i64 = 1;
    let (state, telemetry) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    check(options(&state), FULL).await;
    check(options(&telemetry).telemetry(), NORMAL).await;
}

fn setting(connection: &Connection, name: &str) -> Result<i64, Error> {
    Ok(connection.pragma_query_value(None, name, |row| row.get(0))?)
}
