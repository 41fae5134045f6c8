//! The only list of modules, in the order of their start.

use alicia_module::Spec;

/// Every module that is compiled in. The broker is first, since the others talk over it, and the page last.
pub(crate) static MODULES: &[Spec] = &[
    #[cfg(feature = "broker")]
    Spec::of::<alicia_broker::BrokerModule>(),
    #[cfg(feature = "registry")]
    Spec::of::<alicia_registry::RegistryModule>(),
    #[cfg(feature = "health")]
    Spec::of::<alicia_health::HealthModule>(),
    #[cfg(feature = "orchestrator")]
    Spec::of::<alicia_orchestrator::Orchestrator>(),
    #[cfg(feature = "dashboard")]
    Spec::of::<alicia_dashboard::Dashboard>(),
];
