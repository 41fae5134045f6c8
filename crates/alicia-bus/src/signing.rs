//! Signatures of commands: this client's own, and the check of others'.
//!
//! Every call carries a signature where there is a [`Signer`]; every request is checked where there are [`Keys`],
//! before anybody sees it:
//!
//! | | `required` | `permissive` | `off` |
//! |---|---|---|---|
//! | good signature | taken | taken | taken |
//! | none, or of a key that is not known | refused | taken as the broker's word | taken |
//! | any other fault | refused | refused | taken |
//! | a second delivery | dropped | dropped | taken |

use std::fmt;
use std::sync::Arc;

use alicia_contract::Prefix;
use alicia_contract::identity::{SignaturePolicy, SignatureRule};
use alicia_signature::{Fault, KnownKey, Signed, Signer, Verified, Verifier};

use crate::delivery::Delivery;

/// The keys that others sign with, and what must be signed.
pub trait Keys: Send + Sync + 'static {
    /// The key of this id, while its holder may act.
    fn known_key(&self, kid: &str) -> Option<KnownKey>;

    /// Whether commands must be signed.
    fn policy(&self) -> SignaturePolicy;
}

/// How a client signs and checks. Cheap to clone.
#[derive(Clone)]
pub struct Signing {
    signer: Option<Arc<Signer>>,
    keys: Arc<dyn Keys>,
    verifier: Verifier,
}

/// What is known of who sent a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The holder of a key signed it.
    Signed(Verified),
    /// Nobody did, and that is allowed: the broker's word counts.
    Unsigned,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distrust {
    /// It must be signed, and is not.
    Unsigned,
    /// Its signature is not good.
    Bad(Fault),
    /// It came before.
    Repeated,
}

// === impl Signing ===

impl Signing {
    /// For a client that starts now, in Unix seconds: it takes nothing that was signed before.
    #[must_use]
    pub fn new(signer: Option<Arc<Signer>>, keys: Arc<dyn Keys>, now: f64) -> Self {
        Self {
            signer,
            keys,
            verifier: Verifier::new(millis(now)),
        }
    }

    /// The detached signature of a message of this client; `None` when it has no key.
    pub(crate) fn sign(&self, topic: &str, payload: &[u8], now: f64) -> Option<String> {
        let signed = self
            .signer
            .as_ref()?
            .sign(Signed { topic, payload }, millis(now));
        signed
            .inspect_err(|error| tracing::error!(%error, "a command goes unsigned"))
            .ok()
    }

    /// What to think of a request. A good signature is used up by the first look; the delivery remembers it.
    pub(crate) fn judge(
        &self,
        prefix: &Prefix,
        delivery: &Delivery,
        now: f64,
    ) -> Result<Standing, Distrust> {
        let rule = self.keys.policy().rule(prefix, &delivery.raw.topic);
        if rule == SignatureRule::Off {
            return Ok(Standing::Unsigned);
        }
        let unsigned = match rule {
            SignatureRule::Required => Err(Distrust::Unsigned),
            _ => Ok(Standing::Unsigned),
        };
        let found = delivery.verified(|message, signature| {
            let key = |kid: &str| self.keys.known_key(kid);
            self.verifier.verify(message, signature, key, millis(now))
        });
        match found {
            None => unsigned,
            // Whoever left the signature away would be taken too: the broker's word counts.
            Some(Err(Fault::UnknownKey)) if rule == SignatureRule::Permissive => unsigned,
            Some(Err(Fault::Repeated)) => Err(Distrust::Repeated),
            Some(Err(fault)) => Err(Distrust::Bad(*fault)),
            Some(Ok(verified)) => {
                let claimed = delivery.claimed_source();
                if claimed.is_some_and(|claimed| claimed != verified.source) {
                    return Err(Distrust::Bad(Fault::OtherSource));
                }
                Ok(Standing::Signed(verified.clone()))
            }
        }
    }
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing")
            .field("signer", &self.signer)
            .finish_non_exhaustive()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time after 1970 in milliseconds fits for 292 million years"
)]
fn millis(now: f64) -> u64 {
    (now * 1_000.0) as u64
}
