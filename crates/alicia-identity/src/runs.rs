//! Which run of each slot may act: the fence between two copies.
//!
//! One small file for each service, written before a run begins and before its process does. A run that is not
//! in it may do nothing, however good its token or credential is. The files are not synced to the disk: no run
//! outlives the machine. They are read again when somebody shows up whom the table does not know, so that
//! modules in processes of their own agree with the host.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use alicia_contract::id::{Epoch, InstanceId};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::{Error, file};

/// A run that may act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) instance: InstanceId,
    pub(crate) epoch: Epoch,
    /// Its public key.
    pub(crate) x: String,
}

/// The runs of one service by slot. One that is there without runs is known, and may not act.
type Slots = BTreeMap<u32, Run>;

type Table = HashMap<String, Arc<Slots>>;

/// The runs of everybody.
#[derive(Debug)]
pub(crate) struct Runs {
    directory: PathBuf,
    table: ArcSwap<Table>,
    /// Held while the table is replaced: one change after the other.
    change: Mutex<()>,
    /// When the directory was last seen to change.
    seen: Mutex<Option<std::time::SystemTime>>,
}

/// Whether a run may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may.
    Current,
    /// A newer one has its place, or it has ended.
    Fenced,
    /// Nothing is known of this service.
    Unknown,
}

// === impl Runs ===

impl Runs {
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        file::make_directory(directory)?;
        let entries = std::fs::read_dir(directory).map_err(|source| Error::Read {
            path: directory.to_owned(),
            source,
        })?;
        let mut table = Table::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(owner) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            match read(&entry.path()) {
                Ok(Some(slots)) => drop(table.insert(owner.to_owned(), Arc::new(slots))),
                Ok(None) => {}
                Err(Damaged) => drop(table.insert(owner.to_owned(), Arc::default())),
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            table: ArcSwap::from_pointee(table),
            change: Mutex::new(()),
            seen: Mutex::default(),
        })
    }

    /// A run takes its slot; the one that had it is fenced from now on. On return every process can read it.
    pub(crate) fn begin(&self, owner: &str, slot: u32, run: Run) -> Result<(), Error> {
        self.change(owner, |slots| {
            slots.insert(slot, run);
        })
    }

    /// A run has ended. One that has lost its slot already is no matter.
    pub(crate) fn end(&self, owner: &str, instance: &InstanceId) -> Result<(), Error> {
        let is_there = |slots: &Arc<Slots>| slots.values().any(|run| run.instance == *instance);
        if !self.table.load().get(owner).is_some_and(is_there) {
            return Ok(());
        }
        self.change(owner, |slots| {
            slots.retain(|_, run| run.instance != *instance)
        })
    }

    /// The owner of a run.
    pub(crate) fn owner(&self, instance: &InstanceId) -> Option<String> {
        let table = self.table.load();
        let owners = table.iter();
        let mut owners = owners
            .filter(|(_, slots)| slots.values().any(|run| run.instance == *instance))
            .map(|(owner, _)| owner.clone());
        owners.next()
    }

    /// Whether a run may act now.
    pub(crate) fn standing(&self, owner: &str, instance: &InstanceId, epoch: Epoch) -> Standing {
        let is_it = |run: &&Run| run.instance == *instance && run.epoch == epoch;
        if let Some(slots) = self.table.load().get(owner)
            && slots.values().any(|run| is_it(&run))
        {
            return Standing::Current;
        }
        let Some(slots) = self.look_again(owner) else {
            return Standing::Unknown;
        };
        if slots.values().any(|run| is_it(&run)) {
            Standing::Current
        } else {
            Standing::Fenced
        }
    }

    /// A run that may act, by its name.
    pub(crate) fn find(&self, owner: &str, instance: &InstanceId, epoch: Epoch) -> Option<Run> {
        if self.standing(owner, instance, epoch) != Standing::Current {
            return None;
        }
        let table = self.table.load();
        let mut runs = table.get(owner)?.values();
        runs.find(|run| run.instance == *instance && run.epoch == epoch)
            .cloned()
    }

    /// Every run that may act, with its owner.
    pub(crate) fn all(&self) -> Vec<(String, Run)> {
        let table = self.table.load();
        let mut all: Vec<_> = table
            .iter()
            .flat_map(|(owner, slots)| slots.values().map(|run| (owner.clone(), run.clone())))
            .collect();
        all.sort_by(|a, b| (&a.0, &a.1.instance).cmp(&(&b.0, &b.1.instance)));
        all
    }

    /// Reads the files of all again, for a process that others share the directory with.
    pub(crate) fn refresh(&self) {
        let modified = std::fs::metadata(&self.directory).and_then(|found| found.modified());
        let modified = modified.ok();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if modified.is_some() && *seen == modified {
                return;
            }
            *seen = modified;
        }
        let owners: Vec<String> = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries
                .flatten()
                .filter_map(|entry| {
                    let name = entry.file_name();
                    Some(name.to_str()?.strip_suffix(".json")?.to_owned())
                })
                .collect(),
            Err(_) => Vec::new(),
        };
        for owner in owners {
            self.look_again(&owner);
        }
    }

    /// Reads the file of one owner again.
    fn look_again(&self, owner: &str) -> Option<Arc<Slots>> {
        let _one_at_a_time = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.table.load().get(owner).cloned();
        let slots = match read(&self.path(owner)) {
            Ok(Some(slots)) => Arc::new(slots),
            Ok(None) => known.clone()?,
            Err(Damaged) => known.clone().unwrap_or_default(),
        };
        if known.as_ref() != Some(&slots) {
            self.store(owner, slots.clone());
        }
        Some(slots)
    }

    fn change(&self, owner: &str, change: impl FnOnce(&mut Slots)) -> Result<(), Error> {
        let _one_at_a_time = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.table.load().get(owner).cloned();
        let mut slots = known.map(|slots| Slots::clone(&slots)).unwrap_or_default();
        change(&mut slots);
        let bytes = serde_json::to_vec(&slots).expect("texts and numbers");
        let written = file::replace_unsynced(&self.path(owner), &bytes);
        // Even when nobody else can read of it: here the older run is fenced.
        self.store(owner, Arc::new(slots));
        written
    }

    fn store(&self, owner: &str, slots: Arc<Slots>) {
        let mut table = Table::clone(&self.table.load());
        table.insert(owner.to_owned(), slots);
        self.table.store(Arc::new(table));
    }

    fn path(&self, owner: &str) -> PathBuf {
        self.directory.join(format!("{owner}.json"))
    }
}

/// A file is there and says nothing: nobody may act by it, until the next run writes it anew.
struct Damaged;

fn read(path: &Path) -> Result<Option<Slots>, Damaged> {
    let slots = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(std::io::Error::other),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
    };
    slots.map(Some).map_err(|error| {
        tracing::warn!(path = %path.display(), %error, "a list of runs cannot be read; its service may do nothing until its next start");
        Damaged
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(n: u64) -> Run {
        Run {
            instance: InstanceId::from_parts(n, 0),
            epoch: Epoch(n),
            x: "x".to_owned(),
        }
    }

    fn standing(runs: &Runs, n: u64) -> Standing {
        let run = run(n);
        runs.standing("api", &run.instance, run.epoch)
    }

    #[test]
    fn a_new_run_fences_the_one_before_it_in_its_slot_and_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let runs = Runs::open(directory.path()).expect("opens");
        assert_eq!(standing(&runs, 1), Standing::Unknown);
        runs.begin("api", 0, run(1)).expect("written");
        runs.begin("api", 1, run(2)).expect("written");
        runs.begin("api", 0, run(3)).expect("written");
        for (n, expected) in [
            (1, Standing::Fenced),
            (2, Standing::Current),
            (3, Standing::Current),
        ] {
            assert_eq!(standing(&runs, n), expected, "{n}");
        }
        let other_epoch = runs.standing("api", &run(3).instance, Epoch(4));
        assert_eq!(other_epoch, Standing::Fenced);
        runs.end("api", &run(3).instance).expect("written");
        runs.end("api", &run(1).instance).expect("no matter");
        assert_eq!(standing(&runs, 3), Standing::Fenced);
        assert_eq!(standing(&runs, 2), Standing::Current);
    }

    #[test]
    fn another_process_sees_the_fence_and_so_does_a_new_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let host = Runs::open(directory.path()).expect("opens");
        let broker = Runs::open(directory.path()).expect("opens");
        host.begin("api", 0, run(1)).expect("written");
        assert_eq!(standing(&broker, 1), Standing::Current);
        host.begin("api", 0, run(2)).expect("written");
        broker.refresh();
        assert_eq!(standing(&broker, 1), Standing::Fenced);
        let again = Runs::open(directory.path()).expect("opens");
        assert_eq!(standing(&again, 1), Standing::Fenced);
        assert_eq!(again.all(), [("api".to_owned(), run(2))]);
    }

    #[test]
    fn by_a_damaged_list_nobody_may_act() {
        let directory = tempfile::tempdir().expect("a directory");
        let runs = Runs::open(directory.path()).expect("opens");
        runs.begin("api", 0, run(1)).expect("written");
        // As a machine that lost its power leaves a file that was not synced.
        std::fs::write(directory.path().join("api.json"), "").expect("written");
        assert_eq!(standing(&runs, 1), Standing::Current, "who knows goes on");
        let again = Runs::open(directory.path()).expect("opens");
        assert_eq!(standing(&again, 1), Standing::Fenced);
        assert_eq!(standing(&again, 9), Standing::Fenced);
        again.begin("api", 0, run(2)).expect("written anew");
        assert_eq!(standing(&again, 2), Standing::Current);
    }
}
