//! REST under `/api/registry`.

mod capability;
mod card;

use std::collections::BTreeMap;
use std::sync::Arc;

use alicia_contract::discovery::{
    Presence, RegisteredInstance, Registration, ServiceInstances, Unregistration,
};
use alicia_contract::id::{InstanceId, ServiceName};
use alicia_contract::platform::Scope;
use alicia_identity::Identity;
use alicia_module::api::{Answer, Body, Caller as ApiCaller, Params, PathParams};
use alicia_module::{Access, Api, ApiError, Operation};
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::actor::Failure;
use crate::core::{Caller, Event, Rank, Registry};
use crate::error::Refusal;
use crate::hear::problem;
use crate::module::RegistryModule;
use crate::query::{Filter, find};
use crate::resolve::read_range;
use crate::{tell, validate};

/// Entries on a page unless asked otherwise.
const PAGE_DEFAULT: u32 = 100;

/// Most entries on a page.
const PAGE_MAX: u32 = 1_000;

type Module = State<Arc<RegistryModule>>;

/// The operations.
pub(crate) fn api() -> Api<Arc<RegistryModule>> {
    Api::new()
        .with(
            Operation::post("/agents", "Registers an instance, or renews it.")
                .access(Access::Authenticated)
                .body::<Registration>()
                .answers::<RegisteredInstance>(200, "The entry, as it is on disk.")
                .refuses(403, "The name, or the entry, is somebody else's.")
                .refuses(409, "The instance is gone, or a newer copy of it is there.")
                .refuses(422, "The registration has faults; each is named.")
                .refuses(503, "The registry is full, or cannot write."),
            register,
        )
        .with(
            Operation::delete("/agents/{id}", "An instance leaves, or is removed.")
                .access(Access::Authenticated)
                .answers::<RegisteredInstance>(200, "The entry as it was left.")
                .refuses(403, "The entry is somebody else's.")
                .refuses(404, "There is no such instance."),
            leave,
        )
        .with(
            Operation::get("/agents", "Finds instances, by id.")
                .access(Access::Authenticated)
                .params::<AgentsQuery>()
                .answers::<AgentsPage>(200, "Those that fit."),
            agents,
        )
        .with(
            Operation::get(
                "/agents/{id}",
                "One instance, also one that is gone and remembered.",
            )
            .access(Access::Authenticated)
            .answers::<RegisteredInstance>(200, "The entry.")
            .refuses(404, "There is no such instance."),
            agent,
        )
        .with(
            Operation::get("/services", "Every service that has instances, by name.")
                .access(Access::Authenticated)
                .params::<ServicesQuery>()
                .answers::<ServicesPage>(200, "The services."),
            services,
        )
        .with(
            Operation::get(
                "/services/{name}",
                "The instances of a service that are not gone.",
            )
            .access(Access::Authenticated)
            .answers::<ServiceInstances>(200, "Its instances.")
            .refuses(404, "There is no such service."),
            service,
        )
        .with(card::operation("/agents/{id}/card"), card::card)
        .with(
            card::operation("/agents/{id}/.well-known/agent-card.json"),
            card::card,
        )
        .with(capability::resolve_operation(), capability::resolve)
        .with(capability::call_operation(), capability::call)
}

/// What to find. Everything that is given must fit.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AgentsQuery {
    /// Has this capability.
    capability: Option<String>,
    /// A range of versions such as `^1.2` or `>=1, <3`: of the capability, or without one of the program.
    version: Option<String>,
    /// Its presence; without it: all that are not gone.
    status: Option<Presence>,
    /// Has this label: `room` or `room=kitchen`.
    label: Option<String>,
    /// Begins after this id: `next` of the page before.
    cursor: Option<InstanceId>,
    /// Most entries of the answer. 1 to 1000; default 100.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// Instances, by id.
#[derive(Debug, Serialize, JsonSchema)]
struct AgentsPage {
    /// The instances.
    agents: Vec<RegisteredInstance>,
    /// Where the next page begins: the next `cursor`; none: this is the last.
    next: Option<InstanceId>,
}

/// A page of services.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ServicesQuery {
    /// Begins after this name: `next` of the page before.
    cursor: Option<ServiceName>,
    /// Most entries of the answer. 1 to 1000; default 100.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// Services, by name.
#[derive(Debug, Serialize, JsonSchema)]
struct ServicesPage {
    /// The services.
    services: Vec<ServiceSummary>,
    /// Where the next page begins: the next `cursor`; none: this is the last.
    next: Option<ServiceName>,
}

/// A service in short.
#[derive(Debug, Serialize, JsonSchema)]
struct ServiceSummary {
    /// The name.
    service: ServiceName,
    /// How many instances are there, by presence.
    instances: BTreeMap<String, u32>,
    /// The versions that they have.
    versions: Vec<String>,
    /// The capabilities that they have.
    capabilities: Vec<ServiceName>,
}

async fn register(
    State(module): Module,
    ApiCaller(identity): ApiCaller,
    Body(body): Body<Value>,
) -> Result<Answer<RegisteredInstance>, ApiError> {
    let registration = validate::read(body).map_err(|f| refused(&Refusal::Invalid(f).into()))?;
    itself(&identity, &registration.service, &registration.instance)?;
    let caller = caller(&identity)?;
    let event = Event::Register(Box::new(registration), caller);
    module
        .handle
        .ask(event)
        .await
        .map(Answer)
        .map_err(|failure| refused(&failure))
}

async fn leave(
    State(module): Module,
    ApiCaller(identity): ApiCaller,
    PathParams(instance): PathParams<InstanceId>,
) -> Result<Answer<RegisteredInstance>, ApiError> {
    let service = with_entry(&module, &instance, |entry| entry.registration.service)?;
    itself(&identity, &service, &instance)?;
    let caller = caller(&identity)?;
    let event = Event::Leave(Unregistration { service, instance }, caller);
    module
        .handle
        .ask(event)
        .await
        .map(Answer)
        .map_err(|failure| refused(&failure))
}

async fn agents(
    State(module): Module,
    Params(query): Params<AgentsQuery>,
) -> Result<Answer<AgentsPage>, ApiError> {
    let version = query.version.as_deref().map(read_range).transpose();
    let version = version.map_err(|message| fault("version", &message))?;
    let filter = Filter {
        capability: query.capability,
        version,
        presence: query.status,
        label: query.label.map(|label| match label.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (label, None),
        }),
    };
    let limit = limit(query.limit)?;
    let page = find(&module.shared.read(), &filter, query.cursor.as_ref(), limit);
    Ok(Answer(AgentsPage {
        agents: page.instances,
        next: page.next,
    }))
}

async fn agent(
    State(module): Module,
    PathParams(instance): PathParams<InstanceId>,
) -> Result<Answer<RegisteredInstance>, ApiError> {
    with_entry(&module, &instance, |entry| entry).map(Answer)
}

async fn services(
    State(module): Module,
    Params(query): Params<ServicesQuery>,
) -> Result<Answer<ServicesPage>, ApiError> {
    let limit = limit(query.limit)?;
    let registry = module.shared.read();
    let mut names = registry
        .services()
        .filter(|name| query.cursor.as_ref().is_none_or(|after| *name > after))
        .filter(|name| registry.live(name).next().is_some());
    let page: Vec<ServiceSummary> = names
        .by_ref()
        .take(limit)
        .map(|name| summary(&registry, name))
        .collect();
    let next = names
        .next()
        .and_then(|_| page.last())
        .map(|last| last.service.clone());
    Ok(Answer(ServicesPage {
        services: page,
        next,
    }))
}

async fn service(
    State(module): Module,
    PathParams(name): PathParams<ServiceName>,
) -> Result<Answer<ServiceInstances>, ApiError> {
    let view = tell::view(&module.shared, &name);
    if view.instances.is_empty() {
        let detail = format!("no instance of {name} is registered");
        return Err(ApiError::not_found("registry", detail));
    }
    Ok(Answer(view))
}

fn summary(registry: &Registry, name: &ServiceName) -> ServiceSummary {
    let mut instances = BTreeMap::new();
    let mut versions = Vec::new();
    let mut capabilities = Vec::new();
    for entry in registry.live(name) {
        let presence = match entry.presence {
            Presence::Unverified => "unverified",
            Presence::Present => "present",
            Presence::Suspect => "suspect",
            Presence::Gone => "gone",
        };
        *instances.entry(presence.to_owned()).or_default() += 1;
        versions.push(entry.registration.version.clone());
        capabilities.extend(
            entry
                .registration
                .capabilities
                .iter()
                .map(|has| has.name.clone()),
        );
    }
    versions.sort();
    versions.dedup();
    capabilities.sort();
    capabilities.dedup();
    ServiceSummary {
        service: name.clone(),
        instances,
        versions,
        capabilities,
    }
}

fn with_entry<T>(
    module: &RegistryModule,
    instance: &InstanceId,
    take: impl FnOnce(RegisteredInstance) -> T,
) -> Result<T, ApiError> {
    let entry = module
        .shared
        .read()
        .get(instance)
        .map(crate::core::Entry::public);
    entry
        .map(take)
        .ok_or_else(|| refused(&Refusal::Unknown(instance.clone()).into()))
}

/// An instance speaks for itself, not for the other instances of its service. On the bus only the service is known
/// for sure: there its instances trust each other.
fn itself(
    identity: &Identity,
    service: &ServiceName,
    instance: &InstanceId,
) -> Result<(), ApiError> {
    match identity.run() {
        Some((_, own, _)) if own != instance => Err(refused(
            &Refusal::NotYours {
                caller: format!("{identity} {own}"),
                service: service.clone(),
                reason: "an instance registers, renews and removes itself only",
            }
            .into(),
        )),
        _ => Ok(()),
    }
}

/// A key that may only read may not register either.
fn caller(identity: &Identity) -> Result<Caller, ApiError> {
    let rank = match identity {
        _ if identity.service().is_some() => Rank::Service,
        _ if identity.has_scope(Scope::Admin) => Rank::Admin,
        _ if identity.has_scope(Scope::Operate) => Rank::Key,
        _ => {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "registry.not_yours",
                "Not yours",
                format!("{identity} may only read; registering needs the scope operate"),
            ));
        }
    };
    Ok(Caller {
        name: identity.to_string(),
        rank,
    })
}

fn limit(asked: Option<u32>) -> Result<usize, ApiError> {
    let limit = asked.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(fault(
            "limit",
            &format!("found {limit}, expected 1 to {PAGE_MAX}"),
        ));
    }
    Ok(limit as usize)
}

fn fault(parameter: &str, message: &str) -> ApiError {
    let faults = vec![alicia_contract::problem::InputFault {
        pointer: parameter.to_owned(),
        message: message.to_owned(),
    }];
    let detail = format!("`{parameter}` cannot be used: {message}");
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    ApiError::new(status, "registry.invalid_query", "Invalid query", detail).with_faults(faults)
}

fn refused(failure: &Failure) -> ApiError {
    let problem = problem(failure);
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    ApiError::new(status, problem.code, title(failure), problem.detail).with_faults(problem.faults)
}

const fn title(failure: &Failure) -> &'static str {
    match failure {
        Failure::Refused(refusal) => refusal.title(),
        Failure::Store(_) | Failure::Closing => "Not available now",
    }
}
