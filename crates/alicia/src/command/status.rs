//! `alicia status`: whether it works, and what is wrong.

use std::process::ExitCode;

use alicia_contract::orchestrator::ProcessRow;
use alicia_contract::platform::{HostHealth, PartHealth};
use serde_json::json;

use crate::api::ApiClient;
use crate::cli::Global;
use crate::command::alerts;
use crate::failure::{EXIT_FAILED, Outcome};
use crate::show;

pub(super) async fn run(global: &Global) -> Outcome {
    let api = ApiClient::find(global)?;
    let host: HostHealth = api.get_any("/health").await?;
    let rows: Vec<ProcessRow> = api
        .get("/api/orchestrator/instances")
        .await
        .unwrap_or_default();
    let firing = alerts::firing(&api).await.unwrap_or_default();
    let is_well = host.status == "ok" && firing.is_empty();
    if global.json {
        show::json(&json!({ "host": host, "instances": rows, "alerts": firing }))?;
    } else {
        println!(
            "{} at {}, version {}, up {}",
            host.status,
            api.base(),
            host.version,
            show::span(host.uptime_s)
        );
        for module in &host.modules {
            let (mark, why) = match &module.health {
                PartHealth::Ok => ("ok", ""),
                PartHealth::Degraded(why) => ("degraded", why.as_str()),
                PartHealth::Failed(why) => ("failed", why.as_str()),
            };
            println!("  {:<13} {mark:<9} {why}", module.module);
        }
        println!();
        show::processes(&rows, show::now()).print();
        if !firing.is_empty() {
            println!();
            alerts::print(&firing);
        }
    }
    Ok(if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}
