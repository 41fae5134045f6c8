//! The section `registry` of `alicia.yaml`. The doc comments are the user's reference.

use std::time::Duration;

use alicia_contract::unit::Period;
use alicia_module::ConfigFault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::Limits;

/// A tick this often looks for leases that ran out.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// Ticks that may be missed before the registry counts as held up.
const TICKS_LATE_MAX: u32 = 8;

/// Who is there: registrations of services and agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long an instance whose lease ran out stays `suspect` before it is gone. 1s to 1h.
    pub suspect_for: Period,
    /// How long an instance that is gone is remembered, so that a late message of it is refused. 1m to 7d.
    pub remember_for: Period,
    /// The most entries, those remembered included. 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub instances_max: u32,
    /// The most entries of one service, those remembered included. 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub instances_per_service_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            suspect_for: Period::from_secs(30),
            remember_for: Period::from_secs(600),
            instances_max: 20_000,
            instances_per_service_max: 2_000,
        }
    }
}

impl Config {
    /// What the types cannot check.
    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut period = |name: &str, found: Period, low_s: u64, high_s: u64| {
            let (low, high) = (Period::from_secs(low_s), Period::from_secs(high_s));
            if !(low..=high).contains(&found) {
                let message = format!("found {found}, expected {low} to {high}");
                faults.push(ConfigFault {
                    pointer: format!("/{name}"),
                    message,
                });
            }
        };
        period("suspect_for", self.suspect_for, 1, 3_600);
        period("remember_for", self.remember_for, 60, 7 * 86_400);
        faults
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            instances: self.instances_max as usize,
            instances_per_service: self.instances_per_service_max as usize,
            grace: self.suspect_for.duration(),
            memory: self.remember_for.duration(),
            stall: TICK * TICKS_LATE_MAX,
        }
    }
}
