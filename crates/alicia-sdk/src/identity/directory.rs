//! The keys of others, as the signed directory on the bus lists them.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use alicia_bus::Keys;
use alicia_contract::identity::{
    DIRECTORY_TYPE, IdentityFile, KeyDirectory, SignaturePolicy, SignedDocument,
};
use alicia_signature::{KnownKey, PublicKey, jws};
use tokio::sync::watch;
use tokio::time::timeout;

/// What was taken last.
struct Known {
    version: u64,
    roots: Vec<PublicKey>,
    policy: SignaturePolicy,
    keys: HashMap<String, KnownKey>,
}

/// The directory, from the first word of it on.
pub(super) struct Directory {
    known: RwLock<Known>,
    version: watch::Sender<u64>,
}

// === impl Directory ===

impl Directory {
    /// Nobody is known yet but the root keys.
    pub(super) fn new(file: &IdentityFile) -> Self {
        let known = Known {
            version: 0,
            roots: public_keys(&file.roots),
            policy: file.signatures,
            keys: HashMap::new(),
        };
        Self {
            known: RwLock::new(known),
            version: watch::Sender::new(0),
        }
    }

    /// Takes a document that a known root key has signed and that is not older than the last one.
    pub(super) fn take(&self, document: &SignedDocument) {
        let Some(directory) = self.open(document) else {
            tracing::warn!("a directory of keys was not taken: no known root key has signed it");
            return;
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if directory.version < known.version {
            tracing::warn!("a directory of keys was not taken: it is older than the one known");
            return;
        }
        known.version = directory.version;
        known.roots = public_keys(&directory.roots);
        known.policy = directory.signatures;
        known.keys = directory
            .keys
            .into_iter()
            .filter_map(|key| {
                let public = PublicKey::from_text(&key.x).ok()?;
                let known = KnownKey {
                    public,
                    source: key.source,
                    instance: key.instance,
                    epoch: key.epoch.0,
                };
                Some((public.thumbprint(), known))
            })
            .collect();
        let version = known.version;
        drop(known);
        self.version.send_replace(version);
    }

    fn open(&self, document: &SignedDocument) -> Option<KeyDirectory> {
        let signatures = document.signatures.iter();
        let document = jws::Document {
            payload: document.payload.clone(),
            signatures: signatures
                .map(|one| jws::DocumentSignature {
                    protected: one.protected.clone(),
                    signature: one.signature.clone(),
                })
                .collect(),
        };
        let content = jws::open_document(&document, DIRECTORY_TYPE, &self.read().roots)?;
        serde_json::from_slice(&content).ok()
    }

    /// Root keys that a renewal told of; the answer came over the host's own socket.
    pub(super) fn add_roots(&self, roots: &[String]) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for root in public_keys(roots) {
            if !known.roots.contains(&root) {
                known.roots.push(root);
            }
        }
    }

    /// Waits until a key is listed, at most for so long.
    pub(super) async fn wait_for(&self, kid: &str, patience: Duration) {
        let mut versions = self.version.subscribe();
        let listed = async {
            while self.known_key(kid).is_none() {
                if versions.changed().await.is_err() {
                    return;
                }
            }
        };
        if timeout(patience, listed).await.is_err() {
            tracing::debug!("the directory does not list this instance's key yet");
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys for Directory {
    fn known_key(&self, kid: &str) -> Option<KnownKey> {
        self.read().keys.get(kid).cloned()
    }

    fn policy(&self) -> SignaturePolicy {
        self.read().policy
    }
}

fn public_keys(texts: &[String]) -> Vec<PublicKey> {
    let keys = texts.iter().filter_map(|x| PublicKey::from_text(x).ok());
    keys.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_contract::identity::{DirectoryKey, DocumentSignature};
    use alicia_contract::{Epoch, InstanceId, ServiceName};
    use alicia_signature::SigningKey;

    fn root(n: u8) -> SigningKey {
        SigningKey::from_seed([n; 32])
    }

    fn document(
        version: u64,
        lists: u8,
        signer: &SigningKey,
        roots: &[&SigningKey],
    ) -> SignedDocument {
        let directory = KeyDirectory {
            version,
            issued: 0.0,
            domain: "home".into(),
            signatures: SignaturePolicy::default(),
            roots: roots.iter().map(|key| key.public().to_string()).collect(),
            keys: vec![DirectoryKey {
                source: "lamp".into(),
                instance: "i".into(),
                epoch: Epoch(1),
                x: root(lists).public().to_string(),
            }],
        };
        let content = serde_json::to_vec(&directory).expect("text");
        let signed = jws::sign_document(&[signer], DIRECTORY_TYPE, &content);
        let signature = |one: jws::DocumentSignature| DocumentSignature {
            protected: one.protected,
            signature: one.signature,
        };
        SignedDocument {
            payload: signed.payload,
            signatures: signed.signatures.into_iter().map(signature).collect(),
        }
    }

    #[test]
    fn a_directory_is_taken_from_a_known_root_and_never_an_older_one() {
        let file = IdentityFile {
            id: String::new(),
            service: ServiceName::new("api").expect("id"),
            instance: InstanceId::from_parts(1, 1),
            epoch: Epoch(1),
            key: String::new(),
            socket: String::new(),
            logs_in: true,
            api: None,
            roots: vec![root(1).public().to_string()],
            signatures: SignaturePolicy::default(),
        };
        let directory = Directory::new(&file);
        let lists = |n: u8| {
            directory
                .known_key(&root(n).public().thumbprint())
                .is_some()
        };
        directory.take(&document(5, 10, &root(2), &[&root(2)]));
        assert!(!lists(10), "signed by a stranger");
        directory.take(&document(5, 10, &root(1), &[&root(1)]));
        assert!(lists(10));
        directory.take(&document(4, 11, &root(1), &[&root(1)]));
        assert!(lists(10) && !lists(11), "an older one");
        directory.take(&document(6, 11, &root(1), &[&root(2), &root(1)]));
        assert!(!lists(10) && lists(11));
        directory.take(&document(7, 12, &root(2), &[&root(2)]));
        assert!(lists(12), "the root key has rotated");
        directory.take(&document(8, 13, &root(1), &[&root(1)]));
        assert!(!lists(13), "the old root key is gone");
    }
}
