//! What only this machine can say about a fleet: whether programs, directories, users and ports are there.
//!
//! The checks are pure functions over [`Machine`], so that `alicia check --here` and `alicia up` ask the real one and
//! tests ask a small table.

use std::io;
use std::path::{Path, PathBuf};

use alicia_contract::fleet::{Command, Fleet, Port, ServiceSpec};

use crate::document::Document;
use crate::env_file;
use crate::fault::{Fault, in_order};
use crate::fleet::{Report, Service, words};

pub use here::Here;

mod here;

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A file that may be executed.
    Program,
    /// Any other file.
    File,
    /// A directory.
    Directory,
}

/// Who listens on a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listener {
    /// The process, when it may be seen.
    pub pid: Option<u32>,
    /// Its program, when it may be seen.
    pub program: Option<String>,
}

/// The outside world, as far as a fleet needs it.
pub trait Machine {
    /// What stands at a path; `None` when nothing does.
    fn entry(&self, path: &Path) -> Option<Entry>;

    /// The content of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The directories in which programs are looked for: the `PATH`.
    fn search_path(&self) -> &str;

    /// Whether there is a user of this name or number.
    fn has_user(&self, name: &str) -> bool;

    /// Whether this program runs as root, who alone may run others as other users.
    fn is_root(&self) -> bool;

    /// Who listens on a TCP port; `None` when nobody does.
    fn listener(&self, port: u16) -> Option<Listener>;
}

/// Programs, directories, files of variables and users. `base` is the directory of the file.
#[must_use]
pub fn check(
    fleet: &Fleet,
    document: Option<&Document>,
    base: &Path,
    machine: &impl Machine,
) -> Vec<Fault> {
    let mut report = Report {
        document,
        faults: Vec::new(),
    };
    for (name, spec) in &fleet.services {
        let service = Service {
            name,
            spec,
            fleet,
            report: &mut report,
        };
        let mut visit = Visit {
            directory: directory_of(spec, base),
            service,
            base,
            machine,
        };
        visit.env_files();
        // What is in an image, only the engine knows.
        if spec.container.is_none() {
            visit.directory();
            visit.program();
            visit.user();
        }
    }
    in_order(report.faults)
}

/// Fixed ports that are taken. Not to be asked for services that run: they listen themselves.
#[must_use]
pub fn check_ports(
    fleet: &Fleet,
    document: Option<&Document>,
    machine: &impl Machine,
) -> Vec<Fault> {
    let mut report = Report {
        document,
        faults: Vec::new(),
    };
    for (name, spec) in &fleet.services {
        for (port_name, port) in &spec.ports {
            let Port::Fixed(port) = port else { continue };
            let Some(listener) = machine.listener(*port) else {
                continue;
            };
            let mut service = Service {
                name,
                spec,
                fleet,
                report: &mut report,
            };
            let message = format!("the port {port} is taken{}", by_whom(&listener));
            let hint = "stop that program, choose another port, or write `auto`";
            service.fault(&format!("ports/{port_name}"), message, hint);
        }
    }
    in_order(report.faults)
}

fn by_whom(listener: &Listener) -> String {
    match (&listener.program, listener.pid) {
        (Some(program), Some(pid)) => format!(" by {program} (pid {pid})"),
        (None, Some(pid)) => format!(" by the process {pid}"),
        _ => String::new(),
    }
}

/// The working directory of a service.
#[must_use]
pub fn directory_of(spec: &ServiceSpec, base: &Path) -> PathBuf {
    base.join(spec.directory.as_deref().unwrap_or_default())
}

/// One service while its surroundings are checked.
struct Visit<'v, 's, 'r, M> {
    service: Service<'s, 'r>,
    directory: PathBuf,
    base: &'v Path,
    machine: &'v M,
}

// === impl Visit ===

impl<M: Machine> Visit<'_, '_, '_, M> {
    fn directory(&mut self) {
        let shown = self.directory.display().to_string();
        let written = self.service.spec.directory.as_deref().unwrap_or_default();
        let (message, hint) = match self.machine.entry(&self.directory) {
            Some(Entry::Directory) => return,
            Some(_) => (
                format!("{shown} is not a directory"),
                "name its directory".to_owned(),
            ),
            None if written.starts_with('~') => (
                format!("there is no directory {shown}"),
                "`~` is not replaced: write the whole path".to_owned(),
            ),
            None => (
                format!("there is no directory {shown}"),
                format!("run `mkdir -p {shown}`"),
            ),
        };
        self.service.fault("directory", message, hint);
    }

    fn program(&mut self) {
        let command = &self.service.spec.command;
        // What cannot be split is said by the check of the fleet.
        let Some(program) = words(command)
            .ok()
            .and_then(|words| words.into_iter().next())
        else {
            return;
        };
        let part = match command {
            Command::List(_) => "command/0",
            Command::Text(_) => "command",
        };
        let fault = match program.contains('/') {
            true => self.fault_of_path(&program),
            false => self.fault_of_name(&program),
        };
        if let Some((message, hint)) = fault {
            self.service.fault(part, message, hint);
        }
    }

    fn fault_of_path(&self, program: &str) -> Option<(String, String)> {
        let path = self.directory.join(program.trim_start_matches("./"));
        let shown = path.display();
        match self.machine.entry(&path) {
            Some(Entry::Program) => None,
            Some(Entry::File) => Some((
                format!("{shown} is not executable"),
                format!("run `chmod +x {shown}`, or name its interpreter first"),
            )),
            Some(Entry::Directory) => Some((
                format!("{shown} is a directory"),
                "name a program".to_owned(),
            )),
            None => Some((
                format!("there is no program {shown}"),
                "a relative path begins in the service's directory".to_owned(),
            )),
        }
    }

    fn fault_of_name(&self, program: &str) -> Option<(String, String)> {
        let own = self
            .service
            .spec
            .environment
            .get("PATH")
            .map(ToString::to_string);
        let search_path = own.as_deref().unwrap_or(self.machine.search_path());
        let directories: Vec<&str> = search_path.split(':').filter(|d| !d.is_empty()).collect();
        let mut found = directories.iter().filter_map(|directory| {
            let path = self.directory.join(directory).join(program);
            self.machine
                .entry(&path)
                .filter(|entry| *entry == Entry::Program)
        });
        if found.next().is_some() {
            return None;
        }
        let here = self.machine.entry(&self.directory.join(program)).is_some();
        let hint = match here {
            true => format!("write `./{program}` for the one in the service's directory"),
            false => "install it, or write its whole path".to_owned(),
        };
        let places = directories.join(", ");
        Some((format!("there is no program `{program}` in {places}"), hint))
    }

    fn env_files(&mut self) {
        for (index, file) in self.service.spec.env_files.iter().enumerate() {
            let path = self.base.join(file);
            let part = format!("env_files/{index}");
            let shown = path.display().to_string();
            match self.machine.read(&path) {
                Ok(bytes) => {
                    let faults = env_file::parse(&shown, &bytes).err().unwrap_or_default();
                    self.service.report.faults.extend(faults);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let message = format!("there is no file {shown}");
                    let hint = "a relative path begins in the directory of this file";
                    self.service.fault(&part, message, hint);
                }
                Err(error) => {
                    let message = format!("the file {shown} cannot be read: {error}");
                    self.service.fault(&part, message, "check its permissions");
                }
            }
        }
    }

    fn user(&mut self) {
        let Some(user) = self.service.spec.user.as_deref() else {
            return;
        };
        if !self.machine.has_user(user) {
            let message = format!("there is no user `{user}` on this machine");
            self.service
                .fault("user", message, "create the user, or remove the key");
        } else if !self.machine.is_root() {
            let message = format!("only root may start a program as `{user}`");
            self.service
                .fault("user", message, "remove the key, or run Alicia as root");
        }
    }
}

#[cfg(test)]
mod tests;
