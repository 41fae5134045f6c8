//! Behind the desk: reads the file or another text for modules, and puts versions in force.

use std::collections::VecDeque;
use std::sync::Arc;

use alicia_file::Fault;
use alicia_module::desk::{Candidate, DeskError, DeskOrder};
use tokio::sync::mpsc;

use crate::file::Loaded;
use crate::host::Reread;
use crate::house::House;

/// Candidates that are kept: a person plans and then deploys, perhaps two at the same time.
const CANDIDATES_MAX: usize = 8;

/// Serves the desk until the host ends.
pub(crate) struct Desk {
    pub(crate) house: House,
    pub(crate) reread: Arc<Reread>,
    pub(crate) orders: mpsc::Receiver<DeskOrder>,
}

impl Desk {
    pub(crate) async fn run(mut self) {
        let mut candidates: VecDeque<(u64, Arc<Loaded>)> = VecDeque::new();
        let mut last = 0;
        while let Some(order) = self.orders.recv().await {
            match order {
                DeskOrder::Read { text, reply } => {
                    let read = read(&self.reread, text).await.map_err(|faults| {
                        DeskError::Faults(faults.iter().map(ToString::to_string).collect())
                    });
                    let candidate = read.map(|loaded| {
                        last += 1;
                        let in_force = self.house.loaded();
                        let loaded = loaded.kept_beside(&in_force.fleet);
                        let candidate = Candidate {
                            id: last,
                            fleet: loaded.fleet.clone(),
                            sections: in_force.differing_sections(&loaded),
                        };
                        candidates.push_back((last, loaded));
                        candidate
                    });
                    while candidates.len() > CANDIDATES_MAX {
                        candidates.pop_front();
                    }
                    // Whoever asked may have gone away.
                    drop(reply.send(candidate));
                }
                DeskOrder::Take { id, reply } => {
                    let found = candidates.iter().find(|(known, _)| *known == id);
                    let taken = found.map(|(_, loaded)| loaded.clone());
                    if let Some(loaded) = taken.clone() {
                        let told = self.house.reload(loaded).await;
                        tracing::info!(?told, "another version of the file is in force");
                    }
                    drop(reply.send(taken.map(drop).ok_or(DeskError::Forgotten)));
                }
                DeskOrder::Put { fleet, reply } => {
                    self.house.put_fleet(&fleet);
                    drop(reply.send(Ok(())));
                }
            }
        }
    }
}

/// Reads the file again, or another text in its place. A large file takes a tenth of a second, in which nobody else
/// should have to wait.
pub(crate) async fn read(reread: &Arc<Reread>, text: Option<String>) -> Result<Loaded, Vec<Fault>> {
    let reread = reread.clone();
    let read = tokio::task::spawn_blocking(move || reread(text)).await;
    read.expect("reading a file does not panic and is not cancelled")
}
