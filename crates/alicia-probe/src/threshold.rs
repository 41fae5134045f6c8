//! How many tries in a row make up a mind. Pure.
//!
//! ```text
//!              rise good in a row
//!   ┌─────────┐ ───────────────▶ ┌──────┐
//!   │ unknown │                  │ good │ ◀─┐
//!   └─────────┘ ─────┐           └──────┘   │
//!                    │ fall bad      │ fall │ rise
//!                    ▼ in a row      ▼      │
//!                  ┌──────────────────────┐ │
//!                  │         bad          │─┘
//!                  └──────────────────────┘
//! ```

/// What the tries have shown so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Not enough tries of one kind in a row yet.
    #[default]
    Unknown,
    /// It is well.
    Good,
    /// It is not.
    Bad,
}

/// Counts tries in a row and makes up its mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    rise: u32,
    fall: u32,
    verdict: Verdict,
    last_ok: bool,
    streak: u32,
}

// === impl Threshold ===

impl Threshold {
    /// Turns good after `rise` good tries in a row, and bad after `fall` bad ones. Zero counts as one.
    #[must_use]
    pub fn new(rise: u32, fall: u32) -> Self {
        Self {
            rise: rise.max(1),
            fall: fall.max(1),
            verdict: Verdict::Unknown,
            last_ok: false,
            streak: 0,
        }
    }

    /// Counts a try. Says the new verdict when it is another one than before.
    pub fn observe(&mut self, ok: bool) -> Option<Verdict> {
        self.streak = match ok == self.last_ok {
            true => self.streak.saturating_add(1),
            false => 1,
        };
        self.last_ok = ok;
        let (needed, verdict) = match ok {
            true => (self.rise, Verdict::Good),
            false => (self.fall, Verdict::Bad),
        };
        if self.streak < needed || self.verdict == verdict {
            return None;
        }
        self.verdict = verdict;
        Some(verdict)
    }

    /// What the tries have shown so far.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// How many tries in a row had the same result as the last one.
    #[must_use]
    pub fn streak(&self) -> u32 {
        self.streak
    }

    /// Forgets all tries, as for a new process.
    pub fn reset(&mut self) {
        *self = Self::new(self.rise, self.fall);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tries as `+` and `-`; what is said after each as `G`, `B` or `.`.
    fn check(rise: u32, fall: u32, tries: &str, expected: &str) {
        let mut threshold = Threshold::new(rise, fall);
        let said: String = tries
            .chars()
            .map(|c| match threshold.observe(c == '+') {
                Some(Verdict::Good) => 'G',
                Some(Verdict::Bad) => 'B',
                Some(Verdict::Unknown) => '?',
                None => '.',
            })
            .collect();
        assert_eq!(said, expected, "{tries}");
    }

    #[test]
    fn only_a_row_makes_up_the_mind() {
        check(1, 1, "+-+-", "GBGB");
        check(2, 3, "+-+-++", ".....G");
        check(2, 3, "++--+---+-+++", ".G.....B...G.");
        check(1, 3, "---", "..B");
        check(1, 3, "+++++", "G....");
        check(0, 0, "+-", "GB");
    }

    #[test]
    fn a_new_process_starts_from_nothing() {
        let mut threshold = Threshold::new(2, 2);
        threshold.observe(true);
        threshold.reset();
        assert_eq!(
            (threshold.verdict(), threshold.streak()),
            (Verdict::Unknown, 0)
        );
        assert_eq!(threshold.observe(true), None);
        assert_eq!(threshold.observe(true), Some(Verdict::Good));
    }

    proptest! {
        #[test]
        fn the_verdict_is_that_of_the_last_long_enough_row(
            rise in 1_u32..5,
            fall in 1_u32..5,
            tries in proptest::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut threshold = Threshold::new(rise, fall);
            for seen in 1..=tries.len() {
                threshold.observe(tries[seen - 1]);
                let mut expected = Verdict::Unknown;
                for end in 1..=seen {
                    let ok = tries[end - 1];
                    let row = tries[..end].iter().rev().take_while(|other| **other == ok).count();
                    let (needed, verdict) = if ok { (rise, Verdict::Good) } else { (fall, Verdict::Bad) };
                    if row >= needed as usize {
                        expected = verdict;
                    }
                }
                prop_assert_eq!(threshold.verdict(), expected);
            }
        }
    }
}
