//! The typed bus client: events, state and calls over MQTT 5.
//!
//! [`Bus::start`] gives a handle, cheap to clone, and the connection task, which the caller spawns. The
//! handle publishes and subscribes in the typed topics of `alicia-contract`; the task keeps one connection
//! to the broker, makes it anew when it breaks, and subscribes and publishes state again.
//!
//! Reading order: [`options`](Options), `bus` (what callers see), `subscription` and `call` (what they
//! hear), then inwards: `router` and `queue` (who gets what), `connection` (one life after the other),
//! `session` (one life), `wire` (bytes), and the small pure parts `inflight`, `backoff`, `states`, `drops`.

mod backoff;
mod bus;
mod call;
mod connection;
mod delivery;
mod drops;
mod error;
mod inflight;
mod message;
mod options;
mod queue;
mod reply;
mod router;
mod session;
mod shared;
mod signing;
mod states;
mod status;
mod subscription;
mod wire;

pub mod asyncapi;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "hostile")]
mod hostile;
pub mod trace;

pub use bus::{Bus, Connections, Retain};
pub use call::{Request, Requests};
pub use error::{CallError, Error};
#[cfg(feature = "hostile")]
pub use hostile::Hostility;
pub use message::{Incoming, Message, Qos, RawIncoming, RawMessage};
pub use options::{
    AddressError, BusAddress, Clock, DEADLINE_DEFAULT, Options, PasswordSource, Will, system_clock,
};
pub use reply::reply_topic;
pub use signing::{Keys, Signing};
pub use status::BusStatus;
pub use subscription::{RawSubscription, Subscription};
