//! Sessions of browsers: a signed cookie that names a key and an end, and one-time links that start one.
//!
//! The cookie holds no key. It is checked against the ring at each request, so that a session ends when its
//! key is revoked.

use std::collections::HashMap;

use alicia_contract::unit::UnixSeconds;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::keyring::Holder;
use crate::token::RootKey;

/// A session ends after this time, in seconds: half a day.
pub const SESSION_S: f64 = 12.0 * 3_600.0;

/// A one-time link is good for this time, in seconds.
pub const LINK_S: f64 = 600.0;

/// More open links than this and the oldest are forgotten.
const LINKS_MAX: usize = 100;

const SESSION_PREFIX: &str = "als_";

#[derive(Serialize, Deserialize)]
struct Claims {
    key: Holder,
    expires: UnixSeconds,
}

/// Signs a session for the holder of a key.
pub(crate) fn sign(root: &RootKey, key: Holder, now: UnixSeconds) -> String {
    let claims = Claims {
        key,
        expires: now + SESSION_S,
    };
    root.seal(
        SESSION_PREFIX,
        &serde_json::to_vec(&claims).expect("text and a number"),
    )
}

/// The key of a good session.
pub(crate) fn verify(root: &RootKey, session: &str, now: UnixSeconds) -> Option<Holder> {
    let claims: Claims = serde_json::from_slice(&root.open(SESSION_PREFIX, session)?).ok()?;
    (claims.expires > now).then_some(claims.key)
}

/// One-time codes that wait to be used.
#[derive(Debug, Default)]
pub(crate) struct Links {
    waiting: HashMap<String, (Holder, UnixSeconds)>,
}

impl Links {
    /// A new code for the holder of a key.
    pub(crate) fn create(&mut self, key: Holder, now: UnixSeconds) -> Result<String, Error> {
        let mut bytes = [0_u8; 24];
        getrandom::fill(&mut bytes).map_err(Error::Random)?;
        let code = URL_SAFE_NO_PAD.encode(bytes);
        self.waiting.retain(|_, (_, expires)| *expires > now);
        if self.waiting.len() >= LINKS_MAX {
            self.waiting.clear();
        }
        self.waiting.insert(code.clone(), (key, now + LINK_S));
        Ok(code)
    }

    /// Uses a code up; gives the key.
    pub(crate) fn redeem(&mut self, code: &str, now: UnixSeconds) -> Option<Holder> {
        let (key, expires) = self.waiting.remove(code)?;
        (expires > now).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin() -> Holder {
        Holder {
            name: "admin".to_owned(),
            prefix: "alk_12345678".to_owned(),
        }
    }

    #[test]
    fn a_session_ends_and_a_changed_one_is_none() {
        let root = RootKey::new([7; 32]);
        let session = sign(&root, admin(), 100.0);
        assert_eq!(verify(&root, &session, 100.0), Some(admin()));
        assert_eq!(verify(&root, &session, 100.0 + SESSION_S), None);
        assert_eq!(verify(&RootKey::new([8; 32]), &session, 100.0), None);
        assert_eq!(
            verify(&root, &session.replacen("als_", "alt_", 1), 100.0),
            None
        );
    }

    #[test]
    fn a_link_is_good_once_and_for_a_while() {
        let mut links = Links::default();
        let code = links.create(admin(), 0.0).expect("random");
        assert_eq!(links.redeem(&code, 1.0), Some(admin()));
        assert_eq!(links.redeem(&code, 1.0), None);
        let late = links.create(admin(), 0.0).expect("random");
        assert_eq!(links.redeem(&late, LINK_S), None);
    }
}
