//! Storms of refused forks. `pids.max` holds a fork bomb, and leaves it busy with forks that fail, which slows
//! everybody down for as long as it lives: a tree that goes on like this is ended.
//!
//! | what holds the limit | how a refused fork is noticed |
//! |---|---|
//! | cgroup version 2 | the kernel tells (`EPOLLPRI` of `pids.events`) |
//! | version 1 | the kernel tells, or it does not (Linux 6.18): counts are looked at as well |
//! | a look of the keeper | nobody counts; who is over the limit is ended |
//!
//! Looks are rare while nothing happens: once a second at the number of tasks of all groups together, which is
//! one read, and at each count only after that number has changed, some time after a start, while a count
//! grows, and else every ten seconds.

use std::path::PathBuf;

use super::Keeper;
use super::instance::Instance;
use super::limits::group_name;
use super::timers::Timer;
use crate::clock;
use crate::containment::{Container, RefusedForks, tasks_in};
use crate::protocol::HeldBy;

/// More refused forks than this in [`WINDOW_MS`] are a storm. Programs that meet their limit in good faith wait
/// or give up. A bomb makes 1,500 on one core, and 150 on the quarter of one that its limit of `cpu` leaves it.
const REFUSED_MAX: u64 = 50;
/// The time in which they are counted.
const WINDOW_MS: u64 = 1_000;
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

/// What is known of the refused forks of a run.
#[derive(Debug)]
pub(super) struct Forks {
    refused: RefusedForks,
    /// Processes and threads that it may have.
    limit: u32,
    pub(super) held_by: HeldBy,
    window: Window,
}

/// Counts within [`WINDOW_MS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    began_ms: u64,
    count_at_begin: u64,
    count: u64,
}

/// A reading of a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    /// Forks that were refused within [`WINDOW_MS`] for certain, maybe more.
    refused: u64,
    /// More than at the reading before.
    has_grown: bool,
}

/// When counts of version 1 are looked at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// The timer that counts; one set for another time was replaced.
    at_ms: Option<u64>,
    often_until_ms: u64,
    all_at_ms: u64,
    tasks_seen: Option<u64>,
}

// === impl Window ===

impl Window {
    fn begin(now_ms: u64, count: u64) -> Self {
        Self {
            began_ms: now_ms,
            count_at_begin: count,
            count,
        }
    }

    /// A window begins with a reading, so nothing that may be older is ever counted.
    fn read(&mut self, now_ms: u64, count: u64) -> Reading {
        let has_grown = count > self.count;
        if now_ms > self.began_ms + WINDOW_MS {
            *self = Self::begin(now_ms, count);
        }
        self.count = count;
        Reading {
            refused: count.saturating_sub(self.count_at_begin),
            has_grown,
        }
    }
}

// === impl Forks ===

impl Forks {
    /// Of a group that was just made, or is held again; `None` where nothing is counted.
    pub(super) fn open(
        refused: Option<RefusedForks>,
        (limit, held_by): (u32, HeldBy),
    ) -> Option<Self> {
        let refused = refused?;
        // The kernel tells of what comes after a reading.
        let count = refused.count()?;
        Some(Self {
            refused,
            limit,
            held_by,
            window: Window::begin(clock::monotonic_ms(), count),
        })
    }

    pub(super) fn events(&self) -> std::os::fd::BorrowedFd<'_> {
        self.refused.events()
    }

    /// As it goes over an upgrade.
    pub(super) fn state(&self) -> (u32, HeldBy) {
        (self.limit, self.held_by)
    }
}

// === impl Keeper ===

impl Keeper {
    /// Opens the count of a run whose limit is held like this.
    pub(super) fn count_refused_forks(
        &self,
        (name, container): (&str, Option<&Container>),
        (limit, held_by): (u32, HeldBy),
    ) -> Option<Forks> {
        let group = self.pids_group((name, container), held_by)?;
        Forks::open(RefusedForks::open(&group), (limit, held_by))
    }

    /// The group that holds the number of processes.
    fn pids_group(
        &self,
        (name, container): (&str, Option<&Container>),
        held_by: HeldBy,
    ) -> Option<PathBuf> {
        match (held_by, container) {
            (HeldBy::Cgroup2, Some(Container::Cgroup(cgroup))) => Some(cgroup.path().to_owned()),
            (HeldBy::Cgroup1, _) => Some(self.cgroup1.processes()?.join(name)),
            _ => None,
        }
    }

    /// The kernel tells that it refused forks.
    pub(super) fn forks_refused(&mut self, run: u64) {
        self.count_forks(run);
    }

    /// A run has begun.
    pub(super) fn begin_fork_looks(&mut self, run: u64) {
        if self.instances.get(&run).is_some_and(is_looked_at) {
            self.look_at_forks_often();
        }
    }

    /// For some time.
    pub(super) fn look_at_forks_often(&mut self) {
        let now_ms = clock::monotonic_ms();
        self.fork_looks.often_until_ms = now_ms + OFTEN_MS;
        self.look_at_forks_at(now_ms + LOOK_OFTEN_MS);
    }

    fn look_at_forks_at(&mut self, at_ms: u64) {
        if self.fork_looks.at_ms.is_none_or(|set_ms| at_ms < set_ms) {
            self.fork_looks.at_ms = Some(at_ms);
            self.timers.set(at_ms, Timer::Forks);
        }
    }

    /// The timer of looks has come; one that was replaced does nothing.
    pub(super) fn look_at_forks(&mut self, now_ms: u64) {
        if self.fork_looks.at_ms.is_none_or(|at_ms| now_ms < at_ms) {
            return;
        }
        self.fork_looks.at_ms = None;
        let tasks = self.cgroup1.processes().and_then(tasks_in);
        let looks = &mut self.fork_looks;
        let is_quiet = tasks.is_some() && tasks == looks.tasks_seen;
        let is_due = now_ms >= looks.all_at_ms || now_ms < looks.often_until_ms;
        if !is_quiet || is_due {
            looks.tasks_seen = tasks;
            looks.all_at_ms = now_ms + LOOK_AT_ALL_MS;
            if self.look_at_all_forks() {
                self.fork_looks.often_until_ms = now_ms + OFTEN_MS;
            }
        }
        // Without such a run there is nothing to look at until the next start.
        if self.instances.values().any(is_looked_at) {
            let ended_ms = clock::monotonic_ms();
            let is_often = ended_ms < self.fork_looks.often_until_ms;
            let wait_ms = if is_often { LOOK_OFTEN_MS } else { LOOK_MS };
            let share_ms = LOOK_SHARE * (ended_ms - now_ms);
            self.look_at_forks_at(ended_ms + wait_ms.max(share_ms));
        }
    }

    /// Whether a count has grown.
    fn look_at_all_forks(&mut self) -> bool {
        let instances = self.instances.iter();
        let runs: Vec<u64> = instances
            .filter(|(_, it)| is_looked_at(it))
            .map(|(run, _)| *run)
            .collect();
        let mut has_grown = false;
        for run in runs {
            has_grown |= self.count_forks(run);
        }
        has_grown
    }

    /// Reads the count of a run, and ends its tree in a storm. Returns whether the count has grown.
    fn count_forks(&mut self, run: u64) -> bool {
        let Some(instance) = self.instances.get_mut(&run).filter(|it| !it.must_die()) else {
            return false;
        };
        let Some(forks) = &mut instance.watched.forks else {
            return false;
        };
        let Some(count) = forks.refused.count() else {
            return false;
        };
        let limit = forks.limit;
        let reading = forks.window.read(clock::monotonic_ms(), count);
        let refused = reading.refused;
        if refused > REFUSED_MAX
            && self
                .tasks_of(run)
                .is_some_and(|tasks| is_at_limit(tasks, limit))
        {
            let text = format!(
                "{refused} forks were refused within a second, with {limit} processes and threads allowed"
            );
            self.end_over(run, ("processes", text));
        }
        reading.has_grown
    }

    /// Processes and threads of a run, where they are held by a group.
    fn tasks_of(&self, run: u64) -> Option<u64> {
        let instance = self.instances.get(&run)?;
        let held_by = instance.watched.forks.as_ref()?.held_by;
        let name = group_name(&instance.info.instance, run);
        let group = self.pids_group((&name, instance.container.as_ref()), held_by)?;
        tasks_in(&group)
    }
}

/// Whether so many tasks are as good as the limit: some may just have ended. A version of the kernel counts also
/// what a limit further up refused, which is not for this tree to answer for.
fn is_at_limit(tasks: u64, limit: u32) -> bool {
    tasks >= u64::from(limit - limit / 4)
}

/// Whether the kernel may not tell of its refused forks.
fn is_looked_at(instance: &Instance) -> bool {
    let forks = instance.watched.forks.as_ref();
    forks.is_some_and(|forks| forks.held_by == HeldBy::Cgroup1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts at times, and what is known after each to have been refused within a second.
    fn check(readings: &[(u64, u64, u64)]) {
        let mut window = Window::begin(0, 0);
        for (now_ms, count, expect) in readings {
            let reading = window.read(*now_ms, *count);
            assert_eq!(reading.refused, *expect, "{now_ms} ms of {readings:?}");
        }
    }

    #[test]
    fn what_was_refused_within_a_second_is_counted() {
        check(&[(100, 20, 20), (900, 40, 40), (1_000, 51, 51)]);
    }

    #[test]
    fn what_was_refused_over_a_longer_time_is_no_storm() {
        let slow: Vec<_> = (1..60)
            .map(|second| (second * 1_001, second * 45, 0))
            .collect();
        check(&slow);
    }

    #[test]
    fn a_burst_since_an_old_reading_is_not_taken_for_one_of_this_second() {
        check(&[(60_000, 5_000, 0), (60_050, 5_000, 0)]);
    }

    #[test]
    fn a_storm_after_a_long_quiet_is_found_with_the_second_reading() {
        check(&[(60_000, 300, 0), (60_050, 700, 400)]);
    }

    #[test]
    fn a_count_that_has_grown_is_seen_also_when_a_window_begins() {
        let mut window = Window::begin(0, 3);
        assert!(!window.read(500, 3).has_grown);
        assert!(window.read(5_000, 4).has_grown);
        assert!(!window.read(5_050, 4).has_grown);
    }

    #[test]
    fn a_tree_far_below_its_limit_is_not_to_blame() {
        for (tasks, limit, expect) in [
            (64, 64, true),
            (48, 64, true),
            (47, 64, false),
            (1, 1, true),
            (0, 1, false),
            (70, 64, true),
        ] {
            assert_eq!(is_at_limit(tasks, limit), expect, "{tasks} of {limit}");
        }
    }
}
