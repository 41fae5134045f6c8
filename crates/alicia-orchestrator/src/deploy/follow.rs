//! What becomes of a deployment: the engine tells, and it is written down and told to everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use alicia_contract::ServiceName;
use alicia_contract::deployment::{Deployment, DeploymentState, ServiceOutcome};
use alicia_contract::fleet::Fleet;
use alicia_module::Paths;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Deployer, action};
use crate::core::event::SlotId;
use crate::engine::record::last_lines_of;
use crate::store::deployments::{self, Row};

/// Messages that are taken together: each writes the whole deployment, and a thousand services tell thousands.
const TOGETHER_MAX: usize = 1_024;

/// What the engine tells of a deployment.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// Where one service is. An update that is taken back or has failed comes with the slot that did not work.
    Service {
        number: u64,
        service: ServiceName,
        state: DeploymentState,
        detail: String,
        failed: Option<Ill>,
    },
    /// Services went back: this is in force now.
    InForce { number: u64, fleet: Arc<Fleet> },
    /// Every service has come to rest.
    AtRest {
        number: u64,
        /// Those that have given up, each with the reason and its slot.
        failed: BTreeMap<ServiceName, (String, Ill)>,
    },
}

/// A slot that does not work.
#[derive(Debug, Clone)]
pub(crate) struct Ill {
    pub(crate) slot: SlotId,
    /// When what was last tried in it began, in microseconds since 1970; none: it never had a process.
    pub(crate) began_unix_us: Option<u64>,
    /// When it was found out, in microseconds since 1970: what is newer in its log is said by the one that goes back.
    pub(crate) until_unix_us: u64,
}

impl Ill {
    /// What it said last, the oldest first.
    fn last_lines(&self, paths: &Paths) -> Vec<String> {
        let times = (self.began_unix_us, self.until_unix_us);
        last_lines_of(paths, &self.slot, times)
    }
}

impl Told {
    /// Of which deployment it is told.
    fn number(&self) -> u64 {
        match self {
            Self::Service { number, .. }
            | Self::InForce { number, .. }
            | Self::AtRest { number, .. } => *number,
        }
    }
}

/// Follows what the engine tells until it ends.
pub(crate) async fn follow(deployer: Deployer, mut told: mpsc::Receiver<Told>) {
    deployer.look_at_file().await;
    let mut together = Vec::new();
    while told.recv_many(&mut together, TOGETHER_MAX).await > 0 {
        deployer.take(std::mem::take(&mut together)).await;
    }
}

impl Deployer {
    async fn take(&self, together: Vec<Told>) {
        let mut newest = self.newest.lock().await;
        let number = newest.deployment.number;
        // A newer one may have come: then what is told is about services that it has taken over.
        let current: Vec<Told> = together
            .into_iter()
            .filter(|told| told.number() == number)
            .collect();
        if current.is_empty() {
            return;
        }
        let is_only_progress = current
            .iter()
            .all(|told| matches!(told, Told::Service { .. }));
        for told in current {
            self.take_one(&mut newest, told).await;
        }
        self.write(&newest).await;
        self.publish(&newest.deployment);
        drop(newest);
        if !is_only_progress {
            self.look_at_file().await;
        }
    }

    async fn take_one(&self, newest: &mut Row, told: Told) {
        match told {
            Told::Service {
                service,
                state,
                detail,
                failed,
                ..
            } => {
                let last_lines = match failed {
                    Some(ill) => self.lines(ill).await,
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
                for (service, (why, ill)) in failed {
                    let lines = self.lines(ill).await;
                    note(
                        &mut newest.deployment,
                        service,
                        DeploymentState::Failed,
                        why,
                        lines,
                    );
                }
                end(newest, self.cx.clock.unix());
            }
        }
    }

    async fn lines(&self, ill: Ill) -> Vec<String> {
        let paths = self.cx.paths.clone();
        let read = tokio::task::spawn_blocking(move || ill.last_lines(&paths));
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

/// Sums the services up. One of which nobody told the end has come to rest: on the new settings, or on the old ones
/// where it turned back and the host died on the way.
fn end(row: &mut Row, at: f64) {
    let (accepted, effective) = (&row.fleet.services, &row.effective.services);
    let deployment = &mut row.deployment;
    for (name, outcome) in &mut deployment.services {
        if outcome.state == DeploymentState::UnderWay {
            outcome.state = match accepted.get(name) == effective.get(name) {
                true => DeploymentState::Done,
                false => DeploymentState::Reverted,
            };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::launch::log_path;

    #[test]
    fn the_last_lines_of_one_that_is_taken_back_are_not_those_of_the_one_that_goes_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(directory.path(), directory.path());
        let slot = SlotId {
            service: ServiceName::new("api").expect("a name"),
            slot: 1,
        };
        let log = log_path(&paths, &slot.service, slot.slot);
        std::fs::create_dir_all(log.parent().expect("a folder")).expect("it can be made");
        let line = |second: u32, text: String| {
            format!("1970-01-01T00:00:{second:02}.000000Z stdout F {text}\n")
        };
        let before = line(10, "all is well".to_owned());
        let bad = line(21, "a slip".to_owned());
        let good = (1..=12).map(|n| line(31, format!("step {n}")));
        let text = [before, bad].into_iter().chain(good).collect::<String>();
        std::fs::write(&log, text).expect("it can be written");
        let ill = Ill {
            slot,
            began_unix_us: Some(20_000_000),
            until_unix_us: 30_000_000,
        };
        assert_eq!(ill.last_lines(&paths), ["a slip"]);
        let silent = Ill {
            began_unix_us: Some(25_000_000),
            ..ill.clone()
        };
        assert_eq!(silent.last_lines(&paths), [""; 0]);
        let never_ran = Ill {
            began_unix_us: None,
            ..ill
        };
        assert_eq!(never_ran.last_lines(&paths), [""; 0]);
    }

    fn fleet(version: u32) -> Arc<Fleet> {
        let fleet = json!({ "name": "home", "services": {
            "api": { "command": format!("api --version={version}") },
            "db": { "command": "db" },
        }});
        Arc::new(serde_json::from_value(fleet).expect("a fleet"))
    }

    fn row(accepted: u32, effective: u32) -> Row {
        let under_way = ServiceOutcome {
            state: DeploymentState::UnderWay,
            detail: "it goes back: exit code 1".to_owned(),
            last_lines: Vec::new(),
        };
        let api = ServiceName::new("api").expect("a name");
        let mut row = Row::under_way(fleet(accepted), BTreeMap::from([(api, under_way)]));
        row.deployment.number = 7;
        row.effective = fleet(effective);
        row.base = Some(fleet(1));
        row
    }

    #[test]
    fn what_turned_back_while_a_host_died_is_told_as_reverted_and_not_as_done() {
        let mut turned_back = row(2, 1);
        end(&mut turned_back, 9.0);
        let told = &turned_back.deployment;
        assert_eq!(told.state, DeploymentState::Reverted);
        assert_eq!(told.detail, "api: it goes back: exit code 1");
        let mut well = row(2, 2);
        end(&mut well, 9.0);
        assert_eq!(well.deployment.state, DeploymentState::Done);
        assert_eq!(well.deployment.ended, Some(9.0));
    }
}
