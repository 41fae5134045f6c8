//! The keeper: a small process that is parent of every supervised process and outlives the control plane.

#[cfg(feature = "client")]
mod client;
mod error;
pub mod protocol;
mod socket;

#[cfg(feature = "client")]
pub use client::{Client, Connection, Events, Listing, Session, Stopped};
pub use error::{Error, Result};

/// Exit code of a keeper that finds its directory locked by another one.
pub const EXIT_LOCKED: i32 = 75;
