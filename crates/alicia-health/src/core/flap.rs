//! Flapping: a service that changes between good and bad so often that each change is no longer news.
//!
//! Each change adds one; the sum decays with time, so recent changes weigh more. Two thresholds keep the
//! verdict itself from flapping.

use std::time::Duration;

/// When changes count as flapping.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlapLimits {
    /// The weighted number of changes at which flapping begins. 0: never.
    pub begin: f64,
    /// Below this it is over.
    pub end: f64,
    /// The time in which the weight of a change falls to 1/e.
    pub memory: Duration,
}

impl Default for FlapLimits {
    fn default() -> Self {
        Self {
            begin: 8.0,
            end: 2.0,
            memory: Duration::from_secs(300),
        }
    }
}

/// The weighted changes of one service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flap {
    weight: f64,
    weighed: Duration,
    on: bool,
}

impl Flap {
    /// A change from good to bad or back.
    pub fn change(&mut self, limits: FlapLimits, now: Duration) {
        self.decay(limits, now);
        // However long it flapped, it is over a bounded time after the last change.
        self.weight = (self.weight + 1.0).min(limits.begin * 1.5);
        self.on |= limits.begin > 0.0 && self.weight >= limits.begin;
    }

    /// Whether it flaps, now.
    pub fn is_on(&mut self, limits: FlapLimits, now: Duration) -> bool {
        self.decay(limits, now);
        self.on &= self.weight >= limits.end;
        self.on
    }

    /// Whether it flapped when it was last looked at.
    #[must_use]
    pub fn was_on(&self) -> bool {
        self.on
    }

    fn decay(&mut self, limits: FlapLimits, now: Duration) {
        let passed_s = now.saturating_sub(self.weighed).as_secs_f64();
        self.weighed = now.max(self.weighed);
        self.weight *= (-passed_s / limits.memory.as_secs_f64()).exp();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_many_changes_and_ends_with_quiet() {
        let limits = FlapLimits::default();
        let mut flap = Flap::default();
        let began = (1..100_u64).find(|n| {
            let now = Duration::from_secs(5 * n);
            flap.change(limits, now);
            flap.is_on(limits, now)
        });
        assert_eq!(began, Some(9), "a toggle every 5 s flaps after 45 s");
        for n in 10..200 {
            flap.change(limits, Duration::from_secs(5 * n));
        }
        let over = (1_000..3_000).find(|s| !flap.is_on(limits, Duration::from_secs(*s)));
        let quiet_s = over.expect("it ends") - 5 * 199;
        assert!((300..700).contains(&quiet_s), "{quiet_s} s of quiet end it");
    }

    #[test]
    fn rare_changes_are_no_flapping_and_it_can_be_switched_off() {
        let limits = FlapLimits::default();
        let mut flap = Flap::default();
        for n in 0..100 {
            flap.change(limits, Duration::from_secs(60 * n));
            assert!(!flap.is_on(limits, Duration::from_secs(60 * n)), "{n}");
        }
        let never = FlapLimits {
            begin: 0.0,
            ..limits
        };
        let mut flap = Flap::default();
        for n in 0..100 {
            flap.change(never, Duration::from_secs(n));
            assert!(!flap.is_on(never, Duration::from_secs(n)));
        }
    }
}
