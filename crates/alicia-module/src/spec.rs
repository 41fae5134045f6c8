//! A module without its type: what the list of modules holds and the host works with.

use std::sync::Arc;

use alicia_contract::fleet::Fleet;
use alicia_store::Migration;
use axum::Router;
use futures_util::future::BoxFuture;
use schemars::{Schema, SchemaGenerator};
use serde_json::Value;

use crate::api::Operation;
use crate::context::Context;
use crate::metrics::Exposition;
use crate::module::{ConfigFault, Ending, Error, Health, Module, Reload};

/// What the start of a module gives: the module without its type.
pub type Started = BoxFuture<'static, Result<Arc<dyn Running>, Error>>;

/// One line of the list of modules.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// The one name.
    pub name: &'static str,
    /// The migrations of its database.
    pub migrations: &'static [Migration],
    /// The schema of its section of the file.
    pub config_schema: fn(&mut SchemaGenerator) -> Schema,
    /// Checks its section; JSON in, faults out.
    pub validate: fn(Value, &Fleet) -> Vec<ConfigFault>,
    /// Starts it with its section of the file, which has been checked.
    pub start: fn(Context, Value) -> Started,
    /// Its operations, known without starting it.
    pub operations: fn() -> Vec<Operation>,
}

/// A module that runs.
pub trait Running: Send + Sync {
    /// Its routes.
    fn router(&self) -> Router;
    /// How it is.
    fn health(&self) -> Health;
    /// Writes its metrics.
    fn metrics(&self, out: &mut Exposition);
    /// Gives it a new section of the file.
    fn reload(&self, config: Value) -> BoxFuture<'_, Result<Reload, Error>>;
    /// Ends it in good order.
    fn stop(&self, ending: Ending) -> BoxFuture<'_, ()>;
    /// Its pages at the root of the listener.
    fn pages(&self) -> Option<Router>;
}

struct Erased<M>(Arc<M>);

impl<M: Module> Running for Erased<M> {
    fn router(&self) -> Router {
        M::routes().into_router(self.0.clone())
    }

    fn health(&self) -> Health {
        self.0.health()
    }

    fn metrics(&self, out: &mut Exposition) {
        self.0.metrics(out);
    }

    fn reload(&self, config: Value) -> BoxFuture<'_, Result<Reload, Error>> {
        Box::pin(async move { self.0.reload(read_config::<M>(config)?).await })
    }

    fn stop(&self, ending: Ending) -> BoxFuture<'_, ()> {
        Box::pin(self.0.stop(ending))
    }

    fn pages(&self) -> Option<Router> {
        self.0.pages()
    }
}

impl Spec {
    /// The line of the module `M`.
    #[must_use]
    pub const fn of<M: Module>() -> Self {
        Self {
            name: M::NAME,
            migrations: M::MIGRATIONS,
            config_schema: |generator| generator.subschema_for::<M::Config>(),
            validate: |config, fleet| match read_config::<M>(config) {
                Ok(config) => M::validate(&config, fleet),
                Err(error) => {
                    vec![ConfigFault {
                        pointer: String::new(),
                        message: error.to_string(),
                    }]
                }
            },
            start: |cx, config| {
                Box::pin(async move {
                    let module = M::start(cx, read_config::<M>(config)?).await?;
                    Ok(Arc::new(Erased(Arc::new(module))) as Arc<dyn Running>)
                })
            },
            operations: || M::routes().operations().to_vec(),
        }
    }
}

/// An absent section is the default one.
fn read_config<M: Module>(config: Value) -> Result<M::Config, Error> {
    match config {
        Value::Null => Ok(M::Config::default()),
        config => Ok(serde_json::from_value(config)?),
    }
}
