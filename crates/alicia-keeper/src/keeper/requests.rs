//! What each request does.

use super::Keeper;
use super::chores::Chore;
use super::instance::Asker;
use crate::process_table;
use crate::protocol::{
    Containment, Failure, FailureCode, InstanceState, PROTOCOL, Reply, Request, Stats,
};

impl Keeper {
    /// Every request is answered once: here, or later by whoever took the asker.
    pub(super) fn request(&mut self, asker: Asker, request: Request) {
        let result = match request {
            Request::List => Ok(Some(self.list())),
            Request::Start(spec) => self.start(asker, *spec).map(|()| None),
            Request::Signal {
                instance,
                signal,
                target,
            } => self
                .signal(&instance, signal, target)
                .map(|()| Some(Reply::Done)),
            Request::Stop(spec) => self.stop(asker, &spec).map(|()| None),
            Request::Forget { instance, run } => {
                self.forget(&instance, run).map(|()| Some(Reply::Done))
            }
            Request::Listen { name, address } => self
                .listeners
                .listen(&name, &address)
                .map(|info| Some(Reply::Listening(info))),
            Request::Unlisten { name } => self.unlisten(&name).map(|()| Some(Reply::Done)),
            Request::WatchListener { name } => {
                self.watch_listener(&name).map(|()| Some(Reply::Done))
            }
            Request::Shutdown { grace_ms } => Ok(Some(self.shut_down(grace_ms))),
            Request::Stats => Ok(Some(Reply::Stats(self.stats()))),
            Request::Upgrade { program, arguments } => {
                self.upgrade(asker, &program, arguments).map(|()| None)
            }
        };
        match result {
            Ok(None) => {}
            Ok(Some(reply)) => self.clients.answer(asker, Ok(reply)),
            Err(failure) => self.clients.answer(asker, Err(failure)),
        }
    }

    fn list(&self) -> Reply {
        let instances = self
            .instances
            .values()
            .filter(|instance| !instance.is_forgotten);
        Reply::Listed {
            instances: instances.map(|instance| instance.info.clone()).collect(),
            listeners: self.listeners.infos(),
        }
    }

    fn forget(&mut self, name: &str, run: u64) -> Result<(), Failure> {
        let instance = self
            .instances
            .get_mut(&run)
            .filter(|instance| instance.info.instance == name && !instance.is_forgotten);
        let Some(instance) = instance else {
            let message = format!("there is no run {run} of an instance \"{name}\"");
            return Err(Failure::new(FailureCode::InstanceUnknown, message));
        };
        if instance.is_alive() {
            let message = format!("instance \"{name}\" still runs: stop it first");
            return Err(Failure::new(FailureCode::InvalidRequest, message));
        }
        self.let_go(run);
        Ok(())
    }

    /// The record goes now, or when the tree is empty.
    pub(super) fn let_go(&mut self, run: u64) {
        let Some(instance) = self.instances.get_mut(&run) else {
            return;
        };
        instance.is_forgotten = true;
        if self.names.get(&instance.info.instance) == Some(&run) {
            self.names.remove(&instance.info.instance);
        }
        if instance.info.empty {
            self.instances.remove(&run);
            self.chores.push(Chore::RemoveRecord(run));
        }
    }

    fn stats(&self) -> Stats {
        let is_running = |state| state != InstanceState::Exited;
        let running = self
            .instances
            .values()
            .filter(|it| is_running(it.info.state))
            .count();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Stats {
            pid: std::process::id(),
            protocol: PROTOCOL,
            rss_bytes: process_table::own_rss_bytes(),
            started_unix_ms: self.started_unix_ms,
            generation: self.place.generation(),
            running: count(running),
            instances: count(self.instances.len()),
            clients: count(self.clients.connections.len()),
            containment: match self.cgroups {
                Ok(_) => Containment::Cgroup,
                Err(_) => Containment::Scan,
            },
            containment_reason: self.cgroups.as_ref().err().cloned(),
            controllers: match &self.cgroups {
                Ok(cgroups) => cgroups.controllers().to_vec(),
                Err(_) => Vec::new(),
            },
            controllers_1: self.cgroup1.controllers(),
            lines_dropped: self.logs.lines_dropped(),
            notifications_dropped: self.notifications_dropped,
            nice: self.standing.nice,
        }
    }
}
