//! What can go wrong with secrets. No text holds a value.

use std::path::PathBuf;

/// A failed operation. Each text reads after "failed to" and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{operation} {path}")]
    File {
        /// In a word: read, write, …
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key is readable for others.
    #[error(
        "use the key {path}: others may read it (mode {mode:o}); `chmod 400 {path}` when nobody else has seen it"
    )]
    OpenKey {
        /// The key file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The key file does not hold a key.
    #[error("use the key {path}: it does not hold 32 bytes as 64 hexadecimal digits")]
    BadKey {
        /// The key file.
        path: PathBuf,
    },
    /// The vault was sealed with another key.
    #[error(
        "open {vault}: it was sealed with another key than {key}; name the right one with `secrets.key_file`"
    )]
    OtherKey {
        /// The vault.
        vault: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The vault is there and its key is not.
    #[error(
        "open {vault}: its key {key} is gone; bring it back, or name it with `secrets.key_file`"
    )]
    KeyGone {
        /// The vault.
        vault: PathBuf,
        /// Where the key should be.
        key: PathBuf,
    },
    /// The vault is damaged, or written by a newer program.
    #[error("open {path}: {detail}; bring back a copy of it, or set the secrets anew")]
    Damaged {
        /// The vault.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// There is no such secret.
    #[error(
        "find the secret {0:?}; `alicia secret list` shows what there is, `alicia secret set {0}` adds it"
    )]
    NoSuchSecret(String),
    /// A name that cannot be used.
    #[error("use the name {0:?}: a name has 1 to 63 characters of a-z, 0-9 and -")]
    BadName(String),
    /// A value that cannot be used.
    #[error("use the value: it has {found} bytes, expected 1 to {max}")]
    BadValue {
        /// Its length in bytes.
        found: usize,
        /// The longest.
        max: usize,
    },
    /// Too many.
    #[error("add a secret: there are {0} already, which is the most")]
    TooMany(usize),
    /// The system gives no random numbers.
    #[error("get random numbers from the system: {0}")]
    Random(String),
}
