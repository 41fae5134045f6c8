//! Times that repeat, as cron writes them: minute, hour, day of month, month, day of week, in a time zone.
//!
//! `*`, numbers, names (`jan`, `sun`), ranges `1-5`, lists `1,15`, steps `*/10` and `8-18/2`; Sunday is 0 or 7. As in
//! cron, when both days are given, either will do.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// A time that does not come within this many days never comes (`0 0 30 2 *`): a leap day on a weekday can
/// take 28 years.
const DAYS_MAX: i32 = 29 * 366;

/// The times at which something repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    either_day: bool,
}

/// One of the five fields.
struct Field {
    name: &'static str,
    low: u8,
    high: u8,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    field("minute", 0, 59, &[]),
    field("hour", 0, 23, &[]),
    field("day of the month", 1, 31, &[]),
    field(
        "month",
        1,
        12,
        &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    ),
    field(
        "day of the week",
        0,
        7,
        &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    ),
];

const fn field(name: &'static str, low: u8, high: u8, names: &'static [&'static str]) -> Field {
    Field {
        name,
        low,
        high,
        names,
    }
}

// === impl Cron ===

impl Cron {
    /// Reads the five fields.
    ///
    /// # Errors
    /// In words: which field cannot be used, and what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = words.as_slice() else {
            let found = words.len();
            return Err(format!(
                "{text:?} has {found} fields, expected 5: minute, hour, day of month, month, day of week"
            ));
        };
        let mut weekdays = FIELDS[4].read(weekday)?;
        if weekdays & (1 << 7) != 0 {
            weekdays |= 1;
        }
        Ok(Self {
            minutes: FIELDS[0].read(minute)?,
            hours: FIELDS[1].read(hour)?,
            days: FIELDS[2].read(day)?,
            months: FIELDS[3].read(month)?,
            weekdays,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        })
    }

    /// The first time at or after this moment; `None`: never. A time of day that a change of the clocks skips
    /// is taken as much later as the clocks were put forward.
    #[must_use]
    pub fn next(&self, from: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let local = zone.to_datetime(from);
        let mut date = local.date();
        let mut earliest = local.time();
        for _ in 0..DAYS_MAX {
            if self.is_on(date) {
                let times = self.times_of_day(earliest);
                let moments = times.filter_map(|time| moment(date, time, zone));
                if let Some(found) = moments.filter(|found| *found >= from).min() {
                    return Some(found);
                }
            }
            date = date.tomorrow().ok()?;
            earliest = Time::midnight();
        }
        None
    }

    fn is_on(&self, date: Date) -> bool {
        let has = |set: u64, value: i8| u8::try_from(value).is_ok_and(|bit| set & (1 << bit) != 0);
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let fits = if self.either_day {
            day || weekday
        } else {
            day && weekday
        };
        fits && has(self.months, date.month())
    }

    /// The times of a day from the minute of `earliest` on.
    fn times_of_day(&self, earliest: Time) -> impl Iterator<Item = Time> {
        let minutes = (0..60).filter(|minute| self.minutes & (1 << minute) != 0);
        let minutes: Vec<i8> = minutes.collect();
        let hours = (0..24_i8).filter(|hour| self.hours & (1 << hour) != 0);
        hours
            .flat_map(move |hour| {
                minutes
                    .clone()
                    .into_iter()
                    .map(move |minute| (hour, minute))
            })
            .filter(move |(hour, minute)| (*hour, *minute) >= (earliest.hour(), earliest.minute()))
            .filter_map(|(hour, minute)| Time::new(hour, minute, 0, 0).ok())
    }
}

/// When it is this local time. Of two, at the end of summer time, the first.
fn moment(date: Date, time: Time, zone: &TimeZone) -> Option<Timestamp> {
    let local = DateTime::from_parts(date, time);
    zone.to_ambiguous_timestamp(local).compatible().ok()
}

/// A moment some seconds away. `None`: beyond what a calendar has.
#[must_use]
pub fn shifted(moment: Timestamp, seconds: i64) -> Option<Timestamp> {
    moment.checked_add(seconds.seconds()).ok()
}

// === impl Field ===

impl Field {
    fn read(&self, text: &str) -> Result<u64, String> {
        let mut set = 0;
        for part in text.split(',') {
            set |= self.read_part(part).ok_or_else(|| {
                format!(
                    "the {} {text:?} cannot be used: expected {} to {}, *, ranges, lists or steps",
                    self.name, self.low, self.high
                )
            })?;
        }
        Ok(set)
    }

    fn read_part(&self, part: &str) -> Option<u64> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0)?),
            None => (part, 1_u8),
        };
        let (low, high) = match range.split_once('-') {
            _ if range == "*" => (self.low, self.high.min(self.last())),
            Some((low, high)) => (self.value(low)?, self.value(high)?),
            None if part.contains('/') => (self.value(range)?, self.last()),
            None => (self.value(range)?, self.value(range)?),
        };
        if low > high {
            return None;
        }
        let values = (low..=high).step_by(usize::from(step));
        Some(values.fold(0, |set, value| set | 1 << value))
    }

    /// The last value that a `*` means: of the days of the week, 7 is 0 again.
    fn last(&self) -> u8 {
        if self.high == 7 { 6 } else { self.high }
    }

    fn value(&self, word: &str) -> Option<u8> {
        let name = self
            .names
            .iter()
            .position(|name| word.eq_ignore_ascii_case(name));
        let value = match name {
            Some(at) => u8::try_from(at).ok()? + self.low,
            None => word.parse().ok()?,
        };
        (self.low..=self.high).contains(&value).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn next(cron: &str, from: &str, zone: &str) -> String {
        let cron = Cron::parse(cron).expect(cron);
        let zone = TimeZone::get(zone).expect(zone);
        let from: Timestamp = from.parse().expect("a moment");
        let found = cron.next(from, &zone);
        found.map_or("never".to_owned(), |found| found.to_string())
    }

    #[test]
    fn the_next_time_is_found() {
        let check = |cron: &str, from: &str, expected: &str| {
            assert_eq!(next(cron, from, "UTC"), expected, "{cron} from {from}");
        };
        check("0 3 * * *", "2026-11-21T02:59:59Z", "2026-11-21T03:00:00Z");
        check("0 3 * * *", "2026-11-21T03:00:00Z", "2026-11-21T03:00:00Z");
        check("0 3 * * *", "2026-11-21T03:00:01Z", "2026-11-22T03:00:00Z");
        check(
            "*/15 * * * *",
            "2026-11-21T03:07:00Z",
            "2026-11-21T03:15:00Z",
        );
        check(
            "30 22 * * sun",
            "2026-11-21T00:00:00Z",
            "2026-11-22T22:30:00Z",
        );
        check(
            "30 22 * * 7",
            "2026-11-21T00:00:00Z",
            "2026-11-22T22:30:00Z",
        );
        check(
            "0 0 1 jan *",
            "2026-11-21T00:00:00Z",
            "2027-01-01T00:00:00Z",
        );
        check("0 0 29 2 *", "2026-11-21T00:00:00Z", "2028-02-29T00:00:00Z");
        check(
            "0 0 13 * fri",
            "2026-11-21T00:00:00Z",
            "2026-11-27T00:00:00Z",
        );
        check(
            "0 8-18/5,20 * * *",
            "2026-11-21T13:30:00Z",
            "2026-11-21T18:00:00Z",
        );
        check("0 0 30 2 *", "2026-11-21T00:00:00Z", "never");
    }

    #[test]
    fn changes_of_the_clocks_neither_skip_nor_repeat_it() {
        let check = |cron: &str, from: &str, expected: &str| {
            assert_eq!(
                next(cron, from, "Europe/Zurich"),
                expected,
                "{cron} from {from}"
            );
        };
        // 2027-03-28 02:30 does not exist; 2026-10-25 02:30 comes twice.
        check("30 2 * * *", "2027-03-27T12:00:00Z", "2027-03-28T01:30:00Z");
        check("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z");
        check(
            "0 9 * * mon",
            "2026-11-21T00:00:00Z",
            "2026-11-23T08:00:00Z",
        );
    }

    #[test]
    fn what_is_none_is_refused_with_the_field() {
        let check = |cron: &str, part: &str| {
            let error = Cron::parse(cron).expect_err(cron);
            assert!(error.contains(part), "{cron}: {error}");
        };
        check("0 3 * *", "4 fields");
        check("60 3 * * *", "minute");
        check("0 24 * * *", "hour");
        check("0 0 0 * *", "day of the month");
        check("0 0 * foo *", "month");
        check("0 0 * * 8", "day of the week");
        check("*/0 * * * *", "minute");
        check("5-1 * * * *", "minute");
    }

    proptest! {
        /// Nothing that is typed panics, and a next time is not before the moment it was asked for.
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9*/, a-z-]{0,20}", from in 0..4_000_000_000_i64) {
            if let Ok(cron) = Cron::parse(&text) {
                let from = Timestamp::from_second(from).expect("within the calendar");
                let found = cron.next(from, &TimeZone::UTC);
                prop_assert!(found.is_none_or(|found| found >= from));
            }
        }
    }
}
