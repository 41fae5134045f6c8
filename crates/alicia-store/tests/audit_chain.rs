//! The chain of the audit log: whoever changes the file by other means is found.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use alicia_store::audit::chain::{self, Expected, Report};
use alicia_store::audit::{self, Cursor, Entry, Origin, Outcome};
use alicia_store::rusqlite::{Connection, params};
use alicia_store::{Error, Options, Store};
use serde_json::json;

const ROWS: i64 = 40;
const TRIES: u64 = 1_000;
/// A witness saw these rows, the last one included.
const WITNESSED: [i64; 3] = [1, 20, ROWS];

fn append(tx: &alicia_store::Transaction<'_>, number: i64) -> Result<i64, Error> {
    let entry = Entry {
        time_unix_us: 1_700_000_000_000_000 + number,
        actor: "key/admin",
        action: "orchestrator.stop",
        target: &format!("service:s{number}"),
        outcome: [Outcome::Done, Outcome::Failed, Outcome::Denied][number as usize % 3],
        detail: &json!({ "reason": format!("test {number}") }),
    };
    audit::append(tx, &entry)
}

fn open(path: &Path) -> Store {
    let clock = AtomicI64::new(0);
    let clock = Arc::new(move || clock.fetch_add(1, Ordering::Relaxed));
    Store::open(Options::new(path, &[], clock)).unwrap()
}

/// A closed file with `ROWS` rows.
async fn file(directory: &Path) -> PathBuf {
    let path = directory.join("a.db");
    let store = open(&path);
    for number in 1..=ROWS {
        let origin = Origin::new("rest 127.0.0.1:4000", "4bf92f3577b34da6a3ce929d0e0e4736");
        let write = store.write(move |tx| append(tx, number));
        assert_eq!(origin.scope(write).await.unwrap(), number);
    }
    store.close().await;
    path
}

fn witnessed(connection: &Connection) -> Vec<Expected> {
    let hash = |id: i64| {
        let sql = "SELECT hash FROM audit WHERE id = ?1";
        connection.query_row(sql, [id], |row| row.get(0)).unwrap()
    };
    let expected = |id| Expected {
        id,
        hash: hash(id),
        witness: "a checkpoint".into(),
    };
    WITNESSED.into_iter().map(expected).collect()
}

/// As somebody who knows the table: without its triggers, and with them again afterwards.
fn tamper(connection: &Connection, random: &mut fastrand::Rng) -> &'static str {
    let sql = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'audit'";
    let triggers: Vec<(String, String)> = {
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    for (name, _) in &triggers {
        connection
            .execute_batch(&format!("DROP TRIGGER {name}"))
            .unwrap();
    }
    let id = random.i64(1..=ROWS);
    let done = match random.u8(0..7) {
        0 => flip(connection, id, random),
        1 => execute(connection, "DELETE FROM audit WHERE id = ?1", id, "delete"),
        2 => swap(connection, id, random),
        3 => execute(
            connection,
            "DELETE FROM audit WHERE id >= ?1",
            id,
            "truncate",
        ),
        4 => insert(connection, id),
        5 => anew(connection, id),
        _ => {
            execute(
                connection,
                "DELETE FROM audit WHERE id >= ?1",
                id,
                "truncate",
            );
            let sql = "UPDATE sqlite_sequence SET seq = ?1 - 1 WHERE name = 'audit'";
            execute(connection, sql, id, "truncate and forget")
        }
    };
    for (_, sql) in &triggers {
        connection.execute_batch(sql).unwrap();
    }
    done
}

fn execute(connection: &Connection, sql: &str, id: i64, done: &'static str) -> &'static str {
    assert!(connection.execute(sql, [id]).unwrap() > 0, "{done}");
    done
}

/// Changes one bit of one field.
fn flip(connection: &Connection, id: i64, random: &mut fastrand::Rng) -> &'static str {
    let columns = [
        "time_unix_us",
        "actor",
        "action",
        "target",
        "outcome",
        "detail",
        "origin",
        "trace",
        "hash",
    ];
    let column = random.choice(columns).unwrap();
    if column == "time_unix_us" {
        let sql = format!("UPDATE audit SET time_unix_us = time_unix_us + ?1 WHERE id = {id}");
        return execute(connection, &sql, 1 << random.u8(0..30), "flip");
    }
    let sql = format!("SELECT CAST({column} AS BLOB) FROM audit WHERE id = ?1");
    let mut bytes: Vec<u8> = connection.query_row(&sql, [id], |row| row.get(0)).unwrap();
    let at = random.usize(..bytes.len());
    // A low bit, so that text stays text.
    bytes[at] ^= 1;
    let cast = if column == "hash" {
        "?1"
    } else {
        "CAST(?1 AS TEXT)"
    };
    let sql = format!("UPDATE audit SET {column} = {cast} WHERE id = ?2");
    connection.execute(&sql, params![bytes, id]).unwrap();
    "flip"
}

/// Exchanges two rows.
fn swap(connection: &Connection, id: i64, random: &mut fastrand::Rng) -> &'static str {
    let other = (1..=ROWS)
        .filter(|other| *other != id)
        .nth(random.usize(..ROWS as usize - 1))
        .unwrap();
    for (from, to) in [(id, -1), (other, id), (-1, other)] {
        let sql = "UPDATE audit SET id = ?2 WHERE id = ?1";
        assert_eq!(connection.execute(sql, [from, to]).unwrap(), 1);
    }
    "reorder"
}

/// A row between two, the later ones moved by one.
fn insert(connection: &Connection, id: i64) -> &'static str {
    for from in (id..=ROWS).rev() {
        connection
            .execute("UPDATE audit SET id = ?1 + 1 WHERE id = ?1", [from])
            .unwrap();
    }
    let sql = "INSERT INTO audit SELECT ?1, time_unix_us, 'mallory', action, target, outcome, detail, origin, trace, hash
               FROM audit WHERE id = ?1 + 1";
    execute(connection, sql, id, "insert")
}

/// Changes a row and computes the chain anew from there on, as the store itself would.
fn anew(connection: &Connection, id: i64) -> &'static str {
    let rows = ROWS - id + 1;
    connection
        .execute("DELETE FROM audit WHERE id >= ?1", [id])
        .unwrap();
    connection
        .execute(
            "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'audit'",
            [id - 1],
        )
        .unwrap();
    let tx = connection.unchecked_transaction().unwrap();
    for number in 0..rows {
        append(&tx, 1_000 + number).unwrap();
    }
    tx.commit().unwrap();
    "compute anew"
}

fn look(path: &Path, expected: &[Expected]) -> Report {
    chain::verify(&Connection::open(path).unwrap(), expected).unwrap()
}

#[tokio::test]
async fn every_one_of_a_thousand_changes_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path()).await;
    let expected = witnessed(&Connection::open(&path).unwrap());
    let untouched = look(&path, &expected);
    assert_eq!(untouched.faults, []);
    assert_eq!(
        (untouched.head.rows, untouched.head.id),
        (ROWS as u64, ROWS)
    );
    assert_eq!(
        untouched.head,
        chain::head(&Connection::open(&path).unwrap()).unwrap()
    );
    let copy = directory.path().join("copy.db");
    let mut kinds = std::collections::BTreeMap::<_, u32>::new();
    for seed in 0..TRIES {
        std::fs::copy(&path, &copy).unwrap();
        let connection = Connection::open(&copy).unwrap();
        connection
            .pragma_update(None, "synchronous", "OFF")
            .unwrap();
        let done = tamper(&connection, &mut fastrand::Rng::with_seed(seed));
        *kinds.entry(done).or_default() += 1;
        let report = chain::verify(&connection, &expected).unwrap();
        assert!(
            !report.faults.is_empty(),
            "try {seed}: {done} was not found"
        );
        drop(connection);
        for suffix in ["-wal", "-shm"] {
            std::fs::remove_file(format!("{}{suffix}", copy.display())).ok();
        }
    }
    assert!(
        kinds.len() == 7 && kinds.values().all(|tries| *tries > 50),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn what_the_triggers_are_for_is_missed_when_they_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path()).await;
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("DROP TRIGGER audit_is_never_cut")
        .unwrap();
    let faults = look(&path, &[]).faults;
    assert!(
        matches!(&faults[..], [fault] if fault.what.contains("audit_is_never_cut")),
        "{faults:?}"
    );
}

#[tokio::test]
async fn a_row_without_its_hash_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let connection = Connection::open(file(directory.path()).await).unwrap();
    let sql = "INSERT INTO audit (time_unix_us, actor, action, target, outcome, detail)
               VALUES (1, 'a', 'b', 'c', 'done', '{}')";
    let error = connection.execute(sql, []).unwrap_err().to_string();
    assert!(error.contains("needs its hash"), "{error}");
}

#[tokio::test]
async fn a_row_says_where_it_came_from_and_hides_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("a.db"));
    let secret = "alk_7h2k_0123456789abcdef_1a2b";
    let write = |detail: serde_json::Value| {
        store.write(move |tx| {
            let entry = Entry {
                time_unix_us: 1,
                actor: "key/admin",
                action: "test.act",
                target: "fleet",
                outcome: Outcome::Done,
                detail: &detail,
            };
            audit::append(tx, &entry)
        })
    };
    let origin = Origin::new("rest 127.0.0.1:5", "00ff");
    origin
        .scope(write(json!({ "reason": format!("with {secret}") })))
        .await
        .unwrap();
    write(json!({})).await.unwrap();
    let rows = store
        .read(|connection| audit::list(connection, Cursor::After(0), 9))
        .await
        .unwrap();
    assert_eq!(
        (rows[0].origin.as_str(), rows[0].trace.as_str()),
        ("rest 127.0.0.1:5", "00ff")
    );
    assert_eq!((rows[1].origin.as_str(), rows[1].trace.as_str()), ("", ""));
    assert!(
        !rows[0].detail.to_string().contains(secret),
        "{}",
        rows[0].detail
    );
    store.close().await;
    let bytes = std::fs::read(directory.path().join("a.db")).unwrap();
    assert!(
        !bytes
            .windows(secret.len())
            .any(|window| window == secret.as_bytes())
    );
}

/// A job that fails takes its row and its place in the chain with it.
#[tokio::test]
async fn the_chain_holds_over_jobs_that_are_undone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let store = open(&path);
    let mut writes = Vec::new();
    for number in 1..=60 {
        let pending = store.try_write(move |tx| {
            append(tx, number)?;
            if number % 3 == 0 {
                Err(Error::Closed)
            } else {
                Ok(())
            }
        });
        writes.push((number, pending.unwrap()));
    }
    for (number, pending) in writes {
        assert_eq!(pending.await.is_ok(), number % 3 != 0);
    }
    store.close().await;
    let report = look(&path, &[]);
    assert_eq!(
        (report.faults, report.head.rows, report.head.id),
        (vec![], 40, 40)
    );
}

/// Rows from before the chain are covered by the first one that is chained.
#[tokio::test]
async fn rows_that_are_older_than_the_chain_are_covered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    open(&path).close().await;
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "DROP TRIGGER audit_is_chained; ALTER TABLE audit DROP COLUMN hash;
         ALTER TABLE audit DROP COLUMN origin; ALTER TABLE audit DROP COLUMN trace;
         DELETE FROM migration WHERE owner = 'store' AND number = 2;
         INSERT INTO audit (time_unix_us, actor, action, target, outcome, detail)
         VALUES (1, 'key/a', 'x.y', 'z', 'done', '{}'), (2, 'key/b', 'x.y', 'z', 'done', '{}');",
        )
        .unwrap();
    drop(connection);
    let store = open(&path);
    store.write(|tx| append(tx, 3)).await.unwrap();
    store.close().await;
    assert_eq!(look(&path, &[]).faults, []);
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("DROP TRIGGER audit_is_never_edited")
        .unwrap();
    let edit = "UPDATE audit SET actor = 'key/c' WHERE id = 2";
    assert_eq!(connection.execute(edit, []).unwrap(), 1);
    let faults = look(&path, &[]).faults;
    assert!(faults.iter().any(|fault| fault.id == 3), "{faults:?}");
}

/// What cannot be written down is not done.
#[tokio::test]
async fn nothing_is_done_when_the_row_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let store = open(&path);
    store
        .write(|tx| Ok::<_, Error>(tx.execute_batch("CREATE TABLE lamp (lit INTEGER)")?))
        .await
        .unwrap();
    store
        .write(|tx| Ok::<_, Error>(tx.execute_batch("DROP TABLE audit")?))
        .await
        .unwrap();
    let act = store.write(|tx| -> Result<(), Error> {
        tx.execute("INSERT INTO lamp VALUES (1)", [])?;
        append(tx, 1).map(drop)
    });
    assert!(act.await.is_err());
    let lamps = |connection: &Connection| -> Result<i64, Error> {
        Ok(connection.query_row("SELECT count(*) FROM lamp", [], |row| row.get(0))?)
    };
    assert_eq!(store.read(lamps).await.unwrap(), 0);
}
