//! Secrets: from one place each, under names that do not meet.

use alicia_contract::fleet::SecretForm;

use super::Service;
use super::environment::is_name;
use crate::source::VARIABLE_PREFIX;
use crate::tree::pointer_to;

/// Descriptors that Alicia itself passes.
const RESERVED: [&str; 1] = ["identity"];

/// The most secrets of one service; each is a descriptor or a variable.
const SECRETS_MAX: usize = 64;

pub(super) fn check(service: &mut Service<'_, '_>) {
    let spec = service.spec;
    if spec.secrets.0.len() > SECRETS_MAX {
        let message = format!("{} secrets, at most {SECRETS_MAX}", spec.secrets.0.len());
        service.fault("secrets", message, "put what belongs together into one");
    }
    let mut variables = std::collections::BTreeMap::new();
    for (name, secret) in &spec.secrets.0 {
        let pointer = pointer_to(&service.pointer("secrets"), name.as_str());
        let variable = secret.variable_of(name);
        let mut fault = |message: String, hint: &str| service.report.value(&pointer, message, hint);
        if RESERVED.contains(&name.as_str()) && secret.form == SecretForm::Descriptor {
            fault(
                format!("the descriptor `{name}` is passed by Alicia itself"),
                "choose another name",
            );
        }
        if secret.store.is_some() && secret.file.is_some() {
            fault(
                "it comes from the store and from a file".to_owned(),
                "keep one of `store` and `file`",
            );
        }
        if secret.form == SecretForm::Descriptor && secret.variable.is_some() {
            let message = "`variable` says nothing about a descriptor".to_owned();
            fault(message, "add `as: environment`, or remove `variable`");
        }
        if secret.form == SecretForm::Environment {
            if !is_name(&variable) {
                let message = format!("`{variable}` is no name of an environment variable");
                fault(
                    message,
                    "use letters, digits and `_`, and no digit at the start",
                );
            } else if variable.starts_with(VARIABLE_PREFIX) {
                let message = format!("`{variable}` is set by Alicia itself");
                fault(message, "choose a name that does not start with ALICIA_");
            } else if spec.environment.contains_key(&variable) {
                let message = format!("`{variable}` is in `environment` too");
                fault(
                    message,
                    "keep one of them; a secret does not belong into the file",
                );
            }
        }
        if let Some(other) = variables.insert(variable.clone(), name) {
            fault(
                format!("`{variable}` is that of `{other}` too"),
                "choose another name",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use alicia_contract::ServiceName;
    use alicia_contract::fleet::{Fleet, ServiceSpec};
    use serde_json::{Value, json};

    fn faults(secrets: Value) -> Vec<String> {
        let spec = json!({"command": "a", "environment": {"TAKEN": "x"}, "secrets": secrets});
        let spec: ServiceSpec = serde_json::from_value(spec).expect("a service");
        let services = [(ServiceName::new("api").expect("a name"), spec.into())].into();
        let fleet = Fleet {
            services,
            ..Fleet::default()
        };
        let faults = crate::fleet::check(&fleet, None);
        faults.into_iter().map(|fault| fault.message).collect()
    }

    #[test]
    fn what_cannot_be_given_is_told() {
        let check = |secrets: Value, expected: &[&str]| {
            let found = faults(secrets.clone());
            assert_eq!(found.len(), expected.len(), "{secrets}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.contains(expected), "{secrets}: {found}");
            }
        };
        check(json!(["a", "b"]), &[]);
        check(
            json!({"a": {"file": "a.txt"}, "b": {"as": "environment", "variable": "TOKEN"}}),
            &[],
        );
        check(json!(["identity"]), &["passed by Alicia itself"]);
        check(json!({"identity": {"as": "environment"}}), &[]);
        check(
            json!({"a": {"file": "a.txt", "store": "b"}}),
            &["from the store and from a file"],
        );
        check(json!({"a": {"variable": "X"}}), &["says nothing"]);
        check(
            json!({"a": {"as": "environment", "variable": "1x"}}),
            &["no name"],
        );
        check(
            json!({"a": {"as": "environment", "variable": "ALICIA_X"}}),
            &["set by Alicia"],
        );
        check(
            json!({"taken": {"as": "environment"}}),
            &["in `environment` too"],
        );
        check(
            json!({"a": {"as": "environment", "variable": "X"}, "b": {"as": "environment", "variable": "X"}}),
            &["is that of `a` too"],
        );
        let many: Vec<String> = (0..65).map(|number| format!("s{number}")).collect();
        check(json!(many), &["65 secrets"]);
    }
}
