//! The signature of one message on the bus.
//!
//! A flattened JSON Web Signature (RFC 7515 section 7.2.2) whose payload is the exact bytes of the MQTT
//! message. The protected header binds what the bytes alone do not say:
//!
//! | member | what it says |
//! |---|---|
//! | `alg` | `EdDSA` |
//! | `v` | version of this header, 1 |
//! | `kid` | RFC 7638 thumbprint of the signer's key |
//! | `iss` | the signer's source: a service, `system/<module>` |
//! | `topic` | the whole topic |
//! | `typ` | what it is; [`COMMAND`] |
//! | `iat` | when it was signed, in Unix milliseconds |
//! | `exp` | until when it is good, in Unix milliseconds; none: [`VALIDITY_MS`] after `iat` |
//! | `seq` | a number that the signer raises with each signature, from 1 |
//! | `nonce` | random, so that no two headers are alike |
//!
//! It travels *detached*, as `{"protected","signature"}` beside the payload, or *attached*, as
//! `{"payload","protected","signature"}` in its place, for clients that have no user properties.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::jws::{ALGORITHM, decode, encode, signing_input};
use crate::key::{KeyError, PublicKey, SIGNATURE_BYTES, SigningKey};
use crate::window::{Stale, Window};

/// The version of the header.
pub const VERSION: u32 = 1;

/// The `typ` of a message that wants something done.
pub const COMMAND: &str = "alicia-command";

/// How far the signer's clock and the receiver's may be apart, delivery included, in milliseconds.
pub const VALIDITY_MS: u64 = 60_000;

/// A longer signature is not looked at: ours have some 500 bytes, topics up to 1,024.
pub const SIGNATURE_TEXT_BYTES_MAX: usize = 4_096;

/// Bytes of randomness in a nonce.
const NONCE_BYTES: usize = 12;

/// A signer that was not heard of for this time is forgotten: all that it had signed before is past.
const FORGET_AFTER_MS: u64 = 2 * VALIDITY_MS;

/// Signers that are remembered before the silent ones are forgotten.
const SIGNERS_SOFT_MAX: usize = 4_096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    v: u32,
    kid: String,
    iss: String,
    topic: String,
    typ: String,
    iat: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    seq: u64,
    nonce: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detached {
    protected: String,
    signature: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attached {
    payload: String,
    protected: String,
    signature: String,
}

/// What there is to sign.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The whole topic.
    pub topic: &'a str,
    /// The exact bytes of the message.
    pub payload: &'a [u8],
}

/// Signs the messages of one run of one service, or of one module.
#[derive(Debug)]
pub struct Signer {
    key: SigningKey,
    kid: String,
    source: String,
    sequence: AtomicU64,
}

// === impl Signer ===

impl Signer {
    /// A signer that has signed nothing yet. There is one for each key, or numbers would repeat.
    #[must_use]
    pub fn new(key: SigningKey, source: impl Into<String>) -> Self {
        Self {
            kid: key.public().thumbprint(),
            key,
            source: source.into(),
            sequence: AtomicU64::new(0),
        }
    }

    /// The id of its key.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The detached signature of a command.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the system gives no random bytes.
    pub fn sign(&self, message: Signed<'_>, now_ms: u64) -> Result<String, KeyError> {
        let (protected, signature) = self.parts(message, now_ms)?;
        let detached = Detached {
            protected,
            signature,
        };
        Ok(serde_json::to_string(&detached).expect("two texts"))
    }

    /// The command with its signature around it: what is published in place of the payload.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn attach(&self, message: Signed<'_>, now_ms: u64) -> Result<Vec<u8>, KeyError> {
        let (protected, signature) = self.parts(message, now_ms)?;
        let attached = Attached {
            payload: encode(message.payload),
            protected,
            signature,
        };
        Ok(serde_json::to_vec(&attached).expect("three texts"))
    }

    fn parts(&self, message: Signed<'_>, now_ms: u64) -> Result<(String, String), KeyError> {
        let mut nonce = [0_u8; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| KeyError::Random)?;
        let header = Header {
            alg: ALGORITHM.to_owned(),
            v: VERSION,
            kid: self.kid.clone(),
            iss: self.source.clone(),
            topic: message.topic.to_owned(),
            typ: COMMAND.to_owned(),
            iat: now_ms,
            exp: Some(now_ms + VALIDITY_MS),
            seq: self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            nonce: encode(nonce),
        };
        let protected = encode(serde_json::to_vec(&header).expect("texts and numbers"));
        let signed = signing_input(&protected, &encode(message.payload));
        let signature = encode(self.key.sign(&signed));
        Ok((protected, signature))
    }
}

/// A key of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// The key.
    pub public: PublicKey,
    /// Whose messages it signs.
    pub source: String,
    /// The run that holds it.
    pub instance: String,
    /// The epoch of that run.
    pub epoch: u64,
}

/// Who signed a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The signer's source.
    pub source: String,
    /// The run.
    pub instance: String,
    /// Its epoch.
    pub epoch: u64,
}

/// Why a signature is not accepted. The text is a stable name, under which it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Fault {
    /// Not a signature, or a header with a member that is unknown, missing or repeated.
    #[error("malformed-signature")]
    Malformed,
    /// Another algorithm, version or type.
    #[error("other-algorithm")]
    OtherAlgorithm,
    /// The key is of no run that may act: unknown, of an older epoch, or revoked.
    #[error("unknown-key")]
    UnknownKey,
    /// The key is somebody else's.
    #[error("other-source")]
    OtherSource,
    /// Signed for another topic.
    #[error("other-topic")]
    OtherTopic,
    /// Not signed by this key over these bytes.
    #[error("bad-signature")]
    BadSignature,
    /// Signed too long ago, or in the future, or before the receiver started.
    #[error("out-of-time")]
    OutOfTime,
    /// Seen before: a replay, or a second delivery of the same message.
    #[error("repeated-signature")]
    Repeated,
}

#[derive(Debug)]
struct Memory {
    window: Window,
    heard_ms: u64,
}

/// Checks the signatures of messages, and remembers them so that each is good once. Cheap to clone; a clone
/// has the same memory.
#[derive(Debug, Clone)]
pub struct Verifier {
    started_ms: u64,
    memory: Arc<Mutex<HashMap<String, Memory>>>,
}

// === impl Verifier ===

impl Verifier {
    /// A verifier that starts now: what was signed before is not accepted, as an earlier one may have accepted it.
    #[must_use]
    pub fn new(started_ms: u64) -> Self {
        Self {
            started_ms,
            memory: Arc::default(),
        }
    }

    /// Checks a detached signature. A good one is used up.
    ///
    /// # Errors
    /// The first fault that is found; nothing is remembered of such a message.
    pub fn verify(
        &self,
        message: Signed<'_>,
        signature: &str,
        keys: impl Fn(&str) -> Option<KnownKey>,
        now_ms: u64,
    ) -> Result<Verified, Fault> {
        if signature.len() > SIGNATURE_TEXT_BYTES_MAX {
            return Err(Fault::Malformed);
        }
        let Detached {
            protected,
            signature,
        } = serde_json::from_str(signature).map_err(|_| Fault::Malformed)?;
        let header = decode(&protected).ok_or(Fault::Malformed)?;
        let header: Header = serde_json::from_slice(&header).map_err(|error| {
            // `alg: none` has no kid either: the header may lack what ours have.
            if error.is_data() && names_another_algorithm(&header) {
                Fault::OtherAlgorithm
            } else {
                Fault::Malformed
            }
        })?;
        let signature = decode(&signature).filter(|bytes| bytes.len() == SIGNATURE_BYTES);
        if header.alg != ALGORITHM || header.v != VERSION || header.typ != COMMAND {
            return Err(Fault::OtherAlgorithm);
        }
        let signature = signature.ok_or(Fault::Malformed)?;
        if header.nonce.len() < 16 || header.nonce.len() > 64 {
            return Err(Fault::Malformed);
        }
        let known = keys(&header.kid).ok_or(Fault::UnknownKey)?;
        if known.source != header.iss {
            return Err(Fault::OtherSource);
        }
        if header.topic != message.topic {
            return Err(Fault::OtherTopic);
        }
        self.check_time(&header, now_ms)?;
        let signed = signing_input(&protected, &encode(message.payload));
        if known.public.thumbprint() != header.kid || !known.public.verify(&signed, &signature) {
            return Err(Fault::BadSignature);
        }
        self.remember(&header, now_ms)?;
        Ok(Verified {
            source: known.source,
            instance: known.instance,
            epoch: known.epoch,
        })
    }

    fn check_time(&self, header: &Header, now_ms: u64) -> Result<(), Fault> {
        let until = header.exp.unwrap_or(header.iat.saturating_add(VALIDITY_MS));
        let in_time = header.iat.abs_diff(now_ms) <= VALIDITY_MS
            && header.iat >= self.started_ms
            && until >= now_ms
            && until.saturating_sub(header.iat) <= VALIDITY_MS;
        in_time.then_some(()).ok_or(Fault::OutOfTime)
    }

    fn remember(&self, header: &Header, now_ms: u64) -> Result<(), Fault> {
        let mut memory = self.memory();
        if memory.len() >= SIGNERS_SOFT_MAX {
            memory.retain(|_, known| now_ms.saturating_sub(known.heard_ms) <= FORGET_AFTER_MS);
        }
        let known = memory.entry(header.kid.clone()).or_insert_with(|| Memory {
            window: Window::default(),
            heard_ms: now_ms,
        });
        known.heard_ms = known.heard_ms.max(now_ms);
        match known.window.take(header.seq) {
            Ok(()) => Ok(()),
            Err(Stale::Seen | Stale::TooOld) => Err(Fault::Repeated),
        }
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names_another_algorithm(header: &[u8]) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_slice(header).ok();
    let algorithm = value.as_ref().and_then(|value| value.get("alg")?.as_str());
    algorithm.is_some_and(|algorithm| algorithm != ALGORITHM)
}

/// Takes an attached signature apart: the payload, and its detached signature. `None` when the bytes are not
/// such an object: then they are the payload themselves.
#[must_use]
pub fn detach(bytes: &[u8]) -> Option<(Vec<u8>, String)> {
    // Most messages are not: the first look is cheap.
    let starts = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if starts != Some(&b'{') || !contains(bytes, b"\"protected\"") {
        return None;
    }
    let Attached {
        payload,
        protected,
        signature,
    } = serde_json::from_slice(bytes).ok()?;
    let detached = Detached {
        protected,
        signature,
    };
    let detached = serde_json::to_string(&detached).expect("two texts");
    Some((decode(&payload)?, detached))
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn signer() -> Signer {
        Signer::new(SigningKey::from_seed([1; 32]), "api")
    }

    fn known(kid: &str) -> Option<KnownKey> {
        let signer = signer();
        (signer.kid() == kid).then(|| KnownKey {
            public: signer.key().public(),
            source: "api".to_owned(),
            instance: "i".to_owned(),
            epoch: 3,
        })
    }

    fn message(payload: &[u8]) -> Signed<'_> {
        Signed {
            topic: "alicia/lamp/command",
            payload,
        }
    }

    #[test]
    fn a_good_signature_is_good_once() {
        let (signer, verifier) = (signer(), Verifier::new(NOW));
        let signature = signer.sign(message(b"on"), NOW).expect("random");
        let verified = verifier.verify(message(b"on"), &signature, known, NOW + 5);
        assert_eq!(verified.expect("good").epoch, 3);
        let again = verifier.verify(message(b"on"), &signature, known, NOW + 6);
        assert_eq!(again, Err(Fault::Repeated));
        let next = signer.sign(message(b"on"), NOW).expect("random");
        assert!(verifier.verify(message(b"on"), &next, known, NOW).is_ok());
    }

    #[test]
    fn time_is_kept_on_both_sides() {
        let signer = signer();
        let check = |signed_ms: u64, now_ms: u64, expected: bool| {
            let verifier = Verifier::new(NOW);
            let signature = signer.sign(message(b"on"), signed_ms).expect("random");
            let answer = verifier.verify(message(b"on"), &signature, known, now_ms);
            assert_eq!(answer.is_ok(), expected, "{signed_ms} {now_ms}");
        };
        check(NOW, NOW + VALIDITY_MS, true);
        check(NOW, NOW + VALIDITY_MS + 1, false);
        check(NOW + VALIDITY_MS, NOW, true);
        check(NOW + VALIDITY_MS + 1, NOW, false);
        check(NOW - 1, NOW, false);
    }

    #[test]
    fn an_attached_signature_is_taken_apart() {
        let (signer, verifier) = (signer(), Verifier::new(NOW));
        let bytes = signer.attach(message(b"{\"x\":1}"), NOW).expect("random");
        let (payload, signature) = detach(&bytes).expect("is attached");
        assert_eq!(payload, b"{\"x\":1}");
        let verified = verifier.verify(message(&payload), &signature, known, NOW);
        assert!(verified.is_ok(), "{verified:?}");
        for other in [&b"{\"x\":1}"[..], b"protected", b"", b"{\"protected\":1}"] {
            assert_eq!(detach(other), None);
        }
    }
}
