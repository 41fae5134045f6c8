//! Several processes on one directory: what one of them has written, the others read.
//!
//! Only the host writes; a module in a process of its own, the broker above all, follows it. Without that, a key that was
//! revoked would be good there until that process ends.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::{Authority, relock};
use crate::Error;
use crate::agents::Agents;
use crate::keyring::Keyring;
use crate::roots::Roots;

/// What tells one content of a file from the next: each change is another file under the old name.
type Stamp = Option<(u64, i64, i64)>;

/// The files that were read last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    keys: Stamp,
    agents: Stamp,
    roots: [Stamp; 2],
}

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec()))
}

// === impl Authority ===

impl Authority {
    /// Reads again what other processes with the same directory have written. Blocks for small files, and only when
    /// they have changed.
    pub fn refresh(&self) {
        let before = self.inner.runs.all();
        self.inner.runs.refresh();
        let mut is_changed = self.inner.runs.all() != before;
        let mut seen = relock(&self.inner.seen);
        let read = [
            self.read_keys(&mut seen.keys),
            self.read_agents(&mut seen.agents),
            self.read_roots(&mut seen.roots),
        ];
        drop(seen);
        for read in read {
            match read {
                Ok(is_read) => is_changed |= is_read,
                Err(error) => {
                    tracing::warn!(%error, "what another process has written cannot be read")
                }
            }
        }
        if is_changed {
            self.changed();
        }
    }

    fn read_keys(&self, seen: &mut Stamp) -> Result<bool, Error> {
        let _one_at_a_time = relock(&self.inner.keys_change);
        let known = self.inner.keys.load_full();
        let found = stamp(known.path());
        if found == *seen {
            return Ok(false);
        }
        let keys = Keyring::open(known.path())?;
        *seen = found;
        let is_new = keys != *known;
        self.inner.keys.store(Arc::new(keys));
        Ok(is_new)
    }

    fn read_agents(&self, seen: &mut Stamp) -> Result<bool, Error> {
        let mut known = relock(&self.inner.agents);
        let found = stamp(known.path());
        if found == *seen {
            return Ok(false);
        }
        let agents = Agents::open(known.path())?;
        *seen = found;
        let is_new = agents != *known;
        *known = agents;
        Ok(is_new)
    }

    fn read_roots(&self, seen: &mut [Stamp; 2]) -> Result<bool, Error> {
        let _one_at_a_time = relock(&self.inner.keys_change);
        let known = self.inner.roots.load_full();
        let found = known.paths().map(|path| stamp(&path));
        if found == *seen {
            return Ok(false);
        }
        let roots = Roots::open(known.directory())?;
        *seen = found;
        let is_new = roots.present() != known.present();
        self.inner.roots.store(Arc::new(roots));
        Ok(is_new)
    }
}
