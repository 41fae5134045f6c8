//! `alicia status` and `alicia alerts`: whether it works, and what is wrong.

use std::process::ExitCode;

use alicia_contract::health::{Alert, AlertState};
use alicia_contract::orchestrator::ProcessRow;
use alicia_contract::platform::{HostHealth, PartHealth};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::ApiClient;
use crate::cli::{Alerts, Global};
use crate::failure::{EXIT_FAILED, Outcome};
use crate::show::{self, Table};

/// A page of alerts.
#[derive(Debug, Serialize, Deserialize)]
struct AlertPage {
    alerts: Vec<Alert>,
}

pub(super) async fn run(global: &Global) -> Outcome {
    let api = ApiClient::find(global)?;
    let host: HostHealth = api.get_any("/health").await?;
    let rows: Vec<ProcessRow> = api
        .get("/api/orchestrator/instances")
        .await
        .unwrap_or_default();
    let firing = firing(&api).await.unwrap_or_default();
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
            show_alerts(&firing);
        }
    }
    Ok(if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

async fn firing(api: &ApiClient) -> Outcome<Vec<Alert>> {
    let page: AlertPage = api.get("/api/health/alerts?active=true").await?;
    Ok(page.alerts)
}

pub(super) async fn alerts(global: &Global, alerts: &Alerts) -> Outcome {
    let api = ApiClient::find(global)?;
    let path = if alerts.all {
        "/api/health/alerts"
    } else {
        "/api/health/alerts?active=true"
    };
    let page: AlertPage = api.get(path).await?;
    if global.json {
        show::json(&page.alerts)?;
    } else if page.alerts.is_empty() {
        println!("no alerts");
    } else {
        show_alerts(&page.alerts);
    }
    Ok(ExitCode::SUCCESS)
}

fn show_alerts(alerts: &[Alert]) {
    let mut table = Table::new(&["ALERT", "STATE", "SERVICE", "SINCE", "SUMMARY"]);
    for alert in alerts {
        let state = match alert.state {
            AlertState::Firing => format!("{:?}", alert.severity).to_lowercase(),
            AlertState::Resolved => "resolved".to_owned(),
        };
        let about = alert
            .instance
            .clone()
            .unwrap_or_else(|| alert.service.to_string());
        table.row([
            alert.rule.clone(),
            state,
            about,
            show::time(alert.started),
            alert.summary.clone(),
        ]);
    }
    table.print();
}
