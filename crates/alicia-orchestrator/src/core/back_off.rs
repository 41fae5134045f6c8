//! How long to wait before a restart.

use std::time::Duration;

use alicia_contract::fleet::BackOff;

/// The wait before a restart: none before the first since a good run, then `initial · factor^n`, at most
/// `max`, less a random part of up to `jitter`.
///
/// `streak` counts the failures since the last good run, this one included; `random` is from 0 to 1.
#[must_use]
pub(super) fn wait(settings: &BackOff, streak: u32, random: f64) -> Duration {
    let Some(step) = streak.checked_sub(2) else {
        return Duration::ZERO;
    };
    let max_s = settings.max.duration().as_secs_f64();
    // Powers that leave the range of f64 become infinite, and `min` brings them back.
    let grown_s = settings.initial.duration().as_secs_f64() * settings.factor.powf(f64::from(step));
    let wait_s = grown_s.min(max_s) * (1.0 - settings.jitter * random);
    Duration::try_from_secs_f64(wait_s.max(0.0)).unwrap_or(settings.max.duration())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_contract::Period;

    #[test]
    fn waits_grow_to_the_maximum_and_jitter_only_shortens_them() {
        let settings = BackOff {
            initial: Period::from_millis(200),
            max: Period::from_secs(1),
            factor: 2.0,
            jitter: 0.5,
            ..BackOff::default()
        };
        let check = |streak, random, expected_ms| {
            assert_eq!(
                wait(&settings, streak, random),
                Duration::from_millis(expected_ms),
                "{streak}"
            );
        };
        check(0, 0.0, 0);
        check(1, 0.0, 0);
        check(2, 0.0, 200);
        check(3, 0.0, 400);
        check(4, 0.0, 800);
        check(5, 0.0, 1_000);
        check(5, 1.0, 500);
        check(u32::MAX, 0.0, 1_000);
    }
}
