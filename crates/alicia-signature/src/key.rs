//! Ed25519 keys (RFC 8032), written as in JSON Web Keys (RFC 8037): base64url without padding.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

/// Bytes of a seed and of a public key.
pub const KEY_BYTES: usize = 32;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not 32 bytes in base64url.
    #[error("read a key: expected 32 bytes in base64url without padding")]
    Malformed,
    /// The system gave no random bytes.
    #[error("get random bytes from the system")]
    Random,
}

/// A key pair. It does not print.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: [u8; KEY_BYTES],
    public: PublicKey,
}

// === impl SigningKey ===

impl SigningKey {
    /// A new pair from the system's random numbers.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the system gives none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0_u8; KEY_BYTES];
        getrandom::fill(&mut seed).map_err(|_| KeyError::Random)?;
        Ok(Self::from_seed(seed))
    }

    /// The pair of a seed.
    ///
    /// # Panics
    /// Never: every 32 bytes are a seed (RFC 8032 section 5.1.5).
    #[must_use]
    pub fn from_seed(seed: [u8; KEY_BYTES]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes are a seed");
        let mut public = [0_u8; KEY_BYTES];
        public.copy_from_slice(pair.public_key().as_ref());
        Self {
            pair,
            seed,
            public: PublicKey(public),
        }
    }

    /// The pair of a seed in base64url.
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn from_text(seed: &str) -> Result<Self, KeyError> {
        Ok(Self::from_seed(decode(seed)?))
    }

    /// The seed in base64url: for the holder only.
    #[must_use]
    pub fn reveal(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.seed)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs bytes.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0_u8; SIGNATURE_BYTES];
        signature.copy_from_slice(self.pair.sign(bytes).as_ref());
        signature
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}…)", self.public)
    }
}

/// A public key. Its text form is the `x` of a JSON Web Key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

// === impl PublicKey ===

impl PublicKey {
    /// Reads the `x` of a JSON Web Key.
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn from_text(x: &str) -> Result<Self, KeyError> {
        decode(x).map(Self)
    }

    /// Whether the signature is this key's, over these bytes.
    #[must_use]
    pub fn verify(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(bytes, signature)
            .is_ok()
    }

    /// The key's id: its RFC 7638 thumbprint with SHA-256, in base64url.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{self}"}}"#);
        URL_SAFE_NO_PAD.encode(Sha256::digest(members.as_bytes()))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

fn decode(text: &str) -> Result<[u8; KEY_BYTES], KeyError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| KeyError::Malformed)?;
    bytes.try_into().map_err(|_| KeyError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037 appendix A.
    const SEED: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    #[test]
    fn the_example_of_rfc_8037_has_its_public_key_and_thumbprint() {
        let key = SigningKey::from_text(SEED).expect("a seed");
        assert_eq!(key.public().to_string(), X);
        assert_eq!(
            key.public().thumbprint(),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
        assert_eq!(key.reveal(), SEED);
    }

    #[test]
    fn a_signature_is_good_for_its_bytes_and_key_only() {
        let (key, other) = (
            SigningKey::from_seed([1; KEY_BYTES]),
            SigningKey::generate().expect("random"),
        );
        let signature = key.sign(b"hello");
        assert!(key.public().verify(b"hello", &signature));
        assert!(!key.public().verify(b"hellp", &signature));
        assert!(!key.public().verify(b"hello", &signature[..63]));
        assert!(!other.public().verify(b"hello", &signature));
    }

    #[test]
    fn what_is_no_key_is_refused_and_no_seed_prints() {
        for bad in ["", "AAAA", &format!("{X}="), &format!("{X}A"), "ä"] {
            assert_eq!(PublicKey::from_text(bad), Err(KeyError::Malformed), "{bad}");
        }
        let key = SigningKey::from_text(SEED).expect("a seed");
        assert!(!format!("{key:?}").contains(SEED));
    }
}
