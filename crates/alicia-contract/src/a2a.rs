//! The agent card of A2A 1.0: who an agent is, where it is reached and what it can do.
//!
//! Fields, their names in JSON and which of them are required: the A2A specification 1.0, section 4.4, and its
//! `specification/a2a.proto` at tag v1.0.1 (github.com/a2aproject/A2A). Only what this build fills in is here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the protocol that these cards follow.
pub const PROTOCOL_VERSION: &str = "1.0";

/// The card of one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentCard {
    /// A name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Where it is reached, the preferred place first. Empty: it does not speak A2A; the extension says where
    /// else it is reached.
    pub supported_interfaces: Vec<AgentInterface>,
    /// The version of the agent.
    pub version: String,
    /// What of the protocol it supports.
    pub capabilities: AgentCapabilities,
    /// Media types that it takes.
    pub default_input_modes: Vec<String>,
    /// Media types that it gives.
    pub default_output_modes: Vec<String>,
    /// What it can do.
    pub skills: Vec<AgentSkill>,
    /// Signatures of the card: JWS over its canonical form (RFC 8785) without this field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<AgentCardSignature>,
}

/// A place where an agent is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentInterface {
    /// The address.
    pub url: String,
    /// How it is spoken to there: `JSONRPC`, `GRPC`, `HTTP+JSON`.
    pub protocol_binding: String,
    /// The version of A2A that is spoken there: `1.0`.
    pub protocol_version: String,
}

/// What of the protocol an agent supports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentCapabilities {
    /// Extensions of the protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<AgentExtension>,
}

/// An extension of the protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentExtension {
    /// What identifies it.
    pub uri: String,
    /// What this agent says by it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Value>,
}

/// Something that an agent can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentSkill {
    /// The name of the capability.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// What it does.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Media types that it takes, where they differ from the agent's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub input_modes: Vec<String>,
    /// Media types that it gives, where they differ from the agent's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_modes: Vec<String>,
}

/// A signature of a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentCardSignature {
    /// The protected header, base64url of JSON (RFC 7515).
    pub protected: String,
    /// The signature, base64url.
    pub signature: String,
}
