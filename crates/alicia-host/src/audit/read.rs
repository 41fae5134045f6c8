//! Pages of rows of all modules. A cursor names the place in each module's log, so that no row is shown twice or missed,
//! whatever the clock did.

use std::collections::BTreeMap;
use std::path::Path;

use alicia_contract::audit::{AuditPage, AuditRow};
use alicia_store::Error;
use alicia_store::audit::{Cursor, Record, list, open_to_read};

use super::databases;

/// The most rows of a page.
pub const LIMIT_MAX: usize = 1_000;

/// Rows that are looked at for one page; then it ends, with the cursor to go on.
const LOOKED_AT_MAX: usize = 100_000;

/// Rows that are read at once.
const READ_ROWS: u32 = 500;

/// The longest cursor, in characters: some modules and their numbers.
const CURSOR_CHARS_MAX: usize = 2_000;

/// Which rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    /// Where to go on, to older rows.
    pub before: Option<Places>,
    /// Where to go on, to newer rows.
    pub after: Option<Places>,
    /// Not older, in microseconds since 1970.
    pub since_unix_us: Option<i64>,
    /// With this in the actor.
    pub by: Option<String>,
    /// With this in any text of the row.
    pub grep: Option<String>,
    /// Of this module only.
    pub module: Option<String>,
    /// Of this outcome only: `done`, `failed`, `denied`.
    pub outcome: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// A place in each module's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<String, i64>);

// === impl Places ===

impl Places {
    /// Reads `host:12,registry:4`; `None` when it is not a cursor.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > CURSOR_CHARS_MAX {
            return None;
        }
        let places = text.split(',').filter(|part| !part.is_empty()).map(|part| {
            let (module, id) = part.rsplit_once(':')?;
            Some((module.to_owned(), id.parse().ok()?))
        });
        places.collect::<Option<_>>().map(Self)
    }

    fn text(&self) -> String {
        let parts = self.0.iter().map(|(module, id)| format!("{module}:{id}"));
        parts.collect::<Vec<_>>().join(",")
    }
}

/// A module's log while a page is made of it.
struct Source {
    module: String,
    connection: alicia_store::Connection,
    is_forward: bool,
    /// The id of the last row that was used.
    at: i64,
    rows: std::vec::IntoIter<Record>,
    next: Option<Record>,
    is_at_end: bool,
}

/// The rows of a page, of all databases in a directory.
///
/// # Errors
/// A directory or database that cannot be read.
pub fn page(directory: &Path, query: &Query) -> Result<AuditPage, PageError> {
    let is_forward = query.after.is_some();
    let mut sources = Vec::new();
    let mut newest = query.after.clone().unwrap_or_default();
    for (module, path) in databases(directory)? {
        if query
            .module
            .as_ref()
            .is_some_and(|wanted| *wanted != module)
        {
            continue;
        }
        let connection = open_to_read(&path)?;
        if !is_forward {
            let last = alicia_store::audit::chain::head(&connection)?.id;
            newest.0.insert(module.clone(), last);
        }
        let at = match (&query.after, &query.before) {
            (Some(after), _) => after.0.get(&module).copied().unwrap_or(0),
            // A module that came later has no older rows.
            (None, Some(before)) => before.0.get(&module).copied().unwrap_or(0),
            (None, None) => i64::MAX,
        };
        let mut source = Source {
            module,
            connection,
            is_forward,
            at,
            rows: Vec::new().into_iter(),
            next: None,
            is_at_end: false,
        };
        source.fetch()?;
        sources.push(source);
    }
    let mut rows = Vec::new();
    let mut looked_at = 0;
    while rows.len() < query.limit && looked_at < LOOKED_AT_MAX {
        let Some((module, record)) = take(&mut sources)? else {
            break;
        };
        looked_at += 1;
        let is_too_old = query
            .since_unix_us
            .is_some_and(|since| record.time_unix_us < since);
        if is_too_old && !is_forward {
            // The rest of this module is older still.
            if let Some(source) = sources.iter_mut().find(|source| source.module == module) {
                source.next = None;
                source.is_at_end = true;
            }
            continue;
        }
        let row = row(module, record);
        if !is_too_old && query.admits(&row) {
            rows.push(row);
        }
    }
    let places = |sources: &[Source]| {
        Places(
            sources
                .iter()
                .map(|source| (source.module.clone(), source.at))
                .collect(),
        )
    };
    let is_over = sources
        .iter()
        .all(|source| source.next.is_none() && source.is_at_end);
    let after = if is_forward { places(&sources) } else { newest };
    Ok(AuditPage {
        rows,
        before: (!is_forward && !is_over).then(|| places(&sources).text()),
        after: after.text(),
    })
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The directory.
    #[error("read the directory of the databases")]
    Directory(#[from] std::io::Error),
    /// A database.
    #[error("read an audit log")]
    Store(#[from] Error),
}

/// The next row in time. Rows of one module stay in their order.
fn take(sources: &mut [Source]) -> Result<Option<(String, Record)>, Error> {
    let mut chosen: Option<(usize, i64)> = None;
    for (at, source) in sources.iter().enumerate() {
        let Some(time) = source.next.as_ref().map(|record| record.time_unix_us) else {
            continue;
        };
        let is_better = |best: i64| {
            if source.is_forward {
                time < best
            } else {
                time > best
            }
        };
        if chosen.is_none_or(|(_, best)| is_better(best)) {
            chosen = Some((at, time));
        }
    }
    let Some((at, _)) = chosen else {
        return Ok(None);
    };
    let source = &mut sources[at];
    let Some(record) = source.next.take() else {
        return Ok(None);
    };
    source.at = record.id;
    source.fetch()?;
    Ok(Some((source.module.clone(), record)))
}

impl Source {
    fn fetch(&mut self) -> Result<(), Error> {
        self.next = self.rows.next();
        if self.next.is_some() || self.is_at_end {
            return Ok(());
        }
        let cursor = if self.is_forward {
            Cursor::After(self.at)
        } else {
            Cursor::Before(self.at)
        };
        self.rows = list(&self.connection, cursor, READ_ROWS)?.into_iter();
        self.next = self.rows.next();
        self.is_at_end = self.next.is_none();
        Ok(())
    }
}

impl Query {
    fn admits(&self, row: &AuditRow) -> bool {
        let has = |text: &str| {
            let fields = [
                &row.actor,
                &row.action,
                &row.target,
                &row.origin,
                &row.trace,
            ];
            fields.iter().any(|field| field.contains(text)) || row.detail.to_string().contains(text)
        };
        self.by
            .as_ref()
            .is_none_or(|by| row.actor.contains(by.as_str()))
            && self.grep.as_ref().is_none_or(|text| has(text))
            && self
                .outcome
                .as_ref()
                .is_none_or(|outcome| row.outcome == *outcome)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 microseconds are 285 years"
)]
fn row(module: String, record: Record) -> AuditRow {
    AuditRow {
        module,
        id: record.id,
        at: record.time_unix_us as f64 / 1e6,
        actor: record.actor,
        action: record.action,
        target: record.target,
        outcome: record.outcome.as_str().to_owned(),
        origin: record.origin,
        trace: record.trace,
        detail: record.detail,
    }
}
