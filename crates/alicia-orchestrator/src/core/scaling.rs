//! How many instances the load asks for: a rule over what was measured, with hysteresis. Pure.
//!
//! Every rule of a service says how many instances would bring its value to the target; the largest number counts.
//! The rules are about the sum of what all instances have, so that a constant load has one answer, whatever the
//! number is now: nothing swings. More instances come as soon as the cool-down allows; fewer only when they would
//! have been enough for `scale_down_after`, and then as many as the busiest moment of that time needed.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::fleet::ScalingSpec;

/// A value that is off its target by less than this changes nothing.
const TOLERANCE: f64 = 0.1;

/// What rounding leaves over is no instance.
const EPSILON: f64 = 1e-6;

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// The use of the processor by all instances, in cores; none: not known.
    pub cpu: Option<f64>,
    /// Values of heartbeats by name: the sum over the instances, and over how many.
    pub values: BTreeMap<String, (f64, u32)>,
}

/// A new number of instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The number.
    pub instances: u32,
    /// Why, in words.
    pub reason: String,
}

/// What is remembered of one service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scaler {
    /// When the number was changed last.
    changed: Option<Duration>,
    /// Since when fewer would have been enough, and how many of them at the busiest moment since.
    low: Option<(Duration, u32)>,
}

/// How many instances one rule asks for, and why.
struct Need {
    instances: u32,
    reason: String,
}

impl Scaler {
    /// Whether there should be another number of instances than `current`.
    pub fn decide(
        &mut self,
        spec: &ScalingSpec,
        current: u32,
        sample: &Sample,
        now: Duration,
    ) -> Option<Decision> {
        let (min, max) = (spec.min, spec.max.max(spec.min));
        let outside = !(min..=max).contains(&current);
        let need = needs(spec, current, sample)
            .into_iter()
            .max_by_key(|need| need.instances);
        let Some(need) = need else {
            // Nothing is known: the number stays, within the bounds.
            return outside.then(|| {
                self.change(
                    current.clamp(min, max),
                    format!("from {min} to {max} are allowed"),
                    now,
                )
            });
        };
        let wanted = need.instances.clamp(min, max);
        if wanted >= current {
            self.low = None;
        }
        if wanted > current {
            return self
                .is_cool(spec, now)
                .then(|| self.change(wanted, need.reason, now));
        }
        if outside {
            return Some(self.change(max, format!("at most {max} are allowed"), now));
        }
        if wanted == current {
            return None;
        }
        let (since, busiest) = self.low.get_or_insert((now, wanted));
        *busiest = wanted.max(*busiest);
        let (since, busiest) = (*since, *busiest);
        let long_enough = now.saturating_sub(since) >= spec.scale_down_after.duration();
        if !long_enough || !self.is_cool(spec, now) {
            return None;
        }
        let reason = format!("{}, for {}", need.reason, spec.scale_down_after);
        Some(self.change(busiest, reason, now))
    }

    fn is_cool(&self, spec: &ScalingSpec, now: Duration) -> bool {
        let changed = self.changed;
        changed.is_none_or(|at| now.saturating_sub(at) >= spec.cool_down.duration())
    }

    fn change(&mut self, instances: u32, reason: String, now: Duration) -> Decision {
        self.changed = Some(now);
        self.low = None;
        Decision { instances, reason }
    }
}

fn needs(spec: &ScalingSpec, current: u32, sample: &Sample) -> Vec<Need> {
    let mut needs = Vec::new();
    if let (Some(target), Some(total)) = (spec.cpu, sample.cpu) {
        needs.extend(need("cpu", total, target, current));
    }
    for (name, target) in &spec.per_instance {
        if let Some((total, _)) = sample.values.get(name) {
            needs.extend(need(name, *total, *target, current));
        }
    }
    for (name, target) in &spec.average {
        if let Some((total, of)) = sample.values.get(name).filter(|(_, of)| *of > 0) {
            // An instance more takes its share: the load is what the average makes of those there are.
            let load = total / f64::from(*of) * f64::from(current.max(1));
            needs.extend(need(name, load, *target, current));
        }
    }
    needs
}

/// The number that brings a load to the target, or the number that there is, when it is near enough.
fn need(name: &str, total: f64, target: f64, current: u32) -> Option<Need> {
    if !(total.is_finite() && total >= 0.0 && target > 0.0) {
        return None;
    }
    let share = total / f64::from(current.max(1));
    let is_near = current > 0 && (share / target - 1.0).abs() <= TOLERANCE;
    let exact = (total / target - EPSILON)
        .ceil()
        .clamp(0.0, f64::from(u32::MAX));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is from 0 to u32::MAX"
    )]
    let exact = exact as u32;
    Some(Need {
        instances: if is_near { current } else { exact },
        reason: format!("{name} is {share:.2} for each of {current}, {target} is aimed at"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_contract::Period;
    use proptest::prelude::*;
    use serde_json::json;

    fn spec(rules: serde_json::Value) -> ScalingSpec {
        let mut spec =
            json!({ "min": 1, "max": 10, "cool_down": "10s", "scale_down_after": "60s" });
        for (name, value) in rules.as_object().expect("rules") {
            spec[name] = value.clone();
        }
        serde_json::from_value(spec).expect("a scaling")
    }

    fn cpu(total: f64) -> Sample {
        Sample {
            cpu: Some(total),
            ..Sample::default()
        }
    }

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn more_come_at_once_and_fewer_after_a_while() {
        let spec = spec(json!({ "cpu": 0.5 }));
        let mut scaler = Scaler::default();
        let up = scaler
            .decide(&spec, 1, &cpu(1.9), seconds(100))
            .expect("more");
        assert_eq!(up.instances, 4);
        assert!(
            up.reason
                .contains("cpu is 1.90 for each of 1, 0.5 is aimed at"),
            "{}",
            up.reason
        );
        // The cool-down.
        assert_eq!(scaler.decide(&spec, 4, &cpu(4.0), seconds(109)), None);
        assert_eq!(
            scaler
                .decide(&spec, 4, &cpu(4.0), seconds(110))
                .map(|d| d.instances),
            Some(8)
        );
        // Fewer would do, but a busier moment comes in between, and counts.
        assert_eq!(scaler.decide(&spec, 8, &cpu(0.4), seconds(200)), None);
        assert_eq!(scaler.decide(&spec, 8, &cpu(1.4), seconds(230)), None);
        assert_eq!(scaler.decide(&spec, 8, &cpu(0.4), seconds(259)), None);
        let down = scaler
            .decide(&spec, 8, &cpu(0.4), seconds(260))
            .expect("fewer");
        assert_eq!(down.instances, 3);
        assert!(down.reason.ends_with("for 1m"), "{}", down.reason);
    }

    #[test]
    fn the_largest_need_wins_within_the_bounds_and_nothing_known_changes_nothing() {
        let spec = spec(
            json!({ "cpu": 0.5, "per_instance": {"queue": 10}, "average": {"latency_ms": 100} }),
        );
        let check = |current, sample: Sample, expected: Option<u32>| {
            let decided = Scaler::default().decide(&spec, current, &sample, seconds(1));
            assert_eq!(
                decided.map(|decided| decided.instances),
                expected,
                "{sample:?}"
            );
        };
        let values = |queue: f64, latency: f64| Sample {
            cpu: Some(0.1),
            values: [
                ("queue".to_owned(), (queue, 2)),
                ("latency_ms".to_owned(), (latency, 2)),
            ]
            .into(),
        };
        check(2, values(60.0, 200.0), Some(6));
        check(2, values(10.0, 800.0), Some(8));
        check(2, values(1_000.0, 0.0), Some(10));
        check(2, Sample::default(), None);
        check(12, Sample::default(), Some(10));
        check(2, values(f64::NAN, f64::INFINITY), None);
        // Near enough.
        check(2, values(21.0, 105.0), None);
    }

    proptest! {
        #[test]
        fn a_constant_load_ends_in_one_number(
            load in 0.0_f64..20.0,
            target in 0.05_f64..2.0,
            start in 1_u32..20,
            noise in prop::collection::vec(-0.02_f64..0.02, 200),
        ) {
            let mut spec = spec(json!({ "cpu": target, "max": 20 }));
            spec.cool_down = Period::from_secs(2);
            spec.scale_down_after = Period::from_secs(5);
            let (mut scaler, mut current, mut changes) = (Scaler::default(), start, 0);
            for (second, noise) in (0_u64..).zip(&noise) {
                // The noise is within the tolerance of one decision.
                let sample = cpu(load * (1.0 + noise));
                if let Some(decided) = scaler.decide(&spec, current, &sample, seconds(second)) {
                    prop_assert!(decided.instances != current);
                    prop_assert!((spec.min..=spec.max).contains(&decided.instances));
                    current = decided.instances;
                    changes += 1;
                }
            }
            prop_assert!(changes <= 2, "{changes} changes at a constant load of {load} and a target of {target}");
        }
    }
}
