//! The work of an agent, as its heartbeats tell it: steps, tokens, cost, calls of tools. Pure.
//!
//! | alert | when |
//! |---|---|
//! | `agent_stuck` | no step for `progress_within`, with work waiting or nothing known of it |
//! | `agent_loop` | `repeats_max` equal steps in a row |
//! | `agent_tool_errors` | more than this share of the calls of `within` failed |
//! | `agent_tokens`, `agent_cost` | more per hour than this |
//! | `agent_slow` | the first token takes longer than this |
//! | `agent_queue` | work waits longer than this |

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use alicia_contract::fleet::AgentLimits;
use alicia_contract::health::{Heartbeat, Severity};
use alicia_contract::unit::Period;

use super::conditions::Rule;

/// Over which time rates are taken unless the file says otherwise.
const WITHIN: Duration = Duration::from_secs(600);

/// Samples that are kept of one instance: a rate over `within` needs its two ends, and the steps between.
const SAMPLES_MAX: usize = 64;

/// Fewer calls than this say nothing about the share that fails.
const CALLS_MIN: f64 = 5.0;

/// A rate over less than this part of `within` says nothing yet.
const SPAN_PART_MIN: u32 = 10;

/// What a number of a heartbeat is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Steps,
    Tokens,
    CostUsd,
    ToolCalls,
    ToolErrors,
    QueueAgeSeconds,
    FirstTokenMs,
    FirstTokenSeconds,
    Repeats,
}

/// The one table of names: ours, and those of OpenTelemetry for generative AI (semantic conventions, status
/// "development"). Several names of one number are summed up.
const NAMES: &[(&str, Number)] = &[
    ("steps", Number::Steps),
    ("tokens", Number::Tokens),
    ("gen_ai.client.token.usage", Number::Tokens),
    ("gen_ai.usage.input_tokens", Number::Tokens),
    ("gen_ai.usage.output_tokens", Number::Tokens),
    ("cost_usd", Number::CostUsd),
    ("tool_calls", Number::ToolCalls),
    ("gen_ai.invoke_agent.tool_calls", Number::ToolCalls),
    ("tool_errors", Number::ToolErrors),
    ("queue_age_s", Number::QueueAgeSeconds),
    ("ttft_ms", Number::FirstTokenMs),
    (
        "gen_ai.server.time_to_first_token",
        Number::FirstTokenSeconds,
    ),
    ("repeats", Number::Repeats),
];

/// What one heartbeat told of the work. Counters only rise; the others are as of now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Told {
    /// Steps so far.
    pub steps: Option<f64>,
    /// Tokens so far.
    pub tokens: Option<f64>,
    /// US dollars so far.
    pub cost_usd: Option<f64>,
    /// Calls of tools so far.
    pub tool_calls: Option<f64>,
    /// Those that failed.
    pub tool_errors: Option<f64>,
    /// How long the oldest piece of work waits, in seconds.
    pub queue_age_s: Option<f64>,
    /// How long the last answer of a model took to begin, in milliseconds.
    pub first_token_ms: Option<f64>,
    /// Equal steps in a row.
    pub repeats: Option<f64>,
}

/// The work of one instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    /// What the last heartbeat told.
    pub told: Told,
    samples: VecDeque<(Duration, Told)>,
    /// When the number of steps last rose, or was first told.
    stepped: Option<Duration>,
}

/// What is wrong with the work of an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// How bad.
    pub severity: Severity,
    /// What, without the name.
    pub what: String,
    /// The evidence, without numbers that change at each look: a change of it is news.
    pub detail: String,
}

// === impl Told ===

impl Told {
    /// What a heartbeat tells of work; `None`: nothing.
    #[must_use]
    pub fn of(heartbeat: &Heartbeat) -> Option<Self> {
        let mut told = Self::default();
        let numbers: [&BTreeMap<String, f64>; 2] = [&heartbeat.counters, &heartbeat.resources];
        for (name, number) in NAMES {
            for value in numbers.iter().filter_map(|numbers| numbers.get(*name)) {
                told.add(*number, *value);
            }
        }
        (told != Self::default()).then_some(told)
    }

    fn add(&mut self, number: Number, value: f64) {
        let (field, value) = match number {
            Number::Steps => (&mut self.steps, value),
            Number::Tokens => (&mut self.tokens, value),
            Number::CostUsd => (&mut self.cost_usd, value),
            Number::ToolCalls => (&mut self.tool_calls, value),
            Number::ToolErrors => (&mut self.tool_errors, value),
            Number::QueueAgeSeconds => (&mut self.queue_age_s, value),
            Number::FirstTokenMs => (&mut self.first_token_ms, value),
            Number::FirstTokenSeconds => (&mut self.first_token_ms, value * 1e3),
            Number::Repeats => (&mut self.repeats, value),
        };
        *field = Some(field.unwrap_or(0.0) + value);
    }
}

// === impl Work ===

impl Work {
    /// Takes what a heartbeat told.
    pub fn take(&mut self, told: Told, limits: &AgentLimits, now: Duration) {
        let before = self.told.steps;
        if told.steps.is_some() && (told.steps != before || self.stepped.is_none()) {
            self.stepped = Some(now);
        }
        self.told = told;
        // Spread evenly over the time, so that a quick heart does not push out the beginning.
        let within = within(limits);
        let gap = within / u32::try_from(SAMPLES_MAX).unwrap_or(u32::MAX) * 2;
        let recent = self.samples.len() > 1
            && self
                .samples
                .iter()
                .rev()
                .nth(1)
                .is_some_and(|(at, _)| now.saturating_sub(*at) < gap);
        if recent {
            self.samples.pop_back();
        }
        self.samples.push_back((now, told));
        while self.samples.len() > SAMPLES_MAX
            || self
                .samples
                .get(1)
                .is_some_and(|(at, _)| now.saturating_sub(*at) >= within)
        {
            self.samples.pop_front();
        }
    }

    /// What is wrong with it.
    #[must_use]
    pub fn findings(&self, limits: &AgentLimits, now: Duration) -> Vec<Finding> {
        let mut found = Vec::new();
        found.extend(self.stuck(limits, now));
        found.extend(self.looping(limits));
        found.extend(self.tool_errors(limits));
        let per_hour = |field: fn(&Told) -> Option<f64>| self.per_hour(field, limits);
        if let Some(limit) = limits.tokens_per_hour_max
            && per_hour(|told| told.tokens).is_some_and(|rate| rate > limit)
        {
            found.push(finding(
                Rule::AgentTokens,
                "burns tokens",
                format!(
                    "more than {limit} tokens per hour over {}",
                    Period(within(limits))
                ),
            ));
        }
        if let Some(limit) = limits.cost_usd_per_hour_max
            && per_hour(|told| told.cost_usd).is_some_and(|rate| rate > limit)
        {
            found.push(finding(
                Rule::AgentCost,
                "burns money",
                format!(
                    "more than ${limit} per hour over {}",
                    Period(within(limits))
                ),
            ));
        }
        if let Some(limit) = limits.first_token_max
            && self
                .told
                .first_token_ms
                .is_some_and(|ms| ms > limit.duration().as_secs_f64() * 1e3)
        {
            let detail = format!("the first token takes longer than {limit}");
            found.push(finding(Rule::AgentSlow, "waits long for its model", detail));
        }
        if let Some(limit) = limits.queue_age_max
            && self
                .told
                .queue_age_s
                .is_some_and(|age| age > limit.duration().as_secs_f64())
        {
            let detail = format!("work waits longer than {limit}");
            found.push(finding(Rule::AgentQueue, "does not keep up", detail));
        }
        found
    }

    fn stuck(&self, limits: &AgentLimits, now: Duration) -> Option<Finding> {
        let limit = limits.progress_within?;
        let quiet = now.saturating_sub(self.stepped?);
        // Nothing to do is no fault.
        let idle = self.told.queue_age_s == Some(0.0);
        (quiet > limit.duration() && !idle).then(|| {
            finding(
                Rule::AgentStuck,
                "makes no progress",
                format!("no step for {limit}"),
            )
        })
    }

    fn looping(&self, limits: &AgentLimits) -> Option<Finding> {
        let limit = limits.repeats_max?;
        let repeats = self.told.repeats?;
        (repeats >= f64::from(limit)).then(|| {
            let detail = format!("{limit} equal steps in a row, or more");
            finding(Rule::AgentLoop, "repeats itself", detail)
        })
    }

    fn tool_errors(&self, limits: &AgentLimits) -> Option<Finding> {
        let limit = limits.tool_error_percent_max?;
        let (calls, _) = self.rise(|told| told.tool_calls)?;
        let (errors, _) = self.rise(|told| told.tool_errors)?;
        (calls >= CALLS_MIN && errors / calls * 100.0 > limit).then(|| {
            let within = Period(within(limits));
            let detail =
                format!("more than {limit} % of its calls of tools failed within {within}");
            finding(Rule::AgentToolErrors, "fails to use its tools", detail)
        })
    }

    fn per_hour(&self, field: fn(&Told) -> Option<f64>, limits: &AgentLimits) -> Option<f64> {
        let (rise, span) = self.rise(field)?;
        (span >= within(limits) / SPAN_PART_MIN).then(|| rise / span.as_secs_f64() * 3_600.0)
    }

    /// By how much a counter rose, and over which time. A counter that falls was started anew.
    fn rise(&self, field: fn(&Told) -> Option<f64>) -> Option<(f64, Duration)> {
        let mut values = self
            .samples
            .iter()
            .filter_map(|(at, told)| Some((*at, field(told)?)));
        let (first, mut before) = values.next()?;
        let mut last = first;
        let mut rise = 0.0;
        for (at, value) in values {
            rise += if value >= before {
                value - before
            } else {
                value
            };
            before = value;
            last = at;
        }
        let span = last.saturating_sub(first);
        (!span.is_zero()).then_some((rise, span))
    }
}

fn finding(rule: Rule, what: &str, detail: String) -> Finding {
    Finding {
        rule,
        severity: Severity::Warning,
        what: what.to_owned(),
        detail,
    }
}

fn within(limits: &AgentLimits) -> Duration {
    limits.within.map_or(WITHIN, Period::duration)
}

/// The limits of one service: its own, and for the others those of all.
#[must_use]
pub fn limits(own: Option<&AgentLimits>, all: &AgentLimits) -> AgentLimits {
    let Some(own) = own else { return *all };
    AgentLimits {
        progress_within: own.progress_within.or(all.progress_within),
        repeats_max: own.repeats_max.or(all.repeats_max),
        tool_error_percent_max: own.tool_error_percent_max.or(all.tool_error_percent_max),
        tokens_per_hour_max: own.tokens_per_hour_max.or(all.tokens_per_hour_max),
        cost_usd_per_hour_max: own.cost_usd_per_hour_max.or(all.cost_usd_per_hour_max),
        first_token_max: own.first_token_max.or(all.first_token_max),
        queue_age_max: own.queue_age_max.or(all.queue_age_max),
        within: own.within.or(all.within),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SECOND: Duration = Duration::from_secs(1);

    fn told(counters: Value, resources: Value) -> Option<Told> {
        let body = json!({ "service": "a", "status": "healthy", "counters": counters, "resources": resources });
        Told::of(&serde_json::from_value(body).expect("a heartbeat"))
    }

    fn read(limits: Value) -> AgentLimits {
        serde_json::from_value(limits).expect("limits")
    }

    /// The rules that are broken after one heartbeat every 10 s, as `counters` says for its number.
    fn broken(limits: &AgentLimits, beats: u32, counters: impl Fn(u32) -> Value) -> Vec<Rule> {
        let mut work = Work::default();
        for n in 0..beats {
            let told = told(counters(n), json!({})).expect("numbers");
            work.take(told, limits, SECOND * 10 * n);
        }
        let found = work.findings(limits, SECOND * 10 * (beats - 1));
        found.into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn names_of_opentelemetry_are_understood() {
        let ours = told(json!({ "tokens": 30 }), json!({ "ttft_ms": 250 }));
        let theirs = told(
            json!({ "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 20 }),
            json!({ "gen_ai.server.time_to_first_token": 0.25 }),
        );
        assert_eq!(ours, theirs);
        assert_eq!(told(json!({ "requests": 1 }), json!({ "cpu": 1 })), None);
    }

    #[test]
    fn an_agent_without_steps_is_stuck_unless_it_is_idle() {
        let limits = read(json!({ "progress_within": "1m" }));
        assert_eq!(broken(&limits, 6, |_| json!({ "steps": 5 })), []);
        assert_eq!(
            broken(&limits, 8, |_| json!({ "steps": 5 })),
            [Rule::AgentStuck]
        );
        assert_eq!(broken(&limits, 8, |n| json!({ "steps": n })), []);
        let idle = |_| json!({ "steps": 5, "queue_age_s": 0 });
        assert_eq!(broken(&limits, 8, idle), []);
        let waits = |_| json!({ "steps": 5, "queue_age_s": 9 });
        assert_eq!(broken(&limits, 8, waits), [Rule::AgentStuck]);
    }

    #[test]
    fn loops_tools_queues_and_first_tokens() {
        let limits = read(
            json!({ "repeats_max": 3, "tool_error_percent_max": 50, "first_token_max": "2s", "queue_age_max": "1m" }),
        );
        let well = |n: u32| json!({ "repeats": 2, "tool_calls": n, "tool_errors": n / 2, "ttft_ms": 2_000, "queue_age_s": 60 });
        assert_eq!(broken(&limits, 20, well), []);
        assert_eq!(
            broken(&limits, 2, |_| json!({ "repeats": 3 })),
            [Rule::AgentLoop]
        );
        let fails = |n: u32| json!({ "tool_calls": n, "tool_errors": n });
        assert_eq!(broken(&limits, 20, fails), [Rule::AgentToolErrors]);
        assert_eq!(broken(&limits, 4, fails), [], "too few calls");
        assert_eq!(
            broken(&limits, 2, |_| json!({ "ttft_ms": 2_001 })),
            [Rule::AgentSlow]
        );
        assert_eq!(
            broken(&limits, 2, |_| json!({ "queue_age_s": 61 })),
            [Rule::AgentQueue]
        );
    }

    #[test]
    fn rates_are_per_hour_and_survive_a_restart_of_the_counter() {
        let limits = read(
            json!({ "tokens_per_hour_max": 36_000, "cost_usd_per_hour_max": 1, "within": "10m" }),
        );
        // 100 tokens in 10 s are 36 000 per hour.
        assert_eq!(broken(&limits, 50, |n| json!({ "tokens": 100 * n })), []);
        assert_eq!(
            broken(&limits, 50, |n| json!({ "tokens": 101 * n })),
            [Rule::AgentTokens]
        );
        assert_eq!(
            broken(&limits, 50, |n| json!({ "cost_usd": 0.01 * f64::from(n) })),
            [Rule::AgentCost]
        );
        let anew = |n: u32| json!({ "tokens": 100 * (n % 20) });
        assert_eq!(broken(&limits, 50, anew), []);
        assert_eq!(
            broken(&limits, 3, |n| json!({ "tokens": 9_999 * n })),
            [],
            "too short a time"
        );
        // What was long ago does not count.
        let calmed = |n: u32| json!({ "tokens": 1_000 * n.min(50) });
        assert_eq!(broken(&limits, 200, calmed), []);
    }

    #[test]
    fn a_service_has_its_own_limits_and_the_rest_from_all() {
        let all = read(json!({ "repeats_max": 3, "first_token_max": "2s" }));
        let own = read(json!({ "repeats_max": 5 }));
        let merged = limits(Some(&own), &all);
        assert_eq!(
            (merged.repeats_max, merged.first_token_max),
            (Some(5), all.first_token_max)
        );
        assert_eq!(limits(None, &all), all);
    }
}
