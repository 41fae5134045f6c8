//! The tables that every store has: audit and outbox.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it saw"
)]

use std::sync::Arc;

use alicia_store::audit::{self, Cursor, Entry, Outcome};
use alicia_store::{Error, Migration, Options, Store, Transaction, outbox};
use serde_json::{Value, json};

const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "lamps",
    sql: "CREATE TABLE lamp (name TEXT PRIMARY KEY) STRICT",
}];

fn open(directory: &tempfile::TempDir) -> Store {
    let path = directory.path().join("home.db");
    Store::open(Options::new(path, MIGRATIONS, Arc::new(|| 0))).unwrap()
}

fn record(tx: &Transaction<'_>, time_unix_us: i64, detail: &Value) -> Result<i64, Error> {
    let entry = Entry {
        time_unix_us,
        actor: "key:test",
        action: "home.light",
        target: "lamp:hall",
        outcome: Outcome::Denied,
        detail,
    };
    audit::append(tx, &entry)
}

#[tokio::test]
async fn an_audit_row_stands_and_falls_with_its_change() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let light = |tx: &Transaction<'_>| -> Result<i64, Error> {
        let id = record(tx, 5, &json!({"why": "dark"}))?;
        tx.execute("INSERT INTO lamp VALUES ('hall')", [])?;
        Ok(id)
    };
    let id = store.write(light).await.unwrap();
    store
        .write(light)
        .await
        .expect_err("the lamp is there already");
    let rows = store
        .read(|c| audit::list(c, Cursor::NEWEST, 10))
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(
        (row.id, row.time_unix_us, row.outcome),
        (id, 5, Outcome::Denied)
    );
    assert_eq!(
        (row.actor.as_str(), row.action.as_str()),
        ("key:test", "home.light")
    );
    assert_eq!(
        (row.target.as_str(), &row.detail),
        ("lamp:hall", &json!({"why": "dark"}))
    );
}

#[tokio::test]
async fn audit_pages_go_both_ways() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    store
        .write(|tx| (1..=10).try_for_each(|time| record(tx, time, &Value::Null).map(drop)))
        .await
        .unwrap();
    let page = async |cursor, limit| -> Vec<i64> {
        let rows = store
            .read(move |c| audit::list(c, cursor, limit))
            .await
            .unwrap();
        rows.into_iter().map(|row| row.id).collect()
    };
    assert_eq!(page(Cursor::After(0), 4).await, [1, 2, 3, 4]);
    assert_eq!(page(Cursor::After(8), 4).await, [9, 10]);
    assert_eq!(page(Cursor::NEWEST, 3).await, [10, 9, 8]);
    assert_eq!(page(Cursor::Before(8), 2).await, [7, 6]);
    assert_eq!(page(Cursor::After(10), 2).await, [0_i64; 0]);
}

#[tokio::test]
async fn audit_rows_cannot_be_edited_removed_or_oversized() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    store.write(|tx| record(tx, 1, &Value::Null)).await.unwrap();
    for sql in [
        "UPDATE audit SET actor = 'x'",
        "DELETE FROM audit",
        "REPLACE INTO audit VALUES (1, 1, '', '', '', '', '', '', '', zeroblob(32))",
    ] {
        let tampered = store
            .write(move |tx| Ok::<_, Error>(tx.execute(sql, [])?))
            .await;
        let error = tampered.expect_err(sql).to_string();
        assert!(error.contains("append-only"), "{sql}: {error}");
    }
    let long = json!("x".repeat(audit::DETAIL_BYTES_MAX));
    let refused = store.write(move |tx| record(tx, 2, &long)).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
    assert_eq!(
        store
            .read(|c| audit::list(c, Cursor::NEWEST, 9))
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn outbox_messages_stay_until_done_in_order_and_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let undone: Result<(), Error> = store
        .write(|tx| {
            outbox::push(tx, "a/lost", b"never")?;
            Err(Error::Closed)
        })
        .await;
    undone.expect_err("the change failed, so the message is not sent");
    store
        .write(|tx| (0_u8..5).try_for_each(|n| outbox::push(tx, "a/b", &[n, 0, 255]).map(drop)))
        .await
        .unwrap();
    let first = store.read(|c| outbox::take(c, 2)).await.unwrap();
    assert_eq!(
        first,
        store.read(|c| outbox::take(c, 2)).await.unwrap(),
        "taking removes nothing"
    );
    assert_eq!(
        (first[0].topic.as_str(), first[1].payload.as_slice()),
        ("a/b", &[1, 0, 255][..])
    );
    store.close().await;
    drop(store);

    let store = open(&directory);
    let ids: Vec<i64> = first.iter().map(|message| message.id).collect();
    let again = ids.clone();
    assert_eq!(
        store.write(move |tx| outbox::done(tx, &ids)).await.unwrap(),
        2
    );
    assert_eq!(
        store
            .write(move |tx| outbox::done(tx, &again))
            .await
            .unwrap(),
        0
    );
    assert_eq!(store.read(outbox::depth).await.unwrap(), 3);
    let rest = store.read(|c| outbox::take(c, 100)).await.unwrap();
    let all: Vec<i64> = rest.iter().map(|message| message.id).collect();
    assert_eq!(
        rest.iter()
            .map(|message| message.payload[0])
            .collect::<Vec<_>>(),
        [2, 3, 4]
    );
    store.write(move |tx| outbox::done(tx, &all)).await.unwrap();
    let next = store
        .write(|tx| outbox::push(tx, "a/b", b""))
        .await
        .unwrap();
    assert!(next > rest[2].id, "an id is never used twice");
    let oversized = vec![0; outbox::PAYLOAD_BYTES_MAX + 1];
    let refused = store
        .write(move |tx| outbox::push(tx, "a/b", &oversized))
        .await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
}
