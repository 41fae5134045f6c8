//! Identity as it crosses walls: what an instance is given at its start, how credentials are renewed, how outside
//! agents join, and the public keys of all who may act.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{Epoch, InstanceId, ServiceName};
use crate::topic::{Prefix, StateTopic};
use crate::unit::{Period, UnixSeconds};

/// The public keys of all who may act, signed by the root key; see [`KeyDirectory`].
pub const KEYS: StateTopic<SignedDocument> = StateTopic::new("system/identity/keys");

/// The name of the passed file with the identity: its descriptor is in `ALICIA_FD_IDENTITY`.
pub const PASSED_NAME: &str = "identity";

/// The trust domain unless the file says otherwise.
pub const DOMAIN_DEFAULT: &str = "alicia.local";

/// The MQTT 5 user property that carries the detached signature of a message.
pub const SIGNATURE_PROPERTY: &str = "alicia-signature";

/// The `typ` of credentials.
pub const CREDENTIAL_TYPE: &str = "alicia-credential";

/// The `typ` of the directory of keys.
pub const DIRECTORY_TYPE: &str = "alicia-keys";

// === The section `identity` of the file ===

/// Identities, credentials and signatures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdentitySettings {
    /// The trust domain in `spiffe://<domain>/agent/<service>`: lowercase letters, digits, `.`, `-`.
    #[schemars(regex(pattern = r"^[a-z0-9.-]{1,255}$"))]
    pub domain: String,
    /// Whether each instance also finds a token in a file, for programs that know MQTT and nothing of credentials.
    pub token_file: bool,
    /// How long a credential is good. It is renewed at half of it. 1m to 24h.
    pub credential_ttl: Period,
    /// Whether commands must be signed.
    pub signatures: SignaturePolicy,
    /// How many REST requests one key or agent may make.
    pub requests: RequestRate,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        Self {
            domain: DOMAIN_DEFAULT.to_owned(),
            token_file: true,
            credential_ttl: Period::from_secs(3_600),
            signatures: SignaturePolicy::default(),
            requests: RequestRate::default(),
        }
    }
}

impl IdentitySettings {
    /// What the types cannot check: pointers below the section, and what is wrong there.
    #[must_use]
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let is_domain = (1..=255).contains(&self.domain.len())
            && self
                .domain
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'));
        if !is_domain {
            let text = format!(
                "found {:?}, expected 1 to 255 of a-z, 0-9, . and -",
                self.domain
            );
            faults.push(("/domain", text));
        }
        let life = Period::from_secs(60)..=Period::from_secs(86_400);
        if !life.contains(&self.credential_ttl) {
            let text = format!("found {}, expected 1m to 24h", self.credential_ttl);
            faults.push(("/credential_ttl", text));
        }
        if self.requests.burst == 0 {
            faults.push(("/requests/burst", "found 0, expected at least 1".to_owned()));
        }
        faults
    }
}

/// The rate of REST requests of one key or agent; who is over it gets 429 with `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestRate {
    /// Requests per second in the long run. 0: no limit.
    pub per_second: u32,
    /// Requests at once. At least 1.
    #[schemars(range(min = 1))]
    pub burst: u32,
}

impl Default for RequestRate {
    fn default() -> Self {
        Self {
            per_second: 200,
            burst: 1_000,
        }
    }
}

/// Whether commands must be signed, by class of topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SignaturePolicy {
    /// Commands to services and agents: `{service}/command`.
    pub services: SignatureRule,
    /// Requests to modules: `system/orchestrator/{verb}` and the like.
    pub platform: SignatureRule,
}

impl SignaturePolicy {
    /// The rule for a topic, written in full. What is no command of a service is a request to the platform.
    #[must_use]
    pub fn rule(&self, prefix: &Prefix, topic: &str) -> SignatureRule {
        match prefix.strip(topic) {
            Some(rest) if rest.starts_with("system/") => self.platform,
            _ => self.services,
        }
    }
}

/// What happens to a command without a signature. One whose signature is not good is refused under any but `off`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignatureRule {
    /// It is refused: only who holds a key of the directory commands.
    Required,
    /// It counts as its sender's, whom the broker has verified.
    #[default]
    Permissive,
    /// Signatures are not looked at.
    Off,
}

// === What an instance is given ===

/// What an instance finds behind `ALICIA_FD_IDENTITY`, and an outside agent in its identity file.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct IdentityFile {
    /// `spiffe://<domain>/agent/<service>`.
    pub id: String,
    /// The service.
    pub service: ServiceName,
    /// The run.
    pub instance: InstanceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The Ed25519 seed, 32 bytes in base64url.
    pub key: String,
    /// The Unix socket where credentials are renewed; empty for an outside agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub socket: String,
    /// Whether credentials are passwords of the bus; not at a broker that is somebody else's.
    #[serde(default)]
    pub logs_in: bool,
    /// The URL of REST where an outside agent renews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// The public keys (`x`) that sign the directory and credentials.
    #[serde(default)]
    pub roots: Vec<String>,
    /// Whether commands must be signed, until the directory says otherwise.
    #[serde(default)]
    pub signatures: SignaturePolicy,
}

impl fmt::Debug for IdentityFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityFile")
            .field("id", &self.id)
            .field("instance", &self.instance)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

// === Renewal over the socket: one JSON object a line ===

/// The first line, from the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalChallenge {
    /// To be signed.
    pub nonce: String,
}

/// The second line, from the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalProof {
    /// Who asks.
    pub service: ServiceName,
    /// Its run.
    pub instance: InstanceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The signature of [`renewal_text`] in base64url.
    pub proof: String,
}

/// The last line, from the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RenewalAnswer {
    /// It is granted.
    Granted(Renewed),
    /// It is not; the reason in words.
    Refused(String),
}

/// A new credential.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Renewed {
    /// The credential: the password on the bus, and the bearer token of REST.
    pub credential: String,
    /// When it ends.
    pub expires: UnixSeconds,
    /// The host's clock, by which that is meant.
    pub now: UnixSeconds,
    /// The public keys (`x`) that sign the directory from now on.
    pub roots: Vec<String>,
}

impl fmt::Debug for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// What is signed to renew a credential.
#[must_use]
pub fn renewal_text(nonce: &str, service: &str, instance: &str, epoch: u64) -> Vec<u8> {
    format!("alicia-renew\n{nonce}\n{service}\n{instance}\n{epoch}").into_bytes()
}

/// What is signed to join.
#[must_use]
pub fn join_text(token: &str, public_key: &str) -> Vec<u8> {
    format!("alicia-join\n{token}\n{public_key}").into_bytes()
}

// === Outside agents ===

/// A request for a join token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewJoinToken {
    /// The agent that joins with it; no service of the file has this name.
    pub name: ServiceName,
    /// How long it is good, in seconds. 10 to 86,400.
    #[serde(default = "join_ttl_s")]
    #[schemars(range(min = 10, max = 86_400))]
    pub ttl_s: u32,
    /// What the agent may do in REST and on the bus beside what every service may.
    #[serde(default)]
    pub scopes: Vec<Grant>,
}

fn join_ttl_s() -> u32 {
    600
}

/// A join token as it is listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JoinTokenInfo {
    /// Its id.
    pub id: String,
    /// The agent that joins with it.
    pub name: ServiceName,
    /// What the agent may do.
    pub scopes: Vec<Grant>,
    /// When it ends.
    pub expires: UnixSeconds,
}

/// A new join token: the only time it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CreatedJoinToken {
    /// What it is.
    #[serde(flatten)]
    pub info: JoinTokenInfo,
    /// The token itself, good once.
    pub token: String,
}

/// An agent asks to join.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The join token.
    pub token: String,
    /// The agent's own public key: 32 bytes of Ed25519 in base64url.
    pub key: String,
    /// The signature of `alicia-join\n<token>\n<key>` in base64url: the agent holds the key.
    pub proof: String,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The agent has joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Joined {
    /// `spiffe://<domain>/agent/<name>`.
    pub id: String,
    /// The agent: its user name on the bus.
    pub name: ServiceName,
    /// Its instance: the client id on the bus is `<name>-<instance>`.
    pub instance: InstanceId,
    /// Its epoch: it rises when the agent joins again.
    pub epoch: Epoch,
    /// The first credential.
    pub renewed: Renewed,
    /// The address of the bus.
    pub bus: Option<String>,
    /// The first level of all topics.
    pub prefix: String,
    /// Whether commands must be signed.
    pub signatures: SignaturePolicy,
}

/// An agent asks for a new credential.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// The agent.
    pub name: ServiceName,
    /// Its instance.
    pub instance: InstanceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// A nonce of `GET /api/identity/nonce`, good once.
    pub nonce: String,
    /// The signature of `alicia-renew\n<nonce>\n<name>\n<instance>\n<epoch>` in base64url.
    pub proof: String,
}

/// A nonce to be signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Nonce {
    /// The nonce, good once and for a minute.
    pub nonce: String,
}

/// An outside agent as it is listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentInfo {
    /// The agent.
    pub name: ServiceName,
    /// Its instance.
    pub instance: InstanceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// What it may do.
    pub scopes: Vec<Grant>,
    /// When it joined.
    pub joined: UnixSeconds,
    /// When its newest credential ends.
    pub valid_until: UnixSeconds,
}

/// What a rotation of the root key did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rotated {
    /// The id of the new signing key.
    pub kid: String,
    /// The id of the one before, good until `overlap_until`.
    pub previous: String,
    /// Until when both are good.
    pub overlap_until: UnixSeconds,
}

// === The directory of keys ===

/// A document with the signatures of the root keys: a JWS in its general form (RFC 7515 section 7.2.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignedDocument {
    /// The content in base64url: a [`KeyDirectory`].
    pub payload: String,
    /// The signatures; one good one is enough.
    pub signatures: Vec<DocumentSignature>,
}

/// One signature of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DocumentSignature {
    /// The protected header in base64url.
    pub protected: String,
    /// The signature in base64url.
    pub signature: String,
}

/// The public keys of all who may act. A key that is not in it signs nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KeyDirectory {
    /// Rises with each change; an older one than known is not taken.
    pub version: u64,
    /// When it was signed.
    pub issued: UnixSeconds,
    /// The trust domain.
    pub domain: String,
    /// Whether commands must be signed.
    pub signatures: SignaturePolicy,
    /// The root keys (`x`) that sign directories and credentials, the present one first.
    pub roots: Vec<String>,
    /// Every key that signs messages.
    pub keys: Vec<DirectoryKey>,
}

/// A key of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DirectoryKey {
    /// Whose messages it signs: a service, or `system/<module>`.
    pub source: String,
    /// The run that holds it.
    pub instance: String,
    /// The epoch of that run.
    pub epoch: Epoch,
    /// The public key (`x`).
    pub x: String,
}

// === Scopes ===

/// What a key or an agent may do: a step of the ladder `read`, `operate`, `admin`, or one thing of one module,
/// `orchestrator:restart`, `health:ack`; `registry:*` is everything of a module.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant(String);

/// Why a text is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "read {0:?} as a scope, expected `read`, `operate`, `admin`, or a module and a verb as in `orchestrator:restart`"
)]
pub struct GrantError(String);

impl Grant {
    /// The scope as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Module and verb; `None` for a step of the ladder.
    #[must_use]
    pub fn parts(&self) -> Option<(&str, &str)> {
        self.0.split_once(':')
    }
}

impl FromStr for Grant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let is_word = |word: &str| {
            (1..=63).contains(&word.len())
                && word
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        };
        let is_scope = match text.split_once(':') {
            None => matches!(text, "read" | "operate" | "admin"),
            Some((module, verb)) => is_word(module) && (verb == "*" || is_word(verb)),
        };
        if is_scope {
            Ok(Self(text.to_owned()))
        } else {
            Err(GrantError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Grant {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Grant {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Grant {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Grant".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": r"^(read|operate|admin|[a-z0-9_-]{1,63}:(\*|[a-z0-9_-]{1,63}))$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_and_others_refused() {
        for good in [
            "read",
            "operate",
            "admin",
            "orchestrator:restart",
            "health:ack",
            "registry:*",
        ] {
            assert_eq!(
                good.parse::<Grant>().map(|grant| grant.to_string()),
                Ok(good.to_owned())
            );
        }
        for bad in [
            "",
            "root",
            ":",
            "health:",
            ":ack",
            "a:b:c",
            "Health:ack",
            "*",
            "health:**",
        ] {
            assert!(bad.parse::<Grant>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn faults_of_the_settings_name_their_field() {
        assert_eq!(IdentitySettings::default().faults(), []);
        let settings = IdentitySettings {
            domain: "Home/x".into(),
            credential_ttl: Period::from_secs(59),
            requests: RequestRate {
                per_second: 1,
                burst: 0,
            },
            ..IdentitySettings::default()
        };
        let pointers: Vec<_> = settings.faults().into_iter().map(|fault| fault.0).collect();
        assert_eq!(pointers, ["/domain", "/credential_ttl", "/requests/burst"]);
    }

    #[test]
    fn the_rule_depends_on_who_is_commanded() {
        let policy = SignaturePolicy {
            services: SignatureRule::Required,
            platform: SignatureRule::Off,
        };
        let rule = |topic: &str| policy.rule(&Prefix::default(), topic);
        assert_eq!(rule("alicia/lamp/command"), SignatureRule::Required);
        assert_eq!(rule("alicia/system/orchestrator/stop"), SignatureRule::Off);
        assert_eq!(rule("other/system/x"), SignatureRule::Required);
    }

    #[test]
    fn the_seed_of_an_identity_does_not_print() {
        let file = IdentityFile {
            id: "spiffe://alicia.local/agent/api".into(),
            service: ServiceName::new("api").expect("id"),
            instance: InstanceId::from_parts(1, 1),
            epoch: Epoch(1),
            key: "the-seed".into(),
            socket: String::new(),
            logs_in: true,
            api: None,
            roots: Vec::new(),
            signatures: SignaturePolicy::default(),
        };
        assert!(!format!("{file:?}").contains("the-seed"));
    }
}
