//! What services offer: versions, names that are there once, schemas that are schemas.

use std::collections::BTreeSet;

use semver::Version;
use serde_json::Value;

use super::Service;
use crate::schema::Schema;

/// Most capabilities of one service, as the registry takes them.
const CAPABILITIES_MAX: usize = 64;

pub(super) fn check(service: &mut Service<'_, '_>) {
    let spec = service.spec;
    check_version(service, "version", spec.version.as_deref());
    let count = spec.capabilities.len();
    if count > CAPABILITIES_MAX {
        let message = format!("{count} capabilities, at most {CAPABILITIES_MAX}");
        service.fault("capabilities", message, "split the service");
    }
    let mut names = BTreeSet::new();
    for (at, capability) in spec.capabilities.iter().enumerate() {
        let part = |field: &str| format!("capabilities/{at}/{field}");
        if !names.insert(&capability.name) {
            let message = format!("the capability `{}` is there twice", capability.name);
            service.fault(&part("name"), message, "a call could not tell them apart");
        }
        check_version(service, &part("version"), capability.version.as_deref());
        for (field, schema) in [("input", &capability.input), ("output", &capability.output)] {
            let Some(schema) = schema else {
                continue;
            };
            if let Err(error) = Schema::compile(Value::Object(schema.clone())) {
                let hint = "write for example `{type: object, properties: {city: {type: string}}}`";
                service.fault(
                    &part(field),
                    format!("this is no JSON Schema: {error}"),
                    hint,
                );
            }
        }
    }
}

fn check_version(service: &mut Service<'_, '_>, part: &str, version: Option<&str>) {
    let Some(version) = version else {
        return;
    };
    if Version::parse(version).is_err() {
        let message = format!("`{version}` is no semantic version");
        service.fault(part, message, "write for example `1.0.0`");
    }
}

#[cfg(test)]
mod tests {
    use crate::{Document, Sources, fleet};

    /// Position and message of each fault.
    fn faults(yaml: &str) -> Vec<String> {
        let document = Document::parse(Sources::new().file("a", yaml)).expect("it is YAML");
        let fleet = fleet::read(&document).expect("it has the shape");
        fleet::check(&fleet, Some(&document))
            .iter()
            .map(|fault| format!("{}: {}", fault.origin, fault.message))
            .collect()
    }

    #[test]
    fn names_that_are_levels_of_topics_are_reserved() {
        for name in alicia_contract::discovery::RESERVED_NAMES {
            let found = faults(&format!("services:\n  {name}: {{command: x}}\n"));
            let expected = format!("a:2:3: the name `{name}` is reserved for Alicia itself");
            assert_eq!(found, [expected]);
        }
    }

    #[test]
    fn capabilities_are_checked() {
        let good = "services:\n  api:\n    command: x\n    version: 1.0.0\n    kind: agent\n    capabilities:\n      - {name: a, version: 2.1.0, input: {type: object}, tags: [x], cost_usd: 0.1}\n";
        assert!(faults(good).is_empty());
        let bad = "services:\n  api:\n    command: x\n    version: one\n    capabilities:\n      - {name: a, version: '2'}\n      - {name: a, input: {type: text}}\n";
        let found = faults(bad);
        let expected = [
            "a:4:14: `one` is no semantic version",
            "a:6:28: `2` is no semantic version",
            "a:7:16: the capability `a` is there twice",
            "a:7:19: this is no JSON Schema",
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
