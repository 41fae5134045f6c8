//! This machine, as Linux shows it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{Access, access};

use super::{Entry, Listener, Machine};
use crate::env_file::ENV_FILE_BYTES_MAX;

/// The state of a listening socket in `/proc/net/tcp` (`TCP_LISTEN` of Linux' `include/net/tcp_states.h`).
const TCP_LISTEN: &str = "0A";

/// This machine. The listening ports are read once, when it is made.
#[derive(Debug, Clone)]
pub struct Here {
    search_path: String,
    /// The inode of the socket by port.
    sockets: BTreeMap<u16, u64>,
}

// === impl Here ===

impl Here {
    /// This machine, with the `PATH` that programs are looked for in.
    #[must_use]
    pub fn new(search_path: impl Into<String>) -> Self {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        let sockets = tables
            .iter()
            .filter_map(|table| fs::read_to_string(table).ok())
            .flat_map(|table| table.lines().filter_map(listening).collect::<Vec<_>>())
            .collect();
        Self {
            search_path: search_path.into(),
            sockets,
        }
    }
}

impl Machine for Here {
    fn entry(&self, path: &Path) -> Option<Entry> {
        let metadata = fs::metadata(path).ok()?;
        Some(match (metadata.is_dir(), metadata.is_file()) {
            (true, _) => Entry::Directory,
            (_, true) if access(path, Access::EXEC_OK).is_ok() => Entry::Program,
            _ => Entry::File,
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = fs::File::open(path)?;
        // One byte more than is allowed, so that the reader sees that it is too much.
        file.take(ENV_FILE_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn search_path(&self) -> &str {
        &self.search_path
    }

    fn has_user(&self, name: &str) -> bool {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        // A number needs no entry: the kernel takes any.
        name.parse::<u32>().is_ok()
            || users
                .lines()
                .any(|line| line.split(':').next() == Some(name))
    }

    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn listener(&self, port: u16) -> Option<Listener> {
        let inode = self.sockets.get(&port)?;
        let pid = owner(&format!("socket:[{inode}]"));
        let program = pid
            .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok())
            .map(|name| name.trim().to_owned());
        Some(Listener { pid, program })
    }
}

/// Port and inode of a line of `/proc/net/tcp`, when it is a listening socket.
fn listening(line: &str) -> Option<(u16, u64)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
    let (_, port) = local.rsplit_once(':')?;
    (*state == TCP_LISTEN)
        .then(|| Some((u16::from_str_radix(port, 16).ok()?, inode.parse().ok()?)))
        .flatten()
}

/// The process that holds a socket, as far as it may be seen.
fn owner(socket: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| {
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
            descriptors
                .into_iter()
                .flatten()
                .flatten()
                .any(|descriptor| {
                    fs::read_link(descriptor.path())
                        .is_ok_and(|target| target.as_os_str() == socket)
                })
        })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listening_port_names_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let found = Here::new("").listener(port).expect("somebody listens");
        assert_eq!(found.pid, Some(std::process::id()));
        assert!(found.program.is_some());
        drop(listener);
        assert_eq!(Here::new("").listener(port), None);
    }

    #[test]
    fn programs_files_and_directories_are_told_apart() {
        let here = Here::new("");
        assert_eq!(here.entry(Path::new("/bin/sh")), Some(Entry::Program));
        assert_eq!(here.entry(Path::new("/etc/passwd")), Some(Entry::File));
        assert_eq!(here.entry(Path::new("/etc")), Some(Entry::Directory));
        assert_eq!(here.entry(Path::new("/gone")), None);
        assert!(
            here.has_user("root") && here.has_user("0") && !here.has_user("nobody-of-this-name")
        );
    }
}
