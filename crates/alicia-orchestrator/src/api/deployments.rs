//! Deployments over REST: what would change, change it, what was changed, go back.

use std::sync::Arc;

use alicia_contract::deployment::{Deployment, DeploymentPlan};
use alicia_contract::platform::Scope;
use alicia_contract::{Period, ServiceName};
use alicia_module::ApiError;
use alicia_module::api::{Access, Answer, Api, Body, Caller, Operation, Params, PathParams};
use alicia_store::audit::looks_secret;
use axum::extract::State;
use axum::http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::commands::checked_wait;
use super::{NAME, UNKNOWN};
use crate::core::deployment::Versions;
use crate::core::plan::Overrides;
use crate::deploy::{Asked, Error, What};
use crate::module::Orchestrator;
use crate::store::deployments;

/// Deployments of a page unless asked otherwise.
const ROWS: u32 = 20;

/// The header that makes a request that is sent twice be done once.
const KEY: &str = "idempotency-key";

const FAULTY: &str = "The file has faults (`orchestrator.faulty_file`); nothing changed.";
const REFUSED: &str = "The file has faults (`orchestrator.faulty_file`), or no services, and that was not said to be meant \
                       (`orchestrator.empty_fleet`); nothing changed.";
const WHAT: &str = "It is written down and under way; with `wait`, what became of it.";

/// A version of the file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileBody {
    /// The text of the file, as it would stand in the host's file. Default: the host reads its own file again.
    #[serde(default)]
    file: Option<String>,
}

/// An earlier version.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollbackBody {
    /// The number of the deployment. Default: the last one that came up well and was something else.
    #[serde(default)]
    number: Option<u64>,
}

/// How a deployment is asked for.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeployParams {
    /// Answer when it has come to an end, or after this time: `2m`. At most `10m`.
    wait: Option<Period>,
    /// Why, for the record and the audit log. At most 500 characters.
    reason: Option<String>,
    /// A version without any service is meant: it ends and removes everything. Default: it is refused.
    #[serde(default)]
    allow_empty: bool,
}

/// A page of deployments.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParams {
    /// The most rows. Default: 20.
    #[serde(default, deserialize_with = "rows")]
    #[schemars(range(min = 1, max = 100))]
    limit: Option<u8>,
    /// Only those before this number: the last one of the page before.
    before: Option<u64>,
}

/// What a request did.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct DeployAnswer {
    /// The deployment; with `wait`, as it is now.
    deployment: Deployment,
    /// What it changes.
    plan: DeploymentPlan,
    /// Nothing differs, and nothing was done: the deployment is the one in force.
    unchanged: bool,
    /// With `wait`: whether it has come to an end in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<bool>,
    /// How the file on disk differs from what is in force now.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_differs: Option<String>,
}

/// The last deployments.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Deployments {
    /// Newest first.
    deployments: Vec<Deployment>,
    /// For the next page; none: there are no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
    /// How the file on disk differs from what is in force; none: it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_differs: Option<String>,
}

/// One deployment with what it is about.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct DeploymentView {
    #[serde(flatten)]
    deployment: Deployment,
    /// The fleet that was accepted, with every default written out; what looks like a secret is `(secret)`.
    fleet: Value,
}

type Module = State<Arc<Orchestrator>>;

pub(super) fn routes(api: Api<Arc<Orchestrator>>) -> Api<Arc<Orchestrator>> {
    let change = |path, summary| {
        Operation::post(path, summary)
            .params::<DeployParams>()
            .answers::<DeployAnswer>(200, WHAT)
    };
    api.with(
        Operation::post("/plan", "What a version of the file would change, and why.")
            .access(Access::Scope(Scope::Read))
            .body::<FileBody>()
            .answers::<DeploymentPlan>(200, "The plan. Nothing is changed.")
            .refuses(422, FAULTY),
        plan,
    )
    .with(
        change("/deploy", "Puts a version of the file in force.")
            .access(Access::Scope(Scope::Admin))
            .body::<FileBody>()
            .refuses(422, REFUSED),
        deploy,
    )
    .with(
        change(
            "/rollback",
            "Returns to an earlier deployment, as a new one.",
        )
        .body::<RollbackBody>()
        .refuses(
            404,
            "There is no such deployment (`orchestrator.unknown_deployment`).",
        ),
        rollback,
    )
    .with(
        change(
            "/services/{name}/update",
            "Takes the settings of one service from the host's file.",
        )
        .access(Access::Scope(Scope::Admin))
        .refuses(404, UNKNOWN)
        .refuses(422, FAULTY),
        update,
    )
    .with(
        Operation::get("/deployments", "The deployments, newest first.")
            .params::<ListParams>()
            .answers::<Deployments>(200, "The deployments."),
        list,
    )
    .with(
        Operation::get("/deployments/{number}", "One deployment with its fleet.")
            .path_is_text()
            .answers::<DeploymentView>(200, "The deployment.")
            .refuses(
                404,
                "There is no such deployment (`orchestrator.unknown_deployment`).",
            ),
        one,
    )
}

async fn plan(
    State(module): Module,
    Body(body): Body<FileBody>,
) -> Result<Answer<DeploymentPlan>, ApiError> {
    let plan = module.deployer.plan(&What::File(body.file)).await?;
    Ok(Answer(plan))
}

async fn deploy(
    State(module): Module,
    Caller(who): Caller,
    headers: HeaderMap,
    Params(params): Params<DeployParams>,
    Body(body): Body<FileBody>,
) -> Result<Answer<DeployAnswer>, ApiError> {
    let what = What::File(body.file);
    run(&module, what, who.to_string(), (params, headers)).await
}

async fn rollback(
    State(module): Module,
    Caller(who): Caller,
    headers: HeaderMap,
    Params(params): Params<DeployParams>,
    Body(body): Body<RollbackBody>,
) -> Result<Answer<DeployAnswer>, ApiError> {
    let what = What::Rollback(body.number);
    run(&module, what, who.to_string(), (params, headers)).await
}

async fn update(
    State(module): Module,
    Caller(who): Caller,
    PathParams(name): PathParams<ServiceName>,
    headers: HeaderMap,
    Params(params): Params<DeployParams>,
) -> Result<Answer<DeployAnswer>, ApiError> {
    let what = What::Services(vec![name]);
    run(&module, what, who.to_string(), (params, headers)).await
}

async fn run(
    module: &Orchestrator,
    what: What,
    actor: String,
    (params, headers): (DeployParams, HeaderMap),
) -> Result<Answer<DeployAnswer>, ApiError> {
    let wait = params.wait.map(checked_wait).transpose()?;
    let key = headers
        .get(KEY)
        .map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
    let accepted = module
        .deployer
        .deploy(Asked {
            what,
            actor,
            reason: params.reason,
            allow_empty: params.allow_empty,
            key,
        })
        .await?;
    let mut answer = DeployAnswer {
        deployment: accepted.deployment,
        plan: accepted.plan,
        unchanged: accepted.unchanged,
        ended: None,
        file_differs: accepted.file_differs,
    };
    if let Some(patience) = wait {
        let number = answer.deployment.number;
        let ended = module.deployer.ended(number, patience).await;
        answer.ended = Some(ended.is_some());
        let row = deployments::by_number(&module.cx.store, number).await;
        if let Some(row) = row.map_err(|error| ApiError::internal(NAME, &error))? {
            answer.deployment = row.deployment;
        }
        // What went back by itself is now what the file on disk is not.
        answer.file_differs = module.deployer.look_at_file().await;
    }
    Ok(Answer(answer))
}

/// The number of rows of a page.
fn rows<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    let asked = Option::<u8>::deserialize(deserializer)?;
    match asked {
        Some(0) | Some(101..) => Err(serde::de::Error::custom("`limit` is 1 to 100")),
        asked => Ok(asked),
    }
}

async fn list(
    State(module): Module,
    Params(params): Params<ListParams>,
) -> Result<Answer<Deployments>, ApiError> {
    let limit = params
        .limit
        .map_or(ROWS, u32::from)
        .clamp(1, deployments::DEPLOYMENTS_MAX);
    let before = params.before.unwrap_or(u64::MAX);
    let found = deployments::list(&module.cx.store, before, limit).await;
    let deployments = found.map_err(|error| ApiError::internal(NAME, &error))?;
    let more = deployments.len() == limit as usize;
    Ok(Answer(Deployments {
        before: deployments.last().map(|last| last.number).filter(|_| more),
        file_differs: module.deployer.look_at_file().await,
        deployments,
    }))
}

async fn one(
    State(module): Module,
    PathParams(number): PathParams<u64>,
) -> Result<Answer<DeploymentView>, ApiError> {
    let found = deployments::by_number(&module.cx.store, number).await;
    let row = found
        .map_err(|error| ApiError::internal(NAME, &error))?
        .ok_or(Error::Unknown(number))?;
    let versions = Versions {
        old: &row.fleet,
        new: &row.fleet,
        selected: &Default::default(),
        overrides: &|_| Overrides::default(),
        runs: &|_| false,
        looks_secret: &looks_secret,
    };
    Ok(Answer(DeploymentView {
        fleet: versions.shown_fleet(&row.fleet),
        deployment: row.deployment,
    }))
}
