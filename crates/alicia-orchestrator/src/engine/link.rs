//! The connection to the keeper: made, kept, made again. It starts a keeper where none runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use alicia_keeper::protocol::InstanceInfo;
use alicia_keeper::{Client, Error as KeeperError, Events, Session};
use alicia_module::Clock;
use alicia_module::context::Addresses;
use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Input;

/// A connection that lasted so long was a good one: the next try comes at once. Keepers that die again and again, and
/// those that do not introduce themselves, are asked less and less often.
const GOOD_SESSION: Duration = Duration::from_secs(10);

/// The first wait after a keeper could not be reached, or was there for a moment only; and the longest.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long the addresses of the bus and of REST are awaited before the first start: services are told
/// where these are. Without a broker in the house there is none to wait for.
const ADDRESSES_PATIENCE: Duration = Duration::from_secs(2);

/// A new connection, with everything that the keeper held when it was made. Events that came before the
/// list was answered are in `events` as well; they say nothing new.
#[derive(Debug)]
pub(crate) struct Linked {
    pub(crate) client: Client,
    pub(crate) events: Events,
    pub(crate) instances: Vec<InstanceInfo>,
    /// The names of the sockets that it holds.
    pub(crate) sockets: Vec<String>,
    /// When the keeper was started: tells one keeper from the next.
    pub(crate) keeper_started_unix_ms: u64,
    /// Counts the keepers; see [`crate::core::Core::raise_epochs`].
    pub(crate) keeper_generation: u64,
}

/// Keeps a connection to the keeper of a directory.
pub(crate) struct Link {
    pub(crate) directory: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) inputs: mpsc::Sender<Input>,
    /// Asks for a new connection: this one has missed something.
    pub(crate) renew: Arc<Notify>,
    /// Why there is no keeper, for health.
    pub(crate) trouble: watch::Sender<Option<String>>,
    /// Set when the house closes: a keeper that ends now stays away.
    pub(crate) closing: CancellationToken,
    pub(crate) addresses: Addresses,
    pub(crate) clock: Clock,
}

// === impl Link ===

impl Link {
    /// Runs until nobody wants a keeper any more.
    pub(crate) async fn run(self) {
        self.await_addresses().await;
        let mut wait = RETRY_MIN;
        while !self.inputs.is_closed() && !self.closing.is_cancelled() {
            let began = self.clock.now();
            match self.connect().await {
                Ok(session) => {
                    let ended = self.serve(session).await;
                    self.trouble.send_replace(Some(ended));
                }
                Err(error) => {
                    let reason = alicia_module::api::error::chain(&error);
                    tracing::error!(%reason, "there is no keeper");
                    self.trouble.send_replace(Some(reason));
                }
            }
            if self.clock.now() - began >= GOOD_SESSION {
                wait = RETRY_MIN;
                continue;
            }
            sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    async fn await_addresses(&self) {
        let (mut bus, mut api) = (self.addresses.bus(), self.addresses.api());
        let both = async {
            // An end of the announcements counts as an answer.
            drop(bus.wait_for(Option::is_some).await);
            drop(api.wait_for(Option::is_some).await);
        };
        if timeout(ADDRESSES_PATIENCE, both).await.is_err() {
            tracing::warn!("services are started without knowing where the bus or REST is");
        }
    }

    async fn connect(&self) -> Result<Session, KeeperError> {
        let directory = self.directory.to_string_lossy().into_owned();
        let arguments = ["keeper", "--directory", &directory, "--daemonise"].map(str::to_owned);
        Client::connect_or_start(&self.directory, &self.program, &arguments).await
    }

    /// Hands the connection over and moves its bytes until it ends. Says why it ended.
    async fn serve(&self, session: Session) -> String {
        let Session {
            client,
            events,
            connection,
        } = session;
        let moving = connection.run();
        tokio::pin!(moving);
        let introduce = async {
            let listing = client.list().await?;
            let stats = client.stats().await?;
            Ok::<_, KeeperError>((listing, stats))
        };
        let introduced = tokio::select! {
            introduced = introduce => introduced,
            ended = &mut moving => return told(ended),
        };
        let (listing, stats) = match introduced {
            Ok(introduced) => introduced,
            Err(error) => return error.to_string(),
        };
        let linked = Linked {
            client,
            events,
            instances: listing.instances,
            sockets: listing
                .listeners
                .into_iter()
                .map(|held| held.name)
                .collect(),
            keeper_started_unix_ms: stats.started_unix_ms,
            keeper_generation: stats.generation,
        };
        // Whoever asked for another connection up to now has it; a wish that is left over would end this one, and so the
        // starts that are asked for over it, and so the next one.
        let _was_left_over = self.renew.notified().now_or_never();
        if self
            .inputs
            .send(Input::Linked(Box::new(linked)))
            .await
            .is_err()
        {
            return "the orchestrator has ended".to_owned();
        }
        self.trouble.send_replace(None);
        tokio::select! {
            ended = moving => told(ended),
            () = self.renew.notified() => "some of its messages were missed".to_owned(),
        }
    }
}

fn told(ended: Result<(), KeeperError>) -> String {
    match ended {
        Ok(()) => "the connection was closed".to_owned(),
        Err(error) => error.to_string(),
    }
}
