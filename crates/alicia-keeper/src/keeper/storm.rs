//! Storms of refused forks. `pids.max` holds a fork bomb, and leaves it busy with forks that fail, which slows
//! everybody down for as long as it lives: a tree that goes on like this is ended.
//!
//! | what holds the limit | how a refused fork is noticed |
//! |---|---|
//! | cgroup version 2 | the kernel tells (`EPOLLPRI` of `pids.events`) |
//! | version 1 | the kernel tells, or it does not (Linux 6.18): counts are looked at as well |
//! | a look of the keeper | nobody counts; who is over the limit is ended |
//!
//! When counts are looked at is the matter of [`looks`].

mod looks;

use std::path::PathBuf;

use super::Keeper;
use super::instance::Instance;
use super::limits::group_name;
use super::timers::Timer;
use crate::clock;
use crate::containment::{Container, RefusedForks, tasks_allowed_in, tasks_in};
use crate::protocol::{HeldBy, InstanceInfo};

pub(super) use looks::Looks;

/// More refused forks than this in [`WINDOW_MS`] are a storm. A bomb makes 1,500 on one core, and 150 on the
/// quarter of one that its limit of `cpu` leaves it. The number is a choice well below these: a server that sheds
/// load by failing to fork more often than this is taken for a bomb.
const REFUSED_MAX: u64 = 50;
/// The time in which they are counted.
const WINDOW_MS: u64 = 1_000;

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

    /// The limit of processes of a run that goes on after an upgrade from a keeper that did not count, and what
    /// holds it.
    pub(super) fn processes_held(
        &self,
        (name, container): (&str, Option<&Container>),
        info: &InstanceInfo,
    ) -> Option<(u32, HeldBy)> {
        let mut limits = info.limits.iter();
        let held_by = limits.find(|it| it.limit == "processes")?.held_by;
        let group = self.pids_group((name, container), held_by)?;
        Some((tasks_allowed_in(&group)?, held_by))
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
        self.fork_looks.be_frequent(now_ms);
        self.plan_fork_look(now_ms);
    }

    fn plan_fork_look(&mut self, now_ms: u64) {
        if let Some(at_ms) = self.fork_looks.plan(now_ms) {
            self.timers.set(at_ms, Timer::Forks);
        }
    }

    /// A timer of looks has come.
    pub(super) fn look_at_forks(&mut self) {
        // Timers that came before this one are not part of the look.
        let begun_ms = clock::monotonic_ms();
        if !self.fork_looks.begin(begun_ms) {
            return;
        }
        let tasks = self.cgroup1.processes().and_then(tasks_in);
        if self.fork_looks.needs_counts(begun_ms, tasks) {
            self.look_at_all_forks();
        }
        let ended_ms = clock::monotonic_ms();
        self.fork_looks.end((begun_ms, ended_ms));
        // Without such a run there is nothing to look at until the next start.
        if self.instances.values().any(is_looked_at) {
            self.plan_fork_look(ended_ms);
        }
    }

    fn look_at_all_forks(&mut self) {
        let instances = self.instances.iter();
        let runs: Vec<u64> = instances
            .filter(|(_, it)| is_looked_at(it))
            .map(|(run, _)| *run)
            .collect();
        for run in runs {
            self.count_forks(run);
        }
    }

    /// Reads the count of a run, because the kernel told of it or in a look, and ends its tree in a storm.
    pub(super) fn count_forks(&mut self, run: u64) {
        let Some(instance) = self.instances.get_mut(&run).filter(|it| !it.must_die()) else {
            return;
        };
        let Some(forks) = &mut instance.watched.forks else {
            return;
        };
        let Some(count) = forks.refused.count() else {
            return;
        };
        let limit = forks.limit;
        let now_ms = clock::monotonic_ms();
        let reading = forks.window.read(now_ms, count);
        if reading.has_grown {
            self.fork_looks.be_frequent(now_ms);
        }
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

    /// How long after its beginning a storm is found that comes after ten quiet seconds, with looks that take so
    /// long.
    fn found_after_ms(look_ms: u64, refused_per_s: u64) -> Option<u64> {
        const STORM_MS: u64 = 10_500;
        let mut looks = Looks::default();
        let mut window = Window::begin(0, 0);
        let mut at_ms = looks.plan(0);
        while let Some(begun_ms) = at_ms.filter(|at_ms| *at_ms < 60_000) {
            assert!(looks.begin(begun_ms));
            let ended_ms = begun_ms + look_ms;
            let tasks = if begun_ms < STORM_MS { 10 } else { 30 };
            if looks.needs_counts(begun_ms, Some(tasks)) {
                let since_ms = ended_ms.saturating_sub(STORM_MS);
                let reading = window.read(ended_ms, since_ms * refused_per_s / 1_000);
                if reading.refused > REFUSED_MAX {
                    return Some(since_ms);
                }
                if reading.has_grown {
                    looks.be_frequent(ended_ms);
                }
            }
            looks.end((begun_ms, ended_ms));
            at_ms = looks.plan(ended_ms);
        }
        None
    }

    #[test]
    fn a_storm_is_found_also_when_looks_are_slow() {
        for (look_ms, refused_per_s, is_found) in [
            (0, 1_500, true),
            (0, 150, true),
            (1, 150, true),
            (10, 150, true),
            (20, 150, true),
            (100, 150, true),
            (500, 150, true),
            (0, 50, false),
            (20, 50, false),
        ] {
            let after_ms = found_after_ms(look_ms, refused_per_s);
            let about = format!("{look_ms} ms, {refused_per_s} a second: {after_ms:?}");
            assert_eq!(after_ms.is_some(), is_found, "{about}");
            assert!(after_ms.is_none_or(|it| it < 3_000), "{about}");
        }
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
