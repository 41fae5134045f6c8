//! Messages that were not taken: counted by reason, and logged at most once a minute for each sender.

use std::collections::{BTreeMap, HashMap};

use alicia_contract::UnixSeconds;
use alicia_contract::envelope::DropReason;

/// Between two lines of the log about one sender, in seconds.
const QUIET_S: f64 = 60.0;
/// Senders that are told apart; the others share a line.
const SENDERS_MAX: usize = 256;
/// The name under which the others are logged.
const OTHERS: &str = "others";

/// Counts and decides what is worth a line.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    counts: BTreeMap<&'static str, u64>,
    quiet_until: HashMap<String, UnixSeconds>,
}

impl Drops {
    /// Counts a drop and says under which name it is to be logged; `None` for not now.
    pub(crate) fn count(
        &mut self,
        reason: DropReason,
        sender: &str,
        now: UnixSeconds,
    ) -> Option<String> {
        *self.counts.entry(name(reason)).or_default() += 1;
        self.is_worth_a_line(sender, now)
    }

    /// Whether something about this sender is to be logged now, and under which name.
    pub(crate) fn is_worth_a_line(&mut self, sender: &str, now: UnixSeconds) -> Option<String> {
        if self.quiet_until.len() >= SENDERS_MAX {
            self.quiet_until.retain(|_, until| *until > now);
        }
        let is_full = self.quiet_until.len() >= SENDERS_MAX;
        let sender = if is_full && !self.quiet_until.contains_key(sender) {
            OTHERS
        } else {
            sender
        };
        if self
            .quiet_until
            .get(sender)
            .is_some_and(|until| *until > now)
        {
            return None;
        }
        self.quiet_until.insert(sender.to_owned(), now + QUIET_S);
        Some(sender.to_owned())
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.clone()
    }
}

/// The names of [`DropReason`], as its `Display` writes them.
fn name(reason: DropReason) -> &'static str {
    match reason {
        DropReason::TooLarge => "too-large",
        DropReason::NotAnEnvelope => "not-an-envelope",
        DropReason::WrongPayload => "wrong-payload",
        DropReason::Expired => "expired",
        DropReason::TooManyHops => "too-many-hops",
        DropReason::Unsigned => "unsigned",
        DropReason::BadSignature => "bad-signature",
        DropReason::Repeated => "repeated-signature",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_logged_once_a_minute_and_always_counted() {
        let mut drops = Drops::default();
        let logged = [0.0, 1.0, 59.9, 60.0, 61.0]
            .map(|now| drops.count(DropReason::Expired, "api", now).is_some());
        assert_eq!(logged, [true, false, false, true, false]);
        assert_eq!(drops.counts(), BTreeMap::from([("expired", 5)]));
    }

    #[test]
    fn a_flood_of_senders_is_one_line_and_bounded() {
        let mut drops = Drops::default();
        let lines = (0..10_000)
            .filter_map(|n| drops.count(DropReason::TooLarge, &n.to_string(), 0.0))
            .count();
        assert_eq!(lines, SENDERS_MAX + 1);
        assert!(drops.quiet_until.len() <= SENDERS_MAX + 1);
    }

    #[test]
    fn names_are_those_of_the_contract() {
        for reason in [
            DropReason::TooLarge,
            DropReason::NotAnEnvelope,
            DropReason::WrongPayload,
            DropReason::Expired,
            DropReason::TooManyHops,
        ] {
            assert_eq!(name(reason), reason.to_string());
        }
    }
}
