//! One start: from the settings of a service to the keeper's answer.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alicia_contract::fleet::ServiceSpec;
use alicia_contract::identity;
use alicia_contract::{InstanceId, ServiceName};
use alicia_failpoint::failpoint;
use alicia_file::machine::{Here, Machine, directory_of};
use alicia_file::{env_file, fleet};
use alicia_identity::{Authority, Beginning, Identity};
use alicia_keeper::protocol::{LogSpec, PassedFile, StartSpec};
use alicia_keeper::{Client, Error as KeeperError};
use alicia_module::Clock;
use alicia_module::context::{Addresses, ExternalBus};
use alicia_module::paths::Paths;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::confine::{self, Own};
use super::container;
use super::convert::{self, Labels};
use super::environment::{self, Told, Variables};
use super::reach::Doors;
use super::secrets;
use super::session;
use super::sockets::{self, Socket};
use crate::core::event::{Spawn, SpawnFault};

/// Others may pass through, but not list: a service that runs as another user opens its own file by name.
const CREDENTIALS_MODE: u32 = 0o711;
/// Only the service reads it.
const TOKEN_MODE: u32 = 0o600;
/// The name under which their directory is passed.
const CREDENTIALS: &str = "credentials";

/// Everything around a start that is the same for all.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) base: Variables,
    pub(crate) paths: Paths,
    /// The program file of Alicia itself.
    pub(crate) program: PathBuf,
    pub(crate) identity: Authority,
    pub(crate) clock: Clock,
    pub(crate) addresses: Addresses,
    pub(crate) external_bus: Option<ExternalBus>,
}

/// What became of a start.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It runs; the keeper's own event has said so already.
    Runs,
    /// It could not be started.
    Failed(SpawnFault),
    /// The keeper went away, or does not answer: what became of it is seen when it is back.
    Unknown,
}

/// One start.
pub(crate) struct Launch {
    pub(crate) spawn: Box<Spawn>,
    pub(crate) ports: BTreeMap<ServiceName, u16>,
    /// Held sockets that it inherits, in this order.
    pub(crate) sockets: Vec<Socket>,
    pub(crate) surroundings: Arc<Surroundings>,
}

// === impl Launch ===

impl Launch {
    /// Prepares the start and asks the keeper. The files that are read and written here are small and
    /// local; the detour over a thread for blocking work would take longer.
    pub(crate) async fn run(mut self, client: Client) -> Outcome {
        match sockets::bind(&client, &self.sockets).await {
            Ok(bound) => self.ports.extend(bound),
            Err(fault) => return Outcome::Failed(fault),
        }
        let spec = match self.start_spec() {
            Ok(spec) => spec,
            Err(fault) => return Outcome::Failed(fault),
        };
        failpoint("orchestrator/spawn");
        let started = client.start(spec).await;
        failpoint("orchestrator/spawned");
        match started {
            Ok(_) => Outcome::Runs,
            Err(KeeperError::Refused(failure)) => Outcome::Failed(convert::fault(&failure)),
            Err(_) => Outcome::Unknown,
        }
    }

    fn start_spec(&self) -> Result<StartSpec, SpawnFault> {
        let (spawn, paths) = (&self.spawn, &self.surroundings.paths);
        let spec = &spawn.spec;
        let mut words = fleet::words(&spec.command)
            .map_err(|_| lasting("a quote in `command` is not closed"))?
            .into_iter();
        let program = match (words.next(), &spec.container) {
            (Some(program), _) => program,
            // The image has a command of its own.
            (None, Some(_)) => String::new(),
            (None, None) => return Err(lasting("`command` is empty")),
        };
        let directory = directory_of(spec, paths.base());
        let instance = spawn.instance.to_string();
        // The engine of a container goes by paths, and may go anywhere.
        let owner = spec.user.as_deref().filter(|_| spec.container.is_none());
        let owner = owner.map(User::find).transpose()?;
        let mut doors = Doors::of(owner.map(|user| user.id), self.sockets.len());
        let mut start = StartSpec::new(instance, program, directory, self.log());
        start.arguments = words.collect();
        start.environment = self.environment(Some(&mut doors))?;
        start.passed.extend(self.identity(&mut doors)?);
        let secrets = secrets::resolve(spec, paths)?;
        start.environment.extend(secrets.variables);
        start.passed.extend(secrets.passed);
        start.listeners = self
            .sockets
            .iter()
            .map(|socket| socket.name.clone())
            .collect();
        start.user = spec.user.clone();
        start.stop_signal = spec.stop.signal.number();
        start.stop_grace_ms = spec
            .stop
            .grace
            .duration()
            .as_millis()
            .try_into()
            .unwrap_or(u64::MAX);
        start.labels = serde_json::to_value(Labels {
            service: spawn.slot.service.clone(),
            slot: spawn.slot.slot,
            epoch: spawn.epoch,
            digest: spawn.digest.clone(),
            ports: self.ports.clone(),
        })
        .unwrap_or_default();
        session::apply(&mut start, &self.spawn, paths, &mut doors)?;
        start.directories = doors.opened();
        session::listen(&mut start, spec);
        let ports: Vec<u16> = self.ports.values().copied().collect();
        let own = Own {
            ports: &ports,
            token_file: self.own_token_file(),
            state: spec
                .session
                .is_some()
                .then(|| session::directory(paths, &spawn.slot)),
        };
        confine::confine(&mut start, spec, &own, paths.base());
        if let Some(container) = &spec.container {
            container::stand_in(&mut start, self, container)?;
        }
        Ok(start)
    }

    fn log(&self) -> LogSpec {
        let slot = &self.spawn.slot;
        let settings = &self.spawn.spec.log;
        LogSpec {
            bytes_max: settings.max_size.bytes(),
            // Ours counts the rotated ones, the keeper's the current one too.
            files_max: settings.max_files.saturating_add(1),
            age_s_max: Some(settings.max_age.duration().as_secs()),
            ..LogSpec::new(
                self.surroundings.paths.log_directory(slot.service.as_str()),
                slot.slot.to_string(),
            )
        }
    }

    /// The environment for a program that looks at a run which is there. What cannot be read any more is
    /// left out: the program says what it misses.
    pub(crate) fn environment_of_probe(&self) -> Variables {
        self.environment(None)
            .unwrap_or_else(|_| self.surroundings.base.clone())
    }

    /// With doors: for a start, whose token is written. Without: for somebody of Alicia's own user.
    fn environment(&self, doors: Option<&mut Doors>) -> Result<Variables, SpawnFault> {
        let spec = &self.spawn.spec;
        let owner = spec.user.as_deref().map(User::find).transpose()?;
        let mut base = self.surroundings.base.clone();
        if let Some(User { name, home, .. }) = &owner {
            base.insert("USER".into(), name.clone());
            base.insert("HOME".into(), home.clone());
        }
        let files = read_env_files(spec, self.surroundings.paths.base())?;
        let told = self.told(doors, owner.as_ref())?;
        Ok(environment::environment(
            base,
            files,
            &self.spawn,
            &self.ports,
            &told,
        ))
    }

    fn told(&self, doors: Option<&mut Doors>, owner: Option<&User>) -> Result<Told, SpawnFault> {
        let around = &self.surroundings;
        let service = self.spawn.slot.service.to_string();
        let (username, token_file) = match (&around.external_bus, self.own_token_file()) {
            (None, None) => (service, None),
            (None, Some(path)) => (service, Some(self.token_file(&path, doors, owner)?)),
            (Some(bus), path) => (bus.username.clone().unwrap_or_default(), path),
        };
        let token_file = token_file.map(|path| path.display().to_string());
        let api = *around.addresses.api().borrow();
        Ok(Told {
            mqtt_url: around
                .addresses
                .bus()
                .borrow()
                .as_ref()
                .map(ToString::to_string),
            mqtt_username: username,
            token_file,
            topic_prefix: around.identity.prefix().to_string(),
            api_url: api.map(|address| format!("http://{address}")),
        })
    }

    /// The key of the run, and who it is: in a file that exists in memory only. From here on the run before it in
    /// this slot may do nothing.
    fn identity(&self, doors: &mut Doors) -> Result<Option<PassedFile>, SpawnFault> {
        let (spawn, around) = (&self.spawn, &self.surroundings);
        let socket = around.paths.renewal_socket();
        let beginning = Beginning {
            service: &spawn.slot.service,
            slot: spawn.slot.slot,
            instance: &spawn.instance,
            epoch: spawn.epoch,
            socket: &way_to_file(&socket, doors),
            logs_in: around.external_bus.is_none(),
        };
        let begun = around.identity.begin_run(beginning, around.clock.unix());
        let file = begun.map_err(|error| {
            SpawnFault::Passing(format!("its identity cannot be made: failed to {error}"))
        })?;
        let content = serde_json::to_vec(&file).expect("texts and numbers");
        Ok(Some(PassedFile {
            name: identity::PASSED_NAME.to_owned(),
            content: STANDARD.encode(content),
        }))
    }

    /// Where the password of the bus lies, as Alicia itself names it.
    fn own_token_file(&self) -> Option<PathBuf> {
        let around = &self.surroundings;
        match &around.external_bus {
            Some(bus) => bus.password_file.clone(),
            None if !around.identity.settings().token_file => None,
            None => Some(token_path(&around.paths, &self.spawn.instance)),
        }
    }

    /// Writes the token of a start, and names its file as the process does. Not synced to the disk: a token is good
    /// for one run, and no run outlives the machine.
    fn token_file(
        &self,
        path: &Path,
        doors: Option<&mut Doors>,
        owner: Option<&User>,
    ) -> Result<PathBuf, SpawnFault> {
        let Some(doors) = doors else {
            return Ok(path.to_owned());
        };
        let spawn = &self.spawn;
        let token = self.surroundings.identity.issue_token(&Identity::Service {
            service: spawn.slot.service.clone(),
            instance: spawn.instance.clone(),
            epoch: spawn.epoch,
        });
        let written = write_private(path, token.as_bytes()).and_then(|()| match owner {
            Some(user) => chown(path, Some(user.id), None),
            None => Ok(()),
        });
        written.map_err(|error| {
            let shown = path.display();
            SpawnFault::Passing(format!("its token cannot be written to {shown}: {error}"))
        })?;
        Ok(way_to_file(path, doors))
    }
}

/// A file of the credentials as the process names it.
fn way_to_file(path: &Path, doors: &mut Doors) -> PathBuf {
    let (directory, name) = (path.parent(), path.file_name());
    let way = doors.way_to(CREDENTIALS, directory.unwrap_or(Path::new("/")));
    way.join(name.unwrap_or_default())
}

/// The file that the output of a slot is written to now.
pub(crate) fn log_path(paths: &Paths, service: &ServiceName, slot: u32) -> PathBuf {
    paths.log_file(service.as_str(), slot)
}

fn token_path(paths: &Paths, instance: &InstanceId) -> PathBuf {
    paths.credentials().join(instance.as_str())
}

/// A run is gone: whoever still has its key or token may do nothing.
pub(crate) fn retire(identity: &Authority, paths: &Paths, instance: &InstanceId) {
    identity.end_run(instance);
    remove_token(paths, instance);
}

/// Removes the token of a run that is gone.
fn remove_token(paths: &Paths, instance: &InstanceId) {
    let path = token_path(paths, instance);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a token was not removed");
        }
        _ => {}
    }
}

/// Removes the tokens that earlier hosts left behind for runs that are gone.
pub(crate) fn sweep_tokens(paths: &Paths, is_there: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(paths.credentials()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let instance = name.to_str().and_then(|name| InstanceId::new(name).ok());
        if let Some(instance) = instance.filter(|instance| !is_there(instance.as_str())) {
            remove_token(paths, &instance);
        }
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let open = || {
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(TOKEN_MODE)
            .open(path)
    };
    let mut file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(Path::new("."));
            fs::DirBuilder::new()
                .recursive(true)
                .mode(CREDENTIALS_MODE)
                .create(directory)?;
            open()?
        }
        opened => opened?,
    };
    file.write_all(bytes)
}

fn read_env_files(spec: &ServiceSpec, base: &Path) -> Result<Vec<(String, String)>, SpawnFault> {
    let mut variables = Vec::new();
    let here = (!spec.env_files.is_empty()).then(|| Here::new(""));
    for (file, here) in spec.env_files.iter().zip(here.iter().cycle()) {
        let path = base.join(file);
        let bytes = here.read(&path).map_err(|error| {
            let shown = path.display();
            lasting(format!(
                "the file {shown} of `env_files` cannot be read: {error}"
            ))
        })?;
        let pairs = env_file::parse(file, &bytes).map_err(|faults| {
            let first = faults.first().map(ToString::to_string).unwrap_or_default();
            lasting(format!(
                "a file of `env_files` cannot be understood: {first}"
            ))
        })?;
        variables.extend(pairs);
    }
    Ok(variables)
}

fn lasting(reason: impl Into<String>) -> SpawnFault {
    SpawnFault::Lasting(reason.into())
}

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) id: u32,
    name: String,
    home: String,
}

// === impl User ===

impl User {
    /// By name or number. A number needs no entry: the kernel takes any.
    pub(super) fn find(user: &str) -> Result<Self, SpawnFault> {
        let entries = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let unnamed = || {
            let id = user.parse().ok()?;
            Some(Self {
                id,
                name: user.to_owned(),
                home: "/".to_owned(),
            })
        };
        Self::among(&entries, user).or_else(unnamed).ok_or_else(|| {
            lasting(format!(
                "there is no user `{user}`; add the user, or correct `user`"
            ))
        })
    }

    fn among(entries: &str, user: &str) -> Option<Self> {
        entries.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, id, _, _, home, ..] = fields.as_slice() else {
                return None;
            };
            (*name == user || *id == user).then_some(())?;
            Some(Self {
                id: id.parse().ok()?,
                name: (*name).to_owned(),
                home: (*home).to_owned(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let entries = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/var/www:/bin/false\n";
        let web = User {
            id: 33,
            name: "web".into(),
            home: "/var/www".into(),
        };
        assert_eq!(User::among(entries, "web"), Some(web.clone()));
        assert_eq!(User::among(entries, "33"), Some(web));
        assert_eq!(User::among(entries, "broken"), None);
        assert!(User::find("nobody-of-this-name").is_err());
        assert_eq!(User::find("4000000").map(|user| user.id), Ok(4_000_000));
    }
}
