//! Kinds of probes that ask something over the network.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{loopback, root};
use crate::fleet::Scalar;
use crate::unit::Period;

/// How TLS is spoken, and how long the certificate must still be good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsCheck {
    /// A file with the certificates to trust, in PEM; relative to the service's directory. Default: those of this
    /// machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The name that the certificate must be for. Default: the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// How many days the certificate must be good from now on. 1 to 3650.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3650))]
    pub days_left_min: Option<u32>,
}

/// What is expected of a value in JSON: the value itself, or limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum JsonTest {
    /// `{min: 1, max: 100}`: all of these must hold.
    Limits(JsonLimits),
    /// `ok`, `3`, `true`: exactly this value.
    Value(Scalar),
}

/// Limits of a value in JSON. All that are given must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JsonLimits {
    /// The least number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The largest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equals: Option<Scalar>,
    /// A value that it must not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not: Option<Scalar>,
    /// A regular expression that must match somewhere in the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
    /// Whether there must be a value at all. `null` is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
}

/// Publish a message to an MQTT broker and wait until it comes back on a subscription.
///
/// Without `host`, it is the house's own broker, with the service's own name and token, on a topic that every service
/// may use. With `host` it is another broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MqttCheck {
    /// The broker. Default: the house's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port. Default: 1883, or 8883 with `tls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The topic, from the root. Something of its own is put behind it, so that two probes do not meet. Default:
    /// `alicia/probe`; at the house's own broker the service's own topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The user name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file with the password in its first line; relative to the service's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// A round trip (publish to receipt) that takes longer than this is bad all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_max: Option<Period>,
    /// Speak TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsCheck>,
}

/// Ask `grpc.health.v1.Health/Check`; `SERVING` is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcCheck {
    /// The host; this machine unless given.
    #[serde(default = "loopback")]
    pub host: String,
    /// The port. Default: the service's port named `http`, or its only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The service to ask for, `package.Name`. Default: the server as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// A good answer that takes longer than this is bad all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_max: Option<Period>,
    /// Speak TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsCheck>,
}

/// Ask a name server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsCheck {
    /// The name to look up.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The type of record.
    #[serde(default, rename = "type")]
    pub kind: DnsType,
    /// The name server, `address` or `address:port`. Default: the first of `/etc/resolv.conf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// A text that one of the records must be: `192.0.2.7`, `mail.example.org`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// A good answer that takes longer than this is bad all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_max: Option<Period>,
}

/// A type of DNS record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsType {
    /// An address of IPv4.
    #[default]
    A,
    /// An address of IPv6.
    Aaaa,
    /// Another name.
    Cname,
    /// A mail server.
    Mx,
    /// A name server.
    Ns,
    /// A text.
    Txt,
}

/// Ask a language model for a tiny completion, at a server that speaks OpenAI's wire format
/// (`POST <path>/chat/completions`). Each try costs tokens: give it an `interval` of 10 s or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LlmCheck {
    /// The host; this machine unless given.
    #[serde(default = "loopback")]
    pub host: String,
    /// The port. Default: the service's port named `http`, or its only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// What comes before `/chat/completions`.
    #[serde(default = "version")]
    pub path: String,
    /// The model.
    #[schemars(length(min = 1))]
    pub model: String,
    /// What it is asked.
    #[serde(default = "prompt")]
    pub prompt: String,
    /// The most tokens of the answer. 1 to 256.
    #[serde(default = "tokens")]
    #[schemars(range(min = 1, max = 256))]
    pub max_tokens: u32,
    /// A file with the key in its first line; relative to the service's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// The variable of the service's environment that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_variable: Option<String>,
    /// Further headers to send.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// A good answer that takes longer than this is bad all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_max: Option<Period>,
    /// Speak TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsCheck>,
}

fn version() -> String {
    format!("{}v1", root())
}

fn prompt() -> String {
    "Answer with the word: yes".to_owned()
}

fn tokens() -> u32 {
    1
}
