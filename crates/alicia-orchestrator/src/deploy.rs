//! Deployments: a new version of the fleet is checked by the host, compared with what is in force, written down with
//! who asked, put in force for every module, and followed until it has come to rest.
//!
//! ```text
//!  deploy, rollback, a changed file
//!        │ written down (state `under-way`), then put in force
//!        ▼
//!    under-way ──── every service at rest ────► done
//!        │  │  └─── some do not come up ──────► failed
//!        │  └────── some went back by themselves ► reverted   (in force: what they went back to)
//!        └───────── a newer one ──────────────► superseded
//! ```
//!
//! A host that is killed at any moment finds the last one in its database: one that was under way goes on.

mod announce;
mod follow;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::ServiceName;
use alicia_contract::deployment::{
    ChangeKind, Deployment, DeploymentPlan, DeploymentState, ServiceOutcome,
};
use alicia_contract::fleet::Fleet;
use alicia_module::desk::{Candidate, DeskError};
use alicia_module::{ApiError, Context};
use alicia_store::audit::{Outcome, looks_secret};
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::command::REASON_CHARS_MAX;
use crate::core::deployment::{Versions, digest};
use crate::core::plan::{Overrides, Selection};
use crate::engine::{Ended, Handle, Input};
use crate::store::{Action, deployments};
use deployments::Row;

pub(crate) use announce::announce;
pub(crate) use follow::{Ill, Told, follow};

/// The longest key that a client may give to a request, in characters.
const KEY_CHARS_MAX: usize = 200;

/// Services that are named in an audit row: the deployment itself has them all.
const AUDIT_SERVICES_MAX: usize = 100;

/// Who acts when no person did.
const HOST: &str = "system/host";

/// Why a deployment was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file is not good, or there is no host to read it.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// It could not be written down.
    #[error("write the deployment down")]
    Store(#[from] alicia_store::Error),
    /// The engine has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// There is no such deployment.
    #[error("find deployment {0}: `alicia deployments` lists those that are kept")]
    Unknown(u64),
    /// There is nothing to go back to.
    #[error(
        "go back: no earlier deployment came up well and was something else; name one by its number"
    )]
    NothingBefore,
    /// The reason is too long.
    #[error("take the reason: it has {0} characters, {REASON_CHARS_MAX} are the most")]
    LongReason(usize),
    /// The key is empty or too long.
    #[error("take the Idempotency-Key: it has {0} characters, 1 to {KEY_CHARS_MAX} are possible")]
    BadKey(usize),
    /// The key was used for something else.
    #[error(
        "take the Idempotency-Key: deployment {0} was asked for with it, and is another version"
    )]
    KeyUsed(u64),
    /// It would remove everything.
    #[error(
        "take a version without any service: {0} are in force, and all of them would be ended and removed; say \
         `allow_empty` (`--allow-empty`) if that is meant"
    )]
    EmptyFleet(usize),
    /// There is no such service in the file.
    #[error(
        "update {0}: there is no such service in the file; `alicia ps` lists those that there are"
    )]
    UnknownService(ServiceName),
}

/// What somebody asks for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) what: What,
    pub(crate) actor: String,
    pub(crate) reason: Option<String>,
    /// A version without any service is meant, and no mistake.
    pub(crate) allow_empty: bool,
    /// Asked twice with the same key, it is done once.
    pub(crate) key: Option<String>,
}

/// Which version.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// The file, or this text in its place.
    File(Option<String>),
    /// The file, but only these services of it.
    Services(Vec<ServiceName>),
    /// An earlier deployment; none: the last good one.
    Rollback(Option<u64>),
}

/// What was done.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) deployment: Deployment,
    pub(crate) plan: DeploymentPlan,
    /// Nothing differs: the deployment is the one in force.
    pub(crate) unchanged: bool,
    /// How the file on disk differs from what is in force now.
    pub(crate) file_differs: Option<String>,
}

/// What the engine begins with.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    /// What was in force before a deployment that is still under way.
    pub(crate) base: Option<Arc<Fleet>>,
    pub(crate) fleet: Arc<Fleet>,
    /// The deployment that is under way, and its services.
    pub(crate) under_way: Option<(u64, Vec<ServiceName>)>,
}

/// Makes deployments. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Deployer {
    cx: Context,
    handle: Handle,
    selection: watch::Receiver<Selection>,
    /// The newest one; held while another is made, so that they follow each other.
    newest: Arc<Mutex<Row>>,
    published: watch::Sender<Arc<Deployment>>,
    differs: watch::Sender<Option<String>>,
}

/// A version, and where it comes from.
struct Version {
    fleet: Arc<Fleet>,
    candidate: Option<u64>,
    sections: Vec<String>,
    rollback_to: Option<u64>,
}

/// The first step, before there is an engine: what is in force after a start.
pub(crate) async fn open(cx: &Context) -> Result<(Row, Opening), alicia_store::Error> {
    let file = file_of(cx).await;
    let file_digest = digest(&file);
    let newest = deployments::newest(&cx.store).await?;
    let row = match newest {
        Some(row) if row.file_digest == file_digest => row,
        // A file that was emptied by mistake ends nothing; how it differs is told.
        Some(row) if cx.desk.has_host() && removes_everything(&row.effective, &file) => row,
        before => {
            let reason = match before {
                Some(_) => "the file was changed while no host ran",
                None => "the first start",
            };
            let in_force = before.as_ref().map(|row| row.effective.clone());
            let changed = touched(in_force.as_deref(), &file);
            let mut row = new_row(cx, file.clone(), changed);
            row.base = before.as_ref().map(base_of);
            row.deployment.reason = Some(reason.to_owned());
            let action = action(cx, &row.deployment, "deploy", json!({ "file": "changed" }));
            row.deployment.number =
                deployments::insert(&cx.store, row.clone(), None, action).await?;
            row
        }
    };
    let under_way = row.deployment.state == DeploymentState::UnderWay;
    let services = row.deployment.services.keys().cloned().collect();
    let opening = Opening {
        base: row.base.clone().filter(|_| under_way),
        fleet: row.effective.clone(),
        under_way: under_way.then_some((row.deployment.number, services)),
    };
    Ok((row, opening))
}

/// The fleet of the host's file; without a host, what the context says.
async fn file_of(cx: &Context) -> Arc<Fleet> {
    match cx.desk.read(None).await {
        Ok(candidate) => Arc::new(candidate.fleet),
        Err(_) => cx.fleet.borrow().clone(),
    }
}

fn touched(old: Option<&Fleet>, new: &Fleet) -> BTreeMap<ServiceName, String> {
    let differs = |name: &ServiceName| match old {
        Some(old) => old.services.get(name) != new.services.get(name),
        None => true,
    };
    let names: BTreeSet<&ServiceName> = old
        .into_iter()
        .flat_map(|old| old.services.keys())
        .chain(new.services.keys())
        .collect();
    let touched = names.into_iter().filter(|name| differs(name));
    touched
        .map(|name| (name.clone(), "its settings differ".to_owned()))
        .collect()
}

fn new_row(cx: &Context, fleet: Arc<Fleet>, touched: BTreeMap<ServiceName, String>) -> Row {
    let digest = digest(&fleet);
    let outcome = |detail| ServiceOutcome {
        state: DeploymentState::UnderWay,
        detail,
        last_lines: Vec::new(),
    };
    Row {
        deployment: Deployment {
            number: 0,
            at: cx.clock.unix(),
            actor: HOST.to_owned(),
            reason: None,
            digest: digest.clone(),
            rollback_to: None,
            state: DeploymentState::UnderWay,
            detail: "it is being carried out".to_owned(),
            ended: None,
            services: touched
                .into_iter()
                .map(|(name, why)| (name, outcome(why)))
                .collect(),
        },
        file_digest: digest,
        effective: fleet.clone(),
        fleet,
        base: None,
    }
}

fn action(cx: &Context, deployment: &Deployment, verb: &str, detail: Value) -> Action {
    let services = deployment.services.keys().take(AUDIT_SERVICES_MAX);
    Action {
        time_unix_us: cx.clock.unix_us(),
        actor: deployment.actor.clone(),
        action: format!("orchestrator.{verb}"),
        target: "fleet".to_owned(),
        outcome: Outcome::Done,
        detail: json!({
            "digest": deployment.digest,
            "reason": deployment.reason,
            "rollback_to": deployment.rollback_to,
            "services": services.collect::<Vec<_>>(),
            "more": detail,
        }),
        about: deployment.services.keys().cloned().collect(),
        reason: deployment.reason.clone(),
    }
}

// === impl Deployer ===

impl Deployer {
    pub(crate) fn new(
        cx: Context,
        handle: Handle,
        selection: watch::Receiver<Selection>,
        newest: Row,
    ) -> Self {
        Self {
            published: watch::Sender::new(Arc::new(newest.deployment.clone())),
            newest: Arc::new(Mutex::new(newest)),
            differs: watch::Sender::new(None),
            cx,
            handle,
            selection,
        }
    }

    /// How the file on disk differs from what is in force, as last seen.
    pub(crate) fn differs(&self) -> Option<String> {
        self.differs.borrow().clone()
    }

    /// The newest one.
    pub(crate) fn newest(&self) -> Arc<Deployment> {
        self.published.borrow().clone()
    }

    /// The newest one, as it goes on.
    pub(crate) fn follow_newest(&self) -> watch::Receiver<Arc<Deployment>> {
        self.published.subscribe()
    }

    /// What would happen.
    pub(crate) async fn plan(&self, what: &What) -> Result<DeploymentPlan, Error> {
        let newest = self.newest.lock().await.clone();
        let version = self.version(what, &newest).await?;
        let mut plan = self.compare(&newest, &version.fleet).await?;
        plan.changes |= !version.sections.is_empty();
        plan.sections = version.sections;
        Ok(plan)
    }

    async fn compare(&self, newest: &Row, fleet: &Fleet) -> Result<DeploymentPlan, Error> {
        let known = self.handle.ask(Input::Known).await?;
        let selected = self.selection.borrow().services(fleet);
        let overrides =
            |name: &ServiceName| known.get(name).map(|known| known.0).unwrap_or_default();
        let runs = |name: &ServiceName| known.get(name).is_some_and(|known| known.1);
        let versions = Versions {
            old: &newest.effective,
            new: fleet,
            selected: &selected,
            overrides: &overrides,
            runs: &runs,
            looks_secret: &looks_secret,
        };
        Ok(versions.plan(Some(newest.deployment.number)))
    }

    /// The version that is asked for.
    async fn version(&self, what: &What, newest: &Row) -> Result<Version, Error> {
        let of_candidate = |candidate: Candidate| Version {
            fleet: Arc::new(candidate.fleet),
            candidate: Some(candidate.id),
            sections: candidate.sections,
            rollback_to: None,
        };
        match what {
            What::File(text) => Ok(of_candidate(self.cx.desk.read(text.clone()).await?)),
            What::Services(names) => {
                let read = self.cx.desk.read(None).await?;
                let mut fleet = Fleet::clone(&newest.effective);
                for name in names {
                    match read.fleet.services.get(name) {
                        Some(spec) => drop(fleet.services.insert(name.clone(), spec.clone())),
                        None => return Err(Error::UnknownService(name.clone())),
                    }
                }
                Ok(Version {
                    fleet: Arc::new(fleet),
                    candidate: None,
                    sections: Vec::new(),
                    rollback_to: None,
                })
            }
            What::Rollback(number) => {
                let newest = (newest.deployment.number, digest(&newest.effective));
                let row = match number {
                    Some(number) => deployments::by_number(&self.cx.store, *number)
                        .await?
                        .ok_or(Error::Unknown(*number))?,
                    None => deployments::last_good(&self.cx.store, newest.0, newest.1)
                        .await?
                        .ok_or(Error::NothingBefore)?,
                };
                Ok(Version {
                    rollback_to: Some(row.deployment.number),
                    fleet: row.effective,
                    candidate: None,
                    sections: Vec::new(),
                })
            }
        }
    }

    /// Makes a deployment. On return it is written down and under way.
    pub(crate) async fn deploy(&self, asked: Asked) -> Result<Accepted, Error> {
        check(&asked)?;
        let mut newest = self.newest.lock().await;
        let version = self.version(&asked.what, &newest).await?;
        if let Some(before) = self.asked_before(&asked, &version).await? {
            return Ok(before);
        }
        if removes_everything(&newest.effective, &version.fleet) && !asked.allow_empty {
            return Err(Error::EmptyFleet(newest.effective.services.len()));
        }
        let mut plan = self.compare(&newest, &version.fleet).await?;
        plan.sections.clone_from(&version.sections);
        let unchanged = !plan.changes && version.sections.is_empty();
        plan.changes = !unchanged;
        if unchanged {
            drop(newest);
            let file_differs = self.look_at_file().await;
            return Ok(Accepted {
                deployment: Deployment::clone(&self.newest()),
                plan,
                unchanged,
                file_differs,
            });
        }
        let changes = plan
            .services
            .iter()
            .filter(|change| change.change != ChangeKind::Stay);
        let changes = changes.map(|change| (change.service.clone(), change.why.clone()));
        let mut row = new_row(&self.cx, version.fleet.clone(), changes.collect());
        row.deployment.actor = asked.actor;
        row.deployment.reason = asked.reason;
        row.deployment.rollback_to = version.rollback_to;
        row.file_digest = digest(&*file_of(&self.cx).await);
        row.base = Some(base_of(&newest));
        let verb = match version.rollback_to {
            Some(_) => "rollback",
            None => "deploy",
        };
        let detail = json!({ "sections": version.sections });
        let action = action(&self.cx, &row.deployment, verb, detail);
        row.deployment.number =
            deployments::insert(&self.cx.store, row.clone(), asked.key, action).await?;
        *newest = row.clone();
        self.put_in_force(&row, version.candidate).await?;
        drop(newest);
        let file_differs = self.look_at_file().await;
        Ok(Accepted {
            deployment: row.deployment,
            plan,
            unchanged,
            file_differs,
        })
    }

    /// The answer to a request that was made before with the same key.
    async fn asked_before(
        &self,
        asked: &Asked,
        version: &Version,
    ) -> Result<Option<Accepted>, Error> {
        let Some(key) = &asked.key else {
            return Ok(None);
        };
        let Some(row) = deployments::by_key(&self.cx.store, key.clone()).await? else {
            return Ok(None);
        };
        if row.deployment.digest != digest(&version.fleet) {
            return Err(Error::KeyUsed(row.deployment.number));
        }
        let plan = self.compare(&row, &row.effective).await?;
        Ok(Some(Accepted {
            deployment: row.deployment,
            plan,
            unchanged: false,
            file_differs: self.differs(),
        }))
    }

    async fn put_in_force(&self, row: &Row, candidate: Option<u64>) -> Result<(), Error> {
        self.publish(&row.deployment);
        let told = match candidate {
            Some(id) => match self.cx.desk.take(id).await {
                Err(DeskError::Forgotten) => {
                    tracing::warn!(
                        "sections of the file wait for the next reload: it was read too long ago"
                    );
                    self.cx.desk.put(row.effective.clone()).await
                }
                told => told,
            },
            None => self.cx.desk.put(row.effective.clone()).await,
        };
        // What is written down is done, whoever else hears of it.
        if let Err(error) = told {
            tracing::warn!(%error, "the other modules were not told of a deployment");
        }
        let input = Input::Deploy {
            number: row.deployment.number,
            fleet: row.effective.clone(),
            services: row.deployment.services.keys().cloned().collect(),
        };
        Ok(self.handle.send(input).await?)
    }

    /// The host's file was read again, or another module was told of a fleet. What is in force says nothing new.
    pub(crate) async fn heard(&self, fleet: Arc<Fleet>) {
        let mut newest = self.newest.lock().await;
        if *newest.effective == *fleet {
            return;
        }
        let changed = touched(Some(&newest.effective), &fleet);
        let mut row = new_row(&self.cx, fleet, changed);
        row.deployment.reason = Some("the file was read again".to_owned());
        row.base = Some(base_of(&newest));
        let action = action(
            &self.cx,
            &row.deployment,
            "deploy",
            json!({ "file": "read again" }),
        );
        match deployments::insert(&self.cx.store, row.clone(), None, action).await {
            Ok(number) => row.deployment.number = number,
            Err(error) => {
                tracing::error!(%error, "a changed file was not taken over: it cannot be written down");
                return;
            }
        }
        *newest = row.clone();
        self.publish(&row.deployment);
        let input = Input::Deploy {
            number: row.deployment.number,
            fleet: row.effective.clone(),
            services: row.deployment.services.keys().cloned().collect(),
        };
        if let Err(error) = self.handle.send(input).await {
            tracing::debug!(%error, "a deployment waits for the next start");
        }
        drop(newest);
        self.look_at_file().await;
    }

    /// What is selected changed: the fleet is the same.
    pub(crate) async fn reselect(&self) {
        let fleet = self.newest.lock().await.effective.clone();
        let selection = self.selection.borrow().clone();
        if let Err(error) = self.handle.send(Input::Desired(fleet, selection)).await {
            tracing::debug!(%error, "what is selected waits for the next start");
        }
    }

    /// Compares the file on disk with what is in force, and says how they differ.
    pub(crate) async fn look_at_file(&self) -> Option<String> {
        let newest = self.newest.lock().await.clone();
        let differs = match self.cx.desk.read(None).await {
            Ok(candidate) => difference(&candidate.fleet, &newest),
            Err(DeskError::NoHost) => None,
            Err(error) => Some(format!(
                "the file on disk has faults, and what runs is deployment {}: failed to {error}",
                newest.deployment.number
            )),
        };
        self.differs.send_if_modified(|before| {
            let changed = *before != differs;
            before.clone_from(&differs);
            changed
        });
        differs
    }

    /// Waits until a deployment has come to an end; none when that takes longer.
    pub(crate) async fn ended(&self, number: u64, patience: Duration) -> Option<Arc<Deployment>> {
        let mut published = self.published.subscribe();
        let over = |newest: &Arc<Deployment>| {
            newest.number > number
                || newest.number == number && newest.state != DeploymentState::UnderWay
        };
        let waited = timeout(patience, published.wait_for(over)).await;
        let newest = waited.ok()?.ok()?.clone();
        Some(newest)
    }

    fn publish(&self, deployment: &Deployment) {
        self.published.send_replace(Arc::new(deployment.clone()));
    }
}

/// What to go back to: what was good before one that is still under way.
fn base_of(newest: &Row) -> Arc<Fleet> {
    let under_way = newest.deployment.state == DeploymentState::UnderWay;
    let base = newest.base.clone().filter(|_| under_way);
    base.unwrap_or_else(|| newest.effective.clone())
}

/// A text that was cut off, or a file that was emptied, is good YAML and means that nothing is to run.
fn removes_everything(in_force: &Fleet, wanted: &Fleet) -> bool {
    wanted.services.is_empty() && !in_force.services.is_empty()
}

fn difference(file: &Fleet, newest: &Row) -> Option<String> {
    if removes_everything(&newest.effective, file) {
        return Some(format!(
            "the file on disk has no services, and what runs is deployment {}: `alicia deploy --allow-empty` ends and \
             removes everything",
            newest.deployment.number
        ));
    }
    let differing = touched(Some(&newest.effective), file);
    if differing.is_empty() {
        return None;
    }
    let mut names: Vec<&str> = differing.keys().map(ServiceName::as_str).collect();
    let more = names.len().saturating_sub(5);
    names.truncate(5);
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "the file on disk is not what runs (deployment {}), it differs in {}{more}; `alicia plan` shows how, `alicia deploy` \
         takes the file over",
        newest.deployment.number,
        names.join(", ")
    ))
}

fn check(asked: &Asked) -> Result<(), Error> {
    let chars = |text: &Option<String>| text.as_ref().map(|text| text.chars().count());
    if let Some(chars) = chars(&asked.reason).filter(|chars| *chars > REASON_CHARS_MAX) {
        return Err(Error::LongReason(chars));
    }
    match chars(&asked.key) {
        Some(chars) if !(1..=KEY_CHARS_MAX).contains(&chars) => Err(Error::BadKey(chars)),
        _ => Ok(()),
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        const NAME: &str = "orchestrator";
        let refuse = |status, code: &str, title| {
            Self::new(status, code, title, format!("failed to {error}"))
        };
        match &error {
            Error::Desk(DeskError::Faults(faults)) => {
                let faults = faults
                    .iter()
                    .map(|message| alicia_contract::problem::InputFault {
                        pointer: String::new(),
                        message: message.clone(),
                    });
                Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "orchestrator.faulty_file",
                    "The file has faults",
                    "nothing changed; mend the faults and try again",
                )
                .with_faults(faults.collect())
            }
            Error::Desk(DeskError::Forgotten) => refuse(
                StatusCode::CONFLICT,
                "orchestrator.forgotten_version",
                "It was read too long ago",
            ),
            Error::Desk(DeskError::NoHost) | Error::Ended(_) => {
                Self::unavailable(NAME, format!("failed to {error}"))
            }
            Error::Store(_) => Self::internal(NAME, &error),
            Error::Unknown(_) | Error::NothingBefore => refuse(
                StatusCode::NOT_FOUND,
                "orchestrator.unknown_deployment",
                "No such deployment",
            ),
            Error::EmptyFleet(_) => refuse(
                StatusCode::UNPROCESSABLE_ENTITY,
                "orchestrator.empty_fleet",
                "Everything would be removed",
            ),
            Error::UnknownService(_) => refuse(
                StatusCode::NOT_FOUND,
                "orchestrator.unknown_service",
                "No such service or group",
            ),
            Error::LongReason(_) => refuse(
                StatusCode::UNPROCESSABLE_ENTITY,
                "orchestrator.long_reason",
                "Too long a reason",
            ),
            Error::BadKey(_) => refuse(
                StatusCode::UNPROCESSABLE_ENTITY,
                "orchestrator.invalid_parameter",
                "Invalid parameter",
            ),
            Error::KeyUsed(_) => refuse(
                StatusCode::UNPROCESSABLE_ENTITY,
                "orchestrator.key_used",
                "The key was used for something else",
            ),
        }
    }
}

/// What the engine knows of each service: what people asked for, and whether any instance is there.
pub(crate) type Known = BTreeMap<ServiceName, (Overrides, bool)>;
