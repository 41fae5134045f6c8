//! What the keeper says: everything at once when a connection is made, then what happens.

use std::collections::BTreeMap;
use std::path::PathBuf;

use alicia_contract::orchestrator::{Exit, InstanceState};
use alicia_contract::{Epoch, InstanceId, ServiceName};
use alicia_failpoint::failpoint;
use alicia_identity::Process;
use alicia_keeper::logs::{Filter, read_last};
use alicia_keeper::protocol;

use super::link::Linked;
use super::{Engine, Killed, container, convert, launch};
use crate::core::Core;
use crate::core::cause::{self, Said};
use crate::core::event::{Event, Memory, Remembered, SlotId};
use crate::history;
use crate::store;

/// A run that the keeper holds, as the shell needs it.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) run: u64,
    pub(super) pid: u32,
    pub(super) epoch: Epoch,
    pub(super) slot: Option<SlotId>,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) ports: BTreeMap<ServiceName, u16>,
    pub(super) started_unix_ms: u64,
}

impl Engine {
    /// A new connection: everything that the keeper holds is compared with what is known.
    pub(super) fn linked(&mut self, linked: Linked) {
        let started = linked.keeper_started_unix_ms;
        if let Some((memory, keeper)) = self.memory.take() {
            self.keeper_started = keeper;
            self.begin(memory, keeper == Some(started), &linked);
        }
        self.core.raise_epochs(linked.keeper_generation);
        // The first keeper of a house is no news.
        let before = self.keeper_started.replace(started);
        if before.is_some_and(|before| before != started) {
            history::note_keeper(&self.cx);
        }
        self.remember_keeper(started);
        self.client = Some(linked.client.clone());
        self.sockets.extend(linked.sockets);
        self.watched.clear();
        self.keeper.send_replace(Some(linked.client));
        self.events = Some(linked.events);
        self.held.clear();
        for info in &linked.instances {
            self.hold(info);
        }
        let known = self.held.keys().cloned().collect();
        container::remove_strays(&self.cx, self.core.fleet(), known);
        let unix = self.cx.clock.unix();
        let ours = linked
            .instances
            .iter()
            .filter_map(|info| convert::found(info, unix));
        self.tell(Event::KeeperSynced(ours.collect()));
        self.tidy_sockets();
    }

    /// The first connection: now it is known whether what is remembered is about this keeper. With
    /// another one, what was done or given up is tried again, as after a start of the machine.
    fn begin(&mut self, mut memory: Memory, same_keeper: bool, linked: &Linked) {
        if !same_keeper {
            // A provider's limit does not end with a restart of the machine.
            let passing = |slot: &&mut Remembered| slot.state != InstanceState::Parked;
            for slot in memory.slots.values_mut().filter(passing) {
                slot.state = InstanceState::Stopped;
            }
        }
        let is_there = |name: &str| linked.instances.iter().any(|info| info.instance == name);
        launch::sweep_tokens(&self.cx.paths, is_there);
        self.cx.identity.end_other_runs(is_there);
        self.revision_base += self.core.revision();
        self.core = Core::new(memory, self.cx.seed);
        let (fleet, selection) = self.desired.clone();
        if let Some(base) = self.base.take() {
            self.tell(Event::Desired(base, selection.clone()));
        }
        self.tell(Event::Desired(fleet, selection));
    }

    fn remember_keeper(&self, started_unix_ms: u64) {
        let store = self.cx.store.clone();
        self.cx.spawn("remember keeper", async move {
            if let Err(error) = store::write_keeper(&store, started_unix_ms).await {
                tracing::warn!(%error, "the keeper was not written down");
            }
        });
    }

    fn hold(&mut self, info: &protocol::InstanceInfo) {
        let Ok(instance) = InstanceId::new(info.instance.clone()) else {
            return;
        };
        let process = Process {
            pid: info.pid,
            cgroup: info.cgroup.clone(),
        };
        self.cx.identity.note_process(&instance, process);
        let labels = convert::Labels::of(info);
        let slot = labels.as_ref().map(|labels| SlotId {
            service: labels.service.clone(),
            slot: labels.slot,
        });
        let ports = labels
            .as_ref()
            .map(|labels| labels.ports.clone())
            .unwrap_or_default();
        if let Some(slot) = &slot {
            self.ports.adopt(slot, &ports);
        }
        let epoch = labels
            .as_ref()
            .map(|labels| labels.epoch)
            .unwrap_or_default();
        if let Some(slot) = &slot {
            let began_unix_us = info.started_unix_ms.saturating_mul(1_000);
            self.began.note(slot, (&instance, epoch), began_unix_us);
        }
        let held = Held {
            run: info.run,
            pid: info.pid,
            epoch,
            slot,
            cgroup: info.cgroup.clone(),
            ports,
            started_unix_ms: info.started_unix_ms,
        };
        self.held.insert(instance, held);
    }

    /// The keeper says something, or is gone.
    pub(super) fn hear(&mut self, event: Option<protocol::Event>) {
        use protocol::Event as Heard;
        match event {
            None => self.keeper_gone(),
            Some(Heard::Lagged { missed }) => {
                tracing::warn!(
                    missed,
                    "messages of the keeper were missed; connecting anew"
                );
                self.renew.notify_one();
                self.keeper_gone();
            }
            Some(Heard::Started(info)) => self.heard_started(&info),
            Some(Heard::Exited {
                instance,
                exit,
                empty,
                ..
            }) => self.heard_end(instance, &exit, empty, 0),
            Some(Heard::Stopped {
                instance,
                exit,
                killed,
                ..
            }) => self.heard_end(instance, &exit, true, killed),
            Some(Heard::Emptied {
                instance, killed, ..
            }) => self.heard_emptied(instance, killed),
            Some(Heard::ListenerReady { name }) => self.heard_connection(&name),
            Some(Heard::Log(trouble)) if trouble.flood => {
                tracing::warn!(
                    ?trouble,
                    "an instance writes more lines than it may; the rest is dropped"
                );
            }
            Some(Heard::Log(trouble)) => {
                tracing::warn!(?trouble, "the output of an instance cannot be written");
            }
            Some(Heard::Notified {
                instance, fields, ..
            }) => self.heard_notified(instance, fields),
            Some(Heard::ShuttingDown | Heard::Unknown(_)) => {}
        }
    }

    fn keeper_gone(&mut self) {
        self.client = None;
        self.events = None;
        self.keeper.send_replace(None);
        self.tell(Event::KeeperLost);
    }

    fn heard_started(&mut self, info: &protocol::InstanceInfo) {
        let Ok(instance) = InstanceId::new(info.instance.clone()) else {
            return;
        };
        self.hold(info);
        if let Some(asked) = self.spawned_at.remove(&instance) {
            self.counts.spawned(self.cx.clock.now() - asked);
        }
        self.tell(Event::Spawned(instance, convert::process(info)));
    }

    fn heard_end(&mut self, instance: String, exit: &protocol::Exit, empty: bool, killed: u32) {
        let Ok(instance) = InstanceId::new(instance) else {
            return;
        };
        if empty {
            self.note_killed(&instance, killed);
        }
        let was_killed = matches!(exit.status, protocol::ExitStatus::Signal { .. });
        if let Some(container) = self.container_of(&instance).filter(|_| was_killed) {
            container::remove_run(&self.cx, &container, &instance);
        }
        failpoint("orchestrator/exited");
        let exit = convert::exit(exit);
        let output = self.output_of(&instance, &exit);
        self.tell(Event::Exited {
            instance,
            exit,
            empty,
            output,
        });
    }

    /// What the last lines of a run say of its end, where nothing better does. The keeper has written them
    /// before it told of the end; they are read here and now, because what follows depends on them.
    fn output_of(&self, instance: &InstanceId, exit: &Exit) -> Option<Said> {
        let held = self.held.get(instance)?;
        let slot = held.slot.as_ref()?;
        let spec = self.core.spec_of(slot)?;
        if !cause::wants_output(&spec, exit) {
            return None;
        }
        // What the run before it said in the same file is no cause of this end.
        let of_this_run = Filter {
            since_unix_us: Some(held.started_unix_ms.saturating_mul(1_000)),
            ..Filter::default()
        };
        let path = launch::log_path(&self.cx.paths, &slot.service, slot.slot);
        let lines = read_last(&path, cause::output::LINES_MAX, &of_this_run).unwrap_or_default();
        let lines: Vec<String> = lines.into_iter().map(|line| line.text).collect();
        cause::output::read(&lines, exit.at)
    }

    fn heard_notified(&mut self, instance: String, fields: BTreeMap<String, String>) {
        if let Ok(instance) = InstanceId::new(instance) {
            self.tell(Event::Notified(instance, fields));
        }
    }

    fn heard_emptied(&mut self, instance: String, killed: u32) {
        if let Ok(instance) = InstanceId::new(instance) {
            self.note_killed(&instance, killed);
            self.tell(Event::Emptied { instance, killed });
        }
    }

    fn note_killed(&mut self, instance: &InstanceId, processes: u32) {
        self.counts.killed(processes);
        let slot = self.held.get(instance).and_then(|held| held.slot.as_ref());
        if processes > 0 && self.closing.is_some() {
            let instance = slot.map_or_else(|| instance.to_string(), ToString::to_string);
            self.killed.push(Killed {
                instance,
                processes,
            });
        }
    }
}
