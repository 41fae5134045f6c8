#![doc = include_str!("../README.md")]

mod accounts;
#[cfg(feature = "client")]
mod client;
mod clock;
mod containment;
mod error;
mod keeper;
pub mod logs;
mod output;
mod process_table;
mod program;
mod sandbox;
pub mod protocol;
pub mod signals;
mod socket;
mod sys;

#[cfg(feature = "client")]
pub use client::{Client, Connection, Events, Listing, Session, Stopped};
pub use error::{Error, Result};
pub use sandbox::Kernel;
pub use keeper::{Containing, EXIT_LOCKED, Options, run};
