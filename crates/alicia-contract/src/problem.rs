//! The problem document (RFC 9457): the one shape of every error that REST answers with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `Content-Type` of a problem document.
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

/// What went wrong, for a person (`title`, `detail`) and for a program (`code`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The address of the page that explains the code: `/docs/errors/<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One line, the same for every occurrence of the code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time and what to do.
    pub detail: String,
    /// Stable and dotted: `<module>.<what>`, for example `orchestrator.unknown_service`.
    pub code: String,
    /// The id of the request, as in the logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Each single fault of the input, when there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<InputFault>,
}

/// One fault of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InputFault {
    /// Where, as a JSON pointer (RFC 6901) into the body, or the name of the parameter.
    pub pointer: String,
    /// What was found and what was expected.
    pub message: String,
}
