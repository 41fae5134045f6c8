//! Topic names and filters: well-formed or not, and which name a filter matches.

use super::limits::Limits;
use crate::authority::{Reason, Refusal};

/// Checks a topic name that somebody wants to publish to.
pub(crate) fn check_name(topic: &str, limits: &Limits) -> Result<(), Refusal> {
    if topic.contains(['#', '+']) {
        return Err(bad(topic, "a topic name holds no wildcards"));
    }
    if topic.starts_with('$') {
        return Err(bad(topic, "topics under '$' are the broker's own"));
    }
    check_size(topic, limits)
}

/// Checks a filter that somebody wants to subscribe to, without its `$share/<group>/`.
pub(crate) fn check_filter(filter: &str, limits: &Limits) -> Result<(), Refusal> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        match level {
            "+" => {}
            "#" if levels.peek().is_none() => {}
            _ if level.contains(['#', '+']) => {
                return Err(bad(
                    filter,
                    "a wildcard fills a whole level, and '#' is the last one",
                ));
            }
            _ => {}
        }
    }
    check_size(filter, limits)
}

fn check_size(topic: &str, limits: &Limits) -> Result<(), Refusal> {
    if topic.is_empty() {
        return Err(bad(topic, "a topic is not empty"));
    }
    if topic.chars().any(|c| c.is_control() || c == '\u{feff}') {
        return Err(bad(topic, "a topic holds no control characters"));
    }
    if topic.len() > limits.topic_bytes_max {
        return Err(bad("", "the topic is too long"));
    }
    if topic.split('/').count() > limits.topic_levels_max {
        return Err(bad("", "the topic has too many levels"));
    }
    Ok(())
}

fn bad(topic: &str, why: &str) -> Refusal {
    /// Enough of a topic to recognise it in a log line.
    const SHOWN_CHARS_MAX: usize = 64;
    let shown: String = topic.chars().take(SHOWN_CHARS_MAX).collect();
    Refusal::new(Reason::BadTopic, format!("{why}: {shown:?}"))
}

/// The part of a filter before its first wildcard level, with the trailing slash.
pub(crate) fn literal_prefix(filter: &str) -> &str {
    match filter.find(['#', '+']) {
        None => filter,
        Some(at) => filter.get(..at).unwrap_or(filter),
    }
}

/// Whether the filter matches the name (MQTT 5, 4.7).
pub(crate) fn matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && filter.starts_with(['#', '+']) {
        return false;
    }
    let mut names = name.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true;
        }
        match names.next() {
            Some(name) if level == "+" || level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        let cases = [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("#", "a/b", true),
            ("#", "$SYS/a", false),
            ("+/a", "$SYS/a", false),
            ("$SYS/#", "$SYS/a", true),
            ("+", "/a", false),
            ("/+", "/a", true),
            ("+/+", "/a", true),
            ("a//b", "a//b", true),
        ];
        for (filter, name, expected) in cases {
            assert_eq!(matches(filter, name), expected, "{filter} against {name}");
        }
    }

    #[test]
    fn malformed_names_and_filters_are_refused() {
        let limits = Limits::default();
        for name in [
            "",
            "a/+",
            "a/#",
            "a\u{0}b",
            "$SYS/x",
            &"a/".repeat(40),
            &"x".repeat(2_000),
        ] {
            assert!(check_name(name, &limits).is_err(), "{name:?}");
        }
        for filter in ["", "a/b#", "a/#/b", "a+/b", "#/a", "a\u{1}"] {
            assert!(check_filter(filter, &limits).is_err(), "{filter:?}");
        }
        for filter in ["#", "+", "a/+/b/#", "/", "$SYS/#", "a/b"] {
            assert!(check_filter(filter, &limits).is_ok(), "{filter:?}");
        }
        assert!(check_name("alicia/system/health/a", &limits).is_ok());
    }
}
