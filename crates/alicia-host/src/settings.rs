//! The platform's own part of `alicia.yaml`. The doc comments are the user's reference.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use alicia_contract::fleet::{Fleet, GroupSpec, ServiceSpec};
use alicia_contract::id::ServiceName;
use alicia_contract::identity::IdentitySettings;
use alicia_contract::topic::Prefix;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where REST and the page listen unless the file says otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:4000";

/// The file, without the sections of modules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// The name of the fleet, shown on the page. Default: the name of the file's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The data directory: databases, keys, logs. Default: `$XDG_STATE_HOME/alicia`, which is
    /// `~/.local/state/alicia` on most machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// The HTTP listener: page, REST, metrics.
    #[serde(default)]
    pub http: HttpSettings,
    /// The message bus.
    #[serde(default)]
    pub bus: BusSettings,
    /// Identities, credentials and signatures.
    #[serde(default)]
    pub identity: IdentitySettings,
    /// The log of Alicia itself.
    #[serde(default)]
    pub log: LogSettings,
    /// The audit log.
    #[serde(default)]
    pub audit: AuditSettings,
    /// The stored secrets.
    #[serde(default)]
    pub secrets: SecretSettings,
    /// Switches of modules by name: `{health: {enabled: false}}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modules: BTreeMap<String, ModuleSwitch>,
    /// The services by name.
    #[serde(default)]
    pub services: BTreeMap<ServiceName, Arc<ServiceSpec>>,
    /// What is said about groups of services as a whole, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<ServiceName, GroupSpec>,
}

/// The HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Address and port. Only addresses of this machine. Port 0: any free one.
    #[schemars(with = "String", example = &LISTEN_DEFAULT)]
    pub listen: SocketAddr,
    /// Further names under which the page is reached, for example behind a proxy. A request with another
    /// `Host` is refused, which keeps foreign web pages out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Whether `/metrics` is open without a key.
    pub open_metrics: bool,
}

impl Default for HttpSettings {
    fn default() -> Self {
        let listen = LISTEN_DEFAULT.parse().expect("the default is an address");
        Self {
            listen,
            hosts: Vec::new(),
            open_metrics: false,
        }
    }
}

/// The message bus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BusSettings {
    /// The first level of all topics.
    pub prefix: Prefix,
    /// An external broker, `mqtt://host:1883`; the embedded one is then off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The user name at the external broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The file that holds the password for the external broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

/// The log of Alicia itself, on standard error or in `host.log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug`, or filters by module: `info,alicia_health=debug`.
    pub level: String,
    /// How lines are written.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

/// The audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    /// The file that signed checkpoints are appended to; best on another disk. Relative to the file's directory.
    /// Default: `audit/checkpoints.jsonl` in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<PathBuf>,
}

/// The stored secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SecretSettings {
    /// The file with the key that seals them, of mode 0400; for example a systemd credential
    /// (`--set secrets.key_file=%d/vault-key`). Relative to the file's directory. Default: `secrets/vault.key` in the
    /// data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// The switch of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModuleSwitch {
    /// Whether it runs.
    #[serde(default = "on")]
    pub enabled: bool,
}

fn on() -> bool {
    true
}

impl Settings {
    /// Whether a module is switched on.
    #[must_use]
    pub fn is_enabled(&self, module: &str) -> bool {
        self.modules.get(module).is_none_or(|switch| switch.enabled)
    }

    /// Takes out what should run, under the name of the file or the given one.
    #[must_use]
    pub fn take_fleet(&mut self, name_default: &str) -> Fleet {
        let name = self.name.clone().unwrap_or_else(|| name_default.to_owned());
        Fleet {
            name,
            services: std::mem::take(&mut self.services),
            groups: std::mem::take(&mut self.groups),
        }
    }
}
