//! The log of Alicia itself: always in `host.log`, as JSON, for people and for `alicia logs --host`; and on standard error,
//! as text on a terminal, unless a table is there. Filtered by level and module.
//!
//! `host.log` is put aside at 10 MiB, as `host.log.<number>`; the host packs what was put aside, and removes the oldest.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use alicia_host::settings::{LogFormat, LogSettings};
use alicia_keeper::logs::put_aside;
use anyhow::Context as _;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::failure::Outcome;
use crate::place;

/// Size at which `host.log` is put aside.
const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// Readable for the owner only.
const FILE_MODE: u32 = 0o600;

/// Where the log goes beside the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// A table has the terminal.
    Nothing,
    /// Standard error, unless that is the file already.
    Stderr,
}

/// Starts the log on standard error alone, for a module that runs by itself.
pub(crate) fn start(settings: &LogSettings) {
    tracing_subscriber::registry()
        .with(filter(settings))
        .with(on_stderr(settings))
        .init();
}

/// Starts the log of a host.
pub(crate) fn start_in_file(settings: &LogSettings, path: &Path, beside: Beside) -> Outcome<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    place::make_private(directory)?;
    let file = LogFile::open(path).with_context(|| format!("open {}", path.display()))?;
    let is_stderr = file.is_stderr();
    let file = Mutex::new(file);
    let in_file = match settings.format {
        LogFormat::Text => fmt::layer().with_ansi(false).with_writer(file).boxed(),
        LogFormat::Auto | LogFormat::Json => json_layer().with_writer(file).boxed(),
    };
    let beside = (beside == Beside::Stderr && !is_stderr).then(|| on_stderr(settings));
    tracing_subscriber::registry()
        .with(filter(settings))
        .with(in_file)
        .with(beside)
        .init();
    tell_panics();
    Ok(())
}

type BoxedLayer<S> = Box<dyn Layer<S> + Send + Sync>;

fn on_stderr<S>(settings: &LogSettings) -> BoxedLayer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let on_terminal = io::stderr().is_terminal();
    let as_json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !on_terminal,
    };
    if as_json {
        json_layer().with_writer(io::stderr).boxed()
    } else {
        fmt::layer()
            .with_ansi(on_terminal)
            .with_writer(io::stderr)
            .boxed()
    }
}

/// One object a line; the ids of the request stand in `span`.
fn json_layer<S>() -> fmt::Layer<S, fmt::format::JsonFields, fmt::format::Format<fmt::format::Json>>
{
    fmt::layer()
        .json()
        .flatten_event(true)
        .with_span_list(false)
}

/// A panic is in the log too, as the gravest level; standard error may be read by nobody.
fn tell_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("a value that is no text");
        tracing::error!(fatal = true, place, "panic: {text}");
        before(panic);
    }));
}

/// `host.log`, put aside when it is full. Lines are never torn: each is one write.
struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

// === impl LogFile ===

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .append(true)
            .mode(FILE_MODE)
            .open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
        })
    }

    /// Whether standard error is this very file: that of a host in the background.
    fn is_stderr(&self) -> bool {
        let same = || {
            let (ours, stderr) = (
                self.file.metadata().ok()?,
                rustix::fs::fstat(io::stderr()).ok()?,
            );
            Some((ours.dev(), ours.ino()) == (stderr.st_dev, stderr.st_ino))
        };
        same().unwrap_or_default()
    }

    /// Where it cannot be put aside it grows on: a line more is better than none.
    fn put_aside(&mut self) {
        let next = || {
            let newest = put_aside(&self.path)?
                .last()
                .map_or(0, |aside| aside.number);
            let mut aside = self.path.clone().into_os_string();
            aside.push(format!(".{}", newest + 1));
            std::fs::rename(&self.path, aside)?;
            Self::open(&self.path)
        };
        match next() {
            Ok(next) => *self = next,
            Err(_) => self.bytes = 0,
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes > 0 && self.bytes + bytes.len() as u64 > FILE_BYTES_MAX {
            self.put_aside();
        }
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A filter that cannot be read is told and replaced by `info`.
fn filter(settings: &LogSettings) -> EnvFilter {
    EnvFilter::try_new(&settings.level).unwrap_or_else(|error| {
        eprintln!(
            "warning: log.level {:?} cannot be read ({error}); using info",
            settings.level
        );
        EnvFilter::new("info")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_no_line_is_torn() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("host.log");
        let mut file = LogFile::open(&path).expect("it is made");
        let line = format!("{}\n", "x".repeat(999_999));
        for _ in 0..25 {
            file.write_all(line.as_bytes()).expect("it is written");
        }
        let aside = put_aside(&path).expect("it is read");
        assert_eq!(
            aside.iter().map(|aside| aside.number).collect::<Vec<_>>(),
            [1, 2]
        );
        let files = aside
            .iter()
            .map(|aside| aside.path.clone())
            .chain([path.clone()]);
        let mut lines = 0;
        for file in files {
            let metadata = std::fs::metadata(&file).expect("it is there");
            assert!(metadata.len() <= FILE_BYTES_MAX && metadata.len() % line.len() as u64 == 0);
            assert_eq!(metadata.mode() & 0o777, 0o600);
            lines += metadata.len() / line.len() as u64;
        }
        assert_eq!(lines, 25);
    }
}
