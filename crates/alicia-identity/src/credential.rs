//! Credentials: what an instance or an agent shows on the bus and in REST for an hour.
//!
//! A JSON Web Token (RFC 7519) signed with `EdDSA`, of the type `alicia-credential` so that nothing else that is
//! signed with the same key is taken for one (RFC 8725 section 3.11). It is checked without a database, and
//! stays good when the host is replaced; whether its run may still act is a question of its own.

use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::identity::{CREDENTIAL_TYPE, Grant};
use alicia_contract::unit::UnixSeconds;
use alicia_signature::{PublicKey, SigningKey, jws};
use serde::{Deserialize, Serialize};

use crate::grants::Grants;
use crate::identity::Identity;

/// How far clocks of machines that share keys may be apart, in seconds.
const CLOCK_SKEW_S: f64 = 60.0;

/// Whom it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// An instance of a service of the file.
    Service,
    /// An agent that joined.
    Agent,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    /// `spiffe://<domain>/agent/<name>`.
    sub: String,
    kind: Kind,
    name: ServiceName,
    instance: InstanceId,
    epoch: Epoch,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<Grant>,
    iat: UnixSeconds,
    exp: UnixSeconds,
}

/// The name of an agent or service in its trust domain.
#[must_use]
pub fn spiffe_id(domain: &str, name: &ServiceName) -> String {
    format!("spiffe://{domain}/agent/{name}")
}

/// How long a credential is good.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) from: UnixSeconds,
    pub(crate) until: UnixSeconds,
}

/// Signs a credential; `None` for who has no run: modules and holders of keys.
pub(crate) fn issue(
    key: &SigningKey,
    domain: &str,
    identity: &Identity,
    life: Life,
) -> Option<String> {
    let (name, instance, epoch) = identity.run()?;
    let (kind, scopes) = match identity {
        Identity::Agent { grants, .. } => (Kind::Agent, grants.iter().cloned().collect()),
        _ => (Kind::Service, Vec::new()),
    };
    let claims = Claims {
        sub: spiffe_id(domain, name),
        kind,
        name: name.clone(),
        instance: instance.clone(),
        epoch,
        scopes,
        iat: life.from,
        exp: life.until,
    };
    let claims = serde_json::to_vec(&claims).expect("texts and numbers");
    Some(jws::sign_compact(key, CREDENTIAL_TYPE, &claims))
}

/// Who proves to be who with a credential, and until when; `None` when it is none, or not good now.
pub(crate) fn verify(
    text: &str,
    keys: &[PublicKey],
    now: UnixSeconds,
) -> Option<(Identity, UnixSeconds)> {
    let claims = jws::open_compact(text, CREDENTIAL_TYPE, keys)?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    if claims.exp <= now || claims.iat > now + CLOCK_SKEW_S {
        return None;
    }
    let Claims {
        kind,
        name,
        instance,
        epoch,
        scopes,
        exp,
        ..
    } = claims;
    let identity = match kind {
        Kind::Service => Identity::Service {
            service: name,
            instance,
            epoch,
        },
        Kind::Agent => Identity::Agent {
            name,
            instance,
            epoch,
            grants: Grants::new(scopes),
        },
    };
    Some((identity, exp))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Life = Life {
        from: 1_000.0,
        until: 4_600.0,
    };

    fn agent() -> Identity {
        Identity::Agent {
            name: ServiceName::new("robot").expect("id"),
            instance: InstanceId::from_parts(1, 2),
            epoch: Epoch(3),
            grants: Grants::new(vec!["read".parse().expect("a scope")]),
        }
    }

    #[test]
    fn a_credential_proves_its_holder_for_its_time() {
        let (key, other) = (
            SigningKey::from_seed([1; 32]),
            SigningKey::from_seed([2; 32]),
        );
        let text = issue(&key, "home", &agent(), HOUR).expect("has a run");
        let check = |now: f64, keys: &[PublicKey], expected: bool| {
            let found = verify(&text, keys, now).map(|(identity, _)| identity);
            assert_eq!(found, expected.then(agent), "{now}");
        };
        check(1_000.0, &[key.public()], true);
        check(4_599.0, &[other.public(), key.public()], true);
        check(4_600.0, &[key.public()], false);
        check(900.0, &[key.public()], false);
        check(1_000.0, &[other.public()], false);
        check(1_000.0, &[], false);
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let key = SigningKey::from_seed([1; 32]);
        let text = issue(&key, "home", &agent(), HOUR).expect("has a run");
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(verify(&changed, &[key.public()], 1_000.0), None, "{at}");
        }
    }

    #[test]
    fn modules_and_keys_have_no_credentials() {
        let key = SigningKey::from_seed([1; 32]);
        let module = Identity::Module("health".into());
        assert_eq!(issue(&key, "home", &module, HOUR), None);
    }
}
