//! What an instance says of itself by the protocol of `sd_notify(3)`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::unit::Period;

/// Gives the instances a `NOTIFY_SOCKET` (`sd_notify(3)`): `notify: true`, or
/// `notify: {watchdog: 10s}`. With it, and without a readiness probe, an instance is ready when it says
/// `READY=1`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct NotifySpec {
    /// Whether there is one.
    pub enabled: bool,
    /// It must say `WATCHDOG=1` at least this often, from `READY=1` on, or it is ended and started anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Period>,
}

impl NotifySpec {
    /// Whether there is no socket.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        !self.enabled
    }
}

/// What it says by `sd_notify(3)` on its `NOTIFY_SOCKET`. `true` stands for `{}`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// `false` switches it off.
    #[serde(default = "yes")]
    enabled: bool,
    /// It must say `WATCHDOG=1` at least this often, from `READY=1` on, or it is ended and started anew.
    #[serde(default)]
    watchdog: Option<Period>,
}

fn yes() -> bool {
    true
}

impl<'de> Deserialize<'de> for NotifySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if let serde_json::Value::Bool(enabled) = value {
            return Ok(Self {
                enabled,
                watchdog: None,
            });
        }
        let Settings { enabled, watchdog } =
            serde_json::from_value(value).map_err(serde::de::Error::custom)?;
        Ok(Self { enabled, watchdog })
    }
}

impl JsonSchema for NotifySpec {
    fn schema_name() -> Cow<'static, str> {
        "NotifySpec".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<Settings>();
        json_schema!({ "anyOf": [{ "type": "boolean" }, settings] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_and_settings_are_read() {
        let check = |text: &str, expect: Option<(bool, Option<Period>)>| {
            let got = serde_json::from_str::<NotifySpec>(text).ok();
            let got = got.map(|it| (it.enabled, it.watchdog));
            assert_eq!(got, expect, "{text}");
        };
        check("true", Some((true, None)));
        check("false", Some((false, None)));
        check("{}", Some((true, None)));
        check(
            r#"{"watchdog": "10s"}"#,
            Some((true, Some(Period::from_secs(10)))),
        );
        check(r#"{"enabled": false}"#, Some((false, None)));
        check(r#"{"watch": "10s"}"#, None);
        check("3", None);
        let written = NotifySpec {
            enabled: true,
            watchdog: Some(Period::from_secs(1)),
        };
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<NotifySpec>(&text).unwrap(), written);
    }
}
