//! The orchestrator: starts services in the order of their dependencies, keeps them running, stops them
//! with everything that they started, and tells everybody about it.
//!
//! [`core`] decides and does nothing else; the rest of the crate does what it says.

pub mod core;
