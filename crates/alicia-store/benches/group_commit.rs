//! What grouping is worth: 64 writers with group commit against the same writes one fsync each.
//!
//! `cargo bench -p alicia-store`. Both run in turn on the same disk, five rounds, so that a noisy
//! machine disturbs both; the ratio is the figure to look at.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alicia_store::{Connection, Error, Migration, Options, Stats, Store, Transaction};
use tokio::task::JoinSet;

const WRITERS: u64 = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const PAYLOAD_BYTES: usize = 300;

const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "rows",
    sql: "CREATE TABLE sample (
              id INTEGER PRIMARY KEY, source INTEGER NOT NULL, body TEXT NOT NULL
          ) STRICT;
          CREATE INDEX sample_by_source ON sample (source);",
}];

/// One measured round.
struct Round {
    per_second: f64,
    stats: Stats,
}

fn main() -> ExitCode {
    // On a real disk: a temporary directory in memory has no fsync to share.
    let directory = tempfile::Builder::new()
        .prefix("store-bench-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a directory under target/");
    println!(
        "{WRITERS} writers, {PAYLOAD_BYTES}-byte upserts, synchronous=FULL, {ROUND:?} a round"
    );
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let alone = ungrouped(&directory.path().join(format!("ungrouped-{round}.db")));
        let grouped = grouped(&directory.path().join(format!("grouped-{round}.db")));
        let ratio = grouped.per_second / alone;
        println!(
            "round {round}: grouped {:>8.0}/s (mean {:.0} jobs a commit, commit mean {:?}, max {:?})   \
             ungrouped {alone:>8.0}/s   ratio {ratio:.1}",
            grouped.per_second,
            grouped.stats.jobs as f64 / grouped.stats.batches as f64,
            grouped.stats.commit_latency_mean,
            grouped.stats.commit_latency_max,
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio grouped/ungrouped: {:.1}", ratios[ROUNDS / 2]);
    ExitCode::SUCCESS
}

fn upsert(tx: &Transaction<'_>, id: u64, body: &str) -> Result<(), Error> {
    tx.prepare_cached(
        "INSERT INTO sample (id, source, body) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET body = excluded.body",
    )?
    .execute(alicia_store::rusqlite::params![
        id as i64,
        (id % 100) as i64,
        body
    ])?;
    Ok(())
}

fn open(path: &Path) -> Store {
    let clock = Arc::new(|| 0);
    Store::open(Options::new(path, MIGRATIONS, clock)).expect("a fresh store")
}

/// Tasks that write through one store, as a module's do: their jobs share transactions.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn grouped(path: &Path) -> Round {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = open(path);
    let written = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    runtime.block_on(async {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (store, written) = (store.clone(), Arc::clone(&written));
            writers.spawn(async move {
                let mut id = writer;
                while started.elapsed() < ROUND {
                    let body = "x".repeat(PAYLOAD_BYTES);
                    store
                        .write(move |tx| upsert(tx, id, &body))
                        .await
                        .expect("a write");
                    written.fetch_add(1, Relaxed);
                    id += WRITERS;
                }
            });
        }
        writers.join_all().await;
    });
    let per_second = written.load(Relaxed) as f64 / started.elapsed().as_secs_f64();
    Round {
        per_second,
        stats: store.stats(),
    }
}

/// As many threads without a store: one plain connection that they take turns on, one transaction
/// and one fsync for each write.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn ungrouped(path: &Path) -> f64 {
    let connection = Mutex::new(plain_connection(path).expect("a fresh database"));
    let written = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (connection, written) = (&connection, &written);
            scope.spawn(move || {
                let mut id = writer;
                while started.elapsed() < ROUND {
                    let body = "x".repeat(PAYLOAD_BYTES);
                    let mut connection = connection.lock().expect("no writer panics");
                    let tx = connection.transaction().expect("begin");
                    upsert(&tx, id, &body).expect("a write");
                    tx.commit().expect("commit");
                    drop(connection);
                    written.fetch_add(1, Relaxed);
                    id += WRITERS;
                }
            });
        }
    });
    written.load(Relaxed) as f64 / started.elapsed().as_secs_f64()
}

fn plain_connection(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(MIGRATIONS[0].sql)?;
    Ok(connection)
}
