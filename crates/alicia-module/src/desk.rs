//! What a module may ask of the host about the file: read it, check another text, put a version in force.

use std::sync::Arc;

use alicia_contract::fleet::Fleet;
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait: each comes from a person, or from an update that has failed.
const ORDERS_MAX: usize = 16;

/// A version of the file that has no faults, and is not in force yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// By which the host knows it. The host keeps the newest few.
    pub id: u64,
    /// What should run.
    pub fleet: Fleet,
    /// Parts of the file beside `services` that differ from what is in force: `health`, `http`.
    pub sections: Vec<String>,
}

/// Why the host did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// The text has faults: each as `alicia check` says it.
    #[error("read the file: {} faults, the first: {}", .0.len(), .0.first().map_or("", String::as_str))]
    Faults(Vec<String>),
    /// The host is ending, or there is none: a module that runs alone.
    #[error("reach the host: it is ending, or this module runs alone")]
    NoHost,
    /// The candidate is too old: others were read since.
    #[error("put the file in force: it was read too long ago")]
    Forgotten,
}

/// What is asked of the host.
#[derive(Debug)]
pub enum DeskOrder {
    /// Read and check the file, or this text in its place. Nothing changes.
    Read {
        /// The text; none: the file.
        text: Option<String>,
        /// The answer.
        reply: oneshot::Sender<Result<Candidate, DeskError>>,
    },
    /// Put a candidate in force, for every module.
    Take {
        /// Which.
        id: u64,
        /// The answer.
        reply: oneshot::Sender<Result<(), DeskError>>,
    },
    /// Tell every module of this fleet; the sections stay.
    Put {
        /// What should run.
        fleet: Arc<Fleet>,
        /// The answer.
        reply: oneshot::Sender<Result<(), DeskError>>,
    },
}

/// The host's desk. Cheap to clone. Without a host, every request is refused.
#[derive(Debug, Clone, Default)]
pub struct Desk {
    orders: Option<mpsc::Sender<DeskOrder>>,
}

impl Desk {
    /// A desk, and the orders for whoever sits behind it.
    #[must_use]
    pub fn open() -> (Self, mpsc::Receiver<DeskOrder>) {
        let (orders, heard) = mpsc::channel(ORDERS_MAX);
        (
            Self {
                orders: Some(orders),
            },
            heard,
        )
    }

    /// Whether a host sits behind it.
    #[must_use]
    pub fn has_host(&self) -> bool {
        self.orders
            .as_ref()
            .is_some_and(|orders| !orders.is_closed())
    }

    /// Reads and checks the file, or this text in its place. Nothing changes.
    ///
    /// # Errors
    /// The faults, or that there is no host.
    pub async fn read(&self, text: Option<String>) -> Result<Candidate, DeskError> {
        self.ask(|reply| DeskOrder::Read { text, reply }).await
    }

    /// Puts a candidate in force, for every module.
    ///
    /// # Errors
    /// That it was forgotten, or that there is no host.
    pub async fn take(&self, id: u64) -> Result<(), DeskError> {
        self.ask(|reply| DeskOrder::Take { id, reply }).await
    }

    /// Tells every module of this fleet; the sections stay as they are.
    ///
    /// # Errors
    /// That there is no host.
    pub async fn put(&self, fleet: Arc<Fleet>) -> Result<(), DeskError> {
        self.ask(|reply| DeskOrder::Put { fleet, reply }).await
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, DeskError>>) -> DeskOrder,
    ) -> Result<T, DeskError> {
        let orders = self.orders.as_ref().ok_or(DeskError::NoHost)?;
        let (reply, answer) = oneshot::channel();
        orders
            .send(order(reply))
            .await
            .map_err(|_| DeskError::NoHost)?;
        answer.await.map_err(|_| DeskError::NoHost)?
    }
}
