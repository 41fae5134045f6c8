//! A service on the bus of Alicia, in at most 20 lines.
//!
//! ```no_run
//! use std::time::Duration;
//! use alicia_sdk::{Error, Service, json};
//!
//! #[derive(serde::Deserialize)]
//! struct Set { celsius: f64 }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     Service::from_env("thermostat")?
//!         .version("1.0.0")
//!         .command("set", |_cx, wanted: Set| async move { Ok(json!({ "target": wanted.celsius })) })
//!         .on("rooms/+/temperature", |cx, message: alicia_sdk::Message<f64>| async move {
//!             cx.publish("thermostat/heating", &(message.payload < 20.0)).await
//!         })
//!         .every(Duration::from_secs(60), |cx| async move { cx.publish("thermostat/alive", &true).await })
//!         .run()
//!         .await
//! }
//! ```
//!
//! Reading order: [`Service`] and [`Capability`] (what is declared), [`Context`] (what handlers are given), then inwards:
//! `run` (start to stop), `presence` (registration and heartbeats), `commands`, `handler`, `vitals`,
//! `page` (`/health` over HTTP), `environment`.

mod capability;
mod commands;
mod context;
mod environment;
mod error;
mod handler;
mod identity;
mod page;
mod presence;
mod resources;
mod run;
mod service;
mod vitals;

pub use alicia_bus::{Bus, Message};
pub use alicia_contract as contract;
pub use alicia_contract::discovery::Kind;
pub use alicia_contract::health::HeartbeatStatus;
pub use schemars::{self, JsonSchema};
pub use serde_json::{Value, json};

pub use capability::Capability;
pub use context::Context;
pub use error::Error;
pub use service::Service;
