//! What runs in a container, and how the engine is asked for it. Pure.

use std::collections::BTreeMap;

use alicia_contract::fleet::{ContainerSpec, HOST_NETWORK};
use alicia_contract::{Epoch, InstanceId, ServiceName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The labels of each container that is ours.
pub(crate) const LABEL_FLEET: &str = "alicia.fleet";
pub(crate) const LABEL_SERVICE: &str = "alicia.service";
pub(crate) const LABEL_SLOT: &str = "alicia.slot";
pub(crate) const LABEL_INSTANCE: &str = "alicia.instance";
pub(crate) const LABEL_EPOCH: &str = "alicia.epoch";

/// Whose container it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The data directory: several fleets may share one engine.
    pub fleet: String,
    /// The service.
    pub service: ServiceName,
    /// The number of the slot.
    pub slot: u32,
    /// The run.
    pub instance: InstanceId,
    /// Its epoch.
    pub epoch: Epoch,
}

/// One container, as the orchestrator tells the stand-in. Nothing secret is in it: the environment of the container
/// is that of the stand-in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Whose it is.
    pub mark: Mark,
    /// What the file says.
    pub container: ContainerSpec,
    /// The words of `container.entrypoint`.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// The words of `command`; none: those of the image.
    #[serde(default)]
    pub command: Vec<String>,
    /// The service's ports on this machine.
    #[serde(default)]
    pub ports: BTreeMap<ServiceName, u16>,
    /// Where relative sources of volumes begin.
    pub base: String,
    /// Files and directories of this machine that it sees at the same path, read-only.
    #[serde(default)]
    pub files: Vec<String>,
    /// Directories of this machine that it sees at the same path and may write to.
    #[serde(default)]
    pub directories: Vec<String>,
    /// The signal that asks it to end, such as `SIGTERM`.
    pub stop_signal: String,
    /// How long it may take to end, in milliseconds; then the engine kills it.
    pub stop_grace_ms: u64,
    /// The most memory, in bytes.
    #[serde(default)]
    pub memory_bytes_max: Option<u64>,
    /// The most use of the processor, in cores.
    #[serde(default)]
    pub cpu_cores_max: Option<f64>,
    /// The most processes.
    #[serde(default)]
    pub processes_max: Option<u32>,
    /// The most open files of each process.
    #[serde(default)]
    pub open_files_max: Option<u64>,
    /// Whether set-uid programs gain nothing.
    #[serde(default)]
    pub no_new_privileges: bool,
}

/// Variables of the stand-in that mean nothing in a container: they are about this machine or about the stand-in.
const OWN_VARIABLES: [&str; 9] = [
    "PATH",
    "HOME",
    "USER",
    "TZ",
    "ALICIA_KEEPER",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
];

// === impl Settings ===

impl Settings {
    /// The name of the container.
    #[must_use]
    pub fn name(&self) -> String {
        let Mark {
            service,
            slot,
            instance,
            ..
        } = &self.mark;
        format!("alicia-{service}-{slot}-{instance}")
    }

    fn is_on_host_network(&self) -> bool {
        self.container.network == HOST_NETWORK
    }

    /// The environment of the container out of that of the stand-in.
    fn environment(&self, own: &BTreeMap<String, String>) -> Vec<String> {
        let inner = self.inner_ports();
        own.iter()
            .filter(|(name, _)| {
                !OWN_VARIABLES.contains(&name.as_str()) && !name.starts_with("ALICIA_FD_")
            })
            .map(|(name, value)| match inner.get(name) {
                Some(port) => format!("{name}={port}"),
                None => format!("{name}={value}"),
            })
            .collect()
    }

    /// Behind a bridge a program listens on the port of the container, not on that of the machine.
    fn inner_ports(&self) -> BTreeMap<String, u16> {
        let mut inner = BTreeMap::new();
        if self.is_on_host_network() {
            return inner;
        }
        for (name, port) in &self.container.ports {
            let shouted = name.as_str().to_ascii_uppercase().replace('-', "_");
            inner.insert(format!("PORT_{shouted}"), *port);
            if name.as_str() == "http" || self.container.ports.len() == 1 {
                inner.insert("PORT".to_owned(), *port);
            }
        }
        inner
    }

    fn binds(&self) -> Vec<String> {
        let volumes = self.container.volumes.iter().map(|volume| {
            match volume.starts_with("./") || volume.starts_with("../") {
                true => format!("{}/{volume}", self.base),
                false => volume.clone(),
            }
        });
        let files = self.files.iter().map(|path| format!("{path}:{path}:ro"));
        let directories = self.directories.iter().map(|path| format!("{path}:{path}"));
        volumes.chain(files).chain(directories).collect()
    }

    fn port_bindings(&self) -> (Value, Value) {
        let (mut exposed, mut bound) = (json!({}), json!({}));
        if !self.is_on_host_network() {
            for (name, inner) in &self.container.ports {
                let key = format!("{inner}/tcp");
                exposed[&key] = json!({});
                if let Some(outer) = self.ports.get(name) {
                    bound[&key] = json!([{ "HostIp": "127.0.0.1", "HostPort": outer.to_string() }]);
                }
            }
        }
        (exposed, bound)
    }
}

/// The body of `POST /containers/create`.
#[must_use]
pub fn request(settings: &Settings, environment: &BTreeMap<String, String>) -> Value {
    let Settings {
        mark, container, ..
    } = settings;
    let (exposed, bound) = settings.port_bindings();
    let mut body = json!({
        "Image": container.image,
        "Env": settings.environment(environment),
        "Labels": {
            LABEL_FLEET: mark.fleet,
            LABEL_SERVICE: mark.service,
            LABEL_SLOT: mark.slot.to_string(),
            LABEL_INSTANCE: mark.instance,
            LABEL_EPOCH: mark.epoch.to_string(),
        },
        "StopSignal": settings.stop_signal,
        "ExposedPorts": exposed,
        "AttachStdout": true,
        "AttachStderr": true,
        "HostConfig": {
            "NetworkMode": container.network,
            "PortBindings": bound,
            "Binds": settings.binds(),
            "ReadonlyRootfs": container.read_only,
            "CapAdd": container.capabilities_add,
            "CapDrop": container.capabilities_drop,
            // The keeper's log is the log.
            "LogConfig": { "Type": "none" },
            "RestartPolicy": { "Name": "no" },
        },
    });
    let mut set = |key: &str, value: Value| body[key] = value;
    if !settings.command.is_empty() {
        set("Cmd", json!(settings.command));
    }
    if !settings.entrypoint.is_empty() {
        set("Entrypoint", json!(settings.entrypoint));
    }
    if let Some(directory) = &container.directory {
        set("WorkingDir", json!(directory));
    }
    if let Some(user) = &container.user {
        set("User", json!(user));
    }
    limit(&mut body["HostConfig"], settings);
    body
}

fn limit(host: &mut Value, settings: &Settings) {
    if let Some(bytes) = settings.memory_bytes_max {
        host["Memory"] = json!(bytes);
        // No swap beyond the memory.
        host["MemorySwap"] = json!(bytes);
    }
    if let Some(cores) = settings.cpu_cores_max {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "thousands of cores at most"
        )]
        let nano = (cores * 1e9) as i64;
        host["NanoCpus"] = json!(nano);
    }
    if let Some(processes) = settings.processes_max {
        host["PidsLimit"] = json!(processes);
    }
    if let Some(files) = settings.open_files_max {
        host["Ulimits"] = json!([{ "Name": "nofile", "Soft": files, "Hard": files }]);
    }
    if settings.no_new_privileges {
        host["SecurityOpt"] = json!(["no-new-privileges"]);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn settings(container: Value) -> Settings {
        let mark = json!({
            "fleet": "/data", "service": "db", "slot": 1,
            "instance": "01arz3ndektsv4rrffq69g5fav", "epoch": 3,
        });
        serde_json::from_value(json!({
            "mark": mark, "container": container, "command": ["serve"], "ports": {"http": 8080},
            "base": "/srv", "files": ["/data/credentials/x"], "stop_signal": "SIGINT", "stop_grace_ms": 10_000,
        }))
        .expect("fits")
    }

    fn environment() -> BTreeMap<String, String> {
        let pairs = [
            ("PATH", "/bin"),
            ("PORT", "8080"),
            ("PORT_HTTP", "8080"),
            ("A", "b=c"),
        ];
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn on_the_network_of_the_machine_ports_are_those_of_the_service() {
        let settings = settings(json!({"image": "x", "volumes": ["./d:/d", "v:/v:ro"]}));
        let body = request(&settings, &environment());
        assert_eq!(body["HostConfig"]["NetworkMode"], "host");
        assert_eq!(body["Env"], json!(["A=b=c", "PORT=8080", "PORT_HTTP=8080"]));
        assert_eq!(
            body["HostConfig"]["Binds"],
            json!([
                "/srv/./d:/d",
                "v:/v:ro",
                "/data/credentials/x:/data/credentials/x:ro"
            ])
        );
        assert_eq!(body["HostConfig"]["PortBindings"], json!({}));
        assert_eq!(body["Cmd"], json!(["serve"]));
        assert_eq!(body.get("Entrypoint"), None);
        assert_eq!(body["HostConfig"].get("Memory"), None);
    }

    #[test]
    fn behind_a_bridge_ports_are_bound_to_loopback() {
        let container = json!({"image": "x", "network": "bridge", "ports": {"http": 80}});
        let body = request(&settings(container), &environment());
        let bound = json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]});
        assert_eq!(body["HostConfig"]["PortBindings"], bound);
        assert_eq!(body["Env"], json!(["A=b=c", "PORT=80", "PORT_HTTP=80"]));
    }

    #[test]
    fn limits_are_those_of_the_engine() {
        let mut settings = settings(json!({"image": "x"}));
        settings.memory_bytes_max = Some(1 << 20);
        settings.cpu_cores_max = Some(1.5);
        settings.processes_max = Some(8);
        settings.no_new_privileges = true;
        let host = request(&settings, &environment())["HostConfig"].clone();
        assert_eq!(host["Memory"], json!(1 << 20));
        assert_eq!(host["NanoCpus"], json!(1_500_000_000_u64));
        assert_eq!(host["PidsLimit"], json!(8));
        assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
    }
}
