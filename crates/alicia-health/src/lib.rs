//! Watches services and raises alerts.
//!
//! [`core`] judges, purely, from what the orchestrator, heartbeats and probes say. The shell around it
//! hears the bus, runs the probes, keeps alerts in the store and tells them.
//!
//! Reading order: [`core`] (and in it `watch`, `judge`, `conditions`, `alerts`), [`heartbeat`], the shell.

pub mod core;
pub mod heartbeat;

mod suggest;
