//! `alicia ps`: the instances.

use std::process::ExitCode;

use alicia_contract::orchestrator::ProcessRow;

use crate::api::ApiClient;
use crate::cli::Global;
use crate::failure::Outcome;
use crate::show;

pub(super) async fn run(global: &Global) -> Outcome {
    let rows: Vec<ProcessRow> = ApiClient::find(global)?
        .get("/api/orchestrator/instances")
        .await?;
    if global.json {
        show::json(&rows)?;
    } else {
        show::processes(&rows, show::now()).print();
    }
    Ok(ExitCode::SUCCESS)
}
