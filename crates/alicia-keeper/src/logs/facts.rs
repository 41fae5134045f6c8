//! What a line says of itself: level, message, trace. Programs write JSON in many dialects, logfmt, or text; what is looked
//! for is cheap to find, because it is looked for in every line of a search.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Line, Stream};

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For who looks for a fault.
    Debug,
    /// As usual.
    Info,
    /// Worth a look.
    Warn,
    /// Something was not done.
    Error,
    /// The program, or a part of it, ended.
    Fatal,
}

/// What a line says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its level, when it says one.
    pub level: Option<Level>,
    /// The message of a JSON line.
    pub message: Option<String>,
    /// The trace, correlation or request that it belongs to, the first that it names.
    pub trace: Option<String>,
}

/// Where a level stands in JSON and logfmt.
const LEVEL_KEYS: [&str; 6] = [
    "level",
    "severity",
    "levelname",
    "lvl",
    "log.level",
    "priority",
];

/// Where an id stands, the widest first.
const TRACE_KEYS: [&str; 9] = [
    "traceparent",
    "trace_id",
    "traceId",
    "trace.id",
    "trace",
    "correlation_id",
    "correlationId",
    "request_id",
    "requestId",
];

const MESSAGE_KEYS: [&str; 4] = ["message", "msg", "event", "text"];

/// A level that is not said by a key stands this near to the beginning of a line.
const LEVEL_WITHIN_BYTES: usize = 64;

// === impl Level ===

impl Level {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// The bit of this level in the index of a packed file.
    pub(super) const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The bits of this level and all graver ones.
    pub(super) const fn and_above(self) -> u8 {
        !(self.bit() - 1) & 0b1_1111
    }

    /// A word as loggers write it, in any case; `None` for any other word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let is = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
        if is(&["trace", "debug", "verbose", "finest", "fine"]) {
            Some(Self::Debug)
        } else if is(&["info", "information", "notice", "default"]) {
            Some(Self::Info)
        } else if is(&["warn", "warning"]) {
            Some(Self::Warn)
        } else if is(&["error", "err", "severe"]) {
            Some(Self::Error)
        } else if is(&[
            "fatal",
            "critical",
            "crit",
            "panic",
            "emerg",
            "emergency",
            "alert",
        ]) {
            Some(Self::Fatal)
        } else {
            None
        }
    }

    /// A number as bunyan and pino write it (10, 20, …, 60) or syslog (0 to 7).
    fn from_number(number: u64) -> Option<Self> {
        match number {
            0..=2 | 60.. => Some(Self::Fatal),
            3 | 50..60 => Some(Self::Error),
            4 | 40..50 => Some(Self::Warn),
            5 | 6 | 30..40 => Some(Self::Info),
            7 | 10..30 => Some(Self::Debug),
            _ => None,
        }
    }
}

/// The level of a line: what it says, else a warning when the keeper speaks, else information.
#[must_use]
pub fn level_of(line: &Line) -> Level {
    match line.stream {
        Stream::Keeper => Level::Warn,
        Stream::Stdout | Stream::Stderr => level(&line.text).unwrap_or(Level::Info),
    }
}

// === impl Facts ===

impl Facts {
    /// Reads a line.
    #[must_use]
    pub fn of(line: &Line) -> Self {
        let text = line.text.as_str();
        Self {
            level: match line.stream {
                Stream::Keeper => Some(Level::Warn),
                Stream::Stdout | Stream::Stderr => level(text),
            },
            message: message(text),
            trace: trace(text).map(str::to_owned),
        }
    }
}

fn level(text: &str) -> Option<Level> {
    if is_json(text) && text.contains(r#""fatal":true"#) {
        return Some(Level::Fatal);
    }
    let said = LEVEL_KEYS.iter().find_map(|key| {
        let value = value_of(text, key)?;
        Level::from_word(value).or_else(|| Level::from_number(value.parse().ok()?))
    });
    if said.is_some() || is_json(text) {
        return said;
    }
    let mut end = text.len().min(LEVEL_WITHIN_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut words = text[..end].split(|c: char| !c.is_ascii_alphabetic());
    // A word of a sentence is no level: levels are in capitals, or in brackets, or before a colon.
    words.find_map(|word| {
        let at = word.as_ptr() as usize - text.as_ptr() as usize;
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let is_capital = word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase());
        let is_marked = before == Some('[') && after == Some(']')
            || before == Some('<') && after == Some('>')
            || at == 0 && after == Some(':');
        (is_capital || is_marked)
            .then(|| Level::from_word(word))
            .flatten()
    })
}

fn message(text: &str) -> Option<String> {
    if !is_json(text) {
        return None;
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let of = |value: &Value| {
        let found = MESSAGE_KEYS.iter().find_map(|key| value.get(key)?.as_str());
        found.map(str::to_owned)
    };
    of(&value).or_else(|| of(value.get("fields")?))
}

/// The id that a line names: the trace of a `traceparent`, else the id itself.
fn trace(text: &str) -> Option<&str> {
    TRACE_KEYS.iter().find_map(|key| {
        let value = value_of(text, key)?;
        let id = match *key {
            "traceparent" => value.split('-').nth(1)?,
            _ => value,
        };
        (!id.is_empty() && id != "null" && id.bytes().any(|byte| byte != b'0')).then_some(id)
    })
}

fn is_json(text: &str) -> bool {
    text.starts_with('{')
}

/// The value behind `"key":` or `key=`, without quotes. The first that stands there, at whatever depth.
fn value_of<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let bytes = text.as_bytes();
    for at in memchr::memmem::find_iter(bytes, key) {
        let (before, after) = (&bytes[..at], &text[at + key.len()..]);
        let value = if is_json(text) {
            match before.last() {
                Some(b'"') => after
                    .strip_prefix('"')?
                    .trim_start()
                    .strip_prefix(':')
                    .map(str::trim_start),
                _ => None,
            }
        } else if before
            .last()
            .is_none_or(|byte| matches!(byte, b' ' | b'\t' | b'[' | b'{' | b',' | b'('))
        {
            after.strip_prefix('=')
        } else {
            None
        };
        let Some(value) = value else { continue };
        return match value.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => value.split([',', '}', ' ', ']', ')']).next(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text: &str) -> (Option<Level>, Option<String>, Option<String>) {
        let facts = Facts::of(&Line {
            unix_us: 0,
            stream: Stream::Stdout,
            text: text.into(),
            kind: crate::logs::LineKind::Full,
        });
        (facts.level, facts.message, facts.trace)
    }

    #[test]
    fn dialects_are_understood() {
        let check =
            |text: &str, level: Option<Level>, message: Option<&str>, trace: Option<&str>| {
                let expected = (level, message.map(str::to_owned), trace.map(str::to_owned));
                assert_eq!(facts(text), expected, "{text}");
            };
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        // tracing, structlog, pino, logrus, Python's json logger, ECS, Google
        check(
            r#"{"timestamp":"x","level":"WARN","message":"slow","span":{"trace_id":"ab1"}}"#,
            Some(Level::Warn),
            Some("slow"),
            Some("ab1"),
        );
        check(
            r#"{"event": "user in", "level": "info", "request_id": "r-1"}"#,
            Some(Level::Info),
            Some("user in"),
            Some("r-1"),
        );
        check(
            r#"{"level":50,"time":1,"msg":"boom"}"#,
            Some(Level::Error),
            Some("boom"),
            None,
        );
        check(
            r#"{"levelname": "CRITICAL", "message": "out"}"#,
            Some(Level::Fatal),
            Some("out"),
            None,
        );
        check(
            r#"{"severity":"ERROR","message":"m","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#,
            Some(Level::Error),
            Some("m"),
            Some(trace),
        );
        check(
            r#"{"fields":{"message":"deep"},"level":"DEBUG","trace_id":"00000000000000000000000000000000"}"#,
            Some(Level::Debug),
            Some("deep"),
            None,
        );
        check(
            r#"{"message":"the level","fatal":true,"level":"ERROR"}"#,
            Some(Level::Fatal),
            Some("the level"),
            None,
        );
        check(
            "level=warn msg=slow trace_id=77aa next=1",
            Some(Level::Warn),
            None,
            Some("77aa"),
        );
        check(
            "2026-11-21 12:00:00,123 ERROR module: it failed",
            Some(Level::Error),
            None,
            None,
        );
        check("[warning] low on memory", Some(Level::Warn), None, None);
        check("error: no such file", Some(Level::Error), None, None);
        check("an error was not seen", None, None, None);
        check("sublevel=warn", None, None, None);
        check(
            "{broken json \"level\":\"info\"",
            Some(Level::Info),
            None,
            None,
        );
        check("", None, None, None);
        check("ä€🙂 INFO", Some(Level::Info), None, None);
    }

    #[test]
    fn levels_are_ordered_and_have_bits() {
        assert!(Level::Debug < Level::Fatal);
        assert_eq!(Level::Warn.and_above(), 0b1_1100);
        assert_eq!(Level::Debug.and_above(), 0b1_1111);
        assert_eq!(Level::Fatal.and_above() & Level::Error.bit(), 0);
    }
}
