//! What can fail here.

use std::path::PathBuf;

use alicia_contract::id::ServiceName;

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
    /// Too many root keys overlap.
    #[error(
        "rotate the root key: {0} are good at the same time already, which is the limit; wait until the oldest has ended"
    )]
    TooManyRoots(usize),
    /// The name of an agent is a service's, or another agent's.
    #[error("let {0} join: the file has a service of this name; choose another name")]
    NameTaken(ServiceName),
    /// There is no such join token, or it was used or has ended.
    #[error(
        "use the join token: it is unknown, used or past its end; make another one with `alicia join-token create`"
    )]
    BadJoinToken,
    /// The proof is not the key's.
    #[error("check the proof: the signature is not that of the key")]
    BadProof,
    /// There is no such agent or token.
    #[error("find {0}")]
    NoSuchAgent(String),
    /// Too many join tokens or agents.
    #[error("keep more than {0} join tokens or agents; revoke some first")]
    TooManyAgents(usize),
    /// Scopes and ladder at once, none, or too many.
    #[error("create the key: expected either `scope` or 1 to {0} `scopes`")]
    Scopes(usize),
    /// Who asks may not act: a newer run has its place, or it was revoked.
    #[error("renew the credential: {0}")]
    MayNotAct(String),
}
