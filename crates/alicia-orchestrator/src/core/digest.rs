//! The digest of those settings of a service that a running process cannot take over.
//!
//! An instance whose digest differs from that of the file is restarted; all other settings (probes,
//! policy, dependencies, groups, labels, the number of instances, what it may say on the bus) take
//! effect without a restart, and `log` and `stop` with the next one.

use alicia_contract::deployment::Effect;
use alicia_contract::fleet::ServiceSpec;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes of the hash that are kept: enough to tell the settings of one service apart by accident, and
/// short enough to read.
const DIGEST_BYTES: usize = 8;

/// The settings that need a new process, besides those of the first version.
const LATER: [&str; 4] = ["limits", "notify", "sandbox", "secrets"];

/// When a change of a setting takes effect, by its name in the file, and why then.
#[must_use]
pub fn effect_of(field: &str) -> (Effect, &'static str) {
    match field {
        "command" => (
            Effect::NewProcess,
            "a process cannot become another program",
        ),
        "directory" | "user" => (Effect::NewProcess, "it is set when a process is started"),
        "environment" | "env_files" => (
            Effect::NewProcess,
            "a process keeps the environment that it was started with",
        ),
        "ports" => (
            Effect::NewProcess,
            "a process keeps the ports that it was given",
        ),
        "limits" | "sandbox" => (
            Effect::NewProcess,
            "the kernel is told when a process is started",
        ),
        "notify" | "secrets" => (
            Effect::NewProcess,
            "a process inherits it when it is started",
        ),
        "log" => (
            Effect::NextStart,
            "the log is opened when a process is started",
        ),
        "start_timeout" | "session" => (Effect::NextStart, "it is about the next start"),
        "instances" | "scaling" | "on_demand" => (
            Effect::InPlace,
            "instances are added or ended; those that stay are not touched",
        ),
        "update" => (Effect::InPlace, "it is about updates"),
        "readiness" | "liveness" | "checks" | "progress" | "slo" => (
            Effect::InPlace,
            "probes are made anew while the process runs",
        ),
        "stop" => (
            Effect::InPlace,
            "it is read when the process is asked to end",
        ),
        _ => (Effect::InPlace, "the process does not see it"),
    }
}

/// Hexadecimal. Empty for a run whose labels could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest of the settings of a service.
    #[must_use]
    pub fn of(spec: &ServiceSpec) -> Self {
        let mut settings = serde_json::json!([
            spec.command,
            spec.directory,
            spec.user,
            spec.environment,
            spec.env_files,
            spec.ports,
        ]);
        // Settings that came later count only where they are set: services without them keep their digest.
        let whole = serde_json::to_value(spec).unwrap_or_default();
        let later: serde_json::Map<String, serde_json::Value> = LATER
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), whole.get(name)?.clone())))
            .collect();
        if let (false, Some(list)) = (later.is_empty(), settings.as_array_mut()) {
            list.push(later.into());
        }
        if let (Some(container), Some(settings)) = (&spec.container, settings.as_array_mut()) {
            settings.push(serde_json::json!([container, spec.limits]));
        }
        let hash = Sha256::digest(settings.to_string());
        let hex = hash[..DIGEST_BYTES]
            .iter()
            .map(|byte| format!("{byte:02x}"));
        Self(hex.collect())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Digest {
    fn from(text: String) -> Self {
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_contract::ServiceName;
    use alicia_contract::fleet::{RestartPolicy, Scalar, SecretSpec};

    #[test]
    fn only_what_a_process_cannot_take_over_changes_the_digest() {
        let spec = ServiceSpec::new(vec!["sleep".into(), "1".into()]);
        let check = |change: &dyn Fn(&mut ServiceSpec), same: bool| {
            let mut changed = spec.clone();
            change(&mut changed);
            assert_eq!(
                Digest::of(&changed) == Digest::of(&spec),
                same,
                "{changed:?}"
            );
        };
        check(&|spec| spec.restart = RestartPolicy::Never, true);
        check(&|spec| spec.instances = 3, true);
        check(&|spec| spec.description = Some("x".into()), true);
        check(&|spec| spec.directory = Some("/tmp".into()), false);
        check(
            &|spec| drop(spec.environment.insert("A".into(), Scalar::Whole(1))),
            false,
        );
        check(&|spec| spec.env_files.push("a.env".into()), false);
        let secret = || {
            (
                ServiceName::new("db").expect("a name"),
                SecretSpec::default(),
            )
        };
        check(&|spec| spec.secrets.0.extend([secret()]), false);
    }

    #[test]
    fn every_setting_that_needs_a_new_process_is_in_the_digest_and_no_other() {
        let schema = schemars::schema_for!(ServiceSpec).to_value();
        let fields = schema["properties"].as_object().expect("the settings");
        let first = [
            "command",
            "directory",
            "user",
            "environment",
            "env_files",
            "ports",
        ];
        for field in fields.keys() {
            let in_digest = first.contains(&field.as_str()) || LATER.contains(&field.as_str());
            let needs_process = effect_of(field).0 == Effect::NewProcess;
            assert_eq!(in_digest, needs_process, "{field}");
        }
    }

    #[test]
    fn the_digest_of_a_known_service_stays_the_same_over_versions() {
        let spec = ServiceSpec::new(vec!["sleep".into(), "1".into()]);
        assert_eq!(Digest::of(&spec).as_str(), "49d516eb47fc9dd6");
    }
}
