//! What follows the end of an instance, by its cause.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::orchestrator::ExitCause;
use crate::unit::Period;

/// What follows the end of an instance, by why it ended. A cause that is not named here has a default, and
/// `restart` decides before the default does: `never` restarts nothing that is not named here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OnExit {
    /// It ended with success. Default: as `restart` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<Reaction>,
    /// It ended with another exit code, or by a signal, and nothing says why. Default: `restart`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash: Option<Reaction>,
    /// It was killed for want of memory. Default: `restart`.
    #[serde(rename = "out-of-memory", skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<Reaction>,
    /// It says that its configuration is wrong (exit code 78, or `X_ALICIA_CAUSE=configuration`).
    /// Default: `slowly`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Reaction>,
    /// A port that it needs is taken. Default: `restart`.
    #[serde(rename = "port-taken", skip_serializing_if = "Option::is_none")]
    pub port_taken: Option<Reaction>,
    /// It was not let in (exit code 77, or `X_ALICIA_CAUSE=authentication`). Default: `slowly`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Reaction>,
    /// A provider asks for fewer requests (exit code 75, or `X_ALICIA_CAUSE=provider-limit`). Default:
    /// `park` until the time that it was given.
    #[serde(rename = "provider-limit", skip_serializing_if = "Option::is_none")]
    pub provider_limit: Option<Reaction>,
    /// What a provider grants is used up (`X_ALICIA_CAUSE=provider-quota`). Default: `park`.
    #[serde(rename = "provider-quota", skip_serializing_if = "Option::is_none")]
    pub provider_quota: Option<Reaction>,
    /// Its liveness probe failed. Default: `restart`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Reaction>,
    /// It made no progress. Default: `restart`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Reaction>,
    /// It was not ready in time. Default: `restart`.
    #[serde(rename = "start-timeout", skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<Reaction>,
    /// Its watchdog was not fed. Default: `restart`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Reaction>,
    /// What exit codes mean beside those above: `{3: configuration}`. 1 to 255.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub codes: BTreeMap<String, ExitCause>,
    /// Exit codes and signals after which it is not started again, whatever else is said:
    /// `[3, SIGTERM]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prevent_restart: Vec<ExitMatch>,
    /// Exit codes and signals after which it is started again, whatever else is said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub force_restart: Vec<ExitMatch>,
    /// How long it is parked when nobody says until when; twice as long each time in a row, up to an hour.
    pub park_for: Period,
    /// Whether the last lines of its output may tell the cause, where nothing better does: a port that is
    /// taken, a provider that says for how long it wants no requests.
    pub read_output: bool,
}

impl Default for OnExit {
    fn default() -> Self {
        Self {
            success: None,
            crash: None,
            out_of_memory: None,
            configuration: None,
            port_taken: None,
            authentication: None,
            provider_limit: None,
            provider_quota: None,
            liveness: None,
            progress: None,
            start_timeout: None,
            watchdog: None,
            codes: BTreeMap::new(),
            prevent_restart: Vec::new(),
            force_restart: Vec::new(),
            park_for: Period::from_secs(60),
            read_output: true,
        }
    }
}

impl OnExit {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What the file says of a cause.
    #[must_use]
    pub const fn named(&self, cause: ExitCause) -> Option<Reaction> {
        match cause {
            ExitCause::Success => self.success,
            ExitCause::Crash => self.crash,
            ExitCause::OutOfMemory => self.out_of_memory,
            ExitCause::Configuration => self.configuration,
            ExitCause::PortTaken => self.port_taken,
            ExitCause::Authentication => self.authentication,
            ExitCause::ProviderLimit => self.provider_limit,
            ExitCause::ProviderQuota => self.provider_quota,
            ExitCause::Liveness => self.liveness,
            ExitCause::Progress => self.progress,
            ExitCause::StartTimeout => self.start_timeout,
            ExitCause::Watchdog => self.watchdog,
            ExitCause::ProgramNotFound
            | ExitCause::Budget
            | ExitCause::Lost
            | ExitCause::Operator
            | ExitCause::HostShutdown
            | ExitCause::Supervision
            | ExitCause::Unknown => None,
        }
    }
}

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reaction {
    /// Start it again, with waits that grow (`back_off`), up to the start limit.
    Restart,
    /// It is `failed`, with an alert, and is tried again every `start_limit.retry_every`.
    Slowly,
    /// It is `parked` until the time that the provider gave, and uses up no start limit.
    Park,
    /// It is `failed` and stays so until a person starts it.
    Fail,
}

/// An exit code (0 to 255), or a signal by name (`SIGTERM`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ExitMatch {
    /// `3`
    Code(u8),
    /// `SIGTERM`
    Signal(#[schemars(regex(pattern = "^SIG[A-Z0-9+]+$"))] String),
}

impl ExitMatch {
    /// Whether a run ended like this.
    #[must_use]
    pub fn is_met_by(&self, code: Option<i32>, signal: Option<&str>) -> bool {
        match self {
            Self::Code(wanted) => code == Some(i32::from(*wanted)),
            Self::Signal(wanted) => signal == Some(wanted),
        }
    }
}
