//! When counts of refused forks are looked at, where the kernel may not tell of them. Nothing here looks at a
//! clock.
//!
//! Looks are rare while nothing happens: once a second at the number of tasks of all groups together, which is
//! one read, and at each count only after that number has changed, some time after a start, while a count
//! grows, and else every ten seconds.

use super::WINDOW_MS;

/// Between looks while something may be about to happen.
const LOOK_OFTEN_MS: u64 = 50;
/// How long looks are frequent after a start, and after a count that grew: a bomb that is started again goes
/// off within the first second.
const OFTEN_MS: u64 = 2_000;
/// Between looks otherwise.
const LOOK_MS: u64 = 1_000;
/// Between looks at every count, whatever the number of tasks says.
const LOOK_AT_ALL_MS: u64 = 10_000;
/// A look that took this long is followed by a pause of a hundred times the time.
const LOOK_SHARE: u64 = 100;
/// No pause is longer: looks are slowest while a bomb slows the machine, and a storm shows only to readings that
/// are less than [`WINDOW_MS`] apart.
const PAUSE_MS_MAX: u64 = WINDOW_MS / 4;

/// The schedule. Times are milliseconds of the monotonic clock.
///
/// ```text
/// plan ──timer──► begin ──► needs_counts ──► end ──► plan
/// ```
#[derive(Debug, Default)]
pub(in crate::keeper) struct Looks {
    /// The timer that counts; one set for another time was replaced.
    at_ms: Option<u64>,
    /// The pause after the look before is over.
    not_before_ms: u64,
    often_until_ms: u64,
    all_at_ms: u64,
    tasks_seen: Option<u64>,
}

// === impl Looks ===

impl Looks {
    /// Something may be about to happen: looks are frequent for some time.
    pub(super) fn be_frequent(&mut self, now_ms: u64) {
        self.often_until_ms = now_ms + OFTEN_MS;
    }

    /// Plans the next look. Returns the time that a timer is to be set for; `None`: the one that is set comes as
    /// soon.
    pub(super) fn plan(&mut self, now_ms: u64) -> Option<u64> {
        let is_often = now_ms < self.often_until_ms;
        let wait_ms = if is_often { LOOK_OFTEN_MS } else { LOOK_MS };
        let at_ms = (now_ms + wait_ms).max(self.not_before_ms);
        if self.at_ms.is_some_and(|set_ms| set_ms <= at_ms) {
            return None;
        }
        self.at_ms = Some(at_ms);
        self.at_ms
    }

    /// A timer has come. Returns whether a look begins; one that was replaced does nothing.
    pub(super) fn begin(&mut self, now_ms: u64) -> bool {
        self.at_ms.take_if(|at_ms| *at_ms <= now_ms).is_some()
    }

    /// Whether every count is to be read, with so many tasks in all groups together.
    pub(super) fn needs_counts(&mut self, now_ms: u64, tasks: Option<u64>) -> bool {
        let is_quiet = tasks.is_some() && tasks == self.tasks_seen;
        let is_due = now_ms >= self.all_at_ms || now_ms < self.often_until_ms;
        if is_quiet && !is_due {
            return false;
        }
        self.tasks_seen = tasks;
        self.all_at_ms = now_ms + LOOK_AT_ALL_MS;
        true
    }

    /// The look is over. Whatever is planned from now on waits for the pause that it asks for.
    pub(super) fn end(&mut self, (begun_ms, ended_ms): (u64, u64)) {
        let share_ms = LOOK_SHARE * (ended_ms - begun_ms);
        self.not_before_ms = ended_ms + share_ms.min(PAUSE_MS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look has taken this long, and ended 10 s after the beginning.
    fn after_a_look(took_ms: u64) -> Looks {
        let mut looks = Looks::default();
        looks.plan(0);
        assert!(looks.begin(10_000 - took_ms));
        looks.end((10_000 - took_ms, 10_000));
        looks
    }

    #[test]
    fn a_long_look_is_followed_by_a_pause_that_has_a_limit() {
        for (took_ms, often_ms, rarely_ms) in [
            (0, 50, 1_000),
            (1, 100, 1_000),
            (2, 200, 1_000),
            (3, 250, 1_000),
            (20, 250, 1_000),
            (5_000, 250, 1_000),
        ] {
            let mut looks = after_a_look(took_ms);
            assert_eq!(looks.plan(10_000), Some(10_000 + rarely_ms), "{took_ms} ms");
            let mut looks = after_a_look(took_ms);
            looks.be_frequent(10_000);
            assert_eq!(looks.plan(10_000), Some(10_000 + often_ms), "{took_ms} ms");
        }
    }

    #[test]
    fn a_start_does_not_undo_the_pause() {
        for (took_ms, start_ms, expect_ms) in [
            (20, 10_001, 10_250),
            (20, 10_199, 10_250),
            (20, 10_240, 10_290),
            (20, 10_700, 10_750),
            (0, 10_001, 10_051),
        ] {
            let mut looks = after_a_look(took_ms);
            looks.plan(10_000);
            looks.be_frequent(start_ms);
            let sooner = looks.plan(start_ms);
            assert_eq!(sooner, Some(expect_ms), "{took_ms} ms, {start_ms}");
            // Nor do many starts put the look off.
            looks.be_frequent(start_ms + 1);
            assert_eq!(looks.plan(start_ms + 1), None, "{took_ms} ms, {start_ms}");
        }
    }

    #[test]
    fn a_timer_that_was_replaced_begins_no_look() {
        let mut looks = Looks::default();
        assert!(!looks.begin(5), "none is planned");
        assert_eq!(looks.plan(0), Some(1_000));
        looks.be_frequent(100);
        assert_eq!(looks.plan(100), Some(150));
        assert!(!looks.begin(149));
        assert!(looks.begin(150));
        looks.end((150, 150));
        assert_eq!(looks.plan(150), Some(200));
        assert!(looks.begin(200));
        looks.end((200, 990));
        assert_eq!(looks.plan(990), Some(1_240));
        assert!(!looks.begin(1_000), "the first timer");
    }

    #[test]
    fn counts_are_read_when_something_may_have_happened() {
        let mut looks = Looks::default();
        for (now_ms, tasks, expect) in [
            (1_000, Some(7), true),
            (2_000, Some(7), false),
            (3_000, Some(8), true),
            (4_000, Some(8), false),
            // Nobody knows how many there are.
            (5_000, None, true),
            (6_000, None, true),
            (7_000, Some(8), true),
            (16_999, Some(8), false),
            (17_000, Some(8), true),
        ] {
            let needed = looks.needs_counts(now_ms, tasks);
            assert_eq!(needed, expect, "{now_ms} ms");
        }
        looks.be_frequent(18_000);
        for (now_ms, expect) in [(18_050, true), (19_999, true), (20_000, false)] {
            let needed = looks.needs_counts(now_ms, Some(8));
            assert_eq!(needed, expect, "{now_ms} ms");
        }
    }
}
