//! Whatever the bytes are: no panic, no long wait, and every position inside of the file.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use alicia_contract::ServiceName;
use alicia_contract::fleet::{Fleet, SERVICES_MAX, ServiceSpec};
use alicia_file::{Document, Fault, Origin, Schema, Sources, env_file, fleet, graph};
use proptest::prelude::*;
use schemars::JsonSchema;

/// A file of services only.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct File {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    services: BTreeMap<ServiceName, ServiceSpec>,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::compile(schemars::schema_for!(File).to_value()).expect("it is a schema")
});

fn faults(bytes: &[u8]) -> Vec<Fault> {
    let document = match Document::parse(Sources::new().file("a.yaml", bytes)) {
        Ok(document) => document,
        Err(faults) => return faults,
    };
    let mut faults = document.check(&SCHEMA);
    if faults.is_empty() {
        let fleet: Fleet = match fleet::read(&document) {
            Ok(fleet) => fleet,
            Err(faults) => return faults,
        };
        faults.extend(fleet::check(&fleet, Some(&document)));
    }
    faults
}

/// Each fault stands in the file, can be shown, and underlines something that is there.
fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let text = text
        .trim_start_matches('\u{feff}')
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    let lines: Vec<&str> = text.split('\n').collect();
    for fault in faults(bytes) {
        let shown = fault.to_string();
        assert!(!shown.is_empty());
        let Origin::File { line, column, .. } = fault.origin else {
            continue;
        };
        let content = lines.get(line as usize - 1);
        let content = content.expect("the line is in the file");
        let length = content.chars().count();
        assert!(
            column as usize <= length + 1,
            "column {column} of {length}: {shown}"
        );
        let excerpt = fault.excerpt.expect("a line that is there is shown");
        let end = excerpt.start + excerpt.width;
        assert!(end <= excerpt.text.chars().count() + 1, "{shown}");
    }
}

/// Texts that look like a fleet, with something wrong here and there.
fn nearly_yaml() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "services:",
        "  api:",
        "    command: x",
        "command",
        "depends_on: [a, b]",
        "- ",
        "  ",
        "\n",
        "\n    ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        "&a ",
        "*a",
        "!!str ",
        "!x ",
        "|",
        ">",
        "#",
        "\t",
        "---",
        "...",
        "%",
        "? ",
        "null",
        "true",
        "1.5",
        "30s",
        "ä",
        "\u{1f600}",
        "\r\n",
        "\r",
        "\u{85}",
        "\u{2028}",
        ",",
        "<<: *a",
        "readiness: {http: {port: 0}}",
        "ports: {http: auto}",
        "environment: {A: 1.10}",
        "\u{feff}",
        "\\",
        "@",
        "`",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// The largest fleet is read in the time of its size, not of its square.
#[test]
fn ten_thousand_services_are_read_and_ordered() {
    let service = |n: usize| {
        let needs = n.saturating_sub(1);
        format!(
            "  s{n}:\n    command: sh -c true\n    depends_on: [s{needs}]\n    ports: {{http: auto}}\n"
        )
    };
    let services: String = (1..SERVICES_MAX).map(service).collect();
    let text = format!("services:\n  s0:\n    command: sh\n{services}");
    #[expect(clippy::disallowed_methods, reason = "the test measures real time")]
    let started = std::time::Instant::now();
    let document = Document::parse(Sources::new().file("a.yaml", text)).expect("it is good");
    assert_eq!(document.check(&SCHEMA), []);
    let fleet = fleet::read(&document).expect("it fits");
    assert_eq!(fleet::check(&fleet, Some(&document)), []);
    assert_eq!(graph::order(&fleet).expect("no cycle").len(), SERVICES_MAX);
    let took = started.elapsed();
    assert!(took.as_secs() < 60, "took {took:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&bytes);
    }

    #[test]
    fn random_text_is_read_or_refused(text in "\\PC{0,200}") {
        check(text.as_bytes());
    }

    #[test]
    fn what_looks_like_a_fleet_is_read_or_refused(text in nearly_yaml()) {
        check(text.as_bytes());
        // A file of variables may hold the same text.
        drop(env_file::parse(".env", text.as_bytes()));
    }
}
