//! Listening sockets that outlive host and instances.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt,
};

use crate::protocol::{Failure, FailureCode, ListenerInfo, is_name};

/// Connections that wait for a service that is being restarted. The kernel cuts it to `somaxconn`.
const BACKLOG: i32 = 4096;
/// More than ports that people give to services by hand.
const LISTENERS_MAX: usize = 1024;

/// By name.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    held: BTreeMap<String, Held>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) socket: TcpListener,
    pub(super) info: ListenerInfo,
}

impl Listeners {
    pub(super) fn listen(&mut self, name: &str, address: &str) -> Result<ListenerInfo, Failure> {
        let invalid = |message: String| Failure::new(FailureCode::InvalidRequest, message);
        if !is_name(name) {
            return Err(invalid(format!(
                "\"{name}\" is no name: [a-z0-9-], 1 to 63 characters"
            )));
        }
        if let Some(held) = self.held.get(name) {
            if held.info.requested == address {
                return Ok(held.info.clone());
            }
            let message = format!("listener \"{name}\" is bound to {}", held.info.address);
            return Err(Failure::new(FailureCode::ListenerExists, message));
        }
        if self.held.len() >= LISTENERS_MAX {
            let message = format!("there are {LISTENERS_MAX} listeners, which is the limit");
            return Err(Failure::new(FailureCode::LimitReached, message));
        }
        let wanted: SocketAddr = address.parse().map_err(|_| {
            invalid(format!(
                "\"{address}\" is no address: write 127.0.0.1:8080 or [::1]:8080"
            ))
        })?;
        let held = bind_listener(wanted)
            .map(|(socket, bound)| Held {
                socket,
                info: ListenerInfo {
                    name: name.to_owned(),
                    requested: address.to_owned(),
                    address: bound.to_string(),
                },
            })
            .map_err(|error| {
                Failure::system(format!("{address} cannot be bound: {error}"), &error)
            })?;
        let info = held.info.clone();
        self.held.insert(name.to_owned(), held);
        Ok(info)
    }

    pub(super) fn unlisten(&mut self, name: &str) -> Result<(), Failure> {
        match self.held.remove(name) {
            Some(_) => Ok(()),
            None => Err(unknown(name)),
        }
    }

    pub(super) fn infos(&self) -> Vec<ListenerInfo> {
        self.held.values().map(|held| held.info.clone()).collect()
    }

    /// The sockets of these names, in this order.
    pub(super) fn sockets(&self, names: &[String]) -> Result<Vec<BorrowedFd<'_>>, Failure> {
        let find = |name: &String| self.held.get(name).ok_or_else(|| unknown(name));
        names
            .iter()
            .map(|name| find(name).map(|held| held.socket.as_fd()))
            .collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    pub(super) fn insert(&mut self, held: Held) {
        self.held.insert(held.info.name.clone(), held);
    }
}

fn unknown(name: &str) -> Failure {
    Failure::new(
        FailureCode::ListenerUnknown,
        format!("there is no listener \"{name}\""),
    )
}

fn bind_listener(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        Some(ipproto::TCP),
    )?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    let socket = TcpListener::from(socket);
    let bound = socket.local_addr()?;
    Ok((socket, bound))
}
