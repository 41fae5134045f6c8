//! What a module is. Floor 2: every module stands on this, and on nothing of another module.
//!
//! Reading order: [`module`] (the trait), [`context`] (all that a module may touch), [`api`] (its routes:
//! one list that gives routing, access control and the OpenAPI document), [`metrics`], [`clock`].

pub mod module;

pub mod context;

pub mod api;
pub mod clock;
pub mod desk;
pub mod metrics;
pub mod paths;
pub mod spawn;
pub mod spec;
pub mod trace;

pub use api::{Access, Api, ApiError, Caller, Operation};
pub use clock::Clock;
pub use context::{Addresses, Context, ExternalBus};
pub use desk::{Candidate, Desk, DeskError};
pub use metrics::Exposition;
pub use module::{ConfigFault, Ending, Error, Health, Module, Reload};
pub use paths::Paths;
pub use spec::{Running, Spec};
