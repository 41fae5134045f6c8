//! Quantities with units, as people write them: `30s`, `1h30m`, `64MiB`. And the wall clock on the wire.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a period of time.
    #[error(
        "read {0:?} as a period, expected a number and a unit such as 500ms, 30s, 5m, 1h30m or 7d"
    )]
    Period(String),
    /// Not a size.
    #[error(
        "read {0:?} as a size, expected a number and a unit such as 512B, 64KiB, 10MiB or 2GiB"
    )]
    Size(String),
}

/// A span of time, written as `250ms`, `30s`, `5m`, `1h30m`, `7d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Period(pub Duration);

const PERIOD_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Period {
    /// A period of whole milliseconds.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// A period of whole seconds.
    #[must_use]
    pub const fn from_secs(s: u64) -> Self {
        Self(Duration::from_secs(s))
    }

    /// The standard library's view of it.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::Period(text.to_owned());
        let mut rest = text.trim();
        let mut ms_total: u64 = 0;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let (number, after) = split_number(rest).ok_or_else(wrong)?;
            let unit_len = after
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_len);
            let scale = PERIOD_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(wrong)?
                .1;
            let ms = number.parse::<u64>().map_err(|_| wrong())?;
            ms_total = ms
                .checked_mul(scale)
                .and_then(|ms| ms.checked_add(ms_total))
                .ok_or_else(wrong)?;
            rest = after;
        }
        Ok(Self::from_millis(ms_total))
    }
}

/// Splits the leading digits off, when there are any.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    (digits > 0).then(|| text.split_at(digits))
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if ms == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in PERIOD_UNITS {
            if ms >= scale {
                write!(f, "{}{unit}", ms / scale)?;
                ms %= scale;
            }
        }
        Ok(())
    }
}

/// A number of bytes, written as `512B`, `64KiB`, `10MiB`, `2GiB` (powers of 1,024) or `10MB` (powers of 1,000).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// A size of whole kibibytes.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// A size of whole mebibytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::Size(text.to_owned());
        let (number, unit) = split_number(text.trim()).ok_or_else(wrong)?;
        let unit = unit.trim_start();
        let scale = SIZE_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?
            .1;
        let number = number.parse::<u64>().map_err(|_| wrong())?;
        number.checked_mul(scale).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZE_UNITS[..4]
            .iter()
            .find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale));
        match exact {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}B", self.0),
        }
    }
}

macro_rules! written_as_text {
    ($name:ident, $pattern:literal, $example:literal) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }
    };
}

written_as_text!(Period, "^([0-9]{1,12}(ms|s|m|h|d))+$", "30s");
written_as_text!(ByteSize, "^[0-9]{1,15} ?([KMGT]iB|[kKMGT]?B)$", "10MiB");

/// Seconds since 1970-01-01 UTC with a fraction, as the envelope carries them.
pub type UnixSeconds = f64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_read_and_write() {
        let check = |text: &str, ms: u64, written: &str| {
            let period: Period = text.parse().expect(text);
            assert_eq!(period, Period::from_millis(ms), "{text}");
            assert_eq!(period.to_string(), written);
        };
        check("0s", 0, "0s");
        check("250ms", 250, "250ms");
        check("90s", 90_000, "1m30s");
        check("1h30m", 5_400_000, "1h30m");
        check("7d", 604_800_000, "7d");
        for bad in [
            "",
            "s",
            "5",
            "5 s",
            "-1s",
            "1.5s",
            "5x",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(bad.parse::<Period>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn sizes_read_and_write() {
        let check = |text: &str, bytes: u64, written: &str| {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!(size, ByteSize(bytes), "{text}");
            assert_eq!(size.to_string(), written);
        };
        check("0B", 0, "0B");
        check("64KiB", 65_536, "64KiB");
        check("10 MiB", 10 << 20, "10MiB");
        check("1kB", 1_000, "1000B");
        for bad in ["", "B", "5", "5X", "-1B", "999999999999999TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad:?} was accepted");
        }
    }
}
