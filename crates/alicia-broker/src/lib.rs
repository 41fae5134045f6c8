//! The embedded MQTT broker: MQTT 3.1.1 and 5 over TCP and WebSocket.
//!
//! [`Engine`] is the broker itself and knows nothing of Alicia but the [`Authority`] that it asks
//! for every permission. Everything that belongs to the MQTT library behind it lives in `engine/`.
//! [`BrokerModule`] is the engine in the house: with its identities, its database, its audit.

mod authority;
mod engine;

mod audit;
mod config;
mod module;
mod policy;
mod revocation;
mod routes;

pub use authority::{
    Attempt, Authority, Identity, Login, Observer, Reason, Refusal, Refused, Subject,
};
pub use config::Config;
pub use engine::{
    ClientInfo, Engine, EngineError, EngineOptions, Limits, MIGRATIONS, Stats, Transport,
};
pub use module::BrokerModule;
