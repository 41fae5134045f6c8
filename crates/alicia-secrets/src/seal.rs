//! Sealing: AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits before the text.
//!
//! A key seals few texts: a data key one, the vault's key one for each change of a secret, far from the 2^32 at which
//! random nonces become a risk (section 8.3).

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::error::Error;

/// Length of a key in bytes.
pub(crate) const KEY_BYTES: usize = 32;

/// A key, wiped when dropped.
pub(crate) type Key = Zeroizing<[u8; KEY_BYTES]>;

/// A new random key.
pub(crate) fn random_key() -> Result<Key, Error> {
    let mut key = Key::default();
    fill(&mut key[..])?;
    Ok(key)
}

/// Seals a text. `about` is bound in: the text opens under the same words only.
pub(crate) fn seal(key: &Key, about: &str, text: &[u8]) -> Result<Vec<u8>, Error> {
    let mut nonce = [0; NONCE_LEN];
    fill(&mut nonce)?;
    // Room for the tag from the start: growing would leave a copy of the text behind.
    let mut sealed = Zeroizing::new(Vec::with_capacity(text.len() + AES_256_GCM.tag_len()));
    sealed.extend_from_slice(text);
    cipher(key)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(about),
            &mut *sealed,
        )
        .expect("a text of some kilobytes is not too long to seal");
    Ok([&nonce[..], &sealed].concat())
}

/// Opens it; `None` when it was sealed with another key or for something else, or was changed.
pub(crate) fn open(key: &Key, about: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut text = Zeroizing::new(text.to_vec());
    let length = cipher(key)
        .open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(about),
            &mut text,
        )
        .ok()?
        .len();
    text.truncate(length);
    Some(text)
}

fn cipher(key: &Key) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key[..]).expect("the key has 32 bytes"))
}

fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|error| Error::Random(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_with_its_key_for_its_purpose_only() {
        let (key, other) = (random_key().unwrap(), random_key().unwrap());
        for text in [&b""[..], b"hunter2", &[7; 65_536]] {
            let sealed = seal(&key, "db 1", text).unwrap();
            assert_eq!(open(&key, "db 1", &sealed).unwrap().as_slice(), text);
            assert!(open(&key, "db 2", &sealed).is_none());
            assert!(open(&other, "db 1", &sealed).is_none());
            let mut changed = sealed.clone();
            *changed.last_mut().unwrap() ^= 1;
            assert!(open(&key, "db 1", &changed).is_none());
            assert!(open(&key, "db 1", &sealed[..sealed.len() - 1]).is_none());
            assert_ne!(seal(&key, "db 1", text).unwrap(), sealed);
        }
        assert!(open(&key, "db 1", b"short").is_none());
    }
}
