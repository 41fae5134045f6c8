//! One entry of the registry.

use std::time::Duration;

use alicia_contract::discovery::{Presence, RegisteredInstance, Registration};
use alicia_contract::unit::UnixSeconds;

use super::Now;

/// How an instance went. Decides whether it may come back under the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its lease ran out. It may register again; its supervisor may vouch for it.
    Expired,
    /// It left, was removed, or its process ended. It does not come back: a new start has a new id.
    Final,
}

impl Ending {
    /// As it stands in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Final => "final",
        }
    }

    /// From the table; what is not known is taken as final, the safe side.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        if text == "expired" {
            Self::Expired
        } else {
            Self::Final
        }
    }
}

/// An instance as the registry holds it, gone ones for a while included.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What the instance said, or the orchestrator for it.
    pub registration: Registration,
    /// Whether it is there.
    pub presence: Presence,
    /// Since when.
    pub since: UnixSeconds,
    /// The last sign of life.
    pub seen: UnixSeconds,
    /// Whether the orchestrator vouches for it.
    pub supervised: bool,
    /// Who registered it.
    pub owner: String,
    /// Why it is where it is, in words.
    pub reason: String,
    /// How it went; none while it is not gone.
    pub ending: Option<Ending>,
    /// When the lease, the grace or the memory of it ends, on the monotonic clock; none: not by time.
    pub(crate) deadline: Option<Duration>,
}

impl Entry {
    /// As others see it.
    #[must_use]
    pub fn public(&self) -> RegisteredInstance {
        RegisteredInstance {
            registration: self.registration.clone(),
            presence: self.presence,
            since: self.since,
            seen: self.seen,
            supervised: self.supervised,
            owner: self.owner.clone(),
        }
    }

    /// An entry as it was saved.
    #[must_use]
    pub fn from_saved(saved: RegisteredInstance, reason: String, ending: Option<Ending>) -> Self {
        Self {
            registration: saved.registration,
            presence: saved.presence,
            since: saved.since,
            seen: saved.seen,
            supervised: saved.supervised,
            owner: saved.owner,
            reason,
            ending,
            deadline: None,
        }
    }

    /// Whether others should see it.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.presence != Presence::Gone
    }

    /// Whether it was so already at a moment on the wall. What is of the future is of a clock that was set back
    /// since, and older than all that is told now.
    pub(crate) fn is_older(&self, at: UnixSeconds, now: Now) -> bool {
        self.since <= at || self.since > now.unix
    }

    /// The lease as time. Values that are no time count as one second, the shortest.
    pub(crate) fn lease(&self) -> Duration {
        Duration::try_from_secs_f64(self.registration.lease_s).unwrap_or(Duration::from_secs(1))
    }
}
