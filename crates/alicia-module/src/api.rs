//! The routes of a module as one list: each entry says how it is called, who may call it, what it takes
//! and what it answers. Routing, access control and the OpenAPI document all come from it, so that
//! none can drift from the others.
//!
//! ```
//! use alicia_module::api::{Access, Api, ApiError, Answer, Operation, Params};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Wanted {
//!     /// The least number.
//!     min: Option<u32>,
//! }
//!
//! #[derive(Serialize, JsonSchema)]
//! struct Numbers(Vec<u32>);
//!
//! async fn numbers(Params(wanted): Params<Wanted>) -> Result<Answer<Numbers>, ApiError> {
//!     Ok(Answer(Numbers((wanted.min.unwrap_or(0)..10).collect())))
//! }
//!
//! let api: Api<()> = Api::new().with(
//!     Operation::get("/numbers", "The numbers below ten.")
//!         .access(Access::Open)
//!         .params::<Wanted>()
//!         .answers::<Numbers>(200, "The numbers."),
//!     numbers,
//! );
//! # let _ = api;
//! ```

pub mod extract;

pub mod error;
pub mod openapi;

pub use error::ApiError;
pub use extract::{Answer, Body, Caller, Params, PathParams};

use alicia_contract::platform::Scope;
use alicia_identity::Identity;
use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a key.
    Open,
    /// Whoever proves an identity: instances of services too.
    Authenticated,
    /// Keys of this scope or a higher one.
    Scope(Scope),
}

/// The method of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Does something.
    Post,
    /// Removes.
    Delete,
}

impl Method {
    /// The key of the operation in an OpenAPI path item.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Delete => "delete",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One operation, as it is documented and guarded.
#[derive(Debug, Clone)]
pub struct Operation {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) access: Access,
    pub(crate) params: Option<SchemaOf>,
    pub(crate) body: Option<SchemaOf>,
    pub(crate) path_params_are_ids: bool,
    pub(crate) answers: Vec<Documented>,
    pub(crate) refuses: Vec<(u16, &'static str)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Documented {
    pub(crate) status: u16,
    pub(crate) text: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) schema: Option<SchemaOf>,
}

impl Operation {
    fn new(method: Method, path: &'static str, summary: &'static str, access: Access) -> Self {
        Self {
            method,
            path,
            summary,
            access,
            params: None,
            body: None,
            path_params_are_ids: true,
            answers: Vec::new(),
            refuses: Vec::new(),
        }
    }

    /// Reads; for keys of scope `read` unless said otherwise. The path is below the module's, with `{name}` for
    /// what varies.
    #[must_use]
    pub fn get(path: &'static str, summary: &'static str) -> Self {
        Self::new(Method::Get, path, summary, Access::Scope(Scope::Read))
    }

    /// Does something; for keys of scope `operate` unless said otherwise.
    #[must_use]
    pub fn post(path: &'static str, summary: &'static str) -> Self {
        Self::new(Method::Post, path, summary, Access::Scope(Scope::Operate))
    }

    /// Removes something; for keys of scope `operate` unless said otherwise.
    #[must_use]
    pub fn delete(path: &'static str, summary: &'static str) -> Self {
        Self::new(Method::Delete, path, summary, Access::Scope(Scope::Operate))
    }

    /// The word for it in scopes such as `orchestrator:restart`: `read` for all that reads, `delete` for all that
    /// removes, else the last level of the path that does not vary.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        let is_word = |level: &&str| !level.is_empty() && !level.starts_with('{');
        match self.method {
            Method::Get => "read",
            Method::Delete => "delete",
            _ => self.path.rsplit('/').find(is_word).unwrap_or("create"),
        }
    }

    /// Who may call it.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Its query parameters: the fields of `T`; the handler takes `Params<T>`.
    #[must_use]
    pub fn params<T: JsonSchema>(mut self) -> Self {
        self.params = Some(T::json_schema);
        self
    }

    /// Its JSON body; the handler takes `Body<T>`.
    #[must_use]
    pub fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(|generator| generator.subschema_for::<T>());
        self
    }

    /// The varying parts of the path are any text, not ids.
    #[must_use]
    pub fn path_is_text(mut self) -> Self {
        self.path_params_are_ids = false;
        self
    }

    /// An answer in JSON.
    #[must_use]
    pub fn answers<T: JsonSchema>(mut self, status: u16, text: &'static str) -> Self {
        self.answers.push(Documented {
            status,
            text,
            content_type: "application/json",
            schema: Some(|generator| generator.subschema_for::<T>()),
        });
        self
    }

    /// An answer that is text or a stream of it.
    #[must_use]
    pub fn answers_text(
        mut self,
        status: u16,
        content_type: &'static str,
        text: &'static str,
    ) -> Self {
        self.answers.push(Documented {
            status,
            text,
            content_type,
            schema: None,
        });
        self
    }

    /// A refusal worth naming, as a problem document with this status.
    #[must_use]
    pub fn refuses(mut self, status: u16, text: &'static str) -> Self {
        self.refuses.push((status, text));
        self
    }
}

/// The operations of a module and their router.
#[derive(Debug, Clone)]
pub struct Api<S = ()> {
    router: Router<S>,
    operations: Vec<Operation>,
}

impl<S: Clone + Send + Sync + 'static> Default for Api<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Clone + Send + Sync + 'static> Api<S> {
    /// No operations yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            router: Router::new(),
            operations: Vec::new(),
        }
    }

    /// Adds an operation.
    #[must_use]
    pub fn with<T: 'static>(mut self, operation: Operation, handler: impl Handler<T, S>) -> Self {
        let (access, verb, path) = (operation.access, operation.verb(), operation.path);
        let guard = from_fn(move |request: Request, next: Next| {
            guard(access, Asked { path, verb }, request, next)
        });
        let route = on(operation.method.filter(), handler).layer(guard);
        self.router = self.router.route(operation.path, route);
        self.operations.push(operation);
        self
    }

    /// The operations, for the OpenAPI document.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The router.
    pub fn into_router(self, state: S) -> Router {
        self.router.with_state(state)
    }
}

/// The module that a request was routed to, put there by the host: scopes of single verbs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalledModule(pub &'static str);

/// What is asked for, in the words of scopes.
#[derive(Debug, Clone, Copy)]
struct Asked {
    path: &'static str,
    verb: &'static str,
}

impl Asked {
    /// Of a module what the host says, of the platform's own routes the part behind `/api/`.
    fn module(self, request: &Request) -> &'static str {
        let called = request.extensions().get::<CalledModule>();
        called.map_or_else(
            || {
                let below = self.path.strip_prefix("/api/").unwrap_or_default();
                below.split('/').next().unwrap_or_default()
            },
            |called| called.0,
        )
    }
}

/// Lets a request through when its caller may call the operation.
async fn guard(access: Access, asked: Asked, request: Request, next: Next) -> Response {
    let identity = request.extensions().get::<Identity>();
    let refusal = match (access, identity) {
        (Access::Open, _) | (Access::Authenticated, Some(_)) => None,
        (Access::Scope(needed), Some(identity)) if identity.has_scope(needed) => None,
        (Access::Scope(_), Some(identity)) if identity.may(asked.module(&request), asked.verb) => {
            None
        }
        (Access::Scope(needed), Some(identity)) => Some(ApiError::forbidden(identity, needed)),
        (_, None) => Some(ApiError::unauthenticated()),
    };
    match refusal {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}
