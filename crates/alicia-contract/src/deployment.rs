//! Deployments: versions of the fleet that were accepted, what each changes, and what became of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fleet::UpdateStrategy;
use crate::id::ServiceName;
use crate::topic::{EventTopic, StateTopic};
use crate::unit::UnixSeconds;

/// Each step of a deployment, as it happens.
pub const DEPLOYMENTS: EventTopic<Deployment> = EventTopic::new("system/orchestrator/deployments");

/// The newest deployment as it is now: for who was not there when it was told.
pub const NEWEST: StateTopic<Deployment> = StateTopic::new("system/orchestrator/deployment");

/// What a deployment would do with one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// It is new, and starts.
    Start,
    /// It is no longer in the file, and stops.
    Stop,
    /// Its instances end, and start again with the new settings.
    Restart,
    /// New instances start beside the old ones, and replace them.
    Update,
    /// The number of its instances changes.
    Scale,
    /// Its settings change while it runs.
    Apply,
    /// Nothing changes.
    Stay,
}

/// When a changed setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// At once; the process goes on.
    InPlace,
    /// With the next start, whenever that is; nothing is restarted for it.
    NextStart,
    /// With a new process, which the deployment starts.
    NewProcess,
}

/// One setting that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FieldChange {
    /// The path below the service: `environment.LEVEL`.
    pub field: String,
    /// What runs now; null: it is not set. A value that looks like a secret is `(secret)`.
    pub old: Value,
    /// What would run; null: it is not set.
    pub new: Value,
    /// When it takes effect.
    pub effect: Effect,
    /// Why then, in words.
    pub why: String,
}

/// What a deployment would do with one service, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceChange {
    /// The service.
    pub service: ServiceName,
    /// What.
    pub change: ChangeKind,
    /// For `update`: in which steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<UpdateStrategy>,
    /// Why, in words.
    pub why: String,
    /// The settings that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// What people asked for beside the file, where it decides: `stopped by hand`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}

/// What a deployment would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentPlan {
    /// Whether anything would change.
    pub changes: bool,
    /// The deployment in force, by its number; none before the first.
    pub from: Option<u64>,
    /// The digest of the fleet that was looked at.
    pub digest: String,
    /// Every service, those that change first, each group in the order of start.
    pub services: Vec<ServiceChange>,
    /// Parts of the file beside `services` that differ from what was read last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<String>,
}

/// Where a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentState {
    /// Written down, and being carried out.
    UnderWay,
    /// Every service that it touched has come to rest as wanted.
    Done,
    /// Some services did not come up, and stay as they are.
    Failed,
    /// Some services did not come up, and went back to what they had.
    Reverted,
    /// A newer one came before it was done.
    Superseded,
}

/// What became of one service in a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceOutcome {
    /// `under-way`, `done`, `failed` or `reverted`.
    pub state: DeploymentState,
    /// Why, in words; of an update that goes on: how far it is.
    pub detail: String,
    /// The last lines of the instance that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
}

/// One accepted version of the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Deployment {
    /// Rises by one.
    pub number: u64,
    /// When it was accepted.
    pub at: UnixSeconds,
    /// Who asked, as identities are written; `system/host` for a file that changed while no host ran.
    pub actor: String,
    /// Why, when somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The digest of the fleet.
    pub digest: String,
    /// For a return to an earlier one: which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_to: Option<u64>,
    /// Where it is.
    pub state: DeploymentState,
    /// What became of it, in words.
    pub detail: String,
    /// When it came to an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<UnixSeconds>,
    /// The services that it touched.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, ServiceOutcome>,
}
