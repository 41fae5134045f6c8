//! `rules`: watches the sensors and says when a value is beyond its limit, and when it is back.
//!
//! ```text
//!          value beyond the limit
//!   quiet ────────────────────────▶ firing
//!     ◀────────────────────────────────┘
//!       value back by a tenth: one that stays near the limit says nothing more
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alicia_sdk::contract::health::Severity;
use alicia_sdk::{Capability, Context, Error, JsonSchema, Kind, Message, Service, Value};
use serde::{Deserialize, Serialize};

use super::{Notice, Reading, RuleChange, VERSION};

/// How far a value must come back, as a part of the limit.
const HYSTERESIS: f64 = 0.1;

/// Notices that wait for a notifier that is away; further ones are of no more use.
const WAITING_MAX: usize = 50;

/// Between two tries to get waiting notices through.
const RETRY: Duration = Duration::from_secs(5);
const NOTIFY_DEADLINE: Duration = Duration::from_secs(2);

pub(crate) async fn run() -> Result<(), Error> {
    let watch = Watch::from_environment();
    let (listed, changed, waiting) = (watch.clone(), watch.clone(), watch.clone());
    Service::from_env("rules")?
        .version(VERSION)
        .kind(Kind::Agent)
        .capability(
            Capability::new("list-rules").describes("tells the limits of the sensors"),
            move |_cx, (): ()| {
                let rules = listed.lock().rules.clone();
                async move { Ok(rules) }
            },
        )
        .capability(
            Capability::new("set-limit").describes("sets the limit of a sensor"),
            move |_cx, limit: Limit| {
                let outcome = changed.lock().set(&limit);
                async move { outcome }
            },
        )
        .on("home/sensors/+", move |cx, message: Message<Reading>| {
            let watch = watch.clone();
            async move { watch.judge(&cx, &message.payload).await }
        })
        .every(RETRY, move |cx| {
            let watch = waiting.clone();
            async move { watch.send(&cx).await }
        })
        .run()
        .await
}

/// A new limit of a rule.
#[derive(Deserialize, JsonSchema)]
struct Limit {
    rule: String,
    limit: f64,
}

/// Which side of the limit is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Bad {
    Above,
    Below,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct Rule {
    /// Also the name of its sensor.
    name: &'static str,
    bad: Bad,
    limit: f64,
    firing: bool,
}

impl Rule {
    /// Takes a value into account; true when the rule began or ceased to fire.
    fn judge(&mut self, value: f64) -> bool {
        let was = self.firing;
        let slack = self.limit.abs() * HYSTERESIS;
        self.firing = match (self.bad, was) {
            (Bad::Above, false) => value > self.limit,
            (Bad::Above, true) => value > self.limit - slack,
            (Bad::Below, false) => value < self.limit,
            (Bad::Below, true) => value < self.limit + slack,
        };
        was != self.firing
    }

    fn change(&self, reading: &Reading) -> RuleChange {
        let (name, limit) = (self.name, self.limit);
        let side = if self.bad == Bad::Above {
            "above"
        } else {
            "below"
        };
        let text = match self.firing {
            true => format!(
                "{name} is {side} {limit} {}: {}",
                reading.unit, reading.text
            ),
            false => format!("{name} is well again: {}", reading.text),
        };
        RuleChange {
            rule: name.to_owned(),
            value: reading.value,
            limit,
            text,
        }
    }
}

#[derive(Debug)]
struct State {
    rules: Vec<Rule>,
    waiting: VecDeque<Notice>,
}

impl State {
    /// The change of the rule about this sensor, when there is one.
    fn judge(&mut self, reading: &Reading) -> Option<(bool, RuleChange)> {
        let rule = self
            .rules
            .iter_mut()
            .find(|rule| rule.name == reading.name)?;
        if !rule.judge(reading.value) {
            return None;
        }
        let change = rule.change(reading);
        let severity = if rule.firing {
            Severity::Warning
        } else {
            Severity::Info
        };
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(Notice {
                text: change.text.clone(),
                severity,
            });
        }
        Some((rule.firing, change))
    }

    fn set(&mut self, limit: &Limit) -> Result<Value, Error> {
        let names: Vec<&str> = self.rules.iter().map(|rule| rule.name).collect();
        let known = names.join(", ");
        let Some(rule) = self.rules.iter_mut().find(|rule| rule.name == limit.rule) else {
            return Err(Error::refused(
                404,
                format!("no rule {:?}, known: {known}", limit.rule),
            ));
        };
        rule.limit = limit.limit;
        Ok(serde_json::to_value(rule)?)
    }
}

#[derive(Debug, Clone)]
struct Watch(Arc<Mutex<State>>);

impl Watch {
    fn from_environment() -> Self {
        let limit = |variable: &str, default: f64| {
            let written = std::env::var(variable).ok();
            written
                .and_then(|text| text.parse().ok())
                .unwrap_or(default)
        };
        let rule = |name, bad, limit| Rule {
            name,
            bad,
            limit,
            firing: false,
        };
        let rules = vec![
            rule("load", Bad::Above, limit("LOAD_PER_CORE_MAX", 1.5)),
            rule("memory", Bad::Above, limit("MEMORY_USED_MAX", 90.0)),
            rule("disk", Bad::Below, limit("DISK_FREE_MIN", 5.0)),
            rule("temperature", Bad::Above, limit("TEMPERATURE_MAX", 85.0)),
        ];
        Self(Arc::new(Mutex::new(State {
            rules,
            waiting: VecDeque::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn judge(&self, cx: &Context, reading: &Reading) -> Result<(), Error> {
        let Some((is_firing, change)) = self.lock().judge(reading) else {
            return Ok(());
        };
        let topic = if is_firing {
            "home/rules/fired"
        } else {
            "home/rules/cleared"
        };
        cx.publish(topic, &change).await?;
        self.send(cx).await
    }

    /// Sends what waits, the oldest first. What does not get through is tried again later.
    async fn send(&self, cx: &Context) -> Result<(), Error> {
        loop {
            let Some(notice) = self.lock().waiting.front().cloned() else {
                return Ok(());
            };
            let _: Value = cx
                .call("notifier", "notify", &notice, NOTIFY_DEADLINE)
                .await?;
            let mut state = self.lock();
            if state.waiting.front() == Some(&notice) {
                state.waiting.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(bad: Bad, values: &[f64]) -> Vec<bool> {
        let mut rule = Rule {
            name: "load",
            bad,
            limit: 10.0,
            firing: false,
        };
        values.iter().map(|value| rule.judge(*value)).collect()
    }

    #[test]
    fn a_value_that_stays_near_its_limit_is_told_once() {
        let found = changes(Bad::Above, &[10.0, 10.1, 9.9, 10.1, 9.1, 9.0, 9.9, 10.2]);
        assert_eq!(found, [false, true, false, false, false, true, false, true]);
        let found = changes(Bad::Below, &[10.0, 9.9, 10.5, 10.9, 11.0, 10.5, 9.0]);
        assert_eq!(found, [false, true, false, false, true, false, true]);
    }

    #[test]
    fn a_change_is_told_in_words_and_waits_for_the_notifier() {
        let watch = Watch::from_environment();
        let mut state = watch.lock();
        state
            .set(&Limit {
                rule: "load".into(),
                limit: 2.0,
            })
            .expect("there is such a rule");
        assert!(
            state
                .set(&Limit {
                    rule: "luck".into(),
                    limit: 2.0
                })
                .is_err()
        );
        let reading = |value: f64| Reading {
            name: "load".into(),
            value,
            unit: "per core".into(),
            text: format!("{value} per core"),
        };
        let (firing, change) = state.judge(&reading(3.0)).expect("it fires");
        assert!(firing);
        assert_eq!(change.text, "load is above 2 per core: 3 per core");
        assert_eq!(state.judge(&reading(3.5)), None);
        let (firing, change) = state.judge(&reading(1.0)).expect("it clears");
        assert!(!firing);
        assert_eq!(change.text, "load is well again: 1 per core");
        assert_eq!(state.waiting.len(), 2);
        assert_eq!(
            state.judge(&Reading {
                name: "noise".into(),
                ..reading(9.0)
            }),
            None
        );
    }
}
