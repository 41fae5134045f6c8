//! Services in containers: the stand-in that the keeper starts for one, and what is done about a container whose
//! stand-in is gone.

use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use alicia_container::{Engine as ContainerEngine, Mark, Settings, Which, fleet_of, remove};
use alicia_contract::InstanceId;
use alicia_contract::fleet::{Command, ContainerSpec, Fleet};
use alicia_file::fleet::words;
use alicia_keeper::protocol::{Limits, StartSpec};
use alicia_module::Context;

use super::launch::Launch;
use crate::core::event::SpawnFault;

/// How much longer than the container a stand-in may take to end: it has the engine kill the container, reads
/// the rest of the output and removes it.
pub(super) const STAND_IN_GRACE: Duration = Duration::from_secs(10);

/// The words after the program that make it a stand-in.
const RUN: [&str; 2] = ["container", "run"];

/// The variables that name a file or a directory which the container must see.
const TOKEN_FILE: &str = "ALICIA_TOKEN_FILE";
const STATE_DIRECTORY: &str = "ALICIA_STATE_DIR";

/// Turns a start into that of a stand-in. Limits are those of the container, not of the stand-in.
pub(super) fn stand_in(
    start: &mut StartSpec,
    launch: &Launch,
    container: &ContainerSpec,
) -> Result<(), SpawnFault> {
    let spawn = &launch.spawn;
    let around = &launch.surroundings;
    let variable = |name: &str| start.environment.get(name).cloned();
    let token_file = variable(TOKEN_FILE);
    if let (Some(file), Some(user)) = (&token_file, &container.user) {
        give(Path::new(file), user)?;
    }
    let limits = &spawn.spec.limits;
    let settings = Settings {
        mark: Mark {
            fleet: fleet_of(around.paths.data()),
            service: spawn.slot.service.clone(),
            slot: spawn.slot.slot,
            instance: spawn.instance.clone(),
            epoch: spawn.epoch,
        },
        container: container.clone(),
        entrypoint: split(container.entrypoint.as_ref())?,
        command: split(Some(&spawn.spec.command))?,
        ports: launch.ports.clone(),
        base: around.paths.base().display().to_string(),
        files: token_file.into_iter().collect(),
        directories: variable(STATE_DIRECTORY).into_iter().collect(),
        stop_signal: signal_name(spawn.spec.stop.signal),
        stop_grace_ms: start.stop_grace_ms,
        memory_bytes_max: limits.memory.map(|size| size.bytes()),
        cpu_cores_max: limits.cpu,
        processes_max: limits.processes,
        open_files_max: limits.open_files,
        no_new_privileges: spawn
            .spec
            .sandbox
            .as_ref()
            .is_some_and(|sandbox| sandbox.no_new_privileges),
    };
    let settings = serde_json::to_string(&settings)
        .map_err(|error| SpawnFault::Lasting(format!("its settings cannot be written: {error}")))?;
    start.program = around.program.display().to_string();
    start.arguments = RUN.map(str::to_owned).into();
    start.arguments.push(settings);
    start.directory = around.paths.base().to_owned();
    start.limits = Limits::default();
    start.resource_limits = Vec::new();
    start.sandbox = None;
    start.notify = true;
    let extra = u64::try_from(STAND_IN_GRACE.as_millis()).unwrap_or(u64::MAX);
    start.stop_grace_ms = start.stop_grace_ms.saturating_add(extra);
    Ok(())
}

/// Removes the container of a run whose stand-in could not do it: it was killed.
pub(super) fn remove_run(cx: &Context, container: &ContainerSpec, instance: &InstanceId) {
    let engine = container.engine.clone();
    let (fleet, instance) = (fleet_of(cx.paths.data()), instance.clone());
    cx.spawn("remove container", async move {
        let removed = async {
            let engine = find(engine.as_deref())?;
            remove(&engine, &fleet, &Which::Run(&instance)).await
        };
        if let Err(error) = removed.await {
            // The next start of the slot tries again before it starts anything.
            tracing::warn!(%instance, %error, "a container was not removed");
        }
    });
}

/// Removes the containers of runs that are not there any more: those of a keeper that died.
pub(super) fn remove_strays(cx: &Context, fleet: &Fleet, known: Vec<InstanceId>) {
    let mut engines: Vec<Option<String>> = fleet
        .services
        .values()
        .filter_map(|spec| Some(spec.container.as_ref()?.engine.clone()))
        .collect();
    engines.sort();
    engines.dedup();
    let name = fleet_of(cx.paths.data());
    if engines.is_empty() {
        return;
    }
    cx.spawn("remove stray containers", async move {
        for engine in engines {
            let removed = async {
                let engine = find(engine.as_deref())?;
                remove(&engine, &name, &Which::AllBut(&known)).await
            };
            match removed.await {
                Ok(0) => {}
                Ok(removed) => {
                    tracing::info!(removed, "containers without a supervisor were removed")
                }
                Err(error) => {
                    tracing::debug!(%error, "the containers of an engine cannot be listed")
                }
            }
        }
    });
}

/// The engine that the file names, else one at a usual place.
fn find(address: Option<&str>) -> Result<ContainerEngine, alicia_container::Error> {
    ContainerEngine::find(address, None)
}

fn split(command: Option<&Command>) -> Result<Vec<String>, SpawnFault> {
    match command {
        Some(command) if !command.is_empty() => words(command)
            .map_err(|_| SpawnFault::Lasting("a quote in a command is not closed".to_owned())),
        _ => Ok(Vec::new()),
    }
}

/// A user of the image is no user of this machine, unless it is a number.
fn give(file: &Path, user: &str) -> Result<(), SpawnFault> {
    let Ok(id) = user.split(':').next().unwrap_or(user).parse::<u32>() else {
        return Ok(());
    };
    chown(file, Some(id), None).map_err(|error| {
        SpawnFault::Lasting(format!(
            "its token cannot be given to the user {id} of `container.user`: {error}; run Alicia as root, or remove `user`"
        ))
    })
}

fn signal_name(signal: alicia_contract::fleet::StopSignal) -> String {
    alicia_keeper::signals::name(signal.number())
}
