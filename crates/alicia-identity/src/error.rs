//! What can fail here.

use std::path::PathBuf;

/// A failed operation on keys and tokens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the identity directory could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the identity directory could not be written.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the identity directory has content that is not understood. It is not replaced: that
    /// would lock everybody out without a word.
    #[error(
        "understand {path}: {detail}; restore it from a backup, or delete it to start with new keys"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The system gave no random bytes.
    #[error("get random bytes from the system")]
    Random(#[source] getrandom::Error),
    /// There is a key of this name already.
    #[error(
        "create the key {0:?}: there is one of this name; revoke it first or choose another name"
    )]
    KeyExists(String),
    /// There is no key of this name.
    #[error("find the key {0:?}")]
    NoSuchKey(String),
    /// The last admin key cannot be revoked.
    #[error("revoke the key {0:?}: it is the last admin key; create another one first")]
    LastAdmin(String),
    /// Too many keys.
    #[error("create another key: there are {0} already, which is the limit; revoke some first")]
    TooManyKeys(usize),
}
