//! Which file, which data directory, which host: found in the same way by every command.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use alicia_contract::platform::HostFile;
use alicia_file::{Fault, Sources};
use alicia_host::{Loaded, load};
use alicia_module::Paths;
use anyhow::Context as _;

use crate::cli::Global;
use crate::failure::{Failure, Outcome};
use crate::modules::MODULES;

/// The fleet that runs when there is no file: small services that need nothing else.
pub(crate) const HOME_FLEET: &str = include_str!("home.yaml");

/// How faults name the built-in fleet.
const HOME_FLEET_NAME: &str = "(built-in example)";

/// How faults name a text that was sent to a host.
const SENT_NAME: &str = "(sent)";

/// Variables that start with `ALICIA_` and are no settings of the file.
const NOT_SETTINGS: &[&str] = &[
    "ALICIA_FILE",
    "ALICIA_DATA",
    "ALICIA_API",
    "ALICIA_API_URL",
    "ALICIA_KEY",
    "ALICIA_SERVICE",
    "ALICIA_INSTANCE",
    "ALICIA_SLOT",
    "ALICIA_EPOCH",
    "ALICIA_FD_*",
    "ALICIA_RESUME",
    "ALICIA_STATE_DIR",
    "ALICIA_MQTT_*",
    "ALICIA_TOKEN_FILE",
    "ALICIA_TOPIC_PREFIX",
    "ALICIA_FAILPOINT",
    "ALICIA_REQUIRE_ALL",
];

/// The kernel knows the time of the boot in whole seconds only.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// Where the fleet is described.
#[derive(Debug, Clone)]
pub(crate) enum FleetFile {
    /// A file, or a directory of fragments.
    Path(PathBuf),
    /// The built-in example.
    Home,
}

impl FleetFile {
    /// `--file`, else `$ALICIA_FILE` (clap reads it), else `./alicia.yaml`, else the built-in example.
    pub(crate) fn find(global: &Global) -> Self {
        let beside = || Some(PathBuf::from("alicia.yaml")).filter(|path| path.exists());
        global
            .file
            .clone()
            .or_else(beside)
            .map_or(Self::Home, Self::Path)
    }

    /// Reads and checks the file.
    pub(crate) fn load(&self, global: &Global) -> Result<Loaded, Vec<Fault>> {
        self.load_text(global, None)
    }

    /// Checks a text as if it stood in the file; without one, the file.
    pub(crate) fn load_text(
        &self,
        global: &Global,
        text: Option<String>,
    ) -> Result<Loaded, Vec<Fault>> {
        let mut sources = Sources::new();
        let base = match self {
            Self::Path(path) if text.is_some() => directory_of(path),
            Self::Path(path) => {
                sources = sources.path(path)?;
                directory_of(path)
            }
            Self::Home => {
                if text.is_none() {
                    sources = sources.file(HOME_FLEET_NAME, HOME_FLEET);
                }
                std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
            }
        };
        if let Some(text) = text {
            sources = sources.file(SENT_NAME, text);
        }
        let sources = sources
            .environment(std::env::vars(), NOT_SETTINGS)
            .flags(global.flags());
        load(sources, &base, MODULES)
    }
}

/// The absolute directory in which a file lies; a directory of fragments is its own.
fn directory_of(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let directory = if path.is_dir() {
        Some(path.as_path())
    } else {
        path.parent()
    };
    directory.map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

/// Reads and checks the file that these options mean.
pub(crate) fn load_file(global: &Global) -> Outcome<Loaded> {
    FleetFile::find(global)
        .load(global)
        .map_err(|faults| Failure::Faults {
            faults,
            json: global.json,
        })
}

/// The data directory: `--data`, else `$ALICIA_DATA` (clap reads it), else the file's `data:`, else
/// `$XDG_STATE_HOME/alicia`, else `~/.local/state/alicia`.
pub(crate) fn data_directory(global: &Global, loaded: Option<&Loaded>) -> Outcome<PathBuf> {
    let of_file = || Some(loaded?.base.join(loaded?.settings.data.as_ref()?));
    let of_user = || {
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        state
            .filter(|path| path.is_absolute())
            .or_else(home)
            .map(|state| state.join("alicia"))
    };
    let directory = global
        .data
        .clone()
        .or_else(of_file)
        .or_else(of_user)
        .ok_or_else(|| {
            Failure::Usage(
                "there is no $HOME to keep data in: name a directory with --data DIR".to_owned(),
            )
        })?;
    Ok(std::path::absolute(directory)?)
}

/// Makes a directory that only this user may enter, as the data directory is: it holds keys.
pub(crate) fn make_private(directory: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.with_context(|| {
        let directory = directory.display();
        format!("make the data directory {directory}; choose another one with --data DIR")
    })
}

/// Where things lie, for commands that talk to a host. A faulty file must not keep one from asking the host
/// that runs, so that only `data:` is of interest here.
pub(crate) fn paths(global: &Global) -> Outcome<Paths> {
    let loaded = if global.data.is_some() {
        None
    } else {
        FleetFile::find(global).load(global).ok()
    };
    let data = data_directory(global, loaded.as_ref())?;
    Ok(Paths::new(data, "."))
}

/// The host that runs on a data directory, as it wrote itself down; `None` when there is none.
pub(crate) fn running_host(paths: &Paths) -> Option<HostFile> {
    let text = std::fs::read(paths.host_file()).ok()?;
    let host: HostFile = serde_json::from_slice(&text).ok()?;
    let written = std::fs::metadata(paths.host_file()).ok()?.modified().ok()?;
    is_alive(host.pid, written.duration_since(UNIX_EPOCH).ok()?).then_some(host)
}

/// Whether a process of this id runs that was there at this time since 1970. One that was killed stays a
/// zombie until its parent looks, and an id that is younger belongs to somebody else.
fn is_alive(pid: u32, since_epoch: Duration) -> bool {
    started(pid).is_some_and(|start| start <= since_epoch + CLOCK_SLACK)
}

/// When a process started, since 1970; `None` when there is none, or only a zombie (proc(5), `/proc/pid/stat`).
fn started(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name, in brackets, and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start_ticks: u64 = fields.nth(18)?.parse().ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot_s: u64 = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    let start = Duration::from_secs(boot_s)
        + Duration::from_secs(start_ticks)
            / u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    (!matches!(state, "Z" | "X")).then_some(start)
}

/// The program file of this very process.
pub(crate) fn program() -> Outcome<PathBuf> {
    Ok(std::env::current_exe().context("find the program file of alicia")?)
}
