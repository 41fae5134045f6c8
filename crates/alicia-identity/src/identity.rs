//! Who somebody is.

use std::fmt;

use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::platform::Scope;

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
}

impl Identity {
    /// The user name on the bus.
    #[must_use]
    pub fn user_name(&self) -> String {
        match self {
            Self::Module(module) => format!("system/{module}"),
            Self::Service { service, .. } => service.to_string(),
            Self::Key { name, .. } => name.clone(),
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
        }
    }

    /// The service, for an instance of one.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Service { service, .. } => Some(service),
            Self::Module(_) | Self::Key { .. } => None,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(module) => write!(f, "system/{module}"),
            Self::Service { service, .. } => write!(f, "{service}"),
            Self::Key { name, .. } => write!(f, "key/{name}"),
        }
    }
}
