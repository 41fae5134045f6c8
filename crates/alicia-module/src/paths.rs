//! Where things lie in the data directory. Nobody else spells these names.

use std::path::{Path, PathBuf};

/// The layout of the data directory; drawn in `docs/architecture.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    data: PathBuf,
    /// The directory of `alicia.yaml`; relative paths of services start there.
    base: PathBuf,
    /// Where the key of the stored secrets lies, when not beside them.
    vault_key: Option<PathBuf>,
}

impl Paths {
    /// The layout below a data directory, for a file in `base`.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, base: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            base: base.into(),
            vault_key: None,
        }
    }

    /// The same layout with the key of the stored secrets in another place.
    #[must_use]
    pub fn with_vault_key(self, vault_key: Option<PathBuf>) -> Self {
        Self { vault_key, ..self }
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where relative paths of services start.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The database of a module.
    #[must_use]
    pub fn database(&self, module: &str) -> PathBuf {
        self.data.join("data").join(format!("{module}.db"))
    }

    /// The directory of the keeper: socket, lock, state.
    #[must_use]
    pub fn keeper(&self) -> PathBuf {
        self.data.join("keeper")
    }

    /// The output of services, a directory each.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// The output of one slot of a service: the file that is written now.
    #[must_use]
    pub fn log_file(&self, service: &str, slot: u32) -> PathBuf {
        self.log_directory(service).join(format!("{slot}.log"))
    }

    /// Where the output of a service goes.
    #[must_use]
    pub fn log_directory(&self, service: &str) -> PathBuf {
        self.logs().join(service)
    }

    /// The token files of running instances.
    #[must_use]
    pub fn credentials(&self) -> PathBuf {
        self.data.join("credentials")
    }

    /// Where instances renew their credentials.
    #[must_use]
    pub fn renewal_socket(&self) -> PathBuf {
        self.credentials().join("renew.sock")
    }

    /// Root key and API keys.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.data.join("identity")
    }

    /// The stored secrets, sealed.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.data.join("secrets")
    }

    /// Where the key of the stored secrets lies, when not beside them.
    #[must_use]
    pub fn vault_key(&self) -> Option<&Path> {
        self.vault_key.as_deref()
    }

    /// The keys of the audit log, and its signed checkpoints unless they go elsewhere.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.data.join("audit")
    }

    /// The first admin key.
    #[must_use]
    pub fn admin_key(&self) -> PathBuf {
        self.data.join("admin.key")
    }

    /// Where a running host is found.
    #[must_use]
    pub fn host_file(&self) -> PathBuf {
        self.data.join("host.json")
    }

    /// Held while a host runs.
    #[must_use]
    pub fn host_lock(&self) -> PathBuf {
        self.data.join("host.lock")
    }

    /// The log of a host in the background.
    #[must_use]
    pub fn host_log(&self) -> PathBuf {
        self.data.join("host.log")
    }
}
