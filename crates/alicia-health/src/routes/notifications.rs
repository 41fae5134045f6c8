//! Notifications, with what became of each, and the channels that they go through.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use alicia_contract::health::{DeliveryState, Notification};
use alicia_module::api::{Answer, Caller, Params, PathParams};
use alicia_module::{Api, ApiError, Operation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Module, State, limit};
use crate::module::HealthModule;
use crate::notify::channel::Channel;
use crate::notify::outbox::{self, Listing};

/// What to list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Query {
    /// Only those to this channel.
    channel: Option<String>,
    /// Only those of which this became: `waiting`, `delivered`, `failed`.
    delivery: Option<DeliveryState>,
    /// Begins below this id: `next` of the page before.
    cursor: Option<String>,
    /// Most entries of the answer. 1 to 1000; default 100.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// Notifications, newest first.
#[derive(Debug, Serialize, JsonSchema)]
struct Page {
    /// The notifications.
    notifications: Vec<Notification>,
    /// Where the next page begins: the next `cursor`; none: this is the last.
    next: Option<String>,
}

/// The channels of the file.
#[derive(Debug, Serialize, JsonSchema)]
struct Channels {
    /// The channels, by name.
    channels: Vec<ChannelView>,
}

/// A channel and how it is doing, since the start of the monitor.
#[derive(Debug, Serialize, JsonSchema)]
struct ChannelView {
    /// The name.
    name: String,
    /// What it speaks: `webhook`, `alertmanager`, `ntfy`, `slack`, `email`.
    kind: &'static str,
    /// Where it leads, without what may be secret.
    place: String,
    /// Notifications that wait for it.
    waiting: u64,
    /// Notifications that it took.
    delivered: u64,
    /// Notifications that were given up.
    failed: u64,
    /// Tries.
    tries: u64,
    /// What went wrong with the last try; none: nothing.
    trouble: Option<String>,
}

pub(super) fn add(api: Api<Arc<HealthModule>>) -> Api<Arc<HealthModule>> {
    api.with(
        Operation::get("/notifications", "Notifications and what became of them.")
            .params::<Query>()
            .answers::<Page>(200, "Those that fit, newest first.")
            .refuses(
                404,
                "The file has no such channel, and no notification to it is kept.",
            ),
        list,
    )
    .with(
        Operation::get("/notifications/{id}", "One notification.")
            .answers::<Notification>(200, "The notification.")
            .refuses(404, "There is no such notification."),
        one,
    )
    .with(
        Operation::get("/channels", "The channels and how they are doing.")
            .answers::<Channels>(200, "The channels of the file."),
        channels,
    )
    .with(
        Operation::post("/channels/{name}/test", "Sends a test through a channel.")
            .answers::<Notification>(200, "The test, which is stored and under way.")
            .refuses(404, "The file has no such channel."),
        test,
    )
}

async fn list(
    State(module): Module,
    Params(query): Params<Query>,
) -> Result<Answer<Page>, ApiError> {
    let limit = limit(query.limit)?;
    // A channel that the file no longer has is known as long as there are rows of it.
    let notifier = &module.office.notifier;
    let stranger = query
        .channel
        .clone()
        .filter(|name| notifier.channel(name).is_none());
    let listing = Listing {
        channel: query.channel,
        delivery: query.delivery,
        before: query.cursor,
        // One more tells whether there is a next page.
        limit: limit + 1,
    };
    let read = module
        .store
        .read(move |connection| {
            let is_known = match &stranger {
                Some(name) => outbox::has_channel(connection, name)?,
                None => true,
            };
            Ok::<_, alicia_store::Error>((
                outbox::list(connection, &listing)?,
                stranger.filter(|_| !is_known),
            ))
        })
        .await;
    let (mut notifications, unknown) =
        read.map_err(|error| ApiError::internal("health", &error))?;
    if let Some(name) = unknown {
        return Err(notifier.unknown_channel(&name));
    }
    let more = notifications.len() > limit as usize;
    notifications.truncate(limit as usize);
    let last = notifications.last().filter(|_| more);
    let next = last.map(|last| last.id.clone());
    Ok(Answer(Page {
        notifications,
        next,
    }))
}

async fn one(
    State(module): Module,
    PathParams(id): PathParams<String>,
) -> Result<Answer<Notification>, ApiError> {
    let wanted = id.clone();
    let read = module
        .store
        .read(move |connection| outbox::get(connection, &wanted))
        .await;
    let found = read.map_err(|error| ApiError::internal("health", &error))?;
    let none = || ApiError::not_found("health", format!("there is no notification {id}"));
    Ok(Answer(found.ok_or_else(none)?))
}

async fn channels(State(module): Module) -> Answer<Channels> {
    let channels = module.office.notifier.channels.iter().map(view);
    Answer(Channels {
        channels: channels.collect(),
    })
}

fn view(channel: &Channel) -> ChannelView {
    let counts = &channel.counts;
    let trouble = channel
        .trouble
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    ChannelView {
        name: channel.name.clone(),
        kind: channel.speech.kind(),
        place: channel.speech.place(),
        waiting: counts.waiting.load(Relaxed),
        delivered: counts.delivered.load(Relaxed),
        failed: counts.failed.load(Relaxed),
        tries: counts.tries.load(Relaxed),
        trouble,
    }
}

async fn test(
    State(module): Module,
    Caller(identity): Caller,
    PathParams(name): PathParams<String>,
) -> Result<Answer<Notification>, ApiError> {
    let actor = identity.to_string();
    Ok(Answer(module.office.test_channel(&actor, &name).await?))
}
