//! Calls by capability: chooses one instance that fits and is well, asks it on its own command topic, checks
//! what goes in and what comes out.
//!
//! ```text
//!   call ──input fits──▶ chosen ──asked──▶ answered ──output fits──▶ done
//!     ▲                    │  └─ nobody listens, stopping, busy: it had not begun ─▶ the next one
//!     └── retry allowed ───┴──── its process ended without an answer
//! ```
//!
//! A second instance is asked only when the first is known not to have begun, or the caller allows it.

mod target;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use alicia_bus::{Bus, CallError};
use alicia_contract::Problem;
use alicia_contract::discovery::{
    CALL_TIMEOUT_DEFAULT, CALL_TIMEOUT_MAX, CapabilityAnswer, CapabilityCall, Resolution, Verdict,
    Wanted,
};
use alicia_contract::id::InstanceId;
use alicia_contract::orchestrator::ServiceCommand;
use alicia_contract::problem::InputFault;
use alicia_identity::{Authority, Identity};
use alicia_module::Clock;
use alicia_schema::Checked;
use serde_json::{Map, Value};
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout};

use crate::actor::Shared;
use crate::core::Offer;
use crate::error::problem;
use crate::resolve::{Query, admit};
pub(crate) use target::{Callers, identity_of};

/// Instances that are asked for one call.
const ATTEMPTS_MAX: u32 = 5;

/// Candidates whose reasons are looked at to say why nobody was chosen.
const EXPLAINED: u32 = 20;

/// An answer that was on its way when the process ended still counts for so long.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// The codes with which an instance says that it did not begin.
const NOT_BEGUN: [&str; 2] = ["service.stopping", "service.busy"];

/// What calls need.
#[derive(Clone)]
pub(crate) struct Router {
    pub(crate) shared: Arc<Shared>,
    pub(crate) bus: Bus,
    pub(crate) identity: Authority,
    pub(crate) clock: Clock,
}

/// One instance that was chosen, and how to ask it.
struct Chosen {
    answer: CapabilityAnswer,
    topic: String,
    output: Option<Arc<Checked>>,
}

/// How one attempt ended without an answer.
enum Miss {
    /// It did not begin: somebody else may.
    NotBegun(Problem),
    /// Its process ended; whether it had finished is not known.
    Ended(Problem),
    /// What is not to be tried again.
    Final(Problem),
}

/// Counts a call as load while it is under way, however it ends.
struct UnderWay<'s> {
    shared: &'s Shared,
    instance: InstanceId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.shared
            .change(|registry| registry.end_call(&self.instance));
    }
}

// === impl Router ===

impl Router {
    /// Has a capability carried out for somebody.
    ///
    /// # Errors
    /// Why it was not, as a problem document; see `docs/errors`.
    pub(crate) async fn call(
        &self,
        caller: &Identity,
        call: CapabilityCall,
    ) -> Result<CapabilityAnswer, Problem> {
        let allowed = call.timeout.unwrap_or(CALL_TIMEOUT_DEFAULT);
        if allowed.duration().is_zero() || allowed > CALL_TIMEOUT_MAX {
            let message =
                format!("found {allowed}, expected more than 0s and at most {CALL_TIMEOUT_MAX}");
            return Err(invalid(vec![InputFault {
                pointer: "/timeout".to_owned(),
                message,
            }]));
        }
        let begun = self.clock.now();
        let deadline = begun + allowed.duration();
        let query = query(&call).map_err(|problem| *problem)?;
        let mut tried = BTreeSet::new();
        let mut missed = None;
        for attempt in 1..=ATTEMPTS_MAX {
            let ended = self.shared.ended.subscribe();
            let chosen = match self.choose(caller, &query, &tried) {
                Ok(chosen) => chosen,
                Err(resolution) => {
                    return Err(missed.unwrap_or_else(|| nobody(&resolution)));
                }
            };
            let instance = chosen.answer.instance.clone();
            self.shared
                .change(|registry| registry.begin_call(&instance));
            let under_way = UnderWay {
                shared: &self.shared,
                instance: instance.clone(),
            };
            let asked = self.ask(&chosen, &call, deadline, ended).await;
            drop(under_way);
            let problem = match asked {
                Ok(output) => {
                    let took = self.clock.now().saturating_duration_since(begun);
                    return Ok(CapabilityAnswer {
                        output,
                        latency_ms: took.as_secs_f64() * 1e3,
                        attempts: attempt,
                        ..chosen.answer
                    });
                }
                Err(Miss::NotBegun(problem)) => problem,
                Err(Miss::Ended(problem)) if call.retry => problem,
                Err(Miss::Ended(problem) | Miss::Final(problem)) => return Err(problem),
            };
            tracing::debug!(%instance, code = problem.code, "another instance is asked");
            tried.insert(instance);
            missed = Some(problem);
        }
        Err(missed.unwrap_or_else(|| self.unavailable("no instance took the call")))
    }

    /// Chooses the best instance, or says what came of every candidate.
    fn choose(
        &self,
        caller: &Identity,
        query: &Query,
        tried: &BTreeSet<InstanceId>,
    ) -> Result<Chosen, Box<Resolution>> {
        let registry = self.shared.read();
        let callers = Callers::new(&registry, &self.identity, caller);
        let resolution = admit(&registry, query, &callers, tried);
        let Some(choice) = resolution.instances.first() else {
            return Err(Box::new(resolution));
        };
        let entry = registry.get(&choice.instance);
        let topic = entry.and_then(|entry| callers.topic(entry).ok());
        let Some(topic) = topic else {
            return Err(Box::new(resolution));
        };
        let offers = registry.offers(&query.wanted().capability);
        let place = registry.place(&choice.instance);
        let is_its_own = |offer: &&Offer| {
            place.is_some_and(|place| offer.members.contains(&(place, choice.instance.clone())))
        };
        // Two instances may say the same version and promise different things.
        let output = offers
            .into_iter()
            .find(is_its_own)
            .and_then(|offer| offer.output().cloned());
        let answer = CapabilityAnswer {
            service: choice.service.clone(),
            instance: choice.instance.clone(),
            version: choice.version.clone(),
            output: Value::Null,
            latency_ms: 0.0,
            attempts: 0,
        };
        Ok(Chosen {
            answer,
            topic,
            output,
        })
    }

    async fn ask(
        &self,
        chosen: &Chosen,
        call: &CapabilityCall,
        deadline: Instant,
        ended: broadcast::Receiver<InstanceId>,
    ) -> Result<Value, Miss> {
        let who = format!("{} {}", chosen.answer.service, chosen.answer.instance);
        let name = &call.capability;
        let command = ServiceCommand {
            command: name.to_string(),
            arguments: arguments(&call.input),
        };
        let left = deadline.saturating_duration_since(self.clock.now());
        if left.is_zero() {
            return Err(Miss::Final(too_late(&who, name.as_str())));
        }
        let asking = self.bus.call_at::<_, Value>(&chosen.topic, &command, left);
        let mut asking = std::pin::pin!(asking);
        let answer = tokio::select! {
            biased;
            answer = &mut asking => answer,
            () = end_of(ended, &chosen.answer.instance) => {
                match timeout(LAST_WORDS, &mut asking).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        let detail = format!("{who} ended while it carried out {name}; it is not known how far it came");
                        let title = "The instance ended";
                        return Err(Miss::Ended(problem(502, "registry.instance_ended", title, detail)));
                    }
                }
            }
        };
        match answer {
            Ok(output) => checked(chosen, output, &who, name.as_str())
                .map_err(|problem| Miss::Final(*problem)),
            Err(CallError::NobodyListens { .. }) => {
                let detail = format!("{who} does not listen on {}", chosen.topic);
                Err(Miss::NotBegun(self.unavailable(&detail)))
            }
            Err(CallError::Refused { problem, .. })
                if NOT_BEGUN.contains(&problem.code.as_str()) =>
            {
                Err(Miss::NotBegun(*problem))
            }
            Err(CallError::Refused { problem, .. }) => Err(Miss::Final(plausible(*problem))),
            Err(CallError::TimedOut { .. }) => Err(Miss::Final(too_late(&who, name.as_str()))),
            Err(CallError::Answer { reason, .. }) => {
                let detail = format!("the answer of {who} to {name} cannot be read: {reason}");
                let title = "The output does not fit";
                Err(Miss::Final(problem(
                    502,
                    "registry.output_mismatch",
                    title,
                    detail,
                )))
            }
            Err(error @ (CallError::TooManyCalls { .. } | CallError::Bus(_))) => {
                Err(Miss::Final(self.unavailable(&chain(&error))))
            }
        }
    }

    fn unavailable(&self, detail: &str) -> Problem {
        problem(
            503,
            "registry.unavailable",
            "Not available now",
            detail.to_owned(),
        )
    }
}

/// The question behind a call.
fn query(call: &CapabilityCall) -> Result<Query, Box<Problem>> {
    let wanted = Wanted {
        version: call.version.clone(),
        tags: call.tags.clone(),
        service: call.service.clone(),
        input: Some(arguments(&call.input)),
        limit: Some(1),
        explain: Some(EXPLAINED),
        ..Wanted::new(call.capability.clone())
    };
    Query::new(wanted).map_err(|faults| Box::new(invalid(faults)))
}

/// No input is as good as an empty object.
fn arguments(input: &Value) -> Value {
    match input {
        Value::Null => Value::Object(Map::new()),
        given => given.clone(),
    }
}

/// Waits until the process of an instance has ended.
async fn end_of(mut ended: broadcast::Receiver<InstanceId>, instance: &InstanceId) {
    loop {
        match ended.recv().await {
            Ok(one) if one == *instance => return,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            // The registry closes; the deadline ends the call.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn checked(chosen: &Chosen, output: Value, who: &str, name: &str) -> Result<Value, Box<Problem>> {
    let schema = chosen.output.as_ref();
    let faults = schema.map_or_else(Vec::new, |schema| schema.faults(&output, "/output"));
    let Some(first) = faults.first() else {
        return Ok(output);
    };
    let detail = format!(
        "what {who} answered to {name} does not fit its own schema: {}: {}",
        first.pointer, first.message
    );
    Err(Box::new(Problem {
        faults,
        ..problem(
            502,
            "registry.output_mismatch",
            "The output does not fit",
            detail,
        )
    }))
}

/// The problem of an instance, with a status that HTTP knows for problems.
fn plausible(mut problem: Problem) -> Problem {
    if !(400..=599).contains(&problem.status) {
        problem.status = 502;
    }
    problem
}

fn too_late(who: &str, name: &str) -> Problem {
    let detail = format!("{who} did not answer to {name} in time; it may still carry it out");
    problem(504, "registry.call_timed_out", "No answer in time", detail)
}

/// A call that cannot be made, with its faults.
pub(crate) fn invalid(faults: Vec<InputFault>) -> Problem {
    let first = faults.first();
    let detail = first.map_or_else(String::new, |first| {
        format!("`{}` cannot be used: {}", first.pointer, first.message)
    });
    Problem {
        faults,
        ..problem(422, "registry.invalid_query", "Invalid query", detail)
    }
}

/// Why nobody was chosen.
fn nobody(resolution: &Resolution) -> Problem {
    let has = |verdict: Verdict| resolution.verdicts.contains_key(&verdict);
    let others = |allowed: &[Verdict]| {
        let mut verdicts = resolution.verdicts.keys();
        verdicts.any(|verdict| !allowed.contains(verdict))
    };
    let detail = resolution.detail.clone();
    let apart = [Verdict::Service, Verdict::Version, Verdict::Tag];
    if resolution.verdicts.is_empty() || !others(&[Verdict::Service]) {
        return problem(
            404,
            "registry.unknown_capability",
            "No such capability",
            detail,
        );
    }
    if !others(&apart) {
        return problem(
            409,
            "registry.no_such_version",
            "No fitting version",
            detail,
        );
    }
    // The input is the caller's to mend, whoever else could not be chosen.
    if let Some(refused) = resolution
        .candidates
        .iter()
        .find(|candidate| candidate.verdict == Verdict::Input)
    {
        return Problem {
            faults: refused.faults.clone(),
            ..problem(
                422,
                "registry.input_mismatch",
                "The input does not fit",
                refused.reason.clone(),
            )
        };
    }
    if has(Verdict::NotAllowed) && !others(&[&apart[..], &[Verdict::NotAllowed]].concat()) {
        return problem(
            403,
            "registry.call_not_allowed",
            "May not be called",
            detail,
        );
    }
    problem(
        503,
        "registry.no_instance",
        "No instance can be chosen",
        detail,
    )
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = format!("failed to {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
