//! Kinds of probes that look at this machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::unit::ByteSize;

/// The service's own process and its descendants, summed up. Without limits: that it is alive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessCheck {
    /// The most CPU between two tries, in cores: `1.5` is one and a half.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.01, max = 4096.0))]
    pub cpu_max: Option<f64>,
    /// The most memory (resident set).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_max: Option<ByteSize>,
    /// The most open file descriptors.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub descriptors_max: Option<u64>,
    /// The most processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub processes_max: Option<u64>,
}

/// The room on the disk that holds a path. Without limits: less than 5 % free is bad.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskCheck {
    /// A path on the disk; relative to the service's directory.
    #[serde(default = "here")]
    pub path: String,
    /// The least free room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_min: Option<ByteSize>,
    /// The least free room, in percent of the disk. 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub free_percent_min: Option<f64>,
    /// The least free file entries (inodes), in percent. Disks without a number of entries are good. 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub entries_percent_min: Option<f64>,
}

fn here() -> String {
    ".".to_owned()
}

/// NVIDIA graphics processors, by the driver's own library (NVML). A machine without one says `none`, which is good
/// unless `required`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GpuCheck {
    /// The number of the processor, from 0. Default: every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Whether a machine without one is bad.
    pub required: bool,
    /// The most use, in percent. 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub utilisation_max: Option<f64>,
    /// The most memory in use, in percent. 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub memory_percent_max: Option<f64>,
    /// The highest temperature, in degrees Celsius.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 200.0))]
    pub temperature_max: Option<f64>,
}
