//! What people and programs ask for: resolved, written down with who asked, then done.
//!
//! A command is acknowledged after it is on disk together with its audit row: a host that is killed right
//! after that does it when it is back, and what cannot be audited is not done.

use std::time::Duration;

use alicia_contract::ServiceName;
use alicia_contract::fleet::StopSignal;
use alicia_contract::orchestrator::{FleetAnswer, FleetStatus, Verb};
use alicia_failpoint::failpoint;
use alicia_keeper::protocol::{FailureCode, Target};
use alicia_module::{ApiError, Context};
use alicia_store::audit::Outcome;
use axum::http::StatusCode;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::core::plan::{Plan, PlanRequest, Refusal, Selection};
use crate::engine::{Ended, Handle, Input};
use crate::store::{self, Action};

/// The longest reason that somebody may give, in characters: a sentence or two.
pub(crate) const REASON_CHARS_MAX: usize = 500;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be done.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be written down.
    #[error("write the command down")]
    Store(#[from] alicia_store::Error),
    /// The engine has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// There is no keeper, so that nothing can be signalled.
    #[error("signal {0}: the keeper is away")]
    NoKeeper(ServiceName),
    /// No such instance runs.
    #[error("signal {service}: {detail}")]
    NotRunning {
        /// The service.
        service: ServiceName,
        /// What was found.
        detail: String,
    },
    /// The keeper refused.
    #[error("signal {service}")]
    Keeper {
        /// The service.
        service: ServiceName,
        /// Why.
        #[source]
        source: alicia_keeper::Error,
    },
    /// The reason is too long.
    #[error("take the reason: it has {0} characters, {REASON_CHARS_MAX} are the most")]
    LongReason(usize),
}

/// A command as it is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) verb: Verb,
    /// Services and groups; none: the whole fleet.
    pub(crate) names: Vec<ServiceName>,
    pub(crate) instances: Option<u32>,
    pub(crate) reason: Option<String>,
    /// Who asks, as identities are written.
    pub(crate) actor: String,
}

/// A signal as it is asked for.
#[derive(Debug, Clone)]
pub(crate) struct AskedSignal {
    pub(crate) service: ServiceName,
    /// All slots, unless given.
    pub(crate) slot: Option<u32>,
    pub(crate) signal: StopSignal,
    pub(crate) actor: String,
}

/// Takes commands. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Commander {
    cx: Context,
    handle: Handle,
    selection: watch::Receiver<Selection>,
}

// === impl Commander ===

impl Commander {
    pub(crate) fn new(cx: Context, handle: Handle, selection: watch::Receiver<Selection>) -> Self {
        Self {
            cx,
            handle,
            selection,
        }
    }

    /// Does it. On return it is written down and under way.
    pub(crate) async fn submit(&self, asked: Asked) -> Result<FleetAnswer, Error> {
        let Asked {
            verb,
            names,
            instances,
            reason,
            actor,
        } = asked;
        check_reason(reason.as_deref())?;
        let fleet = self.cx.fleet.borrow().clone();
        let request = PlanRequest {
            names: &names,
            instances,
        };
        let selection = self.selection.borrow().clone();
        let plan = Plan::new(&fleet, &selection, verb, &request)?;
        let overrides = plan.overrides(&fleet);
        let detail = json!({ "services": plan.services, "instances": instances, "reason": reason });
        let mut action = self.action(&actor, verb.as_str(), &names, detail);
        action.about = plan.services.iter().chain(&plan.needed).cloned().collect();
        action.reason.clone_from(&reason);
        failpoint("orchestrator/command");
        store::write_command(&self.cx.store, action, overrides).await?;
        failpoint("orchestrator/commanded");
        let because = reason
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        let reason = format!("{} by {actor}{because}", verb.as_str());
        let answer = self.handle.ask(|reply| Input::Command {
            plan,
            reason,
            reply,
        });
        Ok(answer.await?)
    }

    /// Waits until the services have come to rest; none when that takes longer.
    pub(crate) async fn settled(
        &self,
        services: Vec<ServiceName>,
        patience: Duration,
    ) -> Result<Option<Arc<FleetStatus>>, Error> {
        let settled = self.handle.ask(|reply| Input::Settle(services, reply));
        match timeout(patience, settled).await {
            Ok(status) => Ok(Some(status?)),
            Err(_) => Ok(None),
        }
    }

    /// Sends a signal to the whole process trees of a service.
    pub(crate) async fn signal(&self, asked: AskedSignal) -> Result<Vec<String>, Error> {
        let AskedSignal {
            service,
            slot,
            signal,
            actor,
        } = asked;
        if !self.cx.fleet.borrow().services.contains_key(&service) {
            let request = PlanRequest {
                names: std::slice::from_ref(&service),
                instances: None,
            };
            let fleet = self.cx.fleet.borrow().clone();
            Plan::new(&fleet, &Selection::default(), Verb::Stop, &request)?;
        }
        let status = self.handle.ask(Input::Status).await?;
        let running = status
            .services
            .iter()
            .filter(|found| found.service == service)
            .flat_map(|found| &found.instances)
            .filter(|found| found.pid.is_some() && slot.is_none_or(|slot| slot == found.slot));
        let running: Vec<_> = running
            .filter_map(|found| Some((found.slot, found.instance.clone()?)))
            .collect();
        if running.is_empty() {
            let detail = match slot {
                Some(slot) => format!("instance {slot} does not run"),
                None => "it does not run".to_owned(),
            };
            return Err(Error::NotRunning { service, detail });
        }
        let detail = json!({ "signal": signal, "slot": slot });
        let action = self.action(&actor, "signal", std::slice::from_ref(&service), detail);
        store::write_command(&self.cx.store, action, Default::default()).await?;
        let Some(keeper) = self.handle.keeper.borrow().clone() else {
            return Err(Error::NoKeeper(service));
        };
        // All at once: the keeper answers each when it has walked through its tree.
        let sent = running
            .iter()
            .map(|(_, instance)| keeper.signal(instance.as_str(), signal.number(), Target::Tree));
        let sent = futures_util::future::join_all(sent).await;
        let mut signalled = Vec::new();
        for ((slot, _), sent) in running.iter().zip(sent) {
            match sent {
                Ok(()) => signalled.push(format!("{service}-{slot}")),
                // It ended meanwhile.
                Err(error)
                    if error
                        .failure()
                        .is_some_and(|failure| failure.code == FailureCode::InstanceUnknown) => {}
                Err(source) => return Err(Error::Keeper { service, source }),
            }
        }
        Ok(signalled)
    }

    fn action(
        &self,
        actor: &str,
        verb: &str,
        names: &[ServiceName],
        detail: serde_json::Value,
    ) -> Action {
        let target = match names {
            [] => "fleet".to_owned(),
            names => {
                let names: Vec<&str> = names.iter().map(ServiceName::as_str).collect();
                format!("service:{}", names.join(","))
            }
        };
        Action {
            time_unix_us: self.cx.clock.unix_us(),
            actor: actor.to_owned(),
            action: format!("orchestrator.{verb}"),
            target,
            outcome: Outcome::Done,
            detail,
            about: names.to_vec(),
            reason: None,
        }
    }
}

fn check_reason(reason: Option<&str>) -> Result<(), Error> {
    let chars = reason.map_or(0, |reason| reason.chars().count());
    if chars > REASON_CHARS_MAX {
        return Err(Error::LongReason(chars));
    }
    Ok(())
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        const NAME: &str = "orchestrator";
        let refuse = |status, code: &str, title, error: &Error| {
            Self::new(status, code, title, format!("failed to {error}"))
        };
        match &error {
            Error::Refused(Refusal::UnknownService { .. }) => refuse(
                StatusCode::NOT_FOUND,
                "orchestrator.unknown_service",
                "No such service or group",
                &error,
            ),
            Error::Refused(Refusal::FixedPort { .. }) => refuse(
                StatusCode::CONFLICT,
                "orchestrator.fixed_port",
                "A port cannot be shared",
                &error,
            ),
            Error::Refused(_) => refuse(
                StatusCode::UNPROCESSABLE_ENTITY,
                "orchestrator.invalid_scale",
                "Not a number of instances",
                &error,
            ),
            Error::LongReason(_) => refuse(
                StatusCode::UNPROCESSABLE_ENTITY,
                "orchestrator.long_reason",
                "Too long a reason",
                &error,
            ),
            Error::NotRunning { .. } => refuse(
                StatusCode::CONFLICT,
                "orchestrator.not_running",
                "It does not run",
                &error,
            ),
            Error::NoKeeper(_) | Error::Ended(_) => {
                Self::unavailable(NAME, format!("failed to {error}"))
            }
            Error::Store(_) | Error::Keeper { .. } => Self::internal(NAME, &error),
        }
    }
}
