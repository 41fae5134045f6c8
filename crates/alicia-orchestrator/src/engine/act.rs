//! Does what the core says. Nothing here waits: each request to the keeper goes on in a task of its own.

use std::sync::Arc;
use std::time::Duration;

use alicia_container::Inside;
use alicia_contract::InstanceId;
use alicia_contract::fleet::{ContainerSpec, Probe, ServiceSpec};
use alicia_contract::orchestrator::{SERVICE_COMMAND, ServiceCommand};
use alicia_file::fleet::{probe_port, words};
use alicia_file::machine::directory_of;
use alicia_keeper::Error as KeeperError;
use alicia_keeper::protocol::{FailureCode, StopSpec, Target};

use super::container;
use super::launch::{self, Launch, Outcome};
use super::probes::{self, Probing};
use super::{Engine, Input};
use crate::core::digest::Digest;
use crate::core::event::{Action, Role, SlotId, Spawn, SpawnFault};

/// How long an answer to the request to save is awaited; the answer itself decides nothing.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(30);

/// Turns neighbouring process ids into seeds that are far apart (2^64 divided by the golden ratio).
const PHASE_SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Engine {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Spawn(spawn) => self.spawn(spawn),
            Action::Stop {
                instance,
                signal,
                grace,
            } => self.stop(instance, signal, grace),
            Action::Forget(instance) => self.forget(&instance),
            Action::Watch {
                instance,
                slot,
                role,
                probe,
                age,
            } => self.watch(&instance, &slot, role, &probe, age),
            Action::Unwatch(instance) => {
                if let Some(probes) = self.probes.remove(&instance) {
                    probes.cancel();
                }
            }
            Action::Signal { instance, signal } => self.signal(instance, signal),
            Action::Checkpoint(slot, instance) => self.ask_to_save(&slot, &instance),
            Action::Account(service, account) => self.keep_account(service, *account),
            Action::Record(mut record) => {
                let transition = &record.transition;
                let slot = SlotId {
                    service: transition.service.clone(),
                    slot: transition.slot,
                };
                record.began_unix_us = self.began.of(&slot, transition.instance.as_ref());
                self.counts.transition(&record.transition);
                self.records.send(*record);
            }
            Action::Updated {
                service,
                end,
                failed,
            } => self.updated(&service, end, failed),
            Action::Answer { request, answer } => {
                if let Some(reply) = self.answers.remove(&request) {
                    // Whoever asked may have gone away.
                    drop(reply.send(answer));
                }
            }
        }
    }

    fn spawn(&mut self, spawn: Box<Spawn>) {
        let instance = spawn.instance.clone();
        let inputs = self.inputs_in.clone();
        self.spawned_at
            .insert(instance.clone(), self.cx.clock.now());
        let ports = self.ports.assign(&spawn.slot, &spawn.spec);
        let (ports, client) = match (ports, self.client.clone()) {
            (Ok(ports), Some(client)) => (ports, client),
            (Err(reason), _) => {
                let fault = Input::SpawnFailed(instance, SpawnFault::Passing(reason));
                self.cx.spawn("refuse a start", async move {
                    // A queue that is closed means that the engine has ended.
                    drop(inputs.send(fault).await);
                });
                return;
            }
            // The core starts nothing without a keeper; the next connection settles what is open.
            (Ok(_), None) => return,
        };
        let sockets = super::sockets::of(&spawn.slot.service, &spawn.spec);
        let launch = Launch {
            spawn,
            ports,
            sockets,
            surroundings: self.surroundings.clone(),
        };
        let renew = self.renew.clone();
        self.cx.spawn("start", async move {
            match launch.run(client).await {
                Outcome::Runs => {}
                Outcome::Failed(fault) => {
                    drop(inputs.send(Input::SpawnFailed(instance, fault)).await);
                }
                Outcome::Unknown => renew.notify_one(),
            }
        });
    }

    fn stop(&mut self, instance: InstanceId, signal: i32, grace: Duration) {
        let Some(client) = self.client.clone() else {
            return;
        };
        let inputs = self.inputs_in.clone();
        let grace = match self.container_of(&instance) {
            Some(_) => grace.saturating_add(container::STAND_IN_GRACE),
            None => grace,
        };
        let spec = StopSpec {
            instance: instance.to_string(),
            signal: Some(signal),
            grace_ms: Some(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
            target: Target::Tree,
        };
        self.cx.spawn("stop", async move {
            match client.stop(spec).await {
                // The keeper's own event has said so already.
                Ok(_) => {}
                Err(KeeperError::Refused(failure))
                    if failure.code == FailureCode::InstanceUnknown =>
                {
                    drop(inputs.send(Input::Unknown(instance)).await);
                }
                // The core asks again when it takes too long.
                Err(error) => tracing::warn!(%instance, %error, "a stop was refused"),
            }
        });
    }

    /// Sends a signal to the whole tree of a run.
    fn signal(&self, instance: InstanceId, signal: i32) {
        let Some(client) = self.client.clone() else {
            return;
        };
        self.cx.spawn("signal", async move {
            if let Err(error) = client.signal(instance.as_str(), signal, Target::Tree).await {
                tracing::warn!(%instance, signal, %error, "a signal was not sent");
            }
        });
    }

    /// Asks a service on its command topic to save its work. It may be deaf: the core waits only so long.
    fn ask_to_save(&self, slot: &SlotId, instance: &InstanceId) {
        let (cx, service) = (self.cx.clone(), slot.service.clone());
        let command = ServiceCommand {
            command: "checkpoint".to_owned(),
            arguments: serde_json::json!({ "instance": instance, "slot": slot.slot }),
        };
        self.cx.spawn("ask to save", async move {
            let topic = &[service.as_str()];
            let asked = cx
                .bus
                .call(SERVICE_COMMAND, topic, &command, CHECKPOINT_PATIENCE);
            if let Err(error) = asked.await {
                tracing::info!(%service, %error, "nobody answered the request to save");
            }
        });
    }

    fn forget(&mut self, instance: &InstanceId) {
        launch::retire(&self.cx.identity, &self.cx.paths, instance);
        self.spawned_at.remove(instance);
        let (Some(held), Some(client)) = (self.held.remove(instance), self.client.clone()) else {
            return;
        };
        let instance = instance.to_string();
        self.cx.spawn("forget", async move {
            if let Err(error) = client.forget(&instance, held.run).await {
                tracing::debug!(instance, %error, "a record of the keeper was not forgotten");
            }
        });
    }

    fn watch(
        &mut self,
        instance: &InstanceId,
        slot: &SlotId,
        role: Role,
        probe: &Probe,
        age: Duration,
    ) {
        let Some(held) = self.held.get(instance) else {
            return;
        };
        let Some(spec) = self.core.spec_of(slot) else {
            return;
        };
        let spec = &*spec;
        let port = probe_port(spec).and_then(|(name, _)| held.ports.get(name).copied());
        let mut probe = probe.clone();
        if let (Some(container), Some(exec)) = (&spec.container, &mut probe.exec) {
            let inside = Inside {
                program: &self.cx.program,
                data: self.cx.paths.data(),
                container,
                instance,
            };
            // What cannot be split is said by the check of the file.
            let words = words(&exec.command).unwrap_or_default();
            exec.command = inside.command(words);
        }
        let environment = match probe.kind() {
            Some(kind) if kind.needs_environment() => self.environment_of(instance, slot, spec),
            _ => Vec::new(),
        };
        let probing = Probing {
            instance: instance.clone(),
            role,
            probe,
            age,
            around: probes::Around {
                port,
                pid: held.pid,
                directory: directory_of(spec, self.cx.paths.base()),
                environment,
                log: launch::log_path(&self.cx.paths, &slot.service, slot.slot),
                started_unix_us: held.started_unix_ms.saturating_mul(1_000),
            },
            inputs: self.inputs_in.clone(),
            counts: self.counts.clone(),
            phase_seed: u64::from(held.pid).wrapping_mul(PHASE_SPREAD),
        };
        let cancel = self.probes.entry(instance.clone()).or_default().clone();
        self.cx.spawn("probe", async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = probing.run() => {}
            }
        });
    }

    /// The container that a run stands for.
    pub(super) fn container_of(&self, instance: &InstanceId) -> Option<ContainerSpec> {
        let slot = self.held.get(instance)?.slot.as_ref()?;
        // Its own settings: the file may have others by now, or no such service.
        self.core.spec_of(slot)?.container.clone()
    }

    /// The environment of a run, for a program that looks at it.
    fn environment_of(
        &self,
        instance: &InstanceId,
        slot: &SlotId,
        spec: &ServiceSpec,
    ) -> Vec<(String, String)> {
        let held = self.held.get(instance);
        let launch = Launch {
            spawn: Box::new(Spawn {
                slot: slot.clone(),
                instance: instance.clone(),
                epoch: held.map(|held| held.epoch).unwrap_or_default(),
                digest: Digest::default(),
                spec: Arc::new(spec.clone()),
                resume: false,
            }),
            ports: held.map(|held| held.ports.clone()).unwrap_or_default(),
            sockets: Vec::new(),
            surroundings: self.surroundings.clone(),
        };
        launch.environment_of_probe().into_iter().collect()
    }
}
