//! `sensors`: measures this machine from `/proc`, `/sys` and `statvfs`.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alicia_sdk::{Capability, Error, HeartbeatStatus, Service};

use super::{Reading, VERSION};
use crate::show;

const PERIOD: Duration = Duration::from_secs(2);

pub(crate) async fn run() -> Result<(), Error> {
    let machine = Arc::new(Machine::new());
    let asked = Arc::clone(&machine);
    Service::from_env("sensors")?
        .version(VERSION)
        .capability(
            Capability::new("measure")
                .describes("measures this machine: processor, load, memory, disk, temperature"),
            move |_cx, (): ()| {
                let machine = Arc::clone(&asked);
                async move { Ok(machine.measure()) }
            },
        )
        .every(PERIOD, move |cx| {
            let machine = Arc::clone(&machine);
            async move {
                let readings = machine.measure();
                if readings.is_empty() {
                    cx.set_health(
                        HeartbeatStatus::Unhealthy,
                        Some("nothing can be measured here"),
                    );
                }
                for reading in readings {
                    cx.set(&format!("home/sensors/{}", reading.name), &reading)
                        .await?;
                }
                Ok(())
            }
        })
        .run()
        .await
}

/// What is measured, and what the last measurement of the processor found.
struct Machine {
    disk: String,
    ticks: Mutex<Ticks>,
}

impl Machine {
    fn new() -> Self {
        let disk = std::env::var("DISK").unwrap_or_else(|_| "/".to_owned());
        Self {
            disk,
            ticks: Mutex::default(),
        }
    }

    /// Every value that this machine can tell; a sensor that it lacks is left out.
    fn measure(&self) -> Vec<Reading> {
        let read = |path: &str| fs::read_to_string(path).ok();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let processor = || {
            let now = Ticks::parse(&read("/proc/stat")?)?;
            let mut last = self.ticks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *last, now).until(now)
        };
        [
            processor(),
            read("/proc/loadavg").and_then(|text| load(&text, cores)),
            read("/proc/meminfo").and_then(|text| memory(&text)),
            disk(&self.disk),
            temperature(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn reading(name: &str, value: f64, unit: &str, text: String) -> Option<Reading> {
    let (name, unit) = (name.to_owned(), unit.to_owned());
    value.is_finite().then_some(Reading {
        name,
        value,
        unit,
        text,
    })
}

/// Processor time since the start of the machine, in clock ticks (proc_stat(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Ticks {
    all: f64,
    idle: f64,
}

impl Ticks {
    /// The line `cpu user nice system idle iowait irq softirq steal …`; guest time is in user time already.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<f64> = line
            .split_whitespace()
            .take(8)
            .map_while(|number| number.parse().ok())
            .collect();
        let idle = ticks.get(3)? + ticks.get(4).unwrap_or(&0.0);
        Some(Self {
            all: ticks.iter().sum(),
            idle,
        })
    }

    /// The part of the time since then in which the processor was busy.
    fn until(self, now: Self) -> Option<Reading> {
        let all = now.all - self.all;
        let busy = (1.0 - (now.idle - self.idle) / all).clamp(0.0, 1.0) * 100.0;
        reading("processor", busy, "%", format!("{busy:.0} % busy"))
    }
}

fn load(loadavg: &str, cores: usize) -> Option<Reading> {
    let load: f64 = loadavg.split_whitespace().next()?.parse().ok()?;
    let per_core = load / cores as f64;
    reading(
        "load",
        per_core,
        "per core",
        format!("{per_core:.2} per core, {load:.2} on {cores}"),
    )
}

fn memory(meminfo: &str) -> Option<Reading> {
    let bytes = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        value
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<u64>()
            .ok()?
            .checked_mul(1_024)
    };
    let (total, available) = (bytes("MemTotal:")?, bytes("MemAvailable:")?);
    let used = total.saturating_sub(available);
    let percent = used as f64 / total as f64 * 100.0;
    let text = format!(
        "{percent:.0} % used, {} of {}",
        show::bytes(used),
        show::bytes(total)
    );
    reading("memory", percent, "%", text)
}

/// What programs of ordinary users may still take.
fn disk(path: &str) -> Option<Reading> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let free = stat.f_bavail as f64 / stat.f_blocks as f64 * 100.0;
    let bytes = show::bytes(stat.f_bavail.saturating_mul(stat.f_frsize));
    reading(
        "disk",
        free,
        "%",
        format!("{free:.0} % free, {bytes} of {path}"),
    )
}

/// The hottest zone, where there is any: virtual machines have none.
fn temperature() -> Option<Reading> {
    let zones = fs::read_dir("/sys/class/thermal").ok()?;
    let files = zones.flatten().map(|zone| zone.path().join("temp"));
    let celsius =
        |file: PathBuf| Some(fs::read_to_string(file).ok()?.trim().parse::<f64>().ok()? / 1_000.0);
    let hottest = files.filter_map(celsius).max_by(f64::total_cmp)?;
    reading("temperature", hottest, "°C", format!("{hottest:.1} °C"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let load = load("1.50 0.70 0.30 2/345 6789\n", 4).expect("is a load");
        assert_eq!(
            (load.value, load.text.as_str()),
            (0.375, "0.38 per core, 1.50 on 4")
        );
        let memory = memory("MemTotal:       8000 kB\nMemFree: 1 kB\nMemAvailable:   2000 kB\n");
        assert_eq!(memory.expect("is memory").value, 75.0);
        let before = Ticks::parse("cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1").expect("is a line");
        assert_eq!(
            before,
            Ticks {
                all: 1_000.0,
                idle: 800.0
            }
        );
        let after = Ticks {
            all: 1_100.0,
            idle: 875.0,
        };
        assert_eq!(before.until(after).expect("time has passed").value, 25.0);
    }

    #[test]
    fn nonsense_is_no_reading() {
        assert_eq!(load("", 1), None);
        assert_eq!(memory("MemTotal: 0 kB\nMemAvailable: 0 kB\n"), None);
        assert_eq!(memory("MemTotal: 5 MB\n"), None);
        assert_eq!(Ticks::parse("intr 1 2 3"), None);
        let now = Ticks {
            all: 5.0,
            idle: 5.0,
        };
        assert_eq!(now.until(now), None);
        assert_eq!(disk("/no/such/place"), None);
    }

    #[test]
    fn this_machine_has_memory_and_a_disk() {
        let found = Machine {
            disk: "/".to_owned(),
            ticks: Mutex::default(),
        }
        .measure();
        for name in ["load", "memory", "disk"] {
            assert!(
                found.iter().any(|reading| reading.name == name),
                "{name} in {found:?}"
            );
        }
    }
}
