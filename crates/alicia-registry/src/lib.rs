//! Who is there and what they can do.
//!
//! Instances register and renew by heartbeat; the orchestrator's word binds those that it started.
//! [`core`] decides, purely: who is present, suspect, gone, and who may say so. The actor is the one task
//! that feeds it, writes its rows and has the bus told. REST reads the same state under a read lock.
//!
//! Reading order: [`validate`] (what a registration must be), [`core`], [`query`], [`resolve`], [`card`]; then the shell:
//! `module`, `actor`, `hear` (what comes from the bus), `tell` (what goes there), `router` (calls), `routes`,
//! `store`.

pub mod card;
pub mod core;
pub mod query;
pub mod resolve;
pub mod validate;

mod module;

mod actor;
mod hear;
mod router;
mod routes;
mod store;
mod tell;

mod config;
mod error;

pub use config::Config;
pub use error::Refusal;
pub use module::RegistryModule;
