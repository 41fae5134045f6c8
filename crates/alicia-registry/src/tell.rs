//! What the registry says on the bus: the retained view of each service, and each change of presence.
//!
//! The view is made from the state when it is sent, so any number of changes meanwhile are one message. It is
//! bounded, and made again only after a rest of some times what it took: a service of a thousand instances that
//! come and go must not keep the registry busy with views. A bus that is away holds nobody up: views catch up
//! when it is back, changes of presence may be missed.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alicia_bus::{Bus, Error};
use alicia_contract::discovery::{
    EVENTS, INSTANCES, PresenceChange, RegisteredInstance, ServiceInstances,
};
use alicia_contract::envelope::MESSAGE_BYTES_MAX;
use alicia_contract::id::ServiceName;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::actor::Shared;
use crate::core::Entry;

/// Changes that may wait to be told; more are counted as lost, the views stay true.
const CHANGES_MAX: usize = 1_024;

/// Most instances of a view, those that are well first. REST and `resolve` have all.
const VIEW_INSTANCES_MAX: usize = 200;

/// Beyond so many instances a view comes without the large parts.
const VIEW_WHOLE_MAX: usize = 32;

/// The largest view, in bytes: every change of the service sends it once to each who listens.
const VIEW_BYTES_MAX: usize = 256 << 10;

/// A view is made again at the earliest after so many times what the last one took.
const REST_FACTOR: u32 = 10;

/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(1);

/// What the envelope may take of a message, in bytes.
const ENVELOPE_BYTES: usize = 4 << 10;

/// The wait before a view that could not be sent is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Takes what is to be told. Never waits.
#[derive(Clone)]
pub(crate) struct Teller {
    outdated: Arc<Outdated>,
    changes: mpsc::Sender<PresenceChange>,
    lost: Arc<AtomicU64>,
}

/// Services whose view is out of date.
#[derive(Default)]
pub(crate) struct Outdated {
    services: Mutex<BTreeSet<ServiceName>>,
    some: Notify,
}

// === impl Teller ===

impl Teller {
    /// A teller, and what its two tasks work on.
    pub(crate) fn new() -> (Self, Arc<Outdated>, mpsc::Receiver<PresenceChange>) {
        let (changes, queue) = mpsc::channel(CHANGES_MAX);
        let outdated = Arc::new(Outdated::default());
        let lost = Arc::default();
        (
            Self {
                outdated: Arc::clone(&outdated),
                changes,
                lost,
            },
            outdated,
            queue,
        )
    }

    pub(crate) fn announce(&self, service: ServiceName) {
        self.outdated.add(service);
    }

    pub(crate) fn tell(&self, change: PresenceChange) {
        if self.changes.try_send(change).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Changes that were not told.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

// === impl Outdated ===

impl Outdated {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<ServiceName>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, service: ServiceName) {
        self.lock().insert(service);
        self.some.notify_one();
    }

    /// As [`Self::add`], without waking who waits.
    fn add_quietly(&self, service: ServiceName) {
        self.lock().insert(service);
    }

    async fn take(&self) -> BTreeSet<ServiceName> {
        loop {
            let services = std::mem::take(&mut *self.lock());
            if !services.is_empty() {
                return services;
            }
            self.some.notified().await;
        }
    }
}

/// Tells changes, in order. One that the bus does not take in time is given up: it is an event.
pub(crate) async fn tell_changes(bus: Bus, mut changes: mpsc::Receiver<PresenceChange>) {
    while let Some(change) = changes.recv().await {
        if let Err(error) = bus.publish(EVENTS, &[], &change).await {
            tracing::debug!(%error, "a change of presence was not told");
        }
    }
}

/// Keeps the retained view of each service true.
pub(crate) async fn tell_views(bus: Bus, shared: Arc<Shared>, outdated: Arc<Outdated>) {
    let mut rests: HashMap<ServiceName, Instant> = HashMap::new();
    loop {
        let mut services = outdated.take().await;
        let now = shared.clock().now();
        rests.retain(|_, until| *until > now);
        // Those that rest are put off; the others do not wait for them.
        let resting: Vec<ServiceName> = services
            .iter()
            .filter(|service| rests.contains_key(*service))
            .cloned()
            .collect();
        services.retain(|service| !resting.contains(service));
        if services.is_empty() {
            let soonest = resting
                .iter()
                .filter_map(|service| rests.get(service))
                .min();
            if let Some(until) = soonest {
                tokio::select! {
                    () = tokio::time::sleep_until(*until) => {}
                    () = outdated.some.notified() => {}
                }
            }
        }
        resting
            .into_iter()
            .for_each(|service| outdated.add_quietly(service));
        let mut failed = Vec::new();
        for service in services {
            let begun = shared.clock().now();
            let view = bounded(&shared, &service);
            let values = [service.as_str()];
            let sent = if view.instances.is_empty() {
                bus.clear(INSTANCES, &values).await
            } else {
                bus.set(INSTANCES, &values, &fit(view)).await
            };
            match sent {
                // The bus keeps it and sends it when it is connected.
                Ok(()) | Err(Error::TimedOut { .. }) => {}
                Err(Error::Closed) => return,
                Err(error) => {
                    tracing::warn!(%service, %error, "the view of a service was not published");
                    failed.push(service.clone());
                }
            }
            let now = shared.clock().now();
            let rest = now.saturating_duration_since(begun) * REST_FACTOR;
            rests.insert(service, now + rest.min(REST_MAX));
        }
        if !failed.is_empty() {
            tokio::time::sleep(RETRY).await;
            failed.into_iter().for_each(|service| outdated.add(service));
        }
    }
}

/// The live instances of a service as far as they are told on the bus.
fn bounded(shared: &Shared, service: &ServiceName) -> ServiceInstances {
    let registry = shared.read();
    let usable = |entry: &&Entry| {
        registry
            .standing(entry)
            .is_some_and(alicia_contract::discovery::Standing::is_usable)
    };
    let (well, others): (Vec<&Entry>, Vec<&Entry>) = registry.live(service).partition(usable);
    let total = well.len() + others.len();
    let told = well.into_iter().chain(others).take(VIEW_INSTANCES_MAX);
    let shortened = total > VIEW_WHOLE_MAX;
    let mut instances: Vec<RegisteredInstance> = told.map(Entry::public).collect();
    drop(registry);
    if shortened {
        instances.iter_mut().for_each(shorten);
    }
    ServiceInstances {
        service: service.clone(),
        omitted: u32::try_from(total - instances.len()).unwrap_or(u32::MAX),
        instances,
        shortened,
    }
}

/// The live instances of a service, all of them.
pub(crate) fn view(shared: &Shared, service: &ServiceName) -> ServiceInstances {
    let instances = shared
        .read()
        .live(service)
        .map(crate::core::Entry::public)
        .collect();
    ServiceInstances {
        service: service.clone(),
        instances,
        shortened: false,
        omitted: 0,
    }
}

/// Makes a view fit into one message: without the large parts, then with fewer instances.
fn fit(mut view: ServiceInstances) -> ServiceInstances {
    let limit = VIEW_BYTES_MAX.min(MESSAGE_BYTES_MAX - ENVELOPE_BYTES);
    if bytes(&view) <= limit {
        return view;
    }
    view.shortened = true;
    view.instances.iter_mut().for_each(shorten);
    let mut room = limit.saturating_sub(bytes(&ServiceInstances {
        instances: Vec::new(),
        ..view.clone()
    }));
    let fitting = view.instances.iter().take_while(|instance| {
        let needed = bytes(*instance) + 1;
        let fits = needed <= room;
        room = room.saturating_sub(needed);
        fits
    });
    let kept = fitting.count();
    let left_out = u32::try_from(view.instances.len() - kept).unwrap_or(u32::MAX);
    view.omitted = view.omitted.saturating_add(left_out);
    view.instances.truncate(kept);
    view
}

fn shorten(instance: &mut RegisteredInstance) {
    instance.registration.metadata.clear();
    for capability in &mut instance.registration.capabilities {
        capability.description = None;
        capability.input_schema = Value::Null;
        capability.output_schema = Value::Null;
    }
}

fn bytes<T: serde::Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |text| text.len())
}
