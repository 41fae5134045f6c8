//! `clock`: tells the local time and the part of the day, every five seconds and on the minute.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alicia_sdk::{Capability, Error, Service};
use jiff::Zoned;

use super::{ClockTime, VERSION};

/// How often it looks whether it is time: the minute changes in a second of its own.
const LOOK: Duration = Duration::from_secs(1);

/// Between two messages within one minute.
const PERIOD_S: f64 = 5.0;

pub(crate) async fn run() -> Result<(), Error> {
    let told = Arc::new(Mutex::new(None));
    Service::from_env("clock")?
        .version(VERSION)
        .capability(
            Capability::new("tell-time").describes("tells the local time and the part of the day"),
            |_cx, (): ()| async move { Ok(describe(&Zoned::now())) },
        )
        .every(LOOK, move |cx| {
            let told = Arc::clone(&told);
            async move {
                let now = Zoned::now();
                let last = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if is_due(last.as_ref(), &now) {
                    cx.set("home/clock", &describe(&now)).await?;
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
                }
                Ok(())
            }
        })
        .run()
        .await
}

/// Also when the clock was set back.
fn is_due(last: Option<&Zoned>, now: &Zoned) -> bool {
    last.is_none_or(|last| {
        let passed_s = now.duration_since(last).as_secs_f64();
        last.minute() != now.minute() || !(0.0..PERIOD_S).contains(&passed_s)
    })
}

fn describe(now: &Zoned) -> ClockTime {
    ClockTime {
        date: now.strftime("%Y-%m-%d").to_string(),
        time: now.strftime("%H:%M").to_string(),
        weekday: now.strftime("%A").to_string(),
        part_of_day: part_of_day(now.hour()).to_owned(),
    }
}

fn part_of_day(hour: i8) -> &'static str {
    match hour {
        5..12 => "morning",
        12..18 => "afternoon",
        18..23 => "evening",
        _ => "night",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        let time: jiff::civil::DateTime = text.parse().expect("is a time");
        time.to_zoned(jiff::tz::TimeZone::UTC).expect("exists")
    }

    #[test]
    fn it_speaks_every_five_seconds_on_the_minute_and_after_a_jump() {
        let last = at("2026-02-03T18:31:50");
        let check = |now: &str, expected: bool| {
            assert_eq!(is_due(Some(&last), &at(now)), expected, "{now}");
        };
        check("2026-02-03T18:31:53", false);
        check("2026-02-03T18:31:55", true);
        check("2026-02-03T18:31:49", true);
        check("2026-02-03T17:31:52", true);
        assert!(is_due(
            Some(&at("2026-02-03T18:31:59")),
            &at("2026-02-03T18:32:00")
        ));
        assert!(is_due(None, &last));
    }

    #[test]
    fn a_day_has_four_parts() {
        let parts: Vec<&str> = [4, 5, 12, 18, 23].map(part_of_day).into();
        assert_eq!(parts, ["night", "morning", "afternoon", "evening", "night"]);
        let told = describe(&at("2026-02-03T18:31:50"));
        assert_eq!(
            (told.time.as_str(), told.weekday.as_str()),
            ("18:31", "Tuesday")
        );
    }
}
