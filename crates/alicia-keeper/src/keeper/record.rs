//! Records on disk, for the keeper that comes after one that was killed: which processes to end, which
//! exits the host has not noticed.
//!
//! A run has a file for its start and one for its exit. Neither is ever replaced: a rename over a file that
//! is there makes ext4 write to the disk at once, and the loop would wait for it (half a second was seen).
//! Nothing is synced, because after a power failure there are no processes to find.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use alicia_failpoint::failpoint;
use serde::{Deserialize, Serialize};

use super::{Keeper, note};
use crate::containment::Container;
use crate::protocol::{Exit, InstanceInfo, InstanceState};

const START: &str = "start";
const EXIT: &str = "exit";

/// What the next keeper must know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) info: InstanceInfo,
    /// Start ticks mean nothing after a reboot.
    pub(super) boot: String,
    #[serde(default)]
    pub(super) known: HashMap<u32, u64>,
    pub(super) stop_signal: i32,
    pub(super) stop_grace_ms: u64,
}

impl Keeper {
    pub(super) fn write_start(&self, run: u64) {
        let Some(instance) = self.instances.get(&run).filter(|it| !it.is_stillborn) else {
            return;
        };
        let known = match &instance.container {
            Some(Container::Scan(scan)) => scan.known.clone(),
            _ => HashMap::new(),
        };
        let record = Record {
            info: instance.info.clone(),
            boot: self.boot.clone(),
            known,
            stop_signal: instance.stop_signal,
            stop_grace_ms: instance.stop_grace_ms,
        };
        report(&self.record_path(run, START), |path| write(path, &record));
        failpoint("keeper/recorded");
    }

    pub(super) fn write_exit(&self, run: u64) {
        let instance = self.instances.get(&run).filter(|it| !it.is_stillborn);
        if let Some(exit) = instance.and_then(|instance| instance.info.exit.as_ref()) {
            report(&self.record_path(run, EXIT), |path| write(path, exit));
        }
    }

    pub(super) fn remove_record(&self, run: u64) {
        for kind in [START, EXIT] {
            report(&self.record_path(run, kind), |path| {
                match fs::remove_file(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    result => result,
                }
            });
        }
    }

    /// All records, in order of start; what is not readable is removed.
    pub(super) fn read_records(&self) -> Vec<Record> {
        let entries = fs::read_dir(self.place.records())
            .into_iter()
            .flatten()
            .flatten();
        let mut records: Vec<Record> = Vec::new();
        for path in entries.map(|entry| entry.path()) {
            let is = |kind: &str| path.extension().is_some_and(|extension| extension == kind);
            let record = if is(START) {
                read::<Record>(&path)
            } else {
                None
            };
            match record {
                Some(mut record) => {
                    if let Some(exit) = read::<Exit>(&path.with_extension(EXIT)) {
                        record.info.state = InstanceState::Exited;
                        record.info.exit = Some(exit);
                    }
                    records.push(record);
                }
                None if is(EXIT) && path.with_extension(START).exists() => {}
                None => {
                    note(&format!("{} is no record", path.display()));
                    report(&path, |path| fs::remove_file(path));
                }
            }
        }
        records.sort_unstable_by_key(|record| record.info.run);
        records
    }

    fn record_path(&self, run: u64, kind: &str) -> PathBuf {
        self.place.records().join(format!("{run}.{kind}"))
    }
}

/// Records are a help for a later keeper: this one goes on without.
fn report(path: &Path, action: impl FnOnce(&Path) -> io::Result<()>) {
    if let Err(error) = action(path) {
        note(&format!("{}: {error}", path.display()));
    }
}

/// By rename, so that what is there is whole.
fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(value)?)?;
    fs::rename(&new, path)
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
