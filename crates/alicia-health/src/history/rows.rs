//! The rows of the history: minutes for some days, hours and changes for long.

use std::collections::BTreeMap;

use alicia_contract::health::HealthState;
use alicia_contract::id::ServiceName;
use alicia_store::rusqlite::{Row, params};
use alicia_store::{Connection, Error, Migration, Transaction};

use super::ledger::{BUCKETS, Minutes, Results, Spans};
use crate::core::Turn;

/// Minutes of an hour.
const HOUR: i64 = 60;

/// Most changes of state that are kept, of all services: a service that flaps for weeks must not fill the disk.
const CHANGES_MAX: i64 = 500_000;

/// The schema. A minute is a number since 1970; that of an hour is its first minute.
pub(crate) const MIGRATION: Migration = Migration {
    number: 3,
    name: "history",
    sql: "CREATE TABLE service_minute (
              service TEXT NOT NULL, minute INTEGER NOT NULL,
              up_s REAL NOT NULL, degraded_s REAL NOT NULL, down_s REAL NOT NULL, unknown_s REAL NOT NULL,
              PRIMARY KEY (service, minute)
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE service_hour (
              service TEXT NOT NULL, minute INTEGER NOT NULL,
              up_s REAL NOT NULL, degraded_s REAL NOT NULL, down_s REAL NOT NULL, unknown_s REAL NOT NULL,
              PRIMARY KEY (service, minute)
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE check_minute (
              service TEXT NOT NULL, name TEXT NOT NULL, minute INTEGER NOT NULL,
              tries INTEGER NOT NULL, failures INTEGER NOT NULL, slow INTEGER NOT NULL,
              latency_sum_ms REAL NOT NULL, latency_ms_max REAL NOT NULL, buckets BLOB NOT NULL,
              PRIMARY KEY (service, name, minute)
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE check_hour (
              service TEXT NOT NULL, name TEXT NOT NULL, minute INTEGER NOT NULL,
              tries INTEGER NOT NULL, failures INTEGER NOT NULL, slow INTEGER NOT NULL,
              latency_sum_ms REAL NOT NULL, latency_ms_max REAL NOT NULL, buckets BLOB NOT NULL,
              PRIMARY KEY (service, name, minute)
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE service_change (
              id      INTEGER PRIMARY KEY,
              service TEXT NOT NULL,
              at      REAL NOT NULL,
              state   TEXT NOT NULL,
              reason  TEXT NOT NULL
          ) STRICT;
          CREATE INDEX service_change_at ON service_change (service, at);
          CREATE INDEX service_minute_at ON service_minute (minute);
          CREATE INDEX service_hour_at ON service_hour (minute);
          CREATE INDEX check_minute_at ON check_minute (minute);
          CREATE INDEX check_hour_at ON check_hour (minute)",
};

/// How finely one looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    /// The last days.
    Minute,
    /// All that is kept.
    Hour,
}

/// Writes minutes, and adds them to their hours.
pub(crate) fn save(tx: &Transaction<'_>, rows: &Minutes) -> Result<(), Error> {
    for (service, minute, spans) in &rows.services {
        for (table, minute) in [("service_minute", *minute), ("service_hour", hour(*minute))] {
            let sql = format!(
                "INSERT INTO {table} VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET
                     up_s = up_s + ?3, degraded_s = degraded_s + ?4,
                     down_s = down_s + ?5, unknown_s = unknown_s + ?6"
            );
            let Spans {
                up_s,
                degraded_s,
                down_s,
                unknown_s,
            } = spans;
            tx.prepare_cached(&sql)?.execute(params![
                service.as_str(),
                minute,
                up_s,
                degraded_s,
                down_s,
                unknown_s
            ])?;
        }
    }
    for (service, check, minute, results) in &rows.checks {
        for (table, minute) in [("check_minute", *minute), ("check_hour", hour(*minute))] {
            add_results(tx, table, (service, check, minute), results)?;
        }
    }
    for turn in &rows.turns {
        tx.prepare_cached(
            "INSERT INTO service_change (service, at, state, reason) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            turn.service.as_str(),
            turn.at,
            state_text(turn.state),
            turn.reason
        ])?;
    }
    Ok(())
}

fn add_results(
    tx: &Transaction<'_>,
    table: &str,
    (service, check, minute): (&ServiceName, &ServiceName, i64),
    results: &Results,
) -> Result<(), Error> {
    let key = params![service.as_str(), check.as_str(), minute];
    let known = format!(
        "SELECT tries, failures, slow, latency_sum_ms, latency_ms_max, buckets FROM {table}
         WHERE service = ?1 AND name = ?2 AND minute = ?3"
    );
    let mut sum = *results;
    let mut statement = tx.prepare_cached(&known)?;
    let mut before = statement.query_map(key, |row| results_of(row, 0))?;
    if let Some(before) = before.next() {
        sum.merge(&before?);
    }
    let sql = format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
    tx.prepare_cached(&sql)?.execute(params![
        service.as_str(),
        check.as_str(),
        minute,
        signed(sum.tries),
        signed(sum.failures),
        signed(sum.slow),
        sum.latency_sum_ms,
        sum.latency_ms_max,
        pack(&sum.buckets),
    ])?;
    Ok(())
}

/// Deletes minutes before one time, and hours and changes before another, both in seconds since 1970.
pub(crate) fn prune(tx: &Transaction<'_>, minutes: f64, rest: f64) -> Result<usize, Error> {
    let mut deleted = 0;
    for (table, before) in [
        ("service_minute", minutes),
        ("check_minute", minutes),
        ("service_hour", rest),
        ("check_hour", rest),
    ] {
        let sql = format!("DELETE FROM {table} WHERE minute < ?1");
        deleted += tx.execute(&sql, [super::ledger::minute_of(before)])?;
    }
    deleted += tx.execute("DELETE FROM service_change WHERE at < ?1", [rest])?;
    deleted += tx.execute(
        "DELETE FROM service_change WHERE id <= (SELECT max(id) FROM service_change) - ?1",
        [CHANGES_MAX],
    )?;
    Ok(deleted)
}

/// Ends what was open when the monitor last ran: from the end of the last minute that was counted nobody knew. Gives
/// how many services that are. A pause of less than `pause_s` is none: an outage over a short restart is one.
pub(crate) fn close(tx: &Transaction<'_>, now: f64, pause_s: f64) -> Result<usize, Error> {
    let last: Option<i64> = tx.query_row("SELECT max(minute) FROM service_minute", [], |row| {
        row.get(0)
    })?;
    let Some(last) = last else {
        return Ok(0);
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "minutes since 1970 fit for long"
    )]
    let ended = (last + 1) as f64 * 60.0;
    if now - ended < pause_s {
        return Ok(0);
    }
    let closed = tx.execute(
        "INSERT INTO service_change (service, at, state, reason)
         SELECT service, max(at, ?1), 'unknown', 'the monitor did not run'
         FROM (SELECT service, state, max(at) AS at FROM service_change GROUP BY service)
         WHERE state != 'unknown'",
        [ended],
    )?;
    Ok(closed)
}

/// How long each service was in which state since a minute.
pub(crate) fn spans(
    connection: &Connection,
    grain: Grain,
    since: i64,
) -> Result<BTreeMap<ServiceName, Spans>, Error> {
    let (table, since) = match grain {
        Grain::Minute => ("service_minute", since),
        Grain::Hour => ("service_hour", hour(since)),
    };
    let sql = format!(
        "SELECT service, sum(up_s), sum(degraded_s), sum(down_s), sum(unknown_s) FROM {table}
         WHERE minute >= ?1 GROUP BY service"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([since], |row| {
        Ok((row.get::<_, String>(0)?, spans_of(row, 1)?))
    })?;
    named(rows)
}

/// One service, minute by minute or hour by hour.
pub(crate) fn course(
    connection: &Connection,
    service: &ServiceName,
    grain: Grain,
    since: i64,
) -> Result<Vec<(i64, Spans)>, Error> {
    let (table, since) = match grain {
        Grain::Minute => ("service_minute", since),
        Grain::Hour => ("service_hour", hour(since)),
    };
    let sql = format!(
        "SELECT minute, up_s, degraded_s, down_s, unknown_s FROM {table}
         WHERE service = ?1 AND minute >= ?2 ORDER BY minute"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![service.as_str(), since], |row| {
        Ok((row.get(0)?, spans_of(row, 1)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What each check measured since a minute.
pub(crate) fn results(
    connection: &Connection,
    grain: Grain,
    since: i64,
) -> Result<BTreeMap<(ServiceName, ServiceName), Results>, Error> {
    let (table, since) = check_table(grain, since);
    let sql = format!(
        "SELECT service, name, tries, failures, slow, latency_sum_ms, latency_ms_max, buckets
         FROM {table} WHERE minute >= ?1"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([since], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            results_of(row, 2)?,
        ))
    })?;
    let mut sums: BTreeMap<(ServiceName, ServiceName), Results> = BTreeMap::new();
    for row in rows {
        let (service, check, results) = row?;
        if let (Ok(service), Ok(check)) = (ServiceName::new(&service), ServiceName::new(&check)) {
            sums.entry((service, check)).or_default().merge(&results);
        }
    }
    Ok(sums)
}

/// By service and check: the tries, and how many of them were too slow or failed.
pub(crate) type Tried = BTreeMap<(ServiceName, ServiceName), (u64, u64)>;

/// The tries of each check since a minute, and how many of them were too slow or failed.
pub(crate) fn tries(connection: &Connection, grain: Grain, since: i64) -> Result<Tried, Error> {
    let (table, since) = check_table(grain, since);
    let sql = format!(
        "SELECT service, name, sum(tries), sum(slow) FROM {table} WHERE minute >= ?1
         GROUP BY service, name"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([since], |row| {
        let count = |column: usize| row.get::<_, i64>(column).map(i64::unsigned_abs);
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            (count(2)?, count(3)?),
        ))
    })?;
    let mut found = BTreeMap::new();
    for row in rows {
        let (service, check, counts) = row?;
        if let (Ok(service), Ok(check)) = (ServiceName::new(&service), ServiceName::new(&check)) {
            found.insert((service, check), counts);
        }
    }
    Ok(found)
}

const fn check_table(grain: Grain, since: i64) -> (&'static str, i64) {
    match grain {
        Grain::Minute => ("check_minute", since),
        Grain::Hour => ("check_hour", hour(since)),
    }
}

/// The changes of a service, newest first.
pub(crate) fn changes(
    connection: &Connection,
    service: &ServiceName,
    limit: u32,
) -> Result<Vec<Turn>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT service, at, state, reason FROM service_change WHERE service = ?1
         ORDER BY at DESC, id DESC LIMIT ?2",
    )?;
    let rows = statement.query_map(params![service.as_str(), limit], turn_of)?;
    turns(rows)
}

/// The changes of all services since a time, oldest first, and before them the last one of each.
pub(crate) fn changes_since(connection: &Connection, since: f64) -> Result<Vec<Turn>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT service, max(at), state, reason FROM service_change WHERE at < ?1 GROUP BY service",
    )?;
    let mut found = turns(statement.query_map([since], turn_of)?)?;
    let mut statement = connection.prepare_cached(
        "SELECT service, at, state, reason FROM service_change WHERE at >= ?1 ORDER BY at, id",
    )?;
    found.extend(turns(statement.query_map([since], turn_of)?)?);
    Ok(found)
}

type Rusqlite<T> = Result<T, alicia_store::rusqlite::Error>;

fn turns(rows: impl Iterator<Item = Rusqlite<Option<Turn>>>) -> Result<Vec<Turn>, Error> {
    let found: Vec<Option<Turn>> = rows.collect::<Result<_, _>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// A row that this version cannot read is skipped.
fn turn_of(row: &Row<'_>) -> Rusqlite<Option<Turn>> {
    let service = ServiceName::new(row.get::<_, String>(0)?);
    let state = state_of(&row.get::<_, String>(2)?);
    let (at, reason) = (row.get(1)?, row.get(3)?);
    Ok(service.ok().zip(state).map(|(service, state)| Turn {
        service,
        state,
        at,
        reason,
    }))
}

fn named(
    rows: impl Iterator<Item = Rusqlite<(String, Spans)>>,
) -> Result<BTreeMap<ServiceName, Spans>, Error> {
    let mut found = BTreeMap::new();
    for row in rows {
        let (service, spans) = row?;
        if let Ok(service) = ServiceName::new(&service) {
            found.insert(service, spans);
        }
    }
    Ok(found)
}

fn spans_of(row: &Row<'_>, first: usize) -> Rusqlite<Spans> {
    Ok(Spans {
        up_s: row.get(first)?,
        degraded_s: row.get(first + 1)?,
        down_s: row.get(first + 2)?,
        unknown_s: row.get(first + 3)?,
    })
}

fn results_of(row: &Row<'_>, first: usize) -> Rusqlite<Results> {
    let count = |column: usize| row.get::<_, i64>(first + column).map(i64::unsigned_abs);
    Ok(Results {
        tries: count(0)?,
        failures: count(1)?,
        slow: count(2)?,
        latency_sum_ms: row.get(first + 3)?,
        latency_ms_max: row.get(first + 4)?,
        buckets: unpack(&row.get::<_, Vec<u8>>(first + 5)?),
    })
}

/// Four bytes each, lowest first: a minute of tries at 100 ms is 600.
fn pack(buckets: &[u64; BUCKETS]) -> Vec<u8> {
    let low = |count: &u64| u32::try_from(*count).unwrap_or(u32::MAX).to_le_bytes();
    buckets.iter().flat_map(low).collect()
}

fn unpack(bytes: &[u8]) -> [u64; BUCKETS] {
    let mut buckets = [0; BUCKETS];
    for (bucket, bytes) in buckets.iter_mut().zip(bytes.chunks_exact(4)) {
        *bucket = u64::from(u32::from_le_bytes(bytes.try_into().unwrap_or_default()));
    }
    buckets
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

const fn hour(minute: i64) -> i64 {
    minute.div_euclid(HOUR) * HOUR
}

const fn state_text(state: HealthState) -> &'static str {
    match state {
        HealthState::Healthy => "healthy",
        HealthState::Starting => "starting",
        HealthState::Degraded => "degraded",
        HealthState::Unhealthy => "unhealthy",
        HealthState::Down => "down",
        HealthState::Unknown => "unknown",
    }
}

fn state_of(text: &str) -> Option<HealthState> {
    use HealthState::{Degraded, Down, Healthy, Starting, Unhealthy, Unknown};
    let all = [Healthy, Starting, Degraded, Unhealthy, Down, Unknown];
    all.into_iter().find(|state| state_text(*state) == text)
}
