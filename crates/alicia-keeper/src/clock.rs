//! The keeper's clocks. It has no context to be given one: it is the program, and the host's clocks do
//! not reach here.

use rustix::time::{ClockId, clock_gettime};

const US_PER_S: u64 = 1_000_000;
const S_PER_DAY: u64 = 86_400;
/// Length of `2026-11-20T17:34:26.123456Z`.
pub(crate) const STAMP_BYTES: usize = 27;

/// Milliseconds since boot; not changed by setting the clock, the same over an upgrade.
pub(crate) fn monotonic_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64) * 1_000 + (now.tv_nsec as u64) / 1_000_000
}

/// Microseconds since 1970.
pub(crate) fn unix_us() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    (now.tv_sec as u64) * US_PER_S + (now.tv_nsec as u64) / 1_000
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    unix_us() / 1_000
}

/// RFC 3339 in UTC with microseconds; years 1970 to 9999.
pub(crate) fn stamp(unix_us: u64) -> [u8; STAMP_BYTES] {
    let seconds = unix_us / US_PER_S;
    let (year, month, day) = civil(seconds / S_PER_DAY);
    let of_day = seconds % S_PER_DAY;
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut put = |at: usize, width: usize, mut value: u64| {
        for position in (at..at + width).rev() {
            text[position] = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, of_day / 3_600);
    put(14, 2, of_day / 60 % 60);
    put(17, 2, of_day % 60);
    put(20, 6, unix_us % US_PER_S);
    text
}

/// Reads what [`stamp`] wrote.
pub(crate) fn parse_stamp(text: &[u8]) -> Option<u64> {
    let text: &[u8; STAMP_BYTES] = text.try_into().ok()?;
    let separators = [
        (4, b'-'),
        (7, b'-'),
        (10, b'T'),
        (13, b':'),
        (16, b':'),
        (19, b'.'),
        (26, b'Z'),
    ];
    if separators.iter().any(|(at, byte)| text[*at] != *byte) {
        return None;
    }
    let number = |at: usize, width: usize| {
        text[at..at + width].iter().try_fold(0_u64, |value, digit| {
            digit
                .is_ascii_digit()
                .then(|| value * 10 + u64::from(digit - b'0'))
        })
    };
    let days = days(number(0, 4)?, number(5, 2)?, number(8, 2)?)?;
    let seconds = days * S_PER_DAY + number(11, 2)? * 3_600 + number(14, 2)? * 60 + number(17, 2)?;
    Some(seconds * US_PER_S + number(20, 6)?)
}

/// Year, month and day of a day since 1970. The year is taken to begin in March, so that the leap day is
/// its last, and 400 years are 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// The reverse of [`civil`].
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let year_of_era = year % 400;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (year / 400 * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_those_of_the_calendar() {
        for (unix_us, expect) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (1_795_196_066_123_456, "2026-11-20T17:34:26.123456Z"),
            (4_107_542_399_999_999, "2100-02-28T23:59:59.999999Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(String::from_utf8_lossy(&stamp(unix_us)), expect);
            assert_eq!(parse_stamp(expect.as_bytes()), Some(unix_us));
        }
    }

    #[test]
    fn every_day_of_two_centuries_is_read_back() {
        for day in 0..80_000 {
            let us = day * S_PER_DAY * US_PER_S;
            assert_eq!(parse_stamp(&stamp(us)), Some(us));
        }
    }

    #[test]
    fn what_is_no_stamp_is_refused() {
        for text in [
            "",
            "2026-11-20",
            "2026-11-20 17:34:26.123456Z",
            "2026-13-20T17:34:26.123456Z",
        ] {
            assert_eq!(parse_stamp(text.as_bytes()), None, "{text}");
        }
    }
}
