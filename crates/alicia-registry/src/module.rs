//! The module: how its tasks are started and what the host asks of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use alicia_bus::Bus;
use alicia_contract::discovery::Presence;
use alicia_contract::fleet::Fleet;
use alicia_module::{Api, ConfigFault, Context, Error, Exposition, Health, Module};
use alicia_store::{Migration, Store};
use tokio::sync::{mpsc, watch};

use crate::actor::{Actor, BATCHES_MAX, COMMANDS_MAX, Denials, Handle, Shared, write};
use crate::config::Config;
use crate::core::Registry;
use crate::router::Router;
use crate::tell::{Teller, tell_changes, tell_views};
use crate::{hear, routes, store};

/// Who is there and what they can do.
pub struct RegistryModule {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handle: Handle,
    pub(crate) router: Router,
    teller: Teller,
    bus: Bus,
    store: Store,
    fleet: watch::Receiver<Arc<Fleet>>,
}

impl Module for RegistryModule {
    const NAME: &'static str = "registry";
    const MIGRATIONS: &'static [Migration] = store::MIGRATIONS;
    type Config = Config;

    fn validate(config: &Config, _fleet: &Fleet) -> Vec<ConfigFault> {
        config.faults()
    }

    async fn start(cx: Context, config: Config) -> Result<Self, Error> {
        let saved = cx.store.read(store::load).await?;
        let shared = Arc::new(Shared::new(
            Registry::new(config.limits()),
            cx.clock.clone(),
        ));
        shared.restore(saved);
        let (teller, outdated, changes) = Teller::new();
        // Views of services that lost their last instance are cleared; the others are told anew.
        shared
            .read()
            .services()
            .for_each(|service| teller.announce(service.clone()));
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let handle = Handle(commands);
        let (batches, written) = mpsc::channel(BATCHES_MAX);
        let actor = Actor {
            shared: Arc::clone(&shared),
            teller: teller.clone(),
            commands: queue,
            batches,
            denials: Denials::default(),
        };
        let router = Router {
            shared: Arc::clone(&shared),
            bus: cx.bus.clone(),
            identity: cx.identity.clone(),
            clock: cx.clock.clone(),
        };
        cx.spawn("decide", actor.run());
        cx.spawn(
            "write",
            write(cx.store.clone(), Arc::clone(&shared), written),
        );
        cx.spawn("tell-changes", tell_changes(cx.bus.clone(), changes));
        cx.spawn(
            "tell-views",
            tell_views(cx.bus.clone(), Arc::clone(&shared), outdated),
        );
        cx.spawn("hear-fleet", hear::fleet(cx.fleet.clone(), handle.clone()));
        cx.spawn(
            "hear-registrations",
            hear::registrations(cx.bus.clone(), handle.clone()),
        );
        cx.spawn(
            "hear-departures",
            hear::departures(cx.bus.clone(), handle.clone()),
        );
        cx.spawn(
            "hear-heartbeats",
            hear::heartbeats(cx.bus.clone(), handle.clone()),
        );
        cx.spawn(
            "hear-pictures",
            hear::pictures(cx.bus.clone(), handle.clone()),
        );
        cx.spawn(
            "hear-transitions",
            hear::transitions(cx.bus.clone(), handle.clone()),
        );
        cx.spawn("hear-health", hear::health(cx.bus.clone(), handle.clone()));
        cx.spawn(
            "hear-questions",
            hear::questions(cx.bus.clone(), Arc::clone(&shared)),
        );
        cx.spawn("hear-calls", hear::calls(cx.bus.clone(), router.clone()));
        cx.spawn("tick", hear::ticks(handle.clone()));
        let Context {
            bus, store, fleet, ..
        } = cx;
        Ok(Self {
            shared,
            handle,
            router,
            teller,
            bus,
            store,
            fleet,
        })
    }

    fn routes() -> Api<Arc<Self>> {
        routes::api()
    }

    fn health(&self) -> Health {
        let bus = self.bus.status();
        if self.shared.unwritten.load(Relaxed) {
            return Health::Failed("the last changes were not written; see the log".to_owned());
        }
        if !bus.connected {
            let why = bus
                .last_error
                .unwrap_or_else(|| "no connection yet".to_owned());
            return Health::Degraded(format!("the bus is away ({why}); only REST works"));
        }
        let expects = !self.fleet.borrow().services.is_empty();
        let (is_pictured, is_judged) = {
            let registry = self.shared.read();
            (registry.is_pictured(), registry.is_judged())
        };
        if expects && !is_pictured {
            let text = "the orchestrator has not been heard; its services are not listed";
            return Health::Degraded(text.to_owned());
        }
        if expects && !is_judged {
            let text =
                "health has not been heard; how instances are is known from their heartbeats only";
            return Health::Degraded(text.to_owned());
        }
        Health::Ok
    }

    fn metrics(&self, out: &mut Exposition) {
        let counts = {
            let registry = self.shared.read();
            let mut counts = [0_u32; 4];
            for (_, entry) in registry.entries() {
                counts[entry.presence as usize] += 1;
            }
            counts
        };
        for (presence, name) in PRESENCES {
            let count = f64::from(counts[presence as usize]);
            out.gauge(
                "instances",
                "Entries, by presence.",
                &[("presence", name)],
                count,
            );
        }
        let counters = [
            (
                "registrations_total",
                "Registrations taken.",
                self.shared.registrations.load(Relaxed),
            ),
            (
                "refusals_total",
                "Requests refused.",
                self.shared.refusals.load(Relaxed),
            ),
            (
                "changes_lost_total",
                "Changes of presence not told.",
                self.teller.lost(),
            ),
            (
                "store_jobs_failed_total",
                "Writes that failed.",
                self.store.stats().jobs_failed,
            ),
        ];
        for (name, help, value) in counters {
            out.counter(name, help, &[], as_number(value));
        }
    }
}

/// Every presence with its name in messages.
const PRESENCES: [(Presence, &str); 4] = [
    (Presence::Unverified, "unverified"),
    (Presence::Present, "present"),
    (Presence::Suspect, "suspect"),
    (Presence::Gone, "gone"),
];

#[expect(
    clippy::cast_precision_loss,
    reason = "a scraper reads doubles; 2^53 is far away"
)]
fn as_number(value: u64) -> f64 {
    value as f64
}
