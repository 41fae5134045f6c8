//! Ed25519 keys, JSON Web Signatures, and the signatures of messages on the bus.
//!
//! - [`key`]: key pairs and public keys, with their RFC 7638 thumbprints.
//! - [`jws`]: RFC 7515 in the compact and the general form; `EdDSA` is the only algorithm there is.
//! - [`message`]: the signature of one message: over its exact bytes, bound to its topic, good for a minute.
//! - [`window`]: the memory of sequence numbers that makes each signature good once.
//!
//! All of it is pure: the time is an argument.

pub mod jws;
pub mod key;
pub mod message;
pub mod window;

pub use key::{KeyError, PublicKey, SigningKey};
pub use message::{Fault, KnownKey, Signed, Signer, Verified, Verifier};
