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
pub mod protocol;
mod sandbox;
pub mod signals;
mod socket;
mod sys;

#[cfg(feature = "client")]
pub use client::{Client, Connection, Events, Listing, Session, Stopped};
pub use containment::controllers_of_version_1;
pub use error::{Error, Result};
pub use keeper::{Containing, EXIT_LOCKED, Options, run};
pub use sandbox::Kernel;
