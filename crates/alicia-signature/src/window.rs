//! Which sequence numbers of one signer were seen: the newest 1,024, as in the anti-replay window of IPsec
//! (RFC 6479).

/// Sequence numbers that may arrive out of order behind the newest.
pub const WINDOW: u64 = 1_024;

const WORDS: usize = (WINDOW / 64) as usize;

/// The memory of one signer.
#[derive(Debug, Clone, Default)]
pub struct Window {
    newest: u64,
    /// A bit for each number modulo [`WINDOW`].
    seen: [u64; WORDS],
}

/// Why a number is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// It was seen before.
    Seen,
    /// It is so far behind the newest that nobody remembers.
    TooOld,
}

impl Window {
    /// Takes a number, from 1.
    ///
    /// # Errors
    /// When it was taken before, or is [`WINDOW`] or more behind the newest.
    pub fn take(&mut self, number: u64) -> Result<(), Stale> {
        if number == 0 || self.newest.saturating_sub(number) >= WINDOW {
            return Err(Stale::TooOld);
        }
        if number > self.newest {
            self.forget_up_to(number);
            self.newest = number;
        } else if self.seen[word(number)] & bit(number) != 0 {
            return Err(Stale::Seen);
        }
        self.seen[word(number)] |= bit(number);
        Ok(())
    }

    /// Clears the places that the numbers between the newest and the new one fall on.
    fn forget_up_to(&mut self, number: u64) {
        if number - self.newest >= WINDOW {
            self.seen = [0; WORDS];
            return;
        }
        for passed in self.newest + 1..=number {
            self.seen[word(passed)] &= !bit(passed);
        }
    }
}

fn word(number: u64) -> usize {
    usize::try_from(number % WINDOW / 64).expect("less than 16")
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_number_is_taken_once_and_the_far_past_never() {
        let mut window = Window::default();
        assert_eq!(window.take(5), Ok(()));
        assert_eq!(window.take(5), Err(Stale::Seen));
        assert_eq!(window.take(3), Ok(()));
        assert_eq!(window.take(0), Err(Stale::TooOld));
        assert_eq!(window.take(4 + WINDOW), Ok(()));
        assert_eq!(window.take(5), Err(Stale::Seen));
        assert_eq!(window.take(4), Err(Stale::TooOld));
        assert_eq!(window.take(u64::MAX), Ok(()));
        assert_eq!(window.take(u64::MAX - 1), Ok(()));
        assert_eq!(window.take(u64::MAX), Err(Stale::Seen));
    }

    proptest! {
        /// Against a set that forgets nothing.
        #[test]
        fn it_answers_as_an_endless_memory_would(
            steps in prop::collection::vec(prop_oneof![1_u64..3_000, 900_u64..1_200], 1..400)
        ) {
            let (mut window, mut all, mut newest) = (Window::default(), BTreeSet::new(), 0_u64);
            for number in steps {
                let expected = if newest.saturating_sub(number) >= WINDOW {
                    Err(Stale::TooOld)
                } else if all.contains(&number) {
                    Err(Stale::Seen)
                } else {
                    Ok(())
                };
                prop_assert_eq!(window.take(number), expected);
                if expected.is_ok() {
                    all.insert(number);
                    newest = newest.max(number);
                }
            }
        }
    }
}
