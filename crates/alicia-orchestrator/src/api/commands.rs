//! Commands over REST.

use std::sync::Arc;
use std::time::Duration;

use alicia_contract::fleet::{INSTANCES_MAX, StopSignal};
use alicia_contract::orchestrator::{FleetAnswer, FleetStatus, InstanceState, Verb};
use alicia_contract::problem::InputFault;
use alicia_contract::{Period, ServiceName};
use alicia_module::ApiError;
use alicia_module::api::{Answer, Body, Caller, Params, PathParams};
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::command::{Asked, AskedSignal};
use crate::module::Orchestrator;

/// The longest wait of one request: proxies and clients give up sooner or later.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// For commands about the fleet.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandParams {
    /// Services, separated by commas. Default: the whole fleet.
    service: Option<String>,
    /// Groups, separated by commas.
    group: Option<String>,
    /// Answer when everything has come to rest, or after this time: `30s`. At most `10m`.
    wait: Option<Period>,
    /// Why, for the audit log. At most 500 characters.
    reason: Option<String>,
}

/// For commands about one service.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneParams {
    /// Answer when it has come to rest, or after this time: `30s`. At most `10m`.
    wait: Option<Period>,
    /// Why, for the audit log. At most 500 characters.
    reason: Option<String>,
}

/// A wanted number of instances.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScaleBody {
    /// The number.
    #[schemars(range(min = 0, max = 1000))]
    instances: u32,
}

/// A signal to send.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignalBody {
    /// Which.
    signal: StopSignal,
    /// To this slot only.
    #[schemars(range(min = 1, max = 1000))]
    slot: Option<u32>,
}

/// Who got a signal.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Signalled {
    /// The instances: `api-1`.
    instances: Vec<String>,
}

/// What a command did.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct CommandAnswer {
    #[serde(flatten)]
    answer: FleetAnswer,
    /// With `wait`: whether everything came to rest in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<bool>,
    /// With `wait`: the instances as they are now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    instances: Vec<InstanceOutcome>,
}

/// An instance after a command.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct InstanceOutcome {
    /// The service and its slot: `api-1`.
    instance: String,
    /// Where it is.
    state: InstanceState,
    /// Why.
    reason: String,
}

type Outcome = Result<Answer<CommandAnswer>, ApiError>;
type Module = State<Arc<Orchestrator>>;

pub(crate) async fn start(
    State(module): Module,
    Caller(who): Caller,
    Params(params): Params<CommandParams>,
) -> Outcome {
    about_fleet(&module, Verb::Start, &who.to_string(), params).await
}

pub(crate) async fn stop(
    State(module): Module,
    Caller(who): Caller,
    Params(params): Params<CommandParams>,
) -> Outcome {
    about_fleet(&module, Verb::Stop, &who.to_string(), params).await
}

pub(crate) async fn restart(
    State(module): Module,
    Caller(who): Caller,
    Params(params): Params<CommandParams>,
) -> Outcome {
    about_fleet(&module, Verb::Restart, &who.to_string(), params).await
}

pub(crate) async fn start_one(
    State(module): Module,
    Caller(who): Caller,
    PathParams(name): PathParams<ServiceName>,
    Params(params): Params<OneParams>,
) -> Outcome {
    about_one(&module, (Verb::Start, name), who.to_string(), params).await
}

pub(crate) async fn stop_one(
    State(module): Module,
    Caller(who): Caller,
    PathParams(name): PathParams<ServiceName>,
    Params(params): Params<OneParams>,
) -> Outcome {
    about_one(&module, (Verb::Stop, name), who.to_string(), params).await
}

pub(crate) async fn restart_one(
    State(module): Module,
    Caller(who): Caller,
    PathParams(name): PathParams<ServiceName>,
    Params(params): Params<OneParams>,
) -> Outcome {
    about_one(&module, (Verb::Restart, name), who.to_string(), params).await
}

pub(crate) async fn pause(
    State(module): Module,
    Caller(who): Caller,
    Params(params): Params<CommandParams>,
) -> Outcome {
    about_fleet(&module, Verb::Pause, &who.to_string(), params).await
}

pub(crate) async fn resume(
    State(module): Module,
    Caller(who): Caller,
    Params(params): Params<CommandParams>,
) -> Outcome {
    about_fleet(&module, Verb::Resume, &who.to_string(), params).await
}

pub(crate) async fn pause_one(
    State(module): Module,
    Caller(who): Caller,
    PathParams(name): PathParams<ServiceName>,
    Params(params): Params<OneParams>,
) -> Outcome {
    about_one(&module, (Verb::Pause, name), who.to_string(), params).await
}

pub(crate) async fn resume_one(
    State(module): Module,
    Caller(who): Caller,
    PathParams(name): PathParams<ServiceName>,
    Params(params): Params<OneParams>,
) -> Outcome {
    about_one(&module, (Verb::Resume, name), who.to_string(), params).await
}

pub(crate) async fn scale(
    State(module): Module,
    Caller(who): Caller,
    PathParams(service): PathParams<ServiceName>,
    Params(params): Params<OneParams>,
    Body(body): Body<ScaleBody>,
) -> Outcome {
    let asked = Asked {
        verb: Verb::Scale,
        names: vec![service],
        instances: Some(body.instances),
        reason: params.reason,
        actor: who.to_string(),
    };
    run(&module, asked, params.wait).await
}

pub(crate) async fn signal(
    State(module): Module,
    Caller(who): Caller,
    PathParams(service): PathParams<ServiceName>,
    Body(body): Body<SignalBody>,
) -> Result<Answer<Signalled>, ApiError> {
    let asked = AskedSignal {
        service,
        slot: possible_slot(body.slot)?,
        signal: body.signal,
        actor: who.to_string(),
    };
    let instances = module.commander.signal(asked).await?;
    Ok(Answer(Signalled { instances }))
}

async fn about_fleet(
    module: &Orchestrator,
    verb: Verb,
    actor: &str,
    params: CommandParams,
) -> Outcome {
    let mut names = names("service", params.service.as_deref())?;
    names.extend(self::names("group", params.group.as_deref())?);
    let asked = Asked {
        verb,
        names,
        instances: None,
        reason: params.reason,
        actor: actor.to_owned(),
    };
    run(module, asked, params.wait).await
}

async fn about_one(
    module: &Orchestrator,
    (verb, name): (Verb, ServiceName),
    actor: String,
    params: OneParams,
) -> Outcome {
    let asked = Asked {
        verb,
        names: vec![name],
        instances: None,
        reason: params.reason,
        actor,
    };
    run(module, asked, params.wait).await
}

async fn run(module: &Orchestrator, asked: Asked, wait: Option<Period>) -> Outcome {
    let wait = wait.map(checked_wait).transpose()?;
    let answer = module.commander.submit(asked).await?;
    let Some(patience) = wait else {
        return Ok(Answer(CommandAnswer {
            answer,
            settled: None,
            instances: Vec::new(),
        }));
    };
    let services = answer.services.clone();
    let settled = module.commander.settled(services.clone(), patience).await?;
    let is_settled = settled.is_some();
    let status = match settled {
        Some(status) => status,
        None => super::views::current(module).await?,
    };
    Ok(Answer(CommandAnswer {
        answer,
        settled: Some(is_settled),
        instances: outcomes(&status, &services),
    }))
}

fn outcomes(status: &FleetStatus, services: &[ServiceName]) -> Vec<InstanceOutcome> {
    let asked = status
        .services
        .iter()
        .filter(|status| services.contains(&status.service));
    asked
        .flat_map(|status| {
            status.instances.iter().map(|instance| InstanceOutcome {
                instance: format!("{}-{}", status.service, instance.slot),
                state: instance.state,
                reason: instance.reason.clone(),
            })
        })
        .collect()
}

pub(super) fn checked_wait(wait: Period) -> Result<Duration, ApiError> {
    if wait.duration() > WAIT_MAX {
        let message = format!("found {wait}, at most {}", Period(WAIT_MAX));
        return Err(invalid("wait", message));
    }
    Ok(wait.duration())
}

/// Names that are separated by commas. A parameter that is there and empty is a mistake: it must not mean
/// the whole fleet.
fn names(parameter: &str, text: Option<&str>) -> Result<Vec<ServiceName>, ApiError> {
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    let read = |name: &str| ServiceName::new(name.trim());
    text.split(',')
        .map(read)
        .collect::<Result<_, _>>()
        .map_err(|error| invalid(parameter, format!("failed to {error}")))
}

/// A slot is a number that an instance can have; one that is too large is a mistake, not an absent instance.
pub(crate) fn possible_slot(slot: Option<u32>) -> Result<Option<u32>, ApiError> {
    match slot {
        Some(slot) if !(1..=INSTANCES_MAX).contains(&slot) => {
            let message = format!("found {slot}, expected 1 to {INSTANCES_MAX}");
            Err(invalid("slot", message))
        }
        slot => Ok(slot),
    }
}

pub(crate) fn invalid(parameter: &str, message: String) -> ApiError {
    ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "orchestrator.invalid_parameter",
        "Invalid parameter",
        format!("`{parameter}`: {message}"),
    )
    .with_faults(vec![InputFault {
        pointer: parameter.to_owned(),
        message,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_an_empty_one_is_refused() {
        assert_eq!(names("service", None).expect("none"), []);
        let found = names("service", Some("api, db")).expect("two");
        assert_eq!(
            found.iter().map(ServiceName::as_str).collect::<Vec<_>>(),
            ["api", "db"]
        );
        for bad in ["", ",", "api,", "Api", "a/b"] {
            assert!(names("service", Some(bad)).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_wait_has_a_limit() {
        assert!(checked_wait(Period::from_secs(600)).is_ok());
        assert!(checked_wait(Period::from_secs(601)).is_err());
    }
}
