//! What a time was like: availability, incidents, how long they took to mend, what was slow, what flapped. Pure.

mod render;

use std::collections::BTreeMap;

use alicia_contract::health::HealthState;
use alicia_contract::id::ServiceName;
use alicia_contract::unit::UnixSeconds;
use schemars::JsonSchema;
use serde::Serialize;

pub(crate) use render::{html, markdown, time};

use crate::core::Turn;
use crate::core::judge::is_bad;
use crate::history::ledger::{Results, Spans};
use crate::history::uptime::round;

/// The most entries in each list that is sorted by how bad it is.
const LIST_MAX: usize = 10;

/// The most incidents that are told one by one, newest first; all are counted.
const INCIDENTS_MAX: usize = 100;

/// This many turns to bad in the time of a report are flapping.
const FLAPPING_MIN: u32 = 3;

/// A report over some time.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Report {
    /// The name of the fleet.
    pub(crate) fleet: String,
    /// From when.
    pub(crate) from: UnixSeconds,
    /// To when.
    pub(crate) to: UnixSeconds,
    /// Of the time that is known, the share in which the services worked, in percent, over all of them.
    pub(crate) availability_percent: Option<f64>,
    /// How many incidents there were.
    pub(crate) incidents_count: u32,
    /// The mean time to mend those that are over, in seconds.
    pub(crate) mttr_s: Option<f64>,
    /// The services, by name.
    pub(crate) services: Vec<ServiceReport>,
    /// The incidents, newest first, at most 100.
    pub(crate) incidents: Vec<Incident>,
    /// The checks with the longest latencies (p95), at most 10.
    pub(crate) slowest: Vec<Slow>,
    /// Services that changed most often between good and bad, at most 10.
    pub(crate) flapping: Vec<Flapping>,
}

/// One service in a report. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ServiceReport {
    /// The service.
    pub(crate) service: ServiceName,
    /// Of the time that is known, the share in which it worked, in percent.
    pub(crate) availability_percent: Option<f64>,
    /// It worked.
    pub(crate) up_s: f64,
    /// Of that: with less than it should have.
    pub(crate) degraded_s: f64,
    /// It did not work.
    pub(crate) down_s: f64,
    /// Nobody knows.
    pub(crate) unknown_s: f64,
    /// How many incidents it had.
    pub(crate) incidents: u32,
    /// The mean time to mend those that are over.
    pub(crate) mttr_s: Option<f64>,
    /// The longest.
    pub(crate) longest_s: Option<f64>,
}

/// A time in which a service did not work.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Incident {
    /// The service.
    pub(crate) service: ServiceName,
    /// When it began; at the beginning of the report if it was so before.
    pub(crate) began: UnixSeconds,
    /// When it worked again; none: it still does not, or nobody knows.
    pub(crate) ended: Option<UnixSeconds>,
    /// How long it took, or takes so far, in seconds.
    pub(crate) lasted_s: f64,
    /// Why, as it was first judged.
    pub(crate) reason: String,
}

/// A check that took long.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Slow {
    /// The service.
    pub(crate) service: ServiceName,
    /// The check.
    pub(crate) check: ServiceName,
    /// The latency that 95 of 100 tries do not exceed, in milliseconds, right to a factor of two.
    pub(crate) latency_ms_p95: f64,
    /// The longest, in milliseconds.
    pub(crate) latency_ms_max: f64,
    /// The mean, in milliseconds.
    pub(crate) latency_ms_mean: f64,
    /// The tries.
    pub(crate) tries: u64,
    /// Those that failed.
    pub(crate) failures: u64,
}

/// A service that changed often.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Flapping {
    /// The service.
    pub(crate) service: ServiceName,
    /// How often it turned bad.
    pub(crate) turns: u32,
}

/// What a report is made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Material {
    pub(crate) fleet: String,
    pub(crate) from: UnixSeconds,
    pub(crate) to: UnixSeconds,
    pub(crate) spans: BTreeMap<ServiceName, Spans>,
    pub(crate) results: BTreeMap<(ServiceName, ServiceName), Results>,
    /// The last change of each service before the time, and all within, oldest first.
    pub(crate) turns: Vec<Turn>,
}

/// Makes the report.
pub(crate) fn report(material: Material) -> Report {
    let Material {
        fleet,
        from,
        to,
        spans,
        results,
        turns,
    } = material;
    // A service of which only changes are known is in it, too.
    let mut spans = spans;
    for turn in &turns {
        spans.entry(turn.service.clone()).or_default();
    }
    let mut incidents = incidents(&turns, from, to);
    let services: Vec<ServiceReport> = spans
        .iter()
        .map(|(service, spans)| {
            let own: Vec<&Incident> = incidents.iter().filter(|i| i.service == *service).collect();
            service_report(service, spans, &own, to - from)
        })
        .collect();
    let mut total = Spans::default();
    spans.values().for_each(|spans| total.merge(spans));
    let all: Vec<&Incident> = incidents.iter().collect();
    let mttr_s = mttr(&all);
    let incidents_count = count(incidents.len());
    incidents.sort_by(|a, b| b.began.total_cmp(&a.began));
    incidents.truncate(INCIDENTS_MAX);
    Report {
        fleet,
        from,
        to,
        availability_percent: availability(&total),
        incidents_count,
        mttr_s,
        flapping: flapping(&turns, from),
        services,
        incidents,
        slowest: slowest(&results),
    }
}

fn service_report(
    service: &ServiceName,
    spans: &Spans,
    incidents: &[&Incident],
    length_s: f64,
) -> ServiceReport {
    let longest = incidents.iter().map(|incident| incident.lasted_s);
    ServiceReport {
        service: service.clone(),
        availability_percent: availability(spans),
        up_s: round(spans.up_s),
        degraded_s: round(spans.degraded_s),
        down_s: round(spans.down_s),
        unknown_s: round((length_s - spans.up_s - spans.down_s).max(0.0)),
        incidents: count(incidents.len()),
        mttr_s: mttr(incidents),
        longest_s: longest.reduce(f64::max),
    }
}

fn availability(spans: &Spans) -> Option<f64> {
    let known = spans.up_s + spans.down_s;
    (known > 0.0).then(|| round(spans.up_s / known * 100.0))
}

/// An incident goes from the first turn to bad to the first turn to something that works. What comes between, such as a
/// restart, belongs to it; a turn to unknown ends it without being mended.
fn incidents(turns: &[Turn], from: UnixSeconds, to: UnixSeconds) -> Vec<Incident> {
    let mut open: BTreeMap<&ServiceName, Incident> = BTreeMap::new();
    let mut found = Vec::new();
    for turn in turns {
        let works = matches!(turn.state, HealthState::Healthy | HealthState::Degraded);
        if is_bad(turn.state) {
            open.entry(&turn.service).or_insert_with(|| Incident {
                service: turn.service.clone(),
                began: turn.at.max(from),
                ended: None,
                lasted_s: 0.0,
                reason: turn.reason.clone(),
            });
        } else if works || turn.state == HealthState::Unknown {
            let Some(mut incident) = open.remove(&turn.service) else {
                continue;
            };
            incident.ended = works.then_some(turn.at);
            incident.lasted_s = round(turn.at - incident.began);
            // What ended before the time is none of it.
            if turn.at >= from {
                found.push(incident);
            }
        }
    }
    found.extend(open.into_values().map(|incident| Incident {
        lasted_s: round((to - incident.began).max(0.0)),
        ..incident
    }));
    found
}

fn mttr(incidents: &[&Incident]) -> Option<f64> {
    let over: Vec<f64> = incidents
        .iter()
        .filter(|incident| incident.ended.is_some())
        .map(|incident| incident.lasted_s)
        .collect();
    (!over.is_empty()).then(|| round(over.iter().sum::<f64>() / f64::from(count(over.len()))))
}

fn slowest(results: &BTreeMap<(ServiceName, ServiceName), Results>) -> Vec<Slow> {
    let measured = results.iter().filter_map(|((service, check), results)| {
        Some(Slow {
            service: service.clone(),
            check: check.clone(),
            latency_ms_p95: round(results.latency_ms_at(0.95)?),
            latency_ms_max: round(results.latency_ms_max),
            latency_ms_mean: round(results.latency_ms_mean()?),
            tries: results.tries,
            failures: results.failures,
        })
    });
    let mut slow: Vec<Slow> = measured.collect();
    slow.sort_by(|a, b| {
        let by_p95 = b.latency_ms_p95.total_cmp(&a.latency_ms_p95);
        by_p95.then(b.latency_ms_mean.total_cmp(&a.latency_ms_mean))
    });
    slow.truncate(LIST_MAX);
    slow
}

fn flapping(turns: &[Turn], from: UnixSeconds) -> Vec<Flapping> {
    let mut falls: BTreeMap<&ServiceName, (u32, bool)> = BTreeMap::new();
    for turn in turns {
        let (fell, was_bad) = falls.entry(&turn.service).or_default();
        let bad = is_bad(turn.state);
        if bad && !*was_bad && turn.at >= from {
            *fell += 1;
        }
        *was_bad = bad;
    }
    let often = falls
        .into_iter()
        .filter(|(_, (fell, _))| *fell >= FLAPPING_MIN);
    let mut found: Vec<Flapping> = often
        .map(|(service, (turns, _))| Flapping {
            service: service.clone(),
            turns,
        })
        .collect();
    found.sort_by_key(|flapping| std::cmp::Reverse(flapping.turns));
    found.truncate(LIST_MAX);
    found
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use HealthState::{Degraded, Down, Healthy, Starting, Unhealthy, Unknown};

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).expect("an id")
    }

    fn turn(service: &str, at: f64, state: HealthState) -> Turn {
        Turn {
            service: name(service),
            state,
            at,
            reason: format!("{service} at {at}"),
        }
    }

    /// A day in which `api` failed twice and `db` is down since before.
    pub(crate) fn material() -> Material {
        let spans = Spans {
            up_s: 990.0,
            down_s: 10.0,
            ..Spans::default()
        };
        Material {
            fleet: "home <1>".to_owned(),
            from: 1_000.0,
            to: 2_000.0,
            spans: BTreeMap::from([
                (name("api"), spans),
                (
                    name("db"),
                    Spans {
                        down_s: 500.0,
                        ..Spans::default()
                    },
                ),
            ]),
            results: BTreeMap::new(),
            turns: vec![
                turn("api", 500.0, Healthy),
                turn("db", 900.0, Down),
                turn("api", 1_100.0, Down),
                turn("api", 1_102.0, Starting),
                turn("api", 1_104.0, Healthy),
                turn("api", 1_500.0, Unhealthy),
                turn("api", 1_506.0, Degraded),
            ],
        }
    }

    #[test]
    fn incidents_are_counted_and_timed() {
        let report = report(material());
        assert_eq!((report.incidents_count, report.mttr_s), (3, Some(5.0)));
        assert_eq!(report.availability_percent, Some(66.0));
        let api = &report.services[0];
        assert_eq!(
            (api.incidents, api.mttr_s, api.longest_s),
            (2, Some(5.0), Some(6.0))
        );
        assert_eq!((api.availability_percent, api.unknown_s), (Some(99.0), 0.0));
        let db = &report.services[1];
        assert_eq!(
            (db.incidents, db.mttr_s, db.longest_s),
            (1, None, Some(1_000.0))
        );
        assert_eq!((db.availability_percent, db.unknown_s), (Some(0.0), 500.0));
        let first = &report.incidents[0];
        assert_eq!(
            (first.service.as_str(), first.began, first.reason.as_str()),
            ("api", 1_500.0, "api at 1500")
        );
        let last = &report.incidents[2];
        assert_eq!(
            (last.service.as_str(), last.began, last.ended),
            ("db", 1_000.0, None)
        );
    }

    #[test]
    fn what_was_over_before_does_not_count_and_unknown_mends_nothing() {
        let turns = [
            turn("api", 100.0, Down),
            turn("api", 200.0, Healthy),
            turn("api", 1_100.0, Down),
            turn("api", 1_200.0, Unknown),
        ];
        let found = incidents(&turns, 1_000.0, 2_000.0);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].ended, found[0].lasted_s), (None, 100.0));
    }

    #[test]
    fn the_slowest_and_the_most_restless_come_first() {
        let mut material = material();
        for (check, latency_ms) in [("quick", 1.0), ("slow", 300.0)] {
            let mut results = Results::default();
            results.merge(&Results {
                tries: 10,
                latency_sum_ms: 10.0 * latency_ms,
                latency_ms_max: latency_ms,
                ..Results::default()
            });
            results.buckets[if latency_ms < 2.0 { 0 } else { 9 }] = 10;
            material.results.insert((name("api"), name(check)), results);
        }
        for n in 0..4_u32 {
            let at = 1_600.0 + f64::from(n);
            material.turns.push(turn("web", at, Down));
            material.turns.push(turn("web", at + 0.5, Healthy));
        }
        let report = report(material);
        let slow: Vec<_> = report
            .slowest
            .iter()
            .map(|slow| slow.check.as_str())
            .collect();
        assert_eq!(slow, ["slow", "quick"]);
        assert_eq!(
            (
                report.slowest[0].latency_ms_p95,
                report.slowest[0].latency_ms_mean
            ),
            (300.0, 300.0)
        );
        assert_eq!(
            report.flapping,
            [Flapping {
                service: name("web"),
                turns: 4
            }]
        );
    }

    #[test]
    fn nothing_is_a_report_too() {
        let report = report(Material::default());
        assert_eq!(
            (report.availability_percent, report.incidents_count),
            (None, 0)
        );
        assert!(markdown(&report).contains("No service was watched"));
        assert!(html(&report).contains("No service was watched"));
    }
}
