//! What an unquoted text of YAML is: text, number, truth value or nothing.
//!
//! The core schema of YAML 1.2 (section 10.3.2), with two exceptions that keep what was written: a number with
//! leading zeros (`0644`, `01234`) and one that is too large for 64 bits stay text, and so do `.inf` and `.nan`.
//! `yes`, `no`, `on` and `off` are text, as in the whole of YAML 1.2.

use serde_json::Number;

use crate::tree::Content;

/// What an unquoted text is.
pub(crate) fn resolve(text: &str) -> Content {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Content::Null,
        "true" | "True" | "TRUE" => Content::Truth(true),
        "false" | "False" | "FALSE" => Content::Truth(false),
        _ => match number(text) {
            Some(number) => Content::Number(number, text.into()),
            None => Content::Text(text.into()),
        },
    }
}

fn number(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        b'0'..=b'9' | b'.' => (false, text),
        _ => return None,
    };
    if let Some(radix_digits) = digits.strip_prefix("0x") {
        return (digits == text)
            .then(|| whole_of(radix_digits, 16))
            .flatten();
    }
    if let Some(radix_digits) = digits.strip_prefix("0o") {
        return (digits == text)
            .then(|| whole_of(radix_digits, 8))
            .flatten();
    }
    if leads_with_zero(digits) {
        return None;
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return match negative {
            true => text.parse::<i64>().ok().map(Number::from),
            false => digits.parse::<u64>().ok().map(Number::from),
        };
    }
    is_real(digits)
        .then(|| text.parse::<f64>().ok().and_then(Number::from_f64))
        .flatten()
}

fn whole_of(digits: &str, radix: u32) -> Option<Number> {
    digits
        .bytes()
        .all(|b| b.is_ascii_alphanumeric())
        .then(|| u64::from_str_radix(digits, radix).ok())
        .flatten()
        .map(Number::from)
}

/// `01`, but not `0` and not `0.1`.
fn leads_with_zero(digits: &str) -> bool {
    matches!(digits.as_bytes(), [b'0', b'0'..=b'9', ..])
}

/// `[0-9]+(\.[0-9]*)?` or `\.[0-9]+`, then an exponent or nothing.
fn is_real(digits: &str) -> bool {
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_is_good = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && all_digits(exponent)
    });
    all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent_is_good
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::layer::Place;
    use crate::tree::Node;

    #[test]
    fn unquoted_texts_are_what_yaml_1_2_says() {
        let check = |text: &str, expected: Value| {
            let node = Node::new(resolve(text), Place::default());
            assert_eq!(node.to_json(), expected, "{text:?}");
        };
        check("", Value::Null);
        check("~", Value::Null);
        check("true", json!(true));
        for text in [
            "yes", "no", "on", "off", "y", "n", "tRUE", "-", ".", "1.2.3", "1:30",
        ] {
            check(text, json!(text));
        }
        check("0", json!(0));
        check("-17", json!(-17));
        check("+5", json!(5));
        check("18446744073709551615", json!(u64::MAX));
        check("0x1F", json!(31));
        check("0o17", json!(15));
        check("1.5", json!(1.5));
        check(".5e1", json!(5.0));
        check("5.", json!(5.0));
        for text in [
            "0644",
            "-01",
            "18446744073709551616",
            ".inf",
            ".nan",
            "1e999",
            "1e",
            "0x",
            "0xG",
            "-0x1",
        ] {
            check(text, json!(text));
        }
    }
}
