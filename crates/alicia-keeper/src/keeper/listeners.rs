//! Listening sockets that outlive host and instances.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::epoll;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt,
};

use super::token::Token;
use super::{Keeper, note};
use crate::protocol::{Event, Failure, FailureCode, ListenerInfo, is_name};

/// Connections that wait for a service that is being restarted. The kernel cuts it to `somaxconn`.
const BACKLOG: i32 = 4096;
/// More than ports that people give to services by hand.
const LISTENERS_MAX: usize = 1024;

/// By name.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    held: BTreeMap<String, Held>,
    last_number: u64,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) socket: TcpListener,
    pub(super) info: ListenerInfo,
    /// Names it in events of epoll; never used again.
    number: u64,
    /// Whether epoll watches it now.
    is_armed: bool,
}

impl Held {
    pub(super) fn new(socket: TcpListener, info: ListenerInfo) -> Self {
        Self {
            socket,
            info,
            number: 0,
            is_armed: false,
        }
    }
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
            .map(|(socket, bound)| {
                let info = ListenerInfo {
                    name: name.to_owned(),
                    requested: address.to_owned(),
                    address: bound.to_string(),
                    is_watched: false,
                };
                Held::new(socket, info)
            })
            .map_err(|error| {
                Failure::system(format!("{address} cannot be bound: {error}"), &error)
            })?;
        let info = held.info.clone();
        self.insert(held);
        Ok(info)
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

    pub(super) fn insert(&mut self, mut held: Held) {
        self.last_number += 1;
        held.number = self.last_number;
        self.held.insert(held.info.name.clone(), held);
    }
}

impl Keeper {
    pub(super) fn unlisten(&mut self, name: &str) -> Result<(), Failure> {
        self.take_watch_back(name);
        match self.listeners.held.remove(name) {
            Some(_) => Ok(()),
            None => Err(unknown(name)),
        }
    }

    pub(super) fn watch_listener(&mut self, name: &str) -> Result<(), Failure> {
        let held = self
            .listeners
            .held
            .get_mut(name)
            .ok_or_else(|| unknown(name))?;
        held.info.is_watched = true;
        self.arm(name);
        Ok(())
    }

    /// Begins to watch those that are to be watched and that no instance serves any more.
    pub(super) fn arm_listeners(&mut self, names: &[String]) {
        for name in names {
            self.arm(name);
        }
    }

    fn arm(&mut self, name: &str) {
        let serves = |listeners: &[String]| listeners.iter().any(|it| it == name);
        let is_served = self
            .instances
            .values()
            .any(|instance| instance.is_alive() && serves(&instance.listeners));
        let Some(held) = self.listeners.held.get_mut(name) else {
            return;
        };
        if is_served || held.is_armed || !held.info.is_watched {
            return;
        }
        let token = Token::Listener(held.number).data();
        match epoll::add(&self.poll, &held.socket, token, epoll::EventFlags::IN) {
            Ok(()) => held.is_armed = true,
            Err(error) => note(&format!("listener {name}: cannot watch it: {error}")),
        }
    }

    /// An instance serves it now, or it is closed.
    pub(super) fn take_watch_back(&mut self, name: &str) {
        if let Some(held) = self.listeners.held.get_mut(name) {
            held.info.is_watched = false;
            if std::mem::take(&mut held.is_armed)
                && let Err(error) = epoll::delete(&self.poll, &held.socket)
            {
                note(&format!("listener {name}: cannot forget it: {error}"));
            }
        }
    }

    /// Somebody connects.
    pub(super) fn listener_ready(&mut self, number: u64) {
        let watched = self.listeners.held.values();
        let name = watched
            .filter(|held| held.is_armed)
            .find_map(|held| (held.number == number).then(|| held.info.name.clone()));
        if let Some(name) = name {
            self.take_watch_back(&name);
            self.broadcast(&Event::ListenerReady { name });
        }
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
