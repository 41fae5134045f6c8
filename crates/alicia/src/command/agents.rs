//! `alicia agents`: who is registered and what they can do.

use std::process::ExitCode;

use alicia_contract::discovery::RegisteredInstance;
use serde::Deserialize;
use serde_json::Value;

use crate::api::{ApiClient, quoted};
use crate::cli::{Agents, Global};
use crate::failure::Outcome;
use crate::show::{self, Table};

/// Entries that are asked for at once.
const PAGE: u32 = 500;

/// Entries that are shown; who wants more filters, or asks REST.
const SHOWN_MAX: usize = 20_000;

#[derive(Debug, Deserialize)]
struct Page {
    agents: Vec<RegisteredInstance>,
    next: Option<String>,
}

pub(super) async fn run(global: &Global, agents: &Agents) -> Outcome {
    let api = ApiClient::find(global)?;
    if let Some(instance) = agents.instance.as_ref().filter(|_| agents.remove) {
        return remove(global, &api, instance).await;
    }
    if let Some(instance) = &agents.instance {
        let card = if agents.card { "/card" } else { "" };
        let path = format!("/api/registry/agents/{}{card}", quoted(instance));
        let found: Value = api.get(&path).await?;
        show::json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    let found = all(&api, agents).await?;
    if global.json {
        show::json(&found)?;
    } else if found.is_empty() {
        println!("nobody who fits is registered");
    } else {
        table(&found).print();
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove(global: &Global, api: &ApiClient, instance: &str) -> Outcome {
    let path = format!("/api/registry/agents/{}", quoted(instance));
    let gone: RegisteredInstance = api.delete(&path).await?;
    if global.json {
        show::json(&gone)?;
    } else {
        println!("{} {instance} is removed", gone.registration.service);
    }
    Ok(ExitCode::SUCCESS)
}

async fn all(api: &ApiClient, agents: &Agents) -> Outcome<Vec<RegisteredInstance>> {
    let filters = [
        ("capability", &agents.capability),
        ("version", &agents.version),
        ("status", &agents.status),
        ("label", &agents.label),
    ];
    let filters: String = filters
        .iter()
        .filter_map(|(name, value)| Some(format!("&{name}={}", quoted(value.as_deref()?))))
        .collect();
    let mut found = Vec::new();
    let mut cursor = String::new();
    while found.len() < SHOWN_MAX {
        let path = format!("/api/registry/agents?limit={PAGE}{filters}{cursor}");
        let mut page: Page = api.get(&path).await?;
        found.append(&mut page.agents);
        match page.next {
            Some(next) => cursor = format!("&cursor={}", quoted(&next)),
            None => break,
        }
    }
    Ok(found)
}

fn table(found: &[RegisteredInstance]) -> Table {
    let mut table = Table::new(&[
        "SERVICE",
        "INSTANCE",
        "KIND",
        "VERSION",
        "PRESENCE",
        "SINCE",
        "CAPABILITIES",
    ]);
    for entry in found {
        let said = &entry.registration;
        let capabilities: Vec<String> = said
            .capabilities
            .iter()
            .map(|capability| format!("{} {}", capability.name, capability.version))
            .collect();
        table.row([
            said.service.to_string(),
            said.instance.to_string(),
            format!("{:?}", said.kind).to_lowercase(),
            said.version.clone(),
            format!("{:?}", entry.presence).to_lowercase(),
            show::span(show::now() - entry.since),
            capabilities.join(", "),
        ]);
    }
    table
}
