//! A service that runs in a container of Docker or Podman.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Command;
use crate::id::ServiceName;

/// The container that a service runs in. Everything else of the service means the same as for a plain
/// process: `command` is what runs in it, `environment`, `ports`, `limits`, probes, restarts, logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    /// The image, for example `postgres:16`.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// When the image is fetched: `missing` (when it is not there), `always`, or `never`.
    #[serde(default)]
    pub pull: Pull,
    /// The socket of the engine, for example `unix:///run/podman/podman.sock`. Default: `$DOCKER_HOST`,
    /// else that of Docker, else that of Podman.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Replaces the entry point of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Command>,
    /// The network: `host` (that of this machine, so that the bus and other services are reached on
    /// loopback), `none`, `bridge`, or the name of a network that the engine has.
    #[serde(default = "host")]
    pub network: String,
    /// For every network but `host`: the port in the container for each name of `ports`, which is bound to
    /// the service's port on loopback.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<ServiceName, u16>,
    /// Directories and named volumes: `source:/target` or `source:/target:ro`. A source that starts with
    /// `.` is relative to the file's directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// The working directory in the container; else that of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The user in the container, by name or number; else that of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether the root of the file system is read-only.
    #[serde(default)]
    pub read_only: bool,
    /// Capabilities that it has beside the engine's usual ones, for example `NET_ADMIN`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities_add: Vec<String>,
    /// Capabilities that it does not have; `ALL` is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities_drop: Vec<String>,
}

/// The network that is that of the machine.
pub const HOST_NETWORK: &str = "host";

fn host() -> String {
    HOST_NETWORK.to_owned()
}

/// When an image is fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// When it is not there.
    #[default]
    Missing,
    /// Before each start.
    Always,
    /// Not at all.
    Never,
}
