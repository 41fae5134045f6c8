//! Who is being served: when there are too many, the user with most of them loses its oldest. So whoever keeps
//! connections open without a word holds itself up, and nobody else.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

/// Renewals under way at the same time.
pub(super) const RENEWALS_MAX: usize = 64;

/// Renewals under way, in the order of their beginning.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    last: u64,
    present: BTreeMap<u64, Present>,
}

#[derive(Debug)]
struct Present {
    user: u32,
    sent_away: CancellationToken,
}

// === impl Crowd ===

impl Crowd {
    /// One more, for a user; gives its number, and what tells it that it has to make way.
    pub(super) fn enter(&mut self, user: u32) -> (u64, CancellationToken) {
        if self.present.len() >= RENEWALS_MAX
            && let Some(loser) = self.loser().and_then(|number| self.present.remove(&number))
        {
            loser.sent_away.cancel();
        }
        self.last += 1;
        let sent_away = CancellationToken::new();
        let present = Present {
            user,
            sent_away: sent_away.clone(),
        };
        self.present.insert(self.last, present);
        (self.last, sent_away)
    }

    /// It has ended.
    pub(super) fn leave(&mut self, number: u64) {
        self.present.remove(&number);
    }

    /// The oldest of the user who has most.
    fn loser(&self) -> Option<u64> {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for present in self.present.values() {
            *counts.entry(present.user).or_default() += 1;
        }
        let (user, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        let mut numbers = self.present.iter();
        numbers
            .find(|(_, present)| present.user == user)
            .map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_most_loses_the_oldest() {
        let mut crowd = Crowd::default();
        let (quiet, stays) = crowd.enter(1);
        let greedy: Vec<_> = (1..RENEWALS_MAX).map(|_| crowd.enter(2)).collect();
        let gone = || greedy.iter().filter(|(_, it)| it.is_cancelled()).count();
        assert_eq!(gone(), 0, "there is room for all");
        drop(crowd.enter(3));
        assert!(greedy[0].1.is_cancelled() && gone() == 1);
        drop(crowd.enter(2));
        assert!(greedy[1].1.is_cancelled() && gone() == 2);
        assert!(!stays.is_cancelled());
        crowd.leave(quiet);
        drop(crowd.enter(3));
        assert_eq!(gone(), 2, "there is room again");
    }
}
