//! How much of the time a service worked, honest about the time that nobody knows.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::id::ServiceName;
use alicia_contract::unit::UnixSeconds;
use alicia_store::{Connection, Error};
use schemars::JsonSchema;
use serde::Serialize;

use super::ledger::{Spans, minute_of};
use super::rows::{self, Grain};

/// The windows that uptime is told for.
pub(crate) const WINDOWS: [(&str, Duration); 4] = [
    ("24h", Duration::from_secs(86_400)),
    ("7d", Duration::from_secs(7 * 86_400)),
    ("30d", Duration::from_secs(30 * 86_400)),
    ("90d", Duration::from_secs(90 * 86_400)),
];

/// How much of a window a service worked. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Uptime {
    /// `24h`, `7d`, `30d`, `90d`.
    pub(crate) window: String,
    /// Of the time that is known, the share in which it worked, in percent; none: nothing is known.
    pub(crate) percent: Option<f64>,
    /// It worked, perhaps with less than it should have.
    pub(crate) up_s: f64,
    /// Of that: with less than it should have.
    pub(crate) degraded_s: f64,
    /// It did not work.
    pub(crate) down_s: f64,
    /// Nobody knows: it was stopped on purpose, or the monitor did not run or was held up.
    pub(crate) unknown_s: f64,
}

// === impl Uptime ===

impl Uptime {
    /// Of what was counted within a window; what is missing is unknown.
    pub(crate) fn of(window: &str, length: Duration, spans: &Spans) -> Self {
        let known = spans.up_s + spans.down_s;
        Self {
            window: window.to_owned(),
            percent: (known > 0.0).then(|| round(spans.up_s / known * 100.0)),
            up_s: round(spans.up_s),
            degraded_s: round(spans.degraded_s),
            down_s: round(spans.down_s),
            unknown_s: round((length.as_secs_f64() - known).max(0.0)),
        }
    }
}

/// The uptime of every service, in each window.
pub(crate) fn all(
    connection: &Connection,
    now: UnixSeconds,
) -> Result<BTreeMap<ServiceName, Vec<Uptime>>, Error> {
    let mut found: BTreeMap<ServiceName, Vec<Uptime>> = BTreeMap::new();
    for (place, (window, length)) in WINDOWS.iter().enumerate() {
        let spans = rows::spans(
            connection,
            grain(*length),
            minute_of(now - length.as_secs_f64()),
        )?;
        for (service, spans) in spans {
            let told = found.entry(service).or_default();
            // A service that is known in a longer window only has nothing in the shorter ones.
            while told.len() < place {
                let (window, length) = WINDOWS[told.len()];
                told.push(Uptime::of(window, length, &Spans::default()));
            }
            told.push(Uptime::of(window, *length, &spans));
        }
    }
    Ok(found)
}

/// A service of which nothing is known yet.
pub(crate) fn nothing() -> Vec<Uptime> {
    let windows = WINDOWS.iter();
    windows
        .map(|(window, length)| Uptime::of(window, *length, &Spans::default()))
        .collect()
}

/// A day is counted in minutes, longer windows in hours.
pub(crate) fn grain(length: Duration) -> Grain {
    match length <= Duration::from_secs(86_400) {
        true => Grain::Minute,
        false => Grain::Hour,
    }
}

/// To a thousandth: `99.999` is told apart from `100`.
pub(crate) fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_time_is_neither_good_nor_bad() {
        let day = Duration::from_secs(86_400);
        let uptime = |up_s: f64, down_s: f64| {
            let spans = Spans {
                up_s,
                down_s,
                ..Spans::default()
            };
            let uptime = Uptime::of("24h", day, &spans);
            (uptime.percent, uptime.unknown_s)
        };
        assert_eq!(uptime(0.0, 0.0), (None, 86_400.0));
        assert_eq!(uptime(3_600.0, 0.0), (Some(100.0), 82_800.0));
        assert_eq!(uptime(75.0, 25.0), (Some(75.0), 86_300.0));
        assert_eq!(uptime(86_399.0, 1.0), (Some(99.999), 0.0));
    }
}
