//! The parts of the section that say who is notified of alerts. The doc comments are the user's reference.

use std::collections::BTreeMap;

use alicia_contract::health::Severity;
use alicia_contract::id::ServiceName;
use alicia_contract::unit::Period;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Channels by name.
pub type Channels = BTreeMap<ServiceName, Channel>;

/// A way to somebody who is to be notified. Exactly one of `webhook`, `alertmanager`, `ntfy`, `slack`, `email`.
/// What is secret stands in files of its own, which are read at each delivery; relative paths start at the
/// directory of this file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Channel {
    /// JSON to a program of yours, signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// The alerts to an Alertmanager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alertmanager: Option<Alertmanager>,
    /// A message to ntfy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ntfy: Option<Ntfy>,
    /// A message to Slack, or to what understands its webhooks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slack: Option<Slack>,
    /// An e-mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// Only alerts that are at least so bad.
    pub min_severity: Severity,
    /// Only alerts for which all of these hold: `service=~"api.*"`, `rule!=restarted`, `team=web`. Labels are
    /// `service`, `rule`, `severity`, `instance`, `check`, and those of the service in this file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matchers: Vec<String>,
    /// The labels by which alerts are told together. Default: that of `notifications`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_by: Option<Vec<String>>,
    /// Whether it is told when all is over.
    pub send_resolved: bool,
    /// Whether it is told only by `escalations`.
    pub escalation_only: bool,
    /// How many notifications go out at most; more of them wait.
    pub rate_limit: RateLimit,
    /// Whether the address may be of this machine or of a private network (loopback, private, link-local), and
    /// whether it may be reached without TLS. Without it, only public addresses over TLS are spoken to.
    pub allow_private: bool,
    /// How long one try may take. 1s to 1m.
    pub timeout: Period,
    /// A file with certificates (PEM) to trust instead of those of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            webhook: None,
            alertmanager: None,
            ntfy: None,
            slack: None,
            email: None,
            min_severity: Severity::Info,
            matchers: Vec::new(),
            group_by: None,
            send_resolved: true,
            escalation_only: false,
            rate_limit: RateLimit::default(),
            allow_private: false,
            timeout: Period::from_secs(10),
            ca_file: None,
        }
    }
}

/// JSON by POST, with the headers of Standard Webhooks: `webhook-id` (the same at each try of a notification, so
/// that a repeat can be told), `webhook-timestamp`, and, where there is a secret, `webhook-signature`:
/// `v1,` and the HMAC-SHA256 of `<id>.<timestamp>.<body>` in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where to: `https://hooks.example.org/alicia`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file with the URL, when the URL is a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<String>,
    /// A file with the secret that signs: any text of 16 bytes or more, or `whsec_` and base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<String>,
}

/// `POST <url>/api/v2/alerts`. What fires is sent again before it would end there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alertmanager {
    /// Its address: `http://127.0.0.1:9093`.
    pub url: String,
    /// A file with a bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    /// How often what fires is sent again; it ends there after four times this. 1s to 1h.
    #[serde(default = "refresh")]
    pub refresh: Period,
}

fn refresh() -> Period {
    Period::from_secs(60)
}

/// A message to a topic of ntfy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ntfy {
    /// The server: `https://ntfy.sh`.
    pub url: String,
    /// The topic.
    pub topic: String,
    /// A file with an access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
}

/// A message to an incoming webhook of Slack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// Where to. Slack's own addresses are secrets: use `url_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file with the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<String>,
}

/// An e-mail by SMTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Email {
    /// The server: `mail.example.org:587`. The port is 587 unless given, and 465 with `tls: implicit`.
    pub server: String,
    /// How TLS is spoken.
    #[serde(default)]
    pub tls: MailTls,
    /// The sender: `alicia@example.org`.
    pub from: String,
    /// The receivers.
    #[schemars(length(min = 1, max = 50))]
    pub to: Vec<String>,
    /// The user, when the server wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file with the password. It is sent over TLS only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
}

/// How TLS is spoken with a mail server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// After `STARTTLS`; a server without it is refused.
    #[default]
    Starttls,
    /// From the first byte.
    Implicit,
    /// Not at all; needs `allow_private`.
    None,
}

/// At most so many in a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// How many. 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub notifications: u32,
    /// In which time. 1s to 1d.
    pub within: Period,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            notifications: 30,
            within: Period::from_secs(60),
        }
    }
}

/// How alerts become notifications.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Notifications {
    /// The labels by which alerts are told together: `service`, `rule`, `severity`, `root` (the service that is
    /// the cause), or a label of the service.
    pub group_by: Vec<String>,
    /// How long the first notification of a group waits for more. 0s to 10m.
    pub group_wait: Period,
    /// How long a group rests after a notification before it is told again that it grew, got worse or is over.
    /// 0s to 1d.
    pub group_interval: Period,
    /// How long until a group that lasts and that nobody acknowledged is told again. 1m to 30d.
    pub repeat_interval: Period,
    /// How long a notification is tried before it is given up, with an alert of its own. 1m to 7d.
    pub give_up_after: Period,
    /// How many notifications that are done are kept. 100 to 1000000.
    #[schemars(range(min = 100, max = 1_000_000))]
    pub history_max: u32,
}

impl Default for Notifications {
    fn default() -> Self {
        Self {
            group_by: vec!["service".to_owned()],
            group_wait: Period::from_secs(15),
            group_interval: Period::from_secs(60),
            repeat_interval: Period::from_secs(4 * 3_600),
            give_up_after: Period::from_secs(86_400),
            history_max: 10_000,
        }
    }
}

/// Alerts that add nothing while another fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inhibit {
    /// The alert that says enough: matchers, all of which hold.
    #[schemars(length(min = 1))]
    pub source: Vec<String>,
    /// The alerts that add nothing.
    #[schemars(length(min = 1))]
    pub target: Vec<String>,
    /// The labels that must be the same on both.
    #[serde(default)]
    pub equal: Vec<String>,
}

/// The inhibition unless the file has its own: a service that is down or given up says enough.
pub(crate) fn inhibit() -> Vec<Inhibit> {
    vec![Inhibit {
        source: vec!["rule=~\"service_down|crash_loop\"".to_owned()],
        target: vec!["rule=~\"restarted|check_failed|heartbeat_lost\"".to_owned()],
        equal: vec!["service".to_owned()],
    }]
}

// As JSON it is the key by which its progress is stored: what is added is not written where the file does not have it.
/// Who is told when nobody acknowledges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Escalation {
    /// Only alerts for which all of these hold. Default: every alert.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matchers: Vec<String>,
    /// The steps, each later than the one before.
    #[schemars(length(min = 1, max = 20))]
    pub steps: Vec<EscalationStep>,
}

/// One step of an escalation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EscalationStep {
    /// How long nobody acknowledged. 1s to 7d.
    pub after: Period,
    /// The channels that are told then.
    #[schemars(length(min = 1))]
    pub channels: Vec<ServiceName>,
    /// How bad it is called then. Default: as bad as its worst alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
}

/// A time in which nobody is notified of alerts of some services. They are still watched, and alerts fire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceWindow {
    /// Services or groups. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceName>,
    /// When it begins, again and again: `0 3 * * sun` (minute, hour, day of month, month, day of week).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// When it begins, once: `2026-12-24T22:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// How long it lasts. 1m to 30d.
    pub duration: Period,
    /// Where the hours are meant: `Europe/Zurich`. Default: `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Restarts of services that run and are unhealthy, asked of the orchestrator. What ends by itself is restarted by
/// the orchestrator in any case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AutoRestart {
    /// Whether restarts are asked for. A service whose dependency is the cause is never restarted.
    pub enabled: bool,
    /// How long a service must be unhealthy, and how long a restart may take to help. 1s to 1h.
    pub after: Period,
    /// How many restarts in `within` before the circuit breaker opens, with an alert. 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub limit: u32,
    /// The time in which they are counted. 1m to 1d.
    pub within: Period,
    /// How long the breaker stays open before one more restart is tried. 1s to 1d.
    pub pause: Period,
}

impl Default for AutoRestart {
    fn default() -> Self {
        Self {
            enabled: false,
            after: Period::from_secs(30),
            limit: 3,
            within: Period::from_secs(600),
            pause: Period::from_secs(300),
        }
    }
}
