//! Measures what services with `scaling` do, and has the core change the number of their instances. Values come from
//! the sampler of resources and from heartbeats on the bus.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_bus::Incoming;
use alicia_contract::fleet::ScalingSpec;
use alicia_contract::health::{HEARTBEAT, Heartbeat};
use alicia_contract::orchestrator::{FleetStatus, InstanceState, Verb};
use alicia_contract::{InstanceId, ServiceName};
use alicia_module::Context;
use alicia_store::audit::Outcome;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Engine, Handle, Input};
use crate::core::scaling::{Decision, Sample, Scaler};
use crate::store::{self, Action};

/// How often it is decided.
const DECIDE_EVERY: Duration = Duration::from_secs(1);

/// A heartbeat that is older says nothing about now: three of the usual ones were missed.
const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(45);

/// Heartbeats that are kept: one of each instance of a large fleet.
const HEARTBEATS_MAX: usize = 10_000;

/// A service whose number of instances follows its load.
#[derive(Debug, Clone)]
pub(crate) struct Scaled {
    pub(crate) service: ServiceName,
    pub(crate) spec: ScalingSpec,
    pub(crate) wanted: u32,
    pub(crate) names: Vec<String>,
}

/// What an instance said last.
struct Beat {
    at: Instant,
    service: ServiceName,
    values: BTreeMap<String, f64>,
}

impl Engine {
    /// The services that may be scaled now: not those of which a person holds the number, or that are updated.
    pub(super) fn scaled(&self) -> Vec<Scaled> {
        let fleet = self.core.fleet();
        let services = fleet.services.iter();
        services
            .filter_map(|(name, spec)| {
                let scaling = spec.scaling.clone()?;
                let (wanted, by_hand) = self.core.wanted_of(name)?;
                let names = scaling.per_instance.keys().chain(scaling.average.keys());
                let names = names.cloned().collect();
                (!by_hand && !self.core.is_updating(name)).then(|| Scaled {
                    service: name.clone(),
                    names,
                    spec: scaling,
                    wanted,
                })
            })
            .collect()
    }
}

/// Decides once a second, as long as any service is scaled.
pub(crate) async fn run(cx: Context, handle: Handle) {
    let mut scalers: BTreeMap<ServiceName, Scaler> = BTreeMap::new();
    let mut beats: BTreeMap<InstanceId, Beat> = BTreeMap::new();
    let mut heartbeats = None;
    let mut published = handle.published.clone();
    let origin = cx.clock.now();
    let mut ticks = interval(DECIDE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let Ok(scaled) = handle.ask(Input::Scalable).await else {
            return;
        };
        if scaled.is_empty() {
            scalers.clear();
            if published.changed().await.is_err() {
                return;
            }
            continue;
        }
        if heartbeats.is_none() && scaled.iter().any(|one| !one.names.is_empty()) {
            heartbeats = match cx.bus.events(HEARTBEAT).await {
                Ok(heard) => Some(heard),
                Err(error) => {
                    tracing::warn!(%error, "scaling does not hear heartbeats");
                    None
                }
            };
        }
        scalers.retain(|name, _| scaled.iter().any(|one| one.service == *name));
        beats.retain(|_, beat| cx.clock.now() - beat.at <= HEARTBEAT_AGE_MAX);
        let status = handle.published.borrow().clone();
        for one in &scaled {
            let sample = sample(one, &status, &beats);
            let scaler = scalers.entry(one.service.clone()).or_default();
            let now = cx.clock.now() - origin;
            if let Some(decision) = scaler.decide(&one.spec, one.wanted, &sample, now) {
                carry_out(&cx, &handle, one, decision).await;
            }
        }
        // Until the next tick, heartbeats are heard.
        loop {
            let next = async {
                match &mut heartbeats {
                    Some(heard) => heard.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = ticks.tick() => break,
                incoming = next => match incoming {
                    Some(Incoming::Message(message)) => {
                        let topic = message.values.first().map(String::as_str);
                        // What one says of another is not believed.
                        if topic == Some(message.payload.service.as_str()) {
                            note(&mut beats, message.payload, cx.clock.now());
                        }
                    }
                    Some(_) => {}
                    None => heartbeats = None,
                },
            }
        }
    }
}

fn note(beats: &mut BTreeMap<InstanceId, Beat>, heartbeat: Heartbeat, at: Instant) {
    let Some(instance) = heartbeat.instance else {
        return;
    };
    if beats.len() >= HEARTBEATS_MAX && !beats.contains_key(&instance) {
        return;
    }
    let mut values = heartbeat.counters;
    values.extend(heartbeat.resources);
    let beat = Beat {
        at,
        service: heartbeat.service,
        values,
    };
    beats.insert(instance, beat);
}

/// What the instances that serve have, in all.
fn sample(one: &Scaled, status: &FleetStatus, beats: &BTreeMap<InstanceId, Beat>) -> Sample {
    let service = status
        .services
        .iter()
        .find(|found| found.service == one.service);
    let serving: Vec<_> = service
        .into_iter()
        .flat_map(|service| &service.instances)
        .filter(|instance| instance.state == InstanceState::Running)
        .collect();
    let known: Vec<f64> = serving.iter().filter_map(|instance| instance.cpu).collect();
    let cpu = (!known.is_empty() && known.len() == serving.len()).then(|| known.iter().sum());
    let of = |name: &String| {
        let told: Vec<f64> = serving
            .iter()
            .filter_map(|instance| beats.get(instance.instance.as_ref()?))
            .filter(|beat| beat.service == one.service)
            .filter_map(|beat| beat.values.get(name).copied())
            .collect();
        let count = u32::try_from(told.len()).unwrap_or(u32::MAX);
        (count > 0).then(|| (name.clone(), (told.iter().sum::<f64>(), count)))
    };
    Sample {
        cpu,
        values: one.names.iter().filter_map(of).collect(),
    }
}

/// Written down first, as a command of a person is.
async fn carry_out(cx: &Context, handle: &Handle, one: &Scaled, decision: Decision) {
    let Decision { instances, reason } = decision;
    tracing::info!(service = %one.service, from = one.wanted, to = instances, reason, "scaled by its load");
    let action = Action {
        time_unix_us: cx.clock.unix_us(),
        actor: "system/orchestrator".to_owned(),
        action: format!("orchestrator.{}", Verb::Scale.as_str()),
        target: format!("service:{}", one.service),
        outcome: Outcome::Done,
        detail: json!({ "from": one.wanted, "instances": instances, "reason": reason }),
        about: vec![one.service.clone()],
        reason: Some(format!(
            "scaled from {} to {instances}: {reason}",
            one.wanted
        )),
    };
    if let Err(error) = store::write_command(&cx.store, action, BTreeMap::new()).await {
        tracing::error!(%error, "a service is not scaled: the decision cannot be written down");
        return;
    }
    let input = Input::Scaled(one.service.clone(), instances);
    if let Err(error) = handle.send(input).await {
        tracing::debug!(%error, "a service is not scaled");
    }
}
