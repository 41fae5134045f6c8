//! All that a module may touch. No environment, no globals, no other module.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use alicia_bus::{Bus, BusAddress};
use alicia_contract::fleet::Fleet;
use alicia_contract::topic::Prefix;
use alicia_identity::Authority;
use alicia_store::Store;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::desk::Desk;
use crate::paths::Paths;
use crate::spawn::Spawner;

/// What the host gives to a module. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The module's own connection to the bus, as `system/<module>`. It connects and reconnects by itself.
    pub bus: Bus,
    /// The module's own database.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// Who somebody is and what they may do; issues the tokens of services.
    pub identity: Authority,
    /// What should run, as the file says; changes when the file is reloaded.
    pub fleet: watch::Receiver<Arc<Fleet>>,
    /// Where things lie.
    pub paths: Paths,
    /// The program file of Alicia itself, for parts that run as processes of their own.
    pub program: PathBuf,
    /// Where the house listens.
    pub addresses: Addresses,
    /// Set when the bus is somebody else's broker: what services log in with there.
    pub external_bus: Option<ExternalBus>,
    /// Where the host is asked about the file.
    pub desk: Desk,
    /// Starts tasks.
    pub tasks: Spawner,
    /// Seeds every random choice of the module; fixed in tests.
    pub seed: u64,
}

impl Context {
    /// Starts a task that belongs to the module; see [`Spawner::spawn`].
    pub fn spawn(&self, task: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task, future);
    }

    /// The prefix of all topics.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        self.identity.prefix()
    }

    /// A source of random numbers for jitter and ids; the same seed gives the same numbers.
    #[must_use]
    pub fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }
}

/// The login at a broker that is not ours; it knows nothing of our tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExternalBus {
    /// The user name, when it wants one.
    pub username: Option<String>,
    /// The file with the password, when it wants one.
    pub password_file: Option<PathBuf>,
}

/// A seed from the system, or from the clock when the system has none to give.
#[must_use]
pub fn system_seed(clock: &Clock) -> u64 {
    getrandom::u64().unwrap_or_else(|_| clock.unix_us().unsigned_abs())
}

/// Where the house listens: announced by who binds, awaited by who needs it.
#[derive(Debug, Clone)]
pub struct Addresses {
    bus: watch::Sender<Option<BusAddress>>,
    api: watch::Sender<Option<SocketAddr>>,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            bus: watch::Sender::new(None),
            api: watch::Sender::new(None),
        }
    }
}

impl Addresses {
    /// The broker's TCP address, once it is bound. The bus clients wait for it.
    pub fn announce_bus(&self, address: impl Into<BusAddress>) {
        self.bus.send_replace(Some(address.into()));
    }

    /// The address of REST, once it is bound.
    pub fn announce_api(&self, address: SocketAddr) {
        self.api.send_replace(Some(address));
    }

    /// The broker's TCP address and its changes.
    #[must_use]
    pub fn bus(&self) -> watch::Receiver<Option<BusAddress>> {
        self.bus.subscribe()
    }

    /// The address of REST and its changes.
    #[must_use]
    pub fn api(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.api.subscribe()
    }
}
