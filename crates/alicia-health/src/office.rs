//! What people do about alerts: one way for REST and for messages. Each is in the audit log, in the same
//! transaction as the change where there is one.

use std::sync::Arc;

use alicia_contract::health::{
    Acknowledgement, Alert, Maintenance, Matcher, Notification, Silence,
};
use alicia_contract::id::ServiceName;
use alicia_contract::unit::{Period, UnixSeconds};
use alicia_module::ApiError;
use alicia_store::{Error, Transaction, audit};
use axum::http::StatusCode;
use serde_json::json;

use crate::actor::Handle;
use crate::core::Event;
use crate::core::maintenance::{When, Window};
use crate::core::silence::{COMMENT_CHARS_MAX, Wanted};
use crate::notify::{Notifier, outbox};

/// Longest note, in characters.
pub(crate) const NOTE_CHARS_MAX: usize = COMMENT_CHARS_MAX;

/// Longest window by REST.
const WINDOW_MAX: Period = Period::from_secs(30 * 86_400);

/// The way to all that people can do. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Office {
    pub(crate) monitor: Handle,
    pub(crate) notifier: Arc<Notifier>,
}

/// An acknowledgement that is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ack {
    pub(crate) note: Option<String>,
    pub(crate) duration: Option<Period>,
}

/// A silence that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct SilenceWanted {
    pub(crate) id: Option<String>,
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) starts: Option<UnixSeconds>,
    pub(crate) ends: UnixSeconds,
    pub(crate) comment: String,
}

/// A window that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct WindowWanted {
    pub(crate) services: Vec<ServiceName>,
    pub(crate) starts: Option<UnixSeconds>,
    pub(crate) duration: Period,
    pub(crate) comment: String,
}

impl Office {
    /// The wall clock.
    pub(crate) fn unix(&self) -> UnixSeconds {
        self.notifier.clock.unix()
    }

    /// Takes note of an alert.
    pub(crate) async fn acknowledge(
        &self,
        actor: &str,
        id: &str,
        ack: Ack,
    ) -> Result<Alert, ApiError> {
        short(ack.note.as_deref())?;
        let at = self.unix();
        let by = Acknowledgement {
            by: actor.to_owned(),
            note: ack.note,
            at,
            until: ack
                .duration
                .map(|duration| at + duration.duration().as_secs_f64()),
        };
        self.note_alert(actor, id, Some(by)).await
    }

    /// Takes an acknowledgement back.
    pub(crate) async fn take_back(&self, actor: &str, id: &str) -> Result<Alert, ApiError> {
        self.note_alert(actor, id, None).await
    }

    async fn note_alert(
        &self,
        actor: &str,
        id: &str,
        by: Option<Acknowledgement>,
    ) -> Result<Alert, ApiError> {
        let fires = |alert: &Alert| alert.id == id;
        if !self.notifier.shared.read().book().firing().any(fires) {
            return Err(no_alert(id));
        }
        let verb = if by.is_some() {
            "acknowledge"
        } else {
            "unacknowledge"
        };
        self.note(actor, verb, format!("alert:{id}"))
            .await
            .map_err(|error| internal(&error))?;
        let event = Event::Acknowledge(id.to_owned(), by);
        let change = self.monitor.ask(event).await;
        let change = change.filter(|change| change.alert.id == id);
        let change = change.ok_or_else(|| no_alert(id))?;
        Ok(self.notifier.shown(change.alert))
    }

    /// Makes or changes a silence.
    pub(crate) async fn silence(
        &self,
        actor: &str,
        wanted: SilenceWanted,
    ) -> Result<Silence, ApiError> {
        let now = self.notifier.now();
        let wanted = Wanted {
            id: wanted.id,
            matchers: wanted.matchers,
            starts: wanted.starts.unwrap_or(now.unix),
            ends: wanted.ends,
            by: actor.to_owned(),
            comment: wanted.comment,
        };
        // Tried on a copy, one after the other: what cannot be stored is not done.
        let _alone = self.notifier.editing.lock().await;
        let (changed, after) = {
            let mut desk = self.notifier.desk();
            let id = desk.next_uuid(now);
            let mut after = desk.silences.clone();
            let changed = after.set(wanted, id, now.unix);
            (changed.map_err(|why| unusable("silence", why))?, after)
        };
        let rows = changed.clone();
        let target = changed
            .last()
            .map_or_else(String::new, |made| format!("silence:{}", made.id));
        let written = self.write(actor, "silence", target, move |tx| {
            rows.iter()
                .try_for_each(|row| outbox::save_silence(tx, row))
        });
        written.await.map_err(|error| internal(&error))?;
        self.notifier.desk().silences = after;
        changed
            .into_iter()
            .last()
            .ok_or_else(|| no_silence("of the request"))
    }

    /// Ends a silence.
    pub(crate) async fn unsilence(&self, actor: &str, id: &str) -> Result<Silence, ApiError> {
        let now = self.unix();
        let _alone = self.notifier.editing.lock().await;
        let mut after = self.notifier.desk().silences.clone();
        let ended = after.expire(id, now).ok_or_else(|| no_silence(id))?;
        let row = ended.clone();
        let target = format!("silence:{id}");
        let written = self.write(actor, "unsilence", target, move |tx| {
            outbox::save_silence(tx, &row)
        });
        written.await.map_err(|error| internal(&error))?;
        self.notifier.desk().silences = after;
        Ok(ended)
    }

    /// Makes a maintenance window.
    pub(crate) async fn maintain(
        &self,
        actor: &str,
        wanted: WindowWanted,
    ) -> Result<Maintenance, ApiError> {
        let now = self.notifier.now();
        short(Some(&wanted.comment))?;
        let unknown = self.notifier.desk().unknown(&wanted.services).cloned();
        if let Some(name) = unknown {
            let why = format!("found {name}, expected services or groups of the file");
            return Err(unusable("maintenance window", why));
        }
        let starts = wanted.starts.unwrap_or(now.unix);
        // A start so far away that seconds make no difference to it has no end.
        let ends = starts + wanted.duration.duration().as_secs_f64();
        if wanted.duration > WINDOW_MAX
            || wanted.duration == Period::default()
            || ends <= now.unix
            || ends <= starts
        {
            let why = format!(
                "found {} from {}, expected an end in the future and at most {WINDOW_MAX}",
                wanted.duration,
                crate::notify::stamp(starts)
            );
            return Err(unusable("maintenance window", why));
        }
        let window = {
            let mut desk = self.notifier.desk();
            let window = Window {
                id: desk.next_id(now),
                services: wanted.services,
                when: When::Once(starts, ends),
                comment: wanted.comment,
                by: actor.to_owned(),
            };
            desk.windows.set(window, now.unix)
        };
        let window = window.map_err(|why| unusable("maintenance window", why))?;
        let row = window.clone();
        let target = format!("maintenance:{}", window.id);
        let written = self
            .write(actor, "maintenance", target, move |tx| {
                outbox::save_window(tx, &row)
            })
            .await;
        if let Err(error) = written {
            self.notifier.desk().windows.end(&window.id, now.unix);
            return Err(internal(&error));
        }
        Ok(window)
    }

    /// Ends a maintenance window that was made by hand.
    pub(crate) async fn end_maintenance(
        &self,
        actor: &str,
        id: &str,
    ) -> Result<Maintenance, ApiError> {
        let ended = self.notifier.desk().windows.end(id, self.unix());
        let none = || {
            let detail = format!(
                "no maintenance window {id} that was made by hand is open or to come; those of the file end there"
            );
            ApiError::not_found("health", detail)
        };
        let ended = ended.ok_or_else(none)?;
        let row = ended.clone();
        // It has ended; after a restart without this row it would be open again, which the error says.
        let target = format!("maintenance:{id}");
        self.write(actor, "end_maintenance", target, move |tx| {
            outbox::save_window(tx, &row)
        })
        .await
        .map_err(|error| internal(&error))?;
        Ok(ended)
    }

    /// Sends a test through a channel; returns when it is stored.
    pub(crate) async fn test_channel(
        &self,
        actor: &str,
        name: &str,
    ) -> Result<Notification, ApiError> {
        let none = || self.notifier.unknown_channel(name);
        let channel = self.notifier.channel(name).ok_or_else(none)?;
        let draft = self.notifier.desk().test(name, actor, self.notifier.now());
        let draft = draft.ok_or_else(none)?;
        let row = draft.clone();
        let target = format!("channel:{name}");
        self.write(actor, "test_channel", target, move |tx| {
            outbox::push(tx, &row)
        })
        .await
        .map_err(|error| internal(&error))?;
        channel.wake.notify_one();
        Ok(draft.notification)
    }

    /// Writes a change and its audit row in one transaction.
    async fn write(
        &self,
        actor: &str,
        verb: &'static str,
        target: String,
        change: impl FnOnce(&Transaction<'_>) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let (actor, time_unix_us) = (actor.to_owned(), self.notifier.clock.unix_us());
        self.notifier
            .store
            .write(move |tx| {
                change(tx)?;
                append(tx, (&actor, verb, &target), time_unix_us)
            })
            .await
    }

    /// Writes an audit row alone.
    pub(crate) async fn note(
        &self,
        actor: &str,
        verb: &'static str,
        target: String,
    ) -> Result<(), Error> {
        let (actor, time_unix_us) = (actor.to_owned(), self.notifier.clock.unix_us());
        self.notifier
            .store
            .write(move |tx| append(tx, (&actor, verb, &target), time_unix_us))
            .await
    }
}

fn append(
    tx: &Transaction<'_>,
    (actor, verb, target): (&str, &str, &str),
    time_unix_us: i64,
) -> Result<(), Error> {
    let entry = audit::Entry {
        time_unix_us,
        actor,
        action: &format!("health.{verb}"),
        target,
        outcome: audit::Outcome::Done,
        detail: &json!({}),
    };
    audit::append(tx, &entry).map(drop)
}

fn short(note: Option<&str>) -> Result<(), ApiError> {
    if note.is_none_or(|note| note.chars().count() <= NOTE_CHARS_MAX) {
        return Ok(());
    }
    let detail = format!("the note has more than {NOTE_CHARS_MAX} characters");
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Err(ApiError::new(
        status,
        "health.note_too_long",
        "Note too long",
        detail,
    ))
}

fn no_alert(id: &str) -> ApiError {
    ApiError::not_found("health", format!("no alert with the id {id} fires"))
}

fn no_silence(id: &str) -> ApiError {
    let detail = format!("no silence with the id {id} is in force or to come");
    ApiError::not_found("health", detail)
}

fn internal(error: &Error) -> ApiError {
    ApiError::internal("health", error)
}

/// What was asked for cannot be: why, in words.
pub(crate) fn unusable(what: &str, why: String) -> ApiError {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let detail = format!("the {what} cannot be used: {why}");
    ApiError::new(status, "health.unusable", "Cannot be used", detail)
}
