//! The environment of an instance. Everything but the first part is pure.

use std::collections::BTreeMap;
use std::path::Path;

use alicia_contract::ServiceName;
use alicia_contract::fleet::ServiceSpec;
use alicia_file::fleet::default_port;

use crate::core::event::Spawn;

/// What a service takes over from the environment of the host, and nothing else: what it was started
/// with must not decide how a fleet behaves.
const INHERITED: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "USER"];

/// `PATH` where the host has none (that of Debian's `login`).
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// Variables by name.
pub(crate) type Variables = BTreeMap<String, String>;

/// The base of every instance: the host's own `PATH`, `HOME`, `LANG`, `TZ`, `USER`, with the directory of
/// the program of Alicia at the end of the `PATH`, so that a service can call it.
#[expect(
    clippy::disallowed_methods,
    reason = "services inherit this from the host; it decides nothing in the host itself"
)]
pub(crate) fn base(program: &Path) -> Variables {
    let inherited = INHERITED.iter().filter_map(|name| {
        let value = std::env::var(name).ok()?;
        Some(((*name).to_owned(), value))
    });
    with_program(inherited.collect(), program)
}

fn with_program(mut base: Variables, program: &Path) -> Variables {
    let path = base
        .entry("PATH".into())
        .or_insert_with(|| PATH_DEFAULT.into());
    if let Some(directory) = program.parent().and_then(Path::to_str)
        && !path.split(':').any(|entry| entry == directory)
    {
        path.push(':');
        path.push_str(directory);
    }
    base
}

/// What Alicia tells an instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// Where the bus is, when there is one.
    pub(crate) mqtt_url: Option<String>,
    /// The user name there.
    pub(crate) mqtt_username: String,
    /// The file with the password.
    pub(crate) token_file: Option<String>,
    /// The first level of all topics.
    pub(crate) topic_prefix: String,
    /// Where REST is.
    pub(crate) api_url: Option<String>,
}

/// The whole environment of one run: the base, then the files in order, then `environment`, then what
/// Alicia tells. `ALICIA_INSTANCE` is set by the keeper.
pub(crate) fn environment(
    mut variables: Variables,
    files: Vec<(String, String)>,
    spawn: &Spawn,
    ports: &BTreeMap<ServiceName, u16>,
    told: &Told,
) -> Variables {
    variables.extend(files);
    let written = spawn.spec.environment.iter();
    variables.extend(written.map(|(name, value)| (name.clone(), value.to_string())));
    variables.extend(alicia(spawn, told));
    variables.extend(port_variables(&spawn.spec, ports));
    variables
}

fn alicia(spawn: &Spawn, told: &Told) -> Variables {
    let some = |name: &str, value: &Option<String>| Some((name.to_owned(), value.clone()?));
    let given = |name: &str, value: String| Some((name.to_owned(), value));
    let has_bus = told.mqtt_url.is_some();
    [
        given("ALICIA_SERVICE", spawn.slot.service.to_string()),
        given("ALICIA_SLOT", spawn.slot.slot.to_string()),
        given("ALICIA_EPOCH", spawn.epoch.to_string()),
        given("ALICIA_TOPIC_PREFIX", told.topic_prefix.clone()),
        given("ALICIA_MQTT_USERNAME", told.mqtt_username.clone()).filter(|_| has_bus),
        some("ALICIA_MQTT_URL", &told.mqtt_url),
        some("ALICIA_TOKEN_FILE", &told.token_file),
        some("ALICIA_API_URL", &told.api_url),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `PORT_<NAME>` for each, and `PORT` for the one named `http` or the only one.
fn port_variables(spec: &ServiceSpec, ports: &BTreeMap<ServiceName, u16>) -> Variables {
    let named = ports.iter().map(|(name, number)| {
        let name = name.as_str().to_ascii_uppercase().replace('-', "_");
        (format!("PORT_{name}"), number.to_string())
    });
    let main = default_port(spec).and_then(|(name, _)| ports.get(name));
    let main = main.map(|number| ("PORT".to_owned(), number.to_string()));
    named.chain(main).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::digest::Digest;
    use crate::core::event::SlotId;
    use alicia_contract::{Epoch, InstanceId};
    use serde_json::json;
    use std::sync::Arc;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).expect("a name")
    }

    fn spawn(spec: serde_json::Value) -> Spawn {
        let spec: ServiceSpec = serde_json::from_value(spec).expect("a service");
        Spawn {
            slot: SlotId {
                service: name("api"),
                slot: 2,
            },
            instance: InstanceId::from_parts(0, 0),
            epoch: Epoch(7),
            digest: Digest::of(&spec),
            resume: false,
            spec: Arc::new(spec),
        }
    }

    #[test]
    fn later_parts_win_and_alicia_has_the_last_word() {
        let spawn = spawn(
            json!({ "command": "api", "ports": {"http": "auto", "web-admin": 81},
            "environment": {"A": "written", "DEBUG": true, "ALICIA_EPOCH": "999"} }),
        );
        let base = Variables::from([("A".into(), "base".into()), ("PATH".into(), "/bin".into())]);
        let files = vec![("A".into(), "file".into()), ("B".into(), "file".into())];
        let told = Told {
            mqtt_url: Some("mqtt://127.0.0.1:1883".into()),
            mqtt_username: "api".into(),
            token_file: Some("/t".into()),
            topic_prefix: "alicia".into(),
            api_url: None,
        };
        let ports = BTreeMap::from([(name("http"), 4_001), (name("web-admin"), 81)]);
        let found = environment(base, files, &spawn, &ports, &told);
        let expected = [
            ("A", "written"),
            ("ALICIA_EPOCH", "7"),
            ("ALICIA_MQTT_URL", "mqtt://127.0.0.1:1883"),
            ("ALICIA_MQTT_USERNAME", "api"),
            ("ALICIA_SERVICE", "api"),
            ("ALICIA_SLOT", "2"),
            ("ALICIA_TOKEN_FILE", "/t"),
            ("ALICIA_TOPIC_PREFIX", "alicia"),
            ("B", "file"),
            ("DEBUG", "true"),
            ("PATH", "/bin"),
            ("PORT", "4001"),
            ("PORT_HTTP", "4001"),
            ("PORT_WEB_ADMIN", "81"),
        ];
        let found: Vec<_> = found
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_program_of_alicia_is_found_last() {
        let check = |path: Option<&str>, expected: &str| {
            let base = path.map(|path| ("PATH".to_owned(), path.to_owned()));
            let base = with_program(base.into_iter().collect(), Path::new("/opt/alicia/alicia"));
            assert_eq!(base["PATH"], expected);
        };
        check(Some("/bin"), "/bin:/opt/alicia");
        check(Some("/opt/alicia:/bin"), "/opt/alicia:/bin");
        check(None, "/usr/local/bin:/usr/bin:/bin:/opt/alicia");
    }
}
