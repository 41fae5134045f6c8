//! Runs the `checks:` of the file on every instance that is ready: one task per check and instance, in a phase
//! of its own, so that a thousand checks do not run in the same millisecond.

mod environment;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use alicia_container::Inside;
use alicia_contract::fleet::{Fleet, LatencyObjective, Probe, ProbeKind, ServiceSpec};
use alicia_contract::id::{InstanceId, ServiceName};
use alicia_file::fleet::words;
use alicia_module::Context;
use alicia_probe::{First, Outcome, Ticker, attempt};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::actor::{Handle, Shared, Signals};
use crate::core::evidence::Try;
use crate::core::{Event, Target, Tried};
use crate::history::Tries;
use crate::history::ledger::Measured;
use crate::slo;

/// Programs that run at once for checks; more wait. Each is a process.
const PROGRAMS_MAX: usize = 64;

/// Counts of the prober.
#[derive(Default)]
pub(crate) struct Counts {
    /// Checks that run now, times instances.
    pub(crate) targets: AtomicU64,
    /// Tries made.
    pub(crate) tries: AtomicU64,
    /// Those that failed.
    pub(crate) failures: AtomicU64,
    /// Tries that this host could not make: no descriptors, no memory. They say nothing about the service.
    pub(crate) not_made: AtomicU64,
}

/// What a running task is told apart by. Anything else of a target belongs to it.
type Key = (ServiceName, u32, InstanceId, ServiceName);

/// A running task, and what it was started with; dropped, it ends.
struct Task {
    target: Target,
    probe: Probe,
    _end: oneshot::Sender<()>,
}

/// The prober.
pub(crate) struct Prober {
    pub(crate) cx: Context,
    pub(crate) shared: Arc<Shared>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) monitor: Handle,
    pub(crate) counts: Arc<Counts>,
    pub(crate) tries: Arc<Tries>,
}

/// What one task needs.
struct Work {
    target: Target,
    probe: Probe,
    directory: PathBuf,
    environment: Result<Vec<(String, String)>, String>,
    /// Above this a try is slow, by the objective of the service.
    slow_above: Option<Duration>,
    tries: Arc<Tries>,
    programs: Arc<Semaphore>,
    monitor: Handle,
    shared: Arc<Shared>,
    counts: Arc<Counts>,
}

// === impl Prober ===

impl Prober {
    /// Keeps the tasks in line with what is to be probed.
    pub(crate) async fn run(self) {
        let programs = Arc::new(Semaphore::new(PROGRAMS_MAX));
        let fleet: watch::Receiver<Arc<Fleet>> = self.cx.fleet.clone();
        let mut tasks: BTreeMap<Key, Task> = BTreeMap::new();
        loop {
            let targets = self.shared.read().targets();
            let fleet = Arc::clone(&fleet.borrow());
            let mut next = BTreeMap::new();
            for target in targets {
                let spec = fleet.services.get(&target.service);
                let probe = spec.and_then(|spec| Some((spec, spec.checks.get(&target.check)?)));
                let Some((spec, probe)) = probe else { continue };
                let key = key(&target);
                let task = match tasks.remove(&key) {
                    Some(task) if task.target == target && task.probe == *probe => task,
                    _ => self.start(target, spec, probe, &programs),
                };
                next.insert(key, task);
            }
            tasks = next;
            self.counts.targets.store(tasks.len() as u64, Relaxed);
            self.signals.targets.notified().await;
        }
    }

    fn start(
        &self,
        target: Target,
        spec: &ServiceSpec,
        probe: &Probe,
        programs: &Arc<Semaphore>,
    ) -> Task {
        let (end, ended) = oneshot::channel();
        let work = Work {
            environment: match probe.kind() {
                Some(kind) if kind.needs_environment() => environment::of(&self.cx, &target, spec),
                _ => Ok(Vec::new()),
            },
            slow_above: spec
                .slo
                .as_ref()
                .and_then(|slo| slo.latency.as_ref())
                .filter(|objective| slo::counts(objective, &target.check))
                .map(|objective: &LatencyObjective| objective.max.duration()),
            tries: Arc::clone(&self.tries),
            directory: self
                .cx
                .paths
                .base()
                .join(spec.directory.as_deref().unwrap_or(".")),
            target: target.clone(),
            probe: placed(&self.cx, &target, spec, probe),
            programs: Arc::clone(programs),
            monitor: self.monitor.clone(),
            shared: Arc::clone(&self.shared),
            counts: Arc::clone(&self.counts),
        };
        self.cx.spawn("check", async move {
            tokio::select! {
                () = work.run() => {}
                // The sender is never used: it is dropped.
                _ = ended => {}
            }
        });
        Task {
            target,
            probe: probe.clone(),
            _end: end,
        }
    }
}

/// A check where it has to run: the program of one looks at a service in a container from inside.
fn placed(cx: &Context, target: &Target, spec: &ServiceSpec, probe: &Probe) -> Probe {
    let mut probe = probe.clone();
    if let (Some(container), Some(exec)) = (&spec.container, &mut probe.exec) {
        let inside = Inside {
            program: &cx.program,
            data: cx.paths.data(),
            container,
            instance: &target.instance,
        };
        // What cannot be split is said by the check of the file.
        let words = words(&exec.command).unwrap_or_default();
        exec.command = inside.command(words);
    }
    probe
}

// === impl Work ===

impl Work {
    async fn run(self) {
        let context = alicia_probe::Context {
            port: self.target.port,
            directory: &self.directory,
            environment: self.environment.as_deref().unwrap_or_default(),
            pid: self.target.pid,
        };
        let place = match &self.environment {
            Ok(_) => alicia_probe::Target::resolve(&self.probe, &context)
                .map_err(|error| format!("failed to {error}")),
            Err(fault) => Err(fault.clone()),
        };
        let interval = self.probe.interval.duration();
        let delay = self.probe.delay.duration();
        let mut ticker = Ticker::new(interval, delay, First::InPhase, seed(&self.target));
        let mut could = true;
        loop {
            ticker.tick().await;
            let begun = self.shared.now().mono;
            let outcome = match &place {
                Ok(place) => self.attempt(place).await,
                Err(fault) => Outcome {
                    ok: false,
                    made: true,
                    detail: fault.clone(),
                    latency: Duration::ZERO,
                },
            };
            if !outcome.made {
                if could {
                    let (service, detail) = (&self.target.service, &outcome.detail);
                    tracing::warn!(%service, detail, "a check could not be made; that says nothing about the service");
                }
                could = false;
                self.counts.not_made.fetch_add(1, Relaxed);
                continue;
            }
            could = true;
            self.counts.tries.fetch_add(1, Relaxed);
            self.counts
                .failures
                .fetch_add(u64::from(!outcome.ok), Relaxed);
            let measured = Measured {
                good: outcome.ok,
                latency_ms: outcome.latency.as_secs_f64() * 1e3,
                slow: self.slow_above.is_some_and(|limit| outcome.latency > limit),
            };
            self.tries
                .push(&self.target.service, &self.target.check, measured);
            let result = Try {
                good: outcome.ok,
                detail: outcome.detail,
                latency_ms: outcome.latency.as_secs_f64() * 1e3,
                begun,
            };
            let Target {
                service,
                slot,
                instance,
                check,
                ..
            } = self.target.clone();
            let tried = Tried {
                service,
                slot,
                instance,
                check,
                result,
            };
            self.monitor.say(Event::Tried(Box::new(tried))).await;
        }
    }

    async fn attempt(&self, place: &alicia_probe::Target) -> Outcome {
        let is_program = matches!(self.probe.kind(), Some(ProbeKind::Exec(_)));
        let permit = if is_program {
            self.programs.acquire().await.ok()
        } else {
            None
        };
        let outcome = attempt(place, self.probe.timeout.duration()).await;
        drop(permit);
        outcome
    }
}

fn key(target: &Target) -> Key {
    let Target {
        service,
        slot,
        instance,
        check,
        ..
    } = target.clone();
    (service, slot, instance, check)
}

/// The same check of the same instance has the same phase after every start.
fn seed(target: &Target) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&target.service, target.slot, &target.check).hash(&mut hasher);
    hasher.finish()
}
