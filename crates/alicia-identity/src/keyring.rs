//! The ring of API keys: a small file of names, scopes and hashes, replaced in one step at each change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use alicia_contract::identity::Grant;
use alicia_contract::platform::{KeyInfo, Scope};
use alicia_contract::unit::UnixSeconds;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::grants::Grants;
use crate::identity::Identity;
use crate::key::ApiKey;
use crate::{Error, file};

/// More keys than this are a mistake, or an attack on the file.
pub const KEYS_MAX: usize = 1_000;

/// The keys of one host.
#[derive(Debug, Clone, PartialEq)]
pub struct Keyring {
    path: PathBuf,
    keys: BTreeMap<String, StoredKey>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredKey {
    hash: String,
    prefix: String,
    /// None for a key of limited scope: a program that knows no such keys cannot read the ring, rather than take
    /// the key for more than it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<Scope>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<Grant>,
    created: UnixSeconds,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<UnixSeconds>,
}

/// One key among all that ever had its name: who revokes a key and makes another of the same name has done with the first,
/// with its sessions and its connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The name of the key.
    pub name: String,
    /// Its first characters, by which keys are told apart.
    pub prefix: String,
}

/// What a key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyScope {
    /// A step of the ladder.
    Ladder(Scope),
    /// These things and no others.
    Limited(Vec<Grant>),
}

impl StoredKey {
    fn is_expired(&self, now: UnixSeconds) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn info(&self, name: &str) -> KeyInfo {
        KeyInfo {
            name: name.to_owned(),
            prefix: self.prefix.clone(),
            scope: self.scope,
            scopes: self.scopes.clone(),
            created: self.created,
            expires: self.expires,
            last_used: None,
        }
    }

    fn identity(&self, name: &str) -> Identity {
        let name = name.to_owned();
        match self.scope {
            Some(scope) => Identity::Key { name, scope },
            None => Identity::Limited {
                name,
                grants: Grants::new(self.scopes.clone()),
            },
        }
    }

    fn is_admin(&self) -> bool {
        self.scope == Some(Scope::Admin)
    }
}

impl Keyring {
    /// Reads the ring; an absent file is an empty ring.
    ///
    /// # Errors
    /// When the file is there and cannot be read or understood.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let keys = match file::read(path)? {
            None => BTreeMap::new(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::Corrupt {
                path: path.to_owned(),
                detail: error.to_string(),
            })?,
        };
        Ok(Self {
            path: path.to_owned(),
            keys,
        })
    }

    /// Whether there is no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Makes a key; on return it is on disk.
    ///
    /// # Errors
    /// When the name is taken, the ring is full or the file cannot be written; then nothing has changed.
    pub fn create(
        &mut self,
        name: &str,
        scope: KeyScope,
        created: UnixSeconds,
        expires: Option<UnixSeconds>,
    ) -> Result<(ApiKey, KeyInfo), Error> {
        if self.keys.contains_key(name) {
            return Err(Error::KeyExists(name.to_owned()));
        }
        if self.keys.len() >= KEYS_MAX {
            return Err(Error::TooManyKeys(KEYS_MAX));
        }
        let key = ApiKey::generate()?;
        let (scope, scopes) = match scope {
            KeyScope::Ladder(scope) => (Some(scope), Vec::new()),
            KeyScope::Limited(scopes) => (None, scopes),
        };
        let stored = StoredKey {
            hash: key.hash(),
            prefix: key.prefix().to_owned(),
            scope,
            scopes,
            created,
            expires,
        };
        let info = stored.info(name);
        let mut keys = self.keys.clone();
        keys.insert(name.to_owned(), stored);
        self.replace(keys)?;
        Ok((key, info))
    }

    /// Removes a key; on return the removal is on disk.
    ///
    /// # Errors
    /// When there is no such key, it is the last usable admin key, or the file cannot be written.
    pub fn revoke(&mut self, name: &str, now: UnixSeconds) -> Result<KeyInfo, Error> {
        let info = self
            .keys
            .get(name)
            .map(|key| key.info(name))
            .ok_or_else(|| Error::NoSuchKey(name.to_owned()))?;
        let mut keys = self.keys.clone();
        keys.remove(name);
        let admin_left = keys
            .values()
            .any(|key| key.is_admin() && !key.is_expired(now));
        if info.scope == Some(Scope::Admin) && !admin_left {
            return Err(Error::LastAdmin(name.to_owned()));
        }
        self.replace(keys)?;
        Ok(info)
    }

    /// Every key, without its secret, by name.
    #[must_use]
    pub fn list(&self) -> Vec<KeyInfo> {
        self.keys.iter().map(|(name, key)| key.info(name)).collect()
    }

    /// The identity of the holder; `None` for a key that is unknown, revoked or expired.
    #[must_use]
    pub fn verify(&self, text: &str, now: UnixSeconds) -> Option<Identity> {
        let hash = ApiKey::parse(text)?.hash();
        let is_it = |key: &StoredKey| bool::from(key.hash.as_bytes().ct_eq(hash.as_bytes()));
        let (name, key) = self.keys.iter().find(|(_, key)| is_it(key))?;
        (!key.is_expired(now)).then(|| key.identity(name))
    }

    /// The key that has this name now, while it is there and not expired.
    #[must_use]
    pub fn holder(&self, name: &str, now: UnixSeconds) -> Option<Holder> {
        let key = self.keys.get(name).filter(|key| !key.is_expired(now))?;
        Some(Holder {
            name: name.to_owned(),
            prefix: key.prefix.clone(),
        })
    }

    /// The identity of a holder, while it is this very key that has the name.
    #[must_use]
    pub fn identity(&self, holder: &Holder, now: UnixSeconds) -> Option<Identity> {
        let present = self.holder(&holder.name, now)?;
        let key = self.keys.get(&holder.name).filter(|_| present == *holder)?;
        Some(key.identity(&holder.name))
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn replace(&mut self, keys: BTreeMap<String, StoredKey>) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(&keys).expect("keys are plain text and numbers");
        file::replace(&self.path, &bytes)?;
        self.keys = keys;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> (tempfile::TempDir, Keyring) {
        let directory = tempfile::tempdir().expect("a directory");
        let ring = Keyring::open(&directory.path().join("keys.json")).expect("opens");
        (directory, ring)
    }

    #[test]
    fn a_key_works_until_it_is_revoked_or_expires() {
        let (_directory, mut ring) = ring();
        ring.create("root", KeyScope::Ladder(Scope::Admin), 0.0, None)
            .expect("made");
        let (key, _) = ring
            .create("phone", KeyScope::Ladder(Scope::Read), 0.0, Some(100.0))
            .expect("made");
        let holder = Identity::Key {
            name: "phone".into(),
            scope: Scope::Read,
        };
        assert_eq!(ring.verify(key.reveal(), 99.0), Some(holder));
        assert_eq!(ring.verify(key.reveal(), 100.0), None);
        let reread = Keyring::open(&ring.path).expect("reads");
        assert!(reread.verify(key.reveal(), 1.0).is_some());
        ring.revoke("phone", 1.0).expect("revoked");
        assert_eq!(ring.verify(key.reveal(), 1.0), None);
    }

    #[test]
    fn a_key_of_limited_scope_is_no_step_of_the_ladder() {
        let (_directory, mut ring) = ring();
        ring.create("root", KeyScope::Ladder(Scope::Admin), 0.0, None)
            .expect("made");
        let grants = vec!["health:ack".parse::<Grant>().expect("a scope")];
        let (key, _) = ring
            .create("pager", KeyScope::Limited(grants.clone()), 0.0, None)
            .expect("made");
        let reread = Keyring::open(&ring.path).expect("reads");
        let holder = reread.verify(key.reveal(), 1.0).expect("is good");
        let name = "pager".to_owned();
        let grants = Grants::new(grants);
        assert_eq!(holder, Identity::Limited { name, grants });
        assert!(!holder.has_scope(Scope::Read));
        assert!(holder.may("health", "ack") && !holder.may("health", "silence"));
        assert!(matches!(ring.revoke("root", 2.0), Err(Error::LastAdmin(_))));
    }

    #[test]
    fn the_file_holds_no_secret_and_is_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let (_directory, mut ring) = ring();
        let (key, _) = ring
            .create("root", KeyScope::Ladder(Scope::Admin), 0.0, None)
            .expect("made");
        let text = std::fs::read_to_string(&ring.path).expect("reads");
        assert!(!text.contains(key.reveal()));
        let mode = std::fs::metadata(&ring.path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_last_admin_key_stays() {
        let (_directory, mut ring) = ring();
        ring.create("root", KeyScope::Ladder(Scope::Admin), 0.0, None)
            .expect("made");
        ring.create("old", KeyScope::Ladder(Scope::Admin), 0.0, Some(1.0))
            .expect("made");
        assert!(matches!(ring.revoke("root", 2.0), Err(Error::LastAdmin(_))));
        assert!(matches!(
            ring.create("root", KeyScope::Ladder(Scope::Read), 0.0, None),
            Err(Error::KeyExists(_))
        ));
        assert!(matches!(
            ring.revoke("nobody", 0.0),
            Err(Error::NoSuchKey(_))
        ));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays_as_it_is() {
        let (_directory, ring) = ring();
        std::fs::write(&ring.path, b"{").expect("written");
        assert!(matches!(
            Keyring::open(&ring.path),
            Err(Error::Corrupt { .. })
        ));
        assert_eq!(std::fs::read(&ring.path).expect("there"), b"{");
    }
}
