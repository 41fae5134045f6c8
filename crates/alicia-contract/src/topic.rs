//! Topics: typed templates under one prefix, and the matching of MQTT filters.
//!
//! A template is written without the prefix, with `{name}` for a level that varies:
//! `system/health/{service}`. The three kinds say how a topic is used:
//!
//! - [`EventTopic`]: it happened; may be missed.
//! - [`StateTopic`]: retained; the latest value for late comers.
//! - [`CallTopic`]: one answer, always with a deadline.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{IdError, ServiceName};

/// The prefix unless the file says otherwise.
pub const PREFIX_DEFAULT: &str = "alicia";

/// The longest topic, in bytes. MQTT allows 65,535; ours are short, and a limit keeps a hostile one out.
pub const TOPIC_BYTES_MAX: usize = 1_024;

/// The first level of all topics of one fleet, `alicia` unless configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Prefix(ServiceName);

impl Prefix {
    /// Checks the text, which must be an id (see [`crate::id`]).
    ///
    /// # Errors
    /// When the text is not an id.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        ServiceName::new(text).map(Self)
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The topic without the prefix; `None` when it is not under it.
    #[must_use]
    pub fn strip<'t>(&self, topic: &'t str) -> Option<&'t str> {
        topic.strip_prefix(self.as_str())?.strip_prefix('/')
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self::new(PREFIX_DEFAULT).expect("the default prefix is an id")
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Prefix {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ServiceName::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Prefix {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Prefix".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": crate::id::ID_PATTERN, "default": PREFIX_DEFAULT })
    }
}

/// Fills the `{…}` levels of a template in order.
///
/// # Panics
/// When the number of values is not the number of `{…}` levels: a bug of the caller.
#[must_use]
fn fill(prefix: &Prefix, template: &str, values: &[&str]) -> String {
    let mut values_left = values.iter();
    let mut topic = prefix.to_string();
    for level in template.split('/') {
        topic.push('/');
        topic.push_str(if level.starts_with('{') {
            values_left
                .next()
                .expect("a value for each varying level of the template")
        } else {
            level
        });
    }
    assert!(
        values_left.next().is_none(),
        "more values than varying levels in {template}"
    );
    topic
}

fn filter(prefix: &Prefix, template: &str) -> String {
    template
        .split('/')
        .fold(prefix.to_string(), |mut filter, level| {
            filter.push('/');
            filter.push_str(if level.starts_with('{') { "+" } else { level });
            filter
        })
}

/// The values of the `{…}` levels, when the topic fits the template.
fn values<'t>(prefix: &Prefix, template: &str, topic: &'t str) -> Option<Vec<&'t str>> {
    let mut found = Vec::new();
    let mut levels = prefix.strip(topic)?.split('/');
    for expected in template.split('/') {
        let level = levels.next()?;
        if expected.starts_with('{') {
            found.push(level);
        } else if expected != level {
            return None;
        }
    }
    levels.next().is_none().then_some(found)
}

macro_rules! topic_kind {
    ($(#[$doc:meta])* $name:ident<$($t:ident),+>) => {
        $(#[$doc])*
        pub struct $name<$($t),+> {
            template: &'static str,
            types: PhantomData<fn() -> ($($t,)+)>,
        }

        impl<$($t),+> $name<$($t),+> {
            /// A topic of this kind; the template has no prefix.
            #[must_use]
            pub const fn new(template: &'static str) -> Self {
                Self { template, types: PhantomData }
            }

            /// The template, without the prefix.
            #[must_use]
            pub const fn template(&self) -> &'static str {
                self.template
            }

            /// The topic with each `{…}` level filled in, in order.
            ///
            /// # Panics
            /// When the number of values is not the number of `{…}` levels.
            #[must_use]
            pub fn at(&self, prefix: &Prefix, values: &[&str]) -> String {
                fill(prefix, self.template, values)
            }

            /// The filter that matches every topic of the template: `+` for each `{…}`.
            #[must_use]
            pub fn filter(&self, prefix: &Prefix) -> String {
                filter(prefix, self.template)
            }

            /// The values of the `{…}` levels of a topic; `None` when it does not fit.
            #[must_use]
            pub fn values<'t>(&self, prefix: &Prefix, topic: &'t str) -> Option<Vec<&'t str>> {
                values(prefix, self.template, topic)
            }
        }

        impl<$($t),+> Clone for $name<$($t),+> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<$($t),+> Copy for $name<$($t),+> {}

        impl<$($t),+> fmt::Debug for $name<$($t),+> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.template)
            }
        }
    };
}

topic_kind! {
    /// It happened; may be missed. QoS 1, not retained.
    EventTopic<T>
}
topic_kind! {
    /// The latest value, retained for late comers. QoS 1.
    StateTopic<T>
}
topic_kind! {
    /// A request with one answer. QoS 1; the answer goes to the requester's reply topic.
    CallTopic<Q, A>
}

/// Whether a topic is matched by a filter, as MQTT 5 section 4.7 defines it: `+` for one level, `#` for
/// the rest (and the parent), and no leading wildcard for topics that start with `$`.
#[must_use]
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let mut topic_levels = topic.split('/');
    for filter_level in filter.split('/') {
        if filter_level == "#" {
            return true;
        }
        match topic_levels.next() {
            Some(level) if filter_level == "+" || filter_level == level => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

/// Whether every topic that `narrow` can match is also matched by `wide`; both are filters.
#[must_use]
pub fn filter_covers(wide: &str, narrow: &str) -> bool {
    if narrow.starts_with('$') && (wide.starts_with('+') || wide.starts_with('#')) {
        return false;
    }
    let mut narrow_levels = narrow.split('/');
    for wide_level in wide.split('/') {
        if wide_level == "#" {
            return true;
        }
        match narrow_levels.next() {
            Some("#") | None => return false,
            Some(_) if wide_level == "+" => {}
            Some(level) if level == wide_level => {}
            Some(_) => return false,
        }
    }
    narrow_levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEARTBEAT: EventTopic<()> = EventTopic::new("system/health/{service}");

    #[test]
    fn a_template_is_filled_filtered_and_read_back() {
        let prefix = Prefix::default();
        assert_eq!(HEARTBEAT.at(&prefix, &["api"]), "alicia/system/health/api");
        assert_eq!(HEARTBEAT.filter(&prefix), "alicia/system/health/+");
        assert_eq!(
            HEARTBEAT.values(&prefix, "alicia/system/health/api"),
            Some(vec!["api"])
        );
        assert_eq!(
            HEARTBEAT.values(&prefix, "alicia/system/health/api/x"),
            None
        );
        assert_eq!(HEARTBEAT.values(&prefix, "alicia/system/health"), None);
        assert_eq!(HEARTBEAT.values(&prefix, "aliciax/system/health/api"), None);
    }

    #[test]
    fn filters_match_as_mqtt_says() {
        let check = |filter: &str, topic: &str, expected: bool| {
            assert_eq!(
                filter_matches(filter, topic),
                expected,
                "{filter} on {topic}"
            );
        };
        check("a/b", "a/b", true);
        check("a/+", "a/b", true);
        check("a/+", "a/b/c", false);
        check("a/+", "a", false);
        check("a/#", "a", true);
        check("a/#", "a/b/c", true);
        check("#", "a/b", true);
        check("#", "$SYS/x", false);
        check("+/x", "$SYS/x", false);
        check("$SYS/#", "$SYS/x", true);
        check("+", "/a", false);
        check("+/+", "/a", true);
    }

    #[test]
    fn covering_is_decided_level_by_level() {
        let check = |wide: &str, narrow: &str, expected: bool| {
            assert_eq!(
                filter_covers(wide, narrow),
                expected,
                "{wide} over {narrow}"
            );
        };
        check("a/#", "a/b/+", true);
        check("a/#", "a", true);
        check("a/#", "#", false);
        check("a/+", "a/#", false);
        check("a/+", "a/+", true);
        check("a/+/c", "a/b/c", true);
        check("+/b", "a/b", true);
        check("a/b", "a/+", false);
        check("#", "$SYS/#", false);
    }

    proptest! {
        #[test]
        fn what_a_covered_filter_matches_the_wide_one_matches(
            wide in "(a|b|\\+)(/(a|b|\\+)){0,2}(/#)?",
            narrow in "(a|b|\\+)(/(a|b|\\+)){0,2}(/#)?",
            topic in "(a|b|c)(/(a|b|c)){0,3}",
        ) {
            if filter_covers(&wide, &narrow) && filter_matches(&narrow, &topic) {
                prop_assert!(filter_matches(&wide, &topic));
            }
        }
    }
}
