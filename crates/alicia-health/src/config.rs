//! The section `health` of `alicia.yaml`. The doc comments are the user's reference.

pub mod notify;
mod read;

use std::time::Duration;

use alicia_contract::fleet::AgentLimits;
use alicia_contract::fleet::Fleet;
use alicia_contract::unit::Period;
use alicia_module::ConfigFault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::Settings;
use crate::core::flap::FlapLimits;
use crate::status_page::StatusPage;
use notify::{AutoRestart, Channels, Escalation, Inhibit, MaintenanceWindow, Notifications};

/// A tick this often looks for what is overdue.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// The monitor was held up when a tick is later than this. Six ticks: a busy machine delays a few.
const STALL: Duration = Duration::from_millis(1_500);

/// The watching of services: when what is wrong is an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long nothing of a service must work before `service_down` fires. 0s to 1h.
    pub down_after: Period,
    /// How long what was wrong must be over before its alert is resolved. An alert that comes again within a
    /// minute is held twice as long, up to a minute. 1s to 10m.
    pub stable_after: Period,
    /// How many announced intervals without a heartbeat make it lost, for services without
    /// `heartbeat_timeout`. 2 to 100.
    #[schemars(range(min = 2, max = 100))]
    pub heartbeat_intervals: u32,
    /// How long a broken connection to the bus may stay broken before it counts. 0s to 10m.
    pub offline_after: Period,
    /// When a service changes too often.
    pub flapping: Flapping,
    /// How long the alert of a service that depends on others waits before anybody is notified, in case one of
    /// those turns out to be the cause; and how long after it a cause is still blamed for it. 0s to 10m.
    pub hold_back: Period,
    /// Who is notified of alerts: channels by name.
    #[serde(skip_serializing_if = "Channels::is_empty")]
    pub channels: Channels,
    /// How alerts become notifications.
    pub notifications: Notifications,
    /// Alerts that add nothing while another fires. Default: those about parts of a service that is down.
    pub inhibit: Vec<Inhibit>,
    /// Who is told when nobody acknowledges.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub escalations: Vec<Escalation>,
    /// Times in which nobody is notified of alerts of some services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub maintenance: Vec<MaintenanceWindow>,
    /// Restarts of services that run and are unhealthy.
    pub auto_restart: AutoRestart,
    /// Limits of the work of agents that have none of their own. They raise alerts.
    pub agents: AgentLimits,
    /// The public status page.
    pub status_page: StatusPage,
    /// How many alerts are kept that are over. 100 to 1000000.
    #[schemars(range(min = 100, max = 1_000_000))]
    pub history_alerts_max: u32,
    /// How long alerts that are over and the history of services are kept. 1h to 3650d.
    pub history_for: Period,
}

/// When a service changes so often that its changes are one alert instead of many. Each turn to bad or back
/// counts as one, and weighs less with time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Flapping {
    /// The weighted number of changes at which it begins. 0: never. 0 to 1000.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub begin: f64,
    /// Below this it is over; less than `begin`. 0.1 to 1000.
    #[schemars(range(min = 0.1, max = 1000.0))]
    pub end: f64,
    /// The time in which the weight of a change falls to about a third (1/e). 1s to 1d.
    pub memory: Period,
}

impl Default for Flapping {
    fn default() -> Self {
        let FlapLimits { begin, end, memory } = FlapLimits::default();
        Self {
            begin,
            end,
            memory: Period(memory),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            down_after: Period(settings.down_after),
            stable_after: Period(settings.stable_after),
            heartbeat_intervals: settings.heartbeat_intervals,
            offline_after: Period(settings.offline_after),
            flapping: Flapping::default(),
            hold_back: Period(settings.hold_back),
            channels: Channels::new(),
            notifications: Notifications::default(),
            inhibit: notify::inhibit(),
            escalations: Vec::new(),
            maintenance: Vec::new(),
            auto_restart: AutoRestart::default(),
            agents: settings.agents,
            status_page: StatusPage::default(),
            history_alerts_max: 10_000,
            history_for: Period::from_secs(90 * 86_400),
        }
    }
}

impl Config {
    /// What the types cannot check.
    pub(crate) fn faults(&self, fleet: &Fleet) -> Vec<ConfigFault> {
        let mut faults = self.notify_faults(fleet);
        let mut period = |pointer: &str, found: Period, low_s: u64, high_s: u64| {
            let (low, high) = (Period::from_secs(low_s), Period::from_secs(high_s));
            if !(low..=high).contains(&found) {
                let message = format!("found {found}, expected {low} to {high}");
                faults.push(ConfigFault {
                    pointer: pointer.to_owned(),
                    message,
                });
            }
        };
        period("/down_after", self.down_after, 0, 3_600);
        period("/stable_after", self.stable_after, 1, 600);
        period("/offline_after", self.offline_after, 0, 600);
        period("/flapping/memory", self.flapping.memory, 1, 86_400);
        period("/history_for", self.history_for, 3_600, 3_650 * 86_400);
        for service in &self.status_page.services {
            if !fleet.services.contains_key(service) {
                let message = format!("there is no service `{service}`; write one of `services`");
                faults.push(ConfigFault {
                    pointer: "/status_page/services".to_owned(),
                    message,
                });
            }
        }
        let Flapping { begin, end, .. } = self.flapping;
        if begin > 0.0 && end >= begin {
            let message = format!("found {end}, expected less than `begin`, which is {begin}");
            faults.push(ConfigFault {
                pointer: "/flapping/end".to_owned(),
                message,
            });
        }
        faults
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            down_after: self.down_after.duration(),
            stable_after: self.stable_after.duration(),
            heartbeat_intervals: self.heartbeat_intervals,
            offline_after: self.offline_after.duration(),
            agents: self.agents,
            hold_back: self.hold_back.duration(),
            auto_restart: self.restart_limits(),
            flap: FlapLimits {
                begin: self.flapping.begin,
                end: self.flapping.end,
                memory: self.flapping.memory.duration(),
            },
            stall: STALL,
            ..Settings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_no_fault_and_faults_are_named() {
        assert_eq!(Config::default().faults(&Fleet::default()), []);
        let config = Config {
            stable_after: Period::from_secs(0),
            flapping: Flapping {
                begin: 3.0,
                end: 3.0,
                ..Flapping::default()
            },
            ..Config::default()
        };
        let pointers: Vec<String> = config
            .faults(&Fleet::default())
            .into_iter()
            .map(|f| f.pointer)
            .collect();
        assert_eq!(pointers, ["/stable_after", "/flapping/end"]);
    }
}
