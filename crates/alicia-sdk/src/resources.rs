//! What this process uses, from `/proc/self`. Linux only, as Alicia is.

/// Ticks per second in `/proc/self/stat`: USER_HZ, 100 on each architecture that Rust's Linux targets
/// of tier 1 and 2 run on (proc_pid_stat(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// What is used at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// Seconds of processor time since the start, of all threads.
    pub(crate) cpu_s: f64,
    /// Resident memory in bytes.
    pub(crate) memory_bytes: f64,
}

impl Usage {
    /// Of this process, now; `None` where there is no `/proc`.
    pub(crate) fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        Some(Self {
            cpu_s: cpu_s(&stat)?,
            memory_bytes: memory_bytes(&status)?,
        })
    }
}

/// `utime` + `stime`, fields 14 and 15. The name of the program, field 2, may hold spaces and brackets.
fn cpu_s(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// The line `VmRSS:   123 kB`.
fn memory_bytes(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_an_odd_name_is_read() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0";
        assert_eq!(cpu_s(stat), Some(3.0));
        assert_eq!(
            memory_bytes("VmPeak: 9 kB\nVmRSS:\t   12 kB\n"),
            Some(12_288.0)
        );
        assert_eq!(cpu_s("nonsense"), None);
        assert_eq!(memory_bytes(""), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::now().expect("there is a /proc");
        assert!(usage.memory_bytes > 100_000.0);
        assert!(usage.cpu_s >= 0.0);
    }
}
