//! Service-level objectives: what is left of the error budget, and whether it is burnt too quickly.
//!
//! An alert needs two windows at once: the long one shows that it matters, the short one that it is still going on. The
//! windows and factors are those of the Site Reliability Workbook (Beyer and others, 2018, chapter 5, table 5-8); the book
//! says that they are not for services with few events, so each objective has a least number of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::fleet::{Fleet, LatencyObjective, Slo};
use alicia_contract::health::Severity;
use alicia_contract::id::ServiceName;
use alicia_contract::unit::{Period, UnixSeconds};
use alicia_module::Clock;
use alicia_store::{Connection, Error as StoreError, Store};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;

use crate::actor::{Handle, Shared};
use crate::core::Event;
use crate::core::conditions::{Condition, Key, Rule};
use crate::history::ledger::{minute_of, number};
use crate::history::rows::{self, Grain};
use crate::history::uptime::round;

/// How often the objectives are looked at: rows come once a minute.
const LOOK_EVERY: Duration = Duration::from_secs(20);

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Two windows and the rate at which burning through both is an alert.
#[derive(Debug, Clone, Copy)]
struct Pair {
    factor: f64,
    long: Duration,
    short: Duration,
    severity: Severity,
}

/// The first that burns decides.
const PAIRS: [Pair; 3] = [
    Pair {
        factor: 14.4,
        long: HOUR,
        short: Duration::from_secs(5 * 60),
        severity: Severity::Critical,
    },
    Pair {
        factor: 6.0,
        long: Duration::from_secs(6 * 3_600),
        short: Duration::from_secs(30 * 60),
        severity: Severity::Critical,
    },
    Pair {
        factor: 1.0,
        long: Duration::from_secs(3 * 86_400),
        short: Duration::from_secs(6 * 3_600),
        severity: Severity::Warning,
    },
];

/// What was observed in a window: seconds for availability, tries for latency.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Observed {
    bad: f64,
    total: f64,
    /// How many observations that are: minutes, or tries.
    events: f64,
}

/// Everything that one objective needs, by window.
type Windows = BTreeMap<Duration, Observed>;

/// One objective of a service, and how it does.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Objective {
    /// The service.
    pub(crate) service: ServiceName,
    /// `availability` or `latency`.
    pub(crate) objective: String,
    /// What is promised, in words.
    pub(crate) promise: String,
    /// The promise, in percent.
    pub(crate) target_percent: f64,
    /// Over which time.
    pub(crate) window: Period,
    /// What was kept of it, in percent of what is known; none: nothing is known yet.
    pub(crate) kept_percent: Option<f64>,
    /// What is left of the error budget, in percent; below zero the promise is broken.
    pub(crate) budget_left_percent: f64,
    /// Seconds (availability) or tries (latency) that were bad.
    pub(crate) bad: f64,
    /// The observations in the window: minutes (availability) or tries (latency).
    pub(crate) events: f64,
    /// How quickly the budget is burnt: 1 uses it up exactly at the end of the window.
    pub(crate) burn: Vec<Burn>,
    /// The severity of its alert; none: it is not burnt too quickly.
    pub(crate) alert: Option<Severity>,
}

/// The rate in a pair of windows.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Burn {
    /// The long window, which shows that it matters.
    pub(crate) long: Period,
    /// The short window, which shows that it goes on.
    pub(crate) short: Period,
    /// Above this in both it is an alert.
    pub(crate) limit: f64,
    /// The rate in the long window; none: nothing is known.
    pub(crate) rate_long: Option<f64>,
    /// The rate in the short window; none: nothing is known.
    pub(crate) rate_short: Option<f64>,
    /// Whether there are enough observations for an alert.
    pub(crate) enough: bool,
    /// Whether it is an alert.
    pub(crate) firing: bool,
}

// === impl Observed ===

impl Observed {
    fn share(&self) -> Option<f64> {
        (self.total > 0.0).then(|| self.bad / self.total)
    }
}

/// What is promised.
struct Promise<'s> {
    service: &'s ServiceName,
    slo: &'s Slo,
    objective: &'static str,
    text: String,
    target_percent: f64,
}

/// Judges one objective. Pure.
fn judge(promise: &Promise<'_>, windows: &Windows) -> Objective {
    let slo = promise.slo;
    let allowed = 1.0 - promise.target_percent / 100.0;
    let of = |window: Duration| windows.get(&window).copied().unwrap_or_default();
    let rate = |window: Duration| of(window).share().map(|share| share / allowed);
    let mut alert = None;
    let mut burn = Vec::new();
    for pair in PAIRS {
        let (long, short) = (rate(pair.long), rate(pair.short));
        let enough = of(pair.long).events >= f64::from(slo.events_min);
        let above = |rate: Option<f64>| rate.is_some_and(|rate| rate > pair.factor);
        let firing = enough && above(long) && above(short);
        if firing {
            alert = alert.or(Some(pair.severity));
        }
        burn.push(Burn {
            long: Period(pair.long),
            short: Period(pair.short),
            limit: pair.factor,
            rate_long: long.map(round),
            rate_short: short.map(round),
            enough,
            firing,
        });
    }
    let whole = of(slo.window.duration());
    // Time that is still to come may still be good; tries that were not made were not promised.
    let budget = match promise.objective {
        AVAILABILITY => slo.window.duration().as_secs_f64() * allowed,
        _ => whole.total * allowed,
    };
    let left = if budget > 0.0 {
        1.0 - whole.bad / budget
    } else {
        1.0
    };
    Objective {
        service: promise.service.clone(),
        objective: promise.objective.to_owned(),
        promise: promise.text.clone(),
        target_percent: promise.target_percent,
        window: slo.window,
        kept_percent: whole.share().map(|bad| round((1.0 - bad) * 100.0)),
        budget_left_percent: round(left * 100.0),
        bad: round(whole.bad),
        events: round(whole.events),
        burn,
        alert,
    }
}

const AVAILABILITY: &str = "availability";
const LATENCY: &str = "latency";

/// Every objective of the fleet, from the rows of the history.
pub(crate) fn objectives(
    connection: &Connection,
    fleet: &Fleet,
    now: UnixSeconds,
) -> Result<Vec<Objective>, StoreError> {
    let promised: Vec<(&ServiceName, &Slo)> = fleet
        .services
        .iter()
        .filter_map(|(service, spec)| Some((service, spec.slo.as_ref()?)))
        .collect();
    if promised.is_empty() {
        return Ok(Vec::new());
    }
    let mut lengths: BTreeSet<Duration> = PAIRS.iter().flat_map(|p| [p.long, p.short]).collect();
    lengths.extend(promised.iter().map(|(_, slo)| slo.window.duration()));
    let needs_latency = promised.iter().any(|(_, slo)| slo.latency.is_some());
    let mut spans = BTreeMap::new();
    let mut results = BTreeMap::new();
    for length in lengths {
        let grain = if length < DAY {
            Grain::Minute
        } else {
            Grain::Hour
        };
        let since = minute_of(now - length.as_secs_f64());
        spans.insert(length, rows::spans(connection, grain, since)?);
        if needs_latency {
            results.insert(length, rows::tries(connection, grain, since)?);
        }
    }
    let mut found = Vec::new();
    for (service, slo) in promised {
        if let Some(target_percent) = slo.availability {
            let windows = spans.iter().map(|(length, spans)| {
                let spans = spans.get(service).copied().unwrap_or_default();
                let total = spans.up_s + spans.down_s;
                let observed = Observed {
                    bad: spans.down_s,
                    total,
                    events: total / MINUTE.as_secs_f64(),
                };
                (*length, observed)
            });
            let promise = Promise {
                service,
                slo,
                objective: AVAILABILITY,
                text: format!("works {target_percent} % of the time"),
                target_percent,
            };
            found.push(judge(&promise, &windows.collect()));
        }
        if let Some(objective) = &slo.latency {
            let windows = results.iter().map(|(length, results)| {
                let mut observed = Observed::default();
                for ((of, check), (tries, slow)) in results {
                    if of == service && counts(objective, check) {
                        observed.bad += number(*slow);
                        observed.total += number(*tries);
                    }
                }
                observed.events = observed.total;
                (*length, observed)
            });
            let (target_percent, max) = (objective.target, objective.max);
            let promise = Promise {
                service,
                slo,
                objective: LATENCY,
                text: format!("{target_percent} % of the tries take at most {max}"),
                target_percent,
            };
            found.push(judge(&promise, &windows.collect()));
        }
    }
    Ok(found)
}

/// Whether the tries of a check count for an objective of latency.
pub(crate) fn counts(objective: &LatencyObjective, check: &ServiceName) -> bool {
    objective
        .check
        .as_ref()
        .is_none_or(|wanted| wanted == check)
}

/// Looks at the objectives now and then, and tells the monitor what burns.
pub(crate) async fn watch(
    store: Store,
    clock: Clock,
    fleet: watch::Receiver<Arc<Fleet>>,
    shared: Arc<Shared>,
    monitor: Handle,
) {
    let mut pause = tokio::time::interval(LOOK_EVERY);
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pause.tick().await;
        let (fleet, now) = (Arc::clone(&fleet.borrow()), clock.unix());
        let found = store
            .read(move |connection| objectives(connection, &fleet, now))
            .await;
        match found {
            Ok(found) => tell(&found, &shared, &monitor).await,
            Err(StoreError::Closed) => return,
            Err(error) => tracing::warn!(%error, "the objectives of services were not looked at"),
        }
    }
}

async fn tell(found: &[Objective], shared: &Shared, monitor: &Handle) {
    let burning: Vec<Condition> = found.iter().filter_map(condition).collect();
    // What fires and burns no more, also when it fired before a restart, or when the promise is gone.
    let over: Vec<Key> = {
        let monitor = shared.read();
        let keys = monitor.told_keys(Rule::SloBurn);
        keys.into_iter()
            .filter(|key| !burning.iter().any(|condition| condition.key == *key))
            .collect()
    };
    for key in over {
        monitor.say(Event::Untell(key)).await;
    }
    for condition in burning {
        monitor.say(Event::Tell(Box::new(condition), None)).await;
    }
}

fn condition(objective: &Objective) -> Option<Condition> {
    let severity = objective.alert?;
    let burn = objective.burn.iter().find(|burn| burn.firing)?;
    let Objective {
        service,
        promise,
        window,
        ..
    } = objective;
    Some(Condition {
        key: Key {
            rule: Rule::SloBurn,
            service: service.clone(),
            instance: None,
            check: Some(objective.objective.clone()),
        },
        active: true,
        occurrence: 0,
        severity,
        summary: format!("{service} is breaking its promise: {promise}"),
        detail: format!(
            "over {} and still over {}, the error budget of {window} is burnt more than {} times as fast as it \
             would last",
            burn.long, burn.short, burn.limit
        ),
        last_lines: Vec::new(),
        suggestion: Some(format!("alicia report --period {}", burn.long)),
        labels: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn slo() -> Slo {
        serde_json::from_value(json!({ "availability": 99.9 })).expect("objectives")
    }

    /// Judges 99.9 % when this share of each minute was bad, so many minutes ago and later.
    fn judged(slo: &Slo, known_minutes: u32, share: impl Fn(u32) -> f64) -> Objective {
        let lengths = PAIRS.iter().flat_map(|pair| [pair.long, pair.short]);
        let windows = lengths.chain([slo.window.duration()]).map(|length| {
            let minutes = u32::try_from(length.as_secs() / 60).expect("short");
            let bad: f64 = (0..minutes.min(known_minutes))
                .map(|ago| 60.0 * share(ago))
                .sum();
            let total = 60.0 * f64::from(minutes.min(known_minutes));
            (
                length,
                Observed {
                    bad,
                    total,
                    events: total / 60.0,
                },
            )
        });
        let service = ServiceName::new("api").expect("an id");
        let promise = Promise {
            service: &service,
            slo,
            objective: AVAILABILITY,
            text: String::new(),
            target_percent: 99.9,
        };
        judge(&promise, &windows.collect())
    }

    const MONTH: u32 = 30 * 24 * 60;

    #[test]
    fn each_pair_of_windows_finds_its_kind_of_fire() {
        let slo = slo();
        let alert = |share: &dyn Fn(u32) -> f64| judged(&slo, MONTH, share).alert;
        assert_eq!(alert(&|_| 0.0), None);
        // Exactly sustainable.
        assert_eq!(alert(&|_| 0.000_99), None);
        // A little too much for long.
        assert_eq!(alert(&|_| 0.0011), Some(Severity::Warning));
        // A slow fire: 7 times, for six hours.
        assert_eq!(
            alert(&|ago| if ago < 360 { 0.007 } else { 0.0 }),
            Some(Severity::Critical)
        );
        // A quick one: 2 % for an hour.
        assert_eq!(
            alert(&|ago| if ago < 60 { 0.02 } else { 0.0 }),
            Some(Severity::Critical)
        );
        // It is out: the last half hour is well.
        assert_eq!(
            alert(&|ago| if (30..90).contains(&ago) { 0.02 } else { 0.0 }),
            None
        );
        // A minute alone is no hour: 1/60 is 16.7 times the rate, and it is over.
        assert_eq!(alert(&|ago| if ago == 10 { 1.0 } else { 0.0 }), None);
    }

    #[test]
    fn few_observations_alert_nobody() {
        let mut slo = slo();
        let burning = |slo: &Slo, known: u32| judged(slo, known, |_| 0.5).alert.is_some();
        assert!(!burning(&slo, 29));
        assert!(burning(&slo, 30));
        slo.events_min = 10;
        assert!(burning(&slo, 10));
    }

    #[test]
    fn the_budget_is_that_of_the_window() {
        // 43.2 minutes of 30 days; 10 are used.
        let objective = judged(&slo(), MONTH, |ago| f64::from(u8::from(ago < 10)));
        assert!(
            (objective.budget_left_percent - 76.852).abs() < 0.001,
            "{objective:?}"
        );
        assert_eq!(objective.bad, 600.0);
        let broken = judged(&slo(), MONTH, |ago| f64::from(u8::from(ago < 60)));
        assert!(broken.budget_left_percent < 0.0);
        let nothing = judged(&slo(), 0, |_| 1.0);
        assert_eq!(
            (nothing.kept_percent, nothing.budget_left_percent),
            (None, 100.0)
        );
    }

    proptest! {
        /// More badness never turns an alert off, and never leaves more of the budget.
        #[test]
        fn worse_is_never_better(share in 0.0..1.0_f64, more in 0.0..1.0_f64, since in 0..MONTH) {
            let slo = slo();
            let at = |share: f64| judged(&slo, MONTH, move |ago| if ago < since { share } else { 0.0 });
            let (better, worse) = (at(share * (1.0 - more)), at(share));
            prop_assert!(worse.alert.is_some() || better.alert.is_none());
            prop_assert!(worse.budget_left_percent <= better.budget_left_percent);
        }
    }
}
