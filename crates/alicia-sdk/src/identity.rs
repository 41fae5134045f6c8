//! Who the instance can prove to be: a key that it was given at its start, or with which it joined.
//!
//! ```text
//!  ALICIA_FD_IDENTITY ─▶ key ─▶ renewal (Unix socket) ─▶ credential, new at half of its life ─▶ password of the bus
//!  ALICIA_IDENTITY_FILE ─▶ key ─▶ renewal (REST) ──────▶      "
//!                          └──▶ signer of calls          directory of keys ─▶ check of requests
//! ```

mod directory;
mod renewal;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alicia_bus::{Bus, Incoming, PasswordSource, Signing, system_clock};
use alicia_contract::identity::{IdentityFile, KEYS};
use alicia_signature::{Signer, SigningKey};
use tokio::sync::watch;

use crate::error::Error;
use crate::handler::persist;
use directory::Directory;

/// The largest identity: ours have some 700 bytes, roots included.
const IDENTITY_BYTES_MAX: u64 = 64 << 10;

/// How long the first call waits until the others can know this instance's key. Then it goes anyway.
const LISTED_PATIENCE: Duration = Duration::from_secs(2);

/// The variable with the number of the inherited descriptor.
pub(crate) const DESCRIPTOR: &str = "ALICIA_FD_IDENTITY";

/// The variable with the file of an agent that joined.
pub(crate) const FILE: &str = "ALICIA_IDENTITY_FILE";

/// The identity of this instance. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) file: Arc<IdentityFile>,
    signer: Arc<Signer>,
    credential: watch::Sender<Option<String>>,
    directory: Arc<Directory>,
    /// The password until the first credential is there, should that take long.
    token_file: Option<PathBuf>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.file.id)
            .finish_non_exhaustive()
    }
}

// === impl Identity ===

impl Identity {
    /// What the environment names; `None` when it names none. The descriptor is kept from the children of this
    /// process.
    pub(crate) fn take(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Error> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let (name, path) = match (set(DESCRIPTOR), set(FILE)) {
            (Some(number), _) => {
                let descriptor: i32 = number.parse().map_err(|_| Error::Invalid {
                    variable: DESCRIPTOR,
                    found: number.clone(),
                    expected: "the number of a descriptor",
                })?;
                keep_from_children(descriptor);
                (
                    DESCRIPTOR,
                    PathBuf::from(format!("/proc/self/fd/{descriptor}")),
                )
            }
            (None, Some(path)) => (FILE, PathBuf::from(path)),
            (None, None) => return Ok(None),
        };
        let wrong = |expected: &'static str| Error::Invalid {
            variable: name,
            found: path.display().to_string(),
            expected,
        };
        let file = read(&path).map_err(|_| wrong("a file with an identity, as JSON"))?;
        let key = SigningKey::from_text(&file.key).map_err(|_| wrong("an identity with a key"))?;
        Ok(Some(Self::new(
            file,
            key,
            set("ALICIA_TOKEN_FILE").map(PathBuf::from),
        )))
    }

    fn new(file: IdentityFile, key: SigningKey, token_file: Option<PathBuf>) -> Self {
        Self {
            signer: Arc::new(Signer::new(key, file.service.to_string())),
            credential: watch::Sender::new(None),
            directory: Arc::new(Directory::new(&file)),
            token_file,
            file: Arc::new(file),
        }
    }

    /// The password on the bus: whatever credential is newest.
    pub(crate) fn password(&self) -> PasswordSource {
        PasswordSource::Live(self.credential.subscribe())
    }

    /// How calls are signed and requests checked from now on.
    pub(crate) fn signing(&self) -> Signing {
        let now = system_clock()();
        Signing::new(Some(self.signer.clone()), self.directory.clone(), now)
    }

    /// Renews the credential at half of its life, for ever.
    pub(crate) async fn renew(self) {
        renewal::run(self).await;
    }

    /// Follows the directory of keys until the bus is closed.
    pub(crate) async fn follow(self, bus: Bus) {
        let mut states = match persist(|| bus.states(KEYS)).await {
            Ok(states) => states,
            Err(error) => {
                tracing::debug!(%error, "the keys of others are not heard");
                return;
            }
        };
        while let Some(heard) = states.next().await {
            if let Incoming::Message(message) = heard {
                self.directory.take(&message.payload);
            }
        }
    }

    /// Waits until others can know this instance's key, for a little while.
    pub(crate) async fn listed(&self) {
        self.directory
            .wait_for(self.signer.kid(), LISTED_PATIENCE)
            .await;
    }
}

fn read(path: &Path) -> Result<IdentityFile, std::io::Error> {
    let mut text = String::new();
    File::open(path)?
        .take(IDENTITY_BYTES_MAX)
        .read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(std::io::Error::other)
}

/// Marks one descriptor as closed at `exec`, so that a program that this one starts does not inherit the key.
fn keep_from_children(descriptor: i32) {
    let open = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let others: Vec<i32> = numbers.filter(|number| *number != descriptor).collect();
    close_fds::set_fds_cloexec(descriptor, &others);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_contract::identity::SignaturePolicy;
    use alicia_contract::{Epoch, InstanceId, ServiceName};
    use std::collections::BTreeMap;

    fn file() -> IdentityFile {
        IdentityFile {
            id: "spiffe://alicia.local/agent/api".into(),
            service: ServiceName::new("api").expect("id"),
            instance: InstanceId::from_parts(1, 1),
            epoch: Epoch(1),
            key: SigningKey::from_seed([1; 32]).reveal(),
            socket: "/nowhere".into(),
            logs_in: true,
            api: None,
            roots: Vec::new(),
            signatures: SignaturePolicy::default(),
        }
    }

    fn take(variables: &[(&str, &str)]) -> Result<Option<Identity>, Error> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        Identity::take(|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn without_the_variables_there_is_none_and_a_wrong_one_is_told() {
        assert!(take(&[]).expect("no fault").is_none());
        assert!(take(&[(DESCRIPTOR, "")]).expect("no fault").is_none());
        for (name, wrong) in [
            (DESCRIPTOR, "x"),
            (DESCRIPTOR, "999999"),
            (FILE, "/nowhere"),
        ] {
            let fault = take(&[(name, wrong)]).expect_err("is wrong");
            assert!(fault.to_string().contains(name), "{fault}");
        }
    }

    #[test]
    fn an_inherited_descriptor_is_read_and_kept_from_children() {
        use std::io::Write;
        use std::os::fd::AsRawFd;
        let mut inherited = tempfile::tempfile().expect("a file");
        let text = serde_json::to_vec(&file()).expect("text");
        inherited.write_all(&text).expect("written");
        let descriptor = inherited.as_raw_fd();
        let identity = take(&[(DESCRIPTOR, &descriptor.to_string())]);
        let identity = identity.expect("reads").expect("is there");
        assert_eq!(*identity.file, file());
        let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}"));
        let flags = flags.expect("is open");
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.expect("has flags").trim(), 8);
        // O_CLOEXEC as `proc_pid_fdinfo(5)` shows it.
        assert_ne!(flags.expect("octal") & 0o2_000_000, 0);
    }
}
