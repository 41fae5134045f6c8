//! Files of other supervisors become services of `alicia.yaml`.
//!
//! ```text
//! FileText ──read as its format──▶ Draft ──to_yaml──▶ the text of an alicia.yaml
//!                                   └ notes: what was not carried over, and why
//! ```
//!
//! What has no counterpart is never dropped in silence: it is a note, with the place in the file it came from. The
//! behaviour that the other program has by default (pm2 stops with SIGINT, systemd does not restart) is written out.

use std::collections::BTreeMap;

use alicia_file::{Fault, FileText};

pub use draft::{Draft, Note, Service};

mod compose;
mod draft;
mod ini;
mod pm2;
mod process_compose;
mod procfile;
mod quantity;
mod reading;
mod shell;
mod supervisord;
mod systemd;
mod write;

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `compose.yaml` of Docker or Podman (the Compose specification).
    Compose,
    /// `supervisord.conf`.
    Supervisord,
    /// The ecosystem file of pm2, as JSON or YAML.
    Pm2,
    /// `process-compose.yaml`.
    ProcessCompose,
    /// `Procfile`, as foreman and Heroku read it.
    Procfile,
    /// Unit files of systemd.
    Systemd,
}

/// What is around the files.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Variables for `${NAME}` in compose files: those of `.env` beside the file, and of the shell.
    pub variables: BTreeMap<String, String>,
    /// Whether there is a file `.env` beside it, which foreman and process-compose read by themselves.
    pub has_env_file: bool,
}

impl Format {
    /// Every format with the name that the command line has for it.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Compose, "compose"),
        (Self::Supervisord, "supervisord"),
        (Self::Pm2, "pm2"),
        (Self::ProcessCompose, "process-compose"),
        (Self::Procfile, "procfile"),
        (Self::Systemd, "systemd"),
    ];
}

/// Reads the files of one format together.
///
/// # Errors
/// Every fault of every file: text that cannot be read as the format, or a service that is in two of them.
pub fn import(
    format: Format,
    files: Vec<FileText>,
    around: &Surroundings,
) -> Result<Draft, Vec<Fault>> {
    let mut draft = match format {
        Format::Compose => compose::read(files, around),
        Format::Supervisord => supervisord::read(files),
        Format::Pm2 => pm2::read(files),
        Format::ProcessCompose => process_compose::read(files, around),
        Format::Procfile => procfile::read(files, around),
        Format::Systemd => systemd::read(files),
    }?;
    draft.finish();
    Ok(draft)
}
