//! The digest of those settings of a service that a running process cannot take over.
//!
//! An instance whose digest differs from that of the file is restarted; all other settings (probes,
//! policy, dependencies, groups, labels, the number of instances, what it may say on the bus) take
//! effect without a restart, and `log` and `stop` with the next one.

use alicia_contract::fleet::ServiceSpec;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes of the hash that are kept: enough to tell the settings of one service apart by accident, and
/// short enough to read.
const DIGEST_BYTES: usize = 8;

/// Hexadecimal. Empty for a run whose labels could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest of the settings of a service.
    #[must_use]
    pub fn of(spec: &ServiceSpec) -> Self {
        let settings = serde_json::json!([
            spec.command,
            spec.directory,
            spec.user,
            spec.environment,
            spec.env_files,
            spec.ports,
        ]);
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
    use alicia_contract::fleet::{RestartPolicy, Scalar};

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
    }

    #[test]
    fn the_digest_of_a_known_service_stays_the_same_over_versions() {
        let spec = ServiceSpec::new(vec!["sleep".into(), "1".into()]);
        assert_eq!(Digest::of(&spec).as_str(), "49d516eb47fc9dd6");
    }
}
