//! Tokens: what an instance of a service, or a module, proves its identity with on the bus and in REST.
//!
//! `alt_<claims>.<mac>`: the claims are base64url JSON, the mac is HMAC-SHA-256 over all before it as it
//! stands, with the root key. No database is asked, so a token stays good when the host is replaced
//! while its instance runs on.

use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::identity::Identity;

/// What every token starts with, so that scanners for leaked secrets find it.
pub const TOKEN_PREFIX: &str = "alt_";

/// A longer token is not looked at: ours have some 200 bytes.
const TOKEN_BYTES_MAX: usize = 1_024;

/// The key that signs tokens: 32 random bytes.
#[derive(Clone)]
pub struct RootKey([u8; 32]);

impl RootKey {
    /// A key from its bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(text.as_bytes());
        mac
    }

    /// `<prefix><claims>.<mac>`; the prefix is under the mac, so that one kind is never taken for another.
    pub(crate) fn seal(&self, prefix: &str, claims: &[u8]) -> String {
        let text = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(claims));
        let mac = URL_SAFE_NO_PAD.encode(self.mac(&text).finalize().into_bytes());
        format!("{text}.{mac}")
    }

    /// The claims of a sealed text; `None` when it is not one of ours.
    pub(crate) fn open(&self, prefix: &str, sealed: &str) -> Option<Vec<u8>> {
        if sealed.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (text, mac) = sealed.split_once('.')?;
        let claims = text.strip_prefix(prefix)?;
        self.mac(text)
            .verify_slice(&URL_SAFE_NO_PAD.decode(mac).ok()?)
            .ok()?;
        URL_SAFE_NO_PAD.decode(claims).ok()
    }
}

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootKey(…)")
    }
}

/// What a token says. One of `module` or `service` with `instance` and `epoch`.
#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    module: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<ServiceName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<InstanceId>,
    #[serde(default)]
    epoch: Epoch,
}

/// Signs a token for a module or an instance of a service; `None` for the holder of a key, who has one already,
/// and for an agent that joined, which has credentials.
#[must_use]
pub fn sign(root: &RootKey, identity: &Identity) -> Option<String> {
    let claims = match identity.clone() {
        Identity::Module(module) => Claims {
            module: Some(module),
            service: None,
            instance: None,
            epoch: Epoch::default(),
        },
        Identity::Service {
            service,
            instance,
            epoch,
        } => Claims {
            module: None,
            service: Some(service),
            instance: Some(instance),
            epoch,
        },
        Identity::Key { .. } | Identity::Limited { .. } | Identity::Agent { .. } => return None,
    };
    let claims = serde_json::to_vec(&claims).expect("claims are plain text and numbers");
    Some(root.seal(TOKEN_PREFIX, &claims))
}

/// The identity that a token proves; `None` when it proves none.
#[must_use]
pub fn verify(root: &RootKey, token: &str) -> Option<Identity> {
    let claims: Claims = serde_json::from_slice(&root.open(TOKEN_PREFIX, token)?).ok()?;
    match (claims.module, claims.service, claims.instance) {
        (Some(module), None, None) => Some(Identity::Module(module)),
        (None, Some(service), Some(instance)) => Some(Identity::Service {
            service,
            instance,
            epoch: claims.epoch,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn service() -> Identity {
        Identity::Service {
            service: ServiceName::new("api").expect("id"),
            instance: InstanceId::from_parts(1, 2),
            epoch: Epoch(7),
        }
    }

    #[test]
    fn a_token_proves_what_it_was_signed_for() {
        let root = RootKey::new([7; 32]);
        for identity in [service(), Identity::Module("registry".into())] {
            let token = sign(&root, &identity).expect("can be signed");
            assert_eq!(verify(&root, &token), Some(identity));
            assert_eq!(verify(&RootKey::new([8; 32]), &token), None);
        }
    }

    #[test]
    fn the_root_key_does_not_print() {
        assert_eq!(format!("{:?}", RootKey::new([65; 32])), "RootKey(…)");
    }

    proptest! {
        #[test]
        fn a_changed_token_proves_nothing(at in 0_usize..250, to in "[A-Za-z0-9_.-]") {
            let root = RootKey::new([7; 32]);
            let token = sign(&root, &service()).expect("can be signed");
            let at = at % token.len();
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            // The last character of base64 carries spare bits: only what decodes differently is a change.
            prop_assume!(changed != token);
            prop_assert_eq!(verify(&root, &changed), None);
        }

        #[test]
        fn any_text_is_looked_at_without_panic(text in ".{0,300}") {
            prop_assert_eq!(verify(&RootKey::new([7; 32]), &text), None);
        }
    }
}
