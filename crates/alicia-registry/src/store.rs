//! The rows of the registry: one per entry, gone ones included while they are remembered.

use alicia_contract::discovery::RegisteredInstance;
use alicia_store::{Connection, Error, Migration, Transaction};

use crate::core::{Ending, Entry};

/// The schema.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "instances",
    sql: "CREATE TABLE instance (
              id     TEXT PRIMARY KEY,
              body   TEXT NOT NULL,
              reason TEXT NOT NULL,
              ending TEXT
          ) STRICT, WITHOUT ROWID",
}];

/// Writes the row of an entry.
pub(crate) fn save(tx: &Transaction<'_>, entry: &Entry) -> Result<(), Error> {
    let body = serde_json::to_string(&entry.public())?;
    let ending = entry.ending.map(Ending::as_str);
    tx.prepare_cached(
        "INSERT INTO instance (id, body, reason, ending) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET body = ?2, reason = ?3, ending = ?4",
    )?
    .execute((
        entry.registration.instance.as_str(),
        body,
        &entry.reason,
        ending,
    ))?;
    Ok(())
}

/// Deletes a row. That it is not there is no fault.
pub(crate) fn forget(tx: &Transaction<'_>, id: &str) -> Result<(), Error> {
    tx.prepare_cached("DELETE FROM instance WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// Every entry. A row that this version cannot read is left where it is and skipped, with a warning.
pub(crate) fn load(connection: &Connection) -> Result<Vec<Entry>, Error> {
    let mut statement = connection.prepare("SELECT id, body, reason, ending FROM instance")?;
    let mut rows = statement.query([])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, body): (String, String) = (row.get(0)?, row.get(1)?);
        let ending: Option<String> = row.get(3)?;
        match serde_json::from_str::<RegisteredInstance>(&body) {
            Ok(saved) => {
                let ending = ending.as_deref().map(Ending::from_text);
                entries.push(Entry::from_saved(saved, row.get(2)?, ending));
            }
            Err(error) => tracing::warn!(id, %error, "a row of the registry cannot be read"),
        }
    }
    Ok(entries)
}
