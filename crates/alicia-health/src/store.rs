//! The rows of the monitor: alerts, those that fire and those that are over.

use alicia_contract::health::{Alert, AlertState, Severity};
use alicia_store::rusqlite::params;
use alicia_store::{Connection, Error, Migration, Transaction};

/// The schema.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "alerts",
    sql: "CREATE TABLE alert (
              id       TEXT PRIMARY KEY,
              severity TEXT NOT NULL,
              ended    REAL,
              body     TEXT NOT NULL
          ) STRICT, WITHOUT ROWID;
          CREATE INDEX alert_ended ON alert (ended)",
}];

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

/// A row that this version cannot read is skipped, with a warning.
fn read_all(
    bodies: impl Iterator<Item = Result<String, alicia_store::rusqlite::Error>>,
) -> Result<Vec<Alert>, Error> {
    let mut alerts = Vec::new();
    for body in bodies {
        match serde_json::from_str(&body?) {
            Ok(alert) => alerts.push(alert),
            Err(error) => tracing::warn!(%error, "a stored alert cannot be read"),
        }
    }
    Ok(alerts)
}

const fn severity_text(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}
