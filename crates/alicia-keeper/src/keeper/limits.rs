//! Limits of whole trees: held by the best that this machine has, and by a look now and then where it has
//! nothing.
//!
//! | rung | memory | cpu | processes |
//! |---|---|---|---|
//! | cgroup version 2 with controllers | `memory.max`, the whole group is killed | `cpu.max` | `pids.max` |
//! | controllers of version 1 | `memory.limit_in_bytes`, the keeper kills the tree | `cpu.cfs_quota_us` | `pids.max` |
//! | neither | a look every 50 ms, the tree is killed; `RLIMIT_DATA` in between | nothing | a look, the tree is killed |
//!
//! What `pids.max` refuses again and again is the matter of [`storm`](super::storm).

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;

use super::instance::Instance;
use super::storm::Forks;
use super::timers::Timer;
use super::{Keeper, note};
use crate::containment::{CgroupRoot, Container, TreeLimit};
use crate::protocol::{ExitStatus, HeldBy, LimitState, Limits, StartSpec, Target, Usage};
use crate::{clock, process_table};

/// Between looks at trees whose limits nothing else holds.
const POLL_INTERVAL_MS: u64 = 50;
/// A look that took this long is followed by a pause of ten times the time: at most a tenth of a core.
const POLL_SHARE: u64 = 10;
/// `RLIMIT_DATA` of each process is this much of the limit of its tree: it counts what was reserved, not what
/// is used, so it must not be met by a sane program, but it stops one that outruns the looks.
const DATA_SHARE: u64 = 4;

/// What the keeper itself does about the limits of an instance.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// Looked at: resident memory of the tree, in bytes.
    pub(super) memory_bytes_max: Option<u64>,
    /// Looked at: processes and threads of the tree.
    pub(super) processes_max: Option<u32>,
    /// Has groups of cgroup version 1.
    pub(super) has_cgroup1: bool,
    /// Readable when the kernel is out of memory in its group of version 1.
    pub(super) out_of_memory: Option<OwnedFd>,
    /// Forks that the kernel refused it, where it counts them.
    pub(super) forks: Option<Forks>,
    /// The limit for which the keeper ended it.
    pub(super) over: Option<String>,
    /// What was seen of it then.
    pub(super) over_why: Option<String>,
}

/// What holds the limits of a start.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) states: Vec<LimitState>,
    /// Files that the child writes to first, to be in its groups.
    pub(super) join: Vec<File>,
    pub(super) watched: Watched,
    /// `RLIMIT_DATA` for each process, in bytes.
    pub(super) data_bytes_max: Option<u64>,
    /// `RLIMIT_NPROC`: tasks of the user, who may have others.
    pub(super) user_tasks_max: Option<u64>,
}

impl Held {
    /// Limits of each process that stand in until the next look.
    pub(super) fn stand_ins(&self) -> impl Iterator<Item = (libc::c_int, libc::rlimit)> {
        let data = (libc::RLIMIT_DATA as libc::c_int, self.data_bytes_max);
        let tasks = (libc::RLIMIT_NPROC as libc::c_int, self.user_tasks_max);
        [data, tasks].into_iter().filter_map(|(resource, value)| {
            let value = value?;
            let limit = libc::rlimit {
                rlim_cur: value,
                rlim_max: value,
            };
            Some((resource, limit))
        })
    }
}

impl Watched {
    /// A process that met its stand-in limit before the next look ends by its own failure: then its largest
    /// size says why.
    pub(super) fn judge(&mut self, status: ExitStatus, usage: &Usage) {
        let is_failure = status != ExitStatus::Code(0);
        let limit = self
            .memory_bytes_max
            .filter(|_| self.over.is_none() && is_failure);
        if limit.is_some_and(|limit| usage.rss_bytes_max > limit) {
            self.over = Some("memory".to_owned());
            self.over_why = limit.map(|limit| {
                let bytes = usage.rss_bytes_max;
                format!("a process had {bytes} bytes, with {limit} allowed for all")
            });
        }
    }

    fn is_polled(&self) -> bool {
        self.memory_bytes_max.is_some() || self.processes_max.is_some()
    }
}

impl Held {
    /// As `InstanceInfo::not_enforced` says it.
    pub(super) fn not_enforced(&self) -> Vec<String> {
        let none = self
            .states
            .iter()
            .filter(|state| state.held_by == HeldBy::None);
        none.map(|state| {
            let why = state.why.as_deref().unwrap_or_default();
            format!("{}: {why}", state.limit)
        })
        .collect()
    }
}

/// The groups of a run are called like its cgroup of version 2.
pub(super) fn group_name(instance: &str, run: u64) -> String {
    format!("{instance}.{run}")
}

fn tree_limits(limits: &Limits) -> Vec<TreeLimit> {
    let memory = limits.memory_bytes_max.map(TreeLimit::Memory);
    let cpu = limits.cpu_percent_max.map(TreeLimit::Cpu);
    let processes = limits.processes_max.map(TreeLimit::Processes);
    memory.into_iter().chain(cpu).chain(processes).collect()
}

impl Keeper {
    /// Sets the limits of a run before it begins.
    pub(super) fn hold_limits(
        &self,
        spec: &StartSpec,
        (run, user): (u64, u32),
        container: &Container,
    ) -> Held {
        let name = group_name(&spec.instance, run);
        let mut held = Held::default();
        for limit in tree_limits(&spec.limits) {
            let of_version_2 = match container {
                Container::Cgroup(cgroup) => cgroup.hold(limit),
                Container::Scan(_) => Err("it has no cgroup of version 2".to_owned()),
            };
            let state = match of_version_2 {
                Ok(()) => LimitState::held(limit.name(), HeldBy::Cgroup2),
                Err(no_2) => match self.cgroup1.hold(&name, limit) {
                    Ok(procs) => {
                        held.join.push(procs);
                        held.watched.has_cgroup1 = true;
                        LimitState::held(limit.name(), HeldBy::Cgroup1).because(no_2)
                    }
                    Err(no_1) => held.hold_otherwise(limit, user, &format!("{no_2}; {no_1}")),
                },
            };
            if state.held_by == HeldBy::Cgroup1 && matches!(limit, TreeLimit::Memory(_)) {
                held.watched.out_of_memory = self.cgroup1.out_of_memory_event(&name);
            }
            if let TreeLimit::Processes(count) = limit {
                let of = (name.as_str(), Some(container));
                held.watched.forks = self.count_refused_forks(of, (count, state.held_by));
            }
            held.states.push(state);
        }
        for limit in &spec.resource_limits {
            let name = match limit.resource.as_str() {
                "nofile" => "open_files",
                "fsize" => "file_size",
                other => other,
            };
            held.states.push(LimitState::held(name, HeldBy::Rlimit));
        }
        held
    }

    /// Begins to look, if something is to be looked at.
    pub(super) fn begin_polling(&mut self) {
        self.poll_after(POLL_INTERVAL_MS);
    }

    fn poll_after(&mut self, wait_ms: u64) {
        let mut instances = self.instances.values();
        let is_needed = instances.any(|it| !it.info.empty && it.watched.is_polled());
        if is_needed && !self.is_polling {
            self.is_polling = true;
            let at_ms = clock::monotonic_ms() + wait_ms;
            self.timers.set(at_ms, Timer::Limits);
        }
    }

    /// Looks at the trees whose limits nothing else holds.
    pub(super) fn poll_limits(&mut self) {
        self.is_polling = false;
        let begun_ms = clock::monotonic_ms();
        let polled: Vec<u64> = self
            .instances
            .iter()
            .filter(|(_, it)| !it.info.empty && it.watched.is_polled() && it.watched.over.is_none())
            .map(|(run, _)| *run)
            .collect();
        let mut pids = self.pids_of(&polled);
        for run in polled {
            let pids = pids.remove(&run).unwrap_or_default();
            if let Some(over) = self.find_over(run, &pids) {
                self.end_over(run, over);
            }
        }
        let took_ms = clock::monotonic_ms() - begun_ms;
        self.poll_after(POLL_INTERVAL_MS.max(POLL_SHARE * took_ms));
    }

    fn find_over(&self, run: u64, pids: &[u32]) -> Option<(&'static str, String)> {
        let watched = &self.instances.get(&run)?.watched;
        let (mut bytes, mut tasks) = (0, 0);
        for pid in pids {
            let use_of = process_table::use_of(*pid).unwrap_or_default();
            bytes += use_of.private_bytes;
            tasks += u64::from(use_of.threads);
        }
        if let Some(limit) = watched.memory_bytes_max.filter(|limit| bytes > *limit) {
            return Some(("memory", format!("{bytes} bytes of {limit} allowed")));
        }
        let limit = watched.processes_max?;
        let is_over = tasks > u64::from(limit);
        is_over.then(|| {
            let text = format!("{tasks} processes and threads of {limit} allowed");
            ("processes", text)
        })
    }

    /// The processes of these runs; those without a cgroup are found in one look at `/proc`.
    fn pids_of(&mut self, runs: &[u64]) -> HashMap<u64, Vec<u32>> {
        let mut pids = HashMap::new();
        let mut is_scan_needed = false;
        for run in runs {
            let instance = self.instances.get(run);
            match instance.and_then(|it| it.container.as_ref()) {
                Some(Container::Cgroup(cgroup)) => drop(pids.insert(*run, cgroup.pids())),
                Some(Container::Scan(_)) => is_scan_needed = true,
                None => {}
            }
        }
        if is_scan_needed {
            let of_scan = self.members().into_iter().map(|(run, members)| {
                let members = members.iter().map(|process| process.pid);
                (run, members.collect())
            });
            pids.extend(of_scan);
        }
        pids
    }

    /// The kernel killed, or is about to kill, for want of memory in a group of version 1: the rest goes too,
    /// as with version 2.
    pub(super) fn out_of_memory_in_group(&mut self, run: u64) {
        let Some(instance) = self.instances.get_mut(&run) else {
            return;
        };
        // Told once.
        instance.watched.out_of_memory = None;
        let text = "the kernel is out of memory for it".to_owned();
        self.end_over(run, ("memory", text));
    }

    pub(super) fn end_over(&mut self, run: u64, (limit, text): (&'static str, String)) {
        let Some(instance) = self.instances.get_mut(&run) else {
            return;
        };
        instance.watched.over = Some(limit.to_owned());
        instance.watched.over_why = Some(text.clone());
        instance.watched.forks = None;
        let name = instance.info.instance.clone();
        let said = format!("over its limit of {limit}: {text}; killed");
        note(&format!("{name}: {said}"));
        self.say(run, &said);
        self.begin_stop(run, (libc::SIGKILL, Target::Tree), 0, None);
    }

    /// How many of its processes the kernel killed for want of memory, by a count of its own.
    pub(super) fn out_of_memory_kills(&self, instance: &Instance) -> Option<u64> {
        if instance.watched.over.as_deref() == Some("memory") {
            return Some(1);
        }
        let of_version_2 = match &instance.container {
            Some(Container::Cgroup(cgroup)) if self.counts_memory() => cgroup.out_of_memory_kills(),
            _ => None,
        };
        of_version_2.or_else(|| {
            let name = group_name(&instance.info.instance, instance.info.run);
            let has_group = instance.watched.has_cgroup1;
            has_group.then(|| self.cgroup1.out_of_memory_kills(&name))?
        })
    }

    /// Whether cgroups of version 2 have the memory controller here.
    fn counts_memory(&self) -> bool {
        let controllers = self.cgroups.as_ref().map(CgroupRoot::controllers);
        controllers.is_ok_and(|all| all.iter().any(|it| it == "memory"))
    }

    /// The most memory that its tree used, where a controller counts.
    pub(super) fn memory_peak(&self, instance: &Instance) -> Option<u64> {
        let of_version_2 = match &instance.container {
            Some(Container::Cgroup(cgroup)) if self.counts_memory() => cgroup.memory_peak(),
            _ => None,
        };
        of_version_2.or_else(|| {
            let name = group_name(&instance.info.instance, instance.info.run);
            let has_group = instance.watched.has_cgroup1;
            has_group.then(|| self.cgroup1.memory_peak(&name))?
        })
    }
}

impl Held {
    /// Without any controller.
    fn hold_otherwise(&mut self, limit: TreeLimit, user: u32, why: &str) -> LimitState {
        let state = |held_by| LimitState::held(limit.name(), held_by);
        match limit {
            TreeLimit::Memory(bytes) => {
                self.watched.memory_bytes_max = Some(bytes);
                self.data_bytes_max = Some(bytes.saturating_mul(DATA_SHARE));
                state(HeldBy::Polled).because(format!("{why}; between looks by RLIMIT_DATA"))
            }
            TreeLimit::Processes(count) => {
                self.watched.processes_max = Some(count);
                // Faster than any look; the kernel does not count root's.
                let others = process_table::tasks_of_user(user);
                self.user_tasks_max = Some(others + u64::from(count));
                state(HeldBy::Polled).because(format!("{why}; between looks by RLIMIT_NPROC"))
            }
            TreeLimit::Cpu(_) => state(HeldBy::None).because(why),
        }
    }
}
