//! The secrets of one start: read when they are needed, handed to the keeper, forgotten.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use alicia_contract::ServiceName;
use alicia_contract::fleet::{SecretForm, SecretSpec, ServiceSpec};
use alicia_keeper::protocol::PassedFile;
use alicia_module::paths::Paths;
use alicia_secrets::{Secret, VALUE_BYTES_MAX, Vault};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::environment::Variables;
use crate::core::event::SpawnFault;

/// What a start gives to a process.
#[derive(Default)]
pub(crate) struct Given {
    pub(crate) passed: Vec<PassedFile>,
    pub(crate) variables: Variables,
}

/// Reads every secret of a service.
pub(crate) fn resolve(spec: &ServiceSpec, paths: &Paths) -> Result<Given, SpawnFault> {
    let mut given = Given::default();
    for (name, secret) in &spec.secrets.0 {
        let value = read(name, secret, paths)
            .map_err(|reason| SpawnFault::Lasting(format!("its secret `{name}`: {reason}")))?;
        match secret.form {
            SecretForm::Descriptor => given.passed.push(PassedFile {
                name: name.to_string(),
                content: STANDARD.encode(value.expose()),
            }),
            SecretForm::Environment => {
                let text = value.expose_text().filter(|text| !text.contains('\0'));
                let text = text.ok_or_else(|| {
                    let reason = "is no text that fits into a variable; give it `as: descriptor`";
                    SpawnFault::Lasting(format!("its secret `{name}` {reason}"))
                })?;
                given
                    .variables
                    .insert(secret.variable_of(name), text.to_owned());
            }
        }
    }
    Ok(given)
}

fn read(name: &ServiceName, secret: &SecretSpec, paths: &Paths) -> Result<Secret, String> {
    if let Some(file) = &secret.file {
        return read_file(&paths.base().join(file));
    }
    Vault::open(&paths.secrets(), paths.vault_key())
        .and_then(|vault| vault.reveal(secret.stored_as(name).as_str()))
        .map_err(|error| format!("failed to {}", alicia_module::api::error::chain(&error)))
}

/// A line feed at the end belongs to the file, not to the secret.
fn read_file(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let mut bytes = Vec::with_capacity(VALUE_BYTES_MAX + 1);
    let read = File::open(path).and_then(|file| {
        let limit = VALUE_BYTES_MAX as u64 + 1;
        file.take(limit).read_to_end(&mut bytes)
    });
    read.map_err(|error| format!("the file {shown} cannot be read: {error}"))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    let secret = Secret::new(bytes);
    if secret.is_empty() || secret.len() > VALUE_BYTES_MAX {
        return Err(format!(
            "the file {shown} has no content, or more than {VALUE_BYTES_MAX} bytes"
        ));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn given(paths: &Paths, secrets: serde_json::Value) -> Result<Given, SpawnFault> {
        let spec = json!({"command": "a", "secrets": secrets});
        resolve(&serde_json::from_value(spec).expect("a service"), paths)
    }

    #[test]
    fn secrets_come_from_the_store_or_a_file_and_go_where_they_should() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(directory.path().join("data"), directory.path());
        let vault = Vault::open(&paths.secrets(), None).expect("a vault");
        vault.set("db", "hunter2".into(), 0.0).expect("it is set");
        vault
            .set("raw", Secret::new(vec![0, 1]), 0.0)
            .expect("it is set");
        std::fs::write(directory.path().join("key"), "of the file\n").expect("a file");
        let secrets = json!({
            "password": {"store": "db", "as": "environment"},
            "db": {}, "raw": {}, "tls-key": {"file": "key"},
        });
        let given = given(&paths, secrets).expect("all are there");
        assert_eq!(
            given.variables,
            [("PASSWORD".into(), "hunter2".into())].into()
        );
        let passed: Vec<_> = given
            .passed
            .iter()
            .map(|file| {
                (
                    file.name.as_str(),
                    STANDARD.decode(&file.content).expect("base64"),
                )
            })
            .collect();
        let expected: [(&str, &[u8]); 3] = [
            ("db", b"hunter2"),
            ("raw", &[0, 1]),
            ("tls-key", b"of the file"),
        ];
        assert_eq!(passed, expected.map(|(name, value)| (name, value.to_vec())));
    }

    #[test]
    fn what_is_missing_or_does_not_fit_is_told_without_a_value() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(directory.path().join("data"), directory.path());
        let vault = Vault::open(&paths.secrets(), None).expect("a vault");
        vault
            .set("raw", Secret::new(vec![0, 200]), 0.0)
            .expect("it is set");
        std::fs::write(directory.path().join("empty"), "\n").expect("a file");
        let check = |secrets: serde_json::Value, expected: &str| match given(&paths, secrets) {
            Err(SpawnFault::Lasting(reason)) => assert!(reason.contains(expected), "{reason}"),
            other => assert!(other.is_err(), "{expected}"),
        };
        check(json!(["absent"]), "alicia secret set absent");
        check(json!({"a": {"file": "nowhere"}}), "cannot be read");
        check(json!({"a": {"file": "empty"}}), "has no content");
        check(json!({"raw": {"as": "environment"}}), "as: descriptor");
    }
}
