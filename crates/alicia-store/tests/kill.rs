//! 100 times SIGKILL at a random moment: what was acknowledged is there, nothing is half there.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it saw"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use alicia_store::rusqlite::Connection;
use alicia_store::{Error, Migration, Options, Store};

const KILLS: i64 = 100;

/// Ids of one round begin here times the round.
const IDS_PER_ROUND: i64 = 10_000_000;

/// The kill comes within this time after the start (every fifth: during open and recovery) or after
/// the first acknowledgement.
const DELAY_US_MAX: u64 = 60_000;

/// Opening takes milliseconds; on a busy machine more.
const FIRST_ACK_WAIT: Duration = Duration::from_secs(20);

/// As in the program: opening here must change nothing.
const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "ledger",
    sql: "CREATE TABLE entry (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
          CREATE TABLE mirror (id INTEGER PRIMARY KEY REFERENCES entry (id)) STRICT;",
}];

#[test]
fn a_hundred_kills_lose_no_acknowledged_write() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let mut ledger = BTreeSet::new();
    let mut rounds_with_acks = 0;
    for round in 0..KILLS {
        let acknowledged = write_until_killed(&path, round, &mut random);
        rounds_with_acks += i64::from(!acknowledged.is_empty());
        ledger.extend(acknowledged);
        check_file(&path, &ledger, round * IDS_PER_ROUND);
    }
    check_file(&path, &ledger, 0);
    println!(
        "{KILLS} kills, {} acknowledged writes, 0 lost",
        ledger.len()
    );
    assert!(
        rounds_with_acks >= KILLS / 2,
        "only {rounds_with_acks} rounds got to write"
    );
}

/// The ids that the program acknowledged before it was killed.
fn write_until_killed(path: &Path, round: i64, random: &mut fastrand::Rng) -> Vec<i64> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_alicia-store-ledger"))
        .arg(path)
        .arg((round * IDS_PER_ROUND).to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let (first, first_seen) = sync_channel(1);
    let reader = std::thread::spawn(move || read_ledger(stdout, &first));
    if round % 5 != 0 {
        first_seen
            .recv_timeout(FIRST_ACK_WAIT)
            .expect("the program acknowledges a write");
    }
    pause(Duration::from_micros(random.u64(..DELAY_US_MAX)));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    let acknowledged = reader.join().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(9), "the program ended by itself: {status}");
    acknowledged
}

fn read_ledger(stdout: ChildStdout, first: &SyncSender<()>) -> Vec<i64> {
    let mut ids = Vec::new();
    for line in BufReader::new(stdout).lines() {
        ids.push(line.unwrap().parse().unwrap());
        first.try_send(()).ok();
    }
    ids
}

/// The random moment is the point of this test: nothing can be waited for instead.
fn pause(time: Duration) {
    let (_sender, never) = sync_channel::<()>(1);
    never.recv_timeout(time).expect_err("nothing is sent");
}

/// Opens the file as a module would after a crash, and compares it with the ledger from `from_id` on.
fn check_file(path: &Path, ledger: &BTreeSet<i64>, from_id: i64) {
    let store = Store::open(Options::new(path, MIGRATIONS, Arc::new(|| 0))).expect("it recovers");
    drop(store);
    let connection = Connection::open(path).unwrap();
    let intact: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(intact, "ok");
    let entries = ids(&connection, "entry", from_id).unwrap();
    let lost: Vec<_> = ledger
        .range(from_id..)
        .filter(|id| !entries.contains(id))
        .collect();
    assert!(lost.is_empty(), "acknowledged but not there: {lost:?}");
    let mirror = ids(&connection, "mirror", from_id).unwrap();
    assert_eq!(entries, mirror, "a job was kept by half");
}

fn ids(connection: &Connection, table: &str, from_id: i64) -> Result<BTreeSet<i64>, Error> {
    let mut statement = connection.prepare(&format!(
        "SELECT id FROM {table} WHERE id >= ?1 ORDER BY id"
    ))?;
    let rows = statement.query_map([from_id], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
