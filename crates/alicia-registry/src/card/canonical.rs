//! The JSON Canonicalization Scheme (RFC 8785): one text for one value, so that signatures of it can be checked.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// The canonical text of a value.
#[must_use]
pub fn write(value: &Value) -> String {
    let mut text = String::new();
    put(value, &mut text);
    text
}

fn put(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => text.push_str(&number_text(number)),
        Value::String(string) => put_string(string, text),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                put(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            // Section 3.2.3: names are ordered by their UTF-16 code units.
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort_by(|one, other| one.encode_utf16().cmp(other.encode_utf16()));
            text.push('{');
            for (index, name) in names.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                put_string(name, text);
                text.push(':');
                put(&fields[name], text);
            }
            text.push('}');
        }
    }
}

/// Section 3.2.2.2: the shortest escapes, and nothing else escaped.
fn put_string(string: &str, text: &mut String) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\u{c}' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            c if u32::from(c) < 0x20 => {
                // Writing to a text cannot fail.
                let _written = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

/// Section 3.2.2.3: every number as ECMAScript writes a double (ECMA-262, Number::toString).
fn number_text(number: &Number) -> String {
    let double = number.as_f64().unwrap_or_default();
    if double == 0.0 {
        return "0".to_owned();
    }
    // The shortest digits that read back as the same double, and the power of ten of the first one.
    let scientific = format!("{:e}", double.abs());
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits: String = digits.chars().filter(|c| *c != '.').collect();
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if double < 0.0 { "-" } else { "" };
    format!("{sign}{}", laid_out(&digits, exponent + 1))
}

/// `digits` with the decimal point after so many of them.
fn laid_out(digits: &str, point: i32) -> String {
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
    if (count..=21).contains(&point) {
        return format!("{digits}{}", zeros(point - count));
    }
    if (1..=21).contains(&point) {
        let (whole, part) = digits.split_at(usize::try_from(point).unwrap_or_default());
        return format!("{whole}.{part}");
    }
    if (-5..=0).contains(&point) {
        return format!("0.{}{digits}", zeros(-point));
    }
    let exponent = point - 1;
    let sign = if exponent < 0 { '-' } else { '+' };
    let (first, rest) = digits.split_at(1);
    let rest = if rest.is_empty() {
        String::new()
    } else {
        format!(".{rest}")
    };
    format!("{first}{rest}e{sign}{}", exponent.abs())
}
