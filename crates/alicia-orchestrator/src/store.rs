//! What is written down: each slot, what people asked for, the history. All SQL of the module.

pub(crate) mod deployments;

use std::collections::BTreeMap;

use alicia_contract::orchestrator::{InstanceState, Transition};
use alicia_contract::{Epoch, InstanceId, ServiceName};
use alicia_store::rusqlite::{OptionalExtension, params};
use alicia_store::{Connection, Error, Migration, Store, Transaction, audit};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::core::budget::Account;
use crate::core::event::{Memory, Record, Remembered, SlotId};
use crate::core::plan::{Overrides, Scale};
use crate::history;

/// Transitions that are kept: a fleet of 50 that is restarted daily fills this in two months.
pub const TRANSITIONS_MAX: u32 = 10_000;

/// The schema.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "slots, overrides, transitions",
        sql: "CREATE TABLE slot (
              service TEXT NOT NULL,
              slot INTEGER NOT NULL,
              epoch INTEGER NOT NULL,
              instance TEXT,
              state TEXT NOT NULL,
              since REAL NOT NULL,
              restarts INTEGER NOT NULL,
              exit TEXT,
              reason TEXT NOT NULL,
              digest TEXT NOT NULL,
              PRIMARY KEY (service, slot)
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE override (
              service TEXT NOT NULL PRIMARY KEY,
              enabled INTEGER,
              instances INTEGER,
              file_instances INTEGER
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE transition (
              id INTEGER PRIMARY KEY AUTOINCREMENT,
              service TEXT NOT NULL,
              transition TEXT NOT NULL
          ) STRICT;
          CREATE INDEX transition_by_service ON transition (service, id);
          CREATE TABLE keeper (
              one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
              started_unix_ms INTEGER NOT NULL
          ) STRICT;",
    },
    Migration {
        number: 2,
        name: "waits, accounts, histories",
        sql: "ALTER TABLE slot ADD COLUMN next_start REAL;
          CREATE TABLE account (
              service TEXT NOT NULL PRIMARY KEY,
              account TEXT NOT NULL
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE history (
              id INTEGER PRIMARY KEY AUTOINCREMENT,
              service TEXT NOT NULL,
              slot INTEGER NOT NULL,
              entry TEXT NOT NULL
          ) STRICT;
          CREATE INDEX history_by_slot ON history (service, slot, id);",
    },
    Migration {
        number: 3,
        name: "deployments",
        sql: deployments::SCHEMA,
    },
];

/// A command as it stands in the audit log.
#[derive(Debug, Clone)]
pub(crate) struct Action {
    pub(crate) time_unix_us: i64,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) outcome: audit::Outcome,
    pub(crate) detail: serde_json::Value,
    /// The services that it is about, for their histories.
    pub(crate) about: Vec<ServiceName>,
    /// Why, as the person said.
    pub(crate) reason: Option<String>,
}

/// Everything that is remembered, and the start time of the keeper that it is about.
pub(crate) async fn load(store: &Store) -> Result<(Memory, Option<u64>), Error> {
    store
        .read(|connection| {
            let memory = Memory {
                slots: load_slots(connection)?,
                overrides: load_overrides(connection)?,
                accounts: load_accounts(connection)?,
            };
            let keeper = connection
                .query_row("SELECT started_unix_ms FROM keeper", [], |row| {
                    row.get::<_, i64>(0)
                })
                .optional()?;
            Ok((memory, keeper.map(i64::cast_unsigned)))
        })
        .await
}

fn load_slots(connection: &Connection) -> Result<BTreeMap<SlotId, Remembered>, Error> {
    let sql = "SELECT service, slot, epoch, instance, state, since, restarts, exit, reason, digest,
                      next_start
               FROM slot";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut slots = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let service: String = row.get(0)?;
        let instance: Option<String> = row.get(3)?;
        let exit: Option<String> = row.get(7)?;
        let Ok(service) = ServiceName::new(service) else {
            continue;
        };
        let remembered = Remembered {
            epoch: Epoch(row.get::<_, i64>(2)?.cast_unsigned()),
            instance: instance.and_then(|text| InstanceId::new(text).ok()),
            // A state of a newer version counts as the one that is looked at anew.
            state: from_word(&row.get::<_, String>(4)?).unwrap_or(InstanceState::Waiting),
            since: row.get(5)?,
            restarts: row.get(6)?,
            exit: exit.and_then(|text| serde_json::from_str(&text).ok()),
            reason: row.get(8)?,
            next_start: row.get(10)?,
            digest: row.get::<_, String>(9)?.into(),
        };
        slots.insert(
            SlotId {
                service,
                slot: row.get(1)?,
            },
            remembered,
        );
    }
    Ok(slots)
}

fn load_accounts(connection: &Connection) -> Result<BTreeMap<ServiceName, Account>, Error> {
    let mut statement = connection.prepare("SELECT service, account FROM account")?;
    let mut rows = statement.query([])?;
    let mut accounts = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (service, account): (String, String) = (row.get(0)?, row.get(1)?);
        // One that a newer version wrote differently begins anew.
        if let (Ok(service), Ok(account)) =
            (ServiceName::new(service), serde_json::from_str(&account))
        {
            accounts.insert(service, account);
        }
    }
    Ok(accounts)
}

/// Writes what services have used up.
pub(crate) async fn write_accounts(
    store: &Store,
    accounts: BTreeMap<ServiceName, Account>,
) -> Result<(), Error> {
    store
        .write(move |tx| -> Result<(), Error> {
            let sql = "INSERT INTO account (service, account) VALUES (?1, ?2)
                       ON CONFLICT (service) DO UPDATE SET account = excluded.account";
            for (service, account) in &accounts {
                let account = serde_json::to_string(account)?;
                tx.prepare_cached(sql)?
                    .execute(params![service.as_str(), account])?;
            }
            Ok(())
        })
        .await
}

fn load_overrides(connection: &Connection) -> Result<BTreeMap<ServiceName, Overrides>, Error> {
    let sql = "SELECT service, enabled, instances, file_instances FROM override";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut overrides = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let service: String = row.get(0)?;
        let scale = Option::zip(row.get(2)?, row.get(3)?);
        let found = Overrides {
            enabled: row.get(1)?,
            scale: scale.map(|(instances, file_instances)| Scale {
                instances,
                file_instances,
            }),
        };
        if let Ok(service) = ServiceName::new(service) {
            overrides.insert(service, found);
        }
    }
    Ok(overrides)
}

/// Writes a command and its audit row together: what cannot be audited is not done.
pub(crate) async fn write_command(
    store: &Store,
    action: Action,
    overrides: BTreeMap<ServiceName, Overrides>,
) -> Result<(), Error> {
    store
        .write(move |tx| -> Result<(), Error> {
            for (service, set) in &overrides {
                write_override(tx, service, *set)?;
            }
            history::write_command(tx, &action)?;
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
        })
        .await
}

fn write_override(
    tx: &Transaction<'_>,
    service: &ServiceName,
    set: Overrides,
) -> Result<(), Error> {
    let sql = "INSERT INTO override (service, enabled, instances, file_instances)
               VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (service) DO UPDATE SET
                   enabled = coalesce(excluded.enabled, enabled),
                   instances = coalesce(excluded.instances, instances),
                   file_instances = coalesce(excluded.file_instances, file_instances)";
    let instances = set.scale.map(|scale| scale.instances);
    let file_instances = set.scale.map(|scale| scale.file_instances);
    tx.prepare_cached(sql)?.execute(params![
        service.as_str(),
        set.enabled,
        instances,
        file_instances
    ])?;
    Ok(())
}

/// Writes transitions in order, each slot as it is after the last one, and drops the oldest.
pub(crate) async fn write_records(store: &Store, records: Vec<Record>) -> Result<(), Error> {
    store
        .write(move |tx| -> Result<(), Error> {
            for record in &records {
                write_slot(tx, record)?;
                history::write_transition(tx, &record.transition)?;
                // The lines stay in the logs, and the last ones in the history of the slot.
                let mut transition = record.transition.clone();
                transition.last_lines.clear();
                let transition = serde_json::to_string(&transition)?;
                tx.prepare_cached("INSERT INTO transition (service, transition) VALUES (?1, ?2)")?
                    .execute(params![record.transition.service.as_str(), transition])?;
            }
            let sql = "DELETE FROM transition
                       WHERE id <= (SELECT max(id) FROM transition) - ?1";
            tx.prepare_cached(sql)?.execute([TRANSITIONS_MAX])?;
            history::prune(tx, records.iter().map(|record| &record.transition))?;
            Ok(())
        })
        .await
}

fn write_slot(tx: &Transaction<'_>, record: &Record) -> Result<(), Error> {
    let sql = "INSERT INTO slot
                   (service, slot, epoch, instance, state, since, restarts, exit, reason, digest,
                    next_start)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
               ON CONFLICT (service, slot) DO UPDATE SET
                   epoch = max(epoch, excluded.epoch), instance = excluded.instance,
                   state = excluded.state, since = excluded.since, restarts = excluded.restarts,
                   exit = excluded.exit, reason = excluded.reason,
                   digest = excluded.digest, next_start = excluded.next_start";
    let transition = &record.transition;
    let exit = record
        .exit
        .as_ref()
        .map(serde_json::to_string)
        .transpose()?;
    tx.prepare_cached(sql)?.execute(params![
        transition.service.as_str(),
        transition.slot,
        transition.epoch.0.cast_signed(),
        transition.instance.as_ref().map(InstanceId::as_str),
        word(&transition.to),
        transition.at,
        transition.restarts,
        exit,
        transition.reason,
        record.digest.as_str(),
        transition.next_start,
    ])?;
    Ok(())
}

/// Remembers which keeper the slots are about.
pub(crate) async fn write_keeper(store: &Store, started_unix_ms: u64) -> Result<(), Error> {
    store
        .write(move |tx| -> Result<(), Error> {
            tx.execute(
                "INSERT INTO keeper (one, started_unix_ms) VALUES (1, ?1)
                 ON CONFLICT (one) DO UPDATE SET started_unix_ms = excluded.started_unix_ms",
                [started_unix_ms.cast_signed()],
            )?;
            Ok(())
        })
        .await
}

/// The house closes: the next `up` begins anew, except that epochs go on.
pub(crate) async fn begin_anew(store: &Store) -> Result<(), Error> {
    store
        .write(|tx| -> Result<(), Error> {
            tx.execute("DELETE FROM override", [])?;
            tx.execute("DELETE FROM keeper", [])?;
            Ok(())
        })
        .await
}

/// The last transitions, newest first, of one service or of all.
pub(crate) async fn transitions(
    store: &Store,
    service: Option<ServiceName>,
    limit: u32,
) -> Result<Vec<Transition>, Error> {
    store
        .read(move |connection| {
            let sql = "SELECT transition FROM transition
                       WHERE ?1 IS NULL OR service = ?1 ORDER BY id DESC LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let service = service.as_ref().map(ServiceName::as_str);
            let mut rows = statement.query(params![service, limit])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(serde_json::from_str(
                    row.get_ref(0)?
                        .as_str()
                        .map_err(alicia_store::rusqlite::Error::from)?,
                )?);
            }
            Ok::<_, Error>(found)
        })
        .await
}

/// The word of a state, as it is in JSON.
fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn from_word<T: DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}
