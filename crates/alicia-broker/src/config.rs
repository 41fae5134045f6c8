//! The section `broker` of `alicia.yaml`. The doc comments are the user's reference.

use std::net::SocketAddr;

use alicia_contract::unit::{ByteSize, Period};
use alicia_module::ConfigFault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::Limits;

/// The embedded MQTT broker: MQTT 3.1.1 and 5 on one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address for MQTT over TCP. Port 0 takes any free port. Only addresses of this machine: there is no TLS.
    pub listen: SocketAddr,
    /// The address for MQTT over WebSocket, of this machine too. None unless set.
    pub websocket: Option<SocketAddr>,
    /// The most open connections. 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_max: u32,
    /// The most open connections of one service or key. 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_per_identity_max: u32,
    /// How long a client may take from connecting to its complete CONNECT packet. 100ms to 60s.
    pub connect_timeout: Period,
    /// The largest packet. 1KiB to 256MiB.
    pub packet_max: ByteSize,
    /// The most subscriptions of one client. 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub subscriptions_per_client_max: u32,
    /// The most messages that wait for one client. 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue_messages_max: u32,
    /// The most bytes that wait for one client. 64KiB to 4GiB.
    pub queue_max: ByteSize,
    /// The most sessions, those of absent clients included. 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sessions_max: u32,
    /// How long the session of an absent client is kept at most. 1s to 90d.
    pub session_expiry_max: Period,
    /// The longest keep-alive that an MQTT 5 client is granted. 5s to 18h.
    pub keep_alive_max: Period,
    /// The most retained messages. 1 to 10000000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub retained_messages_max: u32,
    /// The most bytes of retained messages. 64KiB to 64GiB.
    pub retained_max: ByteSize,
    /// The most packets per second of one service, agent or key, on all its connections together, acknowledgements apart;
    /// each 4KiB count as a packet too. Beyond it the sender is slowed down, and nothing is lost. 0: no limit.
    pub packet_rate_max: u32,
    /// How long a client may leave everything unread before it is cut off. 1s to 10m.
    pub write_stall_max: Period,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            websocket: None,
            connections_max: 4_096,
            connections_per_identity_max: 256,
            connect_timeout: Period::from_secs(5),
            packet_max: ByteSize::mib(1),
            subscriptions_per_client_max: 1_000,
            queue_messages_max: 20_000,
            queue_max: ByteSize::mib(8),
            sessions_max: 10_000,
            session_expiry_max: Period::from_secs(7 * 86_400),
            keep_alive_max: Period::from_secs(600),
            retained_messages_max: 50_000,
            retained_max: ByteSize::mib(64),
            packet_rate_max: 5_000,
            write_stall_max: Period::from_secs(10),
        }
    }
}

impl Config {
    /// What the types cannot check.
    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut within = |name: &str, fits: bool, found: String, expected: &str| {
            if !fits {
                faults.push(ConfigFault {
                    pointer: format!("/{name}"),
                    message: format!("found {found}, expected {expected}"),
                });
            }
        };
        let ms = Period::from_millis;
        let s = Period::from_secs;
        for (name, found, low, high) in [
            ("connect_timeout", self.connect_timeout, ms(100), s(60)),
            (
                "session_expiry_max",
                self.session_expiry_max,
                s(1),
                s(90 * 86_400),
            ),
            ("keep_alive_max", self.keep_alive_max, s(5), s(18 * 3_600)),
            ("write_stall_max", self.write_stall_max, s(1), s(600)),
        ] {
            let fits = (low..=high).contains(&found);
            within(name, fits, found.to_string(), &format!("{low} to {high}"));
        }
        for (name, found, low, high) in [
            (
                "packet_max",
                self.packet_max,
                ByteSize::kib(1),
                ByteSize::mib(256),
            ),
            (
                "queue_max",
                self.queue_max,
                ByteSize::kib(64),
                ByteSize::mib(4 * 1024),
            ),
            (
                "retained_max",
                self.retained_max,
                ByteSize::kib(64),
                ByteSize::mib(64 * 1024),
            ),
        ] {
            let fits = (low..=high).contains(&found);
            within(name, fits, found.to_string(), &format!("{low} to {high}"));
        }
        let apart = self
            .websocket
            .is_none_or(|other| other != self.listen || other.port() == 0);
        let expected = "another address than `listen`";
        within("websocket", apart, self.listen.to_string(), expected);
        let here = "an address of this machine (127.0.0.0/8, [::1]), as there is no TLS yet";
        for (name, address) in [("listen", Some(self.listen)), ("websocket", self.websocket)] {
            let fits = address.is_none_or(|address| address.ip().is_loopback());
            let found = address.map_or_else(String::new, |address| address.to_string());
            within(name, fits, found, here);
        }
        faults
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            connections_max: self.connections_max as usize,
            connections_per_identity_max: self.connections_per_identity_max as usize,
            connect_timeout: self.connect_timeout.duration(),
            packet_bytes_max: u32::try_from(self.packet_max.bytes()).unwrap_or(u32::MAX),
            subscriptions_per_client_max: self.subscriptions_per_client_max as usize,
            queue_messages_max: self.queue_messages_max as usize,
            queue_bytes_max: bytes(self.queue_max),
            sessions_max: self.sessions_max as usize,
            session_expiry_max: self.session_expiry_max.duration(),
            keep_alive_max: self.keep_alive_max.duration(),
            retained_messages_max: self.retained_messages_max as usize,
            retained_bytes_max: bytes(self.retained_max),
            packet_rate_max: self.packet_rate_max,
            write_stall_max: self.write_stall_max.duration(),
            ..Limits::default()
        }
    }
}

fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.bytes()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_engines_and_have_no_faults() {
        assert_eq!(Config::default().limits(), Limits::default());
        assert_eq!(Config::default().faults(), []);
    }

    #[test]
    fn faults_name_their_field_and_what_was_expected() {
        let config = Config {
            websocket: Some(Config::default().listen),
            packet_max: ByteSize::kib(0),
            write_stall_max: Period::from_secs(0),
            ..Config::default()
        };
        let mut pointers: Vec<_> = config.faults().into_iter().map(|f| f.pointer).collect();
        pointers.sort();
        assert_eq!(pointers, ["/packet_max", "/websocket", "/write_stall_max"]);
    }
}
