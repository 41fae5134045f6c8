//! What does not fit together in updates, scaling and services on demand, and what is said about it.

use alicia_contract::ServiceName;
use alicia_contract::fleet::Port;
use alicia_file::{Document, Sources, fleet};

/// The faults of services that fit the schema: line and column, message, hint.
fn faults(services: &str) -> Vec<String> {
    let yaml = format!("services:\n{services}");
    let document = Document::parse(Sources::new().file("a.yaml", yaml)).expect("it is YAML");
    let fleet = fleet::read(&document).expect("it fits the types");
    let told = fleet::check(&fleet, Some(&document));
    told.iter()
        .map(|fault| {
            let hint = fault.hint.as_deref().unwrap_or_default();
            format!("{}: {} | {hint}", fault.origin, fault.message)
        })
        .collect()
}

fn check(services: &str, expected: &[&[&str]]) {
    let found = faults(services);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, words) in found.iter().zip(expected) {
        for word in *words {
            assert!(found.contains(word), "{word:?} is not in {found:?}");
        }
    }
}

#[test]
fn two_versions_need_ports_that_both_can_have() {
    check(
        "  a: {command: x, ports: {http: 8080}, update: {}}\n",
        &[&[
            "a.yaml:2:33",
            "cannot both listen on port 8080",
            "held: true",
            "`auto`",
            "`recreate`",
        ]],
    );
    for good in [
        "{http: auto}",
        "{http: {number: 8080, held: true}}",
        "{http: {number: auto, held: true}}",
    ] {
        check(
            &format!("  a: {{command: x, ports: {good}, update: {{}}}}\n"),
            &[],
        );
    }
    check(
        "  a: {command: x, ports: {http: 8080}, update: {strategy: recreate}}\n",
        &[],
    );
    // One that says that it is not held is a fixed one.
    check(
        "  a: {command: x, instances: 2, ports: {http: {number: 8080, held: false}}}\n",
        &[&["2 instances cannot share the port 8080", "held: true"]],
    );
    check(
        "  a: {command: x, instances: 2, ports: {http: {number: 8080, held: true}}}\n",
        &[],
    );
    check(
        "  a: {command: x, ports: {http: {number: 8080, held: true}}}\n  b: {command: x, ports: {http: 8080}}\n",
        &[&["the port 8080 is that of `http` of `a` too"]],
    );
}

#[test]
fn readiness_must_ask_the_new_instance_and_no_other() {
    let service = |ports: &str, readiness: &str| {
        format!("  a: {{command: x, ports: {ports}, readiness: {readiness}, update: {{}}}}\n")
    };
    let held = "{http: {number: 8080, held: true}}";
    let both = "{http: {number: 8080, held: true}, admin: auto}";
    let said: &[&[&str]] = &[&["readiness asks a held port", "`admin: auto`"]];
    check(&service(held, "{http: {}}"), said);
    check(&service(held, "{tcp: {port: 8080}}"), said);
    check(&service(both, "{tcp: {port: 8080}}"), said);
    check(&service(both, "{http: {}}"), &[]);
    check(&service(held, "{log_line: {contains: ready}}"), &[]);
    check(&service(held, "{exec: {command: [echo]}}"), &[]);
}

#[test]
fn the_port_of_a_probe_is_rather_one_that_is_not_shared() {
    let port_of = |ports: &str| {
        let yaml = format!("{{command: x, ports: {ports}}}");
        let document = Document::parse(Sources::new().file("a.yaml", yaml)).expect("YAML");
        let spec = document.get("").expect("a service").expect("it is there");
        fleet::probe_port(&spec).map(|(name, port)| (name.clone(), port))
    };
    let name = |text: &str| ServiceName::new(text).expect("a name");
    let held = "http: {number: 8080, held: true}";
    assert_eq!(
        port_of(&format!("{{{held}, admin: auto}}")),
        Some((name("admin"), Port::Auto))
    );
    assert_eq!(
        port_of(&format!("{{{held}}}")),
        Some((name("http"), Port::Held(Some(8080))))
    );
    assert_eq!(
        port_of("{http: auto, admin: 81}"),
        Some((name("http"), Port::Auto))
    );
    assert_eq!(port_of("{a: auto, b: 81}"), None);
}

#[test]
fn numbers_of_updates_and_scaling_make_sense() {
    check(
        "  a: {command: x, update: {deadline: 0s, surge: 0, canary: {instances: 1001}}}\n",
        &[
            &["`deadline` is 0s"],
            &["found 0, expected 1 to 1000"],
            &["found 1001, expected 1 to 1000"],
        ],
    );
    check(
        "  a: {command: x, instances: 7, scaling: {min: 3, max: 5, cpu: 0.5}}\n",
        &[&["`instances` is 7", "write `instances: 5`"]],
    );
    check(
        "  a: {command: x, instances: 3, scaling: {min: 3, max: 2}}\n",
        &[&["nothing is measured"], &["`min` is 3"]],
    );
    check(
        "  a: {command: x, ports: {http: 80}, scaling: {min: 1, max: 2, average: {latency_ms: -1}}}\n",
        &[
            &["2 instances cannot share the port 80"],
            &["a target is more than 0"],
        ],
    );
    check(
        "  a: {command: x, scaling: {min: 1, max: 9, cpu: 0.7, per_instance: {queue: 10}}}\n",
        &[],
    );
}

#[test]
fn on_demand_needs_a_held_port() {
    check(
        "  a: {command: x, on_demand: {idle_after: 0s}, scaling: {min: 1, max: 2, cpu: 1.0}}\n",
        &[
            &["both decide how many"],
            &["needs a port that Alicia holds"],
            &["`idle_after` is 0s"],
        ],
    );
    check(
        "  a: {command: x, on_demand: {}, ports: {http: {number: 8080, held: true}}}\n",
        &[],
    );
}
