//! Notifications on disk: each is a row before it is sent, and stays one with what became of it. With it is
//! stored what was said of its group, in one transaction.

use alicia_contract::health::{Alert, DeliveryState, Maintenance, Notification, Silence};
use alicia_contract::unit::UnixSeconds;
use alicia_store::rusqlite::{OptionalExtension as _, params};
use alicia_store::{Connection, Error, Transaction};

use crate::core::desk::{Draft, Order};
use crate::core::escalate::Climb;
use crate::core::group::{Reason, Said};
use crate::store::read_all;

/// Most notifications that wait for one channel. Beyond, the oldest are given up: a channel that is away for a day
/// must not fill the disk, and nobody reads as many when it is back.
pub(crate) const WAITING_MAX: u32 = 10_000;

/// A notification that waits to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) notification: Notification,
    pub(crate) alerts: Vec<Alert>,
}

/// What is stored of the desk.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) said: Vec<((String, String), Said)>,
    pub(crate) climbs: Vec<((String, String), Climb)>,
    pub(crate) silences: Vec<Silence>,
    pub(crate) windows: Vec<Maintenance>,
}

/// Which notifications to list, the newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    pub(crate) channel: Option<String>,
    pub(crate) delivery: Option<DeliveryState>,
    pub(crate) before: Option<String>,
    pub(crate) limit: u32,
}

/// Carries out what the desk orders.
pub(crate) fn carry_out(tx: &Transaction<'_>, orders: &[Order]) -> Result<(), Error> {
    for order in orders {
        match order {
            Order::Send(draft) => push(tx, draft)?,
            Order::Forget(channel, group) => forget(tx, channel, group)?,
            Order::Climb(policy, group, climb) => save_climb(tx, policy, group, climb.as_ref())?,
        }
    }
    Ok(())
}

/// Adds a notification, and stores what was said with it.
pub(crate) fn push(tx: &Transaction<'_>, draft: &Draft) -> Result<(), Error> {
    let Notification { channel, group, .. } = &draft.notification;
    drop_repeats(tx, channel, group)?;
    insert(tx, &draft.notification, &draft.alerts)?;
    match &draft.said {
        Some(said) => {
            tx.prepare_cached(
                "INSERT INTO said (channel, grp, body) VALUES (?1, ?2, ?3)
                 ON CONFLICT (channel, grp) DO UPDATE SET body = ?3",
            )?
            .execute(params![channel, group, serde_json::to_string(said)?])?;
        }
        None => forget(tx, channel, group)?,
    }
    Ok(())
}

/// A repetition that still waits says nothing that the notification after it does not say: while a channel is away
/// they do not pile up.
fn drop_repeats(tx: &Transaction<'_>, channel: &str, group: &str) -> Result<(), Error> {
    tx.prepare_cached(
        "DELETE FROM notification WHERE channel = ?1 AND grp = ?2 AND delivery = 'waiting'
             AND body ->> '$.reason' = ?3",
    )?
    .execute(params![channel, group, Reason::Repeat.as_str()])?;
    Ok(())
}

fn insert(
    tx: &Transaction<'_>,
    notification: &Notification,
    alerts: &[Alert],
) -> Result<(), Error> {
    tx.prepare_cached(
        "INSERT INTO notification (id, channel, grp, delivery, next_try, body, alerts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        notification.id,
        notification.channel,
        notification.group,
        delivery_text(notification.delivery),
        notification.next_try,
        serde_json::to_string(notification)?,
        serde_json::to_string(alerts)?,
    ])?;
    Ok(())
}

/// Writes what became of a notification. One that gave way to a newer one meanwhile stays away.
pub(crate) fn save(tx: &Transaction<'_>, notification: &Notification) -> Result<(), Error> {
    tx.prepare_cached(
        "UPDATE notification SET delivery = ?2, next_try = ?3, body = ?4 WHERE id = ?1",
    )?
    .execute(params![
        notification.id,
        delivery_text(notification.delivery),
        notification.next_try,
        serde_json::to_string(notification)?,
    ])?;
    Ok(())
}

/// Gives up what waits for a channel beyond the newest `most`; gives how many that are.
pub(crate) fn give_up(
    tx: &Transaction<'_>,
    channel: &str,
    most: u32,
    now: UnixSeconds,
) -> Result<usize, Error> {
    let mut statement = tx.prepare_cached(
        "SELECT body FROM notification WHERE channel = ?1 AND delivery = 'waiting'
         ORDER BY id DESC LIMIT -1 OFFSET ?2",
    )?;
    let bodies = statement.query_map(params![channel, most], |row| row.get(0))?;
    let old: Vec<Notification> = read_all(bodies)?;
    for mut notification in old.iter().cloned() {
        notification.delivery = DeliveryState::Failed;
        notification.done = Some(now);
        notification.next_try = None;
        notification.error = Some(format!("more than {most} waited for the channel"));
        save(tx, &notification)?;
    }
    Ok(old.len())
}

/// Removes a notification of which nobody needs to know: a mirror that was told again what it knew.
pub(crate) fn remove(tx: &Transaction<'_>, id: &str) -> Result<(), Error> {
    tx.execute("DELETE FROM notification WHERE id = ?1", [id])?;
    Ok(())
}

fn forget(tx: &Transaction<'_>, channel: &str, group: &str) -> Result<(), Error> {
    tx.prepare_cached("DELETE FROM said WHERE channel = ?1 AND grp = ?2")?
        .execute(params![channel, group])?;
    Ok(())
}

fn save_climb(
    tx: &Transaction<'_>,
    policy: &str,
    group: &str,
    climb: Option<&Climb>,
) -> Result<(), Error> {
    match climb {
        Some(climb) => tx
            .prepare_cached(
                "INSERT INTO climb (policy, grp, body) VALUES (?1, ?2, ?3)
                 ON CONFLICT (policy, grp) DO UPDATE SET body = ?3",
            )?
            .execute(params![policy, group, serde_json::to_string(climb)?])?,
        None => tx
            .prepare_cached("DELETE FROM climb WHERE policy = ?1 AND grp = ?2")?
            .execute(params![policy, group])?,
    };
    Ok(())
}

/// Writes a silence as it is now.
pub(crate) fn save_silence(tx: &Transaction<'_>, silence: &Silence) -> Result<(), Error> {
    tx.prepare_cached(
        "INSERT INTO silence (id, ends, body) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET ends = ?2, body = ?3",
    )?
    .execute(params![
        silence.id,
        silence.ends,
        serde_json::to_string(silence)?
    ])?;
    Ok(())
}

/// Writes a window as it is now.
pub(crate) fn save_window(tx: &Transaction<'_>, window: &Maintenance) -> Result<(), Error> {
    tx.prepare_cached(
        "INSERT INTO maintenance (id, ends, body) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET ends = ?2, body = ?3",
    )?
    .execute(params![
        window.id,
        window.ends.unwrap_or_default(),
        serde_json::to_string(window)?
    ])?;
    Ok(())
}

/// Reads what is stored of the desk.
pub(crate) fn load(connection: &Connection) -> Result<Stored, Error> {
    let bodies = |sql: &str| -> Result<Vec<(String, String, String)>, Error> {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    let mut stored = Stored::default();
    for (channel, group, body) in bodies("SELECT channel, grp, body FROM said")? {
        match serde_json::from_str(&body) {
            Ok(said) => stored.said.push(((channel, group), said)),
            Err(error) => tracing::warn!(%error, channel, "what was said cannot be read"),
        }
    }
    for (policy, group, body) in bodies("SELECT policy, grp, body FROM climb")? {
        match serde_json::from_str(&body) {
            Ok(climb) => stored.climbs.push(((policy, group), climb)),
            Err(error) => {
                tracing::warn!(%error, group, "how far an escalation came cannot be read")
            }
        }
    }
    let mut statement = connection.prepare("SELECT body FROM silence")?;
    stored.silences = read_all(statement.query_map([], |row| row.get(0))?)?;
    let mut statement = connection.prepare("SELECT body FROM maintenance")?;
    stored.windows = read_all(statement.query_map([], |row| row.get(0))?)?;
    Ok(stored)
}

/// The next notification of a channel: the one whose time is first, of those whose group has no older one that
/// still waits. What is over is not told before what began.
pub(crate) fn next(connection: &Connection, channel: &str) -> Result<Option<Waiting>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT body, alerts FROM notification AS this
         WHERE channel = ?1 AND delivery = 'waiting' AND NOT EXISTS (
             SELECT 1 FROM notification AS older
             WHERE older.channel = ?1 AND older.delivery = 'waiting'
               AND older.grp = this.grp AND older.id < this.id)
         ORDER BY next_try, id LIMIT 1",
    )?;
    let row = statement
        .query_row([channel], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })
        .optional()?;
    row.map(|(body, alerts)| {
        Ok(Waiting {
            notification: serde_json::from_str(&body)?,
            alerts: serde_json::from_str(&alerts)?,
        })
    })
    .transpose()
}

/// How many notifications of a channel wait.
pub(crate) fn waiting(connection: &Connection, channel: &str) -> Result<u64, Error> {
    let sql = "SELECT count(*) FROM notification WHERE channel = ?1 AND delivery = 'waiting'";
    let mut statement = connection.prepare_cached(sql)?;
    let count: i64 = statement.query_row([channel], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// A page of notifications.
pub(crate) fn list(connection: &Connection, listing: &Listing) -> Result<Vec<Notification>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT body FROM notification
         WHERE (?1 IS NULL OR channel = ?1)
           AND (?2 IS NULL OR delivery = ?2)
           AND (?3 IS NULL OR id < ?3)
         ORDER BY id DESC LIMIT ?4",
    )?;
    let delivery = listing.delivery.map(delivery_text);
    let values = params![listing.channel, delivery, listing.before, listing.limit];
    let bodies = statement.query_map(values, |row| row.get::<_, String>(0))?;
    read_all(bodies)
}

/// Whether there is a notification to a channel.
pub(crate) fn has_channel(connection: &Connection, channel: &str) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM notification WHERE channel = ?1)";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row([channel], |row| row.get(0))?)
}

/// One notification.
pub(crate) fn get(connection: &Connection, id: &str) -> Result<Option<Notification>, Error> {
    let mut statement = connection.prepare_cached("SELECT body FROM notification WHERE id = ?1")?;
    let bodies = statement.query_map([id], |row| row.get::<_, String>(0))?;
    Ok(read_all(bodies)?.pop())
}

/// Deletes notifications that are done beyond the newest `keep`, those to channels that are no more, and silences
/// and windows that were over long ago.
pub(crate) fn prune(
    tx: &Transaction<'_>,
    (oldest, keep): (f64, u32),
    channels: &[String],
) -> Result<usize, Error> {
    let by_number = tx.execute(
        "DELETE FROM notification WHERE id IN (
             SELECT id FROM notification WHERE delivery != 'waiting'
             ORDER BY id DESC LIMIT -1 OFFSET ?1)",
        [keep],
    )?;
    let known = serde_json::to_string(channels)?;
    let orphans = tx.execute(
        "DELETE FROM notification WHERE delivery = 'waiting'
           AND channel NOT IN (SELECT value FROM json_each(?1))",
        [&known],
    )?;
    tx.execute(
        "DELETE FROM said WHERE channel NOT IN (SELECT value FROM json_each(?1))",
        [&known],
    )?;
    tx.execute("DELETE FROM silence WHERE ends < ?1", [oldest])?;
    tx.execute("DELETE FROM maintenance WHERE ends < ?1", [oldest])?;
    Ok(by_number + orphans)
}

/// Whether a notification of a mirror only repeats what it was told.
pub(crate) fn is_repeat(notification: &Notification) -> bool {
    notification.reason == Reason::Repeat.as_str()
}

const fn delivery_text(delivery: DeliveryState) -> &'static str {
    match delivery {
        DeliveryState::Waiting => "waiting",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use alicia_module::Clock;
    use alicia_store::Store;
    use serde_json::json;

    use super::*;

    fn open(directory: &tempfile::TempDir) -> Store {
        let path = directory.path().join("health.db");
        let clock = Clock::system();
        let options = alicia_store::Options::new(path, crate::store::MIGRATIONS, clock.for_store());
        Store::open(options).expect("it opens")
    }

    fn draft(id: &str, group: &str, reason: Reason) -> Draft {
        let notification = serde_json::from_value(json!({
            "id": id, "channel": "hook", "group": group, "state": "firing", "severity": "warning",
            "summary": "", "firing": 1, "resolved": 0, "reason": reason.as_str(), "created": 0.0,
            "delivery": "waiting", "attempts": 0, "next_try": 0.0, "done": null,
        }));
        Draft {
            notification: notification.expect("a notification"),
            alerts: Vec::new(),
            said: None,
        }
    }

    /// What waits, and what was given up.
    async fn rows(store: &Store) -> (Vec<String>, Vec<String>) {
        let of = async |delivery: DeliveryState| {
            let listing = Listing {
                delivery: Some(delivery),
                limit: 100,
                ..Listing::default()
            };
            let found = store
                .read(move |connection| list(connection, &listing))
                .await;
            let found = found.expect("read").into_iter();
            found.map(|row| row.id).collect()
        };
        (
            of(DeliveryState::Waiting).await,
            of(DeliveryState::Failed).await,
        )
    }

    #[tokio::test]
    async fn repetitions_for_a_channel_that_is_away_do_not_pile_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = open(&directory);
        let drafts = [
            draft("1", "a", Reason::New),
            draft("2", "a", Reason::Repeat),
            draft("3", "b", Reason::Repeat),
            draft("4", "a", Reason::Repeat),
            draft("5", "a", Reason::Changed),
        ];
        let sent = draft("4", "a", Reason::Repeat).notification;
        for draft in drafts {
            let pushed = store.write(move |tx| push(tx, &draft)).await;
            pushed.expect("written");
        }
        assert_eq!(rows(&store).await.0, ["5", "3", "1"]);
        // The one that was under way meanwhile does not come back.
        store
            .write(move |tx| save(tx, &sent))
            .await
            .expect("written");
        assert_eq!(rows(&store).await.0, ["5", "3", "1"]);
    }

    #[tokio::test]
    async fn what_waits_beyond_measure_is_given_up_the_oldest_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = open(&directory);
        for n in 1..=5 {
            let draft = draft(&n.to_string(), "a", Reason::Changed);
            let pushed = store.write(move |tx| push(tx, &draft)).await;
            pushed.expect("written");
        }
        let give_up = async || store.write(|tx| give_up(tx, "hook", 3, 9.0)).await;
        assert_eq!(give_up().await.expect("written"), 2);
        assert_eq!(give_up().await.expect("written"), 0);
        let (waiting, failed) = rows(&store).await;
        assert_eq!(waiting, ["5", "4", "3"]);
        assert_eq!(failed, ["2", "1"]);
        let row = store.read(|connection| get(connection, "1")).await;
        let row = row.expect("read").expect("there");
        assert_eq!((row.done, row.next_try), (Some(9.0), None));
        assert_eq!(
            row.error.as_deref(),
            Some("more than 3 waited for the channel")
        );
    }
}
