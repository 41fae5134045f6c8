//! The history of each slot: what happened to it and who asked for what, bounded per slot, so that one that
//! crashes again and again does not push out the others.

use alicia_contract::orchestrator::Transition;
use alicia_contract::{ServiceName, UnixSeconds};
use alicia_module::Context;
use alicia_store::rusqlite::params;
use alicia_store::{Connection, Error, Store, Transaction};
use serde::{Deserialize, Serialize};

use crate::store::Action;

/// Entries that are kept of each slot, and of commands of each service.
pub(crate) const ENTRIES_MAX: u32 = 200;
/// Starts of hosts and keepers that are kept.
const STARTS_MAX: u32 = 50;
/// Lines of output that are kept with an end, and how much of each, in characters.
const LINES_MAX: usize = 5;
const LINE_CHARS_MAX: usize = 300;

/// The service and the slot of what is about everything.
const EVERYTHING: (&str, u32) = ("", 0);
/// The slot of what is about a whole service.
const WHOLE_SERVICE: u32 = 0;

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Entry {
    /// A change of a slot.
    Transition(Box<Transition>),
    /// Somebody asked for something.
    Command {
        /// When.
        at: UnixSeconds,
        /// What: `restart`.
        verb: String,
        /// Who.
        by: String,
        /// Why, as they said.
        reason: Option<String>,
    },
    /// The host started.
    Host {
        /// When.
        at: UnixSeconds,
        /// Its version.
        version: String,
    },
    /// Another keeper: the machine or the keeper was started anew.
    Keeper {
        /// When.
        at: UnixSeconds,
    },
}

impl Entry {
    /// When it was.
    pub(crate) fn at(&self) -> UnixSeconds {
        match self {
            Self::Transition(transition) => transition.at,
            Self::Command { at, .. } | Self::Host { at, .. } | Self::Keeper { at } => *at,
        }
    }
}

/// Writes a transition, with its last lines.
pub(crate) fn write_transition(tx: &Transaction<'_>, transition: &Transition) -> Result<(), Error> {
    let mut kept = transition.clone();
    let surplus = kept.last_lines.len().saturating_sub(LINES_MAX);
    kept.last_lines.drain(..surplus);
    for line in &mut kept.last_lines {
        *line = line.chars().take(LINE_CHARS_MAX).collect();
    }
    let service = transition.service.as_str();
    insert(
        tx,
        (service, transition.slot),
        &Entry::Transition(Box::new(kept)),
    )
}

/// Writes a command into the history of each service that it is about.
pub(crate) fn write_command(tx: &Transaction<'_>, action: &Action) -> Result<(), Error> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "2^53 microseconds are 285 years"
    )]
    let entry = Entry::Command {
        at: action.time_unix_us as f64 / 1e6,
        verb: action
            .action
            .strip_prefix("orchestrator.")
            .unwrap_or(&action.action)
            .to_owned(),
        by: action.actor.clone(),
        reason: action.reason.clone(),
    };
    for service in &action.about {
        insert(tx, (service.as_str(), WHOLE_SERVICE), &entry)?;
        keep_newest(tx, (service.as_str(), WHOLE_SERVICE), ENTRIES_MAX)?;
    }
    Ok(())
}

/// Drops the oldest entries of the slots that were just written.
pub(crate) fn prune<'t>(
    tx: &Transaction<'_>,
    written: impl Iterator<Item = &'t Transition>,
) -> Result<(), Error> {
    let slots: std::collections::BTreeSet<_> = written
        .map(|transition| (transition.service.as_str(), transition.slot))
        .collect();
    for slot in slots {
        keep_newest(tx, slot, ENTRIES_MAX)?;
    }
    Ok(())
}

/// Notes that the host started; what cannot be written is missing in stories, and nowhere else.
pub(crate) fn note_host(cx: &Context) {
    let entry = Entry::Host {
        at: cx.clock.unix(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    note(cx, entry);
}

/// Notes that there is another keeper.
pub(crate) fn note_keeper(cx: &Context) {
    let entry = Entry::Keeper {
        at: cx.clock.unix(),
    };
    note(cx, entry);
}

fn note(cx: &Context, entry: Entry) {
    let store = cx.store.clone();
    cx.spawn("note a start", async move {
        if let Err(error) = write_start(&store, entry).await {
            tracing::warn!(%error, "a start is missing in the history");
        }
    });
}

/// Writes that the host, or a new keeper, started.
async fn write_start(store: &Store, entry: Entry) -> Result<(), Error> {
    store
        .write(move |tx| -> Result<(), Error> {
            insert(tx, EVERYTHING, &entry)?;
            keep_newest(tx, EVERYTHING, STARTS_MAX)
        })
        .await
}

fn insert(tx: &Transaction<'_>, slot: (&str, u32), entry: &Entry) -> Result<(), Error> {
    let entry = serde_json::to_string(entry)?;
    tx.prepare_cached("INSERT INTO history (service, slot, entry) VALUES (?1, ?2, ?3)")?
        .execute(params![slot.0, slot.1, entry])?;
    Ok(())
}

fn keep_newest(tx: &Transaction<'_>, slot: (&str, u32), count: u32) -> Result<(), Error> {
    let sql = "DELETE FROM history WHERE service = ?1 AND slot = ?2 AND id <= (
                   SELECT id FROM history WHERE service = ?1 AND slot = ?2
                   ORDER BY id DESC LIMIT 1 OFFSET ?3)";
    tx.prepare_cached(sql)?
        .execute(params![slot.0, slot.1, count])?;
    Ok(())
}

/// What is known of the past of one service.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Past {
    /// Of its slots and of itself, the oldest first.
    pub(crate) own: Vec<(u32, Entry)>,
    /// Of host and keeper, the oldest first.
    pub(crate) starts: Vec<Entry>,
}

/// The past of some services.
pub(crate) async fn read(
    store: &Store,
    services: Vec<ServiceName>,
) -> Result<std::collections::BTreeMap<ServiceName, Past>, Error> {
    store
        .read(move |connection| {
            let starts: Vec<Entry> = read_one(connection, EVERYTHING.0)?
                .into_iter()
                .map(|(_, entry)| entry)
                .collect();
            let mut found = std::collections::BTreeMap::new();
            for service in services {
                let past = Past {
                    own: read_one(connection, service.as_str())?,
                    starts: starts.clone(),
                };
                found.insert(service, past);
            }
            Ok::<_, Error>(found)
        })
        .await
}

fn read_one(connection: &Connection, service: &str) -> Result<Vec<(u32, Entry)>, Error> {
    let sql = "SELECT slot, entry FROM history WHERE service = ?1 ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([service])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (slot, entry): (u32, String) = (row.get(0)?, row.get(1)?);
        // One of a newer version is left out.
        if let Ok(entry) = serde_json::from_str(&entry) {
            found.push((slot, entry));
        }
    }
    Ok(found)
}
