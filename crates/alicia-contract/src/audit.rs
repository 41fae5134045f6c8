//! The audit log as it is read: who did what to what, from where, and how it ended; and what witnesses it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::topic::StateTopic;
use crate::unit::UnixSeconds;

/// The last signed checkpoint of the audit log: what a copy elsewhere is compared with.
pub const CHECKPOINT: StateTopic<AuditCheckpoint> = StateTopic::new("system/audit/checkpoint");

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditRow {
    /// The module whose row it is; `host` for keys, secrets, the file and the host itself.
    pub module: String,
    /// Its number in the module's log, without a gap.
    pub id: i64,
    /// When.
    pub at: UnixSeconds,
    /// Who, as identities are written: `key/admin`, `api`, `system/health`; `stranger` for somebody unknown.
    pub actor: String,
    /// What: `orchestrator.stop`.
    pub action: String,
    /// On what: `service:api`.
    pub target: String,
    /// `done`, `failed` or `denied`.
    pub outcome: String,
    /// From where: `rest 127.0.0.1:50412`, `bus`; empty when the module did it by itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// The trace of the request, to be found in the log too.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace: String,
    /// Anything else, without secrets.
    pub detail: Value,
}

/// Some rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditPage {
    /// The rows: newest first, or oldest first with `after`.
    pub rows: Vec<AuditRow>,
    /// `before` for the next older rows; none: there are no older ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// `after` for what comes later.
    pub after: String,
}

/// The end of a module's chain at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditHead {
    /// How many rows there were.
    pub rows: u64,
    /// The number of the last one; 0: none.
    pub id: i64,
    /// Its SHA-256, in hexadecimal.
    pub hash: String,
}

/// A signed checkpoint: what the chains of all modules ended in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditCheckpoint {
    /// 1 for the first, then one more each time.
    pub number: u64,
    /// When.
    pub at: UnixSeconds,
    /// The SHA-256 of the line before it in the file of checkpoints; empty for the first.
    pub before: String,
    /// The ends, by module.
    pub heads: BTreeMap<String, AuditHead>,
    /// The id of the key that signed it: the RFC 7638 thumbprint.
    pub key: String,
    /// An Ed25519 signature, in base64url, over the line of the file up to it; empty in the signed text itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub signature: String,
}

/// Something wrong with the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditFault {
    /// At which row or checkpoint; 0 when it is not about one.
    pub at: i64,
    /// What is wrong.
    pub what: String,
}

/// What was found in one module's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditChain {
    /// The module.
    pub module: String,
    /// How many rows there are.
    pub rows: u64,
    /// How many checkpoints witness it.
    pub witnesses: usize,
    /// What is wrong, at most a hundred.
    pub faults: Vec<AuditFault>,
}

/// What was found in the whole audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditVerdict {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// Each module's chain.
    pub chains: Vec<AuditChain>,
    /// The file of checkpoints.
    pub checkpoints_file: String,
    /// How many there are.
    pub checkpoints: u64,
    /// When the last one was made; rows after it have no witness yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_checkpoint: Option<UnixSeconds>,
    /// What is wrong with the checkpoints.
    pub checkpoint_faults: Vec<AuditFault>,
}
