//! Why an instance is where it is: the chain of causes, told as a story.
//!
//! The story is made of what is known now (the status) and of what was written down (the history): it is as
//! true after a crash of the host as before. Making it is pure; only [`Explainer`] reads.

mod story;

use std::collections::BTreeMap;

use alicia_contract::ServiceName;
use alicia_contract::fleet::Fleet;
use alicia_contract::orchestrator::{
    EXPLAIN_DEPTH_MAX, ExplainRequest, Explanation, FleetStatus, InstanceState, ServiceStatus,
};
use alicia_module::{ApiError, Context};
use axum::http::StatusCode;

use crate::core::plan::{Plan, closure};
use crate::core::plan::{PlanRequest, Selection};
use crate::engine::{Handle, Input};
use crate::history::{self, Past};
use alicia_contract::orchestrator::Verb;

const NAME: &str = "orchestrator";

/// Explains. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Explainer {
    cx: Context,
    handle: Handle,
}

impl Explainer {
    pub(crate) fn new(cx: Context, handle: Handle) -> Self {
        Self { cx, handle }
    }

    /// Why the instances of a service are where they are.
    pub(crate) async fn explain(&self, asked: &ExplainRequest) -> Result<Explanation, ApiError> {
        let status = self
            .handle
            .ask(Input::Status)
            .await
            .map_err(|error| ApiError::unavailable(NAME, format!("failed to {error}")))?;
        let fleet = self.cx.fleet.borrow().clone();
        let services = &status.services;
        let service = services
            .iter()
            .find(|service| service.service == asked.service);
        let Some(service) = service else {
            return Err(unknown(&fleet, &asked.service));
        };
        if let Some(slot) = asked.slot
            && !service
                .instances
                .iter()
                .any(|instance| instance.slot == slot)
        {
            let slots: Vec<String> = service
                .instances
                .iter()
                .map(|instance| format!("{}-{}", asked.service, instance.slot))
                .collect();
            let there = if slots.is_empty() {
                "it has none".to_owned()
            } else {
                format!("there is {}", slots.join(", "))
            };
            return Err(ApiError::new(
                StatusCode::NOT_FOUND,
                "orchestrator.unknown_slot",
                "No such instance",
                format!("there is no instance {}-{slot}; {there}", asked.service),
            ));
        }
        let needed = closure(&fleet, &[asked.service.clone()].into());
        let mut names: Vec<ServiceName> = needed.into_iter().collect();
        if !names.contains(&asked.service) {
            names.push(asked.service.clone());
        }
        let pasts = history::read(&self.cx.store, names)
            .await
            .map_err(|error| ApiError::internal(NAME, &error))?;
        let known = Known {
            status: &status,
            pasts: &pasts,
        };
        Ok(known.explanation(service, asked.slot, EXPLAIN_DEPTH_MAX))
    }
}

/// A name that does not exist, with the nearest that does.
pub(crate) fn unknown(fleet: &Fleet, name: &ServiceName) -> ApiError {
    let request = PlanRequest {
        names: std::slice::from_ref(name),
        ..PlanRequest::default()
    };
    match Plan::new(fleet, &Selection::default(), Verb::Stop, &request) {
        Err(refusal) => crate::command::Error::from(refusal).into(),
        Ok(_) => ApiError::new(
            StatusCode::NOT_FOUND,
            "orchestrator.unknown_service",
            "No such service or group",
            format!("`{name}` is a group; name one of its services"),
        ),
    }
}

/// Whether an instance of a service says that it waits for this one.
fn says_it_waits_for(service: &ServiceStatus, name: &ServiceName) -> bool {
    let words = format!("waits for {name} to be ");
    service
        .instances
        .iter()
        .any(|instance| instance.reason.starts_with(&words))
}

/// Everything that a story is made of.
struct Known<'k> {
    status: &'k FleetStatus,
    pasts: &'k BTreeMap<ServiceName, Past>,
}

impl Known<'_> {
    fn explanation(&self, service: &ServiceStatus, slot: Option<u32>, depth: usize) -> Explanation {
        let nothing = Past::default();
        let past = self.pasts.get(&service.service).unwrap_or(&nothing);
        let slots: Vec<_> = service
            .instances
            .iter()
            .filter(|instance| slot.is_none_or(|slot| slot == instance.slot))
            .map(|instance| story::of_slot(service, instance, past, self.status.at))
            .collect();
        let waits = service.instances.iter().any(|instance| {
            slot.is_none_or(|slot| slot == instance.slot)
                && instance.state == InstanceState::Waiting
        });
        let held_back_by = if waits && depth > 0 {
            self.held_back_by(service, depth - 1)
        } else {
            Vec::new()
        };
        Explanation {
            service: service.service.clone(),
            summary: story::of_service(service, &slots, &held_back_by),
            at: self.status.at,
            slots,
            held_back_by,
        }
    }

    /// The dependencies that are not as they must be.
    fn held_back_by(&self, service: &ServiceStatus, depth: usize) -> Vec<Explanation> {
        let unmet = service.depends_on.iter().filter_map(|(name, condition)| {
            let needed = self
                .status
                .services
                .iter()
                .find(|status| status.service == *name)?;
            // One that sleeps until somebody connects holds nobody back.
            let is_told = needed.wanted > 0 || says_it_waits_for(service, name);
            (is_told && !story::meets(needed, *condition)).then_some(needed)
        });
        unmet
            .map(|needed| self.explanation(needed, None, depth))
            .collect()
    }
}
