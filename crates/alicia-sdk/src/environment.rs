//! What an instance knows of itself: what its supervisor put into the environment, else what the program
//! says. Pure; the environment is given as a function.

use std::path::PathBuf;
use std::str::FromStr;

use alicia_bus::{BusAddress, PasswordSource};
use alicia_contract::{Epoch, InstanceId, Prefix, ServiceName};

use crate::error::Error;
use crate::identity::{self, Identity};

const AN_ID: &str = "1 to 63 of a-z, 0-9 and -";

/// Who the instance is, and where the bus is.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    pub(crate) service: ServiceName,
    pub(crate) instance: InstanceId,
    pub(crate) epoch: Epoch,
    pub(crate) prefix: Prefix,
    pub(crate) address: BusAddress,
    pub(crate) username: String,
    pub(crate) password: PasswordSource,
    /// Where `/health` is to be served; none: nowhere.
    pub(crate) port: Option<u16>,
    /// The key that it was given, or with which it joined.
    pub(crate) identity: Option<Identity>,
}

impl Environment {
    /// Reads the environment. A supervised instance is who the file says it is, whatever `name` the
    /// program has for itself; `new_instance` is for one that nobody supervises.
    pub(crate) fn read(
        name: &str,
        variable: impl Fn(&str) -> Option<String>,
        new_instance: InstanceId,
    ) -> Result<Self, Error> {
        let identity = Identity::take(&variable)?;
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(identity) = identity {
            return Self::with_identity(identity, &set);
        }
        let service = set("ALICIA_SERVICE").unwrap_or_else(|| name.to_owned());
        let service: ServiceName = parse("ALICIA_SERVICE", service, AN_ID)?;
        let address = set("ALICIA_MQTT_URL").ok_or(Error::Missing {
            variable: "ALICIA_MQTT_URL",
            advice: "start the service with `alicia up`, or say where the bus is: \
                     ALICIA_MQTT_URL=mqtt://127.0.0.1:1883",
        })?;
        let address = address.parse().map_err(|_| Error::Invalid {
            variable: "ALICIA_MQTT_URL",
            // It may hold a password, which is not repeated.
            found: "…".to_owned(),
            expected: "mqtt://HOST:PORT, and the password in a file named by ALICIA_TOKEN_FILE",
        })?;
        Ok(Self {
            instance: match set("ALICIA_INSTANCE") {
                Some(instance) => parse("ALICIA_INSTANCE", instance, AN_ID)?,
                None => new_instance,
            },
            epoch: Epoch(number(set, "ALICIA_EPOCH", "a number")?.unwrap_or_default()),
            prefix: match set("ALICIA_TOPIC_PREFIX") {
                Some(prefix) => parse("ALICIA_TOPIC_PREFIX", prefix, AN_ID)?,
                None => Prefix::default(),
            },
            username: set("ALICIA_MQTT_USERNAME").unwrap_or_else(|| service.to_string()),
            password: match set("ALICIA_TOKEN_FILE") {
                Some(path) => PasswordSource::File(PathBuf::from(path)),
                None => PasswordSource::None,
            },
            port: number(set, "PORT", "a TCP port")?,
            identity: None,
            service,
            address,
        })
    }

    /// Who it is says the identity; where the bus is, the environment.
    fn with_identity(
        identity: Identity,
        set: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let (file, logs_in) = (identity.file.clone(), identity.file.logs_in);
        let told = |name: &str| match name {
            "ALICIA_SERVICE" => Some(file.service.to_string()),
            "ALICIA_INSTANCE" => Some(file.instance.to_string()),
            "ALICIA_EPOCH" => Some(file.epoch.to_string()),
            "ALICIA_MQTT_USERNAME" if logs_in => Some(file.service.to_string()),
            identity::DESCRIPTOR | identity::FILE => None,
            name => set(name),
        };
        let told: &dyn Fn(&str) -> Option<String> = &told;
        let mut environment = Self::read("", told, file.instance.clone())?;
        if logs_in {
            environment.password = identity.password();
        }
        environment.identity = Some(identity);
        Ok(environment)
    }

    /// The source of what it says: its service, or the key with which somebody runs it by hand.
    pub(crate) fn source(&self) -> String {
        if self.username == self.service.as_str() {
            self.username.clone()
        } else {
            format!("key/{}", self.username)
        }
    }
}

fn parse<T: FromStr>(
    variable: &'static str,
    value: String,
    expected: &'static str,
) -> Result<T, Error> {
    value.parse().map_err(|_| Error::Invalid {
        variable,
        found: value,
        expected,
    })
}

fn number<T: FromStr>(
    set: impl Fn(&str) -> Option<String>,
    variable: &'static str,
    expected: &'static str,
) -> Result<Option<T>, Error> {
    set(variable)
        .map(|value| parse(variable, value, expected))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Error> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        let made = InstanceId::new("made").expect("is an id");
        Environment::read(
            "lamp",
            |name| variables.get(name).map(|v| (*v).into()),
            made,
        )
    }

    const BUS: (&str, &str) = ("ALICIA_MQTT_URL", "mqtt://127.0.0.1:1884");

    #[test]
    fn a_supervised_instance_is_who_the_supervisor_says() {
        let environment = read(&[
            BUS,
            ("ALICIA_SERVICE", "api"),
            ("ALICIA_INSTANCE", "01abc"),
            ("ALICIA_EPOCH", "7"),
            ("ALICIA_TOPIC_PREFIX", "home"),
            ("ALICIA_TOKEN_FILE", "/run/token"),
            ("PORT", "8080"),
        ])
        .expect("reads");
        assert_eq!(environment.service.as_str(), "api");
        assert_eq!(environment.instance.as_str(), "01abc");
        assert_eq!(environment.epoch, Epoch(7));
        assert_eq!(environment.prefix.as_str(), "home");
        assert_eq!(environment.address.port, 1884);
        assert_eq!(environment.port, Some(8080));
        assert_eq!(environment.source(), "api");
        assert!(matches!(environment.password, PasswordSource::File(_)));
    }

    #[test]
    fn alone_it_goes_by_its_own_name_and_makes_an_id() {
        let environment = read(&[BUS, ("PORT", "")]).expect("reads");
        assert_eq!(environment.service.as_str(), "lamp");
        assert_eq!(environment.instance.as_str(), "made");
        assert_eq!(environment.port, None);
        let by_key = read(&[BUS, ("ALICIA_MQTT_USERNAME", "tom")]).expect("reads");
        assert_eq!(by_key.source(), "key/tom");
    }

    #[test]
    fn each_fault_names_its_variable_and_what_is_expected() {
        let check = |variables: &[(&str, &str)], expected: &[&str]| {
            let text = format!("{:?}", read(variables).expect_err("is refused"));
            for part in expected {
                assert!(text.contains(part), "{text:?} lacks {part:?}");
            }
        };
        check(
            &[],
            &["ALICIA_MQTT_URL", "not set", "mqtt://127.0.0.1:1883"],
        );
        check(&[BUS, ("PORT", "99999")], &["PORT", "99999", "TCP port"]);
        check(
            &[BUS, ("ALICIA_SERVICE", "A B")],
            &["ALICIA_SERVICE", "A B", "a-z"],
        );
        check(&[BUS, ("ALICIA_EPOCH", "x")], &["ALICIA_EPOCH"]);
        let secret = [("ALICIA_MQTT_URL", "mqtt://u:secret@h:1")];
        check(&secret, &["mqtt://HOST:PORT"]);
        assert!(!format!("{:?}", read(&secret).expect_err("is refused")).contains("secret"));
    }
}
