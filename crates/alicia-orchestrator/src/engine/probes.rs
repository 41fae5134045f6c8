//! Readiness and liveness: one task per probe, which speaks to the core only when its judgement changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::InstanceId;
use alicia_contract::fleet::{Probe, ProbeKind};
use alicia_keeper::logs::{Filter, Follow, From};
use alicia_probe::{Context, First, Target, Threshold, Ticker, attempt};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Input;
use crate::core::event::{Role, Verdict};
use crate::metrics::Counts;

/// The first pause of a readiness probe that fails; it doubles up to the interval of the probe. Most
/// programs are ready within some milliseconds, and those who wait for them should not wait a second.
const EAGER_PAUSE: Duration = Duration::from_millis(20);

/// After a log that could not be read.
const LOG_RETRY: Duration = Duration::from_millis(250);

/// What a probe needs to know of its instance.
#[derive(Debug, Clone)]
pub(super) struct Around {
    /// The port that is meant when a probe names none.
    pub(super) port: Option<u16>,
    /// The number of its process.
    pub(super) pid: u32,
    pub(super) directory: PathBuf,
    /// For programs: the whole environment.
    pub(super) environment: Vec<(String, String)>,
    pub(super) log: PathBuf,
    /// Lines from before are of earlier runs.
    pub(super) started_unix_us: u64,
}

/// One probe of one instance.
pub(super) struct Probing {
    pub(super) instance: InstanceId,
    pub(super) role: Role,
    pub(super) probe: Probe,
    /// How long the process has run already.
    pub(super) age: Duration,
    pub(super) around: Around,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) counts: Arc<Counts>,
    /// Spreads the tries of many probes over their interval.
    pub(super) phase_seed: u64,
}

// === impl Probing ===

impl Probing {
    /// Runs until it is dropped, or readiness is reached.
    pub(super) async fn run(self) {
        if let Some(ProbeKind::LogLine(check)) = self.probe.kind() {
            return self.await_line(&check.contains).await;
        }
        let context = Context {
            port: self.around.port,
            pid: Some(self.around.pid),
            directory: &self.around.directory,
            environment: &self.around.environment,
        };
        match Target::resolve(&self.probe, &context) {
            Ok(target) => self.try_again_and_again(&target).await,
            Err(error) => self.judge(Verdict::Bad(format!("failed to {error}"))).await,
        }
    }

    async fn await_line(&self, text: &str) {
        let filter = || Filter {
            since_unix_us: Some(self.around.started_unix_us),
            contains: Some(text.to_owned()),
            ..Filter::default()
        };
        self.judge(Verdict::Bad(format!("no line with {text:?} yet")))
            .await;
        loop {
            let seen = match Follow::open(&self.around.log, From::Last(1), filter()) {
                Ok(mut lines) => lines.next().await,
                Err(error) => Err(error),
            };
            self.counts.probed(self.role);
            match seen {
                Ok(_) => return self.judge(Verdict::Good).await,
                Err(error) => {
                    self.judge(Verdict::Bad(format!("its output cannot be read: {error}")))
                        .await;
                    sleep(LOG_RETRY).await;
                }
            }
        }
    }

    async fn try_again_and_again(&self, target: &Target) {
        let interval = self.probe.interval.duration();
        let delay = self.probe.delay.duration().saturating_sub(self.age);
        let first = match self.role {
            Role::Readiness => First::AtOnce,
            Role::Liveness => First::InPhase,
        };
        let mut ticker = Ticker::new(interval, delay, first, self.phase_seed);
        let mut threshold = Threshold::new(self.probe.rise, self.probe.fall);
        let mut pause = EAGER_PAUSE;
        let mut told = None;
        ticker.tick().await;
        loop {
            let outcome = attempt(target, self.probe.timeout.duration()).await;
            self.counts.probed(self.role);
            // A try that this host could not make says nothing about the instance.
            let changed = match outcome.made {
                true => threshold.observe(outcome.ok),
                false => None,
            };
            let verdict = match changed {
                Some(alicia_probe::Verdict::Good) => Some(Verdict::Good),
                Some(alicia_probe::Verdict::Bad) => Some(Verdict::Bad(outcome.detail)),
                // While it is awaited, people see why it takes so long.
                _ if self.role == Role::Readiness && !outcome.ok => {
                    Some(Verdict::Bad(outcome.detail))
                }
                _ => None,
            };
            if let Some(verdict) = verdict.filter(|verdict| told.as_ref() != Some(verdict)) {
                told = Some(verdict.clone());
                self.judge(verdict).await;
            }
            if self.role == Role::Readiness && pause < interval {
                sleep(pause).await;
                pause *= 2;
            } else {
                ticker.tick().await;
            }
        }
    }

    async fn judge(&self, verdict: Verdict) {
        let input = Input::Probed(self.instance.clone(), self.role, verdict);
        // A closed queue: the engine has ended, and this task ends with it.
        drop(self.inputs.send(input).await);
    }
}
