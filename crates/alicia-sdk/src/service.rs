//! What a service declares.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alicia_bus::Message;
use alicia_contract::InstanceId;
use alicia_contract::discovery::{Kind, LEASE_DEFAULT, PROTOCOL_MAJOR, Registration};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::capability::{self, Capability};
use crate::commands::{self, Commands};
use crate::context::Context;
use crate::environment::Environment;
use crate::error::Error;
use crate::handler::{self, Listener, Timer};
use crate::presence;

/// Between two heartbeats, unless set otherwise.
pub(crate) const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);
/// How long a command may take, unless set otherwise.
const COMMAND_DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// How long handlers may take to finish when the service stops, unless set otherwise.
const DRAIN_DEFAULT: Duration = Duration::from_secs(5);

/// A service: what it is called, what it can do, what it does. [`Service::run`] runs it.
#[must_use = "a service does nothing until it is run"]
pub struct Service {
    pub(crate) environment: Environment,
    pub(crate) registration: Registration,
    pub(crate) commands: Commands,
    pub(crate) listeners: Vec<(String, Listener)>,
    pub(crate) timers: Vec<Timer>,
    pub(crate) heartbeat_every: Duration,
    pub(crate) command_deadline: Duration,
    pub(crate) drain: Duration,
    /// The first fault of the declaration, told when it is run.
    pub(crate) fault: Option<Error>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// A service that is set up by its environment: `ALICIA_SERVICE` (else `name`), `ALICIA_INSTANCE`,
    /// `ALICIA_EPOCH`, `ALICIA_MQTT_URL`, `ALICIA_MQTT_USERNAME`, `ALICIA_TOKEN_FILE`,
    /// `ALICIA_TOPIC_PREFIX`, `PORT`. The supervisor sets them all; elsewhere the URL is enough.
    ///
    /// # Errors
    /// When a variable is missing or wrong; the message says what to do.
    pub fn from_env(name: &str) -> Result<Self, Error> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the environment is how a supervisor speaks to a service"
        )]
        let environment = Environment::read(
            name,
            |variable| std::env::var(variable).ok(),
            new_instance(),
        )?;
        Ok(Self::new(environment))
    }

    fn new(environment: Environment) -> Self {
        let registration = Registration {
            service: environment.service.clone(),
            instance: environment.instance.clone(),
            epoch: environment.epoch,
            kind: Kind::Service,
            version: "0.1.0".to_owned(),
            protocols: vec![format!("{PROTOCOL_MAJOR}.0.0")],
            capabilities: Vec::new(),
            endpoints: presence::endpoints(&environment),
            metadata: Map::new(),
            labels: BTreeMap::new(),
            lease_s: LEASE_DEFAULT.duration().as_secs_f64(),
        };
        Self {
            environment,
            registration,
            commands: commands::built_in(),
            listeners: Vec::new(),
            timers: Vec::new(),
            heartbeat_every: HEARTBEAT_DEFAULT,
            command_deadline: COMMAND_DEADLINE_DEFAULT,
            drain: DRAIN_DEFAULT,
            fault: None,
        }
    }

    /// The version of the program (semver). Default: 0.1.0.
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.registration.version);
        self
    }

    /// What it is. Default: a service.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.registration.kind = kind;
        self
    }

    /// Something that it can do, and how. Others find it by its name, version and tags, and call it with
    /// `alicia call`, REST, or [`Context::use_capability`]; one instance carries each call out. Inputs that do
    /// not fit its schema are refused before the handler is called.
    ///
    /// ```no_run
    /// # use alicia_sdk::{Capability, Error, JsonSchema, Service};
    /// #[derive(serde::Deserialize, JsonSchema)]
    /// struct Greet { name: String }
    /// # fn declare(service: Service) -> Service {
    /// service.capability(Capability::new("greet").version("1.0.0").tag("friendly"), |_cx, asked: Greet| async move {
    ///     Ok(format!("Hello, {}!", asked.name))
    /// })
    /// # }
    /// ```
    pub fn capability<Q, A, F, R>(mut self, capability: Capability, handler: F) -> Self
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        A: Serialize + JsonSchema + 'static,
        F: Fn(Context, Q) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, Error>> + Send + 'static,
    {
        let said = match capability.of_types::<Q, A>().done() {
            Ok(said) => said,
            Err(fault) => return self.faulty(fault),
        };
        let name = said.name.to_string();
        let handler = match capability::guarded_by(&said.input_schema, handler::command(handler)) {
            Ok(handler) => handler,
            Err(fault) => return self.faulty(fault),
        };
        self.registration.capabilities.push(said);
        match self.commands.insert(name.clone(), handler) {
            None => self,
            Some(_) => self.faulty(Error::CommandTwice(name)),
        }
    }

    /// Something that it can do and that is not called over the bus: others find it, and reach it elsewhere.
    pub fn offers(mut self, capability: Capability) -> Self {
        match capability.done() {
            Ok(said) => {
                self.registration.capabilities.push(said);
                self
            }
            Err(fault) => self.faulty(fault),
        }
    }

    /// A label to find it by.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        let labels = &mut self.registration.labels;
        labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Anything else that others may want to know.
    pub fn metadata(mut self, name: &str, value: Value) -> Self {
        self.registration.metadata.insert(name.to_owned(), value);
        self
    }

    /// Between two heartbeats. Default: 5 s.
    pub fn heartbeat_every(mut self, period: Duration) -> Self {
        self.heartbeat_every = period;
        self
    }

    /// How long a command may take before its caller is told that it was given up. Default: 30 s.
    pub fn command_deadline(mut self, deadline: Duration) -> Self {
        self.command_deadline = deadline;
        self
    }

    /// How long handlers may take to finish when the service stops. Default: 5 s.
    pub fn drain(mut self, deadline: Duration) -> Self {
        self.drain = deadline;
        self
    }

    /// Carries out a command that comes on `{service}/command` or on the instance's own topic. Several run at
    /// the same time. `ping`, which answers, and `status`, which answers with a heartbeat, are there already.
    ///
    /// The instances of a service share `{service}/command`: one of them hears each command. Delivery may
    /// repeat only with a new `message_id`, that is when the caller asks again.
    pub fn command<Q, A, F, R>(mut self, name: &str, handler: F) -> Self
    where
        Q: DeserializeOwned + Send + 'static,
        A: Serialize + 'static,
        F: Fn(Context, Q) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, Error>> + Send + 'static,
    {
        let handler = handler::command(handler);
        match self.commands.insert(name.to_owned(), handler) {
            None => self,
            Some(_) => self.faulty(Error::CommandTwice(name.to_owned())),
        }
    }

    /// Handles each message on a filter, one at a time, in order. The filter is without the prefix; one
    /// that starts with `/` is taken from the root. The fleet must allow it: `allow: {subscribe: […]}`.
    pub fn on<T, F, R>(mut self, filter: &str, handler: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(Context, Message<T>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let listener = handler::listener(handler);
        self.listeners.push((filter.to_owned(), listener));
        self
    }

    /// Does something periodically, the first time when the bus is there. A period of zero is a fault.
    pub fn every<F, R>(mut self, period: Duration, handler: F) -> Self
    where
        F: Fn(Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Error>> + Send + 'static,
    {
        if period.is_zero() {
            return self.faulty(Error::Invalid {
                variable: "the period of a timer",
                found: "0s".to_owned(),
                expected: "more than zero",
            });
        }
        self.timers.push(handler::timer(period, handler));
        self
    }

    fn faulty(mut self, fault: Error) -> Self {
        self.fault.get_or_insert(fault);
        self
    }
}

/// An id for an instance that nobody supervises.
fn new_instance() -> InstanceId {
    #[expect(
        clippy::disallowed_methods,
        reason = "the id holds the time of the start, and a service is a program of its own"
    )]
    let now = SystemTime::now();
    let unix_ms = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let unix_ms = u64::try_from(unix_ms).unwrap_or_default();
    InstanceId::from_parts(unix_ms, fastrand::u128(..))
}
