//! Records on disk, one per run, for the keeper that comes after one that was killed: which processes to
//! end, which exits the host has not noticed. Written by rename, so that they are whole; not synced, because
//! after a power failure there are no processes to find.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Keeper, note};
use crate::containment::Container;
use crate::process_table;
use crate::protocol::{InstanceInfo, LogSpec};

/// What the next keeper must know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) info: InstanceInfo,
    /// Start ticks mean nothing after a reboot.
    pub(super) boot: String,
    #[serde(default)]
    pub(super) tag: String,
    #[serde(default)]
    pub(super) known: HashMap<u32, u64>,
    pub(super) stop_signal: i32,
    pub(super) stop_grace_ms: u64,
    pub(super) log: Option<LogSpec>,
}

impl Keeper {
    pub(super) fn write_record(&self, run: u64) {
        let Some(instance) = self.instances.get(&run).filter(|it| !it.is_stillborn) else {
            return;
        };
        let (tag, known) = match &instance.container {
            Some(Container::Scan(scan)) => (scan.tag.clone(), scan.known.clone()),
            _ => Default::default(),
        };
        let record = Record {
            info: instance.info.clone(),
            boot: process_table::boot_id(),
            tag,
            known,
            stop_signal: instance.stop_signal,
            stop_grace_ms: instance.stop_grace_ms,
            log: instance.log.as_ref().map(|log| log.borrow().spec().clone()),
        };
        let path = self.place.records().join(format!("{run}.json"));
        if let Err(error) = write(&path, &record) {
            // The instance runs on; only a keeper after a crash would not know it by name.
            note(&format!("cannot write {}: {error}", path.display()));
        }
    }

    pub(super) fn remove_record(&self, run: u64) {
        let path = self.place.records().join(format!("{run}.json"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                note(&format!("cannot remove {}: {error}", path.display()));
            }
            _ => {}
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
            let record = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            match record {
                Some(record) => records.push(record),
                None => {
                    note(&format!("{} is no record", path.display()));
                    drop(fs::remove_file(&path));
                }
            }
        }
        records.sort_unstable_by_key(|record| record.info.run);
        records
    }
}

fn write(path: &Path, record: &Record) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(record)?)?;
    fs::rename(&new, path)
}
