//! Conditions on the labels of alerts, as Alertmanager writes them: `service=api`, `rule!=restarted`,
//! `service=~"api.*"`, `severity!~info|warning`.
//!
//! A label that is not there is the empty text; a regular expression must fit the whole of it.

use std::collections::BTreeMap;

use alicia_contract::fleet::Fleet;
use alicia_contract::health::{Alert, MatchOp, Matcher};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

/// Longest value of a matcher, in bytes. A regular expression that is longer is no condition but a program.
const VALUE_BYTES_MAX: usize = 1_000;

/// Most memory of one regular expression, in bytes. It is compiled from what a person wrote.
const REGEX_BYTES_MAX: usize = 256 << 10;

/// Most matchers that belong together.
pub const MATCHERS_MAX: usize = 50;

/// The labels of an alert, as matchers see them.
pub type Labels = BTreeMap<String, String>;

/// A matcher that is ready to be used.
#[derive(Debug, Clone)]
pub struct Compiled {
    matcher: Matcher,
    regex: Option<Regex>,
}

impl PartialEq for Compiled {
    fn eq(&self, other: &Self) -> bool {
        self.matcher == other.matcher
    }
}

// === impl Compiled ===

impl Compiled {
    /// Makes a matcher ready.
    ///
    /// # Errors
    /// In words: when the name is none, or the regular expression cannot be used.
    pub fn new(matcher: Matcher) -> Result<Self, String> {
        let is_name = |name: &str| {
            let mut bytes = name.bytes();
            let first = bytes.next();
            first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
                && bytes
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        if !is_name(&matcher.name) {
            return Err(format!(
                "{:?} is no name of a label; expected letters, digits and `_`",
                matcher.name
            ));
        }
        if matcher.value.len() > VALUE_BYTES_MAX {
            return Err(format!(
                "the value of {} has {} bytes, expected at most {VALUE_BYTES_MAX}",
                matcher.name,
                matcher.value.len()
            ));
        }
        let regex = match matcher.op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Fits | MatchOp::FitsNot => Some(whole(&matcher.value)?),
        };
        Ok(Self { matcher, regex })
    }

    /// Reads one from text.
    ///
    /// # Errors
    /// In words: when it has no comparison, or cannot be used.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::new(parse(text)?)
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, labels: &Labels) -> bool {
        let found = labels.get(&self.matcher.name).map_or("", String::as_str);
        let fits = || {
            self.regex
                .as_ref()
                .is_some_and(|regex| regex.is_match(found))
        };
        match self.matcher.op {
            MatchOp::Equal => found == self.matcher.value,
            MatchOp::NotEqual => found != self.matcher.value,
            MatchOp::Fits => fits(),
            MatchOp::FitsNot => !fits(),
        }
    }

    /// What it was made of.
    #[must_use]
    pub fn matcher(&self) -> &Matcher {
        &self.matcher
    }
}

/// Whether all hold.
#[must_use]
pub fn all_hold(matchers: &[Compiled], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.holds(labels))
}

/// Reads several, each from text.
///
/// # Errors
/// In words: the first that cannot be used, or too many.
pub fn parse_all(texts: &[String]) -> Result<Vec<Compiled>, String> {
    if texts.len() > MATCHERS_MAX {
        let found = texts.len();
        return Err(format!(
            "found {found} matchers, expected at most {MATCHERS_MAX}"
        ));
    }
    texts.iter().map(|text| Compiled::parse(text)).collect()
}

/// Reads a matcher from text, as a person or amtool writes it. Quotes around the value are optional.
///
/// # Errors
/// In words: when it has no comparison.
pub fn parse(text: &str) -> Result<Matcher, String> {
    let text = text.trim();
    let no_op = || {
        format!(
            "{text:?} is no matcher; expected a label, one of = != =~ !~, and a value: service=~\"api.*\""
        )
    };
    let at = text.find(['=', '!']).ok_or_else(no_op)?;
    let (name, rest) = text.split_at(at);
    let ops = [
        ("=~", MatchOp::Fits),
        ("!~", MatchOp::FitsNot),
        ("!=", MatchOp::NotEqual),
        ("=", MatchOp::Equal),
    ];
    let (op, value) = ops
        .into_iter()
        .find_map(|(sign, op)| rest.strip_prefix(sign).map(|value| (op, value)))
        .ok_or_else(no_op)?;
    let value = value.trim();
    let quoted = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    let value = match quoted {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => value.to_owned(),
    };
    Ok(Matcher {
        name: name.trim().to_owned(),
        op,
        value,
    })
}

/// The matcher as text.
#[must_use]
pub fn text(matcher: &Matcher) -> String {
    let op = match matcher.op {
        MatchOp::Equal => "=",
        MatchOp::NotEqual => "!=",
        MatchOp::Fits => "=~",
        MatchOp::FitsNot => "!~",
    };
    format!("{}{op}{:?}", matcher.name, matcher.value)
}

fn whole(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|error| {
            let cause = error.to_string();
            let last = cause.lines().last().unwrap_or_default().trim().to_owned();
            format!("{pattern:?} is no regular expression: {last}")
        })
}

/// The labels of an alert: its fields, its own labels, and those of its service in the file. A field wins.
#[must_use]
pub fn labels_of(alert: &Alert, fleet: &Fleet) -> Labels {
    let mut labels = Labels::new();
    if let Some(spec) = fleet.services.get(&alert.service) {
        labels.extend(spec.labels.clone());
    }
    for (name, value) in &alert.labels {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        labels.insert(name.clone(), text);
    }
    labels
        .entry("alertname".to_owned())
        .or_insert_with(|| alert.rule.clone());
    labels.insert("rule".to_owned(), alert.rule.clone());
    labels.insert("severity".to_owned(), alert.severity.as_str().to_owned());
    labels.insert("service".to_owned(), alert.service.to_string());
    if let Some(instance) = &alert.instance {
        labels.insert("instance".to_owned(), instance.clone());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels() -> Labels {
        let pairs = [
            ("service", "api"),
            ("rule", "check_failed"),
            ("severity", "warning"),
        ];
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn each_comparison_holds_or_not() {
        let check = |text: &str, expected: bool| {
            let matcher = Compiled::parse(text).expect(text);
            assert_eq!(matcher.holds(&labels()), expected, "{text}");
        };
        check("service=api", true);
        check("service = \"api\"", true);
        check("service!=api", false);
        check("service=~a.*", true);
        check("service=~a", false);
        check("service!~a", true);
        check("severity=~\"info|warning\"", true);
        check("nosuch=", true);
        check("nosuch!=x", true);
        check("nosuch=~.+", false);
    }

    #[test]
    fn what_is_none_is_refused_with_what_was_expected() {
        let check = |text: &str, part: &str| {
            let error = Compiled::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        };
        check("service", "no matcher");
        check("=x", "no name");
        check("a b=x", "no name");
        check("service=~(", "no regular expression");
        check("service!x", "no matcher");
        check("service=~a{1000}{1000}", "no regular expression");
        check(&format!("service={}", "x".repeat(2_000)), "2000 bytes");
    }

    proptest! {
        /// What is written is read back, whatever the value.
        #[test]
        fn text_and_back(value in "[ -~]{0,40}") {
            let matcher = Matcher { name: "service".to_owned(), op: MatchOp::Equal, value };
            prop_assert_eq!(parse(&text(&matcher)), Ok(matcher));
        }

        /// Nothing that is typed panics.
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            drop(Compiled::parse(&text).map(|matcher| matcher.holds(&labels())));
        }
    }
}
