//! What an instance may use and do: from the file's words to the keeper's.

use std::path::{Path, PathBuf};

use alicia_contract::fleet::{
    LOG_LINES_PER_SECOND_DEFAULT, Network, NetworkWord, ResourceLimits, SandboxSpec, ServiceSpec,
    SystemCalls,
};
use alicia_contract::orchestrator::LimitHeld;
use alicia_keeper::protocol::{
    FileAccess, LimitState, NetworkAccess, OwnFiles, ResourceLimit, Sandbox, StartSpec,
};

/// Variables whose address a confined instance may always connect to.
const ADDRESSES: [&str; 2] = ["ALICIA_MQTT_URL", "ALICIA_API_URL"];

/// What an instance has from Alicia, and may use whatever its sandbox says.
#[derive(Debug)]
pub(super) struct Own<'a> {
    /// It may listen there.
    pub(super) ports: &'a [u16],
    /// It may read its token.
    pub(super) token_file: Option<PathBuf>,
    /// It may write to the directory of its session.
    pub(super) state: Option<PathBuf>,
}

/// Sets limits and sandbox of a start that is otherwise complete. Relative paths count from `base`.
pub(super) fn confine(start: &mut StartSpec, spec: &ServiceSpec, own: &Own<'_>, base: &Path) {
    limit(start, &spec.limits);
    let Some(sandbox) = &spec.sandbox else {
        return;
    };
    // A core holds whatever the process knew.
    if spec.limits.core.is_none() {
        start.resource_limits.push(both("core", 0));
    }
    start.sandbox = Some(Sandbox {
        no_new_privileges: sandbox.no_new_privileges,
        files: files(sandbox, start, own, base),
        hidden: sandbox.hidden.iter().map(|path| base.join(path)).collect(),
        own: OwnFiles {
            read_only: own.token_file.iter().cloned().collect(),
            writable: own.state.iter().cloned().collect(),
        },
        network: network(&sandbox.network, start, own.ports),
        scoped: sandbox.scoped,
        filter_system_calls: sandbox.system_calls == SystemCalls::Default,
        capabilities: sandbox.capabilities.clone(),
        best_effort: sandbox.best_effort,
    });
}

fn limit(start: &mut StartSpec, limits: &ResourceLimits) {
    start.limits.memory_bytes_max = limits.memory.map(|size| size.bytes());
    start.limits.cpu_percent_max = limits.cpu.map(percent);
    start.limits.processes_max = limits.processes;
    let each = [
        ("nofile", limits.open_files),
        ("fsize", limits.file_size.map(|size| size.bytes())),
        ("core", limits.core.map(|size| size.bytes())),
    ];
    let each = each
        .into_iter()
        .filter_map(|(resource, value)| Some(both(resource, value?)));
    start.resource_limits.extend(each);
    start.log.lines_per_s_max = Some(
        limits
            .log_lines_per_second
            .unwrap_or(LOG_LINES_PER_SECOND_DEFAULT),
    );
}

/// The keeper counts in hundredths of a core.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the file is checked: 0.01 to 1024"
)]
fn percent(cores: f64) -> u32 {
    (cores * 100.0).round().max(1.0) as u32
}

fn both(resource: &str, value: u64) -> ResourceLimit {
    ResourceLimit {
        resource: resource.to_owned(),
        soft: Some(value),
        hard: Some(value),
    }
}

fn files(
    sandbox: &SandboxSpec,
    start: &StartSpec,
    own: &Own<'_>,
    base: &Path,
) -> Option<FileAccess> {
    if sandbox.read_only.is_none() && sandbox.writable.is_none() && !sandbox.strict {
        return None;
    }
    let absolute = |paths: &[String]| paths.iter().map(|path| base.join(path)).collect();
    let mut read_only = sandbox
        .read_only
        .as_ref()
        .map(|paths| absolute(paths))
        .or(sandbox.strict.then(Vec::<PathBuf>::new));
    if let Some(paths) = &mut read_only {
        if !sandbox.strict {
            paths.push(start.directory.clone());
        }
        // A keeper from before this host knows no files of an instance's own.
        paths.extend(own.token_file.clone());
    }
    Some(FileAccess {
        read_only,
        writable: absolute(sandbox.writable.as_deref().unwrap_or_default()),
        with_system: !sandbox.strict,
    })
}

fn network(network: &Network, start: &StartSpec, ports: &[u16]) -> Option<NetworkAccess> {
    match network {
        Network::Word(NetworkWord::All) => None,
        Network::Word(NetworkWord::None) => Some(NetworkAccess::default()),
        Network::Ports(listed) => {
            let own = ADDRESSES.iter().filter_map(|name| {
                let url = start.environment.get(*name)?;
                port_of(url)
            });
            Some(NetworkAccess {
                connect: listed.connect.iter().copied().chain(own).collect(),
                bind: listed.bind.iter().chain(ports).copied().collect(),
                udp: listed.udp,
            })
        }
    }
}

/// `http://127.0.0.1:4000/x` has 4000.
fn port_of(url: &str) -> Option<u16> {
    let (_, rest) = url.split_once("://")?;
    let host = rest.split('/').next()?;
    let (_, port) = host.rsplit_once(':')?;
    port.parse().ok()
}

/// As the status of an instance says it.
pub(super) fn limits_held(states: &[LimitState]) -> Vec<LimitHeld> {
    let held = |state: &LimitState| LimitHeld {
        limit: state.limit.clone(),
        held_by: state.held_by.as_str().to_owned(),
        why: state.why.clone(),
    };
    states.iter().map(held).collect()
}

#[cfg(test)]
mod tests {
    use alicia_keeper::protocol::LogSpec;
    use serde_json::json;

    use super::*;

    fn confined(service: serde_json::Value) -> StartSpec {
        let mut spec = json!({"command": ["true"]});
        let fields = service.as_object().expect("is a map").clone();
        spec.as_object_mut().expect("is a map").extend(fields);
        let spec: ServiceSpec = serde_json::from_value(spec).expect("is a service");
        let mut start = StartSpec::new("a", "true", "/srv/a", LogSpec::new("/logs", "1"));
        for (name, value) in [
            ("ALICIA_MQTT_URL", "mqtt://127.0.0.1:1883"),
            ("ALICIA_API_URL", "http://[::1]:4000"),
        ] {
            start.environment.insert(name.into(), value.into());
        }
        let own = Own {
            ports: &[8080],
            token_file: Some(PathBuf::from("/data/token")),
            state: spec.session.is_some().then(|| PathBuf::from("/data/state")),
        };
        confine(&mut start, &spec, &own, Path::new("/fleet"));
        start
    }

    #[test]
    fn limits_become_the_keepers() {
        let start = confined(json!({"limits": {
            "memory": "512MiB", "cpu": 1.5, "processes": 64, "open_files": 1024, "core": "0B",
            "log_lines_per_second": 5,
        }}));
        assert_eq!(start.limits.memory_bytes_max, Some(512 << 20));
        assert_eq!(start.limits.cpu_percent_max, Some(150));
        assert_eq!(start.limits.processes_max, Some(64));
        assert_eq!(
            start.resource_limits,
            [both("nofile", 1024), both("core", 0)]
        );
        assert_eq!((start.log.lines_per_s_max, start.sandbox), (Some(5), None));
        let plain = confined(json!({}));
        assert_eq!(
            plain.log.lines_per_s_max,
            Some(LOG_LINES_PER_SECOND_DEFAULT)
        );
        assert!(plain.resource_limits.is_empty());
    }

    #[test]
    fn a_sandbox_gets_what_every_service_needs() {
        let sandbox = |value| {
            confined(json!({"sandbox": value}))
                .sandbox
                .expect("has one")
        };
        let own = OwnFiles {
            read_only: vec![PathBuf::from("/data/token")],
            writable: Vec::new(),
        };
        let default = Sandbox {
            own,
            ..Sandbox::default()
        };
        assert_eq!(sandbox(json!({})), default);
        let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
        let files = sandbox(json!({"writable": ["state", "/tmp"]}))
            .files
            .expect("has");
        assert_eq!(files.writable, paths(&["/fleet/state", "/tmp"]));
        assert_eq!(files.read_only, None);
        let session = json!({"session": {}, "sandbox": {"writable": ["/tmp"]}});
        let own = confined(session).sandbox.expect("has one").own;
        let expect = (paths(&["/data/token"]), paths(&["/data/state"]));
        assert_eq!((own.read_only, own.writable), expect);
        let hidden = sandbox(json!({"hidden": ["keys", "/data"]})).hidden;
        assert_eq!(hidden, paths(&["/fleet/keys", "/data"]));
        let files = sandbox(json!({"read_only": ["x"]})).files.expect("has");
        let expect = paths(&["/fleet/x", "/srv/a", "/data/token"]);
        assert_eq!((files.read_only, files.with_system), (Some(expect), true));
        let files = sandbox(json!({"strict": true})).files.expect("has");
        let expect = (Some(paths(&["/data/token"])), false);
        assert_eq!((files.read_only, files.with_system), expect);
    }

    #[test]
    fn ports_of_the_house_are_always_allowed() {
        let network = |value| {
            let sandbox = confined(json!({"sandbox": {"network": value}})).sandbox;
            sandbox.expect("has one").network
        };
        assert_eq!(network(json!("all")), None);
        assert_eq!(network(json!("none")), Some(NetworkAccess::default()));
        let ports = network(json!({"connect": [443]})).expect("is restricted");
        assert_eq!(
            (ports.connect, ports.bind),
            (vec![443, 1883, 4000], vec![8080])
        );
        assert_eq!(port_of("http://host"), None);
        assert_eq!(port_of("nonsense"), None);
    }

    #[test]
    fn a_sandbox_drops_no_core_unless_one_is_asked_for() {
        let cores = |value| confined(value).resource_limits;
        assert_eq!(cores(json!({"sandbox": {}})), [both("core", 0)]);
        let asked = json!({"sandbox": {}, "limits": {"core": "1MiB"}});
        assert_eq!(cores(asked), [both("core", 1 << 20)]);
    }
}
