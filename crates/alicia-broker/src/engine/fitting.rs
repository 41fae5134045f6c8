//! What a client asked for at CONNECT, fitted into the limits.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::codec::types::{MQTT_LEVEL_5, Publish};
use rmqtt::fitter::{DefaultFitter, Fitter, FitterManager};
use rmqtt::types::{ConnectInfo, Disconnect, FitterType, Id, ListenerConfig};

use super::limits::Limits;

/// A client is gone after one and a half times its keep-alive (MQTT 5, 3.1.2.10), and with very
/// short ones after that many seconds more: a busy machine is no dead client.
const KEEP_ALIVE_SLACK_S_MIN: u16 = 3;

/// Makes one fitting per connection.
pub(crate) struct Fittings {
    keep_alive_s_max: u16,
}

impl Fittings {
    pub(crate) fn new(limits: &Limits) -> Self {
        let keep_alive_s_max = u16::try_from(limits.keep_alive_max.as_secs()).unwrap_or(u16::MAX);
        Self { keep_alive_s_max }
    }
}

impl FitterManager for Fittings {
    fn create(&self, connect: Arc<ConnectInfo>, id: Id, settings: ListenerConfig) -> FitterType {
        let told = connect.proto_ver() == MQTT_LEVEL_5;
        let keep_alive_s_max = if told {
            self.keep_alive_s_max
        } else {
            u16::MAX
        };
        Arc::new(Fitting {
            inner: DefaultFitter::new(connect, id, settings),
            keep_alive_s_max,
        })
    }
}

/// The library's fitting, but for the keep-alive: only an MQTT 5 client can be told another one,
/// and those who asked for none are watched too.
struct Fitting {
    inner: DefaultFitter,
    keep_alive_s_max: u16,
}

#[async_trait]
impl Fitter for Fitting {
    fn keep_alive(&self, keep_alive_s: &mut u16) -> rmqtt::Result<u16> {
        *keep_alive_s = fit_keep_alive(*keep_alive_s, self.keep_alive_s_max);
        Ok(patience_s(*keep_alive_s))
    }

    fn max_mqueue_len(&self) -> usize {
        self.inner.max_mqueue_len()
    }

    fn mqueue_rate_limit(&self) -> (NonZeroU32, Duration) {
        self.inner.mqueue_rate_limit()
    }

    fn max_inflight(&self) -> NonZeroU16 {
        self.inner.max_inflight()
    }

    fn session_expiry_interval(&self, disconnect: Option<&Disconnect>) -> Duration {
        self.inner.session_expiry_interval(disconnect)
    }

    fn message_expiry_interval(&self, publish: &Publish) -> Duration {
        self.inner.message_expiry_interval(publish)
    }

    fn max_client_topic_aliases(&self) -> u16 {
        self.inner.max_client_topic_aliases()
    }

    fn max_server_topic_aliases(&self) -> u16 {
        self.inner.max_server_topic_aliases()
    }
}

/// The keep-alive in force. `u16::MAX` as the limit means that the client cannot be told.
fn fit_keep_alive(asked_s: u16, max_s: u16) -> u16 {
    match asked_s {
        0 if max_s == u16::MAX => 0,
        0 => max_s,
        asked_s => asked_s.min(max_s),
    }
}

/// How long a client may be silent; 0 is forever.
fn patience_s(keep_alive_s: u16) -> u16 {
    match keep_alive_s {
        0 => 0,
        keep_alive_s => keep_alive_s.saturating_add((keep_alive_s / 2).max(KEEP_ALIVE_SLACK_S_MIN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keep_alive_is_fitted_for_those_who_can_be_told() {
        assert_eq!(fit_keep_alive(120, 60), 60);
        assert_eq!(fit_keep_alive(30, 60), 30);
        assert_eq!(fit_keep_alive(0, 60), 60);
        assert_eq!(fit_keep_alive(0, u16::MAX), 0);
        assert_eq!(fit_keep_alive(65_535, u16::MAX), 65_535);
    }

    #[test]
    fn a_client_may_be_silent_for_half_as_long_again() {
        assert_eq!(
            [0, 1, 10, 60, u16::MAX].map(patience_s),
            [0, 4, 15, 90, u16::MAX]
        );
    }
}
