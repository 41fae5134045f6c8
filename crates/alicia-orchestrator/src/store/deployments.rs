//! Deployments as they are written down. All SQL about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use alicia_contract::ServiceName;
use alicia_contract::deployment::{Deployment, DeploymentState, ServiceOutcome};
use alicia_contract::fleet::Fleet;
use alicia_store::rusqlite::{OptionalExtension, Row as SqlRow, params};
use alicia_store::{Connection, Error, Store, Transaction, audit};

use super::{Action, from_word, word};

/// Deployments that are kept: three a day for a month.
pub(crate) const DEPLOYMENTS_MAX: u32 = 100;

/// Migration 3.
pub(super) const SCHEMA: &str = "CREATE TABLE deployment (
              number INTEGER NOT NULL PRIMARY KEY,
              at REAL NOT NULL,
              actor TEXT NOT NULL,
              reason TEXT,
              digest TEXT NOT NULL,
              file_digest TEXT NOT NULL,
              rollback_to INTEGER,
              state TEXT NOT NULL,
              detail TEXT NOT NULL,
              ended REAL,
              services TEXT NOT NULL,
              fleet TEXT NOT NULL,
              effective TEXT,
              base TEXT,
              idempotency_key TEXT
          ) STRICT;
          CREATE UNIQUE INDEX deployment_by_key ON deployment (idempotency_key)
              WHERE idempotency_key IS NOT NULL;";

/// One deployment with what it is about.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) deployment: Deployment,
    /// The digest of the fleet in the host's file when it was accepted: a file that still has it says nothing new.
    pub(crate) file_digest: String,
    /// What was accepted.
    pub(crate) fleet: Arc<Fleet>,
    /// What is in force with it: that, less what was taken back.
    pub(crate) effective: Arc<Fleet>,
    /// What was in force before, until it has come to an end.
    pub(crate) base: Option<Arc<Fleet>>,
}

const COLUMNS: &str =
    "number, at, actor, reason, digest, file_digest, rollback_to, state, detail, ended, services,
                       fleet, effective, base";

/// The newest one.
pub(crate) async fn newest(store: &Store) -> Result<Option<Row>, Error> {
    store
        .read(|connection| one(connection, "ORDER BY number DESC LIMIT 1", 0))
        .await
}

/// One by its number.
pub(crate) async fn by_number(store: &Store, number: u64) -> Result<Option<Row>, Error> {
    store
        .read(move |connection| one(connection, "WHERE number = ?1", number.cast_signed()))
        .await
}

/// The last one before `number` that came up well and was something else.
pub(crate) async fn last_good(
    store: &Store,
    before: u64,
    digest: String,
) -> Result<Option<Row>, Error> {
    store
        .read(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM deployment WHERE number < ?1 AND state = ?2 AND digest <> ?3
                 ORDER BY number DESC LIMIT 1"
            );
            let done = word(&DeploymentState::Done);
            let row = connection
                .query_row(&sql, params![before.cast_signed(), done, digest], read)
                .optional()?;
            row.map(decode).transpose()
        })
        .await
}

/// The one that was asked for with this key.
pub(crate) async fn by_key(store: &Store, key: String) -> Result<Option<Row>, Error> {
    store
        .read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM deployment WHERE idempotency_key = ?1");
            let row = connection.query_row(&sql, [key], read).optional()?;
            row.map(decode).transpose()
        })
        .await
}

/// The last ones, newest first, before this number.
pub(crate) async fn list(store: &Store, before: u64, limit: u32) -> Result<Vec<Deployment>, Error> {
    store
        .read(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM deployment WHERE number < ?1 ORDER BY number DESC LIMIT ?2"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let before = i64::try_from(before).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![before, limit], read)?;
            rows.map(|row| Ok(decode(row?)?.deployment)).collect()
        })
        .await
}

/// Writes a new one with its audit row; whatever was under way is superseded. Gives its number.
pub(crate) async fn insert(
    store: &Store,
    row: Row,
    key: Option<String>,
    action: Action,
) -> Result<u64, Error> {
    store
        .write(move |tx| -> Result<u64, Error> {
            let last: i64 = tx.query_row(
                "SELECT coalesce(max(number), 0) FROM deployment",
                [],
                |row| row.get(0),
            )?;
            let number = last + 1;
            supersede(tx, number, row.deployment.at)?;
            write(tx, number, &row, key.as_deref())?;
            tx.execute(
                "DELETE FROM deployment WHERE number <= ?1 - ?2",
                params![number, DEPLOYMENTS_MAX],
            )?;
            append_audit(tx, &action)?;
            Ok(number.cast_unsigned())
        })
        .await
}

/// Whatever is under way is overtaken, and so are those of its services that have not come to their end.
fn supersede(tx: &Transaction<'_>, by: i64, at: f64) -> Result<(), Error> {
    let under_way = word(&DeploymentState::UnderWay);
    let mut statement =
        tx.prepare_cached("SELECT number, services FROM deployment WHERE state = ?1")?;
    let found = statement
        .query_map([under_way], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(i64, String)>, _>>()?;
    for (number, services) in found {
        let mut services: BTreeMap<ServiceName, ServiceOutcome> = serde_json::from_str(&services)?;
        for outcome in services.values_mut() {
            if outcome.state == DeploymentState::UnderWay {
                outcome.state = DeploymentState::Superseded;
            }
        }
        tx.execute(
            "UPDATE deployment SET state = ?2, detail = ?3, ended = ?4, services = ?5, base = NULL
             WHERE number = ?1",
            params![
                number,
                word(&DeploymentState::Superseded),
                format!("deployment {by} came before it was done"),
                at,
                serde_json::to_string(&services)?,
            ],
        )?;
    }
    Ok(())
}

/// Writes how it goes on.
pub(crate) async fn update(store: &Store, row: Row, action: Option<Action>) -> Result<(), Error> {
    store
        .write(move |tx| -> Result<(), Error> {
            let told = &row.deployment;
            tx.execute(
                "UPDATE deployment SET state = ?2, detail = ?3, ended = ?4, services = ?5, effective = ?6, base = ?7
                 WHERE number = ?1",
                params![
                    told.number.cast_signed(),
                    word(&told.state),
                    told.detail,
                    told.ended,
                    serde_json::to_string(&told.services)?,
                    effective(&row)?,
                    base(&row)?,
                ],
            )?;
            match &action {
                Some(action) => append_audit(tx, action),
                None => Ok(()),
            }
        })
        .await
}

fn append_audit(tx: &Transaction<'_>, action: &Action) -> Result<(), Error> {
    audit::append(
        tx,
        &audit::Entry {
            time_unix_us: action.time_unix_us,
            actor: &action.actor,
            action: &action.action,
            target: &action.target,
            outcome: action.outcome,
            detail: &action.detail,
        },
    )
    .map(drop)
}

fn write(tx: &Transaction<'_>, number: i64, row: &Row, key: Option<&str>) -> Result<(), Error> {
    let told = &row.deployment;
    tx.execute(
        "INSERT INTO deployment (number, at, actor, reason, digest, file_digest, rollback_to, state, detail,
                                 ended, services, fleet, effective, base, idempotency_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        params![
            number,
            told.at,
            told.actor,
            told.reason,
            told.digest,
            row.file_digest,
            told.rollback_to.map(u64::cast_signed),
            word(&told.state),
            told.detail,
            told.ended,
            serde_json::to_string(&told.services)?,
            serde_json::to_string(&*row.fleet)?,
            effective(row)?,
            base(row)?,
            key,
        ],
    )?;
    Ok(())
}

/// Not written twice where it is what was accepted.
fn effective(row: &Row) -> Result<Option<String>, Error> {
    let differs = row.effective != row.fleet;
    let text = differs
        .then(|| serde_json::to_string(&*row.effective))
        .transpose()?;
    Ok(text)
}

fn base(row: &Row) -> Result<Option<String>, Error> {
    let base = row.base.as_ref();
    Ok(base
        .map(|base| serde_json::to_string(&**base))
        .transpose()?)
}

fn one(connection: &Connection, which: &str, number: i64) -> Result<Option<Row>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM deployment {which}");
    let mut statement = connection.prepare_cached(&sql)?;
    let row = match which.contains("?1") {
        true => statement.query_row([number], read).optional()?,
        false => statement.query_row([], read).optional()?,
    };
    row.map(decode).transpose()
}

/// A row as the database has it.
struct Raw {
    deployment: Deployment,
    file_digest: String,
    services: String,
    fleet: String,
    effective: Option<String>,
    base: Option<String>,
}

fn read(row: &SqlRow<'_>) -> Result<Raw, alicia_store::rusqlite::Error> {
    Ok(Raw {
        deployment: Deployment {
            number: row.get::<_, i64>(0)?.cast_unsigned(),
            at: row.get(1)?,
            actor: row.get(2)?,
            reason: row.get(3)?,
            digest: row.get(4)?,
            rollback_to: row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned),
            state: from_word(&row.get::<_, String>(7)?).unwrap_or(DeploymentState::Done),
            detail: row.get(8)?,
            ended: row.get(9)?,
            services: BTreeMap::new(),
        },
        file_digest: row.get(5)?,
        services: row.get(10)?,
        fleet: row.get(11)?,
        effective: row.get(12)?,
        base: row.get(13)?,
    })
}

fn decode(raw: Raw) -> Result<Row, Error> {
    let fleet: Arc<Fleet> = Arc::new(serde_json::from_str(&raw.fleet)?);
    let read = |text: &String| serde_json::from_str::<Fleet>(text).map(Arc::new);
    let services: BTreeMap<ServiceName, ServiceOutcome> = serde_json::from_str(&raw.services)?;
    Ok(Row {
        deployment: Deployment {
            services,
            ..raw.deployment
        },
        file_digest: raw.file_digest,
        effective: raw
            .effective
            .as_ref()
            .map(read)
            .transpose()?
            .unwrap_or_else(|| fleet.clone()),
        base: raw.base.as_ref().map(read).transpose()?,
        fleet,
    })
}

#[cfg(test)]
impl Row {
    /// A deployment of this fleet that has been accepted, and no other fleet beside it.
    pub(crate) fn under_way(
        fleet: Arc<Fleet>,
        services: BTreeMap<ServiceName, ServiceOutcome>,
    ) -> Self {
        Self {
            deployment: Deployment {
                number: 0,
                at: 5.0,
                actor: "key/admin".to_owned(),
                reason: None,
                digest: "d".to_owned(),
                rollback_to: None,
                state: DeploymentState::UnderWay,
                detail: String::new(),
                ended: None,
                services,
            },
            file_digest: "d".to_owned(),
            effective: fleet.clone(),
            base: Some(fleet.clone()),
            fleet,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_module::Clock;
    use alicia_store::Options;
    use alicia_store::audit::Outcome;
    use serde_json::json;

    fn row(services: &[(&str, DeploymentState)]) -> Row {
        let fleet = json!({ "name": "home", "services": {} });
        let fleet: Arc<Fleet> = Arc::new(serde_json::from_value(fleet).expect("a fleet"));
        let services = services.iter().map(|(name, state)| {
            let outcome = ServiceOutcome {
                state: *state,
                detail: "as it was".to_owned(),
                last_lines: Vec::new(),
            };
            (ServiceName::new(*name).expect("a name"), outcome)
        });
        Row::under_way(fleet, services.collect())
    }

    fn action() -> Action {
        Action {
            time_unix_us: 5_000_000,
            actor: "key/admin".to_owned(),
            action: ["orchestrator", "deploy"].join("."),
            target: "fleet".to_owned(),
            outcome: Outcome::Done,
            detail: json!({}),
            about: Vec::new(),
            reason: None,
        }
    }

    #[tokio::test]
    async fn one_that_is_overtaken_leaves_no_service_under_way() {
        use DeploymentState::{Done, Superseded, UnderWay};
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("orchestrator.db");
        let clock = Clock::system().for_store();
        let store =
            Store::open(Options::new(path, super::super::MIGRATIONS, clock)).expect("a store");
        let first = row(&[("api", UnderWay), ("db", Done)]);
        insert(&store, first, None, action())
            .await
            .expect("written");
        insert(&store, row(&[]), None, action())
            .await
            .expect("written");
        let found = by_number(&store, 1)
            .await
            .expect("read")
            .expect("it is kept");
        assert_eq!(found.deployment.state, Superseded);
        assert_eq!(found.deployment.ended, Some(5.0));
        assert!(found.base.is_none());
        let states: Vec<_> = found
            .deployment
            .services
            .values()
            .map(|outcome| outcome.state)
            .collect();
        assert_eq!(states, [Superseded, Done]);
        store.close().await;
    }
}
