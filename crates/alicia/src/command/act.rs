//! `alicia start`, `stop`, `restart`, `scale`, `reload`: what changes a running fleet.

use std::collections::BTreeMap;
use std::process::ExitCode;

use alicia_contract::orchestrator::{FleetAnswer, InstanceState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::{ApiClient, quoted};
use crate::cli::{Global, Scale, Targets};
use crate::failure::{EXIT_FAILED, Outcome};
use crate::show;

/// How long the host may take to say that it is done; it says what is still open then.
const WAIT: &str = "25s";

/// What is done to services.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    Start,
    Stop,
    Restart,
    Pause,
    Resume,
}

impl Action {
    fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

pub(super) async fn run(global: &Global, action: Action, targets: &Targets) -> Outcome {
    let api = ApiClient::find(global)?;
    let mut query = vec![which(&targets.services)];
    if !targets.no_wait {
        query.push(format!("wait={WAIT}"));
    }
    query.extend(because(targets.reason.as_deref()));
    let path = format!("/api/orchestrator/{}?{}", action.verb(), query.join("&"));
    told(global, &api.post(&path, &json!({})).await?)
}

/// The part of a query that names services and groups; none: the whole fleet.
pub(super) fn which(services: &[String]) -> String {
    if services.is_empty() {
        String::new()
    } else {
        format!("service={}", quoted(&services.join(",")))
    }
}

/// The part of a query that says why.
fn because(reason: Option<&str>) -> Option<String> {
    reason.map(|reason| format!("reason={}", quoted(reason)))
}

pub(super) async fn scale(global: &Global, scale: &Scale) -> Outcome {
    let api = ApiClient::find(global)?;
    let because = because(scale.reason.as_deref());
    let because = because.map(|part| format!("&{part}")).unwrap_or_default();
    let path = format!(
        "/api/orchestrator/scale/{}?wait={WAIT}{because}",
        quoted(&scale.service)
    );
    told(
        global,
        &api.post(&path, &json!({ "instances": scale.instances }))
            .await?,
    )
}

/// What the host answers: what it does, and after a wait how that ended.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    #[serde(flatten)]
    answer: FleetAnswer,
    /// Whether it came to an end within the wait; none: nobody waited.
    #[serde(default)]
    settled: Option<bool>,
    /// The instances of the services, after a wait.
    #[serde(default)]
    instances: Vec<Ended>,
}

/// Where an instance stands after the wait.
#[derive(Debug, Serialize, Deserialize)]
struct Ended {
    instance: String,
    state: InstanceState,
    #[serde(default)]
    reason: String,
}

/// Says it. Done is only what came to an end without a failure.
fn told(global: &Global, told: &Told) -> Outcome {
    let failed = || {
        told.instances
            .iter()
            .filter(|ended| ended.state == InstanceState::Failed)
    };
    if global.json {
        show::json(told)?;
    } else {
        let done = match told.settled {
            Some(true) => ": done",
            _ => "",
        };
        println!("{}{done}", told.answer.detail);
        for ended in failed() {
            eprintln!("{} failed: {}", ended.instance, ended.reason);
        }
        if told.settled == Some(false) {
            eprintln!("not done after {WAIT}; `alicia ps` shows where it stands");
        }
    }
    let is_done = told.settled != Some(false) && failed().next().is_none();
    Ok(if is_done {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

pub(super) async fn reload(global: &Global) -> Outcome {
    let api = ApiClient::find(global)?;
    let answer: Value = api.post("/api/host/reload", &json!({})).await?;
    if global.json {
        show::json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let modules: BTreeMap<String, String> = serde_json::from_value(answer["modules"].clone())?;
    println!("the file was read again; services that changed are being updated");
    for (module, outcome) in modules {
        println!("  {module}: {outcome}");
    }
    Ok(ExitCode::SUCCESS)
}
