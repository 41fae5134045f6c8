//! What a handler is given: the bus, who it is, and a word with the monitor.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use alicia_bus::Bus;
use alicia_contract::discovery::{CALL, CapabilityCall};
use alicia_contract::health::HeartbeatStatus;
use alicia_contract::orchestrator::{SERVICE_COMMAND, ServiceCommand};
use alicia_contract::{InstanceId, Period, ServiceName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::environment::Environment;
use crate::error::Error;
use crate::vitals::Vitals;

/// What a handler may touch. Cheap to clone.
///
/// Topics are written without the prefix; one that starts with `/` is taken from the root.
#[derive(Debug, Clone)]
pub struct Context {
    inner: Arc<Inner>,
    caller: Option<Arc<str>>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) bus: Bus,
    pub(crate) environment: Environment,
    pub(crate) vitals: Vitals,
    /// Commands that are being carried out.
    pub(crate) in_flight: AtomicU32,
    pub(crate) stopping: CancellationToken,
}

impl Context {
    pub(crate) fn new(bus: Bus, environment: Environment) -> Self {
        let inner = Inner {
            bus,
            environment,
            vitals: Vitals::new(),
            in_flight: AtomicU32::new(0),
            stopping: CancellationToken::new(),
        };
        Self {
            inner: Arc::new(inner),
            caller: None,
        }
    }

    /// The context of the handling of one message.
    pub(crate) fn of(&self, source: Option<&str>) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            caller: source.map(Arc::from),
        }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// The whole topic.
    pub(crate) fn topic(&self, topic: &str) -> String {
        match topic.strip_prefix('/') {
            Some(from_root) => from_root.to_owned(),
            None => format!("{}/{topic}", self.inner.environment.prefix),
        }
    }

    /// The name of the service.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.inner.environment.service
    }

    /// The id of this instance.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.inner.environment.instance
    }

    /// Who sent the message that is being handled, as its envelope or the broker says; none in a timer.
    #[must_use]
    pub fn caller(&self) -> Option<&str> {
        self.caller.as_deref()
    }

    /// The typed bus, for what the helpers here do not do.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.inner.bus
    }

    /// Publishes an event, and waits until the broker has it.
    ///
    /// # Errors
    /// When the broker refuses it or does not have it in time.
    pub async fn publish<T: Serialize>(&self, topic: &str, payload: &T) -> Result<(), Error> {
        self.bus().publish_at(&self.topic(topic), payload).await?;
        Ok(())
    }

    /// Publishes a state, which the broker retains for late comers, and waits until it has it. It is
    /// published again on each new connection.
    ///
    /// # Errors
    /// When the broker refuses it or does not have it in time.
    pub async fn set<T: Serialize>(&self, topic: &str, payload: &T) -> Result<(), Error> {
        self.bus().set_at(&self.topic(topic), payload).await?;
        Ok(())
    }

    /// Clears a state that was set.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub async fn clear(&self, topic: &str) -> Result<(), Error> {
        self.bus().clear_at(&self.topic(topic)).await?;
        Ok(())
    }

    /// Asks another service to do something and waits for its answer.
    ///
    /// # Errors
    /// When there is no answer in time, the answer is an error, or it is not an `A`.
    ///
    /// # Panics
    /// Never: the topic has one level for the one service.
    pub async fn call<A: DeserializeOwned>(
        &self,
        service: &str,
        command: &str,
        arguments: &impl Serialize,
        deadline: Duration,
    ) -> Result<A, Error> {
        let command = ServiceCommand {
            command: command.to_owned(),
            arguments: serde_json::to_value(arguments)?,
        };
        self.can_be_verified().await;
        let answer = self
            .bus()
            .call(SERVICE_COMMAND, &[service], &command, deadline)
            .await?;
        Ok(serde_json::from_value(answer)?)
    }

    /// Has a capability carried out by exactly one instance that fits and is well, whichever service it belongs
    /// to, and waits for its answer. The registry chooses the instance and checks the input and the output.
    ///
    /// # Errors
    /// When nobody can be chosen, the input does not fit, there is no answer in time, or it is an error.
    pub async fn use_capability<A: DeserializeOwned>(
        &self,
        capability: &str,
        input: &impl Serialize,
        deadline: Duration,
    ) -> Result<A, Error> {
        let name = capability.parse().map_err(|_| Error::Invalid {
            variable: "a capability",
            found: capability.to_owned(),
            expected: "1 to 63 of a-z, 0-9 and -",
        })?;
        let call = CapabilityCall {
            capability: name,
            service: None,
            version: None,
            tags: Vec::new(),
            input: serde_json::to_value(input)?,
            timeout: Some(Period(deadline)),
            retry: false,
        };
        self.can_be_verified().await;
        let answer = self.bus().call(CALL, &[], &call, deadline).await?;
        Ok(serde_json::from_value(answer.output)?)
    }

    /// Before a call: others can know the key that it is signed with.
    async fn can_be_verified(&self) {
        if let Some(identity) = &self.inner.environment.identity {
            identity.listed().await;
        }
    }

    /// Raises a counter, which heartbeats and `/metrics` show.
    pub fn count(&self, name: &str) {
        self.count_by(name, 1.0);
    }

    /// Raises a counter by as much; it must not be negative.
    pub fn count_by(&self, name: &str, by: f64) {
        self.inner.vitals.count(name, by);
    }

    /// Says how the service is, and why in one line when it is not well. A heartbeat tells it at once.
    pub fn set_health(&self, status: HeartbeatStatus, detail: Option<&str>) {
        self.inner.vitals.set(status, detail.map(str::to_owned));
    }

    /// Stops the service, as SIGTERM does.
    pub fn stop(&self) {
        self.inner.stopping.cancel();
    }

    /// Waits until the service is asked to stop, for handlers that take long.
    pub async fn stopping(&self) {
        self.inner.stopping.cancelled().await;
    }
}
