//! A service from start to stop.
//!
//! ```text
//!   connecting ──bus──▶ subscribed ──▶ registered, handlers run ──signal──▶ stopping ──▶ drained ──▶ gone
//!       └────────────────────────────signal──────────────────────────────────┘
//! ```

use std::io::IsTerminal as _;

use alicia_bus::{Bus, Options};
use alicia_contract::discovery::{INSTANCE_COMMAND, shared_commands};
use alicia_contract::health::CHECK;
use alicia_contract::orchestrator::SERVICE_COMMAND;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};
use tracing_subscriber::EnvFilter;

use crate::commands::{self, CommandRequests};
use crate::context::Context;
use crate::environment::Environment;
use crate::error::Error;
use crate::handler::persist;
use crate::identity::Identity;
use crate::page;
use crate::presence::{self, Presence};
use crate::service::Service;

/// How long a publish waits for the broker. A heartbeat that is later than the next one is of no use.
const BUS_DEADLINE: Duration = Duration::from_secs(5);
/// Between two looks for the bus at the start; the bus itself backs off on its own.
const CONNECT_LOOK: Duration = Duration::from_secs(60);

impl Service {
    /// Runs the service until SIGTERM, SIGINT or [`Context::stop`]: connects, registers, gives signs of
    /// life, handles. Then it says goodbye and lets handlers finish; a second signal ends it at once.
    ///
    /// Without a subscriber of its own the program's log goes to standard error, from level `info` on or
    /// as `RUST_LOG` says.
    ///
    /// # Errors
    /// When the declaration is faulty or the port of `/health` is not free. A bus that is away is not an
    /// error: the service waits for it.
    pub async fn run(mut self) -> Result<(), Error> {
        log_to_stderr();
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let mut signals = Signals::new()?;
        let page = match self.environment.port {
            Some(port) => Some(page::listen(port).await?),
            None => None,
        };
        let (bus, connection) = Bus::start(options(&self.environment));
        let cx = Context::new(bus, self.environment.clone());
        let mut background = JoinSet::new();
        background.spawn(connection);
        if let Some(identity) = &self.environment.identity {
            background.spawn(identity.clone().renew());
        }
        if let Some(listener) = page {
            background.spawn(page::serve(cx.clone(), listener));
        }
        let presence = Presence {
            registration: self.registration.clone(),
            heartbeat_every: self.heartbeat_every,
        };
        let drain = self.drain;
        let mut work = JoinSet::new();
        let running = async {
            self.start(&cx, presence.clone(), &mut work).await;
            cx.stopping().await;
        };
        tokio::select! {
            () = running => {}
            () = cx.stopping() => {}
            () = signals.next() => {}
            // Neither ends before the service does.
            _ = background.join_next() => return Err(alicia_bus::Error::Closed.into()),
        }
        tokio::select! {
            () = stop(&cx, &presence, &mut work, drain) => {}
            () = signals.next() => tracing::warn!("ended at once by a second signal"),
        }
        Ok(())
    }

    /// Waits for the bus, subscribes, and starts everything that the service does.
    async fn start(self, cx: &Context, presence: Presence, work: &mut JoinSet<()>) {
        // A closed bus ends the wait too; then nothing that follows does any harm.
        while let Err(alicia_bus::Error::TimedOut { .. }) = cx.bus().connected(CONNECT_LOOK).await {
            tracing::info!("waiting for the bus");
        }
        if let Some(identity) = self.environment.identity.clone() {
            let cx = cx.clone();
            work.spawn(async move {
                tokio::select! {
                    () = identity.follow(cx.bus().clone()) => {}
                    () = cx.stopping() => {}
                }
            });
        }
        let requests = command_requests(cx, &self.environment).await;
        let serving = commands::serve(cx.clone(), requests, self.commands, self.command_deadline);
        work.spawn(serving);
        let checks = match persist(|| cx.bus().events(CHECK)).await {
            Ok(checks) => Some(checks),
            Err(error) => {
                refused(cx, &error, &CHECK.filter(cx.bus().prefix()));
                None
            }
        };
        for (filter, listener) in self.listeners {
            work.spawn(listener(cx.clone(), cx.topic(&filter)));
        }
        for timer in self.timers {
            work.spawn(timer(cx.clone()));
        }
        cx.inner().vitals.started();
        work.spawn(presence::keep(cx.clone(), presence, checks));
        tracing::info!(service = %cx.service(), instance = %cx.instance(), "started");
    }
}

/// Says goodbye, lets handlers finish, and closes the connection so that the will is not published.
async fn stop(cx: &Context, presence: &Presence, work: &mut JoinSet<()>, drain: Duration) {
    tracing::info!("stopping");
    cx.stop();
    presence::stopping(cx, presence).await;
    let drained = timeout(drain, async { while work.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(?drain, "handlers did not finish in time");
        work.abort_all();
    }
    presence::unregister(cx).await;
    cx.bus().close().await;
}

fn refused(cx: &Context, error: &alicia_bus::Error, filter: &str) {
    tracing::error!(%error, filter, "the service will not hear this");
    cx.inner().vitals.refused(filter);
}

/// Its own command topic, on which it alone is asked, and the service's, which the instances share.
async fn command_requests(cx: &Context, environment: &Environment) -> Vec<CommandRequests> {
    let prefix = &environment.prefix;
    let service = environment.service.as_str();
    let own = INSTANCE_COMMAND.at(prefix, &[service, environment.instance.as_str()]);
    let shared = shared_commands(prefix, &environment.service);
    let mut requests = Vec::new();
    match persist(|| cx.bus().serve_at(&own)).await {
        Ok(heard) => requests.push(heard),
        Err(error) => refused(cx, &error, &own),
    }
    match persist(|| cx.bus().serve_at(&shared)).await {
        Ok(heard) => requests.push(heard),
        // A broker without shared subscriptions: then every instance hears what is said to the service.
        Err(alicia_bus::Error::Refused { reason, .. }) => {
            tracing::info!(reason, "the broker knows no shared subscriptions");
            let all = SERVICE_COMMAND.at(prefix, &[service]);
            match persist(|| cx.bus().serve_at(&all)).await {
                Ok(heard) => requests.push(heard),
                Err(error) => refused(cx, &error, &all),
            }
        }
        Err(error) => refused(cx, &error, &shared),
    }
    requests
}

fn options(environment: &Environment) -> Options {
    let mut options = Options::at(
        environment.address.clone(),
        environment.source(),
        environment.prefix.clone(),
    );
    options.username.clone_from(&environment.username);
    options.password = environment.password.clone();
    options.signing = environment.identity.as_ref().map(Identity::signing);
    options.client_id = format!("{}-{}", environment.service, environment.instance);
    options.will = Some(presence::will(environment));
    options.deadline = BUS_DEADLINE;
    options
}

/// The signals that stop a service.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(Error::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(Error::Signals)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Shows the log, unless the program has arranged that itself.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let initialised = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
    if initialised.is_err() {
        tracing::debug!("the program has a log of its own");
    }
}
