//! Sessions of browsers, and whether a key is still the same.

use std::sync::MutexGuard;

use alicia_contract::unit::UnixSeconds;

use super::{Authority, relock};
use crate::Error;
use crate::identity::Identity;
use crate::keyring::Holder;
use crate::session::{self, Links};

// === impl Authority ===

impl Authority {
    /// A one-time code with which the holder of a key starts a session in a browser.
    ///
    /// # Errors
    /// When there is no such key, or the system gives no random numbers.
    pub fn create_link(&self, key_name: &str, now: UnixSeconds) -> Result<String, Error> {
        let holder = self.inner.keys.load().holder(key_name, now);
        let holder = holder.ok_or_else(|| Error::NoSuchKey(key_name.to_owned()))?;
        self.links().create(holder, now)
    }

    /// Uses up a one-time code: the session of its holder; `None` for a code that is used, old or unknown.
    #[must_use]
    pub fn redeem_link(&self, code: &str, now: UnixSeconds) -> Option<String> {
        let holder = self.links().redeem(code, now)?;
        self.inner.keys.load().identity(&holder, now)?;
        Some(session::sign(self.inner.roots.load().mac(), holder, now))
    }

    /// A session for who shows a key; `None` when the key is not good.
    #[must_use]
    pub fn start_session(&self, key: &str, now: UnixSeconds) -> Option<String> {
        let holder = self.key_shown(key, now)?;
        Some(session::sign(self.inner.roots.load().mac(), holder, now))
    }

    /// Whose session this is; `None` when it has ended or its key is gone.
    #[must_use]
    pub fn session(&self, session: &str, now: UnixSeconds) -> Option<Identity> {
        let roots = self.inner.roots.load();
        let holder = roots
            .macs(now)
            .find_map(|mac| session::verify(mac, session, now))?;
        self.inner.keys.load().identity(&holder, now)
    }

    /// The key that this is; `None` when it is none that is good now.
    #[must_use]
    pub fn key_shown(&self, key: &str, now: UnixSeconds) -> Option<Holder> {
        let keys = self.inner.keys.load();
        match keys.verify(key.trim(), now)? {
            Identity::Key { name, .. } | Identity::Limited { name, .. } => keys.holder(&name, now),
            _ => None,
        }
    }

    /// The key that somebody holds now, for who has to know later whether it is still the same; `None` for who holds
    /// none, and once it was revoked or has expired.
    #[must_use]
    pub fn key_of(&self, identity: &Identity, now: UnixSeconds) -> Option<Holder> {
        match identity {
            Identity::Key { name, .. } | Identity::Limited { name, .. } => {
                self.inner.keys.load().holder(name, now)
            }
            _ => None,
        }
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        relock(&self.inner.links)
    }
}
