//! The OpenAPI 3.1 document, made from the operations of all modules.

use std::collections::BTreeMap;

use alicia_contract::id::ID_PATTERN;
use alicia_contract::problem::{PROBLEM_CONTENT_TYPE, Problem};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{Access, Documented, Operation};

/// The operations below one path.
#[derive(Debug, Clone)]
pub struct Group<'o> {
    /// The tag under which they are listed: the module's name.
    pub tag: &'o str,
    /// The path before theirs, for example `/api/registry`.
    pub path: String,
    /// The operations.
    pub operations: &'o [Operation],
}

/// The whole document.
#[must_use]
pub fn document(version: &str, groups: &[Group<'_>]) -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = SchemaGenerator::new(settings);
    let problem = generator.subschema_for::<Problem>().to_value();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for group in groups {
        for operation in group.operations {
            let path = format!("{}{}", group.path, operation.path);
            let item = paths.entry(path).or_default();
            let described = describe(group, operation, &mut generator);
            item.insert(operation.method.as_str().to_owned(), described);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Alicia",
            "version": version,
            "description": "Runs a fleet of services and agents on one machine. Every error is a problem document (RFC 9457).",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:4000" }],
        "tags": groups.iter().map(|group| json!({ "name": group.tag })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
            "responses": {
                "Problem": {
                    "description": "It was not done; the document says why and what to do.",
                    "content": { PROBLEM_CONTENT_TYPE: { "schema": problem } },
                },
            },
        },
    })
}

fn describe(group: &Group<'_>, operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut described = json!({
        "tags": [group.tag],
        "operationId": operation_id(group.tag, operation),
        "summary": operation.summary,
        "responses": responses(operation, generator),
    });
    let mut parameters = path_parameters(operation);
    parameters.extend(query_parameters(operation, generator));
    if !parameters.is_empty() {
        described["parameters"] = Value::Array(parameters);
    }
    if let Some(schema_of) = operation.body {
        let schema = schema_of(generator).to_value();
        described["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    if operation.access != Access::Open {
        described["security"] = json!([{ "key": [] }]);
    }
    if let Access::Scope(scope) = operation.access {
        let scope = format!("{scope:?}").to_lowercase();
        described["description"] = json!(format!("Needs a key with the scope {scope}."));
    }
    described
}

/// `get_registry_agents_id`: stable, and the same for the same route.
fn operation_id(tag: &str, operation: &Operation) -> String {
    let words = operation
        .path
        .split(['/', '{', '}', '-'])
        .filter(|word| !word.is_empty());
    [operation.method.as_str(), tag]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join("_")
}

/// Answers of the same status are one response in several forms; the first one's text describes it.
fn responses(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let problem = json!({ "$ref": "#/components/responses/Problem" });
    let mut responses = Map::new();
    for answer in &operation.answers {
        let media = media(answer, generator);
        let response = responses
            .entry(answer.status.to_string())
            .or_insert_with(|| json!({ "description": answer.text, "content": {} }));
        response["content"][answer.content_type] = media;
    }
    for (status, text) in &operation.refuses {
        let content = json!({ PROBLEM_CONTENT_TYPE: {
            "schema": generator.subschema_for::<Problem>().to_value()
        } });
        responses.insert(
            status.to_string(),
            json!({ "description": text, "content": content }),
        );
    }
    responses.insert("default".to_owned(), problem);
    Value::Object(responses)
}

fn media(answer: &Documented, generator: &mut SchemaGenerator) -> Value {
    let schema = match answer.schema {
        Some(schema_of) => schema_of(generator).to_value(),
        None => json!({ "type": "string" }),
    };
    json!({ "schema": schema })
}

fn path_parameters(operation: &Operation) -> Vec<Value> {
    let schema = if operation.path_params_are_ids {
        json!({ "type": "string", "pattern": ID_PATTERN })
    } else {
        json!({ "type": "string", "minLength": 1 })
    };
    let names = operation
        .path
        .split('/')
        .filter_map(|level| level.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": schema }))
        .collect()
}

/// Each field of the parameter type becomes a parameter.
fn query_parameters(operation: &Operation, generator: &mut SchemaGenerator) -> Vec<Value> {
    let Some(schema_of) = operation.params else {
        return Vec::new();
    };
    let schema = schema_of(generator).to_value();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let Some(fields) = schema["properties"].as_object() else {
        return Vec::new();
    };
    let parameter = |(name, field): (&String, &Value)| {
        let mut field = field.clone();
        let text = field
            .as_object_mut()
            .and_then(|field| field.remove("description"));
        let mut parameter = json!({
            "name": name,
            "in": "query",
            "required": required.contains(&json!(name)),
            "schema": without_null(field),
        });
        if let Some(text) = text {
            parameter["description"] = text;
        }
        parameter
    };
    fields.iter().map(parameter).collect()
}

/// An absent parameter is absent; there is no null in a query.
fn without_null(mut schema: Value) -> Value {
    if let Some(types) = schema["type"].as_array() {
        let left: Vec<Value> = types
            .iter()
            .filter(|kind| **kind != json!("null"))
            .cloned()
            .collect();
        if let [only] = left.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if let Some(branches) = schema["anyOf"].as_array() {
        let left: Vec<Value> = branches
            .iter()
            .filter(|branch| branch["type"] != json!("null"))
            .cloned()
            .collect();
        if let [only] = left.as_slice() {
            return only.clone();
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Api, Operation};
    use super::*;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Wanted {
        /// The label.
        label: Option<String>,
        limit: u8,
    }

    #[derive(Serialize, JsonSchema)]
    struct Agents(Vec<String>);

    async fn agents() -> Answer<Agents> {
        Answer(Agents(Vec::new()))
    }

    #[test]
    fn an_operation_is_described_in_full() {
        let api: Api = Api::new().with(
            Operation::get("/agents/{id}", "Finds.")
                .params::<Wanted>()
                .answers::<Agents>(200, "Found.")
                .answers_text(200, "text/plain", "As text."),
            agents,
        );
        let group = Group {
            tag: "registry",
            path: "/api/registry".into(),
            operations: api.operations(),
        };
        let document = document("1.0.0", &[group]);
        let operation = &document["paths"]["/api/registry/agents/{id}"]["get"];
        assert_eq!(operation["operationId"], "get_registry_agents_id");
        assert_eq!(operation["security"], json!([{ "key": [] }]));
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(schema["$ref"], "#/components/schemas/Agents");
        let content = &operation["responses"]["200"]["content"];
        assert_eq!(content["text/plain"]["schema"]["type"], "string");
        assert_eq!(operation["responses"]["200"]["description"], "Found.");
        assert!(document["components"]["schemas"]["Problem"].is_object());
        let names: Vec<&Value> = operation["parameters"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|p| &p["name"])
            .collect();
        assert_eq!(names, [&json!("id"), &json!("label"), &json!("limit")]);
        assert_eq!(operation["parameters"][1]["schema"]["type"], "string");
        assert_eq!(operation["parameters"][1]["description"], "The label.");
        assert_eq!(operation["parameters"][2]["required"], true);
    }
}
