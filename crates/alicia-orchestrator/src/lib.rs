//! The orchestrator: starts services in the order of their dependencies, keeps them running, stops them
//! with everything that they started, and tells everybody about it.
//!
//! Reading order: [`core`] (every decision, without I/O), `engine` (the one task that owns the core and does
//! what it says), `command` (what people ask for, written down first), `api` and `bus` (how they ask),
//! [`store`] (what is remembered), `module` (start, reload, stop).

pub mod core;

mod api;
mod archive;
mod bus;
mod command;
mod config;
mod deploy;
mod engine;
mod explain;
mod graph;
mod history;
mod metrics;
mod module;
pub mod store;

pub use config::Config;
pub use module::Orchestrator;
