//! What a connection is made of: where to, as whom, and with which clock.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alicia_contract::{Prefix, UnixSeconds};
use serde_json::Value;
use tokio::sync::watch;

use crate::signing::Signing;

/// How long a publish or a subscription waits for the broker's acknowledgement, unless set otherwise.
/// Longer than the longest pause between two attempts to connect.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);

/// The port of MQTT without TLS (IANA).
const PORT_DEFAULT: u16 = 1883;

/// Tells the wall clock in Unix seconds.
pub type Clock = Arc<dyn Fn() -> UnixSeconds + Send + Sync>;

/// The wall clock of the machine.
#[must_use]
pub fn system_clock() -> Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place of this crate that reads the machine's clock; all else is given a Clock"
    )]
    fn now() -> UnixSeconds {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64())
    }
    Arc::new(now)
}

/// Where the broker listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BusAddress {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// The text is not the address of a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read {0:?} as the address of a broker, expected mqtt://HOST or mqtt://HOST:PORT")]
pub struct AddressError(String);

impl FromStr for BusAddress {
    type Err = AddressError;

    /// Reads `mqtt://host:port`, `mqtt://host` or `host:port`; an IPv6 address stands in brackets.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        // A text with a password in it is not repeated in a message.
        let shown = if text.contains('@') { "…@…" } else { text };
        let wrong = || AddressError(shown.to_owned());
        let rest = match text.split_once("://") {
            Some(("mqtt" | "tcp", rest)) => rest,
            Some(_) => return Err(wrong()),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed.split_once(']').ok_or_else(wrong)?;
                (
                    host,
                    after.strip_prefix(':').or(after.is_empty().then_some("")),
                )
            }
            None => match rest.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, Some("")),
            },
        };
        let port = match port.ok_or_else(wrong)? {
            "" => PORT_DEFAULT,
            digits => digits.parse().map_err(|_| wrong())?,
        };
        if host.is_empty() || host.contains(['/', '@', ' ']) {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl From<std::net::SocketAddr> for BusAddress {
    fn from(address: std::net::SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl fmt::Display for BusAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "mqtt://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "mqtt://{}:{}", self.host, self.port)
        }
    }
}

/// Where the password comes from.
#[derive(Clone, Default)]
pub enum PasswordSource {
    /// No user name and no password are sent.
    #[default]
    None,
    /// Always the same.
    Fixed(String),
    /// Read anew for each connection, without white space at its end.
    File(PathBuf),
    /// Whatever it is at each connection, which waits until there is one.
    Live(watch::Receiver<Option<String>>),
}

impl fmt::Debug for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Fixed(_) => f.write_str("Fixed(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Live(_) => f.write_str("Live(…)"),
        }
    }
}

/// What the broker publishes, as an event of this client, when the connection breaks.
#[derive(Debug, Clone, PartialEq)]
pub struct Will {
    /// The whole topic.
    pub topic: String,
    /// The payload; the envelope is put around it at each connect.
    pub payload: Value,
}

/// What [`crate::Bus::start`] needs. Made with [`Options::new`], then changed field by field.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where the broker is; `None` while that is not known. A new value makes a new connection.
    pub address: watch::Receiver<Option<BusAddress>>,
    /// Who this is: the `source` of each envelope (`system/<module>`, a service name, `key/<name>`).
    pub source: String,
    /// The first level of all topics.
    pub prefix: Prefix,
    /// The MQTT user name. Default: the source.
    pub username: String,
    /// The MQTT password. Default: none, and then no user name is sent either.
    pub password: PasswordSource,
    /// The MQTT client id, one per connection at a broker. Default: the source, with `-` for `/`.
    pub client_id: String,
    /// What the broker says when the connection breaks. Default: nothing.
    pub will: Option<Will>,
    /// How long a publish or a subscription waits for its acknowledgement. Default: [`DEADLINE_DEFAULT`].
    pub deadline: Duration,
    /// The clock of envelopes. Default: the machine's.
    pub clock: Clock,
    /// How calls are signed and requests checked. Default: neither.
    pub signing: Option<Signing>,
    /// How deliveries are disturbed, for tests. Default: not at all.
    #[cfg(feature = "hostile")]
    pub hostility: Option<crate::Hostility>,
}

impl Options {
    /// The options of a client with this source; no password, no will.
    #[must_use]
    pub fn new(
        address: watch::Receiver<Option<BusAddress>>,
        source: impl Into<String>,
        prefix: Prefix,
    ) -> Self {
        let source = source.into();
        Self {
            address,
            prefix,
            username: source.clone(),
            password: PasswordSource::None,
            client_id: source.replace('/', "-"),
            will: None,
            deadline: DEADLINE_DEFAULT,
            clock: system_clock(),
            signing: None,
            #[cfg(feature = "hostile")]
            hostility: None,
            source,
        }
    }

    /// The options of a client of a broker that does not move.
    #[must_use]
    pub fn at(address: BusAddress, source: impl Into<String>, prefix: Prefix) -> Self {
        // The sender may go: a receiver keeps the last value.
        let (_, address) = watch::channel(Some(address));
        Self::new(address, source, prefix)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("address", &*self.address.borrow())
            .field("source", &self.source)
            .field("prefix", &self.prefix)
            .field("username", &self.username)
            .field("password", &self.password)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_write() {
        let check = |text: &str, written: &str| {
            let address: BusAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), written);
        };
        check("mqtt://127.0.0.1:1884", "mqtt://127.0.0.1:1884");
        check("mqtt://broker/", "mqtt://broker:1883");
        check("broker:99", "mqtt://broker:99");
        check("mqtt://[::1]:7", "mqtt://[::1]:7");
        check("[::1]", "mqtt://[::1]:1883");
        for bad in [
            "", "mqtt://", "http://x", "a:b", "a:99999", "u@h:1", "[::1", "[::1]x",
        ] {
            assert!(bad.parse::<BusAddress>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let refused = "mqtt://tom:secret@h".parse::<BusAddress>();
        let text = refused.expect_err("has a password").to_string();
        assert!(!text.contains("secret"), "{text}");
        let mut options = Options::at("h:1".parse().expect("reads"), "api", Prefix::default());
        options.password = PasswordSource::Fixed("secret".to_owned());
        assert!(!format!("{options:?}").contains("secret"));
    }
}
