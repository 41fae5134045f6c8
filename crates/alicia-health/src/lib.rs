//! Watches services and raises alerts.
//!
//! [`core`] judges, purely, from what the orchestrator, heartbeats and probes say. The shell around it hears
//! the bus, runs the probes, keeps alerts in the store and tells them.
//!
//! Reading order: [`core`] (in it `watch`, `slot`, `evidence`, `judge`, `conditions`, `alerts`), [`heartbeat`]; then the shell:
//! `module`, `actor`, `hear` (what comes from the bus), `prober`, `archive` (alerts on disk and on the bus),
//! `status` (the picture), `routes`, `store`.

pub mod core;
pub mod heartbeat;

mod module;

mod actor;
mod archive;
mod hear;
mod prober;
mod routes;
mod status;
mod store;

mod config;
mod suggest;

pub use config::Config;
pub use module::HealthModule;
