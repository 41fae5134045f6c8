//! NVIDIA graphics processors through NVML, which is loaded when the first probe asks, if it is there.

use std::sync::OnceLock;

use alicia_contract::fleet::GpuCheck;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;

use crate::attempt::{Deadline, Seen};

/// The names of the driver's library; the first is on every machine with a driver.
const LIBRARIES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// Processors and what is expected of them.
#[derive(Debug, Clone)]
pub struct GpuTarget(GpuCheck);

/// What a processor says of itself. Old ones and virtual ones do not tell all.
#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    utilisation_percent: Option<f64>,
    memory_percent: Option<f64>,
    temperature_c: Option<f64>,
}

// === impl GpuTarget ===

impl GpuTarget {
    pub(crate) fn new(check: &GpuCheck) -> Self {
        Self(check.clone())
    }

    /// The driver may take its time: it is asked on a thread, which is left to itself at the deadline.
    pub(crate) async fn attempt(&self, deadline: &Deadline) -> Seen {
        let check = self.0.clone();
        let asked = tokio::task::spawn_blocking(move || look(&check));
        deadline
            .within("no answer of the driver", asked)
            .await?
            .map_err(|error| format!("failed to ask the driver: {error}"))?
    }
}

fn look(check: &GpuCheck) -> Seen {
    let nvml = match nvml() {
        Ok(nvml) => nvml,
        Err(why) if check.required => return Err(format!("no graphics processor: {why}")),
        Err(_) => return Ok("none".to_owned()),
    };
    let failed = |error: NvmlError| format!("failed to ask the driver: {error}");
    let count = nvml.device_count().map_err(failed)?;
    let wanted = match check.index {
        Some(index) if index >= count => {
            return Err(format!(
                "there are {count} graphics processors, and none with number {index}"
            ));
        }
        Some(index) => index..index + 1,
        None if count == 0 && check.required => return Err("no graphics processor".to_owned()),
        None if count == 0 => return Ok("none".to_owned()),
        None => 0..count,
    };
    let mut said = Vec::new();
    for index in wanted {
        let device = nvml.device_by_index(index).map_err(failed)?;
        let memory = device.memory_info().ok();
        let reading = Reading {
            utilisation_percent: device
                .utilization_rates()
                .ok()
                .map(|use_of| use_of.gpu.into()),
            memory_percent: memory.map(|memory| percent(memory.used, memory.total)),
            temperature_c: device
                .temperature(TemperatureSensor::Gpu)
                .ok()
                .map(f64::from),
        };
        said.push(format!("gpu {index}: {}", judge(check, reading)?));
    }
    Ok(said.join("; "))
}

fn judge(check: &GpuCheck, reading: Reading) -> Seen {
    let rows = [
        ("% used", reading.utilisation_percent, check.utilisation_max),
        (
            "% of memory used",
            reading.memory_percent,
            check.memory_percent_max,
        ),
        ("°C", reading.temperature_c, check.temperature_max),
    ];
    let mut said = Vec::new();
    for (unit, found, limit) in rows {
        match (found, limit) {
            (Some(found), Some(limit)) if found > limit => {
                return Err(format!("{found:.0} {unit}, expected at most {limit}"));
            }
            (None, Some(_)) => return Err(format!("the driver does not tell {unit}")),
            (Some(found), _) => said.push(format!("{found:.0} {unit}")),
            (None, None) => {}
        }
    }
    match said.is_empty() {
        true => Ok("there".to_owned()),
        false => Ok(said.join(", ")),
    }
}

/// The library, loaded once it can be. A driver that comes later is found by a later try.
fn nvml() -> Result<&'static Nvml, String> {
    static NVML: OnceLock<Nvml> = OnceLock::new();
    if let Some(nvml) = NVML.get() {
        return Ok(nvml);
    }
    let mut why = String::new();
    for library in LIBRARIES {
        match Nvml::builder().lib_path(library.as_ref()).init() {
            Ok(nvml) => return Ok(NVML.get_or_init(|| nvml)),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64 * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_judged() {
        let reading = Reading {
            utilisation_percent: Some(91.0),
            memory_percent: Some(40.0),
            temperature_c: None,
        };
        let check = |text: &str, expected: Result<&str, &str>| {
            let check: GpuCheck = serde_json::from_str(text).expect("a check");
            let seen = judge(&check, reading);
            assert_eq!(seen.as_deref().map_err(String::as_str), expected, "{text}");
        };
        check("{}", Ok("91 % used, 40 % of memory used"));
        check(
            r#"{"utilisation_max": 95}"#,
            Ok("91 % used, 40 % of memory used"),
        );
        check(
            r#"{"utilisation_max": 90}"#,
            Err("91 % used, expected at most 90"),
        );
        check(
            r#"{"memory_percent_max": 30}"#,
            Err("40 % of memory used, expected at most 30"),
        );
        check(
            r#"{"temperature_max": 80}"#,
            Err("the driver does not tell °C"),
        );
    }
}
