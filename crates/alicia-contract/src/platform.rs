//! What the host says of itself: modules, keys, where it listens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identity::Grant;
use crate::unit::UnixSeconds;

/// How a part is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "status", content = "detail")]
pub enum PartHealth {
    /// Works.
    Ok,
    /// Works, with less than it should have; why.
    Degraded(String),
    /// Does not work; why.
    Failed(String),
}

/// One module of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleStatus {
    /// The name.
    pub module: String,
    /// How it is.
    pub health: PartHealth,
    /// Since when it runs.
    pub since: UnixSeconds,
    /// How often it was restarted after a fault.
    pub restarts: u32,
}

/// `GET /health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostHealth {
    /// `ok`, `degraded` or `failed`: the worst of the modules.
    pub status: String,
    /// The version of Alicia.
    pub version: String,
    /// Seconds since the host started.
    pub uptime_s: f64,
    /// Every module.
    pub modules: Vec<ModuleStatus>,
}

/// What an API key may do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look at everything: GET in REST, subscribe on the bus.
    Read,
    /// And start, stop, restart, scale; publish commands on the bus.
    Operate,
    /// And all else: keys, the file, the host.
    Admin,
}

/// An API key as it is listed; the secret is never shown again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KeyInfo {
    /// The name, unique; also the user name on the bus.
    pub name: String,
    /// The first characters, to tell keys apart.
    pub prefix: String,
    /// What it may do, as a step of the ladder; none: only what `scopes` say.
    #[serde(default)]
    pub scope: Option<Scope>,
    /// What a key of limited scope may do: `orchestrator:restart`, `health:ack`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Grant>,
    /// When it was made.
    pub created: UnixSeconds,
    /// When it ends; none: never.
    pub expires: Option<UnixSeconds>,
    /// When it was last used, to a minute or so; none: never, or not known any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<UnixSeconds>,
}

/// A request for a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// The name: `[a-z0-9-]{1,63}`.
    pub name: crate::id::ServiceName,
    /// What it may do, as a step of the ladder. Either this or `scopes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// What a key of limited scope may do: `orchestrator:restart`, `health:ack`, `registry:*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Grant>,
    /// Days until it ends; none: never.
    #[serde(default)]
    #[schemars(range(min = 1, max = 3650))]
    pub expires_days: Option<u32>,
}

/// A new key: the only time the secret is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CreatedKey {
    /// What it is.
    #[serde(flatten)]
    pub info: KeyInfo,
    /// The key itself.
    pub key: String,
}

/// A stored secret without its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SecretInfo {
    /// Its name.
    pub name: String,
    /// 1 when it was first set, then one more with each change.
    pub version: u64,
    /// When it was first set.
    pub created: UnixSeconds,
    /// When it was last changed.
    pub changed: UnixSeconds,
    /// The services of the file that get it.
    pub used_by: Vec<crate::id::ServiceName>,
}

/// `host.json` in the data directory: where a running host is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFile {
    /// The process id of the host.
    pub pid: u32,
    /// The base URL of REST.
    pub api: String,
    /// The URL of the bus.
    pub bus: Option<String>,
    /// The version of Alicia.
    pub version: String,
    /// The directory of the file that it runs, so that nobody takes it for the host of another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}
