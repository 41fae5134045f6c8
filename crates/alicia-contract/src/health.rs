//! Health: heartbeats, the state of each service, alerts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, ServiceName};
use crate::topic::{EventTopic, StateTopic};
use crate::unit::UnixSeconds;

pub use alert::*;

mod alert;

/// The heartbeat of a service.
pub const HEARTBEAT: EventTopic<Heartbeat> = EventTopic::new("system/health/{service}");

/// Every service answers this with a heartbeat.
pub const CHECK: EventTopic<CheckRequest> = EventTopic::new("system/health/check");

/// The state of every service, retained.
pub const STATUS: StateTopic<FleetHealth> = StateTopic::new("system/health/monitor/status");

/// Alerts as they fire and clear.
pub const ALERTS: EventTopic<Alert> = EventTopic::new("system/health/monitor/alerts");

/// How many firing alerts [`STATUS`] carries; REST has all.
pub const ALERTS_IN_STATUS_MAX: usize = 100;

/// How a service says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeartbeatStatus {
    /// On its way.
    Starting,
    /// Well.
    Healthy,
    /// Works, with less than it should have.
    Degraded,
    /// Does not work.
    Unhealthy,
    /// Says goodbye.
    Stopping,
    /// Its last will: the connection broke.
    Offline,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// The service.
    pub service: ServiceName,
    /// The instance, when it knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// How it is.
    pub status: HeartbeatStatus,
    /// Why, in one line, when it is not well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Seconds since it started.
    #[serde(default)]
    pub uptime_s: f64,
    /// Seconds until the next one is due; the monitor waits a few of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<f64>,
    /// Counters that only rise, by name.
    #[serde(default)]
    pub counters: BTreeMap<String, f64>,
    /// Use of resources: `cpu` in cores, `memory_bytes`, …
    #[serde(default)]
    pub resources: BTreeMap<String, f64>,
}

/// Asks every service for a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckRequest {
    /// Only these services; none: all.
    #[serde(default)]
    pub services: Vec<ServiceName>,
}

/// What the monitor thinks of a service.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// Well.
    Healthy,
    /// On its way.
    Starting,
    /// Works, with less than it should have.
    Degraded,
    /// There, and does not work.
    Unhealthy,
    /// Not there.
    Down,
    /// Cannot be told: nobody watches it, or the monitor itself was held up.
    #[default]
    Unknown,
}

/// One source of the judgement about a service: a probe, the heartbeat, the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckState {
    /// The name: `process`, `heartbeat`, or that of the check in the file.
    pub name: String,
    /// The instance, for a check of one instance: `api-1`.
    pub instance: Option<String>,
    /// What it says.
    pub state: HealthState,
    /// Since when.
    pub since: UnixSeconds,
    /// The last result in words.
    pub detail: String,
    /// How long the last try took, in milliseconds.
    pub latency_ms: Option<f64>,
    /// When it was last heard or tried.
    pub at: UnixSeconds,
}

/// The health of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceHealth {
    /// The service.
    pub service: ServiceName,
    /// The judgement.
    pub state: HealthState,
    /// Since when.
    pub since: UnixSeconds,
    /// Why, in words.
    pub reason: String,
    /// Whether it changes so often that its changes are no longer alerts.
    pub flapping: bool,
    /// What the judgement rests on.
    pub checks: Vec<CheckState>,
    /// Heartbeats that could not be used.
    pub bad_heartbeats: u64,
}

/// The health of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FleetHealth {
    /// The worst state of any service.
    pub state: HealthState,
    /// When this picture was taken.
    pub at: UnixSeconds,
    /// Every service.
    pub services: Vec<ServiceHealth>,
    /// The number of alerts that are firing.
    pub alerts_firing: u32,
    /// The alerts that are firing, newest first, at most [`ALERTS_IN_STATUS_MAX`], without the last lines of output.
    #[serde(default)]
    pub alerts: Vec<Alert>,
    /// What would be an alert if a service that it depends on were not the cause, at most
    /// [`ALERTS_IN_STATUS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_back: Vec<HeldBack>,
    /// How many healthy services were left out, because with them this message would be too large for
    /// the bus. REST has them.
    #[serde(default)]
    pub omitted: u32,
}
