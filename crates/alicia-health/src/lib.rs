//! Watches services and raises alerts.
//!
//! [`core`] judges, purely, from what the orchestrator, heartbeats and probes say. The shell around it hears
//! the bus, runs the probes, keeps alerts in the store and tells them.
//!
//! Reading order: [`core`] (in it `watch`, `slot`, `evidence`, `judge`, `conditions`, `alerts`), [`heartbeat`]; then the shell:
//! `module`, `actor`, `hear` (what comes from the bus), `prober`, `archive` (alerts on disk and on the bus),
//! `status` (the picture), `notify` (who is told: the desk of [`core`], channels and their outbox), `office` (what people do
//! about alerts; by REST in `routes`, by message in `requests`), `restart`, `store`.

pub mod core;
pub mod heartbeat;

mod module;

mod actor;
mod archive;
mod hear;
mod history;
mod notify;
mod office;
mod prober;
mod reports;
mod requests;
mod restart;
mod routes;
mod slo;
mod status;
mod status_page;
mod store;

pub mod config;
mod suggest;

pub use config::Config;
pub use module::HealthModule;
