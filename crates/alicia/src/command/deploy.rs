//! `alicia plan`, `deploy`, `update`, `rollback`, `deployments`: versions of the file, what they change, and back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use alicia_contract::deployment::{
    ChangeKind, Deployment, DeploymentPlan, DeploymentState, Effect, FieldChange, ServiceChange,
};
use alicia_contract::{Period, ServiceName};
use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::{ApiClient, quoted};
use crate::cli::Global;
use crate::failure::{EXIT_FAILED, Failure, Outcome};
use crate::show;

/// What `alicia plan` answers when something would change.
const EXIT_CHANGES: u8 = 2;

/// How often it is looked how far a deployment is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A value in a plan is cut at this length, in characters.
const VALUE_CHARS_MAX: usize = 60;

/// `alicia plan`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia plan                  what the file would change in the fleet that runs
  alicia plan -f next.yaml     what another file would change
  alicia plan --json | jq '.services[] | select(.change != \"stay\")'

Exit codes: 0 nothing would change, 1 it could not be said (the file has faults), 2 something would change, 3 no fleet runs.")]
pub(crate) struct Plan {
    #[command(flatten)]
    source: Source,
}

/// `alicia deploy`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia deploy --reason 'more workers'
  alicia deploy -f next.yaml
  alicia deploy -f empty.yaml --allow-empty   end and remove everything

Exit codes: 0 everything has come to rest as wanted, or nothing had to be done; 1 the file has faults, or some services
failed or went back to what they had; 3 no fleet runs.")]
pub(crate) struct Deploy {
    #[command(flatten)]
    source: Source,
    /// A file without any service is meant: everything is ended and removed.
    #[arg(long)]
    allow_empty: bool,
    #[command(flatten)]
    how: How,
}

/// `alicia update`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alicia update api --reason 'the fix for the login'")]
pub(crate) struct Update {
    /// The service.
    service: String,
    #[command(flatten)]
    how: How,
}

/// `alicia rollback`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia rollback              to the last deployment that came up well and was something else
  alicia rollback 12           to deployment 12; `alicia deployments` lists them")]
pub(crate) struct Rollback {
    /// The number of the deployment.
    number: Option<u64>,
    #[command(flatten)]
    how: How,
}

/// `alicia deployments`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia deployments
  alicia deployments 12        one of them, with what became of each service
  alicia deployments 12 --fleet")]
pub(crate) struct Deployments {
    /// The number of one.
    number: Option<u64>,
    /// How many.
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
    limit: u8,
    /// Its services too, as they were accepted.
    #[arg(long, requires = "number")]
    fleet: bool,
}

/// Which file.
#[derive(Debug, Args)]
struct Source {
    /// The file; default: the one that the host was started with.
    #[arg(short = 'f', value_name = "FILE")]
    short_file: Option<PathBuf>,
}

/// How it is done.
#[derive(Debug, Args)]
struct How {
    /// Why, for the record and the audit log.
    #[arg(long)]
    reason: Option<String>,
    /// Return at once instead of waiting until it is done.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "10m", value_name = "PERIOD")]
    wait: Period,
}

/// What the host answers.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    deployment: Deployment,
    plan: DeploymentPlan,
    unchanged: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file_differs: Option<String>,
}

/// A page of deployments.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    deployments: Vec<Deployment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file_differs: Option<String>,
}

impl Source {
    /// The body of a request: the text of the file, when one is named.
    fn body(&self, global: &Global) -> Outcome<Value> {
        let Some(path) = self.short_file.as_ref().or(global.file.as_ref()) else {
            return Ok(json!({}));
        };
        if path.is_dir() {
            return Err(Failure::Usage(format!(
                "{} is a directory of fragments: the host reads its own by itself, so leave --file away",
                path.display()
            )));
        }
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Ok(json!({ "file": text }))
    }
}

pub(super) async fn plan(global: &Global, plan: &Plan) -> Outcome {
    let body = plan.source.body(global)?;
    let api = ApiClient::find(global)?;
    let plan: DeploymentPlan = api.post("/api/orchestrator/plan", &body).await?;
    if global.json {
        show::json(&plan)?;
    } else {
        print_plan(&plan);
    }
    Ok(match plan.changes {
        true => ExitCode::from(EXIT_CHANGES),
        false => ExitCode::SUCCESS,
    })
}

pub(super) async fn deploy(global: &Global, deploy: &Deploy) -> Outcome {
    let body = deploy.source.body(global)?;
    let path = match deploy.allow_empty {
        true => "deploy?allow_empty=true",
        false => "deploy",
    };
    carry_out(global, path, &body, &deploy.how).await
}

pub(super) async fn update(global: &Global, update: &Update) -> Outcome {
    let path = format!("services/{}/update", quoted(&update.service));
    carry_out(global, &path, &json!({}), &update.how).await
}

pub(super) async fn rollback(global: &Global, rollback: &Rollback) -> Outcome {
    let body = match rollback.number {
        Some(number) => json!({ "number": number }),
        None => json!({}),
    };
    carry_out(global, "rollback", &body, &rollback.how).await
}

async fn carry_out(global: &Global, path: &str, body: &Value, how: &How) -> Outcome {
    let api = ApiClient::find(global)?;
    let query = match &how.reason {
        Some(reason) => {
            let separator = if path.contains('?') { '&' } else { '?' };
            format!("{separator}reason={}", quoted(reason))
        }
        None => String::new(),
    };
    let mut answer: Answer = api
        .post(&format!("/api/orchestrator/{path}{query}"), body)
        .await?;
    if !global.json {
        if answer.unchanged {
            println!(
                "nothing to do: that is what runs (deployment {})",
                answer.deployment.number
            );
        } else {
            print_plan(&answer.plan);
            println!("deployment {}", answer.deployment.number);
        }
    }
    if !answer.unchanged && !how.no_wait {
        answer.deployment = wait(global, &api, answer.deployment, how.wait).await?;
        let page: Page = api.get("/api/orchestrator/deployments?limit=1").await?;
        answer.file_differs = page.file_differs;
    }
    if global.json {
        show::json(&answer)?;
    } else {
        if !answer.unchanged && !how.no_wait {
            print_outcome(&answer.deployment);
        }
        if let Some(differs) = &answer.file_differs {
            eprintln!("{differs}");
        }
    }
    let is_good = answer.unchanged
        || answer.deployment.state == DeploymentState::Done
        || how.no_wait && answer.deployment.state == DeploymentState::UnderWay;
    Ok(match is_good {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_FAILED),
    })
}

/// Follows a deployment to its end, or as long as it is waited for, and shows what goes on.
async fn wait(
    global: &Global,
    api: &ApiClient,
    mut deployment: Deployment,
    patience: Period,
) -> Outcome<Deployment> {
    let began = tokio::time::Instant::now();
    let path = format!("/api/orchestrator/deployments/{}", deployment.number);
    let mut told: BTreeMap<ServiceName, String> = deployment
        .services
        .iter()
        .map(|(name, outcome)| (name.clone(), outcome.detail.clone()))
        .collect();
    while deployment.state == DeploymentState::UnderWay && began.elapsed() < patience.duration() {
        tokio::time::sleep(LOOK_EVERY).await;
        deployment = api.get(&path).await?;
        for (service, outcome) in &deployment.services {
            let before = told.insert(service.clone(), outcome.detail.clone());
            if !global.json && before.as_ref() != Some(&outcome.detail) {
                println!("  {service}: {}", outcome.detail);
            }
        }
    }
    Ok(deployment)
}

pub(super) async fn deployments(global: &Global, asked: &Deployments) -> Outcome {
    let api = ApiClient::find(global)?;
    if let Some(number) = asked.number {
        let mut view: Value = api
            .get(&format!("/api/orchestrator/deployments/{number}"))
            .await?;
        if !asked.fleet
            && let Some(view) = view.as_object_mut()
        {
            view.remove("fleet");
        }
        if global.json || asked.fleet {
            show::json(&view)?;
        } else {
            print_outcome(&serde_json::from_value(view)?);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let path = format!("/api/orchestrator/deployments?limit={}", asked.limit);
    let page: Page = api.get(&path).await?;
    if global.json {
        show::json(&page)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = show::Table::new(&["NUMBER", "STATE", "AGE", "WHO", "REASON", "SERVICES"]);
    let now = show::now();
    for one in &page.deployments {
        let reason = match (one.rollback_to, &one.reason) {
            (Some(to), Some(reason)) => format!("back to {to}: {reason}"),
            (Some(to), None) => format!("back to {to}"),
            (None, reason) => reason.clone().unwrap_or_default(),
        };
        table.row([
            one.number.to_string(),
            state(one.state),
            show::span(now - one.at),
            one.actor.clone(),
            reason,
            one.services.len().to_string(),
        ]);
    }
    table.print();
    if let Some(differs) = &page.file_differs {
        eprintln!("{differs}");
    }
    Ok(ExitCode::SUCCESS)
}

fn print_plan(plan: &DeploymentPlan) {
    let changing = |change: &&ServiceChange| change.change != ChangeKind::Stay;
    for change in plan.services.iter().filter(changing) {
        print_change(change);
    }
    for section in &plan.sections {
        anstream::println!(
            "{} {section}: this part of the file differs",
            mark("~", AnsiColor::Yellow)
        );
    }
    let same = plan
        .services
        .iter()
        .filter(|change| !changing(change))
        .count();
    match (plan.changes, same) {
        (false, _) => println!("nothing would change"),
        (true, 0) => {}
        (true, 1) => println!("1 service stays as it is"),
        (true, _) => println!("{same} services stay as they are"),
    }
}

fn print_change(change: &ServiceChange) {
    let (sign, colour, verb) = match change.change {
        ChangeKind::Start => ("+", AnsiColor::Green, "start"),
        ChangeKind::Stop => ("-", AnsiColor::Red, "stop"),
        ChangeKind::Restart => ("!", AnsiColor::Red, "restart"),
        ChangeKind::Update => ("~", AnsiColor::Yellow, "update"),
        ChangeKind::Scale => ("~", AnsiColor::Yellow, "scale"),
        ChangeKind::Apply => ("~", AnsiColor::Yellow, "change in place"),
        ChangeKind::Stay => (" ", AnsiColor::White, "stay"),
    };
    let strategy = change
        .strategy
        .map(|strategy| format!(" ({})", strategy.as_str()));
    anstream::println!(
        "{} {}: {verb}{}: {}",
        mark(sign, colour),
        change.service,
        strategy.unwrap_or_default(),
        change.why
    );
    for field in &change.fields {
        println!("    {}", field_line(field));
    }
    if let Some(held) = &change.held {
        println!("    {held}");
    }
}

fn field_line(field: &FieldChange) -> String {
    let effect = match field.effect {
        Effect::InPlace => "in place",
        Effect::NextStart => "with the next start",
        Effect::NewProcess => "needs a new process",
    };
    format!(
        "{}: {} -> {}  ({effect}: {})",
        field.field,
        value(&field.old),
        value(&field.new),
        field.why
    )
}

fn value(value: &Value) -> String {
    let text = match value {
        Value::Null => "(not set)".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn print_outcome(deployment: &Deployment) {
    anstream::println!(
        "deployment {}: {}: {}",
        deployment.number,
        state(deployment.state),
        deployment.detail
    );
    for (service, outcome) in &deployment.services {
        anstream::println!("  {service}: {}: {}", state(outcome.state), outcome.detail);
        for line in &outcome.last_lines {
            println!("    | {line}");
        }
    }
}

fn state(state: DeploymentState) -> String {
    let (word, colour) = match state {
        DeploymentState::UnderWay => ("under way", AnsiColor::Yellow),
        DeploymentState::Done => ("done", AnsiColor::Green),
        DeploymentState::Failed => ("failed", AnsiColor::Red),
        DeploymentState::Reverted => ("reverted", AnsiColor::Red),
        DeploymentState::Superseded => ("superseded", AnsiColor::White),
    };
    mark(word, colour)
}

fn mark(text: &str, colour: AnsiColor) -> String {
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{text}{style:#}")
}
