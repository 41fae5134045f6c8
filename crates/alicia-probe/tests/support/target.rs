//! What the tests of several kinds share.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::Path;
use std::time::Duration;

use alicia_contract::fleet::Probe;
use alicia_probe::{Context, Outcome, Target, attempt};
use serde_json::Value;

/// Long enough for a loaded machine; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a probe looks at, for a service in this directory with this environment.
pub(crate) fn target(probe: Value, directory: &Path, environment: &[(String, String)]) -> Target {
    let probe: Probe = serde_json::from_value(probe).expect("a probe");
    let context = Context {
        port: None,
        pid: Some(std::process::id()),
        directory,
        environment,
    };
    Target::resolve(&probe, &context).expect("it can be tried")
}

/// Tries once.
pub(crate) async fn once(probe: Value) -> Outcome {
    attempt(&target(probe, Path::new("/"), &[]), PATIENCE).await
}

/// What came of it, in words.
pub(crate) fn check(outcome: &Outcome, ok: bool, part: &str) {
    assert_eq!(outcome.ok, ok, "{}", outcome.detail);
    assert!(outcome.detail.contains(part), "{}", outcome.detail);
}
