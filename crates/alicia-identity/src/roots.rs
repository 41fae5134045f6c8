//! The root keys: what tokens, sessions, credentials and the directory of keys are signed with.
//!
//! ```text
//!   rotate ──▶ present ── rotate ──▶ overlapping, checked and no longer used ── time ──▶ gone
//! ```
//!
//! Two files: `root.key` (32 bytes, the secret of tokens and sessions) and `signing.json` (Ed25519 seeds, and
//! the secrets that overlap). Both are for the owner only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use alicia_contract::unit::UnixSeconds;
use alicia_signature::{PublicKey, SigningKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::token::RootKey;
use crate::{Error, file};

/// The file with the secret of tokens and sessions.
const ROOT: &str = "root.key";

/// The file with all others.
const SIGNING: &str = "signing.json";

/// The present key and those that overlap with it: as many as a document has signatures.
pub(crate) const KEYS_MAX: usize = alicia_signature::jws::SIGNATURES_MAX;

/// The keys of one moment.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    directory: PathBuf,
    /// The secret of tokens and sessions, the present one first, with the end of each older one.
    macs: Vec<(RootKey, Option<UnixSeconds>)>,
    /// The keys of credentials and of the directory, the present one first.
    signing: Vec<(Arc<SigningKey>, Option<UnixSeconds>)>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    signing: Vec<StoredKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    older_macs: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    seed: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<UnixSeconds>,
}

impl std::fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredKey")
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

// === impl Roots ===

impl Roots {
    /// Reads the keys, and makes them on the first start.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let stored = read_stored(&directory.join(SIGNING))?;
        let mut macs = vec![(open_mac(&directory.join(ROOT))?, None)];
        let mut signing = Vec::new();
        if let Some(stored) = &stored {
            let corrupt = |detail: &str| Error::Corrupt {
                path: directory.join(SIGNING),
                detail: detail.to_owned(),
            };
            for key in &stored.signing {
                let pair = SigningKey::from_text(&key.seed);
                let pair = pair.map_err(|error| corrupt(&error.to_string()))?;
                signing.push((Arc::new(pair), key.until));
            }
            for key in &stored.older_macs {
                let bytes = URL_SAFE_NO_PAD.decode(&key.seed).ok();
                let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
                let bytes = bytes.ok_or_else(|| corrupt("an older secret is not 32 bytes"))?;
                macs.push((RootKey::new(bytes), key.until));
            }
            if signing.is_empty() {
                return Err(corrupt("it has no signing key"));
            }
        } else {
            signing.push((Arc::new(new_signing_key()?), None));
        }
        let roots = Self {
            directory: directory.to_owned(),
            macs,
            signing,
        };
        if stored.is_none() {
            roots.write_signing()?;
        }
        Ok(roots)
    }

    /// Where the keys lie.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The files of the keys.
    pub(crate) fn paths(&self) -> [PathBuf; 2] {
        [ROOT, SIGNING].map(|name| self.directory.join(name))
    }

    /// The public half of the present key, which is new with each rotation.
    pub(crate) fn present(&self) -> PublicKey {
        self.signing().public()
    }

    /// The secret of new tokens and sessions.
    pub(crate) fn mac(&self) -> &RootKey {
        &self.macs[0].0
    }

    /// The secrets that tokens and sessions are checked with now.
    pub(crate) fn macs(&self, now: UnixSeconds) -> impl Iterator<Item = &RootKey> {
        self.macs
            .iter()
            .filter(move |(_, until)| until.is_none_or(|until| until > now))
            .map(|(key, _)| key)
    }

    /// The key that credentials are signed with.
    pub(crate) fn signing(&self) -> &SigningKey {
        &self.signing[0].0
    }

    /// The keys that sign documents now, the present one first.
    pub(crate) fn all_signing(&self, now: UnixSeconds) -> Vec<&SigningKey> {
        self.signing
            .iter()
            .filter(|(_, until)| until.is_none_or(|until| until > now))
            .map(|(key, _)| &**key)
            .collect()
    }

    /// The public halves of [`Self::all_signing`].
    pub(crate) fn public(&self, now: UnixSeconds) -> Vec<PublicKey> {
        let keys = self.all_signing(now);
        keys.into_iter().map(SigningKey::public).collect()
    }

    /// New keys; the present ones overlap with them until then. On return they are on disk.
    pub(crate) fn rotated(&self, now: UnixSeconds, until: UnixSeconds) -> Result<Self, Error> {
        let overlap = |end: Option<UnixSeconds>| Some(end.unwrap_or(until));
        let is_good = |end: Option<UnixSeconds>| end.is_none_or(|end| end > now);
        let mut rotated = Self {
            directory: self.directory.clone(),
            macs: vec![(RootKey::new(random()?), None)],
            signing: vec![(Arc::new(new_signing_key()?), None)],
        };
        let older = self.macs.iter().filter(|(_, end)| is_good(*end));
        rotated
            .macs
            .extend(older.map(|(key, end)| (key.clone(), overlap(*end))));
        let older = self.signing.iter().filter(|(_, end)| is_good(*end));
        rotated
            .signing
            .extend(older.map(|(key, end)| (key.clone(), overlap(*end))));
        if rotated.signing.len() > KEYS_MAX {
            return Err(Error::TooManyRoots(KEYS_MAX));
        }
        // The older secrets are on disk before the present one is replaced: after a crash between the two steps
        // both files hold the older one, which does no harm.
        rotated.write_signing()?;
        file::replace(&self.directory.join(ROOT), rotated.mac().bytes())?;
        Ok(rotated)
    }

    fn write_signing(&self) -> Result<(), Error> {
        let signing = self.signing.iter().map(|(key, until)| StoredKey {
            seed: key.reveal(),
            until: *until,
        });
        let older = self.macs.iter().skip(1).map(|(key, until)| StoredKey {
            seed: URL_SAFE_NO_PAD.encode(key.bytes()),
            until: *until,
        });
        let stored = Stored {
            signing: signing.collect(),
            older_macs: older.collect(),
        };
        let bytes = serde_json::to_vec_pretty(&stored).expect("texts and numbers");
        file::replace(&self.directory.join(SIGNING), &bytes)
    }
}

fn read_stored(path: &Path) -> Result<Option<Stored>, Error> {
    let Some(bytes) = file::read(path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::Corrupt {
            path: path.to_owned(),
            detail: error.to_string(),
        })
}

fn open_mac(path: &Path) -> Result<RootKey, Error> {
    let Some(bytes) = file::read(path)? else {
        let bytes = random()?;
        file::replace(path, &bytes)?;
        return Ok(RootKey::new(bytes));
    };
    let found = bytes.len();
    let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| Error::Corrupt {
        path: path.to_owned(),
        detail: format!("found {found} bytes, expected 32"),
    })?;
    Ok(RootKey::new(bytes))
}

fn random() -> Result<[u8; 32], Error> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    Ok(bytes)
}

fn new_signing_key() -> Result<SigningKey, Error> {
    Ok(SigningKey::from_seed(random()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_rotation_both_keys_are_good_until_the_overlap_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Roots::open(directory.path()).expect("opens");
        let second = first.rotated(0.0, 100.0).expect("rotated");
        let again = Roots::open(directory.path()).expect("opens");
        for roots in [&second, &again] {
            assert_ne!(roots.signing().public(), first.signing().public());
            assert_eq!(
                roots.public(99.0),
                [roots.signing().public(), first.signing().public()]
            );
            assert_eq!(roots.public(100.0), [roots.signing().public()]);
            assert_eq!(
                (roots.macs(99.0).count(), roots.macs(100.0).count()),
                (2, 1)
            );
        }
        assert_eq!(again.mac().bytes(), second.mac().bytes());
    }

    #[test]
    fn one_cannot_rotate_faster_than_keys_run_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut roots = Roots::open(directory.path()).expect("opens");
        for _ in 1..KEYS_MAX {
            roots = roots.rotated(0.0, 100.0).expect("rotated");
        }
        assert!(matches!(
            roots.rotated(0.0, 100.0),
            Err(Error::TooManyRoots(_))
        ));
        assert!(roots.rotated(100.0, 200.0).is_ok());
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        Roots::open(directory.path()).expect("opens");
        let path = directory.path().join(SIGNING);
        for damage in ["{", "{\"signing\":[]}", "{\"signing\":[{\"seed\":\"x\"}]}"] {
            std::fs::write(&path, damage).expect("written");
            assert!(matches!(
                Roots::open(directory.path()),
                Err(Error::Corrupt { .. })
            ));
            assert_eq!(std::fs::read_to_string(&path).expect("there"), damage);
        }
    }
}
