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
