//! The services of the built-in home fleet, each a small program on the client library, and what they say to each other.
//!
//! | topic | says | who |
//! |---|---|---|
//! | `home/sensors/{name}` | [`Reading`], retained | [`sensors`] |
//! | `home/clock` | [`ClockTime`], retained | [`clock`] |
//! | `home/rules/fired`, `home/rules/cleared` | [`RuleChange`] | [`rules`] |
//! | `home/notifications` | [`Notification`] | [`notifier`] |
//! | `home/say`, `home/said` | a sentence, and the answer | people, [`commands`] |

pub(crate) mod clock;
pub(crate) mod commands;
pub(crate) mod notifier;
pub(crate) mod rules;
pub(crate) mod sensors;
mod words;

use alicia_sdk::JsonSchema;
use alicia_sdk::contract::health::Severity;
use serde::{Deserialize, Serialize};

/// The version that the services register with.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A measured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Reading {
    /// What was measured: `load`, `memory`.
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// The value in words.
    pub(crate) text: String,
}

/// The local time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ClockTime {
    /// `2026-02-03`
    pub(crate) date: String,
    /// `18:31`
    pub(crate) time: String,
    /// `Tuesday`
    pub(crate) weekday: String,
    /// `morning`, `afternoon`, `evening` or `night`.
    pub(crate) part_of_day: String,
}

/// A rule began or ceased to hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RuleChange {
    pub(crate) rule: String,
    pub(crate) value: f64,
    pub(crate) limit: f64,
    /// The change in words.
    pub(crate) text: String,
}

/// Asks the notifier to tell people something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Notice {
    pub(crate) text: String,
    #[serde(default = "info")]
    pub(crate) severity: Severity,
}

fn info() -> Severity {
    Severity::Info
}

/// Something that people were told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Notification {
    /// The local time, `2026-02-03 18:31:02`.
    pub(crate) at: String,
    /// Who said so.
    pub(crate) from: String,
    pub(crate) severity: Severity,
    pub(crate) text: String,
}
