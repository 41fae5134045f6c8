//! Names and ids. Each is checked when it is made: an id that exists is valid.
//!
//! The alphabet `[a-z0-9-]{1,63}` is narrow on purpose: ids become MQTT topic levels and file names,
//! and a client id with `#` or `+` in it has opened more than one broker (CVE-2017-7650).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// The longest id, in characters: one DNS label (RFC 1035 section 2.3.4).
pub const ID_CHARS_MAX: usize = 63;

/// The pattern of every id, as a regular expression.
pub const ID_PATTERN: &str = "^[a-z0-9-]{1,63}$";

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty or longer than [`ID_CHARS_MAX`].
    #[error("read the id: it has {0} characters, expected 1 to 63")]
    Length(usize),
    /// A character outside `[a-z0-9-]`.
    #[error("read the id {text:?}: {found:?} is not allowed, expected a-z, 0-9 or -")]
    Character {
        /// The whole text.
        text: String,
        /// The first character that is not allowed.
        found: char,
    },
}

fn check(text: &str) -> Result<(), IdError> {
    let chars = text.chars().count();
    if chars == 0 || chars > ID_CHARS_MAX {
        return Err(IdError::Length(chars));
    }
    match text
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
    {
        Some(found) => Err(IdError::Character {
            text: text.to_owned(),
            found,
        }),
        None => Ok(()),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks the text and makes it an id.
            ///
            /// # Errors
            /// When the text does not match [`ID_PATTERN`].
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
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
                json_schema!({ "type": "string", "pattern": ID_PATTERN })
            }
        }
    };
}

id! {
    /// The name of a service, as in `alicia.yaml`.
    ServiceName
}

id! {
    /// One run of one copy of a service: a ULID in lower case, new at every start.
    InstanceId
}

impl InstanceId {
    /// An instance id from a time and 80 random bits; sorts by time.
    #[must_use]
    pub fn from_parts(unix_ms: u64, random: u128) -> Self {
        Self(
            ulid::Ulid::from_parts(unix_ms, random)
                .to_string()
                .to_ascii_lowercase(),
        )
    }
}

/// Counts the starts of one slot of a service. A higher epoch fences off the lower ones: two copies
/// of one slot never act at once.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_narrow_alphabet_is_an_id() {
        for good in ["a", "api-2", &"x".repeat(63)] {
            assert_eq!(ServiceName::new(good).expect(good).as_str(), good);
        }
        for bad in ["", "A", "a_b", "a/b", "#", "+", "ä", &"x".repeat(64)] {
            assert!(ServiceName::new(bad).is_err(), "{bad:?} was accepted");
            assert!(serde_json::from_value::<ServiceName>(bad.into()).is_err());
        }
    }

    #[test]
    fn instance_ids_sort_by_time() {
        let early = InstanceId::from_parts(1_000, u128::MAX);
        let late = InstanceId::from_parts(1_001, 0);
        assert!(early < late);
        assert_eq!(early.as_str().len(), 26);
    }
}
