//! Waiting until every service is ready or has failed.

use std::process::ExitCode;
use std::time::Duration;

use alicia_contract::orchestrator::{FleetAnswer, InstanceState, ProcessRow};
use serde_json::{Value, json};

use super::super::act::which;
use crate::api::ApiClient;
use crate::cli::{Global, Up};
use crate::failure::{EXIT_FAILED, Outcome};
use crate::show;

const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// `up` where a host runs already: it takes the file over and starts what is asked for.
pub(super) async fn join(global: &Global, up: &Up, directory: Option<&str>) -> Outcome {
    let api = ApiClient::find(global)?;
    if !global.json {
        println!(
            "a fleet runs already at {}; it reads its file again{}",
            api.base(),
            directory.map_or_else(String::new, |directory| format!(", in {directory}"))
        );
    }
    let _: Value = api.post("/api/host/reload", &json!({})).await?;
    let path = format!("/api/orchestrator/start?{}", which(&up.services));
    let _: FleetAnswer = api.post(&path, &json!({})).await?;
    wait(&api, global, up).await
}

/// Waits, shows the outcome, and gives the exit code: 0 when nothing failed.
pub(super) async fn wait(api: &ApiClient, global: &Global, up: &Up) -> Outcome {
    let settled = tokio::time::timeout(up.wait.duration(), settled(api)).await;
    let rows = match settled {
        Ok(rows) => rows?,
        Err(_) => {
            eprintln!(
                "not settled after {}; these are still on their way:",
                up.wait
            );
            instances(api).await?
        }
    };
    if global.json {
        show::json(&rows)?;
    } else {
        show::processes(&rows, show::now()).print();
    }
    let all_well = rows
        .iter()
        .all(|row| is_settled(row) && row.state != InstanceState::Failed);
    Ok(if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

async fn settled(api: &ApiClient) -> Outcome<Vec<ProcessRow>> {
    loop {
        let rows = instances(api).await?;
        if rows.iter().all(is_settled) {
            return Ok(rows);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn instances(api: &ApiClient) -> Outcome<Vec<ProcessRow>> {
    api.get("/api/orchestrator/instances").await
}

fn is_settled(row: &ProcessRow) -> bool {
    matches!(
        row.state,
        InstanceState::Running
            | InstanceState::Completed
            | InstanceState::Stopped
            | InstanceState::Failed
            | InstanceState::Parked
            | InstanceState::Paused
    )
}
