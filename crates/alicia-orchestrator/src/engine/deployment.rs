//! Follows a deployment until its services have come to rest, and tells what became of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::deployment::DeploymentState;
use alicia_contract::fleet::Fleet;
use alicia_contract::health::{HealthState, ServiceHealth};
use alicia_contract::orchestrator::InstanceState;
use alicia_contract::{InstanceId, ServiceName};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Engine, Handle, Input};
use crate::bus::Healths;
use crate::core::event::{Event, SlotId, UpdateEnd};
use crate::deploy::{Ill, Known, Told};

/// What waits to be told: a deployment of a thousand services tells at most a few things of each.
pub(crate) const TOLD_MAX: usize = 8_192;

/// How often it is looked whether everything has come to rest.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long services may take to come to rest without any update going on: a start that goes on for longer is told
/// as failed, though it may come up yet.
const PATIENCE: Duration = Duration::from_secs(600);

/// A deployment that is under way.
#[derive(Debug)]
pub(super) struct Rollout {
    number: u64,
    services: BTreeSet<ServiceName>,
    /// The progress of updates, as told last.
    told: BTreeMap<ServiceName, String>,
    /// When something was last seen to go on.
    since: Instant,
    looked: Option<Instant>,
}

/// What a deployment is about.
#[derive(Debug, Clone)]
pub(crate) struct Deploying {
    pub(crate) number: u64,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) services: Vec<ServiceName>,
}

impl Engine {
    pub(super) fn deploy(&mut self, deploying: Deploying) {
        let Deploying {
            number,
            fleet,
            services,
        } = deploying;
        self.begin_rollout(number, services);
        let selection = self.desired.1.clone();
        self.desired.0 = fleet.clone();
        self.tell(Event::Desired(fleet, selection));
    }

    pub(super) fn begin_rollout(&mut self, number: u64, services: Vec<ServiceName>) {
        self.rollout = Some(Rollout {
            number,
            services: services.into_iter().collect(),
            told: BTreeMap::new(),
            since: self.cx.clock.now(),
            looked: None,
        });
    }

    /// An update of one service is over, or turns back.
    pub(super) fn updated(
        &mut self,
        service: &ServiceName,
        end: UpdateEnd,
        failed: Option<(u32, Option<InstanceId>)>,
    ) {
        let (state, detail) = match end {
            UpdateEnd::Done => (DeploymentState::Done, "it is updated".to_owned()),
            UpdateEnd::Reverting(why) => {
                (DeploymentState::UnderWay, format!("it goes back: {why}"))
            }
            UpdateEnd::Reverted(why) => (DeploymentState::Reverted, why),
            UpdateEnd::Failed(why) => (DeploymentState::Failed, why),
            UpdateEnd::Stopped => (
                DeploymentState::Done,
                "it was stopped on the way; its next start has the new settings".to_owned(),
            ),
        };
        tracing::info!(%service, ?state, detail, "an update");
        self.counts.updated(state);
        let turned_back = state == DeploymentState::UnderWay;
        if turned_back {
            // What is in force follows, so that a file that says nothing new changes nothing.
            self.desired.0 = self.core.fleet().clone();
        }
        let Some(number) = self.rollout.as_ref().map(|rollout| rollout.number) else {
            return;
        };
        let failed = failed.map(|(slot, run)| self.ill(service, slot, run.as_ref()));
        self.say(Told::Service {
            number,
            service: service.clone(),
            state,
            detail,
            failed,
        });
        if turned_back {
            let fleet = self.core.fleet().clone();
            self.say(Told::InForce { number, fleet });
        }
    }

    /// Whether the deployment that is under way has come to its end.
    pub(super) fn look_at_rollout(&mut self) {
        let now = self.cx.clock.now();
        let Some(rollout) = &mut self.rollout else {
            return;
        };
        let is_due = rollout
            .looked
            .is_none_or(|looked| now - looked >= LOOK_INTERVAL);
        if !is_due || self.memory.is_some() || self.client.is_none() {
            return;
        }
        rollout.looked = Some(now);
        let number = rollout.number;
        let services: Vec<ServiceName> = rollout.services.iter().cloned().collect();
        let progress: BTreeMap<ServiceName, String> = services
            .iter()
            .filter(|name| self.core.is_updating(name))
            .filter_map(|name| Some((name.clone(), self.core.update_progress(name)?)))
            .collect();
        let news: Vec<(ServiceName, String)> = progress
            .iter()
            .filter(|(name, progress)| rollout.told.get(*name) != Some(*progress))
            .map(|(name, progress)| (name.clone(), progress.clone()))
            .collect();
        if !progress.is_empty() {
            rollout.since = now;
        }
        let too_long = now - rollout.since > PATIENCE;
        rollout.told = progress;
        for (service, detail) in news {
            self.say(Told::Service {
                number,
                service,
                state: DeploymentState::UnderWay,
                detail,
                failed: None,
            });
        }
        let at_rest = self.core.is_settled(&services, now - self.origin);
        if at_rest || too_long {
            self.end_rollout(number, &services, too_long && !at_rest);
        }
    }

    fn end_rollout(&mut self, number: u64, services: &[ServiceName], too_long: bool) {
        self.rollout = None;
        let status = self.core.status(self.cx.clock.unix());
        let mut failed = BTreeMap::new();
        let touched = status
            .services
            .iter()
            .filter(|status| services.contains(&status.service));
        for service in touched {
            let ill = service
                .instances
                .iter()
                .find(|instance| match instance.state {
                    InstanceState::Failed => true,
                    InstanceState::Running | InstanceState::Completed | InstanceState::Stopped => {
                        false
                    }
                    _ => too_long,
                });
            if let Some(ill) = ill {
                let why = match too_long {
                    true => format!(
                        "not at rest within {} s: {}",
                        PATIENCE.as_secs(),
                        ill.reason
                    ),
                    false => ill.reason.clone(),
                };
                let ill = self.ill(&service.service, ill.slot, ill.instance.as_ref());
                failed.insert(service.service.clone(), (why, ill));
            }
        }
        self.say(Told::AtRest { number, failed });
    }

    /// A slot that does not work, as it is found now, and when the run in it began.
    fn ill(&self, service: &ServiceName, slot: u32, run: Option<&InstanceId>) -> Ill {
        let slot = SlotId {
            service: service.clone(),
            slot,
        };
        Ill {
            began_unix_us: self.began.of(&slot, run),
            until_unix_us: u64::try_from(self.cx.clock.unix_us()).unwrap_or_default(),
            slot,
        }
    }

    /// When a deployment is to be looked at again.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let rollout = self.rollout.as_ref()?;
        let looked = rollout.looked.unwrap_or(rollout.since);
        Some(looked + LOOK_INTERVAL)
    }

    fn say(&self, told: Told) {
        if self.told.try_send(told).is_err() {
            tracing::error!("what became of a deployment is not told: too much waits");
        }
    }

    pub(super) fn known(&self) -> Known {
        self.core.known()
    }
}

/// Tells the core, while services are updated, what health says of their instances.
pub(crate) async fn watch_health(handle: Handle, mut healths: watch::Receiver<Healths>) {
    while healths.changed().await.is_ok() {
        let ill: Vec<(SlotId, f64, String)> =
            healths.borrow_and_update().values().flat_map(ill).collect();
        for (slot, since, why) in ill {
            if handle.send(Input::Ill(slot, since, why)).await.is_err() {
                return;
            }
        }
    }
}

/// The instances of a service that do not work, as far as a check is about one of them.
fn ill(health: &ServiceHealth) -> Vec<(SlotId, f64, String)> {
    let checks = health.checks.iter();
    let ill = checks.filter(|check| check.state == HealthState::Unhealthy);
    ill.filter_map(|check| {
        let slot = check
            .instance
            .as_ref()?
            .strip_prefix(health.service.as_str())?;
        let slot = SlotId {
            service: health.service.clone(),
            slot: slot.strip_prefix('-')?.parse().ok()?,
        };
        Some((
            slot,
            check.since,
            format!("{}: {}", check.name, check.detail),
        ))
    })
    .collect()
}

/// The queue of what is told.
pub(crate) fn queue() -> (mpsc::Sender<Told>, mpsc::Receiver<Told>) {
    mpsc::channel(TOLD_MAX)
}
