//! The trait that every module implements.

use std::future::Future;
use std::sync::Arc;

use alicia_contract::fleet::Fleet;
use alicia_store::Migration;
use axum::Router;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::Api;
use crate::context::Context;
use crate::metrics::Exposition;

/// Why a module could not start, or could not take a new configuration. The host logs the whole chain.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A part of Alicia: it has one name, one section in the file, one database, one set of routes.
///
/// ```text
///              start            stop
///   (absent) ────────▶ running ──────▶ (absent)
///                       │    ▲
///                panic  │    │ start again, within the intensity limit of the host
///                       ▼    │
///                      failed
/// ```
pub trait Module: Sized + Send + Sync + 'static {
    /// The one name: crate suffix, section, route, database, metric prefix, error-code prefix.
    const NAME: &'static str;

    /// The migrations of the module's own database.
    const MIGRATIONS: &'static [Migration] = &[];

    /// The module's section of `alicia.yaml`. Its doc comments are the user's reference.
    type Config: DeserializeOwned + Serialize + JsonSchema + Default + Send + 'static;

    /// Checks what the types cannot: pure, without I/O.
    fn validate(_config: &Self::Config, _fleet: &Fleet) -> Vec<ConfigFault> {
        Vec::new()
    }

    /// Starts the module. On return it works, or will by itself; what it needs of others may still be absent.
    fn start(cx: Context, config: Self::Config)
    -> impl Future<Output = Result<Self, Error>> + Send;

    /// Its routes, nested under `/api/<NAME>`. A route is closed unless its operation opens it.
    fn routes() -> Api<Arc<Self>> {
        Api::new()
    }

    /// How it is. Cheap: it tells what it already knows.
    fn health(&self) -> Health {
        Health::Ok
    }

    /// Writes its metrics. Cheap: it tells what it already counted.
    fn metrics(&self, _out: &mut Exposition) {}

    /// Takes a new configuration, or asks to be restarted with it, or refuses it and goes on with the old one.
    fn reload(&self, _config: Self::Config) -> impl Future<Output = Result<Reload, Error>> + Send {
        async { Ok(Reload::Restart) }
    }

    /// Pages at the root of the listener, for the one module that has any. They check their visitors themselves.
    fn pages(self: &Arc<Self>) -> Option<Router> {
        None
    }

    /// Ends in good order. Afterwards the host cancels what it spawned.
    fn stop(&self, _ending: Ending) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// How a module is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Works.
    Ok,
    /// Works, with less than it should have; why, in words.
    Degraded(String),
    /// Does not work; why, in words.
    Failed(String),
}

/// Why a module is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The module or the host is replaced: what it started outside of this process goes on.
    Leave,
    /// The house closes: what it started ends too.
    Finish,
}

/// What a module did with a new configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// It is in force.
    Applied,
    /// Stop me and start me with it.
    Restart,
}

/// A fault of a module's section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// A JSON pointer below the section: `/listen`.
    pub pointer: String,
    /// What was found, what was expected, what to do.
    pub message: String,
}
