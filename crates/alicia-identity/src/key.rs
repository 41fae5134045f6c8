//! API keys: `alk_<id>_<secret>_<checksum>`.
//!
//! The prefix and the checksum let scanners find leaked keys and let us tell a mistyped key from a
//! wrong one without a look-up. The secret has 190 random bits, so a plain SHA-256 is kept of it: a slow
//! hash protects weak passwords, and this is not one.

use sha2::{Digest, Sha256};

use crate::Error;

/// What every key starts with.
pub const KEY_PREFIX: &str = "alk_";

const ID_CHARS: usize = 8;
const SECRET_CHARS: usize = 32;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key as its holder has it. It does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    text: String,
}

impl ApiKey {
    /// A new key from the system's random numbers.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn generate() -> Result<Self, Error> {
        let body = format!(
            "{KEY_PREFIX}{}_{}",
            random_text(ID_CHARS)?,
            random_text(SECRET_CHARS)?
        );
        let checksum = checksum(&body);
        Ok(Self {
            text: format!("{body}_{checksum}"),
        })
    }

    /// Reads a key; `None` when its shape or checksum is wrong.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (body, found) = text.rsplit_once('_')?;
        let (id, secret) = body.strip_prefix(KEY_PREFIX)?.split_once('_')?;
        let shape = id.len() == ID_CHARS && secret.len() == SECRET_CHARS;
        (shape && found == checksum(body)).then(|| Self {
            text: text.to_owned(),
        })
    }

    /// The first characters, by which keys are told apart in a list.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.text[..KEY_PREFIX.len() + ID_CHARS]
    }

    /// What is stored: SHA-256 of the key, in hex.
    #[must_use]
    pub fn hash(&self) -> String {
        Sha256::digest(self.text.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The key itself: for its holder, once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKey({}…)", self.prefix())
    }
}

fn checksum(body: &str) -> String {
    format!("{:08x}", crc32fast::hash(body.as_bytes()))
}

/// Uniform characters: a byte that would favour the first characters of the alphabet is thrown away.
fn random_text(chars: usize) -> Result<String, Error> {
    let fair = u8::try_from(256 - 256 % ALPHABET.len()).expect("62 letters leave 248");
    let mut text = String::with_capacity(chars);
    let mut bytes = [0_u8; 64];
    while text.len() < chars {
        getrandom::fill(&mut bytes).map_err(Error::Random)?;
        let usable = bytes.iter().filter(|byte| **byte < fair);
        let letters = usable.map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
        let missing = chars - text.len();
        text.extend(letters.take(missing));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_and_a_typing_mistake_is_seen() {
        let key = ApiKey::generate().expect("random");
        assert_eq!(ApiKey::parse(key.reveal()), Some(key.clone()));
        let mut mistyped = key.reveal().to_owned();
        let last = mistyped.pop().expect("not empty");
        mistyped.push(if last == '0' { '1' } else { '0' });
        for wrong in ["", "alk_", "alk_a_b_c", &mistyped, &key.reveal()[1..]] {
            assert_eq!(ApiKey::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn no_two_keys_are_the_same_and_none_prints() {
        let (a, b) = (
            ApiKey::generate().expect("random"),
            ApiKey::generate().expect("random"),
        );
        assert_ne!(a, b);
        let secret = a.reveal().rsplit('_').nth(1).expect("has a secret");
        assert!(!format!("{a:?}").contains(secret));
        assert_eq!(a.hash().len(), 64);
    }
}
