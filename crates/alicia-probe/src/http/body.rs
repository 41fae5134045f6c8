//! What is expected of a body: a text, a pattern, values in JSON.

use std::future::poll_fn;
use std::pin::Pin;

use alicia_contract::ByteSize;
use alicia_contract::fleet::{HttpCheck, JsonLimits, JsonTest, Scalar};
use hyper::body::{Body as _, Incoming};
use regex::bytes::Regex;
use serde_json::Value;

use super::{BODY_BYTES_MAX, said};
use crate::target::TargetError;

/// The longest value that is shown, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// What is expected of a body.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    text: Option<String>,
    pattern: Option<Regex>,
    json: Vec<(String, Test)>,
}

/// What is expected of one value.
#[derive(Debug, Clone, Default)]
struct Test {
    limits: JsonLimits,
    pattern: Option<Regex>,
}

// === impl Wanted ===

impl Wanted {
    pub(super) fn new(check: &HttpCheck) -> Result<Self, TargetError> {
        let tests = check.json.iter().map(|(pointer, test)| {
            let limits = match test {
                JsonTest::Limits(limits) => limits.clone(),
                JsonTest::Value(value) => JsonLimits {
                    equals: Some(value.clone()),
                    ..JsonLimits::default()
                },
            };
            let pattern = limits.matches.as_deref().map(compile).transpose()?;
            Ok((pointer.clone(), Test { limits, pattern }))
        });
        Ok(Self {
            text: check.body_contains.clone(),
            pattern: check.body_matches.as_deref().map(compile).transpose()?,
            json: tests.collect::<Result<_, _>>()?,
        })
    }

    /// The text, when nothing else is expected: it can be looked for while the body arrives.
    pub(super) fn only_text(&self) -> Option<&str> {
        let alone = self.pattern.is_none() && self.json.is_empty();
        self.text.as_deref().filter(|_| alone)
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.text.is_none() && self.pattern.is_none() && self.json.is_empty()
    }

    /// Judges a whole body.
    pub(super) fn judge(&self, body: &[u8]) -> Result<String, String> {
        if let Some(text) = &self.text
            && !contains(body, text.as_bytes())
        {
            return Err(format!("the body does not contain {text:?}"));
        }
        if let Some(pattern) = &self.pattern
            && !pattern.is_match(body)
        {
            return Err(format!("the body does not match {:?}", pattern.as_str()));
        }
        if self.json.is_empty() {
            return Ok("the body fits".to_owned());
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| format!("the body is not JSON: {error}"))?;
        let mut said = Vec::new();
        for (pointer, test) in &self.json {
            said.push(test.judge(pointer, value.pointer(pointer))?);
        }
        Ok(said.join(", "))
    }
}

// === impl Test ===

impl Test {
    fn judge(&self, pointer: &str, found: Option<&Value>) -> Result<String, String> {
        let JsonLimits {
            min,
            max,
            equals,
            not,
            exists,
            ..
        } = &self.limits;
        let Some(value) = found else {
            return match exists {
                Some(false) => Ok(format!("no {pointer}")),
                _ => Err(format!("there is no {pointer} in the body")),
            };
        };
        let shown = show(value);
        let is = format!("{pointer} is {shown}");
        if *exists == Some(false) {
            return Err(format!("{is}, expected none"));
        }
        if let Some(expected) = equals.as_ref().filter(|expected| !equal(value, expected)) {
            return Err(format!("{is}, expected {expected}"));
        }
        if let Some(refused) = not.as_ref().filter(|refused| equal(value, refused)) {
            return Err(format!("{is}, expected anything but {refused}"));
        }
        if min.is_some() || max.is_some() {
            let number = value
                .as_f64()
                .ok_or_else(|| format!("{is}, expected a number"))?;
            if let Some(min) = min.filter(|min| number < *min) {
                return Err(format!("{is}, expected {min} or more"));
            }
            if let Some(max) = max.filter(|max| number > *max) {
                return Err(format!("{is}, expected {max} or less"));
            }
        }
        if let Some(pattern) = &self.pattern {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            if !pattern.is_match(text.as_bytes()) {
                return Err(format!("{is}, which does not match {:?}", pattern.as_str()));
            }
        }
        Ok(is)
    }
}

fn equal(value: &Value, expected: &Scalar) -> bool {
    match expected {
        Scalar::Text(text) => value.as_str() == Some(text),
        Scalar::Truth(truth) => value.as_bool() == Some(*truth),
        Scalar::Whole(number) => {
            value.as_i64() == Some(*number) || value.as_f64() == number.to_string().parse().ok()
        }
        Scalar::Real(number) => value.as_f64() == Some(*number),
    }
}

fn show(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn compile(pattern: &str) -> Result<Regex, TargetError> {
    Regex::new(pattern).map_err(|_| TargetError::Pattern(pattern.to_owned()))
}

fn contains(body: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || body.windows(needle.len()).any(|window| window == needle)
}

/// Reads a whole body, of at most [`BODY_BYTES_MAX`].
pub(crate) async fn read(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut read: Vec<u8> = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| said(&error))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if read.len() + data.len() > BODY_BYTES_MAX {
            let limit = ByteSize(BODY_BYTES_MAX as u64);
            return Err(format!("the body is larger than {limit}"));
        }
        read.extend_from_slice(data);
    }
    Ok(read)
}

/// Reads until the text is found, the body ends, or [`BODY_BYTES_MAX`] are read.
pub(super) async fn search(mut body: Incoming, text: &str) -> Result<(), String> {
    let needle = text.as_bytes();
    let mut read: Vec<u8> = Vec::new();
    while !needle.is_empty() {
        let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else {
            return Err(format!("the body does not contain {text:?}"));
        };
        let frame = frame.map_err(|error| said(&error))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        // The text may begin at the end of what was read before.
        let from = read.len().saturating_sub(needle.len() - 1);
        let room = BODY_BYTES_MAX - read.len();
        read.extend_from_slice(&data[..data.len().min(room)]);
        if contains(&read[from..], needle) {
            return Ok(());
        }
        if read.len() >= BODY_BYTES_MAX {
            let limit = ByteSize(BODY_BYTES_MAX as u64);
            return Err(format!(
                "the first {limit} of the body do not contain {text:?}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(check: Value, body: &str) -> Result<String, String> {
        let check: HttpCheck = serde_json::from_value(check).expect("a check");
        Wanted::new(&check)
            .expect("it can be judged")
            .judge(body.as_bytes())
    }

    #[test]
    fn values_in_json_are_compared() {
        let body =
            r#"{"status": "ok", "queue": {"length": 7}, "ready": true, "at": 1.5, "list": [1]}"#;
        let check = |tests: Value, expected: Result<&str, &str>| {
            let seen = judge(json!({ "json": tests }), body);
            assert_eq!(seen.as_deref().map_err(String::as_str), expected, "{tests}");
        };
        check(json!({"/status": "ok"}), Ok("/status is \"ok\""));
        check(
            json!({"/status": "up"}),
            Err("/status is \"ok\", expected up"),
        );
        check(
            json!({"/queue/length": 7, "/ready": true}),
            Ok("/queue/length is 7, /ready is true"),
        );
        check(json!({"/queue/length": 7.0}), Ok("/queue/length is 7"));
        check(
            json!({"/queue/length": {"max": 6}}),
            Err("/queue/length is 7, expected 6 or less"),
        );
        check(
            json!({"/queue/length": {"min": 7, "max": 7}}),
            Ok("/queue/length is 7"),
        );
        check(
            json!({"/queue/length": {"min": 8}}),
            Err("/queue/length is 7, expected 8 or more"),
        );
        check(
            json!({"/status": {"min": 8}}),
            Err("/status is \"ok\", expected a number"),
        );
        check(
            json!({"/status": {"not": "ok"}}),
            Err("/status is \"ok\", expected anything but ok"),
        );
        check(
            json!({"/status": {"matches": "^o"}}),
            Ok("/status is \"ok\""),
        );
        check(
            json!({"/status": {"matches": "^k"}}),
            Err("/status is \"ok\", which does not match \"^k\""),
        );
        check(json!({"/error": {"exists": false}}), Ok("no /error"));
        check(
            json!({"/list": {"exists": false}}),
            Err("/list is [1], expected none"),
        );
        check(
            json!({"/error": "x"}),
            Err("there is no /error in the body"),
        );
    }

    #[test]
    fn text_pattern_and_json_must_all_fit() {
        let all =
            json!({"body_contains": "ok", "body_matches": r"v\d+", "json": {"/version": "v12"}});
        assert!(judge(all.clone(), r#"{"status": "ok", "version": "v12"}"#).is_ok());
        let check = |body: &str, expected: &str| {
            let fault = judge(all.clone(), body).expect_err(body);
            assert!(fault.contains(expected), "{body}: {fault}");
        };
        check(r#"{"version": "v12"}"#, "does not contain");
        check(r#"{"status": "ok"}"#, "does not match");
        check("ok v12", "not JSON");
    }
}
