//! The log of Alicia itself: text on a terminal, JSON elsewhere, filtered by level and module.

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use alicia_host::settings::{LogFormat, LogSettings};
use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::failure::Outcome;
use crate::place;

/// Starts the log on standard error.
pub(crate) fn start(settings: &LogSettings) {
    let on_terminal = std::io::stderr().is_terminal();
    let as_json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !on_terminal,
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter(settings))
        .with_writer(std::io::stderr);
    if as_json {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(on_terminal).init();
    }
}

/// Starts the log in a file, for a host whose terminal shows a table.
pub(crate) fn start_in_file(settings: &LogSettings, path: &Path) -> Outcome<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    place::make_private(directory)?;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter(settings))
        .with_writer(file);
    match settings.format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Auto | LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
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
