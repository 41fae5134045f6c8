//! The rows of the monitor: alerts, those that fire and those that are over.

use alicia_contract::health::{Alert, AlertState, Severity};
use alicia_store::rusqlite::params;
use alicia_store::{Connection, Error, Migration, Transaction};
use serde::de::DeserializeOwned;

/// The schema.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "alerts",
        sql: "CREATE TABLE alert (
              id       TEXT PRIMARY KEY,
              severity TEXT NOT NULL,
              ended    REAL,
              body     TEXT NOT NULL
          ) STRICT, WITHOUT ROWID;
          CREATE INDEX alert_ended ON alert (ended)",
    },
    Migration {
        number: 2,
        name: "notifications",
        sql: "CREATE TABLE silence (
              id   TEXT PRIMARY KEY,
              ends REAL NOT NULL,
              body TEXT NOT NULL
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE maintenance (
              id   TEXT PRIMARY KEY,
              ends REAL NOT NULL,
              body TEXT NOT NULL
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE said (
              channel TEXT NOT NULL,
              grp     TEXT NOT NULL,
              body    TEXT NOT NULL,
              PRIMARY KEY (channel, grp)
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE climb (
              policy INTEGER NOT NULL,
              grp    TEXT NOT NULL,
              body   TEXT NOT NULL,
              PRIMARY KEY (policy, grp)
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE notification (
              id       TEXT PRIMARY KEY,
              channel  TEXT NOT NULL,
              grp      TEXT NOT NULL,
              delivery TEXT NOT NULL,
              next_try REAL,
              body     TEXT NOT NULL,
              alerts   TEXT NOT NULL
          ) STRICT, WITHOUT ROWID;
          CREATE INDEX notification_waiting ON notification (channel, next_try)
              WHERE delivery = 'waiting'",
    },
    crate::history::rows::MIGRATION,
    Migration {
        number: 4,
        name: "waiting by group",
        sql: "CREATE INDEX notification_waiting_group ON notification (channel, grp, id)
              WHERE delivery = 'waiting'",
    },
    // Before, a policy was its position in the file. Which one that was is not known any more: what escalates begins anew.
    Migration {
        number: 5,
        name: "escalations by policy",
        sql: "DROP TABLE climb;
          CREATE TABLE climb (
              policy TEXT NOT NULL,
              grp    TEXT NOT NULL,
              body   TEXT NOT NULL,
              PRIMARY KEY (policy, grp)
          ) STRICT, WITHOUT ROWID",
    },
];

/// What to list, newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    /// Only those that fire, or only those that are over.
    pub(crate) active: Option<bool>,
    /// Only this severity.
    pub(crate) severity: Option<Severity>,
    /// Only ids below this one.
    pub(crate) before: Option<String>,
    /// Most rows.
    pub(crate) limit: u32,
}

/// Writes an alert as it is now.
pub(crate) fn save(tx: &Transaction<'_>, alert: &Alert) -> Result<(), Error> {
    let body = serde_json::to_string(alert)?;
    let ended = match alert.state {
        AlertState::Firing => None,
        AlertState::Resolved => Some(alert.ended.unwrap_or(alert.started)),
    };
    tx.prepare_cached(
        "INSERT INTO alert (id, severity, ended, body) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET severity = ?2, ended = ?3, body = ?4",
    )?
    .execute(params![
        alert.id,
        severity_text(alert.severity),
        ended,
        body
    ])?;
    Ok(())
}

/// Deletes alerts that are over: those that ended before `oldest`, and the oldest beyond `keep`.
pub(crate) fn prune(tx: &Transaction<'_>, oldest: f64, keep: u32) -> Result<usize, Error> {
    let by_age = tx.execute("DELETE FROM alert WHERE ended < ?1", [oldest])?;
    let by_number = tx.execute(
        "DELETE FROM alert WHERE id IN (SELECT id FROM alert WHERE ended IS NOT NULL
                                        ORDER BY ended DESC LIMIT -1 OFFSET ?1)",
        [keep],
    )?;
    Ok(by_age + by_number)
}

/// Alerts that fired when they were last written.
pub(crate) fn firing(connection: &Connection) -> Result<Vec<Alert>, Error> {
    let mut statement = connection.prepare("SELECT body FROM alert WHERE ended IS NULL")?;
    let bodies = statement.query_map([], |row| row.get::<_, String>(0))?;
    read_all(bodies)
}

/// A page of alerts.
pub(crate) fn list(connection: &Connection, listing: &Listing) -> Result<Vec<Alert>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT body FROM alert
         WHERE (?1 IS NULL OR (ended IS NULL) = ?1)
           AND (?2 IS NULL OR severity = ?2)
           AND (?3 IS NULL OR id < ?3)
         ORDER BY id DESC LIMIT ?4",
    )?;
    let severity = listing.severity.map(severity_text);
    let values = params![listing.active, severity, listing.before, listing.limit];
    let bodies = statement.query_map(values, |row| row.get::<_, String>(0))?;
    read_all(bodies)
}

/// One alert. `None`: there is none, or it cannot be read.
pub(crate) fn get(connection: &Connection, id: &str) -> Result<Option<Alert>, Error> {
    let mut statement = connection.prepare_cached("SELECT body FROM alert WHERE id = ?1")?;
    let bodies = statement.query_map([id], |row| row.get::<_, String>(0))?;
    Ok(read_all(bodies)?.pop())
}

/// A row that this version cannot read is skipped, with a warning.
pub(crate) fn read_all<T: DeserializeOwned>(
    bodies: impl Iterator<Item = Result<String, alicia_store::rusqlite::Error>>,
) -> Result<Vec<T>, Error> {
    let mut found = Vec::new();
    for body in bodies {
        match serde_json::from_str(&body?) {
            Ok(row) => found.push(row),
            Err(error) => tracing::warn!(%error, "a stored row cannot be read"),
        }
    }
    Ok(found)
}

const fn severity_text(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

#[cfg(test)]
mod tests {
    use alicia_module::Clock;
    use alicia_store::{Options, Store};

    use super::*;

    #[tokio::test]
    async fn a_file_of_version_4_with_escalations_under_way_is_taken_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = |migrations: &'static [Migration]| {
            let path = directory.path().join("health.db");
            let options = Options::new(path, migrations, Clock::system().for_store());
            Store::open(options).expect("it opens")
        };
        let before = open(&MIGRATIONS[..4]);
        let written = before.write(|tx| {
            tx.execute_batch(
                r#"INSERT INTO climb (policy, grp, body)
                       VALUES (0, 'service=api', '{"since":1000.0,"done":1}'),
                              (1, 'service=api', '{"since":1000.0,"done":0}');
                   INSERT INTO said (channel, grp, body) VALUES ('hook', 'service=api', '{}')"#,
            )?;
            Ok::<_, Error>(())
        });
        written.await.expect("the rows of version 4");
        before.close().await;

        let after = open(MIGRATIONS);
        let count = async |sql: &'static str| {
            let count = after.read(move |connection| {
                Ok::<i64, Error>(connection.query_row(sql, [], |row| row.get(0))?)
            });
            count.await.expect("a count")
        };
        assert_eq!(
            count("SELECT count(*) FROM climb").await,
            0,
            "they begin anew"
        );
        assert_eq!(count("SELECT count(*) FROM said").await, 1);
        let written = after.write(|tx| {
            let sql = "INSERT INTO climb (policy, grp, body) VALUES ('{}', 'service=api', '{}')";
            Ok::<_, Error>(tx.execute(sql, [])?)
        });
        written.await.expect("a policy is a text now");
        assert_eq!(
            count("SELECT count(*) FROM climb WHERE policy = '{}'").await,
            1
        );
    }
}
