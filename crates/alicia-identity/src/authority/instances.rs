//! Runs: they begin with a key, renew their credentials, and are cut off when a newer one has their place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::identity::{
    DIRECTORY_TYPE, DirectoryKey, DocumentSignature, IdentityFile, IdentitySettings, KeyDirectory,
    RenewalProof, Renewed, Rotated, SignaturePolicy, SignedDocument, renewal_text,
};
use alicia_contract::unit::UnixSeconds;
use alicia_signature::{KnownKey, PublicKey, Signer, SigningKey, jws};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::watch;

use super::{Authority, Refusal, relock};
use crate::credential::{self, Life, spiffe_id};
use crate::identity::Identity;
use crate::runs::{Run, Standing};
use crate::{Error, file};

/// Who is to begin: one run of one slot.
#[derive(Debug, Clone, Copy)]
pub struct Beginning<'a> {
    /// The service.
    pub service: &'a ServiceName,
    /// The slot; the run before it in this slot is cut off.
    pub slot: u32,
    /// The run.
    pub instance: &'a InstanceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Where it renews its credentials.
    pub socket: &'a Path,
    /// Whether the broker takes its credentials.
    pub logs_in: bool,
}

/// The process that leads a run: whoever asks for its credential must be of its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The directory of its cgroup, where it has one of its own.
    pub cgroup: Option<PathBuf>,
}

// === impl Authority: settings ===

impl Authority {
    /// Takes over the section `identity` of the file.
    pub fn set_settings(&self, settings: &IdentitySettings) {
        if **self.inner.settings.load() != *settings {
            self.inner.settings.store(Arc::new(settings.clone()));
            self.changed();
        }
    }

    /// The section `identity` of the file.
    #[must_use]
    pub fn settings(&self) -> Arc<IdentitySettings> {
        self.inner.settings.load_full()
    }

    /// Whether commands must be signed.
    #[must_use]
    pub fn signature_policy(&self) -> SignaturePolicy {
        self.inner.settings.load().signatures
    }

    /// Rises whenever somebody begins, ends, joins or is revoked, and when keys rotate.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.version.subscribe()
    }

    pub(super) fn changed(&self) {
        self.inner.version.send_modify(|version| *version += 1);
    }
}

// === impl Authority: runs ===

impl Authority {
    /// A run begins: it gets a key of its own, and the run that had its slot may do nothing from now on.
    ///
    /// # Errors
    /// When the system gives no random numbers, or the list of runs cannot be written.
    pub fn begin_run(&self, run: Beginning<'_>, now: UnixSeconds) -> Result<IdentityFile, Error> {
        let key =
            SigningKey::generate().map_err(|_| Error::Random(getrandom::Error::UNEXPECTED))?;
        let record = Run {
            instance: run.instance.clone(),
            epoch: run.epoch,
            x: key.public().to_string(),
        };
        let written = self
            .inner
            .runs
            .begin(run.service.as_str(), run.slot, record);
        self.changed();
        written?;
        let settings = self.settings();
        Ok(IdentityFile {
            id: spiffe_id(&settings.domain, run.service),
            service: run.service.clone(),
            instance: run.instance.clone(),
            epoch: run.epoch,
            key: key.reveal(),
            socket: run.socket.display().to_string(),
            logs_in: run.logs_in,
            api: None,
            roots: self.root_keys(now),
            signatures: settings.signatures,
        })
    }

    /// The process of a run is known.
    pub fn note_process(&self, instance: &InstanceId, process: Process) {
        relock(&self.inner.processes).insert(instance.clone(), process);
    }

    /// The process of a run, once it is known.
    #[must_use]
    pub fn process_of(&self, instance: &InstanceId) -> Option<Process> {
        relock(&self.inner.processes).get(instance).cloned()
    }

    /// A run has ended, and whoever still holds its key may do nothing.
    pub fn end_run(&self, instance: &InstanceId) {
        relock(&self.inner.processes).remove(instance);
        let Some(owner) = self.inner.runs.owner(instance) else {
            return;
        };
        if let Err(error) = self.inner.runs.end(&owner, instance) {
            tracing::warn!(%error, %instance, "the end of a run was not written down");
        }
        self.changed();
    }

    /// Ends the runs of services that an earlier host has left in the list and that are gone.
    pub fn end_other_runs(&self, is_there: impl Fn(&str) -> bool) {
        for (owner, run) in self.inner.runs.all() {
            if !owner.starts_with(MODULE_OWNER) && !is_there(run.instance.as_str()) {
                self.end_run(&run.instance);
            }
        }
    }

    /// Whether somebody who proved an identity may act now.
    ///
    /// # Errors
    /// [`Refusal::StaleEpoch`] when a newer run has its place, it has ended, or it was revoked.
    pub fn may_act(&self, identity: &Identity) -> Result<(), Refusal> {
        let is_current = match identity {
            Identity::Module(_) | Identity::Key { .. } | Identity::Limited { .. } => true,
            Identity::Service {
                service,
                instance,
                epoch,
            } => {
                let standing = self.inner.runs.standing(service.as_str(), instance, *epoch);
                // A service of which nothing is known was started before there were such lists.
                standing != Standing::Fenced
            }
            Identity::Agent {
                name,
                instance,
                epoch,
                ..
            } => {
                let agents = relock(&self.inner.agents);
                let agent = agents.agent(name);
                agent.is_some_and(|agent| agent.instance == *instance && agent.epoch == *epoch)
                    && !self.is_service(name)
            }
        };
        match identity.run() {
            Some((name, instance, epoch)) if !is_current => Err(Refusal::StaleEpoch {
                name: name.clone(),
                instance: instance.clone(),
                epoch,
            }),
            _ => Ok(()),
        }
    }

    /// Whether the connection that began with this login may go on: who may act, and an agent while its newest
    /// credential is good.
    ///
    /// # Errors
    /// As [`Self::may_act`], and [`Refusal::Expired`].
    pub fn may_stay(&self, identity: &Identity, now: UnixSeconds) -> Result<(), Refusal> {
        self.may_act(identity)?;
        if let Identity::Agent { name, .. } = identity {
            let agents = relock(&self.inner.agents);
            let is_valid = agents
                .agent(name)
                .is_some_and(|agent| agent.valid_until > now);
            if !is_valid {
                return Err(Refusal::Expired(name.clone()));
            }
        }
        Ok(())
    }

    /// A credential for an instance of a service that has proved to hold its key.
    ///
    /// # Errors
    /// When the run may not act, or the proof or the nonce is not good.
    pub fn renew_run(
        &self,
        proof: &RenewalProof,
        nonce: &str,
        now: UnixSeconds,
    ) -> Result<Renewed, Error> {
        let (service, instance, epoch) = (&proof.service, &proof.instance, proof.epoch);
        let identity = Identity::Service {
            service: service.clone(),
            instance: instance.clone(),
            epoch,
        };
        let run = self.inner.runs.find(service.as_str(), instance, epoch);
        let run = run.ok_or_else(|| {
            let text = format!("epoch {epoch} of {service} is over, or was never begun");
            Error::MayNotAct(text)
        })?;
        let text = renewal_text(nonce, service.as_str(), instance.as_str(), epoch.0);
        check_proof(&run.x, &text, &proof.proof)?;
        self.use_nonce(instance, nonce, now)?;
        Ok(self.issue_credential(&identity, now))
    }

    /// A credential for who has a run.
    ///
    /// # Panics
    /// For modules and holders of keys.
    pub(super) fn issue_credential(&self, identity: &Identity, now: UnixSeconds) -> Renewed {
        let settings = self.settings();
        let life = Life {
            from: now,
            until: now + settings.credential_ttl.duration().as_secs_f64(),
        };
        let roots = self.inner.roots.load();
        let credential = credential::issue(roots.signing(), &settings.domain, identity, life)
            .expect("credentials are for who has a run");
        Renewed {
            credential,
            expires: life.until,
            now,
            roots: self.root_keys(now),
        }
    }
}

// === impl Authority: keys that sign messages ===

impl Authority {
    /// The signer of a module's messages: a new key, which takes the place of the one that the module had.
    ///
    /// # Errors
    /// As [`Self::begin_run`].
    pub fn module_signer(&self, module: &str, now: UnixSeconds) -> Result<Arc<Signer>, Error> {
        let key =
            SigningKey::generate().map_err(|_| Error::Random(getrandom::Error::UNEXPECTED))?;
        let now_ms = millis(now);
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(Error::Random)?;
        let record = Run {
            instance: InstanceId::from_parts(now_ms, u128::from_le_bytes(random) >> 48),
            epoch: Epoch(now_ms),
            x: key.public().to_string(),
        };
        let written = self.inner.runs.begin(&module_owner(module), 0, record);
        self.changed();
        written?;
        Ok(Arc::new(Signer::new(key, format!("system/{module}"))))
    }

    /// The key of this id, while its holder may act.
    #[must_use]
    pub fn known_key(&self, kid: &str) -> Option<KnownKey> {
        let version = *self.inner.version.borrow();
        let mut known = relock(&self.inner.known_keys);
        if known.0 != version || known.1.is_empty() {
            *known = (version, self.all_known_keys());
        }
        known.1.get(kid).cloned()
    }

    fn all_known_keys(&self) -> std::collections::HashMap<String, KnownKey> {
        let keys = self.directory_keys().into_iter();
        keys.filter_map(|key| {
            let public = PublicKey::from_text(&key.x).ok()?;
            let known = KnownKey {
                public,
                source: key.source,
                instance: key.instance,
                epoch: key.epoch.0,
            };
            Some((public.thumbprint(), known))
        })
        .collect()
    }

    fn directory_keys(&self) -> Vec<DirectoryKey> {
        let services = self.inner.services.load();
        let runs = self
            .inner
            .runs
            .all()
            .into_iter()
            .filter_map(|(owner, run)| {
                let source = match owner.strip_prefix(MODULE_OWNER) {
                    Some(module) => format!("system/{module}"),
                    None => {
                        let name = ServiceName::new(owner).ok()?;
                        services.contains_key(&name).then(|| name.to_string())?
                    }
                };
                Some(DirectoryKey {
                    source,
                    instance: run.instance.to_string(),
                    epoch: run.epoch,
                    x: run.x,
                })
            });
        let mut keys: Vec<DirectoryKey> = runs.collect();
        let agents = relock(&self.inner.agents);
        let agents = agents
            .agents()
            .filter(|(name, _)| !services.contains_key(*name));
        keys.extend(agents.map(|(name, agent)| DirectoryKey {
            source: name.to_string(),
            instance: agent.instance.to_string(),
            epoch: agent.epoch,
            x: agent.x.clone(),
        }));
        keys
    }

    /// The root keys in text form, the present one first.
    #[must_use]
    pub fn root_keys(&self, now: UnixSeconds) -> Vec<String> {
        let keys = self.inner.roots.load().public(now);
        keys.iter().map(ToString::to_string).collect()
    }

    /// The directory of keys as of now.
    #[must_use]
    pub fn directory(&self, now: UnixSeconds) -> KeyDirectory {
        let settings = self.settings();
        KeyDirectory {
            // Above what an earlier host has published, and rising within this one.
            version: self
                .inner
                .started_ms
                .load(std::sync::atomic::Ordering::Relaxed)
                + *self.inner.version.borrow(),
            issued: now,
            domain: settings.domain.clone(),
            signatures: settings.signatures,
            roots: self.root_keys(now),
            keys: self.directory_keys(),
        }
    }

    /// The directory of keys with the signatures of all root keys that are good now, and its version.
    #[must_use]
    pub fn signed_directory(&self, now: UnixSeconds) -> (SignedDocument, u64) {
        let directory = self.directory(now);
        let content = serde_json::to_vec(&directory).expect("texts and numbers");
        let signed = SignedDocument {
            payload: URL_SAFE_NO_PAD.encode(&content),
            signatures: self.sign_document(DIRECTORY_TYPE, &content, now),
        };
        (signed, directory.version)
    }

    /// Signs a document as the house, with all root keys that are good now, the present one first. The type stands
    /// in the protected header, so that one kind of document cannot be taken for another.
    #[must_use]
    pub fn sign_document(
        &self,
        typ: &str,
        content: &[u8],
        now: UnixSeconds,
    ) -> Vec<DocumentSignature> {
        let roots = self.inner.roots.load();
        let document = jws::sign_document(&roots.all_signing(now), typ, content);
        let signature = |one: jws::DocumentSignature| DocumentSignature {
            protected: one.protected,
            signature: one.signature,
        };
        document.signatures.into_iter().map(signature).collect()
    }

    /// Makes new root keys. The present ones are checked, and sign the directory, for twice the life of a
    /// credential. The token files of `credentials` are written anew. Blocks for the disk.
    ///
    /// # Errors
    /// When too many overlap, or a file cannot be written.
    pub fn rotate_roots(&self, credentials: &Path, now: UnixSeconds) -> Result<Rotated, Error> {
        let _one_at_a_time = relock(&self.inner.keys_change);
        let overlap = 2.0 * self.settings().credential_ttl.duration().as_secs_f64();
        let before = self.inner.roots.load_full();
        let rotated = before.rotated(now, now + overlap)?;
        let answer = Rotated {
            kid: rotated.signing().public().thumbprint(),
            previous: before.signing().public().thumbprint(),
            overlap_until: now + overlap,
        };
        self.inner.roots.store(Arc::new(rotated));
        self.changed();
        for (owner, run) in self.inner.runs.all() {
            let path = credentials.join(run.instance.as_str());
            let (Ok(service), true) = (ServiceName::new(owner), path.exists()) else {
                continue;
            };
            let token = self.issue_token(&Identity::Service {
                service,
                instance: run.instance,
                epoch: run.epoch,
            });
            file::overwrite(&path, token.as_bytes())?;
        }
        Ok(answer)
    }
}

/// The owner under which the key of a module is listed: no service can have this name.
const MODULE_OWNER: &str = "system.";

fn module_owner(module: &str) -> String {
    format!("{MODULE_OWNER}{module}")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time after 1970 in milliseconds fits for 292 million years"
)]
pub(super) fn millis(now: UnixSeconds) -> u64 {
    (now * 1_000.0) as u64
}

pub(super) fn check_proof(x: &str, text: &[u8], proof: &str) -> Result<(), Error> {
    let key = PublicKey::from_text(x).map_err(|_| Error::BadProof)?;
    let signature = URL_SAFE_NO_PAD.decode(proof).map_err(|_| Error::BadProof)?;
    if key.verify(text, &signature) {
        Ok(())
    } else {
        Err(Error::BadProof)
    }
}
