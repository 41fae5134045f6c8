//! Listening sockets that the keeper holds on behalf of services: bound before the first start, inherited by every
//! instance, let go when no service has them any more.

use std::collections::{BTreeMap, BTreeSet};

use alicia_contract::ServiceName;
use alicia_contract::fleet::{Port, ServiceSpec};
use alicia_keeper::{Client, Error as KeeperError};
use sha2::{Digest as _, Sha256};

use super::Engine;
use crate::core::event::SpawnFault;

/// The part of a port's name that the name of its socket begins with: programs see it in `LISTEN_FDNAMES`, and the
/// keeper takes 63 characters in all.
const NAME_CHARS_MAX: usize = 46;

/// Bytes of the hash at its end, which tells apart the sockets of all services.
const HASH_BYTES: usize = 8;

/// A socket that a service wants held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Socket {
    /// The port's name in the file.
    pub(crate) port: ServiceName,
    /// What the keeper calls it.
    pub(crate) name: String,
    /// Where it is bound. Port 0: the keeper chooses once.
    pub(crate) address: String,
}

/// The sockets of a service, in the order in which its instances inherit them.
pub(crate) fn of(service: &ServiceName, spec: &ServiceSpec) -> Vec<Socket> {
    let held = spec.ports.iter().filter_map(|(port, kind)| match kind {
        Port::Held(number) => Some((port, number.unwrap_or_default())),
        _ => None,
    });
    held.map(|(port, number)| Socket {
        name: name(service, port, number),
        address: format!("127.0.0.1:{number}"),
        port: port.clone(),
    })
    .collect()
}

/// Another number is another socket, so that both can be there while an update goes from one to the other.
fn name(service: &ServiceName, port: &ServiceName, number: u16) -> String {
    let hash = Sha256::digest(format!("{service}/{port}/{number}"));
    let hash = hash[..HASH_BYTES].iter();
    let hash: String = hash.map(|byte| format!("{byte:02x}")).collect();
    let shown: String = port.as_str().chars().take(NAME_CHARS_MAX).collect();
    format!("{shown}-{hash}")
}

/// Has the keeper listen. Gives the port numbers by name.
pub(crate) async fn bind(
    client: &Client,
    sockets: &[Socket],
) -> Result<BTreeMap<ServiceName, u16>, SpawnFault> {
    let mut ports = BTreeMap::new();
    for socket in sockets {
        let info = client
            .listen(&socket.name, &socket.address)
            .await
            .map_err(|error| refused(socket, &error))?;
        let number = info
            .address
            .rsplit_once(':')
            .and_then(|(_, number)| number.parse().ok());
        ports.insert(socket.port.clone(), number.unwrap_or_default());
    }
    Ok(ports)
}

fn refused(socket: &Socket, error: &KeeperError) -> SpawnFault {
    let why = match error.failure() {
        Some(failure) => failure.message.clone(),
        None => error.to_string(),
    };
    SpawnFault::Passing(format!(
        "the held port `{}` cannot be had: {why}; stop the program that has it, or write another port",
        socket.port
    ))
}

impl Engine {
    /// Lets go of sockets that no service has any more, and has those watched whose service waits for its first
    /// client.
    pub(super) fn tidy_sockets(&mut self) {
        let Some(client) = self.client.clone() else {
            return;
        };
        let wanted: BTreeSet<String> = self
            .core
            .all_specs()
            .flat_map(|(service, spec)| of(service, spec))
            .map(|socket| socket.name)
            .collect();
        self.sockets.extend(wanted.iter().cloned());
        let unwanted: Vec<String> = self.sockets.difference(&wanted).cloned().collect();
        self.sockets.retain(|name| wanted.contains(name));
        for name in unwanted {
            let client = client.clone();
            self.cx.spawn("let a socket go", async move {
                match client.unlisten(&name).await {
                    Ok(()) => tracing::debug!(name, "a held socket was let go"),
                    // It was never bound.
                    Err(error) => tracing::debug!(name, %error, "a socket was not let go"),
                }
            });
        }
        self.watch_sleepers(&client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_names_of_their_own_in_the_order_of_the_ports() {
        let spec: ServiceSpec =
            serde_json::from_value(serde_json::json!({ "command": "x", "ports": {
                "admin": "auto",
                "http": { "number": 8080, "held": true },
                "grpc": { "number": "auto", "held": true },
            }}))
            .expect("a service");
        let service = |name: &str| ServiceName::new(name).expect("a name");
        let sockets = of(&service("api"), &spec);
        let told: Vec<_> = sockets
            .iter()
            .map(|s| (s.port.as_str(), s.address.as_str()))
            .collect();
        assert_eq!(told, [("grpc", "127.0.0.1:0"), ("http", "127.0.0.1:8080")]);
        assert_ne!(sockets, of(&service("web"), &spec));
        let long = name(&service("api"), &service(&"a".repeat(63)), 1);
        assert_eq!(long.len(), 63);
    }
}
