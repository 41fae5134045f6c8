//! `alicia ps`: the instances.

use std::process::ExitCode;

use alicia_contract::orchestrator::{FleetStatus, ProcessRow};

use crate::api::ApiClient;
use crate::cli::Global;
use crate::failure::Outcome;
use crate::show;

pub(super) async fn run(global: &Global) -> Outcome {
    let api = ApiClient::find(global)?;
    let rows: Vec<ProcessRow> = api.get("/api/orchestrator/instances").await?;
    if global.json {
        show::json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    show::processes(&rows, show::now()).print();
    let fleet: FleetStatus = api.get("/api/orchestrator/status").await?;
    let idle: Vec<&str> = fleet
        .services
        .iter()
        .filter(|service| service.instances.is_empty())
        .map(|service| service.service.as_str())
        .collect();
    if !idle.is_empty() {
        println!(
            "\nwithout instances now: {}; `alicia explain {}` says why",
            idle.join(", "),
            idle[0]
        );
    }
    Ok(ExitCode::SUCCESS)
}
