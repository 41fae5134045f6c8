//! `alicia check`: faults of the file, without a host.

use std::process::ExitCode;

use alicia_file::Fault;
use alicia_file::machine::{self, Here};
use alicia_host::Loaded;
use serde_json::json;

use crate::cli::{Check, Global};
use crate::failure::{Failure, Outcome, plural};
use crate::place::{self, FleetFile};

pub(super) fn run(global: &Global, check: &Check) -> Outcome {
    let loaded = place::load_file(global)?;
    let faults = if check.here {
        lacking(global, &loaded)
    } else {
        Vec::new()
    };
    if !faults.is_empty() {
        return Err(Failure::Faults {
            faults,
            json: global.json,
        });
    }
    if global.json {
        println!("{}", json!([]));
        return Ok(ExitCode::SUCCESS);
    }
    let name = match FleetFile::find(global) {
        FleetFile::Path(path) => path.display().to_string(),
        FleetFile::Home => "the built-in example fleet".to_owned(),
    };
    let services = loaded.fleet.services.len();
    println!("{name} is good: {services} {}", plural(services, "service"));
    Ok(ExitCode::SUCCESS)
}

/// What this machine lacks for the fleet to run. Ports are only looked at where no host runs: the services of one
/// that does listen on them.
pub(super) fn lacking(global: &Global, loaded: &Loaded) -> Vec<Fault> {
    let here = Here::new(search_path());
    let document = loaded.document.as_ref();
    let mut faults = machine::check(&loaded.fleet, document, &loaded.base, &here);
    let runs = place::paths(global).is_ok_and(|paths| place::running_host(&paths).is_some());
    if !runs {
        faults.extend(machine::check_ports(&loaded.fleet, document, &here));
    }
    alicia_file::in_order(faults)
}

/// The `PATH` of services: that of the host, with the directory of this program at its end.
fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let program = place::program().unwrap_or_default();
    match program.parent() {
        Some(directory) => format!("{path}:{}", directory.display()),
        None => path,
    }
}
