//! The host: reads the file, starts, watches, reloads and stops modules, and owns the one HTTP listener.
//! It knows no module by name.
//!
//! Reading order: [`settings`] (the platform's own part of the file), [`mod@file`] (reading and checking the whole),
//! [`house`] (the modules' lives), [`http`] (the listener), [`host`] (all of it together).

pub mod settings;

pub mod file;

pub mod house;

pub mod http;

pub mod host;

pub mod audit;
mod desk;
mod directory;
mod error;
mod lock;
mod renewal;

pub use error::Error;
pub use file::{Loaded, load, schema};
pub use host::{Alone, Host, HostHandle, HostOptions, Reread};
pub use settings::Settings;
