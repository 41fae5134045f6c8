//! Removing what an engine still holds of ours.

use alicia_contract::{InstanceId, ServiceName};
use serde_json::{Value, json};

use crate::engine::{Ask, Engine, Error, escape};
use crate::settings::{LABEL_FLEET, LABEL_INSTANCE, LABEL_SERVICE, LABEL_SLOT};

/// Which containers of a fleet.
#[derive(Debug, Clone)]
pub enum Which<'a> {
    /// All of a slot.
    Slot(&'a ServiceName, u32),
    /// That of one run.
    Run(&'a InstanceId),
    /// All but those of these runs.
    AllBut(&'a [InstanceId]),
}

/// Kills and removes containers of a fleet; says how many.
///
/// # Errors
/// When the engine does not answer. What is gone already is no error.
pub async fn remove(engine: &Engine, fleet: &str, which: &Which<'_>) -> Result<usize, Error> {
    let mut labels = vec![format!("{LABEL_FLEET}={fleet}")];
    match which {
        Which::Slot(service, slot) => labels.extend([
            format!("{LABEL_SERVICE}={service}"),
            format!("{LABEL_SLOT}={slot}"),
        ]),
        Which::Run(instance) => labels.push(format!("{LABEL_INSTANCE}={instance}")),
        Which::AllBut(_) => {}
    }
    let filters = escape(&json!({ "label": labels }).to_string());
    let path = format!("/containers/json?all=true&filters={filters}");
    let found = engine.ask(Ask::get("list containers", path)).await?;
    let mut removed = 0;
    for container in found.as_array().into_iter().flatten() {
        if is_spared(container, which) {
            continue;
        }
        if let Some(id) = container["Id"].as_str() {
            remove_one(engine, id).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_spared(container: &Value, which: &Which<'_>) -> bool {
    let instance = container["Labels"][LABEL_INSTANCE].as_str();
    match which {
        Which::AllBut(known) => {
            instance.is_some_and(|found| known.iter().any(|known| known.as_str() == found))
        }
        Which::Slot(..) | Which::Run(_) => false,
    }
}

/// Kills a container and removes it with its unnamed volumes.
pub(crate) async fn remove_one(engine: &Engine, id: &str) -> Result<(), Error> {
    let path = format!("/containers/{}?force=true&v=true", escape(id));
    match engine.ask(Ask::delete("remove a container", path)).await {
        Err(Error::Refused {
            status: 404 | 409, ..
        })
        | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}
