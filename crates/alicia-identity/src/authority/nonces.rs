//! Nonces: texts that are signed to renew a credential, good once and for a minute.
//!
//! What was used is remembered for each run on its own, and only after its proof was good: neither a stranger nor a
//! run that renews all the time can take the place of others.

use std::collections::HashMap;

use alicia_contract::id::InstanceId;
use alicia_contract::unit::UnixSeconds;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{Authority, relock};
use crate::Error;

/// How long a nonce can be signed, in seconds.
const NONCE_S: f64 = 60.0;

/// What one run may use of them in that time. It renews every half an hour, and after failures every few seconds.
const NONCES_OF_RUN_MAX: usize = 32;

/// Runs that are remembered before those whose nonces have all ended are forgotten.
const RUNS_SOFT_MAX: usize = 1_024;

const NONCE_PREFIX: &str = "aln_";

/// Nonces that were used, with their ends, by run.
pub(super) type Nonces = HashMap<InstanceId, HashMap<String, UnixSeconds>>;

#[derive(Serialize, Deserialize)]
struct Claims {
    random: String,
    expires: UnixSeconds,
}

// === impl Authority ===

impl Authority {
    /// A text to be signed, good once and for a minute.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn nonce(&self, now: UnixSeconds) -> Result<String, Error> {
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes).map_err(Error::Random)?;
        let claims = Claims {
            random: URL_SAFE_NO_PAD.encode(bytes),
            expires: now + NONCE_S,
        };
        let claims = serde_json::to_vec(&claims).expect("a text and a number");
        Ok(self.inner.roots.load().mac().seal(NONCE_PREFIX, &claims))
    }

    /// Uses a nonce up, for a run that has proved to have signed it.
    pub(super) fn use_nonce(
        &self,
        run: &InstanceId,
        nonce: &str,
        now: UnixSeconds,
    ) -> Result<(), Error> {
        let roots = self.inner.roots.load();
        let claims = roots
            .macs(now)
            .find_map(|mac| mac.open(NONCE_PREFIX, nonce));
        let claims = claims.and_then(|bytes| serde_json::from_slice::<Claims>(&bytes).ok());
        let claims = claims.filter(|claims| claims.expires > now);
        let claims = claims.ok_or(Error::BadProof)?;
        take(&mut relock(&self.inner.nonces), run, claims, now)
    }
}

fn take(
    nonces: &mut Nonces,
    run: &InstanceId,
    claims: Claims,
    now: UnixSeconds,
) -> Result<(), Error> {
    if nonces.len() >= RUNS_SOFT_MAX {
        nonces.retain(|_, used| used.values().any(|expires| *expires > now));
    }
    let used = nonces.entry(run.clone()).or_default();
    used.retain(|_, expires| *expires > now);
    if used.len() >= NONCES_OF_RUN_MAX || used.contains_key(&claims.random) {
        return Err(Error::BadProof);
    }
    used.insert(claims.random, claims.expires);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(n: usize) -> Claims {
        Claims {
            random: n.to_string(),
            expires: 60.0,
        }
    }

    #[test]
    fn a_run_that_renews_all_the_time_is_held_up_and_no_other() {
        let (mut nonces, now) = (Nonces::new(), 0.0);
        let run = |n: u64| InstanceId::from_parts(n, 0);
        for n in 0..NONCES_OF_RUN_MAX {
            assert!(take(&mut nonces, &run(1), claims(n), now).is_ok());
        }
        assert!(take(&mut nonces, &run(1), claims(99), now).is_err());
        assert!(take(&mut nonces, &run(2), claims(99), now).is_ok());
        assert!(take(&mut nonces, &run(2), claims(99), now).is_err());
        assert!(take(&mut nonces, &run(1), claims(99), 60.0).is_ok());
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let mut nonces = Nonces::new();
        for n in 0..RUNS_SOFT_MAX {
            let run = InstanceId::from_parts(n as u64, 0);
            take(&mut nonces, &run, claims(n), 0.0).expect("is new");
        }
        let late = InstanceId::from_parts(9_999, 0);
        take(&mut nonces, &late, claims(0), 60.0).expect("is new");
        assert_eq!(nonces.len(), 1);
    }
}
