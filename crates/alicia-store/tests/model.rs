//! Whatever is done in whatever order, the store holds what a plain map would hold.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, and says what it saw"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use alicia_store::{Error, Migration, Options, Pending, Store, Transaction};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "pairs",
    sql: "CREATE TABLE pair (key INTEGER PRIMARY KEY, value TEXT NOT NULL) STRICT",
}];

/// Few keys, so that operations meet.
const KEYS: u8 = 8;

#[derive(Debug, Clone)]
enum Change {
    Put(u8, String),
    Delete(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Keep,
    Fail,
    Panic,
}

#[derive(Debug, Clone)]
enum Step {
    /// Jobs that are queued together; each makes its changes, then ends as told.
    Write(Vec<(Vec<Change>, Ending)>),
    Read(u8),
    /// Closed in order, or dropped.
    Reopen {
        closed: bool,
    },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..KEYS, "[a-zéß0]{0,12}").prop_map(|(key, value)| Change::Put(key, value)),
        1 => (0..KEYS).prop_map(Change::Delete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ending =
        prop_oneof![6 => Just(Ending::Keep), 2 => Just(Ending::Fail), 1 => Just(Ending::Panic)];
    let job = (proptest::collection::vec(change(), 0..5), ending);
    prop_oneof![
        6 => proptest::collection::vec(job, 1..6).prop_map(Step::Write),
        3 => (0..KEYS).prop_map(Step::Read),
        1 => any::<bool>().prop_map(|closed| Step::Reopen { closed }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_store_is_a_map(steps in proptest::collection::vec(step(), 1..25)) {
        check(&steps);
    }
}

fn check(steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.db");
    let mut model = BTreeMap::new();
    let mut store = open(&path);
    for step in steps {
        match step.clone() {
            Step::Write(jobs) => write(&store, &mut model, jobs),
            Step::Read(key) => {
                let found = runtime.block_on(store.read(move |c| get(c, key))).unwrap();
                assert_eq!(found.as_ref(), model.get(&key), "key {key}");
            }
            Step::Reopen { closed } => {
                if closed {
                    runtime.block_on(store.close());
                }
                drop(store);
                store = open(&path);
            }
        }
    }
    assert_eq!(runtime.block_on(store.read(all)).unwrap(), model);
    runtime.block_on(store.check()).unwrap();
}

fn open(path: &Path) -> Store {
    Store::open(Options::new(path, MIGRATIONS, Arc::new(|| 0))).unwrap()
}

/// Queues all jobs, then compares each answer with what was asked for.
fn write(store: &Store, model: &mut BTreeMap<u8, String>, jobs: Vec<(Vec<Change>, Ending)>) {
    let queued: Vec<(Pending<usize, Error>, Ending, usize)> = jobs
        .into_iter()
        .map(|(changes, ending)| {
            if ending == Ending::Keep {
                changes
                    .iter()
                    .for_each(|change| apply_to_model(model, change));
            }
            let count = changes.len();
            let pending = store
                .try_write(move |tx| apply(tx, &changes, ending))
                .unwrap();
            (pending, ending, count)
        })
        .collect();
    for (pending, ending, count) in queued {
        match (ending, pending.wait()) {
            (Ending::Keep, Ok(applied)) => assert_eq!(applied, count),
            (Ending::Fail, Err(Error::TooLarge { .. })) => {}
            (Ending::Panic, Err(Error::Panicked { .. })) => {}
            (ending, answer) => panic!("{ending:?} was answered with {answer:?}"),
        }
    }
}

fn apply(tx: &Transaction<'_>, changes: &[Change], ending: Ending) -> Result<usize, Error> {
    for change in changes {
        match change {
            Change::Put(key, value) => {
                let sql = "INSERT INTO pair (key, value) VALUES (?1, ?2)
                           ON CONFLICT (key) DO UPDATE SET value = excluded.value";
                tx.prepare_cached(sql)?.execute((key, value))?;
            }
            Change::Delete(key) => {
                tx.prepare_cached("DELETE FROM pair WHERE key = ?1")?
                    .execute([key])?;
            }
        }
    }
    match ending {
        Ending::Keep => Ok(changes.len()),
        Ending::Fail => Err(Error::TooLarge {
            what: "a test",
            bytes: 1,
            limit_bytes: 0,
        }),
        Ending::Panic => panic!("on purpose"),
    }
}

fn apply_to_model(model: &mut BTreeMap<u8, String>, change: &Change) {
    match change {
        Change::Put(key, value) => drop(model.insert(*key, value.clone())),
        Change::Delete(key) => drop(model.remove(key)),
    }
}

fn get(connection: &alicia_store::Connection, key: u8) -> Result<Option<String>, Error> {
    Ok(all(connection)?.remove(&key))
}

fn all(connection: &alicia_store::Connection) -> Result<BTreeMap<u8, String>, Error> {
    let mut statement = connection.prepare_cached("SELECT key, value FROM pair")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
