//! Backup and restore, with real files and under load.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it saw"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

use alicia_store::{Connection, Error, Migration, Options, Store};

const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "entries",
    sql: "CREATE TABLE entry (writer INTEGER NOT NULL, n INTEGER NOT NULL, body TEXT NOT NULL,
              PRIMARY KEY (writer, n)) STRICT",
}];

const WRITERS: usize = 4;

const RUBBISH: [u8; 8192] = [7; 8192];

fn open(path: &Path) -> Result<Store, Error> {
    Store::open(Options::new(path, MIGRATIONS, Arc::new(|| 0)))
}

fn put(store: &Store, writer: usize, n: i64) {
    let sql = "INSERT INTO entry (writer, n, body) VALUES (?1, ?2, ?3)";
    let row = (writer as i64, n, "x".repeat(200));
    let written = store.write_blocking(move |tx| Ok::<_, Error>(tx.execute(sql, row)?));
    assert_eq!(written.unwrap(), 1);
}

/// Per writer, how many rows; fails where one is missing in between.
fn counts(connection: &Connection) -> Result<Vec<i64>, Error> {
    let sql = "SELECT count(*), coalesce(max(n) + 1, 0) FROM entry WHERE writer = ?1";
    (0..WRITERS as i64)
        .map(|writer| {
            let (count, next): (i64, i64) =
                connection.query_row(sql, [writer], |row| Ok((row.get(0)?, row.get(1)?)))?;
            assert_eq!(count, next, "writer {writer} has a gap");
            Ok(count)
        })
        .collect()
}

/// Writes from several threads until told to stop, and says what was acknowledged.
struct Load {
    acknowledged: Arc<[AtomicI64; WRITERS]>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn on(store: &Store) -> Self {
        let acknowledged = Arc::new([const { AtomicI64::new(0) }; WRITERS]);
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..WRITERS)
            .map(|writer| {
                let (store, acknowledged, stop) =
                    (store.clone(), Arc::clone(&acknowledged), Arc::clone(&stop));
                std::thread::spawn(move || {
                    for n in 0.. {
                        if stop.load(SeqCst) {
                            return;
                        }
                        put(&store, writer, n);
                        acknowledged[writer].store(n + 1, SeqCst);
                    }
                })
            })
            .collect();
        Self {
            acknowledged,
            stop,
            threads,
        }
    }

    fn acknowledged(&self) -> Vec<i64> {
        self.acknowledged
            .iter()
            .map(|count| count.load(SeqCst))
            .collect()
    }

    fn stop(self) -> Vec<i64> {
        self.stop.store(true, SeqCst);
        let acknowledged = Arc::clone(&self.acknowledged);
        for thread in self.threads {
            thread.join().unwrap();
        }
        acknowledged
            .iter()
            .map(|count| count.load(SeqCst))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_holds_all_that_was_acknowledged_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (
        directory.path().join("live.db"),
        directory.path().join("copy.db"),
    );
    let store = open(&path).unwrap();
    let load = Load::on(&store);
    let mut at_least = Vec::new();
    for _ in 0..5 {
        at_least = load.acknowledged();
        store.backup(&copy).await.unwrap();
    }
    let at_end = load.stop();
    assert_eq!(
        fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let error = Store::restore(&copy, &path).expect_err("the store is open");
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    assert_eq!(store.read(counts).await.unwrap(), at_end);
    store.close().await;
    Store::restore(&copy, &path)
        .expect("a closed store may be restored, even while a handle lives");
    drop(store);

    let restored = open(&path).unwrap();
    let found = restored.read(counts).await.unwrap();
    for writer in 0..WRITERS {
        assert!(
            (at_least[writer]..=at_end[writer]).contains(&found[writer]),
            "{found:?}"
        );
    }
    restored.check().await.unwrap();
    let next = found[0];
    tokio::task::spawn_blocking(move || put(&restored, 0, next))
        .await
        .unwrap();

    let old = open(&directory.path().join("live.db.before-restore.backup")).unwrap();
    assert_eq!(
        old.read(counts).await.unwrap(),
        at_end,
        "what was replaced is kept"
    );
    let left_over: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("partial") || name.contains("restored"))
        .collect();
    assert_eq!(left_over, [""; 0]);
}

#[tokio::test]
async fn a_backup_never_overwrites_an_open_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("one.db")).unwrap();
    let other = open(&directory.path().join("two.db")).unwrap();
    for target in [store.path(), other.path()] {
        let error = store.backup(target).await.expect_err("it is open");
        assert!(matches!(error, Error::InUse { .. }), "{error}");
    }
    let error = store
        .backup(directory.path().join("no/where.db"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no/where.db"), "{error}");
}

#[test]
fn a_bad_backup_is_refused_and_the_database_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("live.db");
    put(&open(&path).unwrap(), 0, 0);
    let before = fs::read(&path).unwrap();
    let bad = directory.path().join("bad.db");

    Store::restore(&bad, &path).expect_err("there is no such file");
    fs::write(&bad, RUBBISH).unwrap();
    let error = Store::restore(&bad, &path).expect_err("rubbish");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    fs::write(&bad, b"").unwrap();
    let error = Store::restore(&bad, &path).expect_err("empty");
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    fs::remove_file(&bad).unwrap();
    Connection::open(&bad)
        .unwrap()
        .execute_batch("CREATE TABLE theirs (n)")
        .unwrap();
    let error = Store::restore(&bad, &path).expect_err("another program's");
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    assert!(fs::read(&path).unwrap() == before, "left as it was");
}

#[tokio::test]
async fn a_damaged_or_missing_database_can_be_restored() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (
        directory.path().join("live.db"),
        directory.path().join("copy.db"),
    );
    let store = open(&path).unwrap();
    let writing = store.clone();
    tokio::task::spawn_blocking(move || put(&writing, 0, 0))
        .await
        .unwrap();
    store.backup(&copy).await.unwrap();
    let log = fs::read(directory.path().join("live.db-wal")).unwrap();
    store.close().await;
    drop(store);

    fs::write(&path, RUBBISH).unwrap();
    fs::write(directory.path().join("live.db-wal"), RUBBISH).unwrap();
    Store::restore(&copy, &path).unwrap();
    assert_eq!(
        open(&path).unwrap().read(counts).await.unwrap(),
        [1, 0, 0, 0]
    );
    let aside = directory.path().join("live.db.before-restore.backup");
    assert!(
        fs::read(&aside).unwrap() == RUBBISH,
        "the damaged file is kept for study"
    );
    let aside_log = directory.path().join("live.db.before-restore.backup-wal");
    assert!(fs::read(&aside_log).unwrap() == RUBBISH, "and its log");

    fs::remove_file(&path).unwrap();
    fs::write(directory.path().join("live.db-wal"), &log).unwrap();
    Store::restore(&copy, &path).unwrap();
    assert_eq!(
        open(&path).unwrap().read(counts).await.unwrap(),
        [1, 0, 0, 0]
    );
}
