//! How unlikely a silence is, from the rhythm of the heartbeats before it (the phi accrual failure detector: Hayashibara
//! and others, SRDS 2004; the approximation of the normal distribution is the one that Akka and Cassandra use).
//!
//! `phi = -log10(P(a heartbeat comes even later))`: at 8, one silence in 10^8 of this rhythm is as long.

use std::collections::VecDeque;
use std::time::Duration;

/// Above this a heartbeat is lost (the default of Akka and Cassandra).
pub const PHI_MAX: f64 = 8.0;

/// The rhythm of this many heartbeats counts: enough for a spread, few enough to follow a change.
const INTERVALS_MAX: usize = 64;

/// Before this many intervals the rhythm is not known.
const INTERVALS_MIN: usize = 8;

/// The least deviation, as a part of the interval: a rhythm that was exact so far may be late by some of it all the same.
const DEVIATION_PART_MIN: f64 = 0.1;

/// The least deviation: what a scheduler and a network add.
const DEVIATION_MIN: Duration = Duration::from_millis(100);

/// The rhythm of one sender.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rhythm {
    intervals_s: VecDeque<f64>,
}

impl Rhythm {
    /// Takes the time since the heartbeat before. One that came much too early was asked for, and says nothing.
    pub fn take(&mut self, interval: Duration, announced: Duration) {
        if interval * 2 < announced {
            return;
        }
        if self.intervals_s.len() >= INTERVALS_MAX {
            self.intervals_s.pop_front();
        }
        self.intervals_s.push_back(interval.as_secs_f64());
    }

    /// How unlikely it is to have heard nothing for so long. One lost heartbeat is expected: it may happen. `None`: the
    /// rhythm is not known.
    #[must_use]
    pub fn phi(&self, silent: Duration, announced: Duration) -> Option<f64> {
        let count = self.intervals_s.len();
        if count < INTERVALS_MIN {
            return None;
        }
        let mean =
            (self.intervals_s.iter().sum::<f64>() / number(count)).max(announced.as_secs_f64());
        let spread = self
            .intervals_s
            .iter()
            .map(|interval| (interval - mean).powi(2));
        let deviation = (spread.sum::<f64>() / number(count))
            .sqrt()
            .max(mean * DEVIATION_PART_MIN)
            .max(DEVIATION_MIN.as_secs_f64());
        Some(later_than((silent.as_secs_f64() - 2.0 * mean) / deviation))
    }
}

/// `-log10` of the share of a normal distribution above `y` deviations.
fn later_than(y: f64) -> f64 {
    let exponent = y * (1.5976 + 0.070_566 * y * y);
    // log10(1 + e^x), without the overflow of e^x.
    if exponent > 30.0 {
        exponent / std::f64::consts::LN_10
    } else {
        exponent.exp().ln_1p() / std::f64::consts::LN_10
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is at most some hundred")]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn steady(interval: Duration) -> Rhythm {
        let mut rhythm = Rhythm::default();
        (0..20).for_each(|_| rhythm.take(interval, interval));
        rhythm
    }

    /// The silence at which it is lost.
    fn lost_after(rhythm: &Rhythm, announced: Duration) -> Duration {
        let times = (0..100_000).map(Duration::from_millis);
        let lost = |silent: &Duration| {
            rhythm
                .phi(*silent, announced)
                .is_some_and(|phi| phi > PHI_MAX)
        };
        times.into_iter().find(lost).expect("it is lost some day")
    }

    #[test]
    fn a_silence_grows_more_unlikely_and_one_lost_heartbeat_is_none() {
        let rhythm = steady(SECOND * 5);
        let phi = |silent: Duration| rhythm.phi(silent, SECOND * 5).expect("known");
        assert!(phi(SECOND * 5) < 0.01);
        assert!(phi(SECOND * 10) < 1.0, "one lost");
        assert!((0..200).map(|s| phi(SECOND * s)).is_sorted());
        let lost = lost_after(&rhythm, SECOND * 5);
        assert!((SECOND * 12..SECOND * 14).contains(&lost), "{lost:?}");
    }

    #[test]
    fn an_uneven_rhythm_is_waited_for_longer() {
        let mut uneven = Rhythm::default();
        (0..40_u32).for_each(|n| uneven.take(SECOND * (3 + n % 5), SECOND * 5));
        assert!(
            lost_after(&uneven, SECOND * 5) > lost_after(&steady(SECOND * 5), SECOND * 5) + SECOND
        );
    }

    #[test]
    fn the_rhythm_is_learnt_first_and_what_was_asked_for_is_no_rhythm() {
        let mut rhythm = Rhythm::default();
        assert_eq!(rhythm.phi(SECOND, SECOND), None);
        (0..100).for_each(|_| rhythm.take(SECOND / 10, SECOND));
        assert_eq!(rhythm.phi(SECOND, SECOND), None);
        let mut asked = steady(SECOND);
        asked.take(SECOND / 4, SECOND);
        assert_eq!(asked, steady(SECOND));
    }

    #[test]
    fn extremes_give_numbers() {
        let rhythm = steady(Duration::from_millis(1));
        let phi = rhythm.phi(Duration::from_secs(86_400 * 365), Duration::ZERO);
        assert!(phi.is_some_and(f64::is_finite));
    }
}
