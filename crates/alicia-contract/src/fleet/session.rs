//! How an agent goes on where it was.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// For programs that go on where they were: each instance gets a directory of its own that stays
/// (`ALICIA_STATE_DIR`), and a run that follows one that did not end with success is told so
/// (`ALICIA_RESUME=1`). `ALICIA_EPOCH` tells an old copy from a new one: it rises with each start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Session {
    /// Arguments that are added to `command` for a run that goes on: `[--resume]`. `{state}` stands for
    /// the directory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resume_arguments: Vec<String>,
}
