//! The witness: every minute in which something was written, and every 1,000 rows, the ends of all chains are signed and
//! appended to a file that can lie on another disk, and told on a retained topic that anybody can keep a copy of.
//!
//! A line of the file is the checkpoint as JSON, a tab, and the Ed25519 signature over the bytes before the tab. Each names
//! the SHA-256 of the line before it.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use alicia_bus::Bus;
use alicia_contract::audit::{AuditCheckpoint, AuditHead, CHECKPOINT};
use alicia_module::Clock;
use alicia_signature::key::{PublicKey, SigningKey};
use alicia_store::audit::{chain, open_to_read};
use alicia_store::{Error as StoreError, Store};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use tokio::sync::{oneshot, watch};

use super::read::PageError;
use super::{HOST, databases};
use crate::house::House;

/// How often is looked for new rows.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// At the latest so long after a row there is a witness.
pub const EVERY: Duration = Duration::from_secs(60);

/// So many rows have no witness at the most, beside those of the last moments.
pub const ROWS_MAX: u64 = 1_000;

const FILE_MODE: u32 = 0o600;

/// A line of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What it says.
    pub checkpoint: AuditCheckpoint,
    /// Its SHA-256, in hexadecimal, which the next one names.
    pub hash: String,
}

/// Reads a line and checks its signature.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read_line(line: &str, key: &PublicKey) -> Result<Line, String> {
    let (text, signature) = line.split_once('\t').ok_or("it has no signature")?;
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    if !key.verify(text.as_bytes(), &bytes) {
        return Err("its signature is not that of the key of this house".to_owned());
    }
    let mut checkpoint: AuditCheckpoint =
        serde_json::from_str(text).map_err(|error| format!("it cannot be read: {error}"))?;
    checkpoint.signature = signature.to_owned();
    Ok(Line {
        checkpoint,
        hash: hash_of(line),
    })
}

fn hash_of(line: &str) -> String {
    hex(&Sha256::digest(line.as_bytes()))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes checkpoints.
pub(crate) struct Witness {
    pub(crate) house: House,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) key: SigningKey,
    /// The directory of the databases.
    pub(crate) databases: PathBuf,
    pub(crate) file: PathBuf,
    /// Who hears of them.
    pub(crate) bus: Option<Bus>,
    pub(crate) last: watch::Sender<Option<AuditCheckpoint>>,
}

/// What was witnessed last.
struct Seen {
    number: u64,
    line_hash: String,
    heads: BTreeMap<String, chain::Head>,
    at: tokio::time::Instant,
}

impl Witness {
    /// Until told to end; then once more.
    pub(crate) async fn run(self, mut ended: oneshot::Receiver<oneshot::Sender<()>>) {
        let mut seen = self.begin();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        loop {
            let end = tokio::select! {
                end = &mut ended => Some(end.ok()),
                _ = tick.tick() => None,
            };
            self.look(&mut seen, end.is_some()).await;
            if let Some(done) = end {
                if let Some(bus) = &self.bus {
                    bus.close().await;
                }
                if let Some(Err(())) = done.map(|done| done.send(())) {
                    tracing::debug!("nobody waits for the last checkpoint any more");
                }
                return;
            }
        }
    }

    /// Goes on after the last line of the file, whatever it is: a gap in the numbers shows that something is missing.
    fn begin(&self) -> Seen {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let last = text.lines().next_back();
        let read = last.and_then(|line| read_line(line, &self.key.public()).ok());
        if last.is_some() && read.is_none() {
            tracing::error!(file = %self.file.display(), "the last checkpoint of the audit log is damaged; `alicia audit verify` says more");
        }
        Seen {
            number: read.as_ref().map_or(0, |line| line.checkpoint.number),
            line_hash: last.map(hash_of).unwrap_or_default(),
            heads: BTreeMap::new(),
            at: self.clock.now(),
        }
    }

    async fn look(&self, seen: &mut Seen, is_last: bool) {
        let is_first = seen.number == 0;
        let age = self.clock.now().saturating_duration_since(seen.at);
        let last_ids = self.last_ids().await;
        let new_rows: i64 = last_ids
            .iter()
            .map(|(module, id)| id - seen.heads.get(module).map_or(0, |head| head.id))
            .sum();
        let is_due = is_last || is_first || new_rows.unsigned_abs() >= ROWS_MAX || age >= EVERY;
        if !is_due || (new_rows == 0 && !is_last && !seen.heads.is_empty()) {
            return;
        }
        let databases = self.databases.clone();
        let read = tokio::task::spawn_blocking(move || read_heads(&databases)).await;
        let heads = match read {
            Ok(Ok(heads)) => heads,
            Ok(Err(error)) => {
                tracing::error!(%error, "the ends of the audit logs were not read");
                return;
            }
            // The runtime ends.
            Err(_) => return,
        };
        if heads != seen.heads {
            let checkpoint = self.witness(seen, heads);
            if let Some(checkpoint) = checkpoint {
                self.tell(checkpoint, is_last).await;
            }
        }
    }

    /// The last ids of modules that run. Cheap.
    async fn last_ids(&self) -> BTreeMap<String, i64> {
        let mut ids = BTreeMap::new();
        let host = (HOST.to_owned(), self.store.clone());
        for (module, store) in self.house.stores().into_iter().chain([host]) {
            let read = store.read(|connection| -> Result<i64, StoreError> {
                let last = "SELECT coalesce(max(id), 0) FROM audit";
                Ok(connection.query_row(last, [], |row| row.get(0))?)
            });
            match read.await {
                Ok(id) => {
                    ids.insert(module, id);
                }
                // One that ends or is being restarted is looked at the next time.
                Err(StoreError::Closed) => {}
                Err(error) => {
                    tracing::warn!(module, %error, "the end of an audit log was not read")
                }
            }
        }
        ids
    }

    /// Writes a checkpoint to the file, and gives it.
    fn witness(
        &self,
        seen: &mut Seen,
        heads: BTreeMap<String, chain::Head>,
    ) -> Option<AuditCheckpoint> {
        let checkpoint = AuditCheckpoint {
            number: seen.number + 1,
            at: self.clock.unix(),
            before: seen.line_hash.clone(),
            heads: heads
                .iter()
                .map(|(module, head)| (module.clone(), shown(head)))
                .collect(),
            key: self.key.public().thumbprint(),
            signature: String::new(),
        };
        let text = serde_json::to_string(&checkpoint).expect("texts and numbers");
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(text.as_bytes()));
        let line = format!("{text}\t{signature}");
        if let Err(error) = append(&self.file, &line) {
            tracing::error!(file = %self.file.display(), %error, "a checkpoint of the audit log was not written");
            return None;
        }
        *seen = Seen {
            number: checkpoint.number,
            line_hash: hash_of(&line),
            heads,
            at: self.clock.now(),
        };
        Some(AuditCheckpoint {
            signature,
            ..checkpoint
        })
    }

    /// The last one of a host is in the file: a broker that has ended with the host is not waited for.
    async fn tell(&self, checkpoint: AuditCheckpoint, is_last: bool) {
        if let Some(bus) = &self.bus
            && (!is_last || bus.status().connected)
            && let Err(error) = bus.set(CHECKPOINT, &[], &checkpoint).await
        {
            // The bus remembers it and says it on the next connection.
            tracing::debug!(%error, "a checkpoint was not told yet");
        }
        self.last.send_replace(Some(checkpoint));
    }
}

fn read_heads(directory: &Path) -> Result<BTreeMap<String, chain::Head>, PageError> {
    let mut heads = BTreeMap::new();
    for (module, path) in databases(directory)? {
        heads.insert(module, chain::head(&open_to_read(&path)?)?);
    }
    Ok(heads)
}

fn shown(head: &chain::Head) -> AuditHead {
    AuditHead {
        rows: head.rows,
        id: head.id,
        hash: hex(&head.hash),
    }
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    let mut options = OpenOptions::new();
    let mut file: File = options
        .create(true)
        .append(true)
        .mode(FILE_MODE)
        .open(path)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}
