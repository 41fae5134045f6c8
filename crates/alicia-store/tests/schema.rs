//! Migrations and refusals: what a store does with the file it finds.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, and says what it saw"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alicia_store::rusqlite::Connection;
use alicia_store::{Error, Migration, Options, Owner, Store};

const fn migration(number: u32, name: &'static str, sql: &'static str) -> Migration {
    Migration { number, name, sql }
}

const ONE: Migration = migration(
    1,
    "lamps",
    "CREATE TABLE lamp (name TEXT PRIMARY KEY, lit INTEGER NOT NULL) STRICT",
);
const TWO: Migration = migration(
    2,
    "rooms",
    "ALTER TABLE lamp ADD COLUMN room TEXT NOT NULL DEFAULT 'hall'",
);
const THREE: Migration = migration(3, "index", "CREATE INDEX lamp_by_room ON lamp (room)");
const FOUR: Migration = migration(4, "drop index", "DROP INDEX lamp_by_room");
const FIVE: Migration = migration(5, "index again", "CREATE INDEX lamp_by_room ON lamp (room)");

const UP_TO_1: &[Migration] = &[ONE];
const UP_TO_2: &[Migration] = &[ONE, TWO];
const UP_TO_3: &[Migration] = &[ONE, TWO, THREE];
const UP_TO_4: &[Migration] = &[ONE, TWO, THREE, FOUR];
const UP_TO_5: &[Migration] = &[ONE, TWO, THREE, FOUR, FIVE];

fn open(path: &Path, migrations: &'static [Migration]) -> Result<Store, Error> {
    Store::open(Options::new(path, migrations, Arc::new(|| 1_234_567)))
}

/// The fault of opening; a store that opens fails the test.
fn refusal(path: &Path, migrations: &'static [Migration]) -> Error {
    match open(path, migrations) {
        Ok(_) => panic!("{} was not refused", path.display()),
        Err(error) => error,
    }
}

fn light(store: &Store, name: &'static str) {
    let sql = "INSERT INTO lamp (name, lit) VALUES (?1, 1)";
    let rows = store.write_blocking(move |tx| Ok::<_, Error>(tx.execute(sql, [name])?));
    assert_eq!(rows.unwrap(), 1);
}

/// What the file says when asked from outside.
fn ask<T: alicia_store::rusqlite::types::FromSql>(path: &Path, sql: &str) -> T {
    let connection = Connection::open(path).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("home.db");
    (directory, path)
}

#[test]
fn a_new_file_is_private_and_gets_the_whole_schema_without_a_copy() {
    let (directory, path) = fresh();
    let store = open(&path, UP_TO_2).unwrap();
    light(&store, "hall");
    for name in ["home.db", "home.db-wal", "home.db-shm", "home.db.lock"] {
        let mode = fs::metadata(directory.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(store);
    assert_eq!(names_in(directory.path()), ["home.db", "home.db.lock"]);
    let applied = "SELECT group_concat(owner || number || name || applied_unix_us, ' ') FROM \
                   (SELECT * FROM migration WHERE owner = 'module' ORDER BY number)";
    assert_eq!(
        ask::<String>(&path, applied),
        "module1lamps1234567 module2rooms1234567"
    );
}

#[test]
fn an_old_file_is_brought_forward_and_the_last_three_copies_are_kept() {
    let (directory, path) = fresh();
    light(&open(&path, UP_TO_1).unwrap(), "hall");
    for migrations in [UP_TO_2, UP_TO_3, UP_TO_4, UP_TO_5] {
        open(&path, migrations).unwrap();
    }
    assert_eq!(
        ask::<String>(&path, "SELECT room FROM lamp WHERE name = 'hall'"),
        "hall"
    );
    assert_eq!(
        names_in(directory.path()),
        [
            "home.db",
            "home.db.before-3.backup",
            "home.db.before-4.backup",
            "home.db.before-5.backup",
            "home.db.lock"
        ]
    );
    let copy = directory.path().join("home.db.before-3.backup");
    assert_eq!(
        fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let last = "SELECT max(number) FROM migration WHERE owner = 'module'";
    assert_eq!((ask::<i64>(&copy, last), ask::<i64>(&path, last)), (2, 5));
    assert_eq!(
        ask::<i64>(&copy, "SELECT lit FROM lamp WHERE name = 'hall'"),
        1
    );
}

#[test]
fn a_newer_file_is_refused_and_left_alone() {
    let (directory, path) = fresh();
    light(&open(&path, UP_TO_3).unwrap(), "hall");
    let before = fs::read(&path).unwrap();
    let error = refusal(&path, UP_TO_1);
    assert!(matches!(
        error,
        Error::NewerSchema {
            owner: Owner::Module,
            found: 3,
            known: 1,
            ..
        }
    ));
    let text = error.to_string();
    assert!(
        text.contains("number 3") && text.contains("number 1"),
        "{text}"
    );
    assert!(fs::read(&path).unwrap() == before, "left as it was");
    assert_eq!(names_in(directory.path()), ["home.db", "home.db.lock"]);
    open(&path, UP_TO_3).expect("the newer program still opens it");
}

#[test]
fn an_edited_migration_is_refused() {
    const EDITED: &[Migration] = &[
        migration(1, "lamps", "CREATE TABLE lamp (name TEXT) STRICT"),
        TWO,
    ];
    let (_directory, path) = fresh();
    open(&path, UP_TO_1).unwrap();
    let error = refusal(&path, EDITED);
    assert!(
        matches!(
            error,
            Error::EditedMigration {
                number: 1,
                name: "lamps",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_list_with_a_gap_is_refused() {
    const GAP: &[Migration] = &[ONE, THREE];
    let (_directory, path) = fresh();
    let error = refusal(&path, GAP);
    assert!(
        matches!(
            error,
            Error::MigrationOrder {
                expected: 2,
                found: 3,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_failing_migration_undoes_all_that_were_pending() {
    const BROKEN: &[Migration] = &[
        ONE,
        TWO,
        migration(3, "broken", "CREATE TABLE lamp (x) STRICT"),
    ];
    let (_directory, path) = fresh();
    light(&open(&path, UP_TO_1).unwrap(), "hall");
    let error = refusal(&path, BROKEN);
    assert!(
        matches!(
            error,
            Error::Migration {
                number: 3,
                name: "broken",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        ask::<i64>(
            &path,
            "SELECT max(number) FROM migration WHERE owner = 'module'"
        ),
        1
    );
    light(
        &open(&path, UP_TO_2).expect("the mended program goes on"),
        "attic",
    );
}

#[test]
fn a_migration_that_ends_the_transaction_by_itself_is_refused() {
    const COMMITS: &[Migration] = &[migration(
        1,
        "commits",
        "CREATE TABLE t (n) ; COMMIT; BEGIN",
    )];
    let (_directory, path) = fresh();
    let error = refusal(&path, COMMITS);
    assert!(
        matches!(error, Error::Migration { number: 1, .. }),
        "{error}"
    );
}

#[test]
fn a_table_may_be_rebuilt_but_no_reference_may_dangle() {
    const BASE: Migration = migration(
        1,
        "base",
        "CREATE TABLE room (id INTEGER PRIMARY KEY) STRICT;
         CREATE TABLE lamp (id INTEGER PRIMARY KEY, room INTEGER NOT NULL REFERENCES room (id)
             ON DELETE CASCADE) STRICT;
         INSERT INTO room VALUES (1);
         INSERT INTO lamp VALUES (1, 1);",
    );
    const REBUILD: Migration = migration(
        2,
        "rebuild",
        "CREATE TABLE new_room (id INTEGER PRIMARY KEY, name TEXT) STRICT;
         INSERT INTO new_room (id) SELECT id FROM room;
         DROP TABLE room;
         ALTER TABLE new_room RENAME TO room;",
    );
    const BASED: &[Migration] = &[BASE];
    const REBUILT: &[Migration] = &[BASE, REBUILD];
    const DANGLING: &[Migration] = &[BASE, migration(2, "dangling", "DELETE FROM room")];
    let (_directory, path) = fresh();
    open(&path, BASED).unwrap();
    let error = refusal(&path, DANGLING);
    assert!(
        matches!(&error, Error::DanglingReference { table, .. } if table == "lamp"),
        "{error}"
    );
    open(&path, REBUILT).unwrap();
    assert_eq!(
        ask::<i64>(&path, "SELECT count(*) FROM lamp"),
        1,
        "nothing was cascaded away"
    );
}

#[test]
fn a_second_opener_is_told_who_has_the_file() {
    let (_directory, path) = fresh();
    let store = open(&path, UP_TO_1).unwrap();
    let error = refusal(&path, UP_TO_1);
    let own_id = std::process::id().to_string();
    assert!(
        matches!(&error, Error::InUse { holder, .. } if *holder == own_id),
        "{error}"
    );
    drop(store);
    open(&path, UP_TO_1).expect("free again");
}

#[test]
fn a_damaged_file_is_refused_untouched() {
    fn check(what: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        let (_directory, path) = fresh();
        let store = open(&path, UP_TO_1).unwrap();
        store
            .write_blocking(|tx| -> Result<(), Error> {
                tx.execute_batch(
                    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                     INSERT INTO lamp SELECT 'lamp number ' || i, i % 2 FROM n",
                )?;
                Ok(())
            })
            .unwrap();
        drop(store);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let error = refusal(&path, UP_TO_1);
        assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error}");
        let text = error.to_string();
        assert!(
            text.contains("home.db") && text.contains("alicia store restore"),
            "{text}"
        );
        assert!(fs::read(&path).unwrap() == bytes, "{what}: untouched");
    }
    check("no database", |bytes| bytes.fill(b'x'));
    check("cut in half", |bytes| {
        bytes.truncate(bytes.len() / 2 / 4096 * 4096)
    });
    check("a page of rubbish", |bytes| {
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 4096].fill(0xa5);
    });
    check("a damaged schema page", |bytes| bytes[100..1000].fill(0xa5));
}

#[test]
fn a_missing_database_with_a_log_is_not_made_anew() {
    let (directory, path) = fresh();
    let store = open(&path, UP_TO_1).unwrap();
    light(&store, "hall");
    let wal = directory.path().join("home.db-wal");
    let log = fs::read(&wal).unwrap();
    drop(store);
    fs::remove_file(&path).unwrap();
    fs::write(&wal, &log).unwrap();
    let error = refusal(&path, UP_TO_1);
    assert!(matches!(error, Error::LogWithoutDatabase { .. }), "{error}");
    assert!(fs::read(&wal).unwrap() == log, "left as it was");
    assert!(!path.exists());
}

#[test]
fn another_programs_database_is_refused_untouched() {
    let (_directory, path) = fresh();
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE theirs (n)")
        .unwrap();
    let before = fs::read(&path).unwrap();
    let error = refusal(&path, UP_TO_1);
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    assert!(fs::read(&path).unwrap() == before, "left as it was");
}

#[test]
fn a_missing_directory_is_named() {
    let (directory, _) = fresh();
    let path = directory.path().join("nowhere/home.db");
    let error = refusal(&path, UP_TO_1);
    assert!(error.to_string().contains("nowhere/home.db"), "{error}");
}
