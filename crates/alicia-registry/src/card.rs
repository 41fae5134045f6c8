//! An instance as an A2A agent card, signed by the house when it has a key for that.
//!
//! The card says what the registration says; nothing in it is fetched, and no address in it is followed.

pub mod canonical;

use std::collections::BTreeMap;

use alicia_contract::a2a::{
    AgentCapabilities, AgentCard, AgentCardSignature, AgentExtension, AgentInterface, AgentSkill,
    PROTOCOL_VERSION,
};
use alicia_contract::discovery::{Capability, Standing};
use serde_json::{Value, json};

use crate::core::{Entry, Registry};

/// What the house adds to a card: which instance it is, how it is, and where else it is reached.
pub const INSTANCE_EXTENSION: &str = "urn:alicia:extension:instance:1";

/// The type of the signed document, in the protected header.
pub const CARD_TYPE: &str = "JOSE";

/// How a JSON-RPC endpoint of A2A is named in a card.
const JSONRPC: &str = "JSONRPC";

const JSON: &str = "application/json";

/// The card of an instance.
#[must_use]
pub fn card(registry: &Registry, entry: &Entry) -> AgentCard {
    let said = &entry.registration;
    let standing = registry.standing(entry);
    let a2a = said.endpoints.a2a.as_ref();
    AgentCard {
        name: said.service.to_string(),
        description: description(entry),
        supported_interfaces: a2a
            .map(|url| AgentInterface {
                url: url.clone(),
                protocol_binding: JSONRPC.to_owned(),
                protocol_version: PROTOCOL_VERSION.to_owned(),
            })
            .into_iter()
            .collect(),
        version: said.version.clone(),
        capabilities: AgentCapabilities {
            extensions: vec![extension(entry, standing)],
        },
        default_input_modes: vec![JSON.to_owned()],
        default_output_modes: vec![JSON.to_owned()],
        skills: said.capabilities.iter().map(skill).collect(),
        signatures: Vec::new(),
    }
}

fn description(entry: &Entry) -> String {
    let said = &entry.registration;
    let own = said.metadata.get("description").and_then(Value::as_str);
    own.map_or_else(
        || {
            let kind = format!("{:?}", said.kind).to_lowercase();
            format!("The {kind} {}.", said.service)
        },
        str::to_owned,
    )
}

fn skill(capability: &Capability) -> AgentSkill {
    let name = capability.name.to_string();
    AgentSkill {
        description: capability
            .description
            .clone()
            .unwrap_or_else(|| format!("{name}, version {}", capability.version)),
        id: name.clone(),
        name,
        tags: capability.tags.clone(),
        input_modes: Vec::new(),
        output_modes: Vec::new(),
    }
}

/// Which instance it is and how it is. Health is that of the moment, so a card is not to be kept for long.
fn extension(entry: &Entry, standing: Option<Standing>) -> AgentExtension {
    let said = &entry.registration;
    let skills: BTreeMap<String, Value> = said
        .capabilities
        .iter()
        .map(|one| (one.name.to_string(), hints(one)))
        .collect();
    let endpoints = serde_json::to_value(&said.endpoints).unwrap_or_default();
    let params = [
        ("instance", json!(said.instance)),
        ("epoch", json!(said.epoch)),
        ("kind", json!(said.kind)),
        ("presence", json!(entry.presence)),
        ("standing", json!(standing)),
        ("endpoints", endpoints),
        ("skills", json!(skills)),
    ];
    AgentExtension {
        uri: INSTANCE_EXTENSION.to_owned(),
        description:
            "The instance behind this card, its health, and what A2A does not say of its skills."
                .to_owned(),
        params: params
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }
}

fn hints(capability: &Capability) -> Value {
    let said = [
        ("version", json!(capability.version)),
        ("inputSchema", capability.input_schema.clone()),
        ("outputSchema", capability.output_schema.clone()),
        ("costUsd", json!(capability.cost_usd)),
        ("latencyMs", json!(capability.latency_ms)),
    ];
    let said = said.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(said.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The bytes of a card that are signed: its canonical form without signatures.
///
/// # Panics
/// Never: a card is plain data.
#[must_use]
pub fn signed_bytes(card: &AgentCard) -> Vec<u8> {
    let unsigned = AgentCard {
        signatures: Vec::new(),
        ..card.clone()
    };
    let value = serde_json::to_value(unsigned).expect("a card is plain data");
    canonical::write(&value).into_bytes()
}

/// A signature as a card carries it.
#[must_use]
pub fn signature(protected: String, signature: String) -> AgentCardSignature {
    AgentCardSignature {
        protected,
        signature,
    }
}

#[cfg(test)]
mod tests;
