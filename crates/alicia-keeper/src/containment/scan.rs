//! Containment without a cgroup: whose is a process?
//!
//! Every orphan falls to the keeper (it is the child subreaper), so all processes of all instances are its
//! descendants. Among those, an instance owns what (1) has an owner as parent, (2) was its own in an
//! earlier scan, (3) carries its tag in the environment, (4) is in its leader's session, or (5) writes to
//! its pipes. A descendant without any of these marks is a stray: it is ended once no instance that it
//! could have come from is alive.

use std::collections::{HashMap, HashSet};

use crate::process_table::{self, Process};

/// The variable that carries the tag.
pub(crate) const TAG_NAME: &str = "ALICIA_KEEPER";

/// The marks of one instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scan {
    /// Value of the tag variable, unique to the run.
    pub(crate) tag: String,
    /// The leader's pid, which is its session too.
    pub(crate) leader: u32,
    /// Since when the instance exists, in ticks since boot.
    pub(crate) start_ticks: u64,
    /// Inodes of the output pipes.
    pub(crate) pipes: Vec<u64>,
    /// Members of the last scan, pid to start ticks.
    pub(crate) known: HashMap<u32, u64>,
}

/// The longest chain of parents that is followed.
const ANCESTORS_MAX: usize = 64;

impl Scan {
    /// Whether a process is of this instance, by the marks of a sweep, without a sweep.
    pub(crate) fn owns(&self, process: &Process) -> bool {
        let mut process = *process;
        for _ in 0..ANCESTORS_MAX {
            let is_leader = process.pid == self.leader && process.start_ticks == self.start_ticks;
            if is_leader || self.is_marked(&process) {
                return true;
            }
            match process_table::process(process.parent) {
                Some(parent) if parent.pid != std::process::id() => process = parent,
                _ => return false,
            }
        }
        false
    }

    fn is_marked(&self, process: &Process) -> bool {
        let is_known = self.known.get(&process.pid) == Some(&process.start_ticks);
        let in_session = process.session == self.leader && process.start_ticks >= self.start_ticks;
        is_known
            || in_session
            || process_table::environment(process.pid, TAG_NAME).is_some_and(|tag| tag == self.tag)
            || process_table::writes_to(process.pid, &self.pipes)
    }
}

/// An instance that takes part in a scan.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) run: u64,
    pub(crate) scan: &'a mut Scan,
    /// Its leader lives.
    pub(crate) is_alive: bool,
}

/// One look at all processes.
#[derive(Debug)]
pub(crate) struct Sweep {
    processes: Vec<Process>,
}

/// Who owns what.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// Living members of each run.
    pub(crate) members: HashMap<u64, Vec<Process>>,
    /// Nobody's, and old enough to be of nobody alive.
    pub(crate) strays: Vec<Process>,
}

impl Sweep {
    /// The descendants of the keeper, parents before children, those in `cgroup_key` directories left out.
    pub(crate) fn of_descendants(keeper: u32, cgroup_key: &str) -> Self {
        let mut children: HashMap<u32, Vec<Process>> = HashMap::new();
        for process in process_table::all() {
            children.entry(process.parent).or_default().push(process);
        }
        let mut processes = children.remove(&keeper).unwrap_or_default();
        let mut next = 0;
        while let Some(process) = processes.get(next) {
            processes.extend(children.remove(&process.pid).unwrap_or_default());
            next += 1;
        }
        processes.retain(|process| !process.is_zombie && !is_in_cgroup(process.pid, cgroup_key));
        Self { processes }
    }

    /// Every process: after the death of a keeper, its orphans have other parents.
    pub(crate) fn of_everything() -> Self {
        let mut processes = process_table::all();
        let own = std::process::id();
        processes.retain(|process| !process.is_zombie && process.pid != own);
        // A parent is older than its child, but for a wrap of pids within one tick.
        processes.sort_unstable_by_key(|process| (process.start_ticks, process.pid));
        Self { processes }
    }

    /// Shares the processes out. Every instance that may own one must take part.
    pub(crate) fn assign(&self, claims: &mut [Claim<'_>]) -> Owners {
        let mut owners = Owners::default();
        let mut owner_of: HashMap<u32, usize> = HashMap::new();
        let mut strays = HashSet::new();
        for process in &self.processes {
            let inherited = owner_of.get(&process.parent).copied();
            match inherited.or_else(|| find_owner(process, claims)) {
                Some(owner) => {
                    owner_of.insert(process.pid, owner);
                    owners
                        .members
                        .entry(claims[owner].run)
                        .or_default()
                        .push(*process);
                }
                None if strays.contains(&process.parent) || is_nobodys(process, claims) => {
                    strays.insert(process.pid);
                    owners.strays.push(*process);
                }
                None => {}
            }
        }
        for claim in claims {
            let members = owners
                .members
                .get(&claim.run)
                .map(Vec::as_slice)
                .unwrap_or_default();
            claim.scan.known = members.iter().map(|it| (it.pid, it.start_ticks)).collect();
        }
        owners
    }
}

fn find_owner(process: &Process, claims: &[Claim<'_>]) -> Option<usize> {
    let position = |test: &dyn Fn(&Scan) -> bool| claims.iter().position(|claim| test(claim.scan));
    if let Some(owner) =
        position(&|scan| scan.known.get(&process.pid) == Some(&process.start_ticks))
    {
        return Some(owner);
    }
    let tag = process_table::environment(process.pid, TAG_NAME);
    if let Some(owner) = tag.and_then(|tag| position(&|scan| scan.tag == tag)) {
        return Some(owner);
    }
    // The number of a session is not given out again while a process is in it.
    let in_session =
        position(&|scan| process.session == scan.leader && process.start_ticks >= scan.start_ticks);
    in_session.or_else(|| position(&|scan| process_table::writes_to(process.pid, &scan.pipes)))
}

/// No living instance is old enough to have started it.
fn is_nobodys(process: &Process, claims: &[Claim<'_>]) -> bool {
    !claims
        .iter()
        .any(|claim| claim.is_alive && claim.scan.start_ticks <= process.start_ticks)
}

fn is_in_cgroup(pid: u32, key: &str) -> bool {
    let membership = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    membership
        .lines()
        .any(|line| line.starts_with("0::") && line.contains(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, session: u32, start_ticks: u64) -> Process {
        Process {
            pid,
            parent,
            session,
            start_ticks,
            is_zombie: false,
        }
    }

    /// Pids above the kernel's limit (2^22), so that `/proc` has nothing to say about them.
    const BASE: u32 = 1 << 23;

    #[test]
    fn owners_are_found_by_parent_session_and_memory_and_strays_only_when_nobody_is_left() {
        let mut first = Scan {
            leader: BASE + 1,
            start_ticks: 100,
            ..Scan::default()
        };
        first.tag = "first".into();
        let mut second = Scan {
            leader: BASE + 2,
            start_ticks: 200,
            ..Scan::default()
        };
        second.tag = "second".into();
        second.known.insert(BASE + 20, 210);
        let sweep = Sweep {
            processes: vec![
                process(BASE + 2, 1, BASE + 2, 200),
                process(BASE + 10, 1, BASE + 1, 150),
                process(BASE + 11, BASE + 10, BASE + 11, 160),
                process(BASE + 20, 1, BASE + 20, 210),
                process(BASE + 30, 1, BASE + 30, 150),
                process(BASE + 31, BASE + 30, BASE + 31, 250),
                process(BASE + 40, 1, BASE + 40, 250),
            ],
        };
        let mut claims = [
            Claim {
                run: 1,
                scan: &mut first,
                is_alive: false,
            },
            Claim {
                run: 2,
                scan: &mut second,
                is_alive: true,
            },
        ];
        let owners = sweep.assign(&mut claims);
        let pids = |processes: &[Process]| {
            processes
                .iter()
                .map(|process| process.pid - BASE)
                .collect::<Vec<_>>()
        };
        assert_eq!(pids(&owners.members[&1]), [10, 11]);
        assert_eq!(pids(&owners.members[&2]), [2, 20]);
        // 30 is older than the only living instance, 31 is its child; 40 may be of the living one.
        assert_eq!(pids(&owners.strays), [30, 31]);
        assert_eq!(first.known.len(), 2);
    }
}
