//! REST under `/api/broker`.

use std::collections::BTreeMap;
use std::sync::Arc;

use alicia_contract::broker::BrokerClient;
use alicia_module::api::{Answer, PathParams};
use alicia_module::{Api, ApiError, Operation};
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::{ClientInfo, Stats};
use crate::module::BrokerModule;

type Module = State<Arc<BrokerModule>>;

/// The broker in numbers, since its start.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct BrokerStats {
    /// Open connections.
    connections: usize,
    /// Sessions, those of absent clients included.
    sessions: usize,
    /// Subscriptions of all sessions.
    subscriptions: usize,
    /// Retained messages.
    retained_messages: usize,
    /// Bytes of retained messages.
    retained_bytes: usize,
    /// Messages published by clients, refused ones included.
    published: u64,
    /// Messages sent to clients.
    delivered: u64,
    /// Messages dropped, by reason: `full`, `oversized`, `expired`, `other`.
    dropped: BTreeMap<&'static str, u64>,
    /// Refusals, by reason.
    refused: BTreeMap<&'static str, u64>,
    /// Bytes from clients.
    bytes_in: u64,
    /// Bytes to clients.
    bytes_out: u64,
}

/// The connections that were ended.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Disconnected {
    /// How many there were.
    connections: usize,
}

/// The operations.
pub(crate) fn api() -> Api<Arc<BrokerModule>> {
    Api::new()
        .with(
            Operation::get("/clients", "Every client with a session, by client id.").answers::<Vec<
                BrokerClient,
            >>(
                200,
                "The clients.",
            ),
            clients,
        )
        .with(
            Operation::delete(
                "/clients/{id}",
                "Ends the connection of a client; it may come back.",
            )
            .path_is_text()
            .answers::<Disconnected>(200, "It was connected, and is not any more.")
            .refuses(404, "There is no such client, or it is away."),
            disconnect,
        )
        .with(
            Operation::get("/stats", "The broker in numbers.")
                .answers::<BrokerStats>(200, "The numbers."),
            stats,
        )
}

async fn clients(State(module): Module) -> Answer<Vec<BrokerClient>> {
    Answer(
        module
            .engine
            .clients()
            .await
            .into_iter()
            .map(client)
            .collect(),
    )
}

async fn disconnect(
    State(module): Module,
    PathParams(client_id): PathParams<String>,
) -> Result<Answer<Disconnected>, ApiError> {
    match module.engine.disconnect_client(&client_id) {
        0 => {
            let detail = format!("no client with the id {client_id:?} is connected");
            Err(ApiError::not_found("broker", detail))
        }
        connections => Ok(Answer(Disconnected { connections })),
    }
}

async fn stats(State(module): Module) -> Answer<BrokerStats> {
    Answer(numbers(module.engine.stats().await))
}

fn client(info: ClientInfo) -> BrokerClient {
    BrokerClient {
        client_id: info.client_id,
        identity: info.identity.to_string(),
        connected: info.peer.is_some(),
        address: info.peer.map(|peer| peer.to_string()),
        protocol: info.protocol_level,
        subscriptions: info.subscriptions,
        queued: info.queued_messages as u64,
    }
}

fn numbers(stats: Stats) -> BrokerStats {
    BrokerStats {
        connections: stats.connections,
        sessions: stats.sessions,
        subscriptions: stats.subscriptions,
        retained_messages: stats.retained_messages,
        retained_bytes: stats.retained_bytes,
        published: stats.published,
        delivered: stats.delivered,
        dropped: stats.dropped().into(),
        refused: stats
            .refused
            .iter()
            .map(|(reason, count)| (reason.as_str(), *count))
            .collect(),
        bytes_in: stats.bytes_in,
        bytes_out: stats.bytes_out,
    }
}
