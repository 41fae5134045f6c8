//! What the embedded broker says in REST.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One connected or remembered client of the broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerClient {
    /// The MQTT client id.
    pub client_id: String,
    /// The authenticated identity, as in an envelope's `source`.
    pub identity: String,
    /// Whether a connection is open now.
    pub connected: bool,
    /// The address it connects from; none while it is away.
    pub address: Option<String>,
    /// 4 for MQTT 3.1.1, 5 for MQTT 5.
    pub protocol: u8,
    /// The filters it has subscribed to.
    pub subscriptions: Vec<String>,
    /// Messages that wait for it.
    pub queued: u64,
}
