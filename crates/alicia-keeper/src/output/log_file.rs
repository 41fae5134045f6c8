//! One log file: lines in whole batches, put aside by size and age, never torn, never in the way.
//!
//! ```text
//!            write fails: lines counted
//!   good ───────────────────────────────► failing ─┐ every further batch and, once a second, a timer
//!     ▲                                      │     │ try to write the marker line
//!     └──── marker line is written ──────────┘ ◄───┘
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::flood::Flood;
use crate::clock::{self, STAMP_BYTES};
use crate::logs::{self, LineKind, Stream};
use crate::protocol::LogSpec;

/// Readable for the keeper's user only: output may hold secrets.
const FILE_MODE: u32 = 0o600;
/// A torn last line is looked for in this much of the file's end: it is longer than any line.
const TAIL_BYTES: u64 = 64 * 1024;
/// A smaller file is not put aside by age: a log that says a line a day would be all files.
const AGED_SEGMENT_S_MIN: u64 = 60;
/// After a rename failed, the file grows on for this long before the next try.
const ROTATE_RETRY_US: u64 = 10_000_000;
const US_PER_S: u64 = 1_000_000;
/// A flood that goes on is told this often.
const FLOOD_TOLD_INTERVAL_US: u64 = US_PER_S;

/// A log that is written.
#[derive(Debug)]
pub(crate) struct LogFile {
    spec: LogSpec,
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    /// Time of the first line; 0 while there is none.
    begun_us: u64,
    /// Number of the newest file put aside, once it was looked for.
    number: Option<u64>,
    rotate_not_before_us: u64,
    flood: Option<Flood>,
    /// Lines that a flood lost and that nobody was told of, and when somebody was told last.
    flood_untold: u64,
    flood_told_us: u64,
    failing: Option<String>,
    dropped: u64,
    dropped_in_all: u64,
}

/// What changed for the log while a batch was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The system's message; `None` when it works again.
    pub(crate) error: Option<String>,
    pub(crate) lines_dropped: u64,
    /// Lost because there were too many, not because of the disk.
    pub(crate) is_flood: bool,
}

/// A log in the state that an upgrade hands over; the file itself says the rest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogState {
    pub(crate) spec: LogSpec,
    failing: Option<String>,
    dropped: u64,
    dropped_in_all: u64,
}

/// Lines on their way into a file. The buffer is the keeper's own, lent from batch to batch.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    log: &'a mut LogFile,
    buffer: &'a mut Vec<u8>,
    lines: u64,
    now_us: u64,
    stamp: [u8; STAMP_BYTES],
    trouble: Option<Trouble>,
}

// === impl LogFile ===

impl LogFile {
    /// Opens the file for append. A full or broken disk is no error: the log begins in trouble.
    ///
    /// # Errors
    /// What the host must mend: no such directory can be made, no right to write.
    pub(crate) fn open(spec: LogSpec) -> io::Result<Self> {
        let path = spec.path();
        let mut log = Self {
            flood: spec.lines_per_s_max.map(Flood::new),
            spec,
            path,
            file: None,
            bytes: 0,
            begun_us: 0,
            number: None,
            rotate_not_before_us: 0,
            flood_untold: 0,
            flood_told_us: 0,
            failing: None,
            dropped: 0,
            dropped_in_all: 0,
        };
        match fs::create_dir_all(&log.spec.directory).and_then(|()| log.reopen()) {
            Err(error) if is_of_the_disk(&error) => log.failing = Some(error.to_string()),
            result => result?,
        }
        Ok(log)
    }

    pub(crate) fn state(&self) -> LogState {
        LogState {
            spec: self.spec.clone(),
            failing: self.failing.clone(),
            dropped: self.dropped,
            dropped_in_all: self.dropped_in_all,
        }
    }

    pub(crate) fn restore(&mut self, state: LogState) {
        self.failing = state.failing.or(self.failing.take());
        self.dropped = state.dropped;
        self.dropped_in_all = state.dropped_in_all;
    }

    /// Takes over the limits of a later start.
    pub(crate) fn set_spec(&mut self, spec: LogSpec) {
        if spec.lines_per_s_max != self.spec.lines_per_s_max {
            self.flood = spec.lines_per_s_max.map(Flood::new);
        }
        self.spec = spec;
    }

    pub(crate) fn dropped_in_all(&self) -> u64 {
        self.dropped_in_all
    }

    /// A marker line waits to be written.
    pub(crate) fn owes_marker(&self) -> bool {
        self.dropped > 0 || self.flood.as_ref().is_some_and(|flood| flood.dropped() > 0)
    }

    /// Begins a batch; all its lines get this time.
    pub(crate) fn batch<'a>(&'a mut self, buffer: &'a mut Vec<u8>, now_us: u64) -> Batch<'a> {
        buffer.clear();
        let stamp = clock::stamp(now_us);
        Batch {
            log: self,
            buffer,
            lines: 0,
            now_us,
            stamp,
            trouble: None,
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(&self.path)?;
        self.bytes = mend(&file)?;
        self.begun_us = first_stamp(&file).unwrap_or_default();
        self.file = Some(file);
        Ok(())
    }

    fn is_due(&self, bytes: u64, now_us: u64) -> bool {
        if self.bytes == 0 || now_us < self.rotate_not_before_us {
            return false;
        }
        self.bytes + bytes > self.spec.bytes_max || self.is_aged(now_us)
    }

    /// With `files_max` files for `age_s_max`, each covers its share.
    fn is_aged(&self, now_us: u64) -> bool {
        self.spec.age_s_max.is_some_and(|age_s| {
            let share_s = (age_s / u64::from(self.spec.files_max.max(1))).max(AGED_SEGMENT_S_MIN);
            self.begun_us > 0 && now_us.saturating_sub(self.begun_us) > share_s * US_PER_S
        })
    }

    fn rotate(&mut self, now_us: u64) {
        // A directory of a thousand logs takes its time, and most logs are never put aside.
        let newest = || Some(logs::put_aside(&self.path).ok()?.last()?.number);
        let number = self.number.or_else(newest).unwrap_or(0) + 1;
        let aside = logs::numbered(&self.path, number);
        if fs::rename(&self.path, aside).is_err() {
            self.rotate_not_before_us = now_us + ROTATE_RETRY_US;
            return;
        }
        self.number = Some(number);
        self.file = None;
        if let Err(error) = self.reopen() {
            self.failing = Some(error.to_string());
        }
        self.remove_old(number, now_us);
    }

    fn remove_old(&self, newest: u64, now_us: u64) {
        let keep = u64::from(self.spec.files_max.max(1)) - 1;
        for aside in logs::put_aside(&self.path).unwrap_or_default() {
            if aside.number + keep <= newest || self.is_expired(&aside.path, now_us) {
                // The next rotation tries again.
                drop(fs::remove_file(aside.path));
            }
        }
    }

    fn is_expired(&self, path: &Path, now_us: u64) -> bool {
        let Some(age_s) = self.spec.age_s_max else {
            return false;
        };
        let written = fs::metadata(path).and_then(|metadata| metadata.modified());
        let written_s = written
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        written_s.is_some_and(|written| written.as_secs() + age_s < now_us / US_PER_S)
    }

    /// Writes whole lines; what cannot be written is cut off again at the end of the last whole line.
    /// Returns how many lines are in the file, and the error if those are not all.
    fn write(&mut self, bytes: &[u8]) -> (u64, Option<io::Error>) {
        if self.file.is_none()
            && let Err(error) = self.reopen()
        {
            return (0, Some(error));
        }
        let Some(file) = &mut self.file else {
            return (0, None);
        };
        let mut written = 0;
        let error = loop {
            if written == bytes.len() {
                break None;
            }
            match file.write(&bytes[written..]) {
                Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        let whole = bytes[..written]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.bytes += whole as u64;
        if whole < written && file.set_len(self.bytes).is_err() {
            // Then the torn end is mended at the next opening.
            self.file = None;
        }
        (count_lines(&bytes[..whole]), error)
    }
}

// === impl Batch ===

impl Batch<'_> {
    /// Adds a line.
    pub(crate) fn push(&mut self, (stream, kind): (Stream, LineKind), text: &[u8]) {
        if let Some(flood) = &mut self.log.flood {
            if !flood.admit(self.now_us) {
                self.log.dropped_in_all += 1;
                return;
            }
            if flood.dropped() > 0 {
                self.pay_flood_marker();
                self.tell_flood(FLOOD_TOLD_INTERVAL_US);
            }
        }
        self.add((stream, kind), text);
    }

    /// Writes what there is, the markers that are owed included.
    pub(crate) fn finish(mut self) -> Option<Trouble> {
        self.flush();
        self.trouble
    }

    /// As `finish`, and says too what a flood lost: for a log that is closed or was silent for a while.
    pub(crate) fn finish_with_markers(mut self) -> Option<Trouble> {
        if let Some(flood) = &mut self.log.flood
            && flood.dropped() > 0
        {
            self.pay_flood_marker();
        }
        self.tell_flood(0);
        self.flush();
        self.trouble
    }

    fn pay_flood_marker(&mut self) {
        if let Some(flood) = &mut self.log.flood {
            self.log.flood_untold += flood.dropped();
            let marker = flood_marker(flood);
            self.add((Stream::Keeper, LineKind::Full), marker.as_bytes());
        }
    }

    /// Trouble of the disk is told first.
    fn tell_flood(&mut self, interval_us: u64) {
        let is_due = self.now_us.saturating_sub(self.log.flood_told_us) >= interval_us;
        if self.log.flood_untold > 0 && is_due && self.trouble.is_none() {
            self.log.flood_told_us = self.now_us;
            self.trouble = Some(Trouble {
                error: None,
                lines_dropped: std::mem::take(&mut self.log.flood_untold),
                is_flood: true,
            });
        }
    }

    fn add(&mut self, origin: (Stream, LineKind), text: &[u8]) {
        let bytes = logs::line_bytes(text) + self.buffer.len() as u64;
        if self.log.is_due(bytes, self.now_us) || self.overflows(bytes) {
            self.flush();
            if self.log.is_due(logs::line_bytes(text), self.now_us) {
                self.log.rotate(self.now_us);
            }
        }
        logs::format(self.buffer, &self.stamp, origin, text);
        self.lines += 1;
    }

    /// A batch that begins in an empty file may still be larger than the file may become.
    fn overflows(&self, bytes: u64) -> bool {
        !self.buffer.is_empty() && self.log.bytes + bytes > self.log.spec.bytes_max
    }

    fn flush(&mut self) {
        if !self.pay_marker() {
            self.lose(self.lines);
        } else if !self.buffer.is_empty() {
            if self.log.begun_us == 0 {
                self.log.begun_us = self.now_us;
            }
            let (written, error) = self.log.write(self.buffer);
            if let Some(error) = error {
                self.fail(&error);
                self.lose(self.lines - written);
            }
        }
        self.buffer.clear();
        self.lines = 0;
    }

    /// Writes the line about lost lines, if one is owed. False: the log still cannot be written.
    fn pay_marker(&mut self) -> bool {
        let Some(reason) = self.log.failing.clone() else {
            return true;
        };
        if self.log.dropped == 0 && self.buffer.is_empty() {
            return true;
        }
        let mut marker = Vec::new();
        let text = format!("{} lines lost: {reason}", self.log.dropped);
        let origin = (Stream::Keeper, LineKind::Full);
        if self.log.dropped > 0 {
            logs::format(&mut marker, &self.stamp, origin, text.as_bytes());
        }
        let (_, error) = self.log.write(&marker);
        if let Some(error) = error {
            self.fail(&error);
            return false;
        }
        self.log.failing = None;
        self.trouble = Some(Trouble {
            error: None,
            lines_dropped: self.log.dropped,
            is_flood: false,
        });
        self.log.dropped = 0;
        true
    }

    fn fail(&mut self, error: &io::Error) {
        let message = error.to_string();
        if self.log.failing.as_ref() != Some(&message) {
            let lines_dropped = self.log.dropped + self.lines;
            self.trouble = Some(Trouble {
                error: Some(message.clone()),
                lines_dropped,
                is_flood: false,
            });
        }
        self.log.failing = Some(message);
    }

    fn lose(&mut self, lines: u64) {
        self.log.dropped += lines;
        self.log.dropped_in_all += lines;
    }
}

fn flood_marker(flood: &mut Flood) -> String {
    let rate = flood.lines_per_s();
    format!(
        "{} lines dropped: more than {rate} a second",
        flood.take_dropped()
    )
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Faults that pass: the service runs on, only its log suffers.
fn is_of_the_disk(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSPC | libc::EDQUOT | libc::EIO | libc::EROFS | libc::EFBIG | libc::ESTALE)
    )
}

/// Cuts off a last line without line feed, which a keeper left that was killed while it wrote. Returns the
/// length of the file.
fn mend(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL_BYTES);
    let mut tail = vec![0; usize::try_from(length - from).unwrap_or_default()];
    file.read_exact_at(&mut tail, from)?;
    let whole = match tail.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => from + at as u64 + 1,
        None => from,
    };
    if whole < length {
        file.set_len(whole)?;
    }
    Ok(whole)
}

fn first_stamp(file: &File) -> Option<u64> {
    let mut stamp = [0; STAMP_BYTES];
    file.read_exact_at(&mut stamp, 0).ok()?;
    clock::parse_stamp(&stamp)
}
