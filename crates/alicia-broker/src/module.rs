//! The module: the engine with the house's identities, its database, its audit and its numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alicia_contract::fleet::Fleet;
use alicia_module::{Api, ConfigFault, Context, Ending, Error, Exposition, Health, Module, Reload};
use alicia_store::Migration;

use crate::config::Config;
use crate::engine::{Engine, EngineOptions, MIGRATIONS, Stats};
use crate::policy::Policy;
use crate::revocation::Watch;
use crate::{audit, routes};

/// The embedded broker.
pub struct BrokerModule {
    pub(crate) engine: Arc<Engine>,
    config: Config,
    reports_lost: Arc<AtomicU64>,
}

impl Module for BrokerModule {
    const NAME: &'static str = "broker";
    const MIGRATIONS: &'static [Migration] = MIGRATIONS;
    type Config = Config;

    fn validate(config: &Config, _fleet: &Fleet) -> Vec<ConfigFault> {
        config.faults()
    }

    async fn start(cx: Context, config: Config) -> Result<Self, Error> {
        let options = EngineOptions {
            tcp: Some(config.listen),
            websocket: config.websocket,
            limits: config.limits(),
            store: Some(cx.store.clone()),
        };
        let policy = Policy {
            house: cx.identity.clone(),
            clock: cx.clock.clone(),
        };
        let (reporter, recorder, reports_lost) = audit::queue(cx.store.clone(), cx.clock.clone());
        let engine = Engine::start(options, Arc::new(policy), Arc::new(reporter)).await?;
        let engine = Arc::new(engine);
        if let Some(address) = engine.tcp_address() {
            tracing::info!(%address, websocket = ?engine.websocket_address(), "broker listens");
            cx.addresses.announce_bus(address);
        }
        cx.spawn("audit", recorder.run());
        let watch = Watch {
            engine: Arc::clone(&engine),
            house: cx.identity.clone(),
            clock: cx.clock.clone(),
            fleet: cx.fleet.clone(),
        };
        cx.spawn("revocation", watch.run());
        Ok(Self {
            engine,
            config,
            reports_lost,
        })
    }

    fn routes() -> Api<Arc<Self>> {
        routes::api()
    }

    fn health(&self) -> Health {
        match self.engine.write_faults() {
            0 => Health::Ok,
            faults => Health::Degraded(format!(
                "{faults} writes failed since the start: sessions and retained messages may be \
                 missing after a restart; see the log"
            )),
        }
    }

    fn metrics(&self, out: &mut Exposition) {
        write_metrics(out, &self.engine.numbers());
        let lost = self.reports_lost.load(Ordering::Relaxed) as f64;
        out.counter(
            "audit_lost_total",
            "Refusals that were not audited.",
            &[],
            lost,
        );
        let faults = self.engine.write_faults() as f64;
        out.counter(
            "write_faults_total",
            "Writes to the database that failed.",
            &[],
            faults,
        );
    }

    async fn reload(&self, config: Config) -> Result<Reload, Error> {
        Ok(if config == self.config {
            Reload::Applied
        } else {
            Reload::Restart
        })
    }

    async fn stop(&self, _ending: Ending) {
        self.engine.stop().await;
    }
}

fn write_metrics(out: &mut Exposition, stats: &Stats) {
    for (name, help, value) in [
        ("connections", "Open connections.", stats.connections),
        (
            "sessions",
            "Sessions, those of absent clients included.",
            stats.sessions,
        ),
        (
            "retained_messages",
            "Retained messages.",
            stats.retained_messages,
        ),
        (
            "retained_bytes",
            "Bytes of retained messages.",
            stats.retained_bytes,
        ),
    ] {
        out.gauge(name, help, &[], value as f64);
    }
    for (name, help, value) in [
        ("accepted_total", "Connections accepted.", stats.accepted),
        ("connected_total", "Connections let in.", stats.connected),
        (
            "published_total",
            "Messages published, refused ones included.",
            stats.published,
        ),
        (
            "delivered_total",
            "Messages sent to clients.",
            stats.delivered,
        ),
        (
            "throttled_total",
            "Times a client was slowed down.",
            stats.throttled,
        ),
        (
            "received_bytes_total",
            "Bytes from clients.",
            stats.bytes_in,
        ),
        ("sent_bytes_total", "Bytes to clients.", stats.bytes_out),
    ] {
        out.counter(name, help, &[], value as f64);
    }
    for (reason, count) in stats.dropped() {
        out.counter(
            "dropped_total",
            "Messages dropped.",
            &[("reason", reason)],
            count as f64,
        );
    }
    for (reason, count) in &stats.refused {
        let labels = [("reason", reason.as_str())];
        out.counter("refused_total", "Attempts refused.", &labels, *count as f64);
    }
}
