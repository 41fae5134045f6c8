//! After the death of a keeper: its processes are no longer anybody's children, their pipes are broken, and
//! their exits would go unnoticed. They are ended in good order, and the host starts them anew.

use std::collections::HashMap;

use rustix::event::epoll;

use super::instance::Instance;
use super::limits::Watched;
use super::record::Record;
use super::stop::open;
use super::token::Token;
use super::{Keeper, note};
use crate::containment::{Cgroup, Container, Scan, TAG_NAME};
use crate::process_table::{self, Process};
use crate::protocol::{InstanceInfo, InstanceState, Target};

/// A survivor cannot be supervised; its successor waits for its end.
const GRACE_MS_MAX: u64 = 3_000;

impl Keeper {
    /// Takes over what records, cgroups and tags tell of an earlier keeper of this directory.
    pub(super) fn recover(&mut self) {
        let mut cgroups: HashMap<_, _> = match &self.cgroups {
            Ok(root) => root
                .leftovers()
                .into_iter()
                .map(|it| (it.path().to_owned(), it))
                .collect(),
            Err(_) => HashMap::new(),
        };
        self.cgroup1.sweep();
        let tagged = self.tagged_processes();
        let mut known_tags = Vec::new();
        for record in self.read_records() {
            let cgroup = record.info.cgroup.as_ref().and_then(|path| {
                cgroups
                    .remove(path)
                    .or_else(|| Cgroup::open(path.clone()).ok())
            });
            known_tags.push(format!("{}.{}", self.key, record.info.run));
            self.adopt(record, cgroup);
        }
        // A child that was made in the very moment in which its keeper died has no record yet.
        for cgroup in cgroups.into_values() {
            if let Err(error) = cgroup.kill() {
                note(&format!("cannot kill {}: {error}", cgroup.path().display()));
            }
            self.chores
                .push(super::chores::Chore::RemoveCgroup(cgroup.path().to_owned()));
        }
        for (process, _) in tagged.iter().filter(|(_, tag)| !known_tags.contains(tag)) {
            super::scan::send(process, libc::SIGKILL);
        }
    }

    /// Processes that carry a tag of this directory.
    fn tagged_processes(&self) -> Vec<(Process, String)> {
        let own = std::process::id();
        let prefix = format!("{}.", self.key);
        let processes = process_table::all()
            .into_iter()
            .filter(|it| it.pid != own && !it.is_zombie);
        let tagged = processes.filter_map(|process| {
            let tag = process_table::environment(process.pid, TAG_NAME)?;
            tag.starts_with(&prefix).then_some((process, tag))
        });
        tagged.collect()
    }

    fn adopt(&mut self, record: Record, cgroup: Option<Cgroup>) {
        let run = record.info.run;
        let is_this_boot = record.boot == self.boot;
        let leader = process_table::process(record.info.pid).filter(|process| {
            is_this_boot && !process.is_zombie && process.start_ticks == record.info.start_ticks
        });
        let leader = leader
            .and_then(|process| open(process.pid))
            .map(|(_, pidfd)| pidfd);
        let mut info = InstanceInfo {
            not_enforced: Vec::new(),
            ..record.info
        };
        // Seen again by this keeper, whatever the record says.
        info.empty = false;
        if info.state != InstanceState::Exited {
            info.state = InstanceState::Stopping;
        }
        let container = match cgroup {
            Some(cgroup) => Container::Cgroup(cgroup),
            None => Container::Scan(Scan {
                tag: format!("{}.{run}", self.key),
                leader: info.pid,
                start_ticks: if is_this_boot {
                    info.start_ticks
                } else {
                    u64::MAX
                },
                pipes: Vec::new(),
                known: if is_this_boot {
                    record.known
                } else {
                    HashMap::new()
                },
            }),
        };
        info.containment = container.kind();
        let is_alive = leader.is_some();
        if let Some(pidfd) = &leader {
            let flags = epoll::EventFlags::IN;
            if let Err(error) = epoll::add(&self.poll, pidfd, Token::Survivor(run).data(), flags) {
                note(&format!("{}: cannot watch its end: {error}", info.instance));
            }
        }
        note(&format!(
            "{}: taken over from an earlier keeper, to be ended",
            info.instance
        ));
        self.names.insert(info.instance.clone(), run);
        self.last_run = self.last_run.max(run);
        let instance = Instance {
            stop_signal: record.stop_signal,
            stop_grace_ms: record.stop_grace_ms,
            pidfd: leader,
            container: Some(container),
            pipes: [None, None],
            log: None,
            starting: None,
            stopping: None,
            notify: None,
            listeners: Vec::new(),
            watched: Watched {
                // They are removed when it is empty, if they are there.
                has_cgroup1: true,
                ..Watched::default()
            },
            killed: Default::default(),
            looks: 0,
            settle_at_ms: None,
            is_forgotten: false,
            is_stillborn: false,
            is_survivor: true,
            info,
        };
        self.watch_instance(run, &instance);
        let (signal, grace_ms) = (
            instance.stop_signal,
            instance.stop_grace_ms.min(GRACE_MS_MAX),
        );
        let had_exited = instance.info.exit.is_some();
        self.instances.insert(run, instance);
        self.ending.insert(run);
        if !is_alive && !had_exited {
            self.survivor_ended(run);
        }
        self.begin_stop(run, (signal, Target::Tree), grace_ms, None);
    }
}
