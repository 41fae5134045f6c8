//! Secrets: values that do not print and are wiped when dropped ([`Secret`]), and a file that keeps them sealed
//! ([`Vault`]).
//!
//! ```
//! use alicia_secrets::{Secret, Vault};
//!
//! # fn main() -> Result<(), alicia_secrets::Error> {
//! # let directory = tempfile::tempdir().expect("a temporary directory");
//! let vault = Vault::open(&directory.path().join("secrets"), None)?;
//! vault.set("db-password", Secret::from("hunter2"), 1_700_000_000.0)?;
//! let secret = vault.reveal("db-password")?;
//! assert_eq!(secret.expose(), b"hunter2");
//! assert_eq!(format!("{secret:?}"), "Secret(..)");
//! # Ok(())
//! # }
//! ```

mod error;
mod seal;
mod secret;
mod vault;

pub use error::Error;
pub use secret::{REDACTED, Secret};
pub use vault::{Described, NAME_BYTES_MAX, SECRETS_MAX, VALUE_BYTES_MAX, Vault, is_name};
