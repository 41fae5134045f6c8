//! REST: who is best for a capability, and calls to it.

use alicia_contract::Problem;
use alicia_contract::discovery::{CapabilityAnswer, CapabilityCall, Resolution, Wanted};
use alicia_module::api::{Answer, Body, Caller as ApiCaller};
use alicia_module::{Access, ApiError, Operation};
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::Value;

use super::Module;
use crate::resolve::{self, Query};
use crate::router::invalid;

pub(super) fn resolve_operation() -> Operation {
    Operation::post(
        "/resolve",
        "The best instances for a capability, with a reason for every candidate.",
    )
    .access(Access::Authenticated)
    .body::<Wanted>()
    .answers::<Resolution>(
        200,
        "The best, and what came of every candidate; none is an answer too.",
    )
    .refuses(422, "The question has faults; each is named.")
}

pub(super) fn call_operation() -> Operation {
    Operation::post(
        "/call",
        "Has a capability carried out by exactly one instance that fits and is well.",
    )
    .access(Access::Authenticated)
    .body::<CapabilityCall>()
    .answers::<CapabilityAnswer>(200, "What the instance answered.")
    .refuses(403, "The caller may not command the service.")
    .refuses(404, "Nobody offers the capability.")
    .refuses(409, "There are other versions only; they are named.")
    .refuses(
        422,
        "The call has faults, or the input does not fit the schema; each is named.",
    )
    .refuses(
        502,
        "The instance ended, or its answer does not fit its own schema.",
    )
    .refuses(503, "No instance can be chosen now.")
    .refuses(504, "No answer in time.")
}

pub(super) async fn resolve(
    State(module): Module,
    Body(body): Body<Value>,
) -> Result<Answer<Resolution>, ApiError> {
    let wanted: Wanted = read(body)?;
    let query = Query::new(wanted).map_err(|faults| as_error(invalid(faults)))?;
    Ok(Answer(resolve::resolve(&module.shared.read(), &query)))
}

pub(super) async fn call(
    State(module): Module,
    ApiCaller(identity): ApiCaller,
    Body(body): Body<Value>,
) -> Result<Answer<CapabilityAnswer>, ApiError> {
    let call: CapabilityCall = read(body)?;
    let called = module.router.call(&identity, call).await;
    called.map(Answer).map_err(as_error)
}

fn read<T: serde::de::DeserializeOwned>(body: Value) -> Result<T, ApiError> {
    alicia_contract::object::read(&body).map_err(|error| {
        as_error(invalid(vec![alicia_contract::problem::InputFault {
            pointer: String::new(),
            message: error.to_string(),
        }]))
    })
}

/// A problem as an answer of REST.
pub(super) fn as_error(problem: Problem) -> ApiError {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let title = title(&problem);
    ApiError::new(status, problem.code, title, problem.detail).with_faults(problem.faults)
}

/// The title of a problem of ours; those of instances have one for all.
fn title(problem: &Problem) -> &'static str {
    match problem.code.as_str() {
        "registry.invalid_query" => "Invalid query",
        "registry.unknown_capability" => "No such capability",
        "registry.no_such_version" => "No fitting version",
        "registry.input_mismatch" => "The input does not fit",
        "registry.output_mismatch" => "The output does not fit",
        "registry.call_not_allowed" => "May not be called",
        "registry.no_instance" => "No instance can be chosen",
        "registry.instance_ended" => "The instance ended",
        "registry.call_timed_out" => "No answer in time",
        "registry.unavailable" => "Not available now",
        _ => "The call failed",
    }
}
