//! The module: how its tasks are started and what the host asks of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use alicia_bus::Bus;
use alicia_contract::fleet::{Fleet, PROBE_INTERVAL_MIN, ProbeKind};
use alicia_contract::health::Alert;
use alicia_module::{Api, Clock, ConfigFault, Context, Error, Exposition, Health, Module};
use alicia_store::{Migration, Store};
use tokio::sync::{mpsc, watch};

use crate::actor::{Actor, CHANGES_MAX, Changes, EVENTS_MAX, Handle, Shared, Signals};
use crate::archive::{self, Progress};
use crate::config::Config;
use crate::core::alerts::count_by_severity;
use crate::core::conditions::{Key, Rule};
use crate::core::judge::is_bad;
use crate::core::{Event, Monitor, Now};
use crate::notify::{self, Notifier};
use crate::office::Office;
use crate::prober::{Counts, Prober};
use crate::status_page::StatusPage;
use crate::{hear, history, requests, restart, routes, slo, status, store};

/// Watches services and raises alerts.
pub struct HealthModule {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handle: Handle,
    pub(crate) office: Office,
    pub(crate) progress: Arc<Progress>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) bus: Bus,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) fleet: watch::Receiver<Arc<Fleet>>,
    pub(crate) status_page: StatusPage,
    pub(crate) history: Arc<history::Progress>,
}

impl Module for HealthModule {
    const NAME: &'static str = "health";
    const MIGRATIONS: &'static [Migration] = store::MIGRATIONS;
    type Config = Config;

    fn validate(config: &Config, fleet: &Fleet) -> Vec<ConfigFault> {
        let mut faults = config.faults(fleet);
        faults.extend(check_faults(fleet));
        faults
    }

    async fn start(cx: Context, config: Config) -> Result<Self, Error> {
        let mut monitor = Monitor::new(config.settings(), cx.seed);
        let firing = cx.store.read(store::firing).await?;
        // The monitor's time begins here.
        let now = Now {
            unix: cx.clock.unix(),
            mono: Duration::ZERO,
        };
        for alert in firing.clone() {
            monitor.restore(alert, now);
        }
        let orphans = orphans(&firing, &config);
        let shared = Arc::new(Shared::new(monitor, cx.clock.clone()));
        let signals = Arc::new(Signals::default());
        let progress = Arc::new(Progress::default());
        let counts = Arc::new(Counts::default());
        let (commands, queue) = mpsc::channel(EVENTS_MAX);
        let (changes, changed) = mpsc::channel(CHANGES_MAX);
        let (told, to_tell) = mpsc::channel(CHANGES_MAX);
        let stand = (cx.store.clone(), Arc::clone(&shared), cx.clock.clone());
        let place = (cx.paths.base(), cx.seed);
        let notifier = Arc::new(Notifier::open(&config, stand, place, firing).await?);
        let handle = Handle(commands);
        let (turned, turns) = mpsc::channel(history::TURNS_MAX);
        let tries = Arc::new(history::Tries::default());
        let past = Arc::new(history::Progress::default());
        let actor = Actor {
            turns: turned,
            shared: Arc::clone(&shared),
            signals: Arc::clone(&signals),
            commands: queue,
            changes: Changes::new(changes),
        };
        let prober = Prober {
            cx: cx.clone(),
            shared: Arc::clone(&shared),
            signals: Arc::clone(&signals),
            monitor: handle.clone(),
            counts: Arc::clone(&counts),
            tries: Arc::clone(&tries),
        };
        let recorder = history::Recorder {
            store: cx.store.clone(),
            shared: Arc::clone(&shared),
            turns,
            tries,
            progress: Arc::clone(&past),
        };
        let (bus, store) = (|| cx.bus.clone(), || cx.store.clone());
        cx.spawn("judge", actor.run());
        cx.spawn("probe", prober.run());
        cx.spawn("record", recorder.run());
        let keep_for = config.history_for.duration();
        let pruned = history::prune(cx.store.clone(), cx.clock.clone(), keep_for);
        cx.spawn("prune-history", pruned);
        let objectives = slo::watch(
            cx.store.clone(),
            cx.clock.clone(),
            cx.fleet.clone(),
            Arc::clone(&shared),
            handle.clone(),
        );
        cx.spawn("watch-objectives", objectives);
        cx.spawn(
            "keep-alerts",
            archive::keep(store(), bus(), (changed, told), Arc::clone(&progress)),
        );
        cx.spawn(
            "send-alerts",
            archive::send(store(), bus(), Arc::clone(&progress)),
        );
        let (keep_for, keep_max) = (config.history_for.duration(), config.history_alerts_max);
        cx.spawn(
            "prune-alerts",
            archive::prune(store(), cx.clock.clone(), keep_for, keep_max),
        );
        let office = Office {
            monitor: handle.clone(),
            notifier: Arc::clone(&notifier),
        };
        notify_by(&cx, &config, &office, to_tell);
        for key in orphans {
            handle.say(Event::Untell(key)).await;
        }
        cx.spawn("hear-requests", requests::serve(cx.clone(), office.clone()));
        let restarts = restart::ask(bus(), office.clone(), Arc::clone(&signals));
        cx.spawn("restart", restarts);
        let pictures = status::pictures(bus(), Arc::clone(&notifier), Arc::clone(&signals));
        cx.spawn("tell-picture", pictures);
        cx.spawn("ask", status::questions(bus(), signals));
        cx.spawn("hear-fleet", hear::fleet(cx.fleet.clone(), handle.clone()));
        cx.spawn("hear-pictures", hear::pictures(bus(), handle.clone()));
        cx.spawn("hear-transitions", hear::transitions(bus(), handle.clone()));
        cx.spawn(
            "hear-registrations",
            hear::registrations(bus(), handle.clone()),
        );
        let heartbeats = hear::heartbeats(bus(), cx.clock.clone(), handle.clone());
        cx.spawn("hear-heartbeats", heartbeats);
        cx.spawn("tick", hear::ticks(bus(), handle.clone()));
        let Context {
            bus,
            store,
            clock,
            fleet,
            ..
        } = cx;
        Ok(Self {
            status_page: config.status_page,
            history: past,
            shared,
            handle,
            office,
            progress,
            counts,
            bus,
            store,
            clock,
            fleet,
        })
    }

    fn routes() -> Api<Arc<Self>> {
        routes::api()
    }

    fn health(&self) -> Health {
        if self.progress.unwritten.load(Relaxed) {
            let text = "the last alerts were not written; they are told, and lost at a restart";
            return Health::Degraded(text.to_owned());
        }
        let mut missing = self.missing();
        missing.extend(self.office.notifier.troubles());
        if missing.is_empty() {
            Health::Ok
        } else {
            Health::Degraded(missing.join("; "))
        }
    }

    fn metrics(&self, out: &mut Exposition) {
        self.monitor_metrics(out);
        self.channel_metrics(out);
        let waiting = as_number(self.progress.waiting.load(Relaxed));
        out.gauge(
            "alerts_waiting",
            "Alerts that wait for the bus.",
            &[],
            waiting,
        );
        let targets = as_number(self.counts.targets.load(Relaxed));
        out.gauge("checks", "Checks that run, times instances.", &[], targets);
        let counters = [
            (
                "alerts_told_total",
                "Alerts that the bus has.",
                &self.progress.told,
            ),
            ("tries_total", "Tries of checks.", &self.counts.tries),
            (
                "tries_failed_total",
                "Tries of checks that failed.",
                &self.counts.failures,
            ),
            (
                "tries_not_made_total",
                "Tries that this host could not make for want of descriptors, memory, ports or processes.",
                &self.counts.not_made,
            ),
            (
                "history_lost_total",
                "Rows of the history that could not be written.",
                &self.history.lost,
            ),
            (
                "turns_lost_total",
                "Changes of state that are missing in the history.",
                &self.shared.turns_lost,
            ),
            (
                "changes_lost_total",
                "Alerts that could not be queued.",
                &self.shared.changes_lost,
            ),
        ];
        for (name, help, value) in counters {
            out.counter(name, help, &[], as_number(value.load(Relaxed)));
        }
    }
}

impl HealthModule {
    /// What the monitor would need and does not have, in words.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let bus = self.bus.status();
        if !bus.connected {
            let why = bus
                .last_error
                .unwrap_or_else(|| "no connection yet".to_owned());
            missing.push(format!(
                "the bus is away ({why}); heartbeats and exits are not heard"
            ));
        }
        let expects = !self.fleet.borrow().services.is_empty();
        if expects && !self.shared.read().is_pictured() {
            missing.push("the orchestrator has not been heard".to_owned());
        }
        missing
    }

    fn monitor_metrics(&self, out: &mut Exposition) {
        let monitor = self.shared.read();
        for watch in monitor.watches() {
            let labels = [("service", watch.service.as_str())];
            let good = if is_bad(watch.judged.state) { 0.0 } else { 1.0 };
            out.gauge(
                "service_good",
                "Whether a service is neither down nor unhealthy.",
                &labels,
                good,
            );
            let bad = as_number(watch.bad_heartbeats);
            out.counter(
                "bad_heartbeats_total",
                "Heartbeats that cannot be used.",
                &labels,
                bad,
            );
        }
        for (severity, count) in count_by_severity(monitor.book()) {
            let severity = format!("{severity:?}").to_lowercase();
            let labels = [("severity", severity.as_str())];
            out.gauge(
                "alerts_firing",
                "Alerts that fire.",
                &labels,
                f64::from(count),
            );
        }
        let stray = as_number(monitor.stray_heartbeats());
        out.counter(
            "stray_heartbeats_total",
            "Heartbeats of services nobody knows.",
            &[],
            stray,
        );
        let held_up = as_number(monitor.times_held_up());
        out.counter(
            "held_up_total",
            "Times the monitor itself was held up.",
            &[],
            held_up,
        );
    }
}

impl HealthModule {
    fn channel_metrics(&self, out: &mut Exposition) {
        let notifier = &self.office.notifier;
        let lost = as_number(notifier.lost.load(Relaxed));
        let help = "Notifications that were given up because too many waited, for the store or for their channel.";
        out.counter("notifications_lost_total", help, &[], lost);
        for channel in &notifier.channels {
            let counts = &channel.counts;
            let labels = [("channel", channel.name.as_str())];
            let waiting = as_number(counts.waiting.load(Relaxed));
            let help = "Notifications that wait for their receiver.";
            out.gauge("notifications_waiting", help, &labels, waiting);
            let tries = as_number(counts.tries.load(Relaxed));
            let help = "Tries to deliver a notification.";
            out.counter("notification_tries_total", help, &labels, tries);
            for (outcome, count) in [("delivered", &counts.delivered), ("failed", &counts.failed)] {
                let labels = [labels[0], ("outcome", outcome)];
                let help = "Notifications that were delivered, or given up.";
                let count = as_number(count.load(Relaxed));
                out.counter("notifications_total", help, &labels, count);
            }
        }
    }
}

/// What fires about channels that the file has no more: nothing will be delivered there, and it is over.
fn orphans(firing: &[Alert], config: &Config) -> Vec<Key> {
    let failed = firing
        .iter()
        .filter(|alert| alert.rule == Rule::DeliveryFailed.as_str());
    let named = failed.filter_map(|alert| alert.labels.get("check")?.as_str());
    let gone = named.filter(|name| !config.channels.keys().any(|known| known.as_str() == *name));
    gone.map(notify::key).collect()
}

/// Starts what notifies: the desk, and a sender for each channel.
fn notify_by(cx: &Context, config: &Config, office: &Office, changes: mpsc::Receiver<Alert>) {
    let notifier = &office.notifier;
    let fleet = cx.fleet.clone();
    cx.spawn("desk", notify::attend(Arc::clone(notifier), changes, fleet));
    let give_up_after = config.notifications.give_up_after.duration();
    let mut random = cx.rng();
    for number in 0..notifier.channels.len() {
        let told = (office.monitor.clone(), give_up_after);
        let sender = notify::send(Arc::clone(notifier), number, told, random.fork());
        cx.spawn("notify", sender);
    }
    let keep = config.notifications.history_max;
    cx.spawn(
        "prune-notifications",
        notify::prune(Arc::clone(notifier), keep),
    );
}

/// Checks in the fleet that the monitor cannot run.
fn check_faults(fleet: &Fleet) -> Vec<ConfigFault> {
    let mut faults = Vec::new();
    for (service, spec) in &fleet.services {
        for (check, probe) in &spec.checks {
            let message = match probe.kind() {
                None => "expected exactly one kind, such as `http`, `tcp` or `exec`".to_owned(),
                Some(ProbeKind::LogLine(_)) => {
                    "`log_line` is for `readiness`; expected another kind, such as `http`"
                        .to_owned()
                }
                Some(_) if probe.interval < PROBE_INTERVAL_MIN => {
                    format!(
                        "`interval` is {}, expected {PROBE_INTERVAL_MIN} or more",
                        probe.interval
                    )
                }
                Some(_) if probe.timeout.duration() == Duration::ZERO => {
                    "`timeout` is 0s, expected more".to_owned()
                }
                Some(_) => continue,
            };
            let message = format!("services.{service}.checks.{check}: {message}");
            faults.push(ConfigFault {
                pointer: String::new(),
                message,
            });
        }
    }
    faults
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a scraper reads doubles; 2^53 is far away"
)]
fn as_number(value: u64) -> f64 {
    value as f64
}
