//! Quantities of other programs in our units.

use alicia_contract::Period;

/// Seconds as a period: `1.5` is `1s500ms`.
pub(crate) fn seconds(seconds: f64) -> Option<String> {
    let ms = seconds * 1_000.0;
    // Longer than a century is not a period that somebody means.
    (ms.is_finite() && (0.0..4e12).contains(&ms)).then(|| milliseconds(ms.round()))
}

/// Milliseconds as a period.
pub(crate) fn milliseconds(ms: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is in range"
    )]
    let whole = ms as u64;
    Period::from_millis(whole).to_string()
}

/// A duration of the Compose specification: `1m30s`, `500ms`, `2.5s`, `10us`.
pub(crate) fn go_duration(text: &str) -> Option<String> {
    let units = [
        ("ns", 1e-6),
        ("us", 1e-3),
        ("µs", 1e-3),
        ("ms", 1.0),
        ("s", 1e3),
        ("m", 6e4),
        ("h", 3.6e6),
    ];
    sum(text, &units, None).map(milliseconds)
}

/// A time span of systemd (systemd.time(7)): `5min 20s`, `90`, `infinity`.
pub(crate) fn systemd_span(text: &str) -> Option<String> {
    let units = [
        ("us", 1e-3),
        ("usec", 1e-3),
        ("ms", 1.0),
        ("msec", 1.0),
        ("s", 1e3),
        ("sec", 1e3),
        ("second", 1e3),
        ("seconds", 1e3),
        ("m", 6e4),
        ("min", 6e4),
        ("minute", 6e4),
        ("minutes", 6e4),
        ("h", 3.6e6),
        ("hr", 3.6e6),
        ("hour", 3.6e6),
        ("hours", 3.6e6),
        ("d", 8.64e7),
        ("day", 8.64e7),
        ("days", 8.64e7),
        ("w", 6.048e8),
        ("week", 6.048e8),
        ("weeks", 6.048e8),
    ];
    sum(text, &units, Some(1e3)).map(milliseconds)
}

/// The milliseconds of numbers with units; a number without one counts in `default` where that is allowed.
fn sum(text: &str, units: &[(&str, f64)], default: Option<f64>) -> Option<f64> {
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let end = after
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale = match unit {
            "" => default?,
            unit => units.iter().find(|(name, _)| *name == unit)?.1,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = after.trim_start();
    }
    (total < 4e12).then_some(total)
}

/// A size as most programs write it: `512`, `64k`, `1.5G`, `300MB`, with powers of 1,024, in bytes.
pub(crate) fn size(text: &str) -> Option<String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let exponent = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" | "ki" => 1,
        "m" | "mb" | "mib" | "mi" => 2,
        "g" | "gb" | "gib" | "gi" => 3,
        "t" | "tb" | "tib" | "ti" => 4,
        _ => return None,
    };
    let bytes = number * 1_024_f64.powi(exponent);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is in range"
    )]
    let whole = (0.0..9e18).contains(&bytes).then_some(bytes as u64)?;
    Some(alicia_contract::ByteSize(whole).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        let check = |found: Option<String>, expect: Option<&str>| {
            assert_eq!(found.as_deref(), expect);
        };
        check(go_duration("1m30s"), Some("1m30s"));
        check(go_duration("2.5s"), Some("2s500ms"));
        check(go_duration("90"), None);
        check(go_duration("soon"), None);
        check(systemd_span("5min 20s"), Some("5m20s"));
        check(systemd_span("90"), Some("1m30s"));
        check(systemd_span("100ms"), Some("100ms"));
        check(systemd_span("infinity"), None);
        check(seconds(1.5), Some("1s500ms"));
        check(seconds(-1.0), None);
    }

    #[test]
    fn sizes_are_read() {
        for (text, expect) in [
            ("512", Some("512B")),
            ("64k", Some("64KiB")),
            ("300M", Some("300MiB")),
            ("1.5G", Some("1536MiB")),
            ("50MB", Some("50MiB")),
            ("many", None),
        ] {
            assert_eq!(size(text).as_deref(), expect, "{text}");
        }
    }
}
