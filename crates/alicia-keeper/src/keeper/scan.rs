//! Ends of instances without a cgroup, all in one look at `/proc`. A look costs some 20 µs for each process
//! of the machine, so looks are shared, and a fleet that ends at once takes a bounded part of a core.

use std::collections::HashMap;
use std::os::fd::AsFd;

use super::Keeper;
use super::stop::{Heard, open};
use super::timers::Timer;
use crate::clock;
use crate::containment::{Claim, Container, Owners, Sweep};
use crate::process_table::{self, Process};
use crate::sys;

/// Rounds in which a tree that forks while it is stopped is looked at again before it is killed.
const FREEZE_ROUNDS: usize = 8;

/// The least time between two looks.
const PAUSE_MS_MIN: u64 = 1;
/// A look that took this long is followed by a pause of twice the time.
const PAUSE_SHARE: u64 = 2;
/// After an end that nobody waits for: a host answers it with a start, which should find the loop idle.
const PATIENCE_MS: u64 = 5;
/// For a signal, a look of this age is good enough: what it misses is killed later.
const FRESH_MS: u64 = 20;

/// When to look, and what was seen last.
#[derive(Debug, Default)]
pub(super) struct Scans {
    /// Something may have ended.
    pub(super) is_due: bool,
    /// Not before, on the monotonic clock.
    not_before_ms: u64,
    pub(super) is_timer_set: bool,
    seen_ms: u64,
    seen: Owners,
}

impl Keeper {
    /// Looks, if it is due and not too soon after the last look.
    pub(super) fn settle_scans_if_due(&mut self) {
        if !self.scans.is_due {
            return;
        }
        let begun_ms = clock::monotonic_ms();
        if begun_ms < self.scans.not_before_ms {
            if !self.scans.is_timer_set {
                self.scans.is_timer_set = true;
                self.timers.set(self.scans.not_before_ms, Timer::Look);
            }
            return;
        }
        self.scans.is_due = false;
        self.settle_scans();
        let ended_ms = clock::monotonic_ms();
        let pause_ms = (PAUSE_SHARE * (ended_ms - begun_ms)).max(PAUSE_MS_MIN);
        self.scans.not_before_ms = ended_ms + pause_ms;
    }

    /// The next step of every run that is ending and is held by marks only.
    fn settle_scans(&mut self) {
        let ending: Vec<u64> = self
            .ending
            .iter()
            .copied()
            .filter(|run| self.is_scanned(*run))
            .collect();
        if ending.is_empty() {
            return;
        }
        let owners = self.look();
        let mut doomed = Vec::new();
        for run in ending {
            let Some(instance) = self.instances.get(&run) else {
                continue;
            };
            let is_left = owners.members.contains_key(&run);
            if !instance.is_alive() && !is_left && owners.strays.is_empty() {
                self.emptied(run, Heard::NotYet);
            } else if instance.must_die() {
                doomed.push(run);
            } else {
                self.look_at_deadline(run);
            }
        }
        if !doomed.is_empty() {
            self.kill_scanned(&doomed, owners);
        }
    }

    pub(super) fn send_to_scanned(&mut self, run: u64, signals: &[i32]) {
        let now_ms = clock::monotonic_ms();
        if now_ms >= self.scans.seen_ms + FRESH_MS || !self.scans.seen.members.contains_key(&run) {
            self.scans.seen = self.look();
            self.scans.seen_ms = now_ms;
        }
        for process in self.scans.seen.members.get(&run).into_iter().flatten() {
            for signal in signals {
                send(process, *signal);
            }
        }
    }

    /// Something ended. Whoever waits for the end of a tree has it looked at at once.
    pub(super) fn scan_after_end(&mut self) {
        let mut ending = self.ending.iter().filter_map(|run| self.instances.get(run));
        let is_awaited = ending.any(|it| it.stopping.is_some());
        if !self.scans.is_due && !is_awaited {
            let at_ms = clock::monotonic_ms() + PATIENCE_MS;
            self.scans.not_before_ms = self.scans.not_before_ms.max(at_ms);
        }
        self.scans.is_due = true;
    }

    fn is_scanned(&self, run: u64) -> bool {
        let container = self
            .instances
            .get(&run)
            .and_then(|instance| instance.container.as_ref());
        matches!(container, Some(Container::Scan(_)))
    }

    /// Who owns what, now.
    fn look(&mut self) -> Owners {
        let has_survivors = self
            .instances
            .values()
            .any(|it| it.is_survivor && !it.info.empty);
        let sweep = if has_survivors {
            Sweep::of_everything()
        } else {
            Sweep::of_descendants(std::process::id(), &self.key)
        };
        let mut claims: Vec<Claim<'_>> = Vec::new();
        for (run, instance) in &mut self.instances {
            let is_alive = instance.is_alive();
            if let Some(Container::Scan(scan)) = &mut instance.container {
                claims.push(Claim {
                    run: *run,
                    scan,
                    is_alive,
                });
            }
        }
        let mut owners = sweep.assign(&mut claims);
        if has_survivors {
            // Among all processes of the machine, those without a mark are simply others.
            owners.strays.clear();
        }
        owners
    }

    /// The processes of every run without a cgroup, now.
    pub(super) fn members(&mut self) -> HashMap<u64, Vec<Process>> {
        self.look().members
    }

    /// Stops the trees until none of them grows any more, then kills them: a process that forks faster
    /// than we look cannot escape.
    fn kill_scanned(&mut self, doomed: &[u64], mut owners: Owners) {
        let mut frozen = 0;
        for _ in 0..FREEZE_ROUNDS {
            let targets = targets(doomed, &owners);
            if targets.len() == frozen {
                break;
            }
            frozen = targets.len();
            for process in &targets {
                send(process, libc::SIGSTOP);
            }
            owners = self.look();
        }
        for process in targets(doomed, &owners) {
            send(&process, libc::SIGKILL);
        }
        for run in doomed {
            let members = owners
                .members
                .get(run)
                .map(Vec::as_slice)
                .unwrap_or_default();
            if let Some(instance) = self.instances.get_mut(run) {
                instance
                    .killed
                    .extend(members.iter().map(|process| process.pid));
                // Whose a stray was cannot be known: the first run that ends has the count.
                instance
                    .killed
                    .extend(owners.strays.drain(..).map(|process| process.pid));
            }
            self.look_again(*run);
        }
    }
}

fn targets(doomed: &[u64], owners: &Owners) -> Vec<Process> {
    let members = doomed
        .iter()
        .filter_map(|run| owners.members.get(run))
        .flatten();
    members.chain(&owners.strays).copied().collect()
}

/// To exactly the process that was seen: its pid may be another's by now.
pub(super) fn send(process: &Process, signal: i32) {
    let Some((_, pidfd)) = open(process.pid) else {
        return;
    };
    let now = process_table::process(process.pid);
    if now.is_some_and(|now| now.start_ticks == process.start_ticks) {
        // It may have ended.
        drop(sys::send_signal(pidfd.as_fd(), signal));
    }
}
