//! What becomes of a deployment: the engine tells, and it is written down, published and told to everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use alicia_contract::ServiceName;
use alicia_contract::deployment::{DEPLOYMENTS, Deployment, DeploymentState, ServiceOutcome};
use alicia_contract::fleet::Fleet;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Deployer, action};
use crate::core::event::SlotId;
use crate::engine::record::{LAST_LINES, last_lines_of};
use crate::store::deployments::{self, Row};

/// What the engine tells of a deployment.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// Where one service is. An update that is taken back or has failed comes with the slot that did not work.
    Service {
        number: u64,
        service: ServiceName,
        state: DeploymentState,
        detail: String,
        failed: Option<u32>,
    },
    /// Services went back: this is in force now.
    InForce { number: u64, fleet: Arc<Fleet> },
    /// Every service has come to rest.
    AtRest {
        number: u64,
        /// Those that have given up, each with the reason and its slot.
        failed: BTreeMap<ServiceName, (String, u32)>,
    },
}

/// Follows what the engine tells until it ends.
pub(crate) async fn follow(deployer: Deployer, mut told: mpsc::Receiver<Told>) {
    deployer.announce().await;
    deployer.look_at_file().await;
    while let Some(told) = told.recv().await {
        deployer.take(told).await;
    }
}

impl Deployer {
    async fn take(&self, told: Told) {
        let mut newest = self.newest.lock().await;
        let about = match &told {
            Told::Service { number, .. }
            | Told::InForce { number, .. }
            | Told::AtRest { number, .. } => *number,
        };
        // A newer one has come: what is told is about services that it has taken over.
        if newest.deployment.number != about {
            return;
        }
        match told {
            Told::Service {
                service,
                state,
                detail,
                failed,
                ..
            } => {
                let last_lines = match failed {
                    Some(slot) => self.lines(&service, slot).await,
                    None => Vec::new(),
                };
                note(&mut newest.deployment, service, state, detail, last_lines);
            }
            Told::InForce { fleet, .. } => {
                newest.effective = fleet.clone();
                if let Err(error) = self.cx.desk.put(fleet).await {
                    tracing::warn!(%error, "the other modules were not told what is in force");
                }
            }
            Told::AtRest { failed, .. } => {
                for (service, (why, slot)) in failed {
                    let lines = self.lines(&service, slot).await;
                    note(
                        &mut newest.deployment,
                        service,
                        DeploymentState::Failed,
                        why,
                        lines,
                    );
                }
                end(&mut newest, self.cx.clock.unix());
            }
        }
        self.write(&newest).await;
        self.publish(&newest.deployment);
        drop(newest);
        self.announce().await;
        self.look_at_file().await;
    }

    async fn lines(&self, service: &ServiceName, slot: u32) -> Vec<String> {
        let paths = self.cx.paths.clone();
        let slot = SlotId {
            service: service.clone(),
            slot,
        };
        let read = tokio::task::spawn_blocking(move || last_lines_of(&paths, &slot, LAST_LINES));
        read.await.unwrap_or_default()
    }

    async fn write(&self, row: &Row) {
        let over = row.deployment.state != DeploymentState::UnderWay;
        let audited = over.then(|| {
            let detail = json!({
                "number": row.deployment.number,
                "state": row.deployment.state,
                "detail": row.deployment.detail,
            });
            action(&self.cx, &row.deployment, "deployed", detail)
        });
        if let Err(error) = deployments::update(&self.cx.store, row.clone(), audited).await {
            tracing::error!(%error, "what became of a deployment was not written down");
        }
    }

    /// Tells the bus; who was not there reads it over REST.
    async fn announce(&self) {
        let newest = self.newest();
        if let Err(error) = self.cx.bus.publish(DEPLOYMENTS, &[], &newest).await {
            tracing::debug!(%error, "a step of a deployment was not published");
        }
    }
}

fn note(
    deployment: &mut Deployment,
    service: ServiceName,
    state: DeploymentState,
    detail: String,
    last_lines: Vec<String>,
) {
    let before = deployment.services.remove(&service);
    let kept = before.map(|before| before.last_lines).unwrap_or_default();
    let last_lines = match last_lines.is_empty() {
        true => kept,
        false => last_lines,
    };
    let outcome = ServiceOutcome {
        state,
        detail,
        last_lines,
    };
    deployment.services.insert(service, outcome);
}

/// Sums the services up.
fn end(row: &mut Row, at: f64) {
    let deployment = &mut row.deployment;
    for outcome in deployment.services.values_mut() {
        if outcome.state == DeploymentState::UnderWay {
            outcome.state = DeploymentState::Done;
        }
    }
    let of = |state: DeploymentState| -> Vec<String> {
        let services = deployment.services.iter();
        services
            .filter(|(_, outcome)| outcome.state == state)
            .map(|(name, outcome)| format!("{name}: {}", outcome.detail))
            .collect()
    };
    let (failed, reverted) = (of(DeploymentState::Failed), of(DeploymentState::Reverted));
    (deployment.state, deployment.detail) = match (failed.is_empty(), reverted.is_empty()) {
        (false, _) => (
            DeploymentState::Failed,
            [failed, reverted].concat().join("; "),
        ),
        (true, false) => (DeploymentState::Reverted, reverted.join("; ")),
        (true, true) => (
            DeploymentState::Done,
            "every service has come to rest".to_owned(),
        ),
    };
    deployment.ended = Some(at);
    row.base = None;
}
