//! The clock: a sane year, set over the network, not behind what was written.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Finding;
use crate::show;

/// This program is not older: 2026-01-01 in Unix seconds.
const TIME_MIN: f64 = 1_767_225_600.0;

/// 2100-01-01: a clock beyond it was never set.
const TIME_MAX: f64 = 4_102_444_800.0;

/// systemd-timesyncd makes this file when it has set the clock.
const TIMESYNC_MARK: &str = "/run/systemd/timesync/synchronized";

/// chrony and the reference ntpd leave these while they run.
const OTHER_DAEMONS: [&str; 3] = [
    "/run/chrony/chronyd.pid",
    "/run/chronyd.pid",
    "/run/ntpd.pid",
];

const CHECK: &str = "clock";

pub(super) fn look() -> Vec<Finding> {
    vec![judge(show::now(), &synchronised())]
}

/// What sets the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Synchronised {
    By(String),
    /// A daemon that could set it says that it has not.
    No,
    /// Nobody says anything; in a container the machine around it has the daemon.
    Unknown,
}

fn synchronised() -> Synchronised {
    if Path::new(TIMESYNC_MARK).exists() {
        return Synchronised::By("systemd-timesyncd".to_owned());
    }
    if OTHER_DAEMONS.iter().any(|path| Path::new(path).exists()) {
        return Synchronised::By("chrony or ntpd".to_owned());
    }
    let asked = Command::new("timedatectl")
        .args(["show", "--property", "NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()) {
        Ok(answer) if answer == "yes" => Synchronised::By("the system".to_owned()),
        Ok(answer) if answer == "no" => Synchronised::No,
        _ => Synchronised::Unknown,
    }
}

fn judge(now: f64, synchronised: &Synchronised) -> Finding {
    let shown = show::time(now);
    if !(TIME_MIN..TIME_MAX).contains(&now) {
        return Finding::fail(
            CHECK,
            format!("{shown} cannot be right"),
            "set the clock: `timedatectl set-ntp true`, or `date --set …`; schedules and leases depend on it",
        );
    }
    match synchronised {
        Synchronised::By(daemon) => Finding::ok(CHECK, format!("{shown}, set by {daemon}")),
        Synchronised::Unknown => {
            Finding::ok(CHECK, format!("{shown}; nothing here says who sets it"))
        }
        Synchronised::No => Finding::warn(
            CHECK,
            format!("{shown}, not set over the network: it will drift"),
            "`timedatectl set-ntp true`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::Level;

    #[test]
    fn a_clock_that_was_never_set_is_a_fault() {
        let by = Synchronised::By("chrony".to_owned());
        assert_eq!(judge(0.0, &by).level, Level::Fail);
        assert_eq!(judge(1e12, &by).level, Level::Fail);
        assert_eq!(judge(f64::NAN, &by).level, Level::Fail);
        assert_eq!(judge(TIME_MIN + 1.0, &by).level, Level::Ok);
        assert_eq!(
            judge(TIME_MIN + 1.0, &Synchronised::Unknown).level,
            Level::Ok
        );
        assert_eq!(judge(TIME_MIN + 1.0, &Synchronised::No).level, Level::Warn);
    }
}
