//! The logs that lie: files that were put aside are packed, and the oldest go when there are too many or they are too old.
//!
//! The keeper writes, puts aside and limits each slot by itself; what costs time or looks at all of them is done here, by
//! the host, one file at a time. Without a host nothing is lost: plain files wait.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use alicia_keeper::Client;
use alicia_keeper::logs::packed::{Packed, pack};
use alicia_keeper::logs::{Aside, put_aside};
use alicia_module::{Context, Exposition};
use tokio::sync::watch;

use crate::config::{Config, LogLimits};

/// How often is looked for files. A file of 10 MiB fills in a second at the worst; plain, a few of them wait.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A plain file this young may still be read by those who follow it.
const AGE_MIN: Duration = Duration::from_secs(5);

/// What was done, for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    files: AtomicU64,
    lines: AtomicU64,
    plain_bytes: AtomicU64,
    packed_bytes: AtomicU64,
    removed: AtomicU64,
    failures: AtomicU64,
    kept_bytes: AtomicU64,
    lines_dropped: AtomicU64,
}

// === impl Counts ===

impl Counts {
    fn packed(&self, packed: &Packed) {
        self.files.fetch_add(1, Relaxed);
        self.lines.fetch_add(packed.lines, Relaxed);
        self.plain_bytes.fetch_add(packed.plain_bytes, Relaxed);
        self.packed_bytes.fetch_add(packed.packed_bytes, Relaxed);
    }

    /// Writes the metrics.
    pub(crate) fn write(&self, out: &mut Exposition) {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let get = |count: &AtomicU64| count.load(Relaxed) as f64;
        let counters = [
            (
                "log_files_packed_total",
                "Log files that were packed.",
                &self.files,
            ),
            ("log_lines_packed_total", "Lines in them.", &self.lines),
            (
                "log_plain_bytes_total",
                "Their bytes before.",
                &self.plain_bytes,
            ),
            (
                "log_packed_bytes_total",
                "Their bytes afterwards.",
                &self.packed_bytes,
            ),
            (
                "log_files_removed_total",
                "Log files that were removed for age or size.",
                &self.removed,
            ),
            (
                "log_failures_total",
                "Log files that could not be packed or removed.",
                &self.failures,
            ),
            (
                "log_lines_dropped_total",
                "Lines that are missing, for a flood or a full disk, since the keeper started.",
                &self.lines_dropped,
            ),
        ];
        for (name, help, count) in counters {
            out.counter(name, help, &[], get(count));
        }
        let help = "Bytes of all log files that were put aside.";
        out.gauge("log_kept_bytes", help, &[], get(&self.kept_bytes));
    }
}

/// Packs and removes until the module ends.
pub(crate) async fn run(
    cx: Context,
    counts: Arc<Counts>,
    config: watch::Receiver<Config>,
    keeper: watch::Receiver<Option<Client>>,
) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let client = keeper.borrow().clone();
        if let Some(client) = client
            && let Ok(stats) = client.stats().await
        {
            counts.lines_dropped.store(stats.lines_dropped, Relaxed);
        }
        let limits = config.borrow().logs.clone();
        let (logs, host_log) = (cx.paths.logs(), cx.paths.host_log());
        let (counts, now) = (
            counts.clone(),
            SystemTime::UNIX_EPOCH + Duration::from_secs_f64(cx.clock.unix()),
        );
        let work = move || {
            let files = files(&logs, &host_log).unwrap_or_else(|error| {
                tracing::warn!(%error, "the directory of logs was not read");
                Vec::new()
            });
            let files = pack_all(files, now, &counts);
            retain(files, &limits, now, &counts);
        };
        if tokio::task::spawn_blocking(work).await.is_err() {
            return;
        }
    }
}

/// A file that was put aside, with what decides about it.
#[derive(Debug, Clone)]
struct Kept {
    aside: Aside,
    written: SystemTime,
    bytes: u64,
}

/// Every file that was put aside: of each slot of each service, and of the host.
fn files(logs: &Path, host_log: &Path) -> io::Result<Vec<Kept>> {
    let mut current = vec![host_log.to_owned()];
    for directory in entries(logs)? {
        for path in entries(&directory).unwrap_or_default() {
            // Of a slot that is gone only files put aside may be left.
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if let Some(end) = name.find(".log") {
                current.push(directory.join(&name[..end + ".log".len()]));
            }
        }
    }
    current.sort();
    current.dedup();
    let asides = current
        .iter()
        .flat_map(|path| put_aside(path).unwrap_or_default());
    Ok(asides.filter_map(kept).collect())
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// One that the keeper removed in this moment is none.
fn kept(aside: Aside) -> Option<Kept> {
    let metadata = fs::metadata(&aside.path).ok()?;
    Some(Kept {
        written: metadata.modified().ok()?,
        bytes: metadata.len(),
        aside,
    })
}

fn pack_all(files: Vec<Kept>, now: SystemTime, counts: &Counts) -> Vec<Kept> {
    let age = |file: &Kept| now.duration_since(file.written).unwrap_or_default();
    let mut all = Vec::new();
    for file in files {
        if file.aside.is_packed || age(&file) < AGE_MIN {
            all.push(file);
            continue;
        }
        match pack(&file.aside.path) {
            Ok(packed) => {
                counts.packed(&packed);
                let mut path = file.aside.path.clone().into_os_string();
                path.push(".zst");
                all.extend(kept(Aside {
                    path: path.into(),
                    is_packed: true,
                    ..file.aside
                }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                counts.failures.fetch_add(1, Relaxed);
                tracing::warn!(path = %file.aside.path.display(), %error, "a log was not packed");
                all.push(file);
            }
        }
    }
    all
}

/// Whole files go, the oldest first.
fn retain(mut files: Vec<Kept>, limits: &LogLimits, now: SystemTime, counts: &Counts) {
    files.sort_by_key(|file| file.written);
    let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
    for file in files {
        let age = now.duration_since(file.written).unwrap_or_default();
        if bytes <= limits.total_size.bytes() && age <= limits.max_age.duration() {
            break;
        }
        match fs::remove_file(&file.aside.path) {
            Ok(()) => {
                counts.removed.fetch_add(1, Relaxed);
                bytes -= file.bytes;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => bytes -= file.bytes,
            Err(error) => {
                counts.failures.fetch_add(1, Relaxed);
                tracing::warn!(path = %file.aside.path.display(), %error, "an old log was not removed");
            }
        }
    }
    counts.kept_bytes.store(bytes, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_contract::{ByteSize, Period};

    const DAY: Duration = Duration::from_secs(86_400);

    fn put(path: &Path, bytes: usize, age: Duration, now: SystemTime) {
        fs::create_dir_all(path.parent().expect("a directory")).expect("it is made");
        fs::write(path, vec![b'x'; bytes]).expect("a file");
        let file = fs::File::options()
            .write(true)
            .open(path)
            .expect("it is there");
        file.set_modified(now - age).expect("its time is set");
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = entries(directory)
            .expect("it is read")
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_packed_and_the_oldest_go_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let (logs, host_log) = (
            directory.path().join("logs"),
            directory.path().join("host.log"),
        );
        for number in 1..=4 {
            put(
                &logs.join(format!("api/1.log.{number}")),
                2_000,
                DAY * (10 - number),
                now,
            );
        }
        put(&logs.join("api/1.log"), 100, Duration::ZERO, now);
        put(&logs.join("gone/2.log.7"), 1_000, DAY * 40, now);
        put(&logs.join("api/1.log.5"), 10, Duration::ZERO, now);
        put(&directory.path().join("host.log.1"), 500, DAY, now);
        let counts = Counts::default();
        let packed = pack_all(files(&logs, &host_log).expect("files"), now, &counts);
        assert_eq!(
            names(&logs.join("api")),
            [
                "1.log",
                "1.log.1.zst",
                "1.log.2.zst",
                "1.log.3.zst",
                "1.log.4.zst",
                "1.log.5"
            ]
        );
        assert_eq!(names(&logs.join("gone")), ["2.log.7.zst"]);
        assert_eq!(counts.files.load(Relaxed), 6);
        let by_age = LogLimits {
            total_size: ByteSize::mib(1),
            max_age: Period::from_secs(30 * 86_400),
        };
        retain(packed, &by_age, now, &counts);
        assert!(names(&logs.join("gone")).is_empty());
        assert_eq!(names(&logs.join("api")).len(), 6);
        let left = files(&logs, &host_log).expect("files");
        let bytes: u64 = left.iter().map(|file| file.bytes).sum();
        let oldest = left
            .iter()
            .find(|file| file.aside.number == 1 && file.aside.path.starts_with(&logs));
        let limit = bytes - oldest.expect("it is there").bytes;
        let by_size = LogLimits {
            total_size: ByteSize(limit),
            ..by_age
        };
        retain(left, &by_size, now, &counts);
        assert_eq!(
            names(&logs.join("api")),
            [
                "1.log",
                "1.log.2.zst",
                "1.log.3.zst",
                "1.log.4.zst",
                "1.log.5"
            ]
        );
        assert_eq!(counts.kept_bytes.load(Relaxed), limit);
        assert!(directory.path().join("host.log.1.zst").exists());
    }
}
