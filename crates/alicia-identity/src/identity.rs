//! Who somebody is.

use std::fmt;

use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::platform::Scope;

use crate::grants::Grants;

/// An authenticated somebody. Its text form is what an envelope's `source` must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A module of the host: `system/<module>`.
    Module(String),
    /// One run of a service: the service's name.
    Service {
        /// The service.
        service: ServiceName,
        /// The run.
        instance: InstanceId,
        /// The epoch of the run.
        epoch: Epoch,
    },
    /// The holder of an API key: `key/<name>`.
    Key {
        /// The name of the key.
        name: String,
        /// What the key may do.
        scope: Scope,
    },
    /// The holder of an API key of limited scope: `key/<name>`.
    Limited {
        /// The name of the key.
        name: String,
        /// What the key may do, and nothing else.
        grants: Grants,
    },
    /// An agent that nobody here started and that has joined: its own name, as a service.
    Agent {
        /// The agent.
        name: ServiceName,
        /// Its instance.
        instance: InstanceId,
        /// Its epoch; it rises when the agent joins again.
        epoch: Epoch,
        /// What it may do beside what every service may.
        grants: Grants,
    },
}

impl Identity {
    /// The user name on the bus.
    #[must_use]
    pub fn user_name(&self) -> String {
        match self {
            Self::Module(module) => format!("system/{module}"),
            Self::Service { service, .. } => service.to_string(),
            Self::Key { name, .. } | Self::Limited { name, .. } => name.clone(),
            Self::Agent { name, .. } => name.to_string(),
        }
    }

    /// Whether it may do what needs this scope. A service has no scope: it may only do what is opened to
    /// services by name.
    #[must_use]
    pub fn has_scope(&self, needed: Scope) -> bool {
        match self {
            Self::Module(_) => true,
            Self::Service { .. } => false,
            Self::Key { scope, .. } => *scope >= needed,
            Self::Limited { grants, .. } | Self::Agent { grants, .. } => grants.has_scope(needed),
        }
    }

    /// Whether a scope of its own names this verb of this module.
    #[must_use]
    pub fn may(&self, module: &str, verb: &str) -> bool {
        match self {
            Self::Limited { grants, .. } | Self::Agent { grants, .. } => grants.may(module, verb),
            Self::Module(_) | Self::Service { .. } | Self::Key { .. } => false,
        }
    }

    /// The service, for an instance of one; the agent, for one that has joined.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceName> {
        self.run().map(|(service, ..)| service)
    }

    /// Name, run and epoch, for an instance of a service and for an agent.
    #[must_use]
    pub fn run(&self) -> Option<(&ServiceName, &InstanceId, Epoch)> {
        match self {
            Self::Service {
                service,
                instance,
                epoch,
            } => Some((service, instance, *epoch)),
            Self::Agent {
                name,
                instance,
                epoch,
                ..
            } => Some((name, instance, *epoch)),
            Self::Module(_) | Self::Key { .. } | Self::Limited { .. } => None,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(module) => write!(f, "system/{module}"),
            Self::Service { service, .. } => write!(f, "{service}"),
            Self::Key { name, .. } | Self::Limited { name, .. } => write!(f, "key/{name}"),
            Self::Agent { name, .. } => write!(f, "{name}"),
        }
    }
}
