//! The OpenAPI document as a page that one can read, and the pages of error codes. No script, no request
//! to anywhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

const STYLE: &str = include_str!("docs.css");

/// The page of the whole document.
pub(super) fn page(openapi: &Value) -> String {
    let empty = serde_json::Map::new();
    let paths = openapi["paths"].as_object().unwrap_or(&empty);
    let operations = || {
        paths.iter().flat_map(|(path, item)| {
            item.as_object()
                .into_iter()
                .flatten()
                .map(move |(method, operation)| (path, method, operation))
        })
    };
    let tags: Vec<&str> = openapi["tags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|tag| tag["name"].as_str())
        .collect();
    let body = html! {
        h1 { "Alicia " (openapi["info"]["version"].as_str().unwrap_or_default()) " · REST" }
        p {
            "Send a key as " code { "Authorization: Bearer alk_…" } ". Errors are problem documents with a stable "
            code { "code" } ". The machine-readable form is " a href="/openapi.json" { "openapi.json" } "."
        }
        nav { @for tag in &tags { a href={ "#" (tag) } { (tag) } " " } }
        @for tag in &tags {
            h2 id=(tag) { (tag) }
            @for (path, method, operation) in operations().filter(|(.., operation)| operation["tags"][0] == **tag) {
                (section(path, method, operation))
            }
        }
    };
    layout("REST", &body)
}

fn section(path: &str, method: &str, operation: &Value) -> Markup {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    html! {
        section id=(text(&operation["operationId"])) {
            h3 { span class="method" { (method.to_uppercase()) } " " code { (path) } }
            p { (text(&operation["summary"])) " " (text(&operation["description"])) }
            @if let Some(parameters) = operation["parameters"].as_array() {
                table {
                    tr { th { "parameter" } th { "in" } th { "type" } th { "" } }
                    @for parameter in parameters {
                        tr {
                            td { code { (text(&parameter["name"])) } }
                            td { (text(&parameter["in"])) }
                            td { (kind(&parameter["schema"])) }
                            td { (text(&parameter["description"])) }
                        }
                    }
                }
            }
            @if let Some(content) = operation["requestBody"]["content"].as_object() {
                p { "Body: " @for (_, media) in content { code { (kind(&media["schema"])) } } }
            }
            ul {
                @for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                    @if status != "default" { li { b { (status) } " " (text(&response["description"])) } }
                }
            }
        }
    }
}

/// The type of a schema in a word.
fn kind(schema: &Value) -> String {
    match (
        schema["$ref"].as_str(),
        schema["type"].as_str(),
        schema["items"].is_object(),
    ) {
        (Some(reference), ..) => reference.rsplit('/').next().unwrap_or_default().to_owned(),
        (None, Some("array"), true) => format!("list of {}", kind(&schema["items"])),
        (None, Some(kind), _) => kind.to_owned(),
        (None, None, _) => "any".to_owned(),
    }
}

/// The page of an error code. Its text is Markdown and reads well as it is.
pub(super) fn error_page(code: &str, text: &str) -> String {
    let body = html! {
        p { a href="/docs" { "REST" } }
        h1 { code { (code) } }
        pre { (text) }
    };
    layout(code, &body)
}

fn layout(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Alicia" }
                // Without it a browser asks for /favicon.ico.
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    };
    page.into_string()
}
