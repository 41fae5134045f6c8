//! Who is there and what they can do.
//!
//! Instances register and renew by heartbeat; the orchestrator's word binds those that it started.
//! [`core`] decides, purely: who is present, suspect, gone, and who may say so. `actor` is the one task
//! that feeds it, writes its rows and tells the bus. REST reads the same state under a read lock.
//!
//! Reading order: [`validate`] (what a registration must be), [`core`], [`query`], then the shell.

pub mod core;
pub mod query;
pub mod validate;

mod error;

pub use error::Refusal;
