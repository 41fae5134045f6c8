//! A process and its descendants: alive, and how much they use. All of it is in `/proc` (proc(5)), which never waits
//! for a disk.

use std::collections::VecDeque;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use alicia_contract::ByteSize;
use alicia_contract::fleet::ProcessCheck;
use tokio::time::Instant;

use crate::attempt::{Deadline, Seen, now};
use crate::disk::size;

/// The most processes that are looked at; a fork bomb must not hold up the monitor.
const PROCESSES_MAX: usize = 4_096;

/// The shortest time between two looks from which CPU is told; the kernel counts in ticks of 10 ms.
const CPU_SPAN_MIN: Duration = Duration::from_millis(90);

/// A process and what is expected of it.
#[derive(Debug)]
pub struct ProcessTarget {
    pid: u32,
    check: ProcessCheck,
    last: Mutex<Option<Last>>,
}

/// What the look before saw.
#[derive(Debug, Clone, Copy)]
struct Last {
    at: Instant,
    /// When the process was started, in ticks since the machine was; tells it from another with its number.
    started: u64,
    cpu: f64,
    /// Between the two looks before, in cores.
    cores: Option<f64>,
}

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    is_dead: bool,
    cpu_ticks: u64,
    started: u64,
}

/// Several, summed up.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    processes: u64,
    cpu_ticks: u64,
    memory_bytes: u64,
    descriptors: u64,
    /// Processes of another user, whose descriptors may not be counted.
    closed: u64,
}

impl Clone for ProcessTarget {
    fn clone(&self) -> Self {
        Self::new(&self.check, self.pid)
    }
}

// === impl ProcessTarget ===

impl ProcessTarget {
    pub(crate) fn new(check: &ProcessCheck, pid: u32) -> Self {
        Self {
            pid,
            check: check.clone(),
            last: Mutex::new(None),
        }
    }

    pub(crate) fn attempt(&self, deadline: &Deadline) -> Seen {
        let pid = self.pid;
        let gone = || format!("process {pid} is gone");
        let stat = stat(pid, deadline)
            .filter(|stat| !stat.is_dead)
            .ok_or_else(gone)?;
        let sum = sum(pid, deadline);
        let cores = self.cores(stat.started, sum.cpu_ticks).ok_or_else(gone)?;
        self.judge(sum, cores)
    }

    /// The cores in use since the look before, if it was long enough ago. `None`: it is another process.
    fn cores(&self, started: u64, cpu_ticks: u64) -> Option<Option<f64>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now();
        let cpu = seconds(cpu_ticks);
        let Some(before) = *last else {
            *last = Some(Last {
                at,
                started,
                cpu,
                cores: None,
            });
            return Some(None);
        };
        if before.started != started {
            return None;
        }
        let span = at.saturating_duration_since(before.at);
        if span < CPU_SPAN_MIN {
            return Some(before.cores);
        }
        // A child that ended takes its time with it.
        let cores = Some((cpu - before.cpu).max(0.0) / span.as_secs_f64());
        *last = Some(Last {
            at,
            started,
            cpu,
            cores,
        });
        Some(cores)
    }

    fn judge(&self, sum: Sum, cores: Option<f64>) -> Seen {
        let ProcessCheck {
            cpu_max,
            memory_max,
            descriptors_max,
            processes_max,
        } = self.check;
        if let (Some(cores), Some(limit)) = (cores, cpu_max)
            && cores > limit
        {
            return Err(format!("{cores:.2} cores, expected at most {limit}"));
        }
        if let Some(limit) = memory_max.map(ByteSize::bytes)
            && sum.memory_bytes > limit
        {
            let used = size(sum.memory_bytes);
            return Err(format!(
                "{used} of memory, expected at most {}",
                ByteSize(limit)
            ));
        }
        if let Some(limit) = descriptors_max {
            if sum.closed > 0 {
                return Err(
                    "its descriptors belong to another user and cannot be counted".to_owned(),
                );
            }
            if sum.descriptors > limit {
                let open = sum.descriptors;
                return Err(format!("{open} open descriptors, expected at most {limit}"));
            }
        }
        if let Some(limit) = processes_max
            && sum.processes > limit
        {
            return Err(format!(
                "{} processes, expected at most {limit}",
                sum.processes
            ));
        }
        let cores = cores.map_or_else(String::new, |cores| format!(", {cores:.2} cores"));
        Ok(format!(
            "{} processes{cores}, {} of memory, {} descriptors",
            sum.processes,
            size(sum.memory_bytes),
            sum.descriptors
        ))
    }
}

fn sum(pid: u32, deadline: &Deadline) -> Sum {
    let mut sum = Sum::default();
    let mut left = VecDeque::from([pid]);
    let mut seen = 0;
    while let Some(pid) = left.pop_front() {
        seen += 1;
        let Some(stat) = stat(pid, deadline).filter(|stat| !stat.is_dead) else {
            continue;
        };
        sum.processes += 1;
        sum.cpu_ticks += stat.cpu_ticks;
        sum.memory_bytes += memory_bytes(pid).unwrap_or(0);
        match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(entries) => sum.descriptors += entries.count() as u64,
            Err(error) => {
                deadline.own(error);
                sum.closed += 1;
            }
        }
        if seen + left.len() < PROCESSES_MAX {
            left.extend(children(pid));
        }
    }
    sum
}

fn stat(pid: u32, deadline: &Deadline) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"));
    read_stat(&text.map_err(|error| deadline.own(error)).ok()?)
}

/// The name is in parentheses and may hold anything, also parentheses.
fn read_stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        is_dead: matches!(*fields.first()?, "Z" | "X" | "x"),
        cpu_ticks: number(14)? + number(15)?,
        started: number(22)?,
    })
}

fn memory_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let numbers = |list: String| -> Vec<u32> {
        let words = list.split_ascii_whitespace();
        words.filter_map(|word| word.parse().ok()).collect()
    };
    lists.flat_map(numbers).collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 ticks are three million years"
)]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "42 (a) R (b)) S 1 42 42 0 -1 4194560 1 0 0 0 70 30 0 0 20 0 1 0 5000 1 1 1 1 1";
        let expected = Stat {
            is_dead: false,
            cpu_ticks: 100,
            started: 5_000,
        };
        assert_eq!(read_stat(text), Some(expected));
        assert_eq!(read_stat("42 (a"), None);
    }
}
