//! The AsyncAPI 3 document of every topic and message, written from the protocol types.

use alicia_contract::catalogue::{Entry, Kind, SchemaOf, TOPICS};
use alicia_contract::{Envelope, Prefix};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// Where schemas stand in the document, as a JSON pointer.
const SCHEMAS: &str = "/components/schemas";

/// The document for the fleet with this prefix.
#[must_use]
pub fn document(prefix: &Prefix) -> Value {
    let mut schemas = SchemaSettings::draft07()
        .with(|settings| settings.definitions_path = SCHEMAS.into())
        .into_generator();
    let envelope = schemas.subschema_for::<Envelope>();
    let mut channels = Map::new();
    let mut operations = Map::new();
    let mut messages = Map::new();
    for entry in TOPICS {
        let key = key(entry);
        for (role, schema) in roles(entry) {
            let payload = schema(&mut schemas);
            let payload = json!({
                "allOf": [envelope.clone(), { "properties": { "payload": payload } }]
            });
            messages.insert(
                message_key(&key, role),
                json!({ "contentType": "application/json", "payload": payload }),
            );
        }
        channels.insert(key.clone(), channel(prefix, entry, &key));
        operations.insert(key.clone(), operation(entry, &key));
    }
    document_of(channels, operations, messages, &mut schemas)
}

fn document_of(
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    messages: Map<String, Value>,
    schemas: &mut SchemaGenerator,
) -> Value {
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Alicia",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every topic of the bus. A message is a JSON envelope; a bare payload is \
                accepted from an authenticated client. Delivery may repeat and delay, and events may \
                be missed.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas.take_definitions(true) },
    })
}

/// `health::HEARTBEAT` as `health.heartbeat`.
fn key(entry: &Entry) -> String {
    entry.name.replace("::", ".").to_ascii_lowercase()
}

fn message_key(key: &str, role: &str) -> String {
    match role {
        "" => key.to_owned(),
        role => format!("{key}.{role}"),
    }
}

/// The messages of a topic, each with its role.
fn roles(entry: &Entry) -> Vec<(&'static str, SchemaOf)> {
    match entry.kind {
        Kind::Event(message) | Kind::State(message) => vec![("", message)],
        Kind::Call(request, answer) => vec![("request", request), ("answer", answer)],
    }
}

fn channel(prefix: &Prefix, entry: &Entry, key: &str) -> Value {
    let (kind, is_retained) = match entry.kind {
        Kind::Event(_) => ("event", false),
        Kind::State(_) => ("state", true),
        Kind::Call(..) => ("call", false),
    };
    let messages: Map<String, Value> = roles(entry)
        .into_iter()
        .filter(|(role, _)| *role != "answer")
        .map(|(role, _)| reference(&message_key(key, role)))
        .collect();
    let mut channel = json!({
        "address": format!("{prefix}/{}", entry.template),
        "summary": entry.summary,
        "description": format!("A {kind}. Published by: {}.", entry.publisher),
        "messages": messages,
        "x-alicia-kind": kind,
        "bindings": { "mqtt": { "qos": 1, "retain": is_retained } },
    });
    let parameters: Map<String, Value> = entry
        .template
        .split('/')
        .filter_map(|level| level.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| (name.to_owned(), parameter(entry, name)))
        .collect();
    if !parameters.is_empty() {
        channel["parameters"] = Value::Object(parameters);
    }
    channel
}

/// What stands in the place of a varying level, as far as that is a list.
fn parameter(entry: &Entry, name: &str) -> Value {
    match name {
        "verb" => json!({ "enum": entry.verbs }),
        _ => json!({}),
    }
}

fn reference(message: &str) -> (String, Value) {
    let reference = json!({ "$ref": format!("#/components/messages/{message}") });
    (message.to_owned(), reference)
}

fn operation(entry: &Entry, key: &str) -> Value {
    let mut operation = json!({
        "action": "send",
        "channel": { "$ref": format!("#/channels/{key}") },
        "summary": entry.summary,
    });
    if let Kind::Call(..) = entry.kind {
        let answer = message_key(key, "answer");
        operation["reply"] = json!({
            "address": {
                "location": "$message.payload#/reply_to",
                "description": "Or the MQTT 5 response topic."
            },
            "messages": [{ "$ref": format!("#/components/messages/{answer}") }],
        });
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document(&Prefix::default());
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > TOPICS.len());
        for reference in references {
            let pointer = reference.strip_prefix('#').expect("is local");
            assert!(
                document.pointer(pointer).is_some(),
                "{reference} leads nowhere"
            );
        }
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get("$ref") {
                    references.push(reference.clone());
                }
                object.values().for_each(|value| collect(value, references));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
            _ => {}
        }
    }

    #[test]
    fn a_topic_is_described_with_its_parameters_and_messages() {
        let document = document(&Prefix::new("home").expect("is an id"));
        let channel = &document["channels"]["health.heartbeat"];
        assert_eq!(channel["address"], "home/system/health/{service}");
        assert!(channel["parameters"]["service"].is_object());
        let verbs = &document["channels"]["orchestrator.requests"]["parameters"]["verb"]["enum"];
        assert_eq!(verbs[0], "start");
        let state = &document["channels"]["orchestrator.status"];
        assert_eq!(state["bindings"]["mqtt"]["retain"], true);
        let reply = &document["operations"]["orchestrator.requests"]["reply"];
        assert!(reply.is_object());
    }
}
