//! The order in which the keys of a mapping are told: that of the alphabet, but where there are many.

use anyhow::bail;

/// A heading and the keys below it.
pub(super) type Group<'k> = (&'static str, Vec<&'k str>);

/// The keys of the whole file.
const FILE: &[(&str, &[&str])] = &[
    ("What runs", &["name", "data", "services", "groups"]),
    (
        "The house",
        &[
            "http", "bus", "log", "identity", "secrets", "audit", "modules",
        ],
    ),
    (
        "Modules",
        &["orchestrator", "health", "registry", "broker", "dashboard"],
    ),
];

/// The keys of a service.
const SERVICE: &[(&str, &[&str])] = &[
    (
        "What it is",
        &[
            "description",
            "kind",
            "version",
            "labels",
            "groups",
            "profiles",
        ],
    ),
    (
        "What runs",
        &[
            "command",
            "directory",
            "user",
            "environment",
            "env_files",
            "secrets",
            "ports",
            "instances",
            "container",
            "session",
        ],
    ),
    (
        "When it runs, and when it is ready",
        &[
            "depends_on",
            "readiness",
            "start_timeout",
            "notify",
            "on_demand",
        ],
    ),
    (
        "When it ends",
        &[
            "restart",
            "on_exit",
            "success_exit_codes",
            "back_off",
            "start_limit",
            "liveness",
            "supervision",
            "stop",
        ],
    ),
    ("How it changes", &["update", "scaling"]),
    (
        "What it may do and use",
        &["limits", "sandbox", "allow", "budget"],
    ),
    (
        "How it is watched",
        &["checks", "heartbeat_timeout", "slo", "log"],
    ),
    ("Agents", &["capabilities", "progress", "agent"]),
];

/// The keys of a probe.
const PROBE: &[(&str, &[&str])] = &[
    (
        "One of these",
        &[
            "http", "tcp", "exec", "log_line", "notify", "watchdog", "mqtt", "grpc", "dns", "llm",
            "process", "disk", "gpu",
        ],
    ),
    (
        "How often",
        &["interval", "timeout", "delay", "rise", "fall"],
    ),
];

/// The keys of a channel.
const CHANNEL: &[(&str, &[&str])] = &[
    (
        "One of these",
        &["webhook", "alertmanager", "ntfy", "slack", "email"],
    ),
    (
        "What it is told",
        &[
            "min_severity",
            "matchers",
            "send_resolved",
            "escalation_only",
            "group_by",
            "rate_limit",
        ],
    ),
    (
        "How it is reached",
        &["timeout", "allow_private", "ca_file"],
    ),
];

/// The keys of a mapping in groups. Where a mapping has groups, each of its keys is in one.
pub(super) fn groups<'k>(path: &str, keys: &[&'k str]) -> anyhow::Result<Vec<Group<'k>>> {
    let known = match path {
        "" => FILE,
        "services.NAME" => SERVICE,
        "services.NAME.readiness" => PROBE,
        "health.channels.NAME" => CHANNEL,
        _ if keys.is_empty() => return Ok(Vec::new()),
        _ => return Ok(vec![("", keys.to_vec())]),
    };
    let found = |key: &str| keys.iter().find(|known| **known == key).copied();
    let in_groups = || known.iter().flat_map(|(_, keys)| keys.iter().copied());
    let unknown: Vec<&str> = keys
        .iter()
        .filter(|key| !in_groups().any(|known| known == **key))
        .copied()
        .collect();
    let gone: Vec<&str> = in_groups().filter(|key| found(key).is_none()).collect();
    if !unknown.is_empty() || !gone.is_empty() {
        bail!(
            "put the keys of `{path}` in order in xtask/src/reference/order.rs: without a group {unknown:?}, no key any \
             more {gone:?}"
        );
    }
    Ok(known
        .iter()
        .map(|(group, keys)| (*group, keys.iter().filter_map(|key| found(key)).collect()))
        .collect())
}
