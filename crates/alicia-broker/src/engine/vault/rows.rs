//! The broker's tables: the only place with SQL. Rows know nothing of the MQTT library.

use alicia_store::rusqlite::{self, Connection, Row, Transaction, params};
use alicia_store::{Error, Migration};
use serde::{Deserialize, Serialize};

/// The migrations of the broker's database.
pub const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "sessions",
    sql: "
        CREATE TABLE retained (
            topic TEXT PRIMARY KEY,
            message TEXT NOT NULL,
            payload BLOB NOT NULL,
            expires_ms INTEGER
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE session (
            client_id TEXT PRIMARY KEY,
            owner TEXT NOT NULL,
            protocol_level INTEGER NOT NULL,
            expiry_s INTEGER NOT NULL,
            created_ms INTEGER NOT NULL,
            disconnected_ms INTEGER
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE subscription (
            client_id TEXT NOT NULL,
            filter TEXT NOT NULL,
            options TEXT NOT NULL,
            PRIMARY KEY (client_id, filter)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE message (
            id INTEGER PRIMARY KEY,
            client_id TEXT NOT NULL,
            message TEXT NOT NULL,
            payload BLOB NOT NULL,
            packet_id INTEGER,
            stage INTEGER NOT NULL DEFAULT 0
        ) STRICT;
        CREATE INDEX message_of_client ON message (client_id, id);
    ",
}];

/// A message without its payload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredMessage {
    pub(crate) topic: String,
    pub(crate) qos: u8,
    #[serde(default)]
    pub(crate) retain: bool,
    pub(crate) sender: String,
    pub(crate) created_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expiry_s: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) response_topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) correlation_data: Option<Vec<u8>>,
    #[serde(default)]
    pub(crate) is_utf8: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) user: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) subscription_ids: Vec<u32>,
}

/// A session's own data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredSession {
    pub(crate) client_id: String,
    pub(crate) owner: String,
    pub(crate) protocol_level: u8,
    pub(crate) expiry_s: u32,
    pub(crate) created_ms: i64,
    /// None while connected; after a crash the session counts as disconnected at the next start.
    pub(crate) disconnected_ms: Option<i64>,
}

/// What a subscription asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredOptions {
    pub(crate) protocol_level: u8,
    pub(crate) qos: u8,
    pub(crate) share: Option<String>,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: u8,
    pub(crate) id: Option<u32>,
}

/// How far a message has come on its way to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not sent yet.
    Waiting,
    /// Sent, and not acknowledged.
    Sent,
    /// QoS 2: received by the client, not completed.
    Received,
}

impl Stage {
    fn number(self) -> u8 {
        match self {
            Self::Waiting => 0,
            Self::Sent => 1,
            Self::Received => 2,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Sent,
            2 => Self::Received,
            _ => Self::Waiting,
        }
    }
}

/// A message that waits for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredDelivery {
    pub(crate) id: i64,
    pub(crate) message: StoredMessage,
    pub(crate) payload: Vec<u8>,
    pub(crate) packet_id: Option<u16>,
    pub(crate) stage: Stage,
}

/// A message for one client, its payload apart: that is the same for all its receivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewDelivery {
    pub(crate) id: i64,
    pub(crate) client_id: String,
    pub(crate) message: StoredMessage,
}

/// Everything about one session.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    pub(crate) session: StoredSession,
    pub(crate) subscriptions: Vec<(String, StoredOptions)>,
    pub(crate) deliveries: Vec<StoredDelivery>,
}

/// A retained message with its payload and end.
pub(crate) type RetainedRow = (StoredMessage, Vec<u8>, Option<i64>);

pub(crate) fn put_retained(
    tx: &Transaction<'_>,
    message: &StoredMessage,
    payload: &[u8],
    expires_ms: Option<i64>,
) -> Result<(), Error> {
    tx.prepare_cached("INSERT OR REPLACE INTO retained VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![message.topic, json(message)?, payload, expires_ms])?;
    Ok(())
}

pub(crate) fn delete_retained(tx: &Transaction<'_>, topic: &str) -> Result<(), Error> {
    tx.prepare_cached("DELETE FROM retained WHERE topic = ?1")?
        .execute([topic])?;
    Ok(())
}

pub(crate) fn put_session(tx: &Transaction<'_>, session: &StoredSession) -> Result<(), Error> {
    tx.prepare_cached("INSERT OR REPLACE INTO session VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            session.client_id,
            session.owner,
            session.protocol_level,
            session.expiry_s,
            session.created_ms,
            session.disconnected_ms
        ])?;
    Ok(())
}

/// Notes that a client has left, and until when its session is kept.
pub(crate) fn put_absence(
    tx: &Transaction<'_>,
    client_id: &str,
    expiry_s: u32,
    disconnected_ms: i64,
) -> Result<(), Error> {
    tx.prepare_cached(
        "UPDATE session SET expiry_s = ?2, disconnected_ms = ?3 WHERE client_id = ?1",
    )?
    .execute(params![client_id, expiry_s, disconnected_ms])?;
    Ok(())
}

pub(crate) fn delete_session(tx: &Transaction<'_>, client_id: &str) -> Result<(), Error> {
    for sql in [
        "DELETE FROM session WHERE client_id = ?1",
        "DELETE FROM subscription WHERE client_id = ?1",
        "DELETE FROM message WHERE client_id = ?1",
    ] {
        tx.prepare_cached(sql)?.execute([client_id])?;
    }
    Ok(())
}

pub(crate) fn put_subscription(
    tx: &Transaction<'_>,
    client_id: &str,
    filter: &str,
    options: &StoredOptions,
) -> Result<(), Error> {
    tx.prepare_cached("INSERT OR REPLACE INTO subscription VALUES (?1, ?2, ?3)")?
        .execute(params![client_id, filter, json(options)?])?;
    Ok(())
}

pub(crate) fn delete_subscription(
    tx: &Transaction<'_>,
    client_id: &str,
    filter: &str,
) -> Result<(), Error> {
    tx.prepare_cached("DELETE FROM subscription WHERE client_id = ?1 AND filter = ?2")?
        .execute([client_id, filter])?;
    Ok(())
}

pub(crate) fn put_deliveries(
    tx: &Transaction<'_>,
    deliveries: &[NewDelivery],
    payload: &[u8],
) -> Result<(), Error> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO message (id, client_id, message, payload) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for delivery in deliveries {
        let message = json(&delivery.message)?;
        insert.execute(params![delivery.id, delivery.client_id, message, payload])?;
    }
    Ok(())
}

/// Notes how far messages have come: row, packet id, stage.
pub(crate) fn put_stages(tx: &Transaction<'_>, stages: &[(i64, u16, Stage)]) -> Result<(), Error> {
    let mut update =
        tx.prepare_cached("UPDATE message SET packet_id = ?2, stage = ?3 WHERE id = ?1")?;
    for (id, packet_id, stage) in stages {
        update.execute(params![id, packet_id, stage.number()])?;
    }
    Ok(())
}

pub(crate) fn delete_deliveries(tx: &Transaction<'_>, ids: &[i64]) -> Result<(), Error> {
    let mut delete = tx.prepare_cached("DELETE FROM message WHERE id = ?1")?;
    for id in ids {
        delete.execute([id])?;
    }
    Ok(())
}

pub(crate) fn all_retained(connection: &Connection) -> Result<Vec<RetainedRow>, Error> {
    let mut select = connection.prepare("SELECT message, payload, expires_ms FROM retained")?;
    let rows = select.query_map([], |row| Ok((message(row, 0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn all_sessions(connection: &Connection) -> Result<Vec<Remembered>, Error> {
    let mut select = connection.prepare(
        "SELECT client_id, owner, protocol_level, expiry_s, created_ms, disconnected_ms
         FROM session",
    )?;
    let rows = select.query_map([], |row| {
        Ok(StoredSession {
            client_id: row.get(0)?,
            owner: row.get(1)?,
            protocol_level: row.get(2)?,
            expiry_s: row.get(3)?,
            created_ms: row.get(4)?,
            disconnected_ms: row.get(5)?,
        })
    })?;
    rows.map(|session| {
        let session = session?;
        let subscriptions = subscriptions_of(connection, &session.client_id)?;
        let deliveries = deliveries_of(connection, &session.client_id)?;
        Ok(Remembered {
            session,
            subscriptions,
            deliveries,
        })
    })
    .collect()
}

/// The highest row id in use.
pub(crate) fn last_delivery(connection: &Connection) -> Result<i64, Error> {
    let last = connection.query_row("SELECT max(id) FROM message", [], |row| row.get(0));
    Ok(last.map(|id: Option<i64>| id.unwrap_or(0))?)
}

fn subscriptions_of(
    connection: &Connection,
    client_id: &str,
) -> Result<Vec<(String, StoredOptions)>, Error> {
    let mut select = connection
        .prepare_cached("SELECT filter, options FROM subscription WHERE client_id = ?1")?;
    let rows = select.query_map([client_id], |row| Ok((row.get(0)?, from_json(row, 1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn deliveries_of(connection: &Connection, client_id: &str) -> Result<Vec<StoredDelivery>, Error> {
    let mut select = connection.prepare_cached(
        "SELECT id, message, payload, packet_id, stage FROM message
         WHERE client_id = ?1 ORDER BY id",
    )?;
    let rows = select.query_map([client_id], |row| {
        Ok(StoredDelivery {
            id: row.get(0)?,
            message: message(row, 1)?,
            payload: row.get(2)?,
            packet_id: row.get(3)?,
            stage: Stage::from_number(row.get(4)?),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn json<T: Serialize>(value: &T) -> Result<String, Error> {
    Ok(serde_json::to_string(value)?)
}

fn message(row: &Row<'_>, column: usize) -> rusqlite::Result<StoredMessage> {
    from_json(row, column)
}

fn from_json<T: for<'de> Deserialize<'de>>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|fault| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(fault))
    })
}
