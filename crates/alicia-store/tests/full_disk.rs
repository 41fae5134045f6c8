//! A full disk: nothing is acknowledged falsely, and the store goes on when there is room.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it saw"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use alicia_store::{Error, Migration, Options, Store, Transaction};

const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "blobs",
    sql: "CREATE TABLE blob (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT",
}];

const BLOB_BYTES: i64 = 20_000;
const DISK_BYTES: usize = 4 * 1024 * 1024;

fn open(path: &Path) -> Result<Store, Error> {
    Store::open(Options::new(path, MIGRATIONS, Arc::new(|| 0)))
}

fn put(tx: &Transaction<'_>, id: i64) -> Result<i64, Error> {
    tx.execute(
        "INSERT INTO blob (id, body) VALUES (?1, randomblob(?2))",
        [id, BLOB_BYTES],
    )?;
    Ok(id)
}

async fn ids(store: &Store) -> Vec<i64> {
    let read = store.read(|connection| -> Result<Vec<i64>, Error> {
        let mut statement = connection.prepare("SELECT id FROM blob ORDER BY id")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    });
    read.await.unwrap()
}

/// A small file system of its own, gone when dropped.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self { directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Takes all the room that is left.
    fn fill(&self) -> PathBuf {
        let path = self.path("ballast");
        let mut file = fs::File::create(&path).unwrap();
        while std::io::Write::write(&mut file, &[1; 4096]).is_ok_and(|written| written > 0) {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount")
            .arg("-l")
            .arg(self.directory.path())
            .status();
        assert!(unmounted.unwrap().success());
    }
}

/// A skip is said aloud, and is a failure where everything must run.
#[expect(
    clippy::disallowed_methods,
    reason = "the one switch of the test run, set from outside"
)]
fn skip(why: &str) {
    println!("skipped: {why}");
    assert!(
        std::env::var("ALICIA_REQUIRE_ALL").is_err(),
        "must not be skipped here: {why}"
    );
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_writing_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        return skip("mounting a tmpfs needs root");
    };
    let store = open(&disk.path("small.db")).unwrap();
    let mut kept = Vec::new();
    kept.push(store.write(|tx| put(tx, 0)).await.unwrap());
    let ballast = disk.fill();

    let mut refused = 0;
    let mut next = 1;
    while refused < 20 {
        assert!(
            next * BLOB_BYTES < 4 * DISK_BYTES as i64,
            "acknowledged more than the disk holds"
        );
        let pending: Vec<_> = (next..next + 8)
            .map(|id| store.try_write(move |tx| put(tx, id)).unwrap())
            .collect();
        next += 8;
        for pending in pending {
            match pending.await {
                Ok(id) => kept.push(id),
                Err(error) => {
                    let undone = matches!(error, Error::BatchUndone { .. });
                    assert!(undone || error.is_disk_full(), "{error:?}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!(
        ids(&store).await,
        kept,
        "reads go on, and show what was acknowledged"
    );
    store
        .backup(disk.path("copy.db"))
        .await
        .expect_err("no room for a copy");
    assert!(!disk.path("copy.db").exists() && !disk.path("copy.db.partial").exists());

    fs::remove_file(ballast).unwrap();
    for id in next..next + 10 {
        kept.push(
            store
                .write(move |tx| put(tx, id))
                .await
                .expect("there is room again"),
        );
    }
    assert_eq!(ids(&store).await, kept);
    store.check().await.unwrap();
    assert!(store.stats().batches_failed > 0);
    store.close().await;
    drop(store);
    assert_eq!(ids(&open(&disk.path("small.db")).unwrap()).await, kept);
}

#[tokio::test]
async fn an_open_on_a_full_disk_fails_and_succeeds_later() {
    let Some(disk) = SmallDisk::mount() else {
        return skip("mounting a tmpfs needs root");
    };
    let ballast = disk.fill();
    let path = disk.path("late.db");
    assert!(open(&path).is_err());
    fs::remove_file(ballast).unwrap();
    let store = open(&path).expect("nothing of the failed attempt is in the way");
    assert_eq!(store.write(|tx| put(tx, 1)).await.unwrap(), 1);
}

/// The same without a small disk: SQLite's own limit gives the same error in the middle of a job.
#[tokio::test]
async fn a_job_that_meets_the_limit_of_the_file_takes_nobody_into_a_false_answer() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("limited.db")).unwrap();
    let jobs: Vec<_> = (0..20)
        .map(|id| {
            store.try_write(move |tx| {
                if id == 10 {
                    tx.execute_batch("PRAGMA max_page_count = 1")?;
                }
                put(tx, id)
            })
        })
        .map(Result::unwrap)
        .collect();
    let mut kept = Vec::new();
    let mut refused = 0;
    for job in jobs {
        match job.await {
            Ok(id) => kept.push(id),
            Err(error) => {
                let undone = matches!(error, Error::BatchUndone { .. });
                assert!(undone || error.is_disk_full(), "{error:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    assert_eq!(ids(&store).await, kept);
    store.check().await.unwrap();
}
