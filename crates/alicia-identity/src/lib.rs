//! Who somebody is and what they may do.
//!
//! - [`Identity`]: a module of the host, an instance of a service, or the holder of an API key.
//! - [`token`]: what a service instance proves its identity with; checked without a database.
//! - [`key`], [`keyring`]: API keys of people and outside programs; stored as hashes.
//! - [`permissions`]: which bus topics an identity may use; a pure function, deny by default.
//! - [`Authority`]: all of it behind one handle; what the broker, REST and the orchestrator ask.

pub mod credential;
pub mod grants;
pub mod identity;
pub mod key;
pub mod keyring;
pub mod permissions;
pub mod session;
pub mod token;

mod agents;
pub mod authority;
mod error;
mod file;
mod roots;
mod runs;

pub use authority::{Admitted, Authority, Beginning, Process, Refusal};
pub use error::Error;
pub use grants::Grants;
pub use identity::Identity;
pub use keyring::Holder;
pub use permissions::Permissions;
