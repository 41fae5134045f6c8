//! What can fail in the host.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A failed operation of the host. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory could not be made or used.
    #[error("use the data directory {path}; choose another one with --data DIR")]
    Data {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another host holds the data directory.
    #[error(
        "start: another host{} runs on the data directory {path}; `alicia status` shows it, `alicia down` ends it",
        .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    AlreadyRunning {
        /// The directory.
        path: PathBuf,
        /// Its process, as it wrote it down.
        pid: Option<u32>,
    },
    /// Keys and tokens could not be opened.
    #[error("open the keys")]
    Identity(#[from] alicia_identity::Error),
    /// The HTTP listener could not be bound.
    #[error(
        "listen on {address} for HTTP; set `http.listen` in the file, or end what listens there"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The socket where instances renew their credentials could not be bound.
    #[error(
        "listen on {path}, where instances renew their credentials; choose another place with --data DIR"
    )]
    Renewal {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An address that is not on this machine.
    #[error(
        "listen on {0}: only addresses of this machine (127.0.0.0/8, [::1]) are allowed, as there is no TLS yet"
    )]
    NotLoopback(SocketAddr),
    /// `bus.url` is not an address.
    #[error("read `bus.url`")]
    BusUrl(#[from] alicia_bus::AddressError),
    /// A module's database could not be opened.
    #[error("open the database of {module}")]
    Store {
        /// The module.
        module: &'static str,
        /// Why.
        #[source]
        source: Box<alicia_store::Error>,
    },
    /// The keys of the audit log could not be read or made.
    #[error("open the keys of the audit log in {path}")]
    Audit {
        /// Their directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The place of the stored secrets could not be made.
    #[error("open the stored secrets")]
    Secrets(#[from] alicia_secrets::Error),
    /// A module could not start.
    #[error("start the module {module}")]
    Module {
        /// The module.
        module: &'static str,
        /// Why.
        #[source]
        source: alicia_module::Error,
    },
}
