//! Every limit of the broker, with its default and the reason for it.

use std::time::Duration;

/// All limits. `Default` is meant for one machine with some hundred services.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Open connections, authenticated or not.
    pub connections_max: usize,
    /// Open connections of one identity.
    pub connections_per_identity_max: usize,
    /// From accept to a complete CONNECT, the WebSocket upgrade included.
    pub connect_timeout: Duration,
    /// Size of the CONNECT packet: nothing is known about the sender yet.
    pub connect_packet_bytes_max: usize,
    /// Length of a client id.
    pub client_id_chars_max: usize,
    /// Size of any other packet.
    pub packet_bytes_max: u32,
    /// Length of a topic name or filter.
    pub topic_bytes_max: usize,
    /// Levels of a topic name or filter.
    pub topic_levels_max: usize,
    /// Subscriptions of one client.
    pub subscriptions_per_client_max: usize,
    /// Messages sent to a client and not acknowledged yet (QoS 1 and 2).
    pub inflight_max: u16,
    /// Topic aliases in each direction of a connection.
    pub topic_aliases_max: u16,
    /// Messages that wait for one client.
    pub queue_messages_max: usize,
    /// Bytes that wait for one client, overhead included.
    pub queue_bytes_max: usize,
    /// Sessions, connected or not.
    pub sessions_max: usize,
    /// How long a session outlives its connection, at most.
    pub session_expiry_max: Duration,
    /// The keep-alive that clients are held to, at most.
    pub keep_alive_max: Duration,
    /// Retained messages.
    pub retained_messages_max: usize,
    /// Bytes of retained messages, topic included.
    pub retained_bytes_max: usize,
    /// Packets per second of one identity on all its connections, acknowledgements apart; 4 KiB count as a
    /// packet too. It is slowed down, not refused. 0 is no limit.
    pub packet_rate_max: u32,
    /// How long a client may leave everything unread before it is cut off.
    pub write_stall_max: Duration,
    /// How often the same refusal of the same client is reported.
    pub report_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            connections_per_identity_max: 256,
            connect_timeout: Duration::from_secs(5),
            connect_packet_bytes_max: 64 * 1024,
            client_id_chars_max: 128,
            packet_bytes_max: 1024 * 1024,
            topic_bytes_max: 1_024,
            topic_levels_max: 32,
            subscriptions_per_client_max: 1_000,
            inflight_max: 64,
            topic_aliases_max: 16,
            queue_messages_max: 20_000,
            queue_bytes_max: 8 * 1024 * 1024,
            sessions_max: 10_000,
            session_expiry_max: Duration::from_secs(7 * 24 * 3600),
            keep_alive_max: Duration::from_secs(600),
            retained_messages_max: 50_000,
            retained_bytes_max: 64 * 1024 * 1024,
            packet_rate_max: 5_000,
            write_stall_max: Duration::from_secs(10),
            report_interval: Duration::from_secs(60),
        }
    }
}
