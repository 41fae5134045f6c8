//! The use of processor and memory by each process tree, sampled every two seconds.
//!
//! Only the processes of the trees are looked at: those of the instance's cgroup, or the leader and its
//! descendants. What a descendant that left the tree uses is seen with a cgroup only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::InstanceId;
use alicia_contract::orchestrator::FleetStatus;
use alicia_module::Context;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Handle, Input};

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(2);

/// Processes of one tree that are looked at; a fork bomb does not hold up the sampler.
const PROCESSES_MAX: usize = 4_096;

/// What is sampled.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) instance: InstanceId,
    pub(crate) pid: u32,
    pub(crate) cgroup: Option<PathBuf>,
}

/// What an instance uses.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Usage {
    /// Cores; none after the first sample, which has nothing to compare with.
    cpu: Option<f64>,
    memory_bytes: u64,
}

/// The last sample of every instance.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Usages {
    by_instance: BTreeMap<InstanceId, Usage>,
}

/// Processor time of a tree at one moment.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    /// In ticks, by process: one that ended takes its time along.
    ticks: BTreeMap<u32, u64>,
}

// === impl Usages ===

impl Usages {
    pub(crate) fn put_into(&self, status: &mut FleetStatus) {
        let instances = status
            .services
            .iter_mut()
            .flat_map(|service| &mut service.instances);
        for instance in instances.filter(|instance| instance.pid.is_some()) {
            let usage = instance
                .instance
                .as_ref()
                .and_then(|id| self.by_instance.get(id));
            instance.cpu = usage.and_then(|usage| usage.cpu);
            instance.memory_bytes = usage.map(|usage| usage.memory_bytes);
        }
    }
}

/// Starts the sampler.
pub(super) fn start(cx: &Context, handle: Handle) -> watch::Receiver<Arc<Usages>> {
    let (usages, usages_out) = watch::channel(Arc::default());
    let clock = cx.clock.clone();
    cx.spawn("usage", async move {
        let ticks_per_s = rustix::param::clock_ticks_per_second();
        let page_bytes = rustix::param::page_size() as u64;
        let mut before: BTreeMap<InstanceId, Sample> = BTreeMap::new();
        loop {
            sleep(INTERVAL).await;
            let Ok(subjects) = handle.ask(Input::Subjects).await else {
                return;
            };
            let at = clock.now();
            let sample = move || {
                let mut now = BTreeMap::new();
                let mut found = Usages::default();
                for subject in subjects {
                    let processes = processes(&subject);
                    let ticks = processes
                        .iter()
                        .filter_map(|pid| Some((*pid, ticks(*pid)?)));
                    let sample = Sample {
                        at,
                        ticks: ticks.collect(),
                    };
                    let usage = Usage {
                        cpu: before
                            .get(&subject.instance)
                            .and_then(|before| cpu(before, &sample, ticks_per_s)),
                        memory_bytes: processes.iter().filter_map(|pid| pages(*pid)).sum::<u64>()
                            * page_bytes,
                    };
                    found.by_instance.insert(subject.instance.clone(), usage);
                    now.insert(subject.instance, sample);
                }
                (now, found)
            };
            let Ok((now, found)) = tokio::task::spawn_blocking(sample).await else {
                return;
            };
            before = now;
            usages.send_if_modified(|usages| {
                let changed = **usages != found;
                *usages = Arc::new(found);
                changed
            });
        }
    });
    usages_out
}

/// Cores in use between two samples, to the hundredth, so that idling does not count as a change.
#[expect(
    clippy::cast_precision_loss,
    reason = "ticks of two seconds are a few thousand"
)]
fn cpu(before: &Sample, now: &Sample, ticks_per_s: u64) -> Option<f64> {
    let used: u64 = now
        .ticks
        .iter()
        .map(|(pid, ticks)| ticks.saturating_sub(before.ticks.get(pid).copied().unwrap_or(0)))
        .sum();
    let seconds = (now.at - before.at).as_secs_f64();
    let cores = used as f64 / ticks_per_s as f64 / seconds;
    (seconds > 0.0).then(|| (cores * 100.0).round() / 100.0)
}

fn processes(subject: &Subject) -> Vec<u32> {
    let of_cgroup = subject.cgroup.as_deref().and_then(of_cgroup);
    of_cgroup.unwrap_or_else(|| descendants(subject.pid))
}

fn of_cgroup(cgroup: &Path) -> Option<Vec<u32>> {
    let listed = fs::read_to_string(cgroup.join("cgroup.procs")).ok()?;
    Some(
        listed
            .lines()
            .filter_map(|line| line.parse().ok())
            .take(PROCESSES_MAX)
            .collect(),
    )
}

/// The process and everything below it.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found
        .get(next)
        .copied()
        .filter(|_| found.len() < PROCESSES_MAX)
    {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        found.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
        next += 1;
    }
    found
}

/// Time in user mode and in the kernel: fields 14 and 15 of `/proc/<pid>/stat` (proc(5)).
fn ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything, brackets too.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident pages: field 2 of `/proc/<pid>/statm`.
fn pages(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    statm.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_pages_and_ticks() {
        let own = std::process::id();
        assert!(pages(own).is_some_and(|pages| pages > 0));
        assert!(ticks(own).is_some());
        assert!(descendants(own).contains(&own));
        assert_eq!(ticks(0), None);
    }

    #[tokio::test]
    #[expect(
        clippy::disallowed_methods,
        reason = "two moments are needed, not the time"
    )]
    async fn cores_are_ticks_per_second_and_new_processes_count_in_full() {
        let at = Instant::now();
        let sample = |seconds, ticks: &[(u32, u64)]| Sample {
            at: at + Duration::from_secs(seconds),
            ticks: ticks.iter().copied().collect(),
        };
        let before = sample(0, &[(1, 100), (2, 50)]);
        let now = sample(2, &[(1, 200), (3, 100)]);
        assert_eq!(cpu(&before, &now, 100), Some(1.0));
        assert_eq!(cpu(&before, &before, 100), None);
    }
}
