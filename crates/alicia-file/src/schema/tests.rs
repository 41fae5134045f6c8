use alicia_contract::fleet::ServiceSpec;
use schemars::JsonSchema;
use serde::Deserialize;

use super::*;
use crate::source::Sources;

/// A small file of the same shape as the real one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct File {
    name: Option<String>,
    http: Option<Http>,
    #[serde(default)]
    services: std::collections::BTreeMap<alicia_contract::ServiceName, ServiceSpec>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct Http {
    listen: String,
    #[serde(default)]
    open: bool,
}

fn schema() -> Schema {
    Schema::compile(schemars::schema_for!(File).to_value()).expect("a schema of schemars is one")
}

#[test]
#[ignore]
fn show() {
    println!(
        "{}",
        serde_json::to_string_pretty(&schema().root).expect("x")
    );
    for text in [
        "services:\n  api:\n    comand: x\n",
        "services:\n  a:\n    command: 5\n    restart: allways\n    readiness: {http: {port: 0}, interval: 5, x: 1}\n    ports: {http: atuo, b: 99999}\n    depends_on: {b: healty}\n    instances: -1\n    back_off: {factor: 20}\n    command2: 1\n  B_c:\n    command: []\n",
    ] {
        let document = Document::parse(Sources::new().file("alicia.yaml", text)).expect(text);
        for fault in document.check(&schema()) {
            println!("{fault}");
        }
    }
}
